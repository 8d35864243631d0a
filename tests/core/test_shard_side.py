"""The source side of a stream whose checkpoints the store keeps: where it begins, goes on, and begins anew.

On virtual time, over a stream in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from router.checkpoints import SHARD, STREAM, StreamBegun, read_shard, read_stream
from router.core import facts as f
from router.core.describe import ShardStatus
from router.core.model import STREAM_RULES, TRIM_HORIZON, EventSourceMapping, ShardInfo, at_time
from router.errors import DecisionNeeded, PositionLost, ShardGone, SourceUnavailable, StoreUnavailable, Throttled
from router.identity import accept
from router.ports import PutState
from router.runner import Passes
from router.shard_side import ShardSide, plug_shards
from router.telemetry import Metrics
from tests.fakes.shard_stream import ShardStream, ShardStreamSource
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import VirtualTimeLoop, in_virtual_time

AWAY = SourceUnavailable("the stream is away")
ORDERS = EventSourceMapping("orders", "price", STREAM_RULES)
ONE, TWO, THREE = (f"shardId-{number:012}" for number in range(3))


def now_s() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop.wall()


class Bench:
    """A stream and a store that outlive the runs over them, and the facts of the run that is on."""

    def __init__(self, mapping: EventSourceMapping = ORDERS, *, shard_count: int = 1) -> None:
        self.mapping = mapping
        self.stream = ShardStream(shard_count, now_s=now_s)
        self.store = MemoryStore()
        self.metrics = Metrics()
        self.source = ShardStreamSource(self.stream)
        self.side: ShardSide
        self.facts: list[f.Fact] = []
        self.tasks: asyncio.TaskGroup

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        return self.tasks.create_task(work())

    @asynccontextmanager
    async def run(self, *, passes: Passes | None = None) -> AsyncIterator[f.StreamOpened]:
        """Open the stream as a new run does; gives what is known of its shards."""
        self.source = ShardStreamSource(self.stream)
        await self.source.open()
        _, self.side = await plug_shards(
            self.source,
            self.mapping,
            Random(1),
            store=self.store,
            passes=passes,
            metrics=self.metrics.of(self.mapping.name),
        )
        async with asyncio.TaskGroup() as self.tasks:
            self.facts = []
            await self.side.follow(self.facts.append, self.spawn)
            (opened,) = self.taken()
            assert isinstance(opened, f.StreamOpened)
            yield opened
            self.side.stop()

    def taken(self) -> list[f.Fact]:
        facts = [*self.facts]
        self.facts.clear()
        return facts

    async def do(self, command: f.StreamCommand) -> f.Fact:
        """Have a command carried out; give the answer."""
        self.side.do(command)
        await asyncio.sleep(0.1)
        (fact,) = self.taken()
        return fact

    async def open(self, shard: str = ONE) -> tuple[int, str]:
        fact = await self.do(f.Open(shard))
        assert isinstance(fact, f.ShardOpened)
        assert (fact.shard, fact.unit) == (shard, shard)
        return (-1 if fact.checkpoint is None else fact.checkpoint), fact.retry_state

    @property
    def texts(self) -> Mapping[str, str]:
        return {key: text for (mapping, key), text in self.store.texts.items() if mapping == self.mapping.name}


# --- where it begins


@in_virtual_time
async def test_at_trim_horizon_every_shard_is_read_from_its_beginning() -> None:
    bench = Bench(shard_count=2)
    async with bench.run() as opened:
        assert opened == f.StreamOpened(frozenset(), frozenset(), remade=False)
        assert await bench.open() == (TRIM_HORIZON, "")
    assert bench.texts == {STREAM: '{"incarnation":"1","start":"TRIM_HORIZON"}'}


@in_virtual_time
async def test_at_latest_shards_begin_at_the_services_own_time_and_what_was_closed_is_done() -> None:
    bench = Bench(replace(ORDERS, starting_position="LATEST"))
    bench.stream.split(ONE)
    start = at_time(int(now_s() * 1000))
    async with bench.run() as opened:
        assert opened == f.StreamOpened(frozenset([ONE]), frozenset([ONE]))
        assert await bench.open(TWO) == (start, "")
    assert read_shard(bench.texts[f"{SHARD}{ONE}"], bench.side.codec) == f.Progress(start, "", ended=True)


@in_virtual_time
async def test_at_latest_a_restart_before_the_first_commit_begins_where_the_first_run_did() -> None:
    bench = Bench(replace(ORDERS, starting_position="LATEST"))
    start = at_time(int(now_s() * 1000))
    async with bench.run():
        pass
    await asyncio.sleep(3600)
    bench.stream.split(ONE)
    async with bench.run() as opened:
        assert opened == f.StreamOpened(frozenset(), frozenset())
        assert [await bench.open(shard) for shard in (ONE, TWO, THREE)] == [(start, "")] * 3


@in_virtual_time
async def test_at_a_timestamp_all_shards_begin_there_also_those_that_are_closed() -> None:
    bench = Bench(replace(ORDERS, starting_position="AT_TIMESTAMP", starting_time_ms=1234))
    bench.stream.split(ONE)
    async with bench.run() as opened:
        assert opened == f.StreamOpened(frozenset(), frozenset())
        assert await bench.open() == (at_time(1234), "")
    bench.mapping = replace(bench.mapping, starting_time_ms=99)
    async with bench.run():
        assert await bench.open() == (at_time(1234), "")


@in_virtual_time
async def test_nothing_is_read_before_the_beginning_is_written_down() -> None:
    bench = Bench(replace(ORDERS, starting_position="LATEST"))
    bench.store.write_fault = "the disk is full"
    with pytest.raises(StoreUnavailable):
        async with bench.run():
            pass
    assert not bench.texts


# --- where it goes on


@in_virtual_time
async def test_a_run_goes_on_where_the_one_before_it_committed() -> None:
    bench = Bench(shard_count=2)
    async with bench.run():
        done = {ONE: f.Progress(41, "state"), TWO: f.Progress(7, "", ended=True)}
        assert await bench.do(f.Commit(done)) == f.Committed()
        assert await bench.open() == (TRIM_HORIZON, ""), "within a run the engine knows better"
    async with bench.run() as opened:
        assert opened == f.StreamOpened(frozenset([ONE, TWO]), frozenset([TWO]))
        assert await bench.open() == (41, "state")


@in_virtual_time
async def test_a_commit_that_the_store_does_not_take_is_told() -> None:
    bench = Bench()
    async with bench.run():
        before = bench.texts
        bench.store.write_fault = "the disk is full"
        assert await bench.do(f.Commit({ONE: f.Progress(1, "")})) == f.CommitFailed("the disk is full")
        assert bench.texts == before


@in_virtual_time
async def test_what_is_forgotten_is_kept_no_more_or_is_asked_for_again() -> None:
    bench = Bench()
    async with bench.run():
        await bench.do(f.Commit({ONE: f.Progress(1, "", ended=True)}))
        bench.store.write_fault = "the disk is full"
        bench.side.do(f.Forget([ONE]))
        await asyncio.sleep(0.1)
        assert f"{SHARD}{ONE}" in bench.texts
        bench.store.write_fault = None
        bench.side.do(f.Forget([ONE]))
        await asyncio.sleep(0.1)
        assert bench.texts.keys() == {STREAM}
        assert bench.taken() == []


# --- another stream


@in_virtual_time
async def test_a_stream_that_was_made_again_is_read_whole_and_old_checkpoints_are_void() -> None:
    bench = Bench(replace(ORDERS, starting_position="LATEST"))
    async with bench.run():
        await bench.do(f.Commit({ONE: f.Progress(1 << 65, "")}))
    bench.stream.recreate(1)
    bench.stream.split(ONE)
    async with bench.run() as opened:
        assert opened == f.StreamOpened(frozenset(), frozenset(), remade=True)
        assert await bench.open() == (TRIM_HORIZON, "")
    assert read_stream(bench.texts[STREAM], bench.side.codec) == StreamBegun("2", TRIM_HORIZON)
    async with bench.run() as opened:
        assert opened == f.StreamOpened(frozenset(), frozenset())


@in_virtual_time
@pytest.mark.parametrize(
    ("key", "text"),
    [
        (STREAM, "of another program"),
        (f"{SHARD}{ONE}", '{"checkpoint":"soon"}'),
        (f"{SHARD}{ONE}", '{"checkpoint":"AT_TIMESTAMP 1900-01-01T00:00:00.000Z"}'),
    ],
)
async def test_a_checkpoint_that_cannot_be_read_is_for_somebody_to_decide(key: str, text: str) -> None:
    bench = Bench()
    async with bench.run():
        pass
    await bench.store.apply([PutState("orders", "begun", "memory"), PutState("orders", key, text)])
    with pytest.raises(DecisionNeeded, match=f"under {key} is no checkpoint .* `headrace mapping accept orders`") as it:
        async with bench.run():
            pass
    assert it.value.code == "CheckpointUnreadable"
    await accept(bench.store, "orders", {})
    assert not bench.texts
    async with bench.run():
        assert await bench.open() == (TRIM_HORIZON, "")


# --- answers


@in_virtual_time
async def test_shards_are_listed_or_it_is_told_why_not() -> None:
    bench = Bench()
    bench.stream.split(ONE)
    async with bench.run():
        bench.source.fail("shards", AWAY)
        assert await bench.do(f.List()) == f.ListFailed("the stream is away")
        assert await bench.do(f.List()) == f.ShardsListed(
            [ShardInfo(ONE, (), closed=True), ShardInfo(TWO, (ONE,)), ShardInfo(THREE, (ONE,))]
        )


@in_virtual_time
async def test_a_page_is_told_as_it_is_read_without_what_the_filter_drops() -> None:
    bench = Bench()
    positions = [bench.stream.put(value, b"k").position for value in (b"good", b"bad", b"good")]
    async with bench.run(passes=lambda _, data: data == b"good"):
        fact = await bench.do(f.Read(ONE, {ONE: f.Demand(TRIM_HORIZON, 10)}))
    assert isinstance(fact, f.ChunksRead)
    (chunk,) = fact.chunks
    assert (chunk.positions, chunk.kept, chunk.before) == (positions, [0, 2], TRIM_HORIZON)


@in_virtual_time
@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (AWAY, f.ReadFailed(ONE, "the stream is away")),
        (Throttled("too many reads"), f.ReadFailed(ONE, "too many reads", throttled=True)),
        (PositionLost(ONE, "trimmed"), f.PositionGone(ONE, ONE, "trimmed")),
        (ShardGone(ONE, "no such shard"), f.ShardDeleted(ONE, ONE, "no such shard")),
    ],
)
async def test_why_nothing_could_be_read_is_told(error: Any, fact: f.Fact) -> None:
    bench = Bench()
    async with bench.run():
        bench.source.fail("read", error)
        assert await bench.do(f.Read(ONE, {ONE: f.Demand(TRIM_HORIZON, 10)})) == fact


@in_virtual_time
async def test_after_a_lost_position_the_oldest_record_that_is_left_is_read() -> None:
    bench = Bench()
    async with bench.run():
        assert await bench.do(f.Locate(ONE, lost=True)) == f.Rewound(ONE)


@in_virtual_time
async def test_lag_is_known_where_nothing_is_left() -> None:
    bench = Bench()
    status = ShardStatus(ONE, "open", 0, 0, 0, 0, None, None, None)
    async with bench.run():
        assert bench.side.lag_records(status) is None
        bench.stream.put(b"one", b"k")
        await bench.do(f.Read(ONE, {ONE: f.Demand(TRIM_HORIZON, 10)}))
        assert bench.side.lag_records(status) == 0
        assert bench.side.lag_records(replace(status, in_flight=2)) is None
