"""The embedded store: one SQLite file in the state directory, written by one daemon, read by anybody who may.

Write-ahead log: what `apply` has returned for survives the end of the process, and of the power unless it was opened
for less.
Files are 0600 and a directory that we make is 0700: events are users' data, and what is deleted is overwritten with
zeros. Everything in it is JSON or the bytes of an event; no pickles.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from connectors.store import compaction, rows, schema
from connectors.store.copies import sync
from connectors.store.errors import store_errors
from connectors.store.inbox import SqliteInbox
from connectors.store.lock import DirectoryLock
from connectors.store.reader import FILE_NAME, SqliteReader, connect
from connectors.store.schema import Upgrade
from connectors.store.writer import Writer
from router.ports import Change, Erasure, FailureEntry, Selection, Space

#: Pages of the log after which it is written back into the database (4 KiB each: 16 MiB).
CHECKPOINT_PAGES: Final = 4096
#: What the log keeps of the disk after it had to grow (a copy was made): the same.
LOG_BYTES: Final = 16 * 1024**2


class SqliteStore(SqliteReader):
    """The Store port over SQLite."""

    def __init__(
        self,
        path: Path,
        reading: sqlite3.Connection,
        writing: sqlite3.Connection,
        lock: DirectoryLock,
        upgraded: Upgrade | None,
        *,
        power_safe: bool,
    ) -> None:
        super().__init__(path, reading)
        self._writer = Writer(writing, path, power_safe=power_safe)
        self._lock = lock
        #: What opening it has brought forward; None = it was of this version already, or new.
        self.upgraded = upgraded

    @classmethod
    async def open(cls, directory: Path, *, power_safe: bool = True) -> Self:
        """Open or make the store of a state directory, which nobody else may write until `close`.

        Unless it is `power_safe`, what was written last may be gone after a loss of power, though not after a kill.

        Raises:
            StoreUnavailable: in use, not readable or writable, damaged, or of a newer version.
        """
        return await asyncio.to_thread(cls._open, directory, power_safe=power_safe)

    async def apply(self, changes: Sequence[Change]) -> None:
        await self._writer.run(lambda database: _write_all(database, changes))

    async def claim(self, failure_ids: Sequence[str]) -> Sequence[str]:
        return await self._writer.run(lambda database: rows.claim(database, failure_ids))

    async def adopt(self, dead: str | None) -> Sequence[FailureEntry]:
        """Give all that is being replayed: only one daemon has the store, and this is a new one."""
        return () if dead is not None else await self.failures(Selection(statuses=("replaying",)))

    async def accept_loss(self, mapping: str) -> bool:  # noqa: ARG002
        """Say that nothing is gone: one file has all of it, or is not there."""
        return False

    async def drop(self, failure_ids: Sequence[str]) -> Sequence[str]:
        return await self._writer.run(lambda database: rows.drop(database, failure_ids))

    async def erase(self, erasures: Sequence[Erasure]) -> Sequence[str]:
        return await self._writer.run(lambda database: rows.erase(database, erasures))

    async def shrink(self, bytes_at_most: int) -> Space:
        return await self._writer.run(lambda database: compaction.shrink(database, bytes_at_most), alone=True)

    async def scrub(self) -> bool:
        return await self._writer.run(_empty_log, alone=True)

    async def open_inbox(self) -> SqliteInbox:
        """Open the inbox that is in it; to be closed before the store. Raises StoreUnavailable."""
        return SqliteInbox(self._path, await asyncio.to_thread(self._connect), self._writer)

    def _connect(self) -> sqlite3.Connection:
        with store_errors(self._path):
            return connect(self._path, mode="mode=ro")

    async def close(self) -> None:
        """Finish what is being written, then let go of the directory. May come twice."""
        await super().close()
        await asyncio.to_thread(self._writer.close)
        self._lock.close()

    @classmethod
    def _open(cls, directory: Path, *, power_safe: bool) -> Self:
        path = directory / FILE_NAME
        with store_errors(path):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = DirectoryLock(directory)
            try:
                _make_private(path)
                writing, upgraded = _open_writing(path, power_safe=power_safe)
                return cls(path, connect(path, mode="mode=rw"), writing, lock, upgraded, power_safe=power_safe)
            except BaseException:
                lock.close()
                raise


def upgrade(directory: Path) -> Path | None:
    """Bring the store of a state directory forward; gives where it is kept as it was, if it was older. Blocks.

    Raises:
        StoreUnavailable: in use, or it cannot be done; then it is as it was.
    """

    async def open_and_close() -> SqliteStore:
        store = await SqliteStore.open(directory)
        await store.close()
        return store

    upgraded = asyncio.run(open_and_close()).upgraded
    return upgraded.aside if upgraded else None


def _make_private(path: Path) -> None:
    """Create the file for us alone, durably; SQLite gives its companions the same mode."""
    is_new = not path.exists()
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    if is_new:
        sync(path.parent)
        with contextlib.suppress(PermissionError):  # not ours to read; it may have been made with ours by somebody else
            sync(path.absolute().parent.parent)


def _open_writing(path: Path, *, power_safe: bool) -> tuple[sqlite3.Connection, Upgrade | None]:
    database = connect(path, mode="mode=rw")
    try:
        if not schema.check(database, path):
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # to be said before anything is in the file
        database.execute("PRAGMA journal_mode = WAL")
        # FULL waits for the disk at every commit; NORMAL only when the log is written back, so the file stays whole.
        database.execute(f"PRAGMA synchronous = {'FULL' if power_safe else 'NORMAL'}")
        database.execute("PRAGMA secure_delete = ON")
        database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        return database, schema.prepare(database, path)
    except BaseException:
        database.close()
        raise


def _empty_log(database: sqlite3.Connection) -> bool:
    """Bring everything from the log into the file, and cut the log off: it may hold pages as they were."""
    [busy, *_] = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _write_all(database: sqlite3.Connection, changes: Sequence[Change]) -> None:
    for change in changes:
        rows.write(database, change)
