"""Real worker processes: a folder of code, a pool over it, and outcomes that are awaited."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from handlers.function import FunctionSpec
from handlers.pool import Pool
from router.core.model import Cancelled, Outcome
from router.ports import Invocation

PATIENCE_S = 15


class Memory:
    """A LogSink that remembers."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def write(self, request_id: str, text: str) -> None:
        self.texts.append((request_id, text))

    def close(self) -> None:
        pass


class Shop:
    """One function under test and its pool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "code"
        self.code.mkdir()
        self.log = Memory()
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
        spec = FunctionSpec(**{"name": "orders", "handler": handler, "code": self.code, **fields})
        pool = Pool(spec, state=self.folder / "state", sink=self.log, lock=lock, cgroups=cgroups)
        self.pools.append(pool)
        return pool

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


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path)
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


def is_running(pid: int) -> bool:
    """Is there such a process, and is it more than an entry that waits for its parent?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
