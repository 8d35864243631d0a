"""Erasing all records of one key from stored failures, as somebody may have the right to ask for.

A failed batch holds records of other keys too, which stay: its event is made anew without those of the key. What is
said of the batch's errors may quote any of its records, so messages and traces go with them. A batch that is being
replayed is left alone, and so is one whose mapping is not there to read its event; both are told. The state of a
tumbling window is the function's own, and stays with the event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from router.core.model import FailedBatch, FunctionError
from router.events import event_of
from router.ports import Codec, Erasure, FailureEntry, Selection, Store

#: What stands in place of a message that may quote a record.
ERASED: Final = "erased"
#: Gives the codec of a mapping; None = there is no such mapping.
CodecOf = Callable[[str], Codec | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """A failure that still holds the key."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased of some failures."""

    #: Failures that hold the key no more.
    failures: int
    records: int
    kept: Sequence[Kept]


async def erase(store: Store, codec_of: CodecOf, key: bytes, failure_ids: Sequence[str]) -> Erased:
    """Erase the records of a key from these failures, few enough to have their events at once.

    Raises:
        StoreUnavailable: nothing was erased.
    """
    kept: list[Kept] = []
    erasures: list[Erasure] = []
    records: dict[str, int] = {}
    for entry in await store.failures(Selection(ids=tuple(failure_ids), key=key)):
        event = await store.event(entry.batch.id)
        try:
            erasure = without_key(codec_of(entry.batch.mapping), entry, event, key)
        except ValueError as error:
            kept.append(Kept(entry.batch.id, str(error)))
        else:
            erasures.append(erasure)
            left = erasure.entry.batch.batch_size if erasure.entry else 0
            records[erasure.id] = entry.batch.batch_size - left
    done = set(await store.erase(erasures))
    busy = "it is being replayed, or has failed anew: erase again when that is over"
    kept += [Kept(each.id, busy) for each in erasures if each.id not in done]
    return Erased(len(done), sum(records[each] for each in done), kept)


def without_key(codec: Codec | None, entry: FailureEntry, event: bytes | None, key: bytes) -> Erasure:
    """Say how a failure is without the records of a key.

    Raises:
        ValueError: that cannot be said; why, for people.
    """
    batch = entry.batch
    if event is None:  # dropped: what is known of its records are its keys, and what errors quoted
        return Erasure(batch.id, batch.failed_at_s, key, replace(entry, batch=_without_messages(batch)), None)
    if codec is None:
        raise ValueError(f"its mapping {batch.mapping!r} is not configured, so its event cannot be read: drop it")
    try:
        chunk = codec.parse(event)
    except ValueError as error:
        raise ValueError(f"its event cannot be read, so nothing can be taken out of it: drop it ({error})") from error
    keys = chunk.keys or [None] * len(chunk.rows)
    rows = [row for row, of_row in zip(chunk.rows, keys, strict=True) if of_row != key]
    if not rows:
        return Erasure(batch.id, batch.failed_at_s, key, None, None)
    rest = replace(_without_messages(batch), batch_size=len(rows))
    event = event_of(codec, batch.shard, rows, chunk.window)
    info = codec.batch_info(rest, event)
    return Erasure(batch.id, batch.failed_at_s, key, replace(entry, batch=rest, batch_info=info), event)


def _without_messages(batch: FailedBatch) -> FailedBatch:
    tries = tuple(replace(each, error=_without_message(each.error)) for each in batch.tries)
    return replace(batch, error=batch.error and _without_message(batch.error), tries=tries)


def _without_message(error: FunctionError) -> FunctionError:
    return replace(error, message=ERASED, trace=())
