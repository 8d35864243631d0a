"""A consistent copy of a database in one file, made while others go on writing.

All of it is read in one transaction: what is written meanwhile is not in the copy, and cannot make it begin anew, as
SQLite's copying does when it sees another state of the database between two steps. The price is that the write-ahead
log cannot be emptied before the copy is done: it grows by what is written in that time, and shrinks again after it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from router.errors import StoreUnavailable

#: Hears how many bytes of how many are copied.
Tell = Callable[[int, int], None]
#: Pages copied between two times of telling (4 KiB each: 4 MiB).
_STEP_PAGES: Final = 1024


def copy(database: sqlite3.Connection, target: Path, tell: Tell | None = None) -> None:
    """Make a copy (mode 0600), complete or not at all, and durable. It replaces nothing.

    Raises:
        StoreUnavailable: there is something at `target` already, or it cannot be written.
    """
    taken = f"{target} exists already; name a file that does not"
    if target.exists():
        raise StoreUnavailable(taken)
    with _written(database, target, tell) as partial:
        try:
            os.link(partial, target)  # unlike a rename, it replaces nothing
        except FileExistsError as error:
            raise StoreUnavailable(taken) from error


def copy_over(database: sqlite3.Connection, target: Path) -> None:
    """Make a copy as `copy` does, but in place of what is at `target`.

    Raises:
        StoreUnavailable: it cannot be written; what was at `target` still is.
    """
    with _written(database, target, None) as partial:
        partial.replace(target)


def sync(path: Path) -> None:
    """Make a file durable, or the names in a directory. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _written(database: sqlite3.Connection, target: Path, tell: Tell | None) -> Iterator[Path]:
    """Write the copy beside its place; within the context it is to be put there."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(partial)) as other:
            _fill(other, database, tell)
        yield partial
        sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise StoreUnavailable(
            f"cannot write the copy {target}: {cause}; free space or choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _fill(other: sqlite3.Connection, database: sqlite3.Connection, tell: Tell | None) -> None:
    [page_bytes] = database.execute("PRAGMA page_size").fetchone()

    def told(_: int, left_pages: int, all_pages: int) -> None:
        if tell:
            tell((all_pages - left_pages) * page_bytes, all_pages * page_bytes)

    database.execute("BEGIN")
    try:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # only reading takes the snapshot
        database.backup(other, pages=_STEP_PAGES, progress=told)
    finally:
        database.execute("ROLLBACK")
    other.execute("PRAGMA journal_mode = DELETE")
