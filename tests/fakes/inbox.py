"""An Inbox in memory, with scripted faults. No threads: it runs on a loop of virtual time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from router.core.asynchronous import AsyncEvent, Became, ForgetEvent, Line, Owe, PutOff, id_of, line_of
from router.errors import StoreUnavailable
from router.event_ports import AcceptEvent, InboxChange, InboxPage, Waiting, grows


class MemoryInbox:
    """What several of them are given as `shared` is one store, of which each has what is its own."""

    def __init__(self, name: str = "r1", shared: dict[str, tuple[str, AsyncEvent | Owe, bytes]] | None = None) -> None:
        self.name = name
        #: Owner, row and payload by id.
        self.rows = {} if shared is None else shared
        #: Why it cannot be used; None = it can.
        self.broken: str | None = None
        #: Does it take only what makes it no larger?
        self.is_full = False
        self.is_closed = False

    async def apply(self, changes: Sequence[InboxChange]) -> None:
        self._check()
        if self.is_full and any(map(grows, changes)):
            raise StoreUnavailable("it is full")
        for change in changes:
            match change:
                case AcceptEvent(event, payload):
                    self.rows.setdefault(event.id, (self.name, event, payload))
                case Became(PutOff(event)):
                    self._change(event)
                case Became(Owe() as owe):
                    self._change(owe)
                case Became(ForgetEvent(event_id)):
                    if self._is_ours(event_id):
                        del self.rows[event_id]

    async def page(self, line: Line, until_s: float, limit: int, limit_bytes: int, known: Collection[str]) -> InboxPage:
        self._check()
        found = [(row, payload) for row, payload in self._ours() if line_of(row) == line and id_of(row) not in known]
        found.sort(key=lambda each: (each[0].due_s, id_of(each[0])))
        page: list[tuple[AsyncEvent | Owe, bytes]] = []
        for row, payload in found:
            limit_bytes -= len(payload)
            if row.due_s > until_s or len(page) == limit or (page and limit_bytes < 0):
                return InboxPage(page, row.due_s)
            page.append((row, payload))
        return InboxPage(page)

    async def lines(self) -> Mapping[Line, Waiting]:
        self._check()
        found: dict[Line, Waiting] = {}
        for row, _ in self._ours():
            rows, due_s = found.get(line_of(row), Waiting(0, row.due_s))
            found[line_of(row)] = Waiting(rows + 1, min(due_s, row.due_s))
        return found

    async def owners(self) -> Collection[str]:
        self._check()
        return {owner for owner, _, _ in self.rows.values()}

    async def adopt(self, dead: str) -> bool:
        self._check()
        left = [each for each, (owner, _, _) in self.rows.items() if owner == dead]
        for each in left:
            self.rows[each] = (self.name, *self.rows[each][1:])
        return bool(left)

    async def close(self) -> None:
        self.is_closed = True

    def _ours(self) -> list[tuple[AsyncEvent | Owe, bytes]]:
        return [(row, payload) for owner, row, payload in self.rows.values() if owner == self.name]

    def _is_ours(self, row_id: str) -> bool:
        return row_id in self.rows and self.rows[row_id][0] == self.name

    def _change(self, row: AsyncEvent | Owe) -> None:
        if self._is_ours(id_of(row)):
            self.rows[id_of(row)] = (self.name, row, self.rows[id_of(row)][2])

    def _check(self) -> None:
        if self.broken is not None or self.is_closed:
            raise StoreUnavailable(self.broken or "it is closed")
