"""Replicas of a fleet that pause, move and decide a mapping together, on virtual time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from router.commands.selecting import Wanted
from router.core.model import STREAM_RULES, EventSourceMapping, Outcome, Pace, Returned
from router.core.tenant import Tenant
from router.deciding import Deciding
from router.errors import DecisionNeeded, InUse, NotFound, StoreUnavailable
from router.fleet.fleet import Fleet
from router.fleet.together import MOVING, Together
from router.identity import BEGUN
from router.life import MappingLife, MappingParts
from router.ports import Holds, PutState
from router.replay.replay import Replayer
from router.seeking import Seeking
from router.shard_places import ShardPlaces
from router.shard_side import plug_shards
from router.steering import Steering
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.lease_table import MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.fakes.shard_stream import ShardStream, ShardStreamSource
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import in_virtual_time

LEASE_S = 5.0
PATIENCE_S = 600.0
START = Wanted(edge="TRIM_HORIZON")


class World:
    """What outlives replicas: a stream of four shards, the table, the store."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.table = MemoryTable(self.store)
        self.now_s = 1_000_000.0
        self.stream = ShardStream(4, now_s=lambda: self.now_s)
        self.mapping = EventSourceMapping(
            "orders", "function", STREAM_RULES, drain_s=10.0, pace=Pace(1.0, 0.2), batch_size=1
        )
        self.written: list[str] = []
        #: By which replica, what.
        self.seen: list[tuple[str, str]] = []
        self.takes_s = 0.01
        self.news = asyncio.Event()

    def put(self, count: int) -> None:
        for _ in range(count):
            self.now_s += 1.0
            value = f"v{len(self.written)}"
            self.written.append(value)
            self.stream.put(value.encode(), value.encode(), time_ms=int(self.now_s * 1000))

    @property
    def values(self) -> list[str]:
        return [value for _, value in self.seen]

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not fact():
                self.news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.news.wait(), 0.5)


class Replica:
    """One daemon of the fleet, as far as it steers a mapping."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        enabled: bool = True,
        name_of_mapping: str = "orders",
        renamed_from: str | None = None,
    ) -> None:
        self.world = world
        self.name = name
        loop = asyncio.get_running_loop()
        self.table = world.table.of(name, lease_s=LEASE_S)
        rng = Random(name)
        self.fleet = Fleet(
            name,
            lambda *_: Tenant(name, LEASE_S, rng),
            self.table,
            MemoryPeers(self.table),
            log=Log(),
            rng=rng,
            clock=loop.time,
        )
        self.lives: dict[str, MappingLife] = {}
        self.together = Together(self.fleet, world.store, self.lives)
        self.mapping = replace(world.mapping, name=name_of_mapping)
        self.life = self._life(enabled=enabled, renamed_from=renamed_from)
        self.steering = Steering(world.store, self.lives, lambda: 1e9, self.together)
        self.seeking = Seeking(world.store, self.lives, self.together)
        self.deciding = Deciding(world.store, self.lives, self.together)
        self._tasks = [asyncio.create_task(work) for work in (self.fleet.run(), self.together.run(), self._live())]

    async def _live(self) -> None:
        await self.life.take_over()
        await self.life.run()

    def _life(self, *, enabled: bool, renamed_from: str | None) -> MappingLife:
        world = self.world

        def run(_: str, event: bytes) -> tuple[float, Outcome]:
            values = [base64.b64decode(each["value"]).decode() for each in json.loads(event)["records"]]
            world.seen += [(self.name, value) for value in values]
            world.news.set()
            return world.takes_s, Returned()

        async def plug(*given: Any, **more: Any) -> Any:
            return await plug_shards(*given, **more, fleet=self.fleet)

        parts = MappingParts(
            self.mapping,
            enabled=enabled,
            source_name="memory",
            make_source=lambda: ShardStreamSource(world.stream),
            plug=plug,
            invoker=MemoryInvoker(run, 4),
            passes=None,
            keep=keep_nothing,
            renamed_from=renamed_from,
            make_places=lambda store: ShardPlaces(ShardStreamSource(world.stream), self.mapping, store),
        )
        life = self.lives[self.mapping.name] = MappingLife(
            parts,
            store=world.store,
            replays=Replayer(world.store, Log()),
            metrics=Metrics().of(self.mapping.name),
            log=Log(),
            wall=lambda: 1e9,
            rng=Random(1),
        )
        life.others = self.together
        return life

    async def stop(self) -> None:
        """End as a daemon that is told to."""
        self.fleet.leaving()
        self.life.drain(10.0)
        await self._tasks[2]
        await self.fleet.leave()
        await self.die()

    async def die(self) -> None:
        """End at once, and say nothing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def shards(self) -> list[str]:
        leases = self.fleet.leases("orders")
        return sorted(each for each, lease in leases.items() if lease.owner == self.name and not each.startswith("@"))


async def keep_nothing(*_: object) -> None:
    raise AssertionError("nothing is given up here")


async def two(world: World) -> tuple[Replica, Replica]:
    """Start two replicas that share the shards."""
    a, b = Replica(world, "a"), Replica(world, "b")
    await world.until(lambda: len(a.shards) == len(b.shards) == 2)
    return a, b


async def at_rest(world: World, *replicas: Replica) -> None:
    """Wait until all that was written is seen and committed, and the mapping is paused."""
    await world.until(lambda: set(world.values) >= set(world.written))
    done = await replicas[0].steering.drain("orders", None)
    assert (done["idle"], done["in_flight"], done["silent"]) == (True, [], [])
    assert all(each.life.resting.is_set() for each in replicas)


# --- pausing


@in_virtual_time
async def test_a_pause_on_one_replica_is_one_on_all_and_so_is_resuming() -> None:
    world = World()
    a, b = await two(world)
    world.put(20)
    await at_rest(world, a, b)
    world.put(5)
    await asyncio.sleep(30)
    assert len(world.seen) == 20
    await b.steering.resume("orders")
    await world.until(lambda: len(world.seen) == 25)
    assert {name for name, _ in world.seen} == {"a", "b"}
    for each in (a, b):
        await each.stop()


@in_virtual_time
async def test_draining_lists_what_is_in_flight_on_every_replica() -> None:
    world = World()
    a, b = await two(world)
    world.takes_s = 8.0
    world.put(40)
    await world.until(lambda: {"a", "b"} <= {name for name, _ in world.seen})
    done = await a.steering.drain("orders", 1.0)
    assert done["idle"] is False
    assert {each["replica"] for each in done["in_flight"]} == {"a", "b"}
    assert (await a.steering.drain("orders", None))["idle"] is True
    for each in (a, b):
        await each.stop()


@in_virtual_time
async def test_one_that_joins_leaves_a_paused_mapping_alone() -> None:
    world = World()
    a = Replica(world, "a")
    world.put(4)
    await at_rest(world, a)
    b = Replica(world, "b")
    world.put(4)
    await asyncio.sleep(30)
    assert (len(world.seen), b.life.is_paused) == (4, True)
    for each in (a, b):
        await each.stop()


@in_virtual_time
async def test_a_replica_that_was_dead_is_not_waited_for_longer_than_its_lease() -> None:
    world = World()
    a, b = await two(world)
    await b.die()
    began_s = asyncio.get_running_loop().time()
    done = await a.steering.drain("orders", None)
    assert done["idle"] is True
    assert asyncio.get_running_loop().time() - began_s < LEASE_S + 2
    await a.stop()


# --- moving


@in_virtual_time
async def test_a_seek_moves_the_shards_of_all_replicas() -> None:
    world = World()
    a, b = await two(world)
    world.put(20)
    await world.until(lambda: set(world.values) >= set(world.written))
    done = await a.seeking.seek("orders", START, None, apply=True)
    assert done["applied"] is True
    await world.until(lambda: len(world.seen) == 40)
    assert sorted(world.values[20:]) == sorted(world.written)
    await world.until(lambda: len(a.shards) == len(b.shards) == 2)
    assert a.fleet.leases("orders").get(MOVING) is None
    for each in (a, b):
        await each.stop()


class StuckStore(MemoryStore):
    """Waits before a place is written, while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.waits = asyncio.Event()

    async def apply(self, changes: Any) -> None:
        if not self.goes_on.is_set() and any(isinstance(each, Holds) and each.shard == MOVING for each in changes):
            self.waits.set()
            await self.goes_on.wait()
        await super().apply(changes)


async def seek_stuck(world: World, mover: Replica) -> asyncio.Task[Any]:
    """Have a replica begin to move the mapping, up to where it writes."""
    assert isinstance(world.store, StuckStore)
    world.store.goes_on.clear()
    task = asyncio.create_task(mover.seeking.seek("orders", START, None, apply=True))
    await world.store.waits.wait()
    return task


def stuck_world() -> World:
    world = World()
    world.store = StuckStore()
    world.table = MemoryTable(world.store)
    return world


@in_virtual_time
async def test_who_moves_a_mapping_that_another_replica_moves_is_refused() -> None:
    world = stuck_world()
    a, b = await two(world)
    world.put(8)
    await at_rest(world, a, b)
    seek = await seek_stuck(world, a)
    with pytest.raises(InUse, match="is being changed by replica a"):
        await b.seeking.seek("orders", START, None, apply=True)
    world.store.goes_on.set()
    assert (await seek)["seen_again"] == 8
    for each in (a, b):
        await each.stop()


@in_virtual_time
async def test_one_that_joins_while_a_mapping_is_moved_rests_too() -> None:
    world = stuck_world()
    a, b = await two(world)
    world.put(8)
    await world.until(lambda: len(world.seen) == 8)
    seek = await seek_stuck(world, a)
    c = Replica(world, "c")
    await asyncio.sleep(LEASE_S * 3)
    assert (c.life.runner, len(world.seen), c.life.health().reason) == (None, 8, b.life.health().reason)
    world.store.goes_on.set()
    assert (await seek)["applied"] is True
    await world.until(lambda: len(world.seen) == 16)
    await world.until(lambda: c.shards)
    for each in (a, b, c):
        await each.stop()


@in_virtual_time
async def test_a_mover_that_dies_leaves_the_mapping_where_it_was_and_others_go_on() -> None:
    world = stuck_world()
    a, b = await two(world)
    world.put(8)
    await world.until(lambda: len(world.seen) == 8)
    seek = await seek_stuck(world, a)
    seek.cancel()
    await a.die()
    world.store.goes_on.set()
    world.put(4)
    began_s = asyncio.get_running_loop().time()
    await world.until(lambda: len(world.seen) == 12)
    assert asyncio.get_running_loop().time() - began_s < 3 * LEASE_S
    assert sorted(world.values[8:]) == sorted(world.written[8:])
    await b.stop()


@in_virtual_time
async def test_a_mover_that_was_stopped_and_wakes_late_writes_nothing() -> None:
    world = stuck_world()
    a, b = await two(world)
    world.put(8)
    await world.until(lambda: len(world.seen) == 8)
    seek = await seek_stuck(world, a)
    # Nothing of it is heard, but what it was about to write is written in the end.
    a.table.fault = "cut off"
    await world.until(lambda: not b.life.resting.is_set() and len(b.shards) == 4)
    world.store.goes_on.set()
    with pytest.raises((InUse, StoreUnavailable)):
        await seek
    world.put(4)
    await world.until(lambda: len(world.seen) == 12)
    assert sorted(world.values[8:]) == sorted(world.written[8:])
    await a.die()
    await b.stop()


@in_virtual_time
async def test_a_mover_that_was_cut_off_rests_while_another_moves_the_mapping() -> None:
    world = stuck_world()
    a, b = await two(world)
    world.put(8)
    await world.until(lambda: len(world.seen) == 8)
    first = await seek_stuck(world, a)
    a.table.fault = "cut off"
    await world.until(lambda: not b.life.resting.is_set() and len(b.shards) == 4)
    world.store.waits.clear()
    second = await seek_stuck(world, b)
    a.table.fault = None
    await asyncio.sleep(2 * LEASE_S)
    world.store.goes_on.set()
    with pytest.raises(InUse, match="out of the fleet meanwhile"):
        await first
    assert (await second)["seen_again"] == 8
    await world.until(lambda: len(world.seen) == 16)
    for each in (a, b):
        await each.stop()


@in_virtual_time
async def test_a_move_that_is_given_up_while_another_replica_moves_the_mapping_lets_nothing_run() -> None:
    world = stuck_world()
    a, b = await two(world)
    world.put(8)
    await world.until(lambda: len(world.seen) == 8)
    first = await seek_stuck(world, a)
    a.table.fault = "cut off"
    await world.until(lambda: not b.life.resting.is_set() and len(b.shards) == 4)
    assert isinstance(world.store, StuckStore)
    world.store.waits.clear()
    second = await seek_stuck(world, b)
    a.table.fault = None
    await asyncio.sleep(2 * LEASE_S)
    begun = asyncio.create_task(a.life.running.wait())
    first.cancel()
    await asyncio.sleep(2 * LEASE_S)
    assert not begun.done()
    world.store.goes_on.set()
    assert (await second)["seen_again"] == 8
    await begun
    await world.until(lambda: len(world.seen) == 16)
    for each in (a, b):
        await each.stop()


@in_virtual_time
async def test_one_that_leaves_is_out_of_the_table_for_good() -> None:
    world = World()
    b = Replica(world, "b")
    for step in range(12):  # whenever in its tick that is
        a = Replica(world, "a")
        a.table.delay_s = 0.2
        await asyncio.sleep(5 + step * 0.05)
        await a.stop()
        await asyncio.sleep(1)
        assert set(world.table.rows) == {"b"}
    await b.stop()


# --- deciding


@in_virtual_time
async def test_another_source_is_accepted_for_all_replicas() -> None:
    world = World()
    await world.store.apply([PutState("orders", BEGUN, "another")])
    a, b = Replica(world, "a"), Replica(world, "b")
    await world.until(lambda: a.life.is_undecided and b.life.is_undecided)
    world.put(8)
    assert (await a.deciding.accept("orders")).source == "another"
    await world.until(lambda: len(world.seen) == 8)
    await world.until(lambda: a.shards and b.shards)
    for each in (a, b):
        await each.stop()


class GoneStore(MemoryStore):
    """Has lost what it kept of the mapping."""

    reads = 0

    async def states(self, mapping: str) -> Any:
        self.reads += 1
        if self.reads > 50:
            raise StoreUnavailable("it is read without a pause")
        raise DecisionNeeded("StateGone", f"what was kept of {mapping} is gone")


@in_virtual_time
async def test_a_mapping_whose_texts_are_gone_comes_to_rest_like_any_other() -> None:
    world = World()
    store = world.store = GoneStore()
    world.table = MemoryTable(store)
    a = Replica(world, "a")
    await world.until(lambda: a.life.is_undecided)
    async with a.life.still():
        assert a.life.resting.is_set()
    await world.until(lambda: a.life.is_undecided)
    assert store.reads < 10
    await a.die()


@in_virtual_time
async def test_where_a_mapping_runs_there_is_nothing_to_accept() -> None:
    world = World()
    a, b = await two(world)
    with pytest.raises(NotFound, match="runs here, and waits for no decision"):
        await a.deciding.accept("orders")
    for each in (a, b):
        await each.stop()


@in_virtual_time
async def test_what_another_replica_runs_is_not_forgotten() -> None:
    world = World()
    a, b = Replica(world, "a", enabled=False), Replica(world, "b")
    world.put(2)
    await world.until(lambda: len(world.seen) == 2)
    with pytest.raises(InUse, match="runs on replica b"):
        await a.deciding.forget("orders", only_look=False)
    await b.stop()
    had = await a.deciding.forget("orders", only_look=False)
    assert had.states > 0
    assert await world.store.states("orders") == {}
    await world.until(lambda: not a.fleet.leases("orders"))
    await a.stop()


# --- what replicas tell each other


@in_virtual_time
async def test_large_answers_come_whole() -> None:
    world = World()
    a, b = Replica(world, "a"), Replica(world, "b")
    await world.until(lambda: a.fleet.living() and b.fleet.living())
    large = {"shards": [f"shard-{number}" for number in range(5000)]}

    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        return {**large, **body}

    b.together.serve("large", answer)
    assert await a.together.ask("large", {"of": "b"}, 5.0) == {"b": {**large, "of": "b"}}
    assert await b.together.ask("large", {}, 5.0) == {"a": None}, "it does not know what it is asked"
    for each in (a, b):
        await each.stop()


# --- renaming


@in_virtual_time
async def test_a_renamed_mapping_waits_until_nobody_runs_it_under_its_former_name() -> None:
    world = World()
    b = Replica(world, "b")
    world.put(8)
    await world.until(lambda: len(world.seen) == 8)
    a = Replica(world, "a", name_of_mapping="sales", renamed_from="orders")
    await world.until(lambda: a.life.health().reason)
    assert a.life.health().reason[0] == "FormerNameRuns"
    world.put(4)
    await world.until(lambda: len(world.seen) == 12)
    await b.stop()
    world.put(4)
    await world.until(lambda: len(world.seen) == 16)
    assert {name for name, _ in world.seen[12:]} == {"a"}
    assert (await world.store.states("orders"), len(set(world.values))) == ({}, 16)
    await world.until(lambda: not a.fleet.leases("orders"))
    await a.stop()
