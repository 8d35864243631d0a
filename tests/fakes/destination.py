"""A Destination in memory that can refuse and hang."""

from __future__ import annotations

import asyncio

from router.errors import DestinationUnavailable
from router.ports import FailureMessage, Sent


class MemoryDestination:
    """Takes failure records; passes the conformance suite of the Destination port."""

    def __init__(self, name: str = "memory:failed") -> None:
        self.name = name
        #: What was accepted, in order.
        self.accepted: list[FailureMessage] = []
        #: Times at which something was sent, accepted or not, loop time.
        self.tried_at_s: list[float] = []
        #: While set, everything is refused with this.
        self.fault: str | None = None
        #: Ids that are always refused.
        self.poison: set[str] = set()
        #: Cleared: sending does not end.
        self.answers = asyncio.Event()
        self.answers.set()

    @property
    def ids(self) -> list[str]:
        return [message.entry.batch.id for message in self.accepted]

    async def send(self, message: FailureMessage) -> Sent:
        self.tried_at_s.append(asyncio.get_running_loop().time())
        await self.answers.wait()
        await self.check()
        if message.entry.batch.id in self.poison:
            raise DestinationUnavailable(f"{self.name} takes no {message.entry.batch.id}")
        self.accepted.append(message)
        return Sent.WHOLE

    async def check(self) -> None:
        if self.fault:
            raise DestinationUnavailable(self.fault)

    async def close(self) -> None:
        self.fault = f"{self.name} is closed"
