"""Replaying an ordinary dead-letter queue: its messages run through a mapping that reads another queue.

The queue itself is the state of the job. A message that succeeds is deleted, and so is one whose failure has been
stored; one that fails, or cannot run, stays and is told, so a job that ended early is simply begun again. Every
message runs alone and at most once in one job: what comes again because its lease has ended is only held anew. Leases
of what waits or runs are extended all the time, and what stays is given back at the end, as far as that is cheap, so
that nobody has to wait for its visibility timeout.

Messages with ordering keys (FIFO groups) run one after the other, and once one of a group stays, so do those behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final
from uuid import UUID

from router.core.model import UNKNOWN_TIME_MS, Chunk
from router.errors import SourceUnavailable
from router.failures.record import iso_ms
from router.ports import QueueSource
from router.replay.end import ReplayEnd
from router.runner import Passes

#: Runs an event, and gives the end of the replay with this id.
RunOne = Callable[[str, bytes], Awaitable[ReplayEnd]]
#: Hears how each message ended.
Tell = Callable[[ReplayEnd], Awaitable[None]]

#: Messages that one call receives, deletes or extends (Amazon SQS quotas).
CALL_LIMIT: Final = 10
#: A receive waits so long before the queue counts as empty, seconds.
WAIT_S: Final = 2.0
#: Receives in a row that brought only what the job has left in the queue before it takes that for all there is.
BARREN_RECEIVES: Final = 10
#: Messages in a row that are not for this job before it takes that for all there is.
LATER_LIMIT: Final = 100
#: A shorter lease of the queue's own is extended to this as soon as a message comes.
SHORTEST_LEASE_S: Final = 15
#: The queue may refuse to answer for so long before the job stops.
OUTAGE_S: Final = 60.0
_RETRY_CAP_S: Final = 10.0
#: Waits before the second and third try of a deletion.
_DELETE_WAITS_S: Final = (1.0, 4.0)
#: What stays is given back at the end up to this sum of sizes; the leases of what is beyond run out.
GIVE_BACK_BYTES: Final = 4 * 1024 * 1024
_PREVIEW_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """One message that waits, for people to look at."""

    id: str
    #: ISO 8601; None = not known.
    sent_at: str | None
    size_bytes: int
    #: The beginning of what filter patterns see as its data.
    preview: str
    #: Why it would not run.
    why_not: str | None


@dataclass(frozen=True, slots=True)
class QueueLook:
    """What waits in a queue."""

    queue: str
    #: About; None = not known.
    waiting: int | None
    messages: Sequence[WaitingMessage]


async def look(source: QueueSource, passes: Passes | None, messages: int) -> QueueLook:
    """Look at a queue that is open, and at up to 10 of its messages, which are given back at once.

    Raises:
        SourceUnavailable
    """
    waiting = source.backlog()
    shown: Sequence[WaitingMessage] = ()
    if messages:
        chunk = await source.receive(min(messages, CALL_LIMIT), WAIT_S)
        shown = [_shown(source, passes, chunk, index) for index in range(len(chunk.rows))]
        if chunk.rows:
            await source.extend(chunk.rows, 0)
    return QueueLook(source.name, waiting, shown)


def _shown(source: QueueSource, passes: Passes | None, chunk: Chunk, index: int) -> WaitingMessage:
    row, time_ms = chunk.rows[index], chunk.times_ms[index]
    data = source.codec.view(row)[1]
    return WaitingMessage(
        message_id(chunk.positions[index]),
        None if time_ms == UNKNOWN_TIME_MS else iso_ms(time_ms / 1000),
        chunk.sizes[index],
        (source.codec.event([row]) if data is None else data).decode(errors="replace")[:_PREVIEW_CHARS],
        why_not(source, passes, chunk, index),
    )


def message_id(position: int) -> str:
    """Name a message by its identity: queues number messages by UUIDs, and a position is that number."""
    return f"sqs:{UUID(int=position)}"


def why_not(source: QueueSource, passes: Passes | None, chunk: Chunk, index: int) -> str | None:
    """Say why a mapping would not run a message; None = it would."""
    if chunk.kept is not None and index not in chunk.kept:
        return "the mapping's source does not want it: it is of another type or key"
    if index in chunk.unfit:
        return chunk.unfit[index]
    if passes is not None and not passes(*source.codec.view(chunk.rows[index])):
        return "the mapping's filter_criteria do not let it pass"
    return None


@dataclass(slots=True, eq=False)
class _Message:
    position: int
    #: As it was received last: that receipt counts.
    row: Any
    size_bytes: int
    key: bytes | None
    #: The one before it with the same key, until that is over.
    before: _Message | None
    #: Why the mapping would not run it.
    why_not: str | None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return message_id(self.position)


class QueueReplay:
    """One job over one queue that is open."""

    def __init__(
        self,
        source: QueueSource,
        passes: Passes | None,
        run_one: RunOne,
        tell: Tell,
        *,
        interval_s: float,
        at_once: int,
        refusal_stops: bool = True,
    ) -> None:
        """Make it.

        Args:
            source: The queue, read as the mapping reads its own.
            passes: The mapping's filters.
            run_one: Hands a message to the mapping.
            tell: Hears each end.
            interval_s: Time between two starts, at least.
            at_once: Messages in hand, at most.
            refusal_stops: Is a message that was refused a sign that the next would be, too?
        """
        self._source = source
        self._passes = passes
        self._run_one = run_one
        self._tell = tell
        self._interval_s = interval_s
        self._at_once = at_once
        self._refusal_stops = refusal_stops
        self._lease_s = max(ceil(source.lease_s), SHORTEST_LEASE_S)
        self._tasks: asyncio.TaskGroup
        #: Messages that wait or run, by position.
        self._hand: dict[int, _Message] = {}
        #: What the job has left in the queue, and its rows as far as they are kept to give them back.
        self._left: dict[int, Any] = {}
        self._left_bytes = 0
        #: The last message of each key that is in hand, and the keys of which one stays.
        self._last: dict[bytes, _Message] = {}
        self._stopped_keys: set[bytes] = set()
        #: Set when a message is over.
        self._change = asyncio.Event()
        #: Why nothing more is begun: the mapping takes nothing.
        self._refusal: str | None = None
        #: Messages in a row that are for a later job.
        self._later = 0
        self._deletions: list[tuple[_Message, asyncio.Future[str | None]]] = []
        self._is_deleting = False

    async def run(self) -> str | None:
        """Replay until the queue gives nothing new; gives why it stopped before that, if it did."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                beat = self._tasks.create_task(self._beat())
                stopped = await self._take_all()
                while self._hand:
                    await self._next_change()
                beat.cancel()
        finally:
            await self._give_back()
        return stopped

    # --- receiving

    async def _take_all(self) -> str | None:
        barren = 0
        while self._refusal is None and self._later < LATER_LIMIT:
            if len(self._hand) >= self._at_once:
                await self._next_change()
                continue
            try:
                chunk = await self._receive(min(CALL_LIMIT, self._at_once - len(self._hand)))
            except SourceUnavailable as error:
                return str(error)
            fresh = self._take(chunk)
            await self._hold(chunk)
            await self._begin(fresh)
            if fresh:
                barren = 0
            elif self._hand:
                # Of a group in hand the queue gives nothing more before that is over.
                await self._next_change()
            else:
                barren += 1
                if not chunk.rows or barren == BARREN_RECEIVES:
                    return None
        return self._refusal

    async def _receive(self, limit: int) -> Chunk:
        """Receive; an outage may last a while before it is raised."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + OUTAGE_S
        wait_s = 1.0
        while True:
            try:
                return await self._source.receive(limit, WAIT_S)
            except SourceUnavailable:
                if loop.time() + wait_s > until_s:
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _RETRY_CAP_S)

    def _take(self, chunk: Chunk) -> list[_Message]:
        """Take messages in hand; gives those that are new. What is known already is held by its new receipt."""
        fresh: list[_Message] = []
        for index, position in enumerate(chunk.positions):
            if position in self._hand:
                self._hand[position].row = chunk.rows[index]
                continue
            if position in self._left:
                self._left[position] = chunk.rows[index] if self._left[position] is not None else None
                continue
            key = chunk.keys[index] if chunk.keys else None
            before = None if key is None else self._last.get(key)
            reason = why_not(self._source, self._passes, chunk, index)
            message = _Message(position, chunk.rows[index], chunk.sizes[index], key, before, reason)
            self._hand[position] = message
            if key is not None:
                self._last[key] = message
            fresh.append(message)
        return fresh

    async def _hold(self, chunk: Chunk) -> None:
        """Let leases last at least a while: the queue's own may be too short to run anything."""
        if chunk.rows and self._source.lease_s < self._lease_s:
            await self._extend(chunk.rows)

    async def _begin(self, messages: Sequence[_Message]) -> None:
        for message in messages:
            if self._refusal is None:
                self._tasks.create_task(self._replay(message))
                await asyncio.sleep(self._interval_s)
            else:
                self._stay(message)
                self._forget(message)

    # --- one message

    async def _replay(self, message: _Message) -> None:
        if message.before:
            await message.before.over.wait()
            message.before = None
        if message.key in self._stopped_keys:
            message.why_not = "a message before it in its group was not replayed"
        if message.why_not:
            end = ReplayEnd(message.id, "refused", reason=message.why_not)
        else:
            end = await self._run(message)
        if not end.is_settled:
            self._stay(message)
        self._forget(message)
        await self._tell(end)

    async def _run(self, message: _Message) -> ReplayEnd:
        end = await self._run_one(message.id, self._source.codec.event([message.row]))
        self._later = self._later + 1 if end.outcome == "later" else 0
        if end.outcome == "refused" and self._refusal_stops:
            self._refusal = end.reason
        if not end.is_settled:
            return end
        why = await self._delete(message)
        if why is None:
            return end
        reason = f"it succeeded, but could not be deleted and will come again: {why}"
        return ReplayEnd(message.id, "refused", reason=reason)

    def _stay(self, message: _Message) -> None:
        """Leave a message in the queue, and what is behind it in its group."""
        if message.key is not None:
            self._stopped_keys.add(message.key)
        fits = self._left_bytes + message.size_bytes <= GIVE_BACK_BYTES
        self._left_bytes += message.size_bytes if fits else 0
        self._left[message.position] = message.row if fits else None

    def _forget(self, message: _Message) -> None:
        del self._hand[message.position]
        if message.key is not None and self._last.get(message.key) is message:
            del self._last[message.key]
        message.over.set()
        self._change.set()

    async def _next_change(self) -> None:
        self._change.clear()
        await self._change.wait()

    # --- deleting

    async def _delete(self, message: _Message) -> str | None:
        """Delete a message; gives why it could not be."""
        why = await self._delete_once(message)
        for wait_s in _DELETE_WAITS_S:
            if why is None:
                break
            await asyncio.sleep(wait_s)
            why = await self._delete_once(message)
        return why

    async def _delete_once(self, message: _Message) -> str | None:
        """Delete a message together with others that are over by then."""
        ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._deletions.append((message, ended))
        if not self._is_deleting:
            self._is_deleting = True
            self._tasks.create_task(self._delete_waiting())
        return await ended

    async def _delete_waiting(self) -> None:
        """Delete what waits for it; what comes meanwhile shares the next call."""
        while self._deletions:
            asked, self._deletions = self._deletions[:CALL_LIMIT], self._deletions[CALL_LIMIT:]
            try:
                failed = await self._source.delete([message.row for message, _ in asked])
            except SourceUnavailable as error:
                failed = dict.fromkeys(range(len(asked)), str(error))
            for index, (_, ended) in enumerate(asked):
                ended.set_result(failed.get(index))
        self._is_deleting = False

    # --- leases

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            await self._extend([message.row for message in self._hand.values()])

    async def _extend(self, rows: Sequence[Any]) -> None:
        """Extend leases. What cannot be extended may come again, or go to somebody else: nothing is lost by that."""
        await self._call_extend(rows, self._lease_s)

    async def _give_back(self) -> None:
        """Let the queue show again what stays, and what was not begun."""
        rows = [message.row for message in self._hand.values()]
        rows += [row for row in self._left.values() if row is not None]
        await self._call_extend(rows, 0)

    async def _call_extend(self, rows: Sequence[Any], lease_s: int) -> None:
        for at in range(0, len(rows), CALL_LIMIT):
            try:
                await self._source.extend(rows[at : at + CALL_LIMIT], lease_s)
            except SourceUnavailable:
                return
