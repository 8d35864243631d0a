"""What every ShardSource does, whatever it reads. Subclasses give the `bench` fixture: a stream of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from router.core.facts import Demand
from router.core.model import TRIM_HORIZON, Batch, Chunk, Part, ShardInfo, at_time, time_of
from router.errors import PositionLost, ShardGone
from router.ports import ShardSource

LIMIT = 1000
#: Longest that anything takes, seconds.
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Features:
    """What this stream can do."""

    #: Shards split.
    splits: bool = True
    #: Shards merge.
    merges: bool = True
    #: Retention can be made to pass.
    trims: bool = True
    #: The stream can be deleted and made again.
    recreates: bool = True
    #: How exactly a time can be named that reading begins at, milliseconds; None = it cannot.
    times_ms: int | None = 1
    #: Arrival times are rounded down to this.
    resolution_ms: int = 1
    #: Events say which shard they are of.
    shard_in_event: bool = True


class Bench(Protocol):
    """A stream for one test, and the means to act on it from outside."""

    features: Features

    def source(self) -> ShardSource:
        """Make a source that is not open yet."""

    async def append(self, shard: str, *values: bytes) -> list[int]:
        """Write records that differ in their key; returns their positions."""

    def value(self, data: bytes | None) -> bytes | None:
        """Give what was written of the data that filters see of a record."""

    async def split(self, shard: str) -> tuple[str, str]:
        """Close a shard; returns its children."""

    async def merge(self, one: str, two: str) -> str:
        """Close two shards; returns their child."""

    async def trim(self, shard: str, before: int) -> None:
        """Delete what is before a position."""

    async def recreate(self) -> None:
        """Delete the stream and make it again."""


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[ShardSource]:
    source = bench.source()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await source.open()
            yield source
    finally:
        await source.close()


async def read(source: ShardSource, shard: str, after: int, limit: int = LIMIT) -> Chunk:
    [chunk] = await source.read(shard, {shard: Demand(after, limit)})
    assert chunk.shard == shard
    return chunk


async def read_until(source: ShardSource, shard: str, after: int, count: int, limit: int = LIMIT) -> list[Chunk]:
    """Read until there are `count` records, or the shard's end; reads that find nothing are not among the chunks."""
    chunks: list[Chunk] = []
    while sum(len(chunk.rows) for chunk in chunks) < count:
        chunk = await read(source, shard, after, limit)
        after = chunk.through
        if chunk.rows or chunk.ended:
            chunks.append(chunk)
        if chunk.ended:
            break
    return chunks


async def read_values(bench: Bench, source: ShardSource, shard: str, after: int, count: int) -> list[bytes | None]:
    return values(bench, source, await read_until(source, shard, after, count))


def values(bench: Bench, source: ShardSource, chunks: Sequence[Chunk]) -> list[bytes | None]:
    return [bench.value(source.codec.view(row)[1]) for chunk in chunks for row in chunk.rows]


async def first_shard(source: ShardSource) -> str:
    return (await source.shards())[0].name


async def until_listed(source: ShardSource, name: str) -> dict[str, ShardInfo]:
    listed: dict[str, ShardInfo] = {}
    while name not in listed:
        listed = {each.name: each for each in await source.shards()}
    return listed


class ShardSourceConformance:
    async def test_the_horizon_gives_every_record_in_order(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            written = [b"%d" % number for number in range(60)]
            await bench.append(shard, *written)
            assert await read_values(bench, source, shard, TRIM_HORIZON, 60) == written

    async def test_a_chunk_is_ascending_columns_of_one_length(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            before_ms = time.time() * 1000 - 60_000
            positions = await bench.append(shard, b"a", b"b" * 1000, b"\x00\xff")
            [chunk] = await read_until(source, shard, TRIM_HORIZON, 3)
            assert list(chunk.positions) == positions
            assert len(chunk.rows) == len(chunk.sizes) == len(chunk.times_ms) == len(chunk.keys) == 3
            assert len(set(chunk.keys)) == 3
            assert chunk.through == positions[-1]
            assert all(time_ms >= before_ms for time_ms in chunk.times_ms)
            assert list(chunk.times_ms) == sorted(chunk.times_ms)

    async def test_sizes_are_never_smaller_than_the_record_in_the_event(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            await bench.append(shard, *(bytes([65 + size]) * size for size in range(1, 50)))
            chunks = await read_until(source, shard, TRIM_HORIZON, 49)
        rows = [row for chunk in chunks for row in chunk.rows]
        sizes = [size for chunk in chunks for size in chunk.sizes]
        alone = len(source.codec.event(rows[:1]))
        assert len(source.codec.event(rows)) - alone <= sum(sizes[1:])

    async def test_a_read_gives_no_more_than_its_limit_and_says_that_more_waits(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            written = [b"%d" % number for number in range(20)]
            await bench.append(shard, *written)
            chunks = await read_until(source, shard, TRIM_HORIZON, 20, limit=7)
            assert all(len(chunk.rows) <= 7 for chunk in chunks)
            assert values(bench, source, chunks) == written

    async def test_reading_again_behind_a_position_gives_the_same_records(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            positions = await bench.append(shard, b"a", b"b", b"c")
            for after in (TRIM_HORIZON, TRIM_HORIZON, positions[1], positions[0], TRIM_HORIZON, positions[2]):
                wanted = [position for position in positions if position > after]
                chunks = await read_until(source, shard, after, len(wanted))
                assert [position for chunk in chunks for position in chunk.positions] == wanted

    async def test_a_read_that_finds_nothing_stays_where_it_is(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            chunk = await read(source, shard, TRIM_HORIZON)
            assert (list(chunk.rows), chunk.through, chunk.ended) == ([], TRIM_HORIZON, False)
            [position] = await bench.append(shard, b"a")
            assert await read_values(bench, source, shard, TRIM_HORIZON, 1) == [b"a"]
            chunk = await read(source, shard, position)
            assert (list(chunk.rows), chunk.through, chunk.ended) == ([], position, False)

    async def test_what_comes_later_is_read_without_gap_or_duplicate(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            after, seen = TRIM_HORIZON, []
            for number in range(5):
                await bench.append(shard, b"%d" % number)
                chunks = await read_until(source, shard, after, 1)
                after = chunks[-1].through
                seen += values(bench, source, chunks)
            assert seen == [b"0", b"1", b"2", b"3", b"4"]

    async def test_a_cancelled_read_loses_nothing(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            await bench.append(shard, b"a", b"b")
            for turns in range(40):
                reading = asyncio.create_task(read(source, shard, TRIM_HORIZON))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait({reading})
            assert await read_values(bench, source, shard, TRIM_HORIZON, 2) == [b"a", b"b"]

    async def test_another_source_goes_on_behind_a_position(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            first, _ = await bench.append(shard, b"a", b"b")
            await read_until(source, shard, TRIM_HORIZON, 2)
        async with opened(bench) as source:
            assert await read_values(bench, source, shard, first, 1) == [b"b"]

    async def test_a_time_stands_for_what_came_at_it_or_later(self, bench: Bench) -> None:
        step_ms = bench.features.times_ms
        if step_ms is None:
            pytest.skip("it cannot be read from a time")
        async with opened(bench) as source:
            shard = await first_shard(source)
            await bench.append(shard, b"before")
            [before] = await read_until(source, shard, TRIM_HORIZON, 1)
            since_ms = (before.times_ms[0] // step_ms + 1) * step_ms
            await asyncio.sleep(since_ms / 1000 - time.time() + 0.001)
            chunk = await read(source, shard, at_time(since_ms))
            assert (list(chunk.rows), time_of(chunk.through)) == ([], since_ms)
            await bench.append(shard, b"after")
            assert await read_values(bench, source, shard, at_time(since_ms), 1) == [b"after"]
            assert await read_values(bench, source, shard, at_time(before.times_ms[0] - 60_000), 2) == [
                b"before",
                b"after",
            ]

    async def test_the_clock_of_the_service_is_never_ahead(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            await bench.append(shard, b"after")
            [chunk] = await read_until(source, shard, TRIM_HORIZON, 1)
            assert source.server_time_s * 1000 < chunk.times_ms[0] + bench.features.resolution_ms
            assert chunk.times_ms[0] - source.server_time_s * 1000 < 60_000

    async def test_a_page_begins_at_a_position(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            positions = await bench.append(shard, b"a", b"b", b"c")
            await read_until(source, shard, TRIM_HORIZON, 3)
            for number, first in enumerate(positions):
                page = await source.page(shard, first)
                assert list(page.positions) == positions[number:]
            assert await read_values(bench, source, shard, positions[1], 1) == [b"c"]

    async def test_the_end_of_what_there_is_is_told(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            assert source.behind_ms(shard) is None
            await bench.append(shard, b"a")
            [chunk] = await read_until(source, shard, TRIM_HORIZON, 1)
            await read(source, shard, chunk.through)
            assert source.behind_ms(shard) == 0

    # --- shards that come and go

    async def test_a_split_ends_its_parent_and_names_it(self, bench: Bench) -> None:
        if not bench.features.splits:
            pytest.skip("its shards do not split")
        async with opened(bench) as source:
            shard = await first_shard(source)
            await bench.append(shard, b"a", b"b")
            one, two = await bench.split(shard)
            listed = await until_listed(source, two)
            assert listed[shard].closed
            assert [listed[child].parents for child in (one, two)] == [(shard,), (shard,)]
            assert not listed[one].closed
            chunks = await read_until(source, shard, TRIM_HORIZON, 3)
            assert values(bench, source, chunks) == [b"a", b"b"]
            assert chunks[-1].ended
            again = await read_until(source, shard, chunks[-1].through, 1)
            assert (values(bench, source, again), again[-1].ended) == ([], True)
            await bench.append(one, b"c")
            assert await read_values(bench, source, one, TRIM_HORIZON, 1) == [b"c"]

    async def test_a_merge_names_both_parents(self, bench: Bench) -> None:
        if not bench.features.merges:
            pytest.skip("its shards do not merge")
        async with opened(bench) as source:
            one, two = (each.name for each in await source.shards())
            [last, _] = [(await bench.append(each, b"x"))[0] for each in (one, two)]
            child = await bench.merge(one, two)
            listed = await until_listed(source, child)
            assert set(listed[child].parents) == {one, two}
            assert (await read_until(source, one, last, 1))[-1].ended
            assert (await read_until(source, two, TRIM_HORIZON, 2))[-1].ended

    async def test_a_shard_that_ends_while_it_is_read_loses_nothing(self, bench: Bench) -> None:
        if not bench.features.splits:
            pytest.skip("its shards do not split")
        async with opened(bench) as source:
            shard = await first_shard(source)
            after, seen = TRIM_HORIZON, []
            await bench.append(shard, b"a")
            chunk = await read(source, shard, after)
            seen += values(bench, source, [chunk])
            await bench.append(shard, b"b", b"c")
            await bench.split(shard)
            chunks = await read_until(source, shard, chunk.through, 4)
            assert seen + values(bench, source, chunks) == [b"a", b"b", b"c"]
            assert chunks[-1].ended

    # --- what is gone

    async def test_a_trimmed_position_is_lost_and_the_horizon_is_the_oldest_record(self, bench: Bench) -> None:
        if not bench.features.trims:
            pytest.skip("its retention cannot be made to pass")
        async with opened(bench) as source:
            shard = await first_shard(source)
            positions = await bench.append(shard, b"a", b"b", b"c")
            await bench.trim(shard, positions[2])
            with pytest.raises(PositionLost) as lost:
                await read(source, shard, positions[0])
            assert lost.value.shard == shard
            assert await read_values(bench, source, shard, TRIM_HORIZON, 1) == [b"c"]
            assert await read_values(bench, source, shard, positions[1], 1) == [b"c"]

    async def test_a_shard_that_is_not_there_is_gone(self, bench: Bench) -> None:
        async with opened(bench) as source:
            with pytest.raises(ShardGone) as gone:
                await read(source, "shardId-000000000077", TRIM_HORIZON)
            assert gone.value.shard == "shardId-000000000077"

    async def test_a_stream_made_again_is_another(self, bench: Bench) -> None:
        if not bench.features.recreates:
            pytest.skip("it cannot be made again")
        async with opened(bench) as source:
            incarnation = source.incarnation
        async with opened(bench) as source:
            assert source.incarnation == incarnation
        await bench.recreate()
        async with opened(bench) as source:
            assert source.incarnation != incarnation

    async def test_closing_may_come_twice(self, bench: Bench) -> None:
        async with opened(bench) as source:
            await source.close()

    # --- the codec

    async def test_rows_read_back_from_an_event_make_the_same_event(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            await bench.append(shard, b'{"a":1}', b"\x00\xff" * 800, "é".encode())
            chunks = await read_until(source, shard, TRIM_HORIZON, 3)
        codec = source.codec
        event = codec.event([row for chunk in chunks for row in chunk.rows])
        parsed = codec.parse(event)
        assert codec.event(parsed.rows) == event
        assert parsed.shard == (shard if bench.features.shard_in_event else "")
        for column in ("positions", "keys", "times_ms", "sizes"):
            assert list(getattr(parsed, column)) == [each for chunk in chunks for each in getattr(chunk, column)]
        assert parsed.through == chunks[-1].positions[-1]

    async def test_an_identifier_names_a_record_of_the_batch_or_nothing(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            positions = await bench.append(shard, b"a", b"b", b"c")
            [chunk] = await read_until(source, shard, TRIM_HORIZON, 3)
        codec = source.codec
        batch = Batch("id", shard, 0, [Part(chunk, range(2))], 2)
        names: list[Any] = [codec.write_position(position) for position in positions]
        assert [codec.identify(name, batch) for name in names] == [*positions[:2], None]
        for item in (positions[1], json.loads(f"{positions[1]}.5"), "", " " + names[0], "+1", "x", {}, None, True):
            assert codec.identify(item, batch) is None

    async def test_a_position_is_written_and_read_back(self, bench: Bench) -> None:
        async with opened(bench) as source:
            shard = await first_shard(source)
            for position in await bench.append(shard, b"a", b"b"):
                assert source.codec.read_position(source.codec.write_position(position)) == position
            for text in ("", "x", "-1", "1.5.2", " 1", "\u0661"):
                with pytest.raises(ValueError, match=r".+"):
                    source.codec.read_position(text)
