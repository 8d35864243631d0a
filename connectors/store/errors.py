"""What SQLite and the file system say, as StoreUnavailable with what to do about it."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from router.errors import StoreUnavailable

_FULL: Final = "the disk is full; free space, writing goes on by itself"
_READ_ONLY: Final = "it cannot be written; make the directory and its files writable for this user"
_DAMAGED: Final = (
    "it is damaged or no database; move it away, or put a copy made by `headrace state backup` in its place"
)

#: By SQLite's result code, extended or primary.
_ADVICE: Final = {
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,  # no room for the index of the log, which opening makes
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the directory and who may read and write it",
    sqlite3.SQLITE_BUSY: "another program holds it locked; end that program",
    sqlite3.SQLITE_LOCKED: "another program holds it locked; end that program",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_IOERR: "reading or writing failed; look at the disk, its space and its limits",
}

_OS_ADVICE: Final = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up; free space, writing goes on by itself",
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
}


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into StoreUnavailable."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"state in {path}: {_advice(error)} ({error})") from error
    except OSError as error:
        cause = _OS_ADVICE.get(error.errno or 0, "look at the path and who may use it")
        raise StoreUnavailable(f"state in {path}: {cause} ({error.strerror})") from error


def _advice(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & 0xFF
    return _ADVICE.get(code) or _ADVICE.get(primary, "SQLite refused")
