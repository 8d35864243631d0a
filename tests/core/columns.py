"""Short ways to write chunks, batches and mappings in tests of the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.core.model import (
    STREAM_RULES,
    Backoff,
    Batch,
    Chunk,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Instant,
    Part,
)

BOOM = FunctionError("Boom", "boom")
RAISED = Failed(FailureKind.RAISED, BOOM)


def at(mono_s: float) -> Instant:
    """Give a moment whose wall time is 1000 s ahead of the monotonic one, so that a mix-up shows."""
    return Instant(mono_s, mono_s + 1000)


def chunk_of(
    positions: Sequence[int],
    *,
    sizes: Sequence[int] | None = None,
    times_ms: Sequence[int] | None = None,
    keys: Sequence[bytes | None] | None = None,
    kept: Sequence[int] | None = None,
    before: int | None = None,
    through: int | None = None,
    shard: str = "s",
    ended: bool = False,
    more: bool = False,
) -> Chunk:
    """Make a page; rows are `r<position>`."""
    count = len(positions)
    if before is None:
        before = positions[0] - 1 if count else -1
    return Chunk(
        shard,
        positions,
        sizes or [10] * count,
        times_ms or [1_000_000] * count,
        keys or [None] * count,
        [f"r{position}" for position in positions],
        through if through is not None else positions[-1] if count else before,
        kept,
        before,
        ended=ended,
        more=more,
    )


def batch_of(positions: Sequence[int], **columns: Any) -> Batch:
    """Make a batch of one whole page, or of nothing."""
    if not positions:
        return Batch("id", "s", 0, (), 0)
    chunk = chunk_of(positions, **columns)
    return Batch("id", chunk.shard, 0, [Part(chunk, range(len(positions)))], len(positions))


def mapping_of(**settings: Any) -> EventSourceMapping:
    """Make a mapping of a stream without jitter."""
    settings.setdefault("rules", STREAM_RULES)
    return EventSourceMapping("mapping", "function", **{"backoff": Backoff(jitter=0.0), **settings})


def identify(item: object, batch: Batch) -> int | None:
    """Take positions, as numbers, for identifiers."""
    return item if isinstance(item, int) and item in batch.positions() else None
