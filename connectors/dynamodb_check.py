"""Looks at the streams of a table without reading them."""

from __future__ import annotations

from connectors.dynamodb_client import DynamoDbClient
from connectors.dynamodb_shards import shards_of
from connectors.dynamodb_table import describe, find_streams, find_table, place_of
from connectors.settings import DynamoDbSettings
from router.errors import SourceUnavailable

_ENABLED = ("ENABLING", "ENABLED")


async def check_dynamodb(settings: DynamoDbSettings, function_timeout_s: float) -> str:  # noqa: ARG001 - as all checks
    """Reach the table and say what was found.

    Raises:
        SourceUnavailable: it cannot be reached, or nothing new comes; the message says what to do.
    """
    what, place = describe(settings), place_of(settings)
    client = DynamoDbClient(settings.endpoint_url, place.region, what)
    try:
        if not place.stream_arn:
            await find_table(client, place.table, what)
        streams = await find_streams(client, place, what)
    finally:
        await client.close()
    if streams[-1].stream_status not in _ENABLED:
        raise SourceUnavailable(
            f"{what}: the stream is disabled, so that nothing new comes; enable another one, and name that where the "
            "source is an ARN"
        )
    open_count = sum(not shard.closed for shard in shards_of(streams))
    kept = f"; streams: {len(streams)}, each read when the one before it has ended" if len(streams) > 1 else ""
    return f"table {place.table}: {streams[-1].stream_view_type}; open shards: {open_count}{kept}"
