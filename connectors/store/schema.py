"""The tables of the embedded store, their version, and the way from one version to the next.

`user_version` of the database is the schema version, `application_id` says that it is ours. Versions only go forward: a
newer store is refused, an older one is copied aside and then taken through the steps it lacks, all in one transaction.
Whenever that is cut off, the store is of the old version or the new one, whole, and the next start goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors.store.copies import copy_over
from connectors.store.errors import store_errors
from router.errors import StoreUnavailable

#: "HDRC"
APPLICATION_ID: Final = 0x48445243

_ADDED: Final = """ON CONFLICT DO UPDATE SET failures = failures + excluded.failures,
            undelivered = undelivered + excluded.undelivered, event_bytes = event_bytes + excluded.event_bytes"""
_COUNTED: Final = f"""INSERT INTO totals VALUES (new.mapping, new.status, 1, new.undelivered, new.event_bytes)
            {_ADDED}"""
_UNCOUNTED: Final = f"""INSERT INTO totals VALUES (old.mapping, old.status, -1, -old.undelivered, -old.event_bytes)
            {_ADDED}"""

_LINE_GREW: Final = """INSERT INTO inbox_lines VALUES (new.line, 1)
            ON CONFLICT DO UPDATE SET waiting = waiting + 1"""
_LINE_SHRANK: Final = "UPDATE inbox_lines SET waiting = waiting - 1 WHERE line = old.line"

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
    # What a mapping has of each status is counted as it changes: nobody counts a million rows. One index serves pages
    # of each status, so that what is settled is never read on the way to what is not.
    f"""
    DROP INDEX failures_by_time;
    DROP INDEX failures_of_mapping;
    DROP INDEX sizes_of_mapping;
    CREATE INDEX failures_of_status ON failures (status, failed_at_s, id);
    CREATE INDEX failures_of_mapping ON failures (mapping, status, failed_at_s, id);

    CREATE TABLE totals (
        mapping TEXT NOT NULL,
        status TEXT NOT NULL,
        failures INTEGER NOT NULL,
        undelivered INTEGER NOT NULL,
        event_bytes INTEGER NOT NULL,
        PRIMARY KEY (mapping, status)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO totals
        SELECT mapping, status, count(*), sum(undelivered), sum(event_bytes) FROM failures GROUP BY mapping, status;

    CREATE TRIGGER failure_kept AFTER INSERT ON failures BEGIN
        {_COUNTED};
    END;
    CREATE TRIGGER failure_deleted AFTER DELETE ON failures BEGIN
        {_UNCOUNTED};
    END;
    CREATE TRIGGER failure_changed AFTER UPDATE OF mapping, status, undelivered, event_bytes ON failures BEGIN
        {_COUNTED};
        {_UNCOUNTED};
    END;
    """,
    # Events that are invoked asynchronously, in lines by due time, epoch microseconds. Only those that may come twice
    # are found by id (`is_named`): all others are found where they wait, for their ids are chance. Payloads are in a
    # table of their own: what becomes of an event is written without them. How many wait in a line is counted as it
    # changes.
    f"""
    CREATE TABLE inbox (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        line TEXT NOT NULL,
        due_us INTEGER NOT NULL,
        is_named INTEGER NOT NULL,
        about BLOB NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX inbox_by_due ON inbox (line, due_us, id);
    CREATE UNIQUE INDEX inbox_by_name ON inbox (id) WHERE is_named;

    CREATE TABLE inbox_payloads (
        number INTEGER PRIMARY KEY REFERENCES inbox (number) ON DELETE CASCADE,
        compressed INTEGER NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;

    CREATE TABLE inbox_lines (
        line TEXT PRIMARY KEY,
        waiting INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TRIGGER inbox_grew AFTER INSERT ON inbox BEGIN
        {_LINE_GREW};
    END;
    CREATE TRIGGER inbox_shrank AFTER DELETE ON inbox BEGIN
        {_LINE_SHRANK};
    END;
    CREATE TRIGGER inbox_moved AFTER UPDATE OF line ON inbox WHEN new.line <> old.line BEGIN
        {_LINE_GREW};
        {_LINE_SHRANK};
    END;
    """,
)
VERSION: Final = len(STEPS)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A store was brought from one version to another."""

    before: int
    after: int
    #: The store as it was.
    aside: Path


def prepare(database: sqlite3.Connection, path: Path, steps: Sequence[str] = STEPS) -> Upgrade | None:
    """Make the tables of an empty database, or bring an older one to the newest version, after a copy of it.

    Raises:
        StoreUnavailable: the file is not ours, of a newer version, or there is no room; then it is as it was.
    """
    version, newest = check(database, path, newest=len(steps)), len(steps)
    if version == newest:
        return None
    if not version:
        _take(database, steps, 0)
        return None
    aside = path.with_name(f"{path.name}.version-{version}")
    try:
        copy_over(database, aside)
        with store_errors(path):
            _take(database, steps, version)
    except StoreUnavailable as error:
        raise StoreUnavailable(
            f"{path} is of store version {version} and cannot be brought to {newest}; it is as it was: {error}"
        ) from error
    return Upgrade(version, newest, aside)


def _take(database: sqlite3.Connection, steps: Sequence[str], version: int) -> None:
    stamp = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {len(steps)}"
    database.executescript(f"BEGIN IMMEDIATE; {'; '.join(steps[version:])}; {stamp}; COMMIT;")


def check(database: sqlite3.Connection, path: Path, newest: int = VERSION) -> int:
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
