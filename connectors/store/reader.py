"""Reading the embedded store: beside a running daemon or without one, never in the way of what writes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from connectors.store import rows, schema
from connectors.store.asking import Asking
from connectors.store.copies import Tell, copy
from connectors.store.errors import store_errors
from router.errors import StoreUnavailable
from router.ports import Backlog, FailureEntry, Selection, Tally

FILE_NAME: Final = "headrace.db"
#: How long a lock of another program is waited for; ours never wait for each other.
BUSY_S: Final = 0.5


class SqliteReader(Asking):
    """The reading half of the Store port, on a connection and a thread of its own."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        super().__init__(path, database, "headrace-read")

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

    async def some_states(self, mapping: str, keys: Sequence[str]) -> Mapping[str, str]:
        return await self._read(lambda database: rows.some_states(database, mapping, keys))

    async def failures(self, selection: Selection) -> Sequence[FailureEntry]:
        return await self._read(lambda database: rows.failures(database, selection))

    async def count(self, selection: Selection) -> int:
        return await self._read(lambda database: rows.count(database, selection))

    async def event(self, failure_id: str) -> bytes | None:
        return await self._read(lambda database: rows.event(database, failure_id))

    async def undelivered(self, mapping: str) -> Sequence[FailureEntry]:
        return await self._read(lambda database: rows.undelivered(database, mapping))

    async def tallies(self) -> Sequence[Tally]:
        return await self._read(rows.tallies)

    async def backlog(self, mapping: str) -> Backlog:
        return await self._read(lambda database: rows.backlog(database, mapping))

    def size_bytes(self) -> int:
        """Sum up the database, its log and the log's index."""
        size = 0
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                size += self._path.with_name(f"{self._path.name}{suffix}").stat().st_size
        return size


def version(directory: Path) -> int:
    """Say of which version the store of a state directory is.

    Raises:
        StoreUnavailable: there is none, it cannot be read, or it is newer than all we know.
    """
    database, found = _open_any(directory / FILE_NAME)
    database.close()
    return found


def back_up(directory: Path, target: Path, tell: Tell | None = None) -> None:
    """Copy the store of a state directory into one file, whether a daemon uses it or not, and of whatever version.

    Put in place of headrace.db, the copy is that state again. Blocks; `tell` hears how far it is, and may raise.

    Raises:
        StoreUnavailable: there is no store; or `target` exists, or cannot be written.
    """
    path = directory / FILE_NAME
    database, _ = _open_any(path)
    with contextlib.closing(database), store_errors(path):
        copy(database, target, tell)


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """Open a database for use on any one thread at a time, without transactions that Python begins by itself."""
    uri = f"{path.absolute().as_uri()}?{mode}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    database.execute("PRAGMA foreign_keys = ON")
    return database


def _open_read_only(path: Path) -> sqlite3.Connection:
    database, version = _open_any(path)
    if version < schema.VERSION:
        database.close()
        raise StoreUnavailable(
            f"{path} is of store version {version}, this headrace reads version {schema.VERSION}; "
            "upgrade it with `headrace state upgrade`, or by starting the service"
        )
    return database


def _open_any(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open a store for reading; gives its version, too."""
    if not path.exists():
        raise _absent(path)
    with store_errors(path):
        try:
            return _checked(connect(path, mode="mode=ro"), path)
        except sqlite3.OperationalError:
            # A reader of a write-ahead log needs its index beside it. Where that cannot be made, because the directory
            # cannot be written or the disk is full, nobody else writes either; without a log the file is all there is.
            log = path.with_name(f"{path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise
            return _checked(connect(path, mode="immutable=1"), path)


def _checked(database: sqlite3.Connection, path: Path) -> tuple[sqlite3.Connection, int]:
    try:
        version = schema.check(database, path)
    except BaseException:
        database.close()
        raise
    if not version:
        database.close()
        raise _absent(path)
    return database, version


def _absent(path: Path) -> StoreUnavailable:
    return StoreUnavailable(f"there is no state in {path.parent}: no headrace has run with it yet")
