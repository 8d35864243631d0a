"""Giving the room of what was deleted back to the file system: bit by bit beside the daemon, or at once without it.

What is deleted leaves free pages in the file, which what is written next uses. Files are made such that pages can be
taken from their end at any time (incremental vacuum); those of store version 1 were not, and need to be written anew.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from connectors.store.copies import sync
from connectors.store.errors import store_errors
from connectors.store.lock import DirectoryLock
from connectors.store.reader import FILE_NAME, connect
from router.ports import Space

_INCREMENTAL: Final = 2


def shrink(database: sqlite3.Connection, bytes_at_most: int) -> Space:
    """Take free pages from the end of the file, after moving what is in use there; say what is left.

    Not to be called in a transaction.
    """
    page_bytes = _number(database, "page_size")
    can_shrink = _number(database, "auto_vacuum") == _INCREMENTAL
    if can_shrink and (pages := bytes_at_most // page_bytes):
        # A step a page, each a row without columns: `execute` would stop at the first.
        database.executescript(f"PRAGMA incremental_vacuum({pages})")
    free = _number(database, "freelist_count")
    return Space((_number(database, "page_count") - free) * page_bytes, free * page_bytes, can_shrink)


def rewrite(directory: Path) -> None:
    """Write the store of a stopped daemon anew, without free pages and without a trace of what was deleted. Blocks.

    Cut off anywhere, the store is the old file or the new one, whole.

    Raises:
        StoreUnavailable: it is in use, or there is no room for the new file beside the old one.
    """
    path = directory / FILE_NAME
    partial = path.with_name(f"{path.name}.partial")
    with store_errors(path), contextlib.closing(DirectoryLock(directory)):
        partial.unlink(missing_ok=True)
        try:
            with contextlib.closing(connect(path, mode="mode=rw")) as database:
                # Without a log, so nobody reads either: a log that is there would be taken for that of the new file.
                database.execute("PRAGMA journal_mode = DELETE")
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                database.execute("VACUUM INTO ?", (str(partial),))
            sync(partial)
            partial.replace(path)
            sync(directory)
        finally:
            partial.unlink(missing_ok=True)


def _number(database: sqlite3.Connection, pragma: str) -> int:
    [number] = database.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)
