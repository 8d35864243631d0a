"""The stream of a DynamoDB table as a ShardSource.

By the name of a table, its streams are read one after the other, the oldest that is kept first: whoever disables the
stream and enables it again gets another one, and what stands in the former can be read for 24 hours. So that the
changes of an item stay in order, the first shards of a stream come behind all last shards of the stream before it. By
the ARN of a stream, that one is read and no other.

A table that was deleted and made again is no other case: its former streams stay for as long, and the new one comes
behind them. No checkpoint is void then, since the id of a shard, made of a time and chance, never comes again: so it
cannot be taken for that of another stream, and `incarnation` stays as it is. What is gone before it was read is told
as its shards are asked for. Weak spot: stand-ins that give each stream the same shard ids.

The API knows no time to read from. `at_time` reads from the oldest record on and leaves out what is older, up to the
first record that may be young enough; where such a read is interrupted by a restart it begins again. Times of records
are rounded down, by the service to a second, by DynamoDB Local to a minute: so a page whose times are all whole
minutes is taken to be rounded to these. A record may come that is older by as much, none is left out that is not.

An iterator is kept for each shard, for the place behind what was read; one that has expired, or whose place was
trimmed meanwhile, is got anew once. Sources: Amazon DynamoDB developer guide, "Change data capture for DynamoDB
Streams"; DynamoDB Streams API reference.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from connectors.aws_json import Refused
from connectors.dynamodb_client import DynamoDbClient, Page, Refusals, is_not_found
from connectors.dynamodb_codec import DynamoDbCodec, StreamRecord, chunk_of, complete, created_ms, position_of
from connectors.dynamodb_shards import shards_of
from connectors.dynamodb_table import describe, find_streams, find_table, place_of
from connectors.settings import DynamoDbSettings
from router.core.facts import Demand
from router.core.model import TRIM_HORIZON, Chunk, ShardInfo, time_of
from router.errors import PositionLost, ShardGone, SourceUnavailable
from router.ports import PAGE_COUNT, ShardCodec

#: Most records of one read (API reference, GetRecords).
_PAGE: Final = 1000
_HORIZON: Final = {"ShardIteratorType": "TRIM_HORIZON"}
_SECOND_MS: Final = 1000
_MINUTE_MS: Final = 60_000
#: What an iterator that was kept may be refused for though its place is there.
_STALE: Final = (Refusals.EXPIRED, Refusals.TRIMMED, Refusals.INVALID)


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where the last read of a shard ended."""

    #: What follows is behind this.
    after: int
    iterator: str
    behind_ms: int | None


class DynamoDbSource:
    """The streams of one table, or one of them. A closed source stays closed: make another."""

    pinned = False
    handicap = None

    def __init__(self, settings: DynamoDbSettings, *, call_s: float = 10.0) -> None:
        """Prepare without I/O; `call_s` is the longest time a call may take."""
        self._codec = DynamoDbCodec()
        self.codec: ShardCodec = self._codec
        #: ARN of the table or of the stream, once it is open.
        self.identity = ""
        self.incarnation = ""
        self.server_time_s = 0.0
        self._what = describe(settings)
        self._place = place_of(settings)
        self._client = DynamoDbClient(settings.endpoint_url, self._place.region, self._what, call_s=call_s)
        self._reads: dict[str, _Cursor] = {}
        self._pages: dict[str, _Cursor] = {}

    async def open(self) -> None:
        """Find the table and its streams."""
        self.identity = self._place.stream_arn or (await find_table(self._client, self._place.table, self._what))
        self.incarnation = self._place.stream_arn or "all streams"
        await self.shards()
        server_time_s = self._client.server_time_s
        if server_time_s is None:
            raise SourceUnavailable(f"{self._what}: what answers does not say its time; check endpoint_url")
        self.server_time_s = server_time_s

    async def shards(self) -> Sequence[ShardInfo]:
        streams = await find_streams(self._client, self._place, self._what)
        listed = {shard.shard_id: stream.stream_arn for stream in streams for shard in stream.shards}
        # A listing may be late; what is being read is there until the service says otherwise.
        read = {shard: arn for shard, arn in self._codec.streams.items() if shard in self._reads}
        self._codec.streams = read | listed
        return shards_of(streams)

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:
        shard = str(unit)
        after, limit = demand[shard]
        return [await self._next(self._reads, shard, Demand(after, min(limit, _PAGE)), self._behind(after))]

    async def page(self, shard: str, first: int, limit: int = PAGE_COUNT) -> Chunk:
        wish = Demand(first - 1, min(limit, _PAGE))
        if wish.after > TRIM_HORIZON:
            with suppress(PositionLost):
                return await self._next(self._pages, shard, wish, self._at("AT_SEQUENCE_NUMBER", first))
            # It may be what follows a record, and none itself.
        return await self._next(self._pages, shard, wish, self._behind(wish.after))

    def behind_ms(self, shard: str) -> int | None:
        cursor = self._reads.get(shard)
        return cursor.behind_ms if cursor else None

    async def close(self) -> None:
        await self._client.close()

    # --- reading

    async def _next(self, cursors: dict[str, _Cursor], shard: str, wish: Demand, start: Mapping[str, str]) -> Chunk:
        """Read behind a checkpoint, where a cursor stands or from the start that is given."""
        arn = await self._stream_of(shard)
        page = await self._go_on(cursors.get(shard), shard, wish) or await self._begin(arn, shard, wish, start)
        since_ms = time_of(wish.after)
        records = page.records if since_ms is None else _young(page.records, since_ms)
        through = position_of(records[-1]) if records else wish.after
        chunk = chunk_of(shard, [complete(record, arn) for record in records], through=through)
        chunk.ended = page.next_shard_iterator is None
        was_cut = len(page.records) == wish.limit or len(records) < len(page.records)
        chunk.more = was_cut and not chunk.ended
        cursors.pop(shard, None)
        if page.next_shard_iterator is not None:
            cursors[shard] = _Cursor(through, page.next_shard_iterator, self._behind_ms(page.records))
        return chunk

    async def _go_on(self, cursor: _Cursor | None, shard: str, wish: Demand) -> Page | None:
        if cursor is None or cursor.after != wish.after:
            return None
        try:
            return await self._client.records(cursor.iterator, wish.limit)
        except Refused as error:
            if error.code in _STALE:
                return None
            raise self._meaning(error, shard, wish.after) from error

    async def _begin(self, arn: str, shard: str, wish: Demand, start: Mapping[str, str]) -> Page:
        try:
            iterator = await self._client.iterator(arn, shard, start)
        except Refused as error:
            if error.code == Refusals.INVALID and wish.after > TRIM_HORIZON:
                raise self._lost(error, shard, wish.after) from error
            raise self._meaning(error, shard, wish.after) from error
        try:
            return await self._client.records(iterator, wish.limit)
        except Refused as error:
            raise self._meaning(error, shard, wish.after) from error

    def _behind(self, after: int) -> Mapping[str, str]:
        return _HORIZON if after <= TRIM_HORIZON else self._at("AFTER_SEQUENCE_NUMBER", after)

    def _at(self, kind: str, position: int) -> Mapping[str, str]:
        return {"ShardIteratorType": kind, "SequenceNumber": self.codec.write_position(position)}

    def _meaning(self, error: Refused, shard: str, after: int) -> Exception:
        if is_not_found(error):
            return self._gone(shard)
        if error.code == Refusals.TRIMMED and after > TRIM_HORIZON:
            return self._lost(error, shard, after)
        return error

    def _lost(self, error: Refused, shard: str, after: int) -> PositionLost:
        number = self.codec.write_position(after)
        return PositionLost(shard, f"{self._what}: shard {shard} cannot be read behind {number} ({error.code})")

    async def _stream_of(self, shard: str) -> str:
        if shard not in self._codec.streams:
            await self.shards()
        if shard not in self._codec.streams:
            raise self._gone(shard)
        return self._codec.streams[shard]

    def _gone(self, shard: str) -> ShardGone:
        self._reads.pop(shard, None)
        return ShardGone(shard, f"{self._what}: shard {shard} does not exist any more")

    def _behind_ms(self, records: Sequence[StreamRecord]) -> int | None:
        """Say how far the newest record can be away at most: what comes behind the last of these is not older."""
        now_s = self._client.server_time_s
        if not records:
            return 0
        return None if now_s is None else max(0, round(now_s * 1000) - created_ms(records[-1]))


def _young(records: Sequence[StreamRecord], since_ms: int) -> Sequence[StreamRecord]:
    """Leave out what is older than a time, up to the first record that may not be."""
    times_ms = [created_ms(record) for record in records]
    resolution_ms = _SECOND_MS if any(time_ms % _MINUTE_MS for time_ms in times_ms) else _MINUTE_MS
    first = next((index for index, time_ms in enumerate(times_ms) if time_ms + resolution_ms > since_ms), len(records))
    return records[first:]
