"""Real worker processes: a folder of code, a pool over it, and outcomes that are awaited."""

from __future__ import annotations

import asyncio
import json
import os
import select
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from handlers.function import FunctionSpec
from handlers.pool import Pool
from router.core.model import Cancelled, Outcome
from router.ports import Invocation

PATIENCE_S = 30


class Memory:
    """A LogSink that remembers."""

    def __init__(self, *, is_live: bool = False) -> None:
        self.is_live = is_live
        self.texts: list[tuple[str, str]] = []
        #: The stream of each of these.
        self.streams: list[str] = []

    def write(self, request_id: str, text: str, stream: str = "") -> None:
        self.texts.append((request_id, text))
        self.streams.append(stream)

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Those that belong to a request: what a process prints that only forks workers does not."""
        return [(request_id, text) for request_id, text in self.texts if request_id]


class Shop:
    """One function under test and its pool."""

    def __init__(self, folder: Path, *, snap_start: bool = False) -> None:
        self.folder = folder
        self.snap_start = snap_start
        self.code = folder / "code"
        self.code.mkdir()
        self.log = Memory()
        self.notes: list[tuple[str, dict[str, object]]] = []
        self.pools: list[Pool] = []
        self._count = 0

    def write(self, source: str, path: str = "app.py") -> None:
        file = self.code / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source))

    def pool(
        self, source: str | None = None, *, handler: str = "app.handle", lock=None, cgroups=None, **fields
    ) -> Pool:
        if source is not None:
            self.write(source)
        known = {"name": "orders", "handler": handler, "code": self.code, "snap_start": self.snap_start}
        # Who does not ask for a limit is not to meet one on a machine that is busy with something else for a while.
        spec = FunctionSpec(**{**known, "timeout_s": float(PATIENCE_S), **fields})
        pool = Pool(spec, state=self.folder / "state", sink=self.log, lock=lock, cgroups=cgroups, note=self._note)
        self.pools.append(pool)
        return pool

    def _note(self, event: str, **fields: object) -> None:
        self.notes.append((event, fields))

    def start(
        self, pool: Pool, event: object = None, request_id: str | None = None, encode: Callable[[], bytes] | None = None
    ) -> asyncio.Future[Outcome]:
        """Begin an invocation; the future ends with its outcome, and fails when it ends twice."""
        self._count += 1
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        body = json.dumps(event).encode()
        pool.invoke(
            Invocation(request_id or f"request-{self._count}", encode or (lambda: body), True, outcome.set_result)
        )
        assert not outcome.done(), "done() came from inside invoke()"
        return outcome

    async def invoke(self, pool: Pool, event: object = None, request_id: str | None = None) -> Outcome:
        return await asyncio.wait_for(self.start(pool, event, request_id), PATIENCE_S)

    async def settle(self, pool: Pool, event: object, request_id: str) -> tuple[Outcome, int]:
        """Invoke it as an engine does, at once again whenever it ends as Cancelled; give the outcome and the tries."""
        for tries in range(1, 10):
            outcome = await self.invoke(pool, event, request_id)
            if outcome != Cancelled():
                return outcome, tries
        raise AssertionError(f"{request_id} ends as Cancelled for ever")

    async def run(self, source: str, event: object = None, **fields) -> Outcome:
        """Make a pool over this source and invoke it once."""
        return await self.invoke(self.pool(source, **fields), event)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what a file that says BOTH_WAYS tests with workers that are forked too: they promise the same."""
    if "shop" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_WAYS", False):
        metafunc.parametrize("shop", ["started", "forked"], indirect=True)


@pytest.fixture
async def shop(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path, snap_start=getattr(request, "param", None) == "forked")
    yield shop
    for pool in shop.pools:
        await pool.close()
        assert pool.status.workers == 0


async def eventually(fact: Callable[[], object], what: str) -> None:
    """Wait for a fact about other processes, which nobody announces."""
    for _ in range(PATIENCE_S * 100):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never came true: {what}")


def await_death(pid: int) -> None:
    """Block the loop meanwhile, so that nobody on it has had time to see the end."""
    descriptor = os.pidfd_open(pid)
    select.select([descriptor], [], [], PATIENCE_S)
    os.close(descriptor)


def is_running(pid: int) -> bool:
    """Is there such a process, and is it more than an entry that waits for its parent?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
