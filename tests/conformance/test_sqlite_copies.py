"""A copy of the embedded store is whole and done in bounded time, whatever is written meanwhile."""

# ruff: noqa: ASYNC240 - nothing else runs on the loop while a test looks at files

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from connectors.store.reader import back_up
from connectors.store.sqlite import SqliteStore
from router.errors import StoreUnavailable
from router.ports import KeepFailure, PutState
from tests.conformance.store import ids, keep
from tests.fakes.failures import EVENT, entry

KIB_64 = os.urandom(64 * 1024)


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    return sqlite_store


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


class Writing:
    """Writes failures as fast as the store takes them, each with its number in the same transaction."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._stop = asyncio.Event()
        self._tasks = [asyncio.ensure_future(self._write(lane)) for lane in range(8)]
        #: Written so far, for threads to wait for.
        self.count = 0
        self._more = threading.Condition()

    async def _write(self, lane: int) -> None:
        number = 0
        while not self._stop.is_set():
            failure = f"{lane}-{number}"
            await self._store.apply([KeepFailure(entry(failure), EVENT), PutState("orders", f"{lane}", str(number))])
            number += 1
            with self._more:
                self.count += 1
                self._more.notify_all()

    def wait_for_more(self) -> None:
        """Block a thread until more has been written than now."""
        with self._more:
            before = self.count
            self._more.wait_for(lambda: self.count > before + 10, timeout=60)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


async def assert_consistent(directory: Path, before: int) -> None:
    restored = await SqliteStore.open(directory)
    last = await restored.states("orders")
    written = {f"{lane}-{number}" for lane in range(8) for number in range(int(last.get(f"{lane}", "-1")) + 1)}
    assert set(await ids(restored)) == {*(f"before-{number:03}" for number in range(before)), *written}
    assert await restored.event("before-000") == KIB_64
    await restored.close()


async def test_a_copy_under_load_is_one_moment_of_the_store(store: SqliteStore, directory: Path) -> None:
    await keep(store, *(entry(f"before-{number:03}") for number in range(100)), event=KIB_64)
    restored = directory.parent / "restored"
    restored.mkdir()
    writing = Writing(store)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        writing.wait_for_more()  # something is written between any two steps of the copy

    await asyncio.to_thread(back_up, directory, restored / "headrace.db", tell)
    await writing.stop()
    # It went straight through: a copy that begins anew whenever somebody has written would never end here.
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) >= 2
    assert told[-1][0] == told[-1][1] == (restored / "headrace.db").stat().st_size
    await assert_consistent(restored, 100)


async def test_the_log_shrinks_again_after_a_copy(store: SqliteStore, directory: Path) -> None:
    await keep(store, *(entry(f"before-{number:03}") for number in range(30)), event=KIB_64)
    log = directory / "headrace.db-wal"

    def tell(*_: int) -> None:
        # More than the log keeps, while it must not be emptied.
        asyncio.run_coroutine_threadsafe(fill("during"), loop).result()

    async def fill(name: str) -> None:
        for number in range(40):
            await keep(store, *(entry(f"{name}-{number}-{part}") for part in range(10)), event=KIB_64)

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(back_up, directory, directory.parent / "copy", tell)
    grown = log.stat().st_size
    assert grown > 20 * 1024**2
    await fill("after")
    assert log.stat().st_size < grown


async def test_only_this_user_may_read_a_copy(store: SqliteStore, directory: Path) -> None:
    target = directory.parent / "copies" / "copy"
    target.parent.mkdir()
    await keep(store, entry())
    back_up(directory, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]


async def test_a_copy_replaces_nothing(store: SqliteStore, directory: Path) -> None:
    await keep(store, entry())
    target = directory.parent / "precious"
    target.write_text("mine")
    with pytest.raises(StoreUnavailable, match="precious exists already; name a file that does not"):
        back_up(directory, target)
    assert target.read_text() == "mine"


async def test_a_copy_that_is_broken_off_leaves_nothing(store: SqliteStore, directory: Path) -> None:
    await keep(store, *(entry(f"f{number}") for number in range(100)), event=KIB_64)

    def interrupt(done: int, _: int) -> None:
        raise KeyboardInterrupt

    target = directory.parent / "copies" / "copy"
    target.parent.mkdir()
    with pytest.raises(KeyboardInterrupt):
        back_up(directory, target, interrupt)
    assert list(target.parent.iterdir()) == []
    back_up(directory, target)


async def test_a_copy_that_cannot_be_written_leaves_nothing(
    store: SqliteStore, directory: Path, small_disk: Path
) -> None:
    await keep(store, *(entry(f"f{number}") for number in range(30)), event=KIB_64)
    with pytest.raises(StoreUnavailable, match=r"cannot write the copy .*full"):
        back_up(directory, small_disk / "copy")
    assert list(small_disk.iterdir()) == []
    with pytest.raises(StoreUnavailable, match=r"cannot write the copy .*No such file"):
        back_up(directory, small_disk / "missing" / "copy")


async def test_without_a_store_there_is_no_copy(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no headrace has run with it yet"):
        back_up(tmp_path, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []
