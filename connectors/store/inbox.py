"""The inbox of the embedded store: tables beside those of failures, in the same file, written by the same thread.

What waits in a line is found along one index, and how much there is was counted as it changed: a million events cost
what one costs. What is accepted waits for the disk also where the store was opened for less.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec

from connectors.store.asking import Asking
from connectors.store.writer import Writer
from router.core.asynchronous import AsyncEvent, Became, ForgetEvent, Line, Owe, PutOff, id_of, line_of
from router.event_ports import AcceptEvent, InboxChange, InboxPage, Waiting

#: Smaller payloads are kept as they are: they are many, and it would take more time than it saves room.
COMPRESSED_BYTES: Final = 4096

_ACCEPT: Final = """
    INSERT OR IGNORE INTO inbox (id, line, due_us, is_named, about, bytes) VALUES (?, ?, ?, ?, ?, ?)
"""
_PAYLOAD: Final = "INSERT INTO inbox_payloads VALUES (?, ?, ?)"
#: Rows are found by where they wait: an index by id alone would be written at another place with each row, which costs
#: more than all else.
_CHANGE: Final = """
    UPDATE inbox SET line = ?1, due_us = ?2, bytes = bytes - length(about) + length(?3), about = ?3
    WHERE line = ?4 AND due_us = ?5 AND id = ?6
"""
#: As one statement for many, and one row with all that is found: a thread that goes back and forth between Python and
#: SQLite for each row stands in the way of the one that runs the events.
_FORGET: Final = """
    DELETE FROM inbox WHERE number IN (
        SELECT inbox.number FROM json_each(?) AS done JOIN inbox ON inbox.line = json_extract(done.value, '$[0]')
            AND inbox.due_us = json_extract(done.value, '$[1]') AND inbox.id = json_extract(done.value, '$[2]')
    )
"""
#: One more than are wanted says when the next one is due.
_FIRST: Final = """
    SELECT json_group_array(json_array(number, due_us, bytes)) FROM (
        SELECT number, due_us, bytes FROM inbox
        WHERE line = ? AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY due_us, id LIMIT ? + 1
    )
"""
#: How long the pieces are, and all of them one after the other: neither is looked into. Texts may have any bytes here.
_ROWS: Final = """
    SELECT json_group_array(json_array(compressed, length(about), length(payload))),
        CAST(group_concat(CAST(about AS TEXT) || CAST(payload AS TEXT), '') AS BLOB)
    FROM (
        SELECT about, compressed, payload FROM inbox JOIN inbox_payloads USING (number)
        WHERE number IN (SELECT value FROM json_each(?)) ORDER BY due_us, id
    )
"""
_LINES: Final = """
    SELECT line, waiting, (SELECT min(due_us) FROM inbox WHERE inbox.line = inbox_lines.line)
    FROM inbox_lines WHERE waiting > 0
"""

_SIZES: Final = msgspec.json.Decoder(list[tuple[int, int, int]])
_EVENT: Final[msgspec.json.Decoder[AsyncEvent | Owe]] = msgspec.json.Decoder(AsyncEvent)
_OWE: Final[msgspec.json.Decoder[AsyncEvent | Owe]] = msgspec.json.Decoder(Owe)


class SqliteInbox(Asking):
    """The Inbox port over SQLite."""

    def __init__(self, path: Path, reading: sqlite3.Connection, writer: Writer) -> None:
        """Make it of a connection of its own, and of what writes the store."""
        super().__init__(path, reading, "headrace-inbox")
        self._writer = writer

    async def apply(self, changes: Sequence[InboxChange]) -> None:
        accepts = any(isinstance(each, AcceptEvent) for each in changes)
        await self._writer.run(lambda database: write(database, changes), synced=accepts)

    async def page(self, line: Line, until_s: float, limit: int, limit_bytes: int, known: Collection[str]) -> InboxPage:
        return await self._read(lambda database: page(database, line, until_s, limit, limit_bytes, known))

    async def lines(self) -> Mapping[Line, Waiting]:
        return await self._read(lines)

    async def owners(self) -> Collection[str]:
        return ()

    async def adopt(self, dead: str) -> bool:  # noqa: ARG002
        """Say that nothing is left: nobody else writes here."""
        return False


def write(database: sqlite3.Connection, changes: Sequence[InboxChange]) -> None:
    """Carry out changes, in the transaction that there is."""
    for is_done, group in groupby(changes, key=_is_done):
        if is_done:
            places = [_place(each.was) for each in group if isinstance(each, Became)]
            database.execute(_FORGET, (_json(places),))
        else:
            for change in group:
                _write_one(database, change)


def _is_done(change: InboxChange) -> bool:
    return isinstance(change, Became) and isinstance(change.what, ForgetEvent)


def _write_one(database: sqlite3.Connection, change: InboxChange) -> None:
    match change:
        case AcceptEvent(event, payload, is_new):
            _accept(database, event, payload, is_new=is_new)
        case Became(PutOff(event), was):
            _change(database, event, was)
        case Became(Owe() as owe, was):
            _change(database, owe, was)


def page(
    database: sqlite3.Connection, line: Line, until_s: float, limit: int, limit_bytes: int, known: Collection[str]
) -> InboxPage:
    [first] = database.execute(_FIRST, (_text(line), _json(list(known)), limit)).fetchone()
    numbers, next_due_s = _fitting(msgspec.json.decode(first), until_s, limit, limit_bytes)
    if not numbers:
        return InboxPage([], next_due_s)
    sizes, pieces = database.execute(_ROWS, (_json(numbers),)).fetchone()
    return InboxPage(list(_taken_apart(_SIZES.decode(sizes), pieces, _EVENT if line[0] == "run" else _OWE)), next_due_s)


def _taken_apart(
    sizes: Sequence[tuple[int, int, int]], pieces: bytes, reads: msgspec.json.Decoder[AsyncEvent | Owe]
) -> Iterator[tuple[AsyncEvent | Owe, bytes]]:
    """Give rows with their payloads."""
    at = 0
    for compressed, about_bytes, payload_bytes in sizes:
        about_end = at + about_bytes
        row = reads.decode(pieces[at:about_end])
        at = about_end + payload_bytes
        payload = pieces[about_end:at]
        yield row, zlib.decompress(payload) if compressed else payload


def _fitting(
    first: Sequence[tuple[int, int, int]], until_s: float, limit: int, limit_bytes: int
) -> tuple[Sequence[int], float | None]:
    """Give the numbers of those that make a page, and when the one behind it is due."""
    numbers: list[int] = []
    for number, due_us, size in first:
        limit_bytes -= size
        if due_us > until_s * 1e6 or len(numbers) == limit or (numbers and limit_bytes < 0):
            return numbers, due_us / 1e6
        numbers.append(number)
    return numbers, None


def lines(database: sqlite3.Connection) -> dict[Line, Waiting]:
    return {_line(text): Waiting(rows, due_us / 1e6) for text, rows, due_us in database.execute(_LINES)}


def _accept(database: sqlite3.Connection, event: AsyncEvent, payload: bytes, *, is_new: bool) -> None:
    about = msgspec.json.encode(event)
    line, due_us, _ = _place(event)
    row = (event.id, line, due_us, not is_new, about, len(about) + len(payload))
    accepted = database.execute(_ACCEPT, row)
    if accepted.rowcount:  # else it is there already: whoever accepts it again does not know
        database.execute(_PAYLOAD, (accepted.lastrowid, *_packed(payload)))


def _packed(payload: bytes) -> tuple[bool, bytes]:
    if len(payload) >= COMPRESSED_BYTES:
        packed = zlib.compress(payload, 1)
        if len(packed) < len(payload):
            return True, packed
    return False, payload


def _change(database: sqlite3.Connection, row: AsyncEvent | Owe, was: AsyncEvent | Owe) -> None:
    line, due_us, _ = _place(row)
    database.execute(_CHANGE, (line, due_us, msgspec.json.encode(row), *_place(was)))


def _place(row: AsyncEvent | Owe) -> tuple[str, int, str]:
    """Say where a row waits."""
    return _text(line_of(row)), round(row.due_s * 1e6), id_of(row)


def _text(line: Line) -> str:
    return ":".join(line)


def _line(text: str) -> Line:
    kind, _, name = text.partition(":")
    return ("run" if kind == "run" else "tell", name)


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()
