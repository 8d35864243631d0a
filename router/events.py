"""The event of a batch: its records, and where there are tumbling windows what its call is told of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from router.core.model import WindowCall
from router.ports import Codec, ShardCodec


def event_of(codec: Codec, shard: str, rows: Sequence[Any], window: WindowCall | None) -> bytes:
    """Encode the event; only streams whose checkpoints we keep have windows."""
    if window is None:
        return codec.event(rows)
    return cast("ShardCodec", codec).window_event(shard, rows, window)
