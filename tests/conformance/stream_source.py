"""What every StreamSource does, whatever it reads. Subclasses give the `bench` fixture: a stream of two shards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from router.core.facts import Demand, Progress
from router.core.model import Batch, Chunk, Part
from router.errors import LeaseLost, PositionLost
from router.ports import Lost, Opened, Revoking, ShardChange, StreamSource

LIMIT = 1000


@dataclass(frozen=True)
class Features:
    """What this stream can do."""

    #: Positions that hold no record.
    gaps: bool = True
    #: Two sources of one name share the shards.
    shared: bool = True
    #: Commits carry retry state.
    retry_state: bool = True


class Bench(Protocol):
    """A stream for one test, and the means to act on it from outside."""

    features: Features

    @property
    def shards(self) -> tuple[str, str]: ...

    def source(self, starting_position: str = "TRIM_HORIZON", since_s: float | None = None) -> StreamSource:
        """Make a source that is not open yet; all sources of one bench resume from the same commits."""

    async def append(self, shard: str, *values: bytes | None, key: bytes | None = None) -> list[int]:
        """Write records; returns their positions."""

    async def trim(self, shard: str, before: int) -> None:
        """Delete what is before a position."""

    async def skip(self, shard: str) -> None:
        """Use up at least one position without a record."""


class Client:
    """An open source and the shards it was given."""

    def __init__(self, source: StreamSource) -> None:
        self.source = source
        self.opened: dict[str, Opened] = {}
        self._changes = source.changes()

    async def change(self) -> ShardChange:
        async with asyncio.timeout(30):
            change = await anext(self._changes)
        if isinstance(change, Opened):
            self.opened[change.shard] = change
        else:
            self.opened.pop(change.shard, None)
        return change

    async def until_given(self, count: int) -> None:
        while len(self.opened) < count:
            await self.change()

    async def read(self, shard: str, after: int, limit: int = LIMIT) -> Chunk | None:
        chunks = await self.source.read(self.opened[shard].unit, {shard: Demand(after, limit)})
        assert len(chunks) <= 1
        return chunks[0] if chunks else None

    async def read_some(self, shard: str, after: int, limit: int = LIMIT) -> Chunk:
        """Read until there is something: one read does not wait for long."""
        async with asyncio.timeout(30):
            while (chunk := await self.read(shard, after, limit)) is None:
                pass
        return chunk

    async def read_values(self, shard: str, after: int, count: int) -> list[Any]:
        """Read until there are `count` records."""
        values: list[Any] = []
        async with asyncio.timeout(30):
            while len(values) < count:
                if chunk := await self.read(shard, after):
                    values += [self.source.codec.view(row)[1] for row in chunk.rows]
                    after = chunk.through
        return values

    async def until_lost(self, shard: str, after: int) -> PositionLost:
        """Read from one position until it is lost: a client may have fetched what was there before."""
        async with asyncio.timeout(30):
            while True:
                try:
                    await self.read(shard, after)
                except PositionLost as lost:
                    return lost


@asynccontextmanager
async def running(source: StreamSource, shards: int = 2) -> AsyncIterator[Client]:
    """Open a source and wait until it has so many shards."""
    try:
        await source.open()
        client = Client(source)
        await client.until_given(shards)
        yield client
    finally:
        await source.close()


class StreamSourceConformance:
    async def test_a_new_reader_at_the_horizon_gets_every_record_in_order(self, bench: Bench) -> None:
        one, _ = bench.shards
        values = [b"%d" % number for number in range(1200)]
        await bench.append(one, *values)
        async with running(bench.source()) as client:
            opened = client.opened[one]
            assert opened.checkpoint is not None
            assert await client.read_values(one, opened.checkpoint, 1200) == values

    async def test_a_chunk_is_ascending_columns_of_one_length_behind_the_checkpoint(self, bench: Bench) -> None:
        one, _ = bench.shards
        before_ms = time.time() * 1000 - 60_000
        positions = await bench.append(one, b"a", b"b" * 1000, None, key=b"k")
        async with running(bench.source()) as client:
            chunk = await client.read_some(one, positions[0])
        assert chunk.shard == one
        assert list(chunk.positions) == positions[1:]
        assert list(chunk.keys) == [b"k", b"k"]
        assert len(chunk.rows) == len(chunk.sizes) == len(chunk.times_ms) == 2
        assert chunk.through == positions[-1]
        assert all(time_ms == 0 or time_ms >= before_ms for time_ms in chunk.times_ms)

    async def test_sizes_are_never_smaller_than_the_record_in_the_event(self, bench: Bench) -> None:
        one, _ = bench.shards
        await bench.append(one, *(bytes([size % 256]) * size for size in range(50)), None, key=b"\xff" * 7)
        async with running(bench.source()) as client:
            chunk = await client.read_some(one, -1)
        codec = client.source.codec
        alone = [len(codec.event([row])) for row in chunk.rows]
        together = len(codec.event(chunk.rows))
        assert together - alone[0] <= sum(chunk.sizes[1:])

    async def test_no_shard_gives_more_than_its_limit(self, bench: Bench) -> None:
        one, _ = bench.shards
        await bench.append(one, *[b"x"] * 50)
        async with running(bench.source()) as client:
            chunk = await client.read_some(one, -1, limit=7)
            assert 1 <= len(chunk.rows) <= 7

    async def test_reading_again_behind_the_same_checkpoint_gives_the_same_records(self, bench: Bench) -> None:
        one, _ = bench.shards
        positions = await bench.append(one, b"a", b"b", b"c")
        async with running(bench.source()) as client:
            for after in (-1, -1, positions[1], positions[0], -1):
                chunk = await client.read_some(one, after)
                assert list(chunk.positions) == [position for position in positions if position > after]

    async def test_only_demanded_shards_are_read(self, bench: Bench) -> None:
        one, two = bench.shards
        await bench.append(one, b"a")
        await bench.append(two, b"b")
        async with running(bench.source()) as client:
            chunk = await client.read_some(two, -1)
            assert chunk.shard == two
            assert await client.read_values(one, -1, 1) == [b"a"]

    async def test_a_read_that_finds_nothing_ends_empty(self, bench: Bench) -> None:
        async with running(bench.source()) as client:
            assert await client.read(bench.shards[0], -1) is None

    async def test_a_waiting_read_gives_what_arrives(self, bench: Bench) -> None:
        one, _ = bench.shards
        async with running(bench.source()) as client:
            reading = asyncio.create_task(client.read_values(one, -1, 1))
            await bench.append(one, b"late")
            assert await reading == [b"late"]

    async def test_a_cancelled_read_loses_nothing(self, bench: Bench) -> None:
        one, _ = bench.shards
        await bench.append(one, b"a", b"b")
        async with running(bench.source()) as client:
            for turns in range(40):
                reading = asyncio.create_task(client.read(one, -1))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait({reading})
            assert await client.read_values(one, -1, 2) == [b"a", b"b"]

    async def test_a_restart_resumes_behind_the_commit_with_its_retry_state(self, bench: Bench) -> None:
        one, two = bench.shards
        first, *_ = await bench.append(one, b"a", b"b")
        state = '{"attempts":2,"note":"é"}' if bench.features.retry_state else ""
        async with running(bench.source()) as client:
            await client.source.commit({one: Progress(first, state)})
        async with running(bench.source()) as client:
            assert client.opened[one].checkpoint == first
            assert client.opened[one].retry_state == state
            assert client.opened[two].retry_state == ""
            assert await client.read_values(one, first, 1) == [b"b"]

    async def test_the_largest_retry_state_comes_back_whole(self, bench: Bench) -> None:
        if not bench.features.retry_state:
            pytest.skip("its commits carry no retry state")
        one, _ = bench.shards
        [position] = await bench.append(one, b"a")
        async with running(bench.source()) as client:
            state = "é" * (client.source.retry_state_limit_bytes // 2)
            await client.source.commit({one: Progress(position, state)})
        async with running(bench.source()) as client:
            assert client.opened[one].retry_state == state

    async def test_latest_is_the_moment_of_the_first_open_even_if_nothing_was_committed(self, bench: Bench) -> None:
        one, _ = bench.shards
        await bench.append(one, b"before")
        await_nothing = bench.source("LATEST")
        await await_nothing.open()
        await bench.append(one, b"after")
        await await_nothing.close()
        async with running(bench.source("LATEST")) as client:
            checkpoint = client.opened[one].checkpoint
            assert checkpoint is not None
            assert await client.read_values(one, checkpoint, 1) == [b"after"]

    async def test_at_timestamp_starts_at_the_first_record_of_that_time(self, bench: Bench) -> None:
        one, two = bench.shards
        await bench.append(one, b"before")
        await bench.append(two, b"before")
        since_s = (int(time.time() * 1000) + 2) / 1000
        while time.time() < since_s:
            pass
        await bench.append(one, b"after")
        async with running(bench.source("AT_TIMESTAMP", since_s)) as client:
            start_one, start_two = client.opened[one].checkpoint, client.opened[two].checkpoint
            assert start_one is not None
            assert start_two is not None
            assert await client.read_values(one, start_one, 1) == [b"after"]
            assert await client.read(two, start_two) is None

    async def test_a_commit_wins_over_the_starting_position(self, bench: Bench) -> None:
        one, _ = bench.shards
        first, *_ = await bench.append(one, b"a", b"b")
        async with running(bench.source()) as client:
            await client.source.commit({one: Progress(first, "")})
        async with running(bench.source("LATEST")) as client:
            assert client.opened[one].checkpoint == first

    async def test_a_trimmed_position_is_lost_and_located_at_the_oldest_record(self, bench: Bench) -> None:
        one, _ = bench.shards
        positions = await bench.append(one, b"a", b"b", b"c")
        async with running(bench.source()) as client:
            await bench.trim(one, positions[2])
            assert (await client.until_lost(one, -1)).shard == one
            start = await client.source.locate(one, lost=True)
            assert start == positions[2] - 1
            assert await client.read_values(one, start, 1) == [b"c"]

    async def test_a_position_beyond_the_end_is_lost(self, bench: Bench) -> None:
        one, _ = bench.shards
        await bench.append(one, b"a")
        async with running(bench.source()) as client:
            await client.until_lost(one, 1_000_000)
            assert await client.source.locate(one, lost=True) == -1

    async def test_positions_without_records_are_passed(self, bench: Bench) -> None:
        if not bench.features.gaps:
            pytest.skip("its positions all hold records")
        one, _ = bench.shards
        [position] = await bench.append(one, b"a")
        await bench.skip(one)
        async with running(bench.source()) as client:
            through = position
            async with asyncio.timeout(30):
                while through == position:
                    if chunk := await client.read(one, through):
                        assert not chunk.rows
                        through = chunk.through
            assert through == client.source.newest(one)

    async def test_the_newest_position_is_known_once_read(self, bench: Bench) -> None:
        one, _ = bench.shards
        positions = await bench.append(one, b"a", b"b")
        async with running(bench.source()) as client:
            await client.read_values(one, -1, 2)
            assert client.source.newest(one) == positions[-1]

    async def test_two_sources_share_the_shards_after_release(self, bench: Bench) -> None:
        if not bench.features.shared:
            pytest.skip("its shards are not shared")
        one, two = bench.shards
        first, *_ = await bench.append(one, b"a", b"b")
        await bench.append(two, b"c", b"d")
        async with running(bench.source()) as elder:
            younger = bench.source()
            async with joining(younger):
                assert {await elder.change(), await elder.change()} == {Revoking(one), Revoking(two)}
                # Whoever is asked may still commit what it has finished.
                await elder.source.commit({one: Progress(first, "s1"), two: Progress(first, "s2")})
                for shard in (one, two):
                    await elder.source.release(shard)
                client = Client(younger)
                await asyncio.gather(elder.until_given(1), client.until_given(1))
                assert elder.opened.keys() | client.opened.keys() == {one, two}
                for opened in [*elder.opened.values(), *client.opened.values()]:
                    assert opened.checkpoint == first
                    assert opened.retry_state in ("s1", "s2")

    async def test_commits_for_a_shard_of_others_are_refused(self, bench: Bench) -> None:
        if not bench.features.shared:
            pytest.skip("its shards are not shared")
        one, two = bench.shards
        async with running(bench.source()) as elder, joining(bench.source()):
            assert {await elder.change(), await elder.change()} == {Revoking(one), Revoking(two)}
            for shard in (one, two):
                await elder.source.release(shard)
            await elder.until_given(1)
            [gone] = {one, two} - elder.opened.keys()
            with pytest.raises(LeaseLost):
                await elder.source.commit({gone: Progress(0, "")})

    async def test_a_shard_that_is_not_released_in_time_is_lost(self, bench: Bench) -> None:
        if not bench.features.shared:
            pytest.skip("its shards are not shared")
        one, two = bench.shards
        async with running(bench.source()) as elder, joining(bench.source()):
            assert {await elder.change(), await elder.change()} == {Revoking(one), Revoking(two)}
            await elder.source.release(one)
            assert await elder.change() == Lost(two)

    async def test_closing_ends_the_changes_and_may_come_twice(self, bench: Bench) -> None:
        source = bench.source()
        await source.open()
        changes = source.changes()
        await anext(changes)
        await source.close()
        await source.close()
        async with asyncio.timeout(30):
            assert not [change async for change in changes if isinstance(change, Revoking)]

    async def test_rows_read_back_from_an_event_make_the_same_event(self, bench: Bench) -> None:
        one, _ = bench.shards
        await bench.append(one, b'{"a":1}', b"\x00\xff" * 800, key=b"k")
        await bench.append(one, None, key=b"t")
        async with running(bench.source()) as client:
            chunk = await client.read_some(one, -1)
        codec = client.source.codec
        event = codec.event(chunk.rows)
        parsed = codec.parse(event)
        assert codec.event(parsed.rows) == event
        assert parsed.shard == one
        assert list(parsed.positions) == list(chunk.positions)
        assert list(parsed.keys) == list(chunk.keys)
        assert parsed.through == chunk.positions[-1]

    async def test_an_identifier_names_a_record_of_the_batch_or_nothing(self, bench: Bench) -> None:
        one, two = bench.shards
        positions = await bench.append(one, b"a", b"b", b"c")
        async with running(bench.source()) as client:
            chunk = await client.read_some(one, -1)
        batch = Batch("id", one, 0, [Part(chunk, range(2))], 2)
        codec = client.source.codec
        assert codec.identify({"partition": one, "offset": positions[1]}, batch) == positions[1]
        for item in (
            {"partition": one, "offset": positions[2]},
            {"partition": two, "offset": positions[1]},
            {"partition": one, "offset": str(positions[1])},
            {"partition": one, "offset": True},
            {"offset": positions[1]},
            {},
            positions[1],
            None,
        ):
            assert codec.identify(item, batch) is None


@asynccontextmanager
async def joining(source: StreamSource) -> AsyncIterator[None]:
    try:
        await source.open()
        yield
    finally:
        await source.close()
