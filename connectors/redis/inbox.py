"""The inbox of a replica, in the Redis of its fleet.

What `apply` has returned for survives what Redis lets it survive (`appendonly`, `appendfsync`), as failures do. Events
are in Redis whole: they have 1 MB at most.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from connectors.redis.group import Group
from connectors.redis.inbox_scripts import ADOPT, APPLY, LINES, OWNERS, PAGE, SETTLE
from connectors.redis.link import Argument, RedisLink
from connectors.redis.writing import pack, unpack
from router.core.asynchronous import AsyncEvent, ForgetEvent, Line, Owe, PutOff, id_of, line_of
from router.event_ports import AcceptEvent, InboxChange, InboxPage, Waiting, grows

#: Rows adopted in one script: Redis does nothing else meanwhile.
ADOPT_COUNT: Final = 500


class RedisInbox:
    """The Inbox port over Redis."""

    def __init__(self, link: RedisLink, replica: str) -> None:
        """Make it for a replica of the fleet, over connections that others use too."""
        self._link = link
        self._replica = replica
        self._group = Group(link)

    async def apply(self, changes: Sequence[InboxChange]) -> None:
        await self._link.be_usable()
        arguments: list[Argument] = [self._replica]
        for each in changes:
            arguments += _change(each)
        script = APPLY if any(map(grows, changes)) else SETTLE
        await self._group.run(self._link.fleet_call(script, arguments))

    async def page(self, line: Line, until_s: float, limit: int, limit_bytes: int, known: Collection[str]) -> InboxPage:
        kind: type[AsyncEvent | Owe] = AsyncEvent if line[0] == "run" else Owe
        wanted: list[Argument] = [self._replica, _text(line), repr(until_s), limit, limit_bytes, *known]
        rows, next_due_s = await self._link.ask(PAGE, wanted)
        return InboxPage(
            [(msgspec.json.decode(about, type=kind), unpack(payload)) for about, payload in rows],
            None if next_due_s is None else float(next_due_s),
        )

    async def lines(self) -> Mapping[Line, Waiting]:
        found = await self._link.ask(LINES, [self._replica])
        return {_line(text): Waiting(rows, float(due_s)) for text, rows, due_s in found}

    async def owners(self) -> Collection[str]:
        return [each.decode() for each in await self._link.ask(OWNERS)]

    async def adopt(self, dead: str) -> bool:
        moved: int = await self._link.ask(ADOPT, [self._replica, dead, ADOPT_COUNT])
        return moved > 0

    async def close(self) -> None:
        """Wait until what was asked is answered."""
        await self._group.close()


def _change(change: InboxChange) -> list[Argument]:
    if isinstance(change, AcceptEvent):
        return ["accept", *_row(change.event), pack(change.payload), len(change.payload)]
    match change.what:
        case PutOff(event):
            return ["change", *_row(event)]
        case Owe() as owe:
            return ["change", *_row(owe)]
        case ForgetEvent(event_id):
            return ["forget", event_id]


def _row(row: AsyncEvent | Owe) -> list[Argument]:
    return [id_of(row), _text(line_of(row)), repr(row.due_s), msgspec.json.encode(row)]


def _text(line: Line) -> str:
    return ":".join(line)


def _line(text: bytes) -> Line:
    kind, _, name = text.decode().partition(":")
    return ("run" if kind == "run" else "tell", name)
