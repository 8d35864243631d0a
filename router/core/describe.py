"""What people and the failure store are told of shards, of tries, and of batches that are given up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from router.core.facts import Note
from router.core.model import Batch, EventSourceMapping, FailedBatch, Instant
from router.core.verdict import FailedWhole, NotAccepted, PartlyFailed, Verdict

if TYPE_CHECKING:
    from router.core.lane import Discard, Lane, Plan
    from router.core.shard import ShardState


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What an operator wants to know of a shard."""

    shard: str
    phase: str
    #: Last finished position, inclusive.
    checkpoint: int
    #: Records with the function.
    in_flight: int
    #: Failed attempts of the batch that is retried, and times in a row the function could not be started for it.
    attempts: int
    refusals: int
    #: Wall time of the next try; None = nothing waits for one.
    next_try_s: float | None
    last_error: str | None
    #: Arrival of the oldest unfinished record in memory, epoch milliseconds; None = nothing is unfinished.
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Records that the function would see again if nothing more were written now."""

    shard: str
    #: Where they are, inclusive; None = not known, or they have no order.
    first_position: int | None = None
    last_position: int | None = None
    #: None = not known.
    records: int | None = None


def repeat_of(batch: Batch) -> Repeat:
    """Say what a batch is that is with the function."""
    if not batch.count:
        return Repeat(batch.shard, records=0)
    return Repeat(batch.shard, batch.first_position, batch.last_position, batch.count)


def repeats(shard: ShardState) -> Iterator[Repeat]:
    """Say what of a shard would be seen again: what runs, or all that was taken behind the committed checkpoint."""
    running = [lane.running for lane in shard.lanes if lane.running]
    through = max((_taken_through(shard, lane) for lane in shard.lanes), default=-1)
    if shard.dirty and through > shard.committed_through:
        yield Repeat(shard.name, shard.committed_through + 1, through)
    else:
        yield from (repeat_of(batch) for batch in running)


def _taken_through(shard: ShardState, lane: Lane) -> int:
    """Give the position up to which a lane's records were handed out."""
    head = lane.window.head()
    return shard.read_through if head is None else head[0].preceding(head[1])


def describe(shard: ShardState, now: Instant) -> ShardStatus:
    """Sum up a shard."""
    stuck = max(_retried(shard), key=lambda batch: (batch.attempts, batch.refusals), default=None)
    return ShardStatus(
        shard=shard.name,
        phase=shard.phase.value,
        checkpoint=shard.checkpoint,
        in_flight=sum(lane.running.count for lane in shard.lanes if lane.running),
        attempts=stuck.attempts if stuck else 0,
        refusals=stuck.refusals if stuck else 0,
        next_try_s=now.wall_s + max(0.0, stuck.not_before_s - now.mono_s) if stuck else None,
        last_error=stuck.tries[-1].error.message if stuck and stuck.tries else None,
        oldest_ms=min(_times_ms(shard), default=None),
    )


def _retried(shard: ShardState) -> Iterator[Batch]:
    for lane in shard.lanes:
        for batch in lane.pieces:
            if batch.durable or batch.refusals:
                yield batch


def _times_ms(shard: ShardState) -> Iterator[int]:
    """Give the arrival of each lane's oldest record."""
    for lane in shard.lanes:
        oldest = lane.head()
        if oldest:
            chunk, index = oldest
            yield chunk.times_ms[index]


def failed_batch(mapping: EventSourceMapping, discard: Discard, now: Instant) -> FailedBatch:
    """Describe a discarded batch; its id is derived from mapping, shard and records, so that twice is once."""
    batch = discard.batch
    positions, times_ms = (batch.first_position, batch.last_position) if batch.count else (-1, -1), _ends_ms(batch)
    # The times tell records apart from those of a log that was deleted and made again with the same positions. A final
    # call has no records; its own id is derived from its window.
    records = ",".join(map(str, (*times_ms, *batch.positions()))) if batch.count or batch.replays else batch.id
    identity = "\n".join((mapping.name, batch.shard, records, batch.replays or ""))
    return FailedBatch(
        id=hashlib.sha256(identity.encode()).hexdigest()[:20],
        mapping=mapping.name,
        function=mapping.function,
        shard=batch.shard,
        reason=discard.reason,
        first_position=positions[0],
        last_position=positions[1],
        batch_size=batch.count,
        attempts=max(1, batch.attempts),
        request_id=batch.id,
        error=discard.error,
        responded=discard.responded,
        function_error=discard.function_error,
        first_time_ms=times_ms[0],
        last_time_ms=times_ms[1],
        failed_at_s=now.wall_s,
        tries=tuple(batch.tries),
        parent=batch.replays,
        window=replace(batch.window, state=b"") if batch.window else None,
    )


def _ends_ms(batch: Batch) -> tuple[int, int]:
    """Give the arrival of the first and last record, epoch milliseconds; of a final call, the end of its window."""
    if batch.window and batch.window.final:
        return batch.window.end_s * 1000, batch.window.end_s * 1000
    (first_chunk, first), (last_chunk, last) = batch.first, batch.last
    return first_chunk.times_ms[first], last_chunk.times_ms[last]


def tell_try(batch: Batch, verdict: Verdict, plan: Plan) -> Note | None:
    """Tell operators about a try that did not simply succeed."""
    match verdict:
        case FailedWhole(error):
            event = "batch.split" if len(plan.again) > 1 else "batch.failed"
        case NotAccepted(error):
            event = "batch.refused"
        case PartlyFailed(again):
            fields = {"request_id": batch.id, "records": batch.count, "failed": len(again)}
            return Note("batch.partly_failed", batch.shard, fields)
        case _:
            return None
    fields = {
        "request_id": batch.id,
        "first_position": batch.first_position if batch.count else None,
        "records": batch.count,
        "error_type": error.error_type,
        "error_message": error.message,
        "attempts": batch.attempts,
        "retry_in_s": round(plan.again[0].backoff_s, 3) if plan.again else 0.0,
    }
    return Note(event, batch.shard, fields)
