"""How replays end, as jobs tell it to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Ends that a listener may be behind before the job waits for it.
UNHEARD_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class ReplayEnd:
    """How one replay ended."""

    #: Of the stored failure; of a message it is `sqs:<messageId>`.
    id: str
    #: replayed | failed_again | refused
    outcome: str
    new_failures: Sequence[str] = ()
    #: Why it was refused, or how a message failed.
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobOver:
    """A job is over; of a queue, what is left is in the queue."""

    #: Why it stopped early; None = it did not.
    stopped: str | None


class Ends:
    """The ends of one job, in order, for one listener; once that has left they are let go of."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[ReplayEnd | JobOver | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(UNHEARD_LIMIT)
        self._is_heard = True

    async def tell(self, end: ReplayEnd | JobOver) -> None:
        """Hand an end over; waits while the listener is far behind."""
        if self._is_heard:
            await self._room.acquire()
            self._told.put_nowait(end)

    def stop(self) -> None:
        """Say that nothing more comes. May come twice."""
        self._told.put_nowait(None)

    async def next(self) -> ReplayEnd | JobOver | None:
        """Wait for the next end; None = nothing more comes."""
        end = await self._told.get()
        self._room.release()
        return end

    def leave(self) -> None:
        """Listen no more."""
        self._is_heard = False
        while not self._told.empty():
            self._told.get_nowait()
            self._room.release()
