"""When the configuration is taken up anew, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog

from router.errors import ConfigError
from router.reload import Adopted, Reloader
from router.telemetry import Log, Metrics

FILE = Path("/headrace.yaml")
SECRET = Path("/secret")


class Files:
    """Files with a number each for what is in them, and what was done about them."""

    def __init__(self) -> None:
        self.now: dict[Path, int] = {FILE: 1}
        self.mistakes: tuple[str, ...] = ()
        self.need_restart: tuple[str, ...] = ()
        self.reads = 0
        self.looks = 0
        #: Each time something was taken on: was it by hand?
        self.adopted: asyncio.Queue[bool] = asyncio.Queue()
        self.metrics = Metrics()
        self.lines: list[Any] = []
        #: The file changes at every look until this one.
        self.busy_until = 0

    def read(self, seen: dict[Path, Any]) -> str:
        self.reads += 1
        seen.update(self.now)
        if self.mistakes:
            raise ConfigError("\n".join(self.mistakes))
        return "configuration"

    def look(self, seen: Any) -> dict[Path, Any]:
        self.looks += 1
        if self.looks < self.busy_until:
            self.now[FILE] += 1
        return {path: self.now.get(path) for path in seen}

    async def adopt(self, configuration: str, by_hand: bool) -> Adopted:  # noqa: FBT001 - as it is called
        assert configuration == "configuration"
        self.adopted.put_nowait(by_hand)
        return Adopted({"start": 1}, ["f"], [], self.need_restart)

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"headrace_config_{name}")

    async def until(self, event: str, count: int = 1) -> None:
        async with asyncio.timeout(20):
            while [line["event"] for line in self.lines].count(event) < count:  # noqa: ASYNC110 - capture_logs has none
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def followed(files: Files) -> AsyncIterator[Reloader[str]]:
    with structlog.testing.capture_logs() as files.lines:
        reloader = Reloader(
            FILE,
            dict(files.now),
            read=files.read,
            look=files.look,
            adopt=files.adopt,
            log=Log(),
            metrics=files.metrics,
            wall=lambda: 0.0,
            look_s=0.01,
        )
        work = asyncio.create_task(reloader.run())
        try:
            yield reloader
        finally:
            work.cancel()
            await asyncio.wait([work])


async def test_what_is_asked_for_is_done_once() -> None:
    files = Files()
    async with followed(files) as reloader:
        reloader.ask()
        reloader.ask()
        assert await files.adopted.get() is True
        await files.until("config.reloaded")
        assert files.reads == 1


async def test_a_file_that_changed_is_taken_up_when_nobody_writes_it_any_more() -> None:
    files = Files()
    files.busy_until = 10
    async with followed(files):
        assert await files.adopted.get() is False
        assert (files.reads, files.looks >= 10) == (1, True)


async def test_a_file_that_cannot_be_used_is_told_once_a_change_and_nothing_is_done() -> None:
    files = Files()
    files.mistakes = ("headrace.yaml:1: a", "headrace.yaml:2: b")
    async with followed(files) as reloader:
        files.now[FILE] = 2
        await files.until("config.refused")
        assert reloader.status() == {
            "file": "/headrace.yaml",
            "loaded_at": "1970-01-01T00:00:00.000Z",
            "refused": {"at": "1970-01-01T00:00:00.000Z", "mistakes": list(files.mistakes)},
            "needs_restart": [],
        }
        assert files.metric("usable") == 0
        files.now[FILE] = 3
        await files.until("config.refused", 2)
        assert (files.reads, files.adopted.qsize()) == (2, 0)
        files.mistakes = ()
        files.now[FILE] = 4
        await files.adopted.get()
        await files.until("config.reloaded")
        assert (reloader.status()["refused"], files.metric("usable")) == (None, 1)


async def test_what_a_broken_file_lacks_is_looked_for_too() -> None:
    files = Files()
    files.mistakes = ("headrace.yaml:1: file /secret does not exist",)
    async with followed(files):
        files.now = {FILE: 2, SECRET: 1}
        await files.until("config.refused")
        files.mistakes = ()
        files.now[SECRET] = 2
        await files.adopted.get()


async def test_what_needs_a_restart_is_told_once_and_until_it_is_taken_back() -> None:
    files = Files()
    files.need_restart = ("listen",)
    async with followed(files) as reloader:
        for count in (1, 2):
            reloader.ask()
            await files.until("config.reloaded", count)
        assert [line["event"] for line in files.lines].count("config.needs_restart") == 1
        assert (reloader.status()["needs_restart"], files.metric("needs_restart")) == (["listen"], 1)
        files.need_restart = ()
        reloader.ask()
        await files.until("config.reloaded", 3)
        assert (reloader.status()["needs_restart"], files.metric("needs_restart")) == ([], 0)
