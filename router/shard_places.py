"""Where a mapping is in a stream of which the store keeps the checkpoints, and where it is put.

Only reading tells what lies between two places here, and the stream allows so many reads a second to all who read it.
So counting ends after a bounded number of pages, and then says how many there are at least.

A checkpoint must be a position that a record has, or services do not read behind it. Before the record that is sought
that is the one before it: it is looked for behind ever earlier times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from router.checkpoints import (
    SHARD,
    STREAM,
    StreamBegun,
    read_checkpoint,
    read_shard,
    read_stream,
    write_checkpoint,
    write_shard,
)
from router.core.facts import Demand, Progress
from router.core.model import THROTTLE_BACKOFF, TRIM_HORIZON, Chunk, EventSourceMapping, at_time
from router.core.seek import AtPosition, Direction, Extent, Move, SeekTo, direction
from router.errors import InUse, NotFound, PositionLost, ShardGone, SourceUnavailable, Throttled
from router.identity import BEGUN
from router.ports import PutState, ShardSource, Span, Store
from router.shard_side import begin

#: Pages that are read to count what is between two places of one shard, and time for those of all.
PAGES: Final = 20
COUNT_S: Final = 20.0
#: Between two pages of a shard: Kinesis allows five reads of it a second.
PAUSE_S: Final = 0.2
#: Longest time for which the record before another is looked for.
FIND_S: Final = 60.0
#: The record before another is looked for behind its arrival less these times, then from the oldest on.
_BEFORE_MS: Final = (2_000, 60_000, 3_600_000)
#: Beyond every position: the end of a shard, or of what is in it now.
_END: Final = 1 << 512


@dataclass(slots=True)
class _Count:
    """What was counted between two positions."""

    records: int = 0
    is_exact: bool = False
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, chunk: Chunk, end: int) -> None:
        for position, time_ms in zip(chunk.positions, chunk.times_ms, strict=True):
            if position < end:
                self.records += 1
                self.first_ms = time_ms if self.first_ms is None else self.first_ms
                self.last_ms = time_ms


class ShardPlaces:
    """One stream as one mapping has read it."""

    retry_state_limit_bytes: int | None = None

    def __init__(
        self, source: ShardSource, mapping: EventSourceMapping, store: Store, *, page_count: int = 10_000
    ) -> None:
        """Make it over a source of its own, which gives `page_count` records at most at once."""
        self.stream = ""
        self.incarnation = ""
        self.now_ms = 0
        self._source = source
        self._mapping = mapping
        self._store = store
        self._page_count = page_count

    async def open(self) -> None:
        await self._source.open()
        self.stream = self._source.identity
        self.incarnation = self._source.incarnation
        self.now_ms = int(self._source.server_time_s * 1000)

    async def close(self) -> None:
        await self._source.close()

    async def extents(self, target: SeekTo | None = None, shard: str | None = None) -> Sequence[Extent]:
        states = await self._store.states(self._mapping.name)
        self._check_source(states)
        begun = self._begun(states)
        listed = await self._source.shards()
        extents = [Extent(each.name, self._place(states, begun, each.name), closed=each.closed) for each in listed]
        if isinstance(target, AtPosition):
            named = [each for each in extents if shard in (None, each.shard)]
            if len(named) == 1:
                preceding = await self._preceding(named[0].shard, target.position)
                return [each._replace(preceding=preceding) if each in named else each for each in extents]
        return extents

    def _check_source(self, states: Mapping[str, str]) -> None:
        """Refuse to touch what is kept of another stream. Raises InUse."""
        kept = states.get(BEGUN, self.stream)
        if kept.partition("/consumer/")[0] != self.stream:
            name = self._mapping.name
            raise InUse(
                f"what is kept of mapping {name} belongs to {kept}, and the file names {self.stream}: put the former "
                f"source back, or let it go on with the new one: `headrace mapping accept {name}`"
            )

    def _begun(self, states: Mapping[str, str]) -> StreamBegun | None:
        """Say how the mapping began to read this stream; None = it did not, or nobody can read it."""
        with suppress(ValueError):
            begun = read_stream(states.get(STREAM, ""), self._source.codec)
            return begun if begun.incarnation == self.incarnation else None
        return None

    def _place(self, states: Mapping[str, str], begun: StreamBegun | None, shard: str) -> Progress | None:
        if begun is None:
            return None
        with suppress(ValueError):
            return read_shard(states.get(f"{SHARD}{shard}", ""), self._source.codec)
        return Progress(begun.start, "")

    async def _preceding(self, shard: str, position: int) -> int:
        """Give the checkpoint behind which the record at a position comes first.

        Raises:
            NotFound: there is no such record.
        """
        try:
            found = await self._source.page(shard, position)
        except (PositionLost, ShardGone) as error:
            raise NotFound(
                f"{shard} has no record at {self._source.codec.write_position(position)}: {error}"
            ) from error
        first_ms = found.times_ms[0] if found.times_ms else None
        try:
            async with asyncio.timeout(FIND_S):
                return await self._found_before(shard, self._beginning(position), first_ms)
        except TimeoutError:
            raise SourceUnavailable(
                f"The record before that place of {shard} was not found within {FIND_S:.0f} s: seek to a time instead."
            ) from None

    async def _found_before(self, shard: str, position: int, time_ms: int | None) -> int:
        times_ms = [] if time_ms is None else [max(0, time_ms - before_ms) for before_ms in _BEFORE_MS]
        for after in (*map(at_time, times_ms), TRIM_HORIZON):
            preceding = await self._last_before(shard, after, position)
            if preceding is not None:
                return preceding
        return TRIM_HORIZON

    def _beginning(self, position: int) -> int:
        """Give the lowest position in the record that a position ends: one that holds several has one for each."""
        codec = self._source.codec
        with suppress(ValueError):
            return min(position, codec.read_position(f"{codec.write_position(position)}.0"))
        return position

    async def _last_before(self, shard: str, after: int, position: int) -> int | None:
        """Give the last position behind a checkpoint and before another position; None = there is none."""
        last = None
        async for chunk in self._pages(shard, after):
            before = [each for each in chunk.positions if each < position]
            last = before[-1] if before else last
            if len(before) < len(chunk.positions):
                break
        return last

    async def measure(self, moves: Sequence[Move]) -> Sequence[Span]:
        spans: list[Span] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(COUNT_S):
                for move in moves:
                    spans.append(await self._span(move))  # noqa: PERF401 - what was counted stays when time is up
        return [*spans, *(Span(_guess(move), is_exact=False) for move in moves[len(spans) :])]

    async def _span(self, move: Move) -> Span:
        shard, before, after = move
        if before is None:
            return Span(Direction.BEGIN)
        try:
            ends = await self._next(shard, before), await self._next(shard, after)
            way = direction(*ends)
            low = min(((ends[0], before), (ends[1], after)), key=lambda each: each[0])[1]
            count = (
                await self._count(shard, low.checkpoint, max(ends))
                if way is not Direction.STAY
                else _Count(0, is_exact=True)
            )
        except (SourceUnavailable, PositionLost, ShardGone):
            return Span(_guess(move), is_exact=False)
        if count.is_exact and not count.records:
            way = Direction.STAY
        known = count.is_exact and count.first_ms is not None and count.last_ms is not None
        seconds = ((count.last_ms or 0) - (count.first_ms or 0)) / 1000 if known else None
        return Span(way, count.records, is_exact=count.is_exact, seconds=seconds)

    async def _next(self, shard: str, place: Progress) -> int:
        """Give a position behind which, or at which, the next record of a place is; _END = there is none."""
        if place.ended:
            return _END
        if place.checkpoint >= TRIM_HORIZON:
            return place.checkpoint + 1
        async for chunk in self._pages(shard, place.checkpoint):
            if chunk.positions:
                return chunk.positions[0]
        return _END

    async def _count(self, shard: str, after: int, end: int) -> _Count:
        count = _Count()
        number = 0
        async for chunk in self._pages(shard, after):
            number += 1
            count.add(chunk, end)
            if chunk.positions and chunk.positions[-1] >= end - 1:
                count.is_exact = True
                return count
            if number == PAGES:
                return count
        count.is_exact = True
        return count

    async def _pages(self, shard: str, after: int) -> AsyncIterator[Chunk]:
        """Read what is in a shard now behind a checkpoint, at the pace that it allows; without end while it is busy."""
        while True:
            try:
                [chunk] = await self._source.read(shard, {shard: Demand(after, self._page_count)})
            except Throttled:
                await asyncio.sleep(THROTTLE_BACKOFF.base_s)
                continue
            yield chunk
            if chunk.ended or not chunk.more:
                return
            after = chunk.through
            await asyncio.sleep(PAUSE_S)

    async def write(self, places: Mapping[str, Progress]) -> None:
        name, codec = self._mapping.name, self._source.codec
        states = await self._store.states(name)
        if self._begun(states) is None:
            await begin(self._source, self._mapping, self._store, states, remade=STREAM in states)
        texts = {f"{SHARD}{shard}": write_shard(place, codec) for shard, place in places.items()}
        await self._store.apply([PutState(name, key, text) for key, text in texts.items()])

    def show(self, place: Progress) -> str:
        return write_checkpoint(place.checkpoint, self._source.codec)

    def checkpoint(self, text: str) -> int:
        return read_checkpoint(text, self._source.codec)

    def position(self, text: str) -> int:
        return self._source.codec.read_position(text)


def _guess(move: Move) -> Direction:
    """Say which way a move goes that could not be measured."""
    if move.before is None:
        return Direction.BEGIN
    return Direction.FORWARD if move.after.ended else Direction.BACK
