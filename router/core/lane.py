"""One lane: batches that must not overlap, and what happens to a batch after each try.

A lane is the unit of order: a shard, or with a parallelization factor the keys of a shard that hash to one number. It
runs one batch at a time. After a failure the batch is followed by *pieces* of itself in the same place (a suffix, two
halves), which run before anything newer, first piece first, so that order holds and the good neighbours of a bad
record succeed.

`settle` is the whole policy, a pure function: batch and verdict in, plan out. Sources: AWS Lambda developer guide
('Bisect batch on function error', 'Retry attempts', 'Maximum record age') and behaviour recorded on AWS for order,
budgets and backoff: splitting spends no retry; pieces start at once with a fresh budget and request id; retry k waits
0.2 s x 2^k.

Termination: every failed try either spends one of a finite number of retries or makes strictly smaller pieces; with
unlimited retries a single poison record blocks its lane until it ages out, as on AWS. n records with k bad ones that
are halved cost at most 1 + 2k*ceil(log2 n) tries until each bad one stands alone.

Weak spot: a replayed batch shares the lane but not the position order of live ones; it takes turns with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Final, assert_never

from router.core.model import (
    UNKNOWN_TIME_MS,
    Backoff,
    Batch,
    Chunk,
    EventSourceMapping,
    FunctionError,
    Instant,
    Reason,
    Try,
)
from router.core.tumbling import TumblingWindow
from router.core.verdict import FailedWhole, NotAccepted, PartlyFailed, Stopped, Succeeded, Verdict
from router.core.window import BatchWindow

if TYPE_CHECKING:
    from random import Random

    from router.core.retry_state import Pending


@dataclass(frozen=True, slots=True)
class Discard:
    """A batch that is given up, to be stored before anything moves past it."""

    batch: Batch
    reason: Reason
    error: FunctionError | None
    responded: bool
    function_error: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What takes the place of a batch that was tried: pieces, in order, or nothing; and what is given up first."""

    again: Sequence[Batch] = ()
    discard: Discard | None = None
    #: Is there something new to remember before the next try?
    durable: bool = False

    @property
    def left(self) -> int:
        """Count the records that are not done."""
        given_up = self.discard.batch.count if self.discard else 0
        return given_up + sum(piece.count for piece in self.again)


_DONE: Final = Plan()


class Planner:
    """Applies one mapping's retry policy."""

    def __init__(self, mapping: EventSourceMapping, rng: Random) -> None:
        self._mapping = mapping
        self._rng = rng

    def new_id(self) -> str:
        """Make a request id (a random UUID, version 4)."""
        return as_uuid(self._rng.getrandbits(128) & ~(0xF000C << 60) | 0x40008 << 60)

    def settle(self, batch: Batch, verdict: Verdict, now: Instant) -> Plan:
        """Say what follows a try of this batch."""
        match verdict:
            case Succeeded():
                return _DONE
            case Stopped():
                return Plan(again=(batch,))
            case NotAccepted(error):
                backoff = self._mapping.rules.refusal_backoff or self._mapping.backoff
                self._wait(batch, backoff, batch.refusals, now)
                batch.refusals += 1
                self._note_try(batch, error, now)
                return Plan(again=(batch,))
            case PartlyFailed(again):
                self._note_try(batch, _partly(len(again), batch.count), now)
                return Plan(again=(self._piece(batch, again, durable=True),), durable=True)
            case FailedWhole():
                return self._settle_failure(batch, verdict, now)
            case _:
                assert_never(verdict)

    def expire(self, batch: Batch, now: Instant) -> Plan | None:
        """Cut out the records that are too old; None when there are none. The rest has a fresh budget."""
        limit_s = self._mapping.maximum_record_age_s
        if limit_s is None or batch.replays:
            return None
        oldest_ms = (now.wall_s - limit_s) * 1000
        if batch.window and batch.window.final:
            # Who gave a window a state sees it at least once, however late: its age is that of the window's end.
            was_tried = batch.attempts or batch.refusals
            return self._expired(batch, []) if was_tried and batch.window.end_s * 1000 <= oldest_ms else None
        times_ms = (chunk.times_ms[index] for chunk, index in batch.each())
        is_old = (time_ms <= oldest_ms and time_ms != UNKNOWN_TIME_MS for time_ms in times_ms)
        if self._mapping.rules.sorted_by_time:
            bound = sum(1 for _ in takewhile(bool, is_old))
            old: Sequence[int] = range(bound)
            young: Sequence[int] = range(bound, batch.count)
        else:
            flags = list(is_old)
            old = [ordinal for ordinal, flag in enumerate(flags) if flag]
            young = [ordinal for ordinal, flag in enumerate(flags) if not flag]
        if not old:
            return None
        head = self._piece(batch, old, durable=batch.durable)
        head.id, head.attempts, head.tries = batch.id, batch.attempts, batch.tries
        return self._expired(head, [self._piece(batch, young, durable=batch.durable)] if young else [])

    def _expired(self, batch: Batch, rest: Sequence[Batch]) -> Plan:
        error = batch.tries[-1].error if batch.tries else None
        return Plan(rest, Discard(batch, Reason.AGE, error, responded=False, function_error=None), durable=True)

    def _settle_failure(self, batch: Batch, failure: FailedWhole, now: Instant) -> Plan:
        self._note_try(batch, failure.error, now)
        if batch.count > 1 and (self._mapping.bisect or failure.must_split):
            half = batch.count // 2
            bounds = (range(half), range(half, batch.count))
            return Plan(again=[self._piece(batch, bound, durable=True) for bound in bounds], durable=True)
        batch.attempts += 1
        batch.durable = True
        batch.refusals = 0
        limit = self._mapping.maximum_retry_attempts
        reason = failure.final or (Reason.RETRIES if limit is not None and batch.attempts > limit else None)
        if reason:
            return Plan(discard=Discard(batch, reason, failure.error, failure.responded, failure.function_error))
        self._wait(batch, self._mapping.backoff, batch.attempts - 1, now)
        return Plan(again=(batch,), durable=True)

    def _wait(self, batch: Batch, backoff: Backoff, retry: int, now: Instant) -> None:
        batch.backoff_s = backoff_s(backoff, retry, self._rng)
        batch.not_before_s = now.mono_s + batch.backoff_s

    def _note_try(self, batch: Batch, error: FunctionError, now: Instant) -> None:
        batch.tries.append(Try(now.wall_s, batch.id, batch.count, error))
        del batch.tries[1:-_TRIES_KEPT]

    def _piece(self, batch: Batch, ordinals: Sequence[int], *, durable: bool) -> Batch:
        neighbours = isinstance(ordinals, range)
        return Batch(
            self.new_id(),
            batch.shard,
            batch.lane,
            batch.select(ordinals),
            len(ordinals),
            durable=durable,
            contiguous=batch.contiguous and neighbours,
            tries=list(batch.tries),
            replays=batch.replays,
            window=batch.window,
        )


def as_uuid(number: int) -> str:
    """Write a number of at most 128 bits as a UUID."""
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _partly(failed: int, count: int) -> FunctionError:
    return FunctionError("Headrace.BatchItemFailures", f"The function reported {failed} of {count} records as failed.")


#: Tries that are remembered beside the first one; an endless retry must not grow without bound.
_TRIES_KEPT = 19


def backoff_s(backoff: Backoff, retry: int, rng: Random) -> float:
    """Give the wait before retry number `retry` (0 is the first)."""
    wait_s = min(backoff.cap_s, backoff.base_s * backoff.factor ** min(retry, 60))
    return wait_s * (1 + backoff.jitter * (2 * rng.random() - 1)) if backoff.jitter else wait_s


@dataclass(slots=True, eq=False)
class Lane:
    """State of one lane. At most one of its batches is with the function, or on its way into the failure store."""

    shard: str
    number: int
    window: BatchWindow
    #: The same, where it keeps tumbling windows; None = there are none.
    tumbling: TumblingWindow | None = None
    #: The batch to run, or what the last try left of it, first piece first.
    pieces: deque[Batch] = field(default_factory=deque)
    #: Pieces of the replay that has the lane's second turn, then replays that wait.
    replays: deque[Batch] = field(default_factory=deque)
    #: The batch that is with the function.
    running: Batch | None = None
    #: The batch that is being stored as failed.
    keeping: Discard | None = None
    #: Progress version that must be committed before the next try; 0 = none.
    gate: int = 0
    #: Retry state from before a restart whose records have not all been read again.
    pending: Pending | None = None
    #: Whose turn it was: live and replayed batches alternate.
    replayed_last: bool = False
    #: Time for which a wake-up is already asked.
    wake_s: float | None = None

    @property
    def busy(self) -> bool:
        return self.running is not None or self.keeping is not None or self.gate > 0 or self.pending is not None

    @property
    def is_window_open(self) -> bool:
        """Is there a tumbling window whose final call is not done?"""
        return self.tumbling is not None and self.tumbling.is_open

    def due_at(self, *, live: bool = True) -> float | None:
        """Give the time at which something may start by itself; None when nothing waits. Not for a busy lane."""
        if live and not (self.pieces or self.replays):
            return self.window.due_at()
        times = [queue[0].not_before_s for queue in self._queues(live=live) if queue]
        if live and not self.pieces:
            window_s = self.window.due_at()
            if window_s is not None:
                times.append(window_s)
        return min(times, default=None)

    def _queues(self, *, live: bool) -> Sequence[deque[Batch]]:
        """Give whose turn it is, first to last: live and replayed batches take turns; without `live`, replays only."""
        if not live:
            return (self.replays,)
        return (self.pieces, self.replays) if self.replayed_last else (self.replays, self.pieces)

    def take(self, now_s: float, *, live: bool = True) -> Batch | None:
        """Give the batch that starts now; None when none may."""
        if not (self.pieces or self.replays):
            return None
        for queue in self._queues(live=live):
            if queue and queue[0].not_before_s <= now_s:
                self.replayed_last = queue is self.replays
                return queue[0]
        return None

    def replace(self, batch: Batch, again: Sequence[Batch]) -> None:
        """Put pieces in the place of the batch, which is the first of its queue."""
        queue = self.replays if batch.replays else self.pieces
        queue.popleft()
        queue.extendleft(reversed(again))

    def unfinished(self) -> tuple[int, int] | None:
        """Give the lowest unfinished position, and the position that precedes it; None when all is finished."""
        head = self.head()
        if head is None:
            return None
        chunk, index = head
        return chunk.positions[index], chunk.preceding(index)

    def head(self) -> tuple[Chunk, int] | None:
        """Give the oldest record that is not finished; None when all are."""
        # The final call of a window has no records; it may come before a piece.
        first = next((piece for piece in self.pieces if piece.count), None)
        return first.first if first else self.window.head()
