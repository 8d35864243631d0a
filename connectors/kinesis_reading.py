"""Reading the shards of a Kinesis stream by polling.

Where reading stands belongs to whoever reads. What is kept here of a shard is a cache: the iterator that gives what is
behind the last read, and records that were read and not asked for yet. It is used when the next read is behind the
same place; else, and after every doubt, an iterator is made for the place that is asked for.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, NamedTuple

from connectors.aws_json import Refused
from connectors.kinesis_client import NOT_FOUND, RECORDS_LIMIT, KinesisClient, Place
from connectors.kinesis_codec import KinesisCodec, ReceivedRecord
from router.core.facts import Demand
from router.core.model import TRIM_HORIZON, Chunk, time_of
from router.errors import PositionLost

_EXPIRED: Final = "ExpiredIteratorException"
#: Data, in base64, that is put into columns before others have their turn: 1 ms, but for aggregates of tiny records.
_SLICE_CHARS: Final = 256 * 1024


def place(codec: KinesisCodec, after: int) -> Place:
    """Say where reading behind a checkpoint begins."""
    if after == TRIM_HORIZON:
        return Place("TRIM_HORIZON")
    since_ms = time_of(after)
    if since_ms is not None:
        return Place("AT_TIMESTAMP", time_s=since_ms / 1000)
    kind = "AT_SEQUENCE_NUMBER" if codec.is_within(after) else "AFTER_SEQUENCE_NUMBER"
    return Place(kind, codec.sequence_number(after))


async def columns(codec: KinesisCodec, shard: str, received: Sequence[ReceivedRecord], after: int) -> Chunk:
    """Put records, perhaps none, that were read behind a checkpoint into columns, letting others have their turn.

    Raises:
        ValueError: a sequence number is none.
    """
    pieces = []
    for piece in _sliced(received):
        if len(piece) < len(received):
            await asyncio.sleep(0)
        pieces.append(codec.chunk(shard, piece))
    chunk = joined(pieces) if pieces else Chunk(shard, [], [], [], [], [], after)
    # The beginning of an aggregate may be done already.
    done = bisect_right(chunk.positions, after)
    return cut(chunk, done, len(chunk.rows)) if done else chunk


def _sliced(received: Sequence[ReceivedRecord]) -> Iterator[Sequence[ReceivedRecord]]:
    first = chars = 0
    for index, record in enumerate(received):
        if chars > _SLICE_CHARS:
            yield received[first:index]
            first, chars = index, 0
        chars += len(record.Data)
    if received:
        yield received[first:]


def joined(pieces: Sequence[Chunk]) -> Chunk:
    """Put chunks of a shard that follow each other, at least one, together."""
    if len(pieces) == 1:
        return pieces[0]
    return replace(
        pieces[-1],
        positions=[*chain.from_iterable(each.positions for each in pieces)],
        sizes=[*chain.from_iterable(each.sizes for each in pieces)],
        times_ms=[*chain.from_iterable(each.times_ms for each in pieces)],
        keys=[*chain.from_iterable(each.keys for each in pieces)],
        rows=[*chain.from_iterable(each.rows for each in pieces)],
    )


def cut(chunk: Chunk, first: int, end: int) -> Chunk:
    """Give the records from `first` up to `end` (excluded) of a chunk."""
    is_all = end >= len(chunk.rows)
    return replace(
        chunk,
        positions=chunk.positions[first:end],
        sizes=chunk.sizes[first:end],
        times_ms=chunk.times_ms[first:end],
        keys=chunk.keys[first:end],
        rows=chunk.rows[first:end],
        through=chunk.through if is_all else chunk.positions[end - 1],
        ended=chunk.ended and is_all,
        more=chunk.more or not is_all,
    )


class Rest(NamedTuple):
    """What was read and not given yet: aggregates are more records than were asked for."""

    chunk: Chunk
    first: int = 0

    def take(self, limit: int) -> tuple[Chunk, Rest | None]:
        """Give at most so many records, and what is left then."""
        end = self.first + limit
        if end < len(self.chunk.rows):
            return cut(self.chunk, self.first, end), Rest(self.chunk, end)
        return cut(self.chunk, self.first, end) if self.first else self.chunk, None


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where the reading of a shard goes on."""

    #: What follows is behind this.
    after: int
    #: Behind what is left; None = the shard has ended there.
    iterator: str | None
    rest: Rest | None = None


class Poller:
    """Reads the shards of one stream."""

    def __init__(self, client: KinesisClient, stream_arn: str, codec: KinesisCodec) -> None:
        self._client = client
        self._arn = stream_arn
        self._codec = codec
        self._reads: dict[str, _Cursor] = {}
        self._pages: dict[str, _Cursor] = {}
        #: By shard, as of its last read.
        self.behind_ms: dict[str, int] = {}

    async def read(self, shard: str, wish: Demand) -> Chunk:
        """Give what follows, as ShardSource.read does.

        Raises:
            SourceUnavailable, Throttled, PositionLost, ShardGone
            ValueError: what came is nothing that Kinesis says.
        """
        cursor = self._reads.get(shard)
        if cursor is None or cursor.after != wish.after:
            start = place(self._codec, wish.after)
            cursor = _Cursor(wish.after, await self._client.iterator(self._arn, shard, start))
        return await self._next(self._reads, shard, cursor, wish.limit)

    async def page(self, shard: str, first: int, limit: int) -> Chunk:
        """Give records from a position on, as ShardSource.page does, beside what is read. Raises the same."""
        cursor = self._pages.get(shard)
        if cursor is None or cursor.after != first - 1:
            cursor = _Cursor(first - 1, await self._iterator_at(shard, first))
        return await self._next(self._pages, shard, cursor, min(limit, RECORDS_LIMIT))

    async def _iterator_at(self, shard: str, first: int) -> str:
        if first:
            at = Place("AT_SEQUENCE_NUMBER", self._codec.sequence_number(first))
            with suppress(PositionLost):  # it may be what follows a record, and none itself
                return await self._client.iterator(self._arn, shard, at)
        return await self._client.iterator(self._arn, shard, place(self._codec, first - 1))

    async def _next(self, cursors: dict[str, _Cursor], shard: str, cursor: _Cursor, limit: int) -> Chunk:
        """Give what a cursor stands before, and move it."""
        rest, iterator = cursor.rest, cursor.iterator
        if rest is None:
            assert iterator is not None, "a cursor at the end of a shard is not kept"
            try:
                page = await self._client.records(self._arn, iterator, limit)
            except Refused as error:
                cursors.pop(shard, None)
                if error.code == _EXPIRED:
                    return Chunk(shard, [], [], [], [], [], cursor.after, more=True)
                if error.code == NOT_FOUND:
                    raise await self._client.missing(self._arn, shard, str(error)) from error
                raise
            chunk = await columns(self._codec, shard, page.Records, cursor.after)
            iterator = page.NextShardIterator
            chunk.ended = iterator is None
            chunk.more = not chunk.ended and bool(page.MillisBehindLatest)
            if chunk.more:
                chunk.read_bytes = sum(len(each.Data) for each in page.Records) * 3 // 4
            if page.MillisBehindLatest is not None:
                self.behind_ms[shard] = page.MillisBehindLatest
            rest = Rest(chunk)
        chunk, rest = rest.take(limit)
        cursors.pop(shard, None)
        if rest or iterator:
            cursors[shard] = _Cursor(chunk.through, iterator, rest)
        return chunk
