"""How replays end, as jobs tell it to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

#: Ends that a listener may be behind before the job waits for it.
UNHEARD_LIMIT: Final = 1000
#: The outcome of what cannot run here because its shard is not ours; only replicas tell it each other.
ASTRAY: Final = "astray"


@dataclass(frozen=True, slots=True)
class ReplayEnd:
    """How one replay ended."""

    #: Of the stored failure; of a message it is `sqs:<messageId>`, of a failure record `record:<digest>`.
    id: str
    #: replayed | failed_again | refused
    outcome: str
    new_failures: Sequence[str] = ()
    #: Why it was refused, or how a message failed.
    reason: str | None = None

    @property
    def is_settled(self) -> bool:
        """Is nothing left to be done: it succeeded, or is stored as new failures?"""
        return self.outcome in ("replayed", "settled") or bool(self.new_failures)


@dataclass(frozen=True, slots=True)
class RecordEnd(ReplayEnd):
    """How the replay of a failure record ended.

    As above; or `settled` where it was before, or `later` where the record was made when the job had begun: perhaps by
    the job itself, so that it is one of the next.
    """

    #: Where it was found.
    where: str = ""
    #: Which mapping it is of, as far as that is known.
    mapping: str | None = None
    #: Records of it that its stream has no more, at least.
    gone: int = 0


@dataclass(slots=True)
class Prospect:
    """What replaying a failure record would do."""

    id: str
    where: str
    mapping: str | None
    #: ARN of the stream, or topic.
    stream: str
    #: Shard, first and last sequence number or offset.
    ranges: Sequence[tuple[str, str, str]]
    #: How many records had failed; None = the failure record does not say.
    records: int | None = None
    #: Does it carry its event, so that nothing is read again?
    has_event: bool = False
    #: Was it settled by an earlier job?
    is_settled: bool = False
    #: How many records would run, where they are read again, and how many are gone from the stream, at least.
    held: int | None = None
    gone: int = 0
    #: In words.
    note: str | None = None
    #: Why it would not run.
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class JobOver:
    """A job is over; of a queue, what is left is in the queue."""

    #: Why it stopped early; None = it did not.
    stopped: str | None


#: What a job tells.
Told: TypeAlias = ReplayEnd | Prospect | JobOver


class Ends:
    """The ends of one job, in order, for one listener; once that has left they are let go of."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[Told | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(UNHEARD_LIMIT)
        self._is_heard = True

    async def tell(self, end: Told) -> None:
        """Hand an end over; waits while the listener is far behind."""
        if self._is_heard:
            await self._room.acquire()
            self._told.put_nowait(end)

    def stop(self) -> None:
        """Say that nothing more comes. May come twice."""
        self._told.put_nowait(None)

    async def next(self) -> Told | None:
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
