"""The tables of the embedded store, their version, and the way from one version to the next.

`user_version` of the database is the schema version, `application_id` says that it is ours. Versions only go forward: a
newer store is refused, an older one is copied aside and then taken through the steps it lacks, each in one transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from router.errors import StoreUnavailable

#: "HDRC"
APPLICATION_ID: Final = 0x48445243

# Events are in a table of their own, so that lists never read their pages. `undelivered` is 1 while a destination is
# to be served; `claimed_from` is the status that a failure had before it was claimed for a replay.
STEPS: Final[Sequence[str]] = (
    """
    CREATE TABLE failures (
        id TEXT PRIMARY KEY,
        mapping TEXT NOT NULL,
        shard TEXT NOT NULL,
        failed_at_s REAL NOT NULL,
        error TEXT NOT NULL,
        status TEXT NOT NULL,
        claimed_from TEXT,
        destination TEXT,
        undelivered INTEGER NOT NULL,
        deliveries INTEGER NOT NULL,
        delivery_error TEXT,
        next_delivery_s REAL NOT NULL,
        event_bytes INTEGER NOT NULL,
        batch BLOB NOT NULL,
        batch_info BLOB NOT NULL
    ) STRICT;
    CREATE INDEX failures_by_time ON failures (failed_at_s, id);
    CREATE INDEX failures_of_mapping ON failures (mapping, failed_at_s, id);
    CREATE INDEX failures_to_deliver ON failures (mapping, failed_at_s, id) WHERE undelivered;
    CREATE INDEX sizes_of_mapping ON failures (mapping, undelivered, event_bytes);

    CREATE TABLE events (
        failure_id TEXT PRIMARY KEY REFERENCES failures (id) ON DELETE CASCADE,
        compressed INTEGER NOT NULL,
        event BLOB NOT NULL
    ) STRICT;

    CREATE TABLE keys (
        key BLOB NOT NULL,
        failure_id TEXT NOT NULL REFERENCES failures (id) ON DELETE CASCADE,
        PRIMARY KEY (key, failure_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX keys_of_failure ON keys (failure_id);

    CREATE TABLE states (
        mapping TEXT NOT NULL,
        key TEXT NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (mapping, key)
    ) STRICT, WITHOUT ROWID;
    """,
)


def prepare(database: sqlite3.Connection, path: Path, steps: Sequence[str] = STEPS) -> None:
    """Bring a database to the newest version, after a copy of it if it holds an older one.

    Raises:
        StoreUnavailable: the file is not ours, or of a newer version.
    """
    version = check(database, path, newest=len(steps))
    aside = path.with_name(f"{path.name}.version-{version}")
    if 0 < version < len(steps) and not aside.exists():
        copy(database, aside)
    for number, step in enumerate(steps[version:], version + 1):
        stamp = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}"
        database.executescript(f"BEGIN IMMEDIATE; {step}; {stamp}; COMMIT;")


def check(database: sqlite3.Connection, path: Path, newest: int = len(STEPS)) -> int:
    """Give the schema version of a database that we can use; 0 = it is empty.

    Raises:
        StoreUnavailable: the file is not ours, or of a newer version.
    """
    [version] = database.execute("PRAGMA user_version").fetchone()
    [application] = database.execute("PRAGMA application_id").fetchone()
    [tables] = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not (tables or version or application):
        return 0
    if application != APPLICATION_ID:
        raise StoreUnavailable(f"{path} is a database of another program; choose another state directory")
    if version > newest:
        raise StoreUnavailable(
            f"{path} was written by a newer headrace (store version {version}, this one knows up to {newest}); "
            "run that version or a newer one, or choose another state directory"
        )
    return int(version)


def copy(database: sqlite3.Connection, target: Path) -> None:
    """Make a consistent copy in one file, complete or not at all, while others go on writing.

    Raises:
        StoreUnavailable: there is something at `target` already.
    """
    taken = f"{target} exists already; name a file that does not"
    if target.exists():
        raise StoreUnavailable(taken)
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(partial)) as other:
            database.backup(other)
            other.execute("PRAGMA journal_mode = DELETE")
        os.link(partial, target)  # unlike a rename, it replaces nothing
        _sync(target.parent)
    except FileExistsError as error:
        raise StoreUnavailable(taken) from error
    except (OSError, sqlite3.Error) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise StoreUnavailable(
            f"cannot write the copy {target}: {cause}; free space or choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
