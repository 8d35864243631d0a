"""The other replicas of a fleet in memory. It runs on a loop of virtual time.

table = MemoryTable()
a = table.of("a")
peers = MemoryPeers(a)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from router.errors import PeerGone

if TYPE_CHECKING:
    from tests.fakes.lease_table import MemoryLeaseTable, Row


@dataclass(eq=False)
class MemoryCall:
    """Something that another replica asks."""

    replica: str
    what: str
    body: bytes
    answered: asyncio.Future[bytes]
    asked: MemoryLeaseTable

    async def answer(self, body: bytes) -> None:
        await asyncio.sleep(0)
        self.asked.check()
        if not self.answered.done():
            self.answered.set_result(body)


@dataclass(eq=False)
class Inbox:
    """What waits for one incarnation of a replica."""

    waiting: deque[MemoryCall | None] = field(default_factory=deque)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    #: Calls that were not answered when it ended.
    calls: list[MemoryCall] = field(default_factory=list)

    def nudge(self) -> None:
        if not self.waiting or self.waiting[-1] is not None:
            self.waiting.append(None)
        self.came.set()

    def put(self, call: MemoryCall) -> None:
        self.waiting.append(call)
        self.calls = [each for each in self.calls if not each.answered.done()] + [call]
        self.came.set()

    def end(self) -> None:
        """The incarnation is gone: nobody will answer, and nobody is to wait for more."""
        self.waiting.clear()
        self.came.set()
        for call in self.calls:
            if not call.answered.done():
                call.answered.set_exception(PeerGone("the replica ended before it answered"))


class MemoryPeers:
    """Peers as the replica of this table calls them. Passes the conformance suite of the Peers port."""

    def __init__(self, us: MemoryLeaseTable) -> None:
        self._us = us
        self._closed = False

    async def ask(self, replica: str, what: str, body: bytes, within_s: float) -> bytes:
        await asyncio.sleep(self._us.delay_s)
        self._us.check()
        row = self._us.table.rows.get(replica)
        if row is None:
            raise PeerGone(f"there is no replica {replica} in this fleet")
        call = MemoryCall(self._us.name, what, body, asyncio.get_running_loop().create_future(), row.process)
        row.process.inbox.put(call)
        try:
            async with asyncio.timeout(within_s):
                while not await self._settled(call, row):
                    pass
        except TimeoutError:
            call.answered.cancel()
            raise TimeoutError(f"replica {replica} has not answered {what} within {within_s:g} s") from None
        return call.answered.result()

    async def _settled(self, call: MemoryCall, row: Row) -> bool:
        """Wait for the answer for as long as a lease; a beat that stood still meanwhile is that of a dead one."""
        name, beat = row.replica.name, row.replica.beat
        done, _ = await asyncio.wait({call.answered}, timeout=self._us.lease_s)
        self._us.check()
        if not done and self._us.table.rows[name].replica.beat == beat:
            raise PeerGone(f"replica {name} has not been heard of for {self._us.lease_s:g} s")
        return bool(done)

    async def calls(self) -> AsyncIterator[MemoryCall | None]:
        while not self._closed:
            self._us.check()
            inbox = self._us.inbox
            if inbox.waiting:
                yield inbox.waiting.popleft()
            else:
                inbox.came.clear()
                await inbox.came.wait()

    async def close(self) -> None:
        self._closed = True
        self._us.inbox.came.set()
