"""Reading the embedded store: beside a running daemon or without one, never in the way of what writes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

from connectors.store import rows, schema
from connectors.store.errors import store_errors
from router.errors import StoreUnavailable
from router.ports import Backlog, FailureEntry, Selection

T = TypeVar("T")

FILE_NAME: Final = "headrace.db"
#: How long a lock of another program is waited for; ours never wait for each other.
BUSY_S: Final = 0.5


class SqliteReader:
    """The reading half of the Store port, on a connection and a thread of its own."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._reading = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headrace-read")

    @classmethod
    async def open_read_only(cls, directory: Path) -> Self:
        """Open the store of a state directory, whether a daemon uses it or not.

        Raises:
            StoreUnavailable: there is none, or it cannot be read.
        """
        path = directory / FILE_NAME
        return cls(path, await asyncio.to_thread(_open_read_only, path))

    async def states(self, mapping: str) -> Mapping[str, str]:
        return await self._read(lambda database: rows.states(database, mapping))

    async def failures(self, selection: Selection) -> Sequence[FailureEntry]:
        return await self._read(lambda database: rows.failures(database, selection))

    async def event(self, failure_id: str) -> bytes | None:
        return await self._read(lambda database: rows.event(database, failure_id))

    async def undelivered(self, mapping: str) -> Sequence[FailureEntry]:
        return await self._read(lambda database: rows.undelivered(database, mapping))

    async def backlog(self, mapping: str) -> Backlog:
        return await self._read(lambda database: rows.backlog(database, mapping))

    async def backup(self, target: Path) -> None:
        """Write a consistent copy in one file (0600); put in place of headrace.db, it is that state again.

        Raises:
            StoreUnavailable: `target` exists, or cannot be written.
        """
        await asyncio.to_thread(self._copy, target)

    async def close(self) -> None:
        """Close the connection. May come twice."""
        await asyncio.to_thread(self._thread.shutdown)
        self._reading.close()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)
        except RuntimeError as error:
            raise StoreUnavailable(f"state in {self._path}: it is closed") from error

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with store_errors(self._path):
            return work(self._reading)

    def _copy(self, target: Path) -> None:
        # A connection of its own, so that a long copy holds up no other reader.
        with contextlib.closing(_open_read_only(self._path)) as database, store_errors(self._path):
            schema.copy(database, target)


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """Open a database for use on any one thread at a time, without transactions that Python begins by itself."""
    uri = f"{path.absolute().as_uri()}?{mode}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    database.execute("PRAGMA foreign_keys = ON")
    return database


def _open_read_only(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise _absent(path)
    with store_errors(path):
        try:
            return _checked(connect(path, mode="mode=ro"), path)
        except sqlite3.OperationalError:
            # A reader of a write-ahead log needs its index beside it. Where that cannot be made, because the directory
            # cannot be written, nobody else writes either; without a log the file alone is the whole store.
            if path.with_name(f"{path.name}-wal").exists():
                raise
            return _checked(connect(path, mode="immutable=1"), path)


def _checked(database: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        version = schema.check(database, path)
    except BaseException:
        database.close()
        raise
    if not version:
        database.close()
        raise _absent(path)
    return database


def _absent(path: Path) -> StoreUnavailable:
    return StoreUnavailable(f"there is no state in {path.parent}: no headrace has run with it yet")
