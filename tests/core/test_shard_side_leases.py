"""The source side of a stream whose shards are leased: what is opened, written and given back, and what is not.

On virtual time, over a stream, a store and a table of leases in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from router.checkpoints import SHARD, STREAM, read_shard, write_shard
from router.core import facts as f
from router.core.fleet import LeaseKey
from router.core.model import STREAM_RULES, TRIM_HORIZON, EventSourceMapping
from router.core.tenant import Tenant
from router.errors import DecisionNeeded, LeaseLost
from router.fleet.fleet import Fleet
from router.ports import Change, PutState
from router.shard_side import ShardSide, plug_shards
from router.telemetry import Log, Metrics
from tests.fakes.lease_table import MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.fakes.shard_stream import FIRST_POSITION, MemoryShardCodec, ShardStream, ShardStreamSource
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import VirtualTimeLoop, in_virtual_time

ORDERS = EventSourceMapping("orders", "price", STREAM_RULES)
LATEST = replace(ORDERS, starting_position="LATEST")
ONE, TWO = "shardId-000000000000", "shardId-000000000001"
LEASE_S = 10.0
CODEC = MemoryShardCodec()


def now_s() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop.wall()


class Quiet(Log):
    def write(self, event: str, **fields: object) -> None:
        pass


class SlowStore(MemoryStore):
    """One to which writes take a while."""

    delay_s = 0.0

    async def apply(self, changes: Sequence[Change]) -> None:
        await asyncio.sleep(self.delay_s)
        await super().apply(changes)


class World:
    """What outlives replicas."""

    def __init__(self, shard_count: int = 2) -> None:
        self.stream = ShardStream(shard_count, now_s=now_s)
        self.store = SlowStore()
        self.table = MemoryTable(self.store)

    @asynccontextmanager
    async def replica(self, name: str = "a") -> AsyncIterator[Fleet]:
        loop = asyncio.get_running_loop()
        table = self.table.of(name, lease_s=LEASE_S)
        rng = Random(name)
        fleet = Fleet(
            name,
            lambda: Tenant(name, LEASE_S, rng),
            table,
            MemoryPeers(table),
            log=Quiet(),
            rng=rng,
            clock=loop.time,
        )
        running = asyncio.create_task(fleet.run())
        try:
            await fleet.joined.wait()
            yield fleet
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def plug(
        self, fleet: Fleet, mapping: EventSourceMapping = ORDERS, source: ShardStreamSource | None = None
    ) -> ShardSide:
        source = source or ShardStreamSource(self.stream)
        await source.open()
        _, side = await plug_shards(
            source,
            mapping,
            Random(1),
            store=self.store,
            passes=None,
            metrics=Metrics().of(mapping.name),
            fleet=fleet,
        )
        return side

    def owner(self, shard: str) -> str:
        lease = self.table.leases.get(LeaseKey("orders", shard))
        return "" if lease is None else lease.owner

    def text(self, shard: str) -> f.Progress | None:
        text = self.store.texts.get(("orders", f"{SHARD}{shard}"))
        return None if text is None else read_shard(text, CODEC)

    async def take_from_us(self, shard: str) -> None:
        """Let another replica have a lease, without our knowing yet."""
        await self.table.of("other").join()
        key = LeaseKey("orders", shard)
        self.table._put(key, self.table.leases[key]._replace(owner="other", token=10_000))

    def give_up(self, shard: str) -> None:
        """Let whoever has a lease have it no more."""
        self.table._free(LeaseKey("orders", shard))


class Run:
    """One run over a stream, and what its engine is told."""

    def __init__(self, side: ShardSide) -> None:
        self.side = side
        self.facts: list[f.Fact] = []
        self.tasks: asyncio.TaskGroup

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        return self.tasks.create_task(work())

    @asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as self.tasks:
            await self.side.follow(self.facts.append, self.spawn)
            yield
            self.side.stop()
            self.side.left()

    async def do(self, *commands: f.StreamCommand) -> list[f.Fact]:
        self.facts.clear()
        for command in commands:
            self.side.do(command)
        await asyncio.sleep(5)
        return self.facts


@in_virtual_time
async def test_a_shard_is_opened_where_the_store_says_once_its_lease_is_ours() -> None:
    world = World()
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        world.store.texts["orders", f"{SHARD}{ONE}"] = write_shard(f.Progress(FIRST_POSITION, "state"), CODEC)
        async with run.on():
            opened = await run.do(f.Open(ONE), f.Open(TWO))
            assert sorted(opened, key=str) == [
                f.ShardOpened(ONE, ONE, FIRST_POSITION, "state"),
                f.ShardOpened(TWO, TWO, TRIM_HORIZON, ""),
            ]
            assert (world.owner(ONE), world.owner(TWO)) == ("a", "a")
        await asyncio.sleep(1)
        assert (world.owner(ONE), world.owner(TWO)) == ("", "")


@in_virtual_time
async def test_what_is_given_back_comes_again_unless_the_run_ends() -> None:
    world = World()
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        async with run.on():
            opened = f.ShardOpened(ONE, ONE, TRIM_HORIZON, "")
            assert await run.do(f.Open(ONE)) == [opened]
            assert await run.do(f.Release(ONE)) == [opened]
            assert await run.do(f.Release(ONE, leaving=True)) == []
            assert world.owner(ONE) == ""


@in_virtual_time
async def test_what_is_committed_for_a_shard_of_another_is_refused_and_the_rest_is_written() -> None:
    world = World()
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        async with run.on():
            await run.do(f.Open(ONE), f.Open(TWO))
            await world.take_from_us(ONE)
            done = f.Progress(FIRST_POSITION + 5, "")
            facts = await run.do(f.Commit({ONE: done, TWO: done}))
            assert [fact for fact in facts if fact != f.ShardLost(ONE)] == [f.Committed()]
            assert facts.index(f.ShardLost(ONE)) < facts.index(f.Committed())
            assert (world.text(ONE), world.text(TWO)) == (None, done)


@in_virtual_time
async def test_a_failure_of_a_shard_names_its_lease_also_once_it_is_lost() -> None:
    world = World()
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        async with run.on():
            await run.do(f.Open(ONE))
            await world.take_from_us(ONE)
            assert f.ShardLost(ONE) in await run.do()
            with pytest.raises(LeaseLost):
                await world.store.apply([*run.side.fences(ONE), PutState("orders", "key", "text")])
            assert not run.side.may_begin(ONE)


@in_virtual_time
async def test_nothing_is_begun_once_a_lease_has_run_out_by_the_clock() -> None:
    world = World()
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        async with run.on():
            await run.do(f.Open(ONE))
            assert run.side.may_begin(ONE)
            run.facts.clear()
            fleet._clock = lambda: asyncio.get_running_loop().time() + LEASE_S  # the process was stopped so long
            assert not run.side.may_begin(ONE)
            assert run.facts == [f.ShardLost(ONE)]


@in_virtual_time
async def test_a_finished_shard_is_told_to_the_others_and_forgotten_by_all() -> None:
    world = World()
    async with world.replica("a") as one, world.replica("b") as two:
        a, b = Run(await world.plug(one)), Run(await world.plug(two))
        async with a.on(), b.on():
            await a.do(f.Open(ONE))
            b.side.do(f.Open(ONE))
            await a.do(f.Commit({ONE: f.Progress(FIRST_POSITION, "", ended=True)}))
            b.facts.clear()
            await a.do(f.Release(ONE, finished=True))
            assert b.facts == [f.ShardsFinished([ONE])]
            await b.do(f.Forget([ONE]))
            assert LeaseKey("orders", ONE) not in world.table.leases
            assert world.text(ONE) is None


@in_virtual_time
async def test_a_shard_whose_owner_died_before_it_said_that_it_is_finished_is_not_read_again() -> None:
    world = World()
    ended = write_shard(f.Progress(FIRST_POSITION, "", ended=True), CODEC)
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        world.store.texts["orders", f"{SHARD}{ONE}"] = ended
        async with run.on():
            assert await run.do(f.Open(ONE)) == [f.ShardsFinished([ONE])]
            assert world.table.leases[LeaseKey("orders", ONE)].finished


@in_virtual_time
async def test_a_place_that_cannot_be_read_ends_the_run_and_is_told_by_the_next() -> None:
    world = World()
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        world.store.texts["orders", f"{SHARD}{ONE}"] = "no checkpoint"
        with pytest.raises(ExceptionGroup) as raised:
            async with run.on():
                await run.do(f.Open(ONE))
        assert raised.group_contains(DecisionNeeded)
        run.side.left()
        with pytest.raises(DecisionNeeded):
            await world.plug(fleet)


@in_virtual_time
async def test_what_was_written_of_a_stream_that_was_made_again_is_void() -> None:
    world = World()
    async with world.replica("a") as one, world.replica("b") as two:
        former = ShardStreamSource(world.stream)
        run = Run(await world.plug(one, source=former))
        async with run.on():
            await run.do(f.Open(ONE))
            world.stream.recreate(2)
            again = Run(await world.plug(two))
            # The former owner does not know yet that its stream is gone, and its lease holds.
            await run.do(f.Commit({ONE: f.Progress(FIRST_POSITION + 9, "")}))
            await former.shards()  # the pages that come then tell it, and its run ends
            await run.do(f.Commit({ONE: f.Progress(FIRST_POSITION + 9, "", ended=True)}))
        async with again.on():
            assert f.ShardOpened(ONE, ONE, TRIM_HORIZON, "") in await again.do(f.Open(ONE))


@in_virtual_time
async def test_replicas_that_begin_together_begin_at_one_place() -> None:
    world = World()
    async with world.replica("a") as one, world.replica("b") as two:
        await asyncio.gather(world.plug(one, LATEST), world.plug(two, LATEST))
        written = [change for change in world.store.texts if change[1] == STREAM]
        assert len(written) == 1
        text = world.store.texts["orders", STREAM]
        await asyncio.sleep(3)
        await world.plug(two, LATEST)
        assert world.store.texts["orders", STREAM] == text


@in_virtual_time
async def test_who_does_not_come_to_write_down_where_a_stream_begins_tries_again_later() -> None:
    world = World()
    async with world.replica() as fleet:
        world.table.fault = "no route"
        with pytest.raises(LeaseLost, match="another replica writes down where orders begins"):
            await world.plug(fleet)
        world.table.fault = None
        await asyncio.sleep(1)
        await world.plug(fleet)


@in_virtual_time
async def test_a_commit_that_comes_too_late_does_not_take_a_shard_that_is_ours_again() -> None:
    world = World()
    async with world.replica() as fleet:
        run = Run(await world.plug(fleet))
        async with run.on():
            await run.do(f.Open(ONE))
            world.store.delay_s = 12.0
            await world.take_from_us(ONE)
            assert f.ShardLost(ONE) in await run.do(f.Commit({ONE: f.Progress(FIRST_POSITION, "")}))
            world.give_up(ONE)
            assert await run.do() == [f.ShardOpened(ONE, ONE, TRIM_HORIZON, "")]
            # Refused twice: with what else there was, and by itself.
            assert [*await run.do(), *await run.do(), *await run.do(), *await run.do()] == [f.Committed()]
            assert world.text(ONE) is None
            assert run.side.may_begin(ONE)


@pytest.mark.parametrize("way", ["sought", "made again"])
@in_virtual_time
async def test_a_finished_shard_that_is_to_be_read_again_is_nobodys_end(way: str) -> None:
    world = World()
    async with world.replica("a") as one, world.replica("b") as two:
        run = Run(await world.plug(one))
        async with run.on():
            await run.do(f.Open(ONE))
            await run.do(f.Commit({ONE: f.Progress(FIRST_POSITION, "", ended=True)}))
            await run.do(f.Release(ONE, finished=True))
            assert world.table.leases[LeaseKey("orders", ONE)].finished
        if way == "sought":
            world.store.texts["orders", f"{SHARD}{ONE}"] = write_shard(f.Progress(TRIM_HORIZON, ""), CODEC)
        else:
            world.stream.recreate(2)
        a, b = Run(await world.plug(one)), Run(await world.plug(two))
        async with a.on(), b.on():
            a.side.do(f.Open(ONE))
            b.side.do(f.Open(ONE))
            await asyncio.sleep(5)
            opened = f.ShardOpened(ONE, ONE, TRIM_HORIZON, "")
            assert [fact for fact in (*a.facts, *b.facts) if not isinstance(fact, f.StreamOpened)] == [opened]
