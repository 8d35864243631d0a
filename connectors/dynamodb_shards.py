"""Which shards of a table's streams come behind which: pure, no I/O.

Within a stream a shard names its parent, if it had one; a shard has one parent at most, and shards do not merge. Over
streams nobody says it: a stream of a table begins when the one before it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.dynamodb_client import Stream
from router.core.model import ShardInfo


def shards_of(streams: Sequence[Stream]) -> Sequence[ShardInfo]:
    """Give the shards of streams of one table, the oldest stream first.

    The shards of a stream whose parents are not described with it come behind all shards of the stream before it that
    are nobody's parent.
    """
    listed: list[ShardInfo] = []
    last: tuple[str, ...] = ()
    for stream in streams:
        names = {shard.shard_id for shard in stream.shards}
        parents = {shard.parent_shard_id for shard in stream.shards}
        for shard in stream.shards:
            parent = (shard.parent_shard_id,) if shard.parent_shard_id else ()
            before = () if shard.parent_shard_id in names else last
            closed = shard.sequence_number_range.ending_sequence_number is not None
            listed.append(ShardInfo(shard.shard_id, parent + before, closed or stream.stream_status == "DISABLED"))
        # A stream that has no shards (yet) does not part those around it.
        last = tuple(sorted(names - parents)) or last
    return listed
