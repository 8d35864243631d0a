"""Looks at a stream without reading records: can we reach it, and list its shards?"""

from __future__ import annotations

from connectors.kinesis import KinesisSource
from connectors.settings import KinesisSettings


async def check_kinesis(settings: KinesisSettings, function_timeout_s: float) -> str:  # noqa: ARG001 - as all checks
    """Reach the stream, and the consumer if it is one's, and say what was found.

    Raises:
        SourceUnavailable: it cannot be reached, or shards cannot be listed or subscribed to; the message says what to
            do.
    """
    source = KinesisSource(settings)
    try:
        await source.open()
        shards = await source.shards()
    finally:
        await source.close()
    open_count = sum(not shard.closed for shard in shards)
    found = f"stream {source.identity}: {open_count} open shards, {len(shards) - open_count} closed"
    return f"{found}; {source.handicap}, shards are polled" if source.handicap else found
