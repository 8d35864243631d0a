"""Changes and questions of the Store port as SQL. One connection, no threads, no transactions of its own."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from router.core.model import FailedBatch
from router.ports import (
    Backlog,
    Change,
    DeleteFailure,
    DeliveryEnded,
    Erasure,
    FailureEntry,
    Holds,
    KeepFailure,
    OwnsEvent,
    PutState,
    RenameMapping,
    Selection,
    SetStatus,
    Tally,
    Unchanged,
    Unclaim,
)

#: As in _entry.
_COLUMNS: Final = (
    "batch, mapping, status, destination, batch_info, event_bytes, deliveries, delivery_error, next_delivery_s"
)
_OLDEST_FIRST: Final = "ORDER BY failed_at_s, id"
#: The index that SQLite makes for the primary key.
_BY_ID: Final = "sqlite_autoindex_failures_1"
STATUSES: Final = ("stored", "delivered", "replaying", "replayed", "failed_again", "dropped")

_KEEP: Final = """
    INSERT INTO failures (id, mapping, shard, failed_at_s, error, status, destination, undelivered, deliveries,
                          delivery_error, next_delivery_s, event_bytes, batch, batch_info)
    VALUES (:id, :mapping, :shard, :failed_at_s, :error, :status, :destination, :undelivered, :deliveries,
            :delivery_error, :next_delivery_s, :event_bytes, :batch, :batch_info)
"""
_SET_STATUS: Final = """
    UPDATE failures SET status = :status, claimed_from = NULL,
        undelivered = undelivered AND :status IN ('stored', 'replaying'),
        event_bytes = iif(:status = 'dropped', 0, event_bytes)
    WHERE id = :id
"""
_UNCLAIM: Final = (
    "UPDATE failures SET status = claimed_from, claimed_from = NULL WHERE id = ? AND claimed_from IS NOT NULL"
)
_ACCEPTED: Final = """
    UPDATE failures SET undelivered = 0, deliveries = deliveries + 1, delivery_error = NULL,
        status = iif(status = 'stored', 'delivered', status),
        claimed_from = iif(claimed_from = 'stored', 'delivered', claimed_from)
    WHERE id = ?
"""
_REFUSED: Final = """
    UPDATE failures SET deliveries = deliveries + 1, delivery_error = :error, next_delivery_s = :next_delivery_s
    WHERE id = :id
"""
_CLAIM: Final = """
    UPDATE failures SET claimed_from = status, status = 'replaying'
    WHERE id = ? AND status NOT IN ('replaying', 'dropped')
"""
_IDLE: Final = "SELECT id FROM failures WHERE id = ? AND status <> 'replaying'"
_SAME_IDLE: Final = "SELECT id FROM failures WHERE id = ? AND failed_at_s = ? AND status <> 'replaying'"
_REWRITE: Final = """
    UPDATE failures SET error = :error, event_bytes = :event_bytes, batch = :batch, batch_info = :batch_info
    WHERE id = :id
"""


def write(database: sqlite3.Connection, change: Change) -> None:  # noqa: C901 - one case a change
    """Carry out one change."""
    match change:
        case KeepFailure(entry, event):
            _keep(database, entry, event)
        case SetStatus(id, status):
            database.execute(_SET_STATUS, {"id": id, "status": status})
            if status == "dropped":
                database.execute("DELETE FROM events WHERE failure_id = ?", (id,))
        case Unclaim(id):
            database.execute(_UNCLAIM, (id,))
        case DeleteFailure(id):
            database.execute("DELETE FROM failures WHERE id = ?", (id,))
        case DeliveryEnded(id, None):
            database.execute(_ACCEPTED, (id,))
        case DeliveryEnded(id, error, next_delivery_s):
            database.execute(_REFUSED, {"id": id, "error": error, "next_delivery_s": next_delivery_s})
        case PutState(mapping, key, ""):
            database.execute("DELETE FROM states WHERE mapping = ? AND key = ?", (mapping, key))
        case PutState(mapping, key, text):
            database.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (mapping, key, text))
        case RenameMapping(old, new):
            for table in ("states", "failures"):
                database.execute(f"UPDATE {table} SET mapping = ? WHERE mapping = ?", (new, old))
        case Holds() | OwnsEvent() | Unchanged():
            raise AssertionError("no replicas share this store")


def claim(database: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """Mark failures as replaying; give those for which it was done."""
    return [each for each in ids if database.execute(_CLAIM, (each,)).rowcount]


def drop(database: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """Mark failures as dropped and free their events; give those for which it was done."""
    idle = [each for each in ids if database.execute(_IDLE, (each,)).fetchone()]
    for each in idle:
        write(database, SetStatus(each, "dropped"))
    return idle


def erase(database: sqlite3.Connection, erasures: Sequence[Erasure]) -> list[str]:
    """Take keys out of failures; give those for which it was done."""
    return [each.id for each in erasures if _erase(database, each)]


def _erase(database: sqlite3.Connection, erasure: Erasure) -> bool:
    if not database.execute(_SAME_IDLE, (erasure.id, erasure.failed_at_s)).fetchone():
        return False
    entry, event = erasure.entry, erasure.event
    if entry is None:
        write(database, DeleteFailure(erasure.id))
        return True
    row = {
        "id": erasure.id,
        "error": _searched(entry.batch),
        "event_bytes": 0 if event is None else len(event),
        "batch": msgspec.json.encode(entry.batch),
        "batch_info": msgspec.json.encode(entry.batch_info),
    }
    database.execute(_REWRITE, row)
    if event is not None:
        database.execute("DELETE FROM events WHERE failure_id = ?", (erasure.id,))
        _put_event(database, erasure.id, event)
    database.execute("DELETE FROM keys WHERE key = ? AND failure_id = ?", (erasure.key, erasure.id))
    return True


def states(database: sqlite3.Connection, mapping: str) -> dict[str, str]:
    return dict(database.execute("SELECT key, text FROM states WHERE mapping = ?", (mapping,)))


def some_states(database: sqlite3.Connection, mapping: str, keys: Sequence[str]) -> dict[str, str]:
    places = ", ".join("?" * len(keys))
    question = f"SELECT key, text FROM states WHERE mapping = ? AND key IN ({places})"
    return dict(database.execute(question, (mapping, *keys)))


def failures(database: sqlite3.Connection, selection: Selection) -> list[FailureEntry]:
    parts = _parts(selection)
    question = " UNION ALL ".join(f"SELECT {_COLUMNS}, failed_at_s, id FROM {part}" for part, _ in parts)
    values = [value for _, several in parts for value in several]
    limit = -1 if selection.limit is None else selection.limit
    return [_entry(row[:-2]) for row in database.execute(f"{question} {_OLDEST_FIRST} LIMIT ?", (*values, limit))]


def count(database: sqlite3.Connection, selection: Selection) -> int:
    if selection == Selection(mapping=selection.mapping, statuses=selection.statuses):
        wanted, values = _among("status", selection.statuses or STATUSES)
        question = f"SELECT total(failures) FROM totals WHERE mapping = ifnull(?, mapping) AND {wanted}"
        [number] = database.execute(question, (selection.mapping, *values)).fetchone()
        return int(number)
    found = [database.execute(f"SELECT count(*) FROM {part}", values).fetchone() for part, values in _parts(selection)]
    return sum(number for (number,) in found)


def tallies(database: sqlite3.Connection) -> list[Tally]:
    question = "SELECT mapping, status, failures, undelivered FROM totals WHERE failures ORDER BY mapping, status"
    return [Tally(*row) for row in database.execute(question)]


def undelivered(database: sqlite3.Connection, mapping: str) -> list[FailureEntry]:
    question = f"SELECT {_COLUMNS} FROM failures WHERE mapping = ? AND undelivered {_OLDEST_FIRST}"
    return [_entry(row) for row in database.execute(question, (mapping,))]


def event(database: sqlite3.Connection, failure_id: str) -> bytes | None:
    row = database.execute("SELECT compressed, event FROM events WHERE failure_id = ?", (failure_id,)).fetchone()
    if row is None:
        return None
    compressed, data = row
    return zlib.decompress(data) if compressed else data


def backlog(database: sqlite3.Connection, mapping: str) -> Backlog:
    question = "SELECT total(undelivered), total(event_bytes), total(failures) FROM totals WHERE mapping = ?"
    return Backlog(*map(int, database.execute(question, (mapping,)).fetchone()))


def _keep(database: sqlite3.Connection, entry: FailureEntry, event: bytes) -> None:
    batch = entry.batch
    database.execute("DELETE FROM failures WHERE id = ?", (batch.id,))
    row = {
        "id": batch.id,
        "mapping": batch.mapping,
        "shard": batch.shard,
        "failed_at_s": batch.failed_at_s,
        "error": _searched(batch),
        "status": entry.status,
        "destination": entry.destination,
        "undelivered": entry.destination is not None,
        "deliveries": entry.deliveries,
        "delivery_error": entry.delivery_error,
        "next_delivery_s": entry.next_delivery_s,
        "event_bytes": len(event),
        "batch": msgspec.json.encode(batch),
        "batch_info": msgspec.json.encode(entry.batch_info),
    }
    database.execute(_KEEP, row)
    _put_event(database, batch.id, event)
    database.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", [(key, batch.id) for key in entry.keys])


def _put_event(database: sqlite3.Connection, failure_id: str, event: bytes) -> None:
    compressed = zlib.compress(event, 1)
    smaller = len(compressed) < len(event)
    database.execute("INSERT INTO events VALUES (?, ?, ?)", (failure_id, smaller, compressed if smaller else event))


def _searched(batch: FailedBatch) -> str:
    """Give the text that `Selection.error` looks into."""
    return f"{batch.error.error_type}\n{batch.error.message}".casefold() if batch.error else ""


def _entry(row: tuple[Any, ...]) -> FailureEntry:
    packed, mapping, status, destination, batch_info, event_bytes, deliveries, delivery_error, next_delivery_s = row
    batch = msgspec.json.decode(packed, type=FailedBatch)
    return FailureEntry(
        batch if batch.mapping == mapping else replace(batch, mapping=mapping),  # it was renamed since
        status,
        destination,
        msgspec.json.decode(batch_info),
        (),
        event_bytes,
        deliveries,
        delivery_error,
        next_delivery_s,
    )


def _parts(selection: Selection) -> list[tuple[str, list[Any]]]:
    """Give what is to be read, as tables with conditions: each is read along one index, in the order of pages."""
    where, values = _conditions(selection)
    if selection.ids or selection.key is not None:
        statuses = _among("status", selection.statuses) if selection.statuses else ("true", [])
        return [(f"failures INDEXED BY {_BY_ID} WHERE {where} AND {statuses[0]}", [*values, *statuses[1]])]
    index = "failures_of_status" if selection.mapping is None else "failures_of_mapping"
    part = f"failures INDEXED BY {index} WHERE {where} AND status = ?"
    return [(part, [*values, status]) for status in selection.statuses or STATUSES]


def _conditions(selection: Selection) -> tuple[str, list[Any]]:
    conditions = list(_each_condition(selection))
    values = [value for _, several in conditions for value in several]
    return " AND ".join(condition for condition, _ in conditions) or "true", values


def _each_condition(selection: Selection) -> Iterator[tuple[str, Sequence[Any]]]:
    if selection.ids:
        yield _among("id", selection.ids)
    if selection.error is not None:
        yield "instr(error, ?)", [selection.error.casefold()]
    if selection.key is not None:
        yield "id IN (SELECT failure_id FROM keys WHERE key = ?)", [selection.key]
    if selection.after is not None:
        yield "(failed_at_s, id) > (?, ?)", selection.after
    for condition, value in (
        ("mapping = ?", selection.mapping),
        ("shard = ?", selection.shard),
        ("failed_at_s >= ?", selection.since_s),
        ("failed_at_s < ?", selection.until_s),
    ):
        if value is not None:
            yield condition, [value]


def _among(column: str, values: Sequence[str]) -> tuple[str, list[Any]]:
    # One text, whatever their number: SQLite limits parameters.
    return f"{column} IN (SELECT value FROM json_each(?))", [msgspec.json.encode(values).decode()]
