"""Replicas that share a stream while they are killed, cut off and started again: nothing is lost, doubled or overtaken.

Every simulation is made of one seed. `HEADRACE_SIMULATE=FIRST:COUNT` runs others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from router.core.model import STREAM_RULES, Backoff, EventSourceMapping, Outcome, Pace
from router.errors import SourceUnavailable
from tests.sim import virtual_time
from tests.sim.course import Fault, function_away, live_through, seeds, source_away, stop
from tests.sim.replica_world import LEASE_S, ReplicaDaemon, ReplicaWorld
from tests.sim.shard_world import ShardPlan
from tests.sim.stage import NAME, Delivery
from tests.sim.test_shard_simulation import answers_lost, resharded, throttled

#: Seeds that one test runs.
AT_ONCE = 10


def make_plan(seed: int) -> ShardPlan:
    rng = Random(seed)
    mapping = EventSourceMapping(
        NAME,
        "price",
        STREAM_RULES,
        batch_size=rng.choice((1, 3, 10)),
        parallelization_factor=rng.choice((1, 1, 3)),
        maximum_retry_attempts=rng.choice((0, 2, 5, None)),
        bisect=rng.random() < 0.6,
        report_item_failures=rng.random() < 0.5,
        drain_s=10.0,
        commit_interval_s=rng.choice((0.2, 1.0, 30.0)),
        backoff=rng.choice((Backoff(), Backoff(base_s=20.0, cap_s=200.0))),
        pace=rng.choice((Pace(idle_s=5.0, busy_s=0.2), Pace(idle_s=10.0, busy_s=10.0))),
        starting_position="TRIM_HORIZON",
    )
    return ShardPlan(
        seed,
        mapping,
        records=80,
        busy_s=800.0,
        undelivered_limit=1000,
        sites=rng.choice((2, 3)),
        killing_s=0.7,
        fault_every_s=25.0,
        look_every_s=30.0,
        shard_count=rng.choice((1, 2, 4)),
    )


# --- faults among replicas


def replicas(world: ReplicaWorld) -> list[ReplicaDaemon]:
    return [site.daemon for site in world.sites if isinstance(site.daemon, ReplicaDaemon)]


async def killed(world: ReplicaWorld, rng: Random) -> None:
    world.interrupt()
    async with world.ending(rng.choice(world.sites)) as daemon:
        await daemon.kill()
        await asyncio.sleep(rng.choice((0, 0.5, LEASE_S, 200)))
    world.interrupt()


async def restarted(world: ReplicaWorld, rng: Random) -> None:
    world.interrupt()
    async with world.ending(rng.choice(world.sites)) as daemon:
        await daemon.drain(rng.choice((0.1, 30.0)))
        await asyncio.sleep(rng.choice((0, 20)))


async def cut_off(world: ReplicaWorld, rng: Random) -> None:
    """One replica does not reach the table, perhaps for longer than its lease."""
    running = replicas(world)
    if running:
        table = rng.choice(running).table
        world.interrupt()
        table.fault = "no route"
        await asyncio.sleep(rng.choice((1, LEASE_S / 2, 3 * LEASE_S)))
        table.fault = None
        world.interrupt()


async def redis_away(world: ReplicaWorld, rng: Random) -> None:
    world.interrupt()
    store = world.store
    world.table.fault = store.write_fault = store.read_fault = "connection refused"
    await asyncio.sleep(rng.choice((1, LEASE_S, 60)))
    world.table.fault = store.write_fault = store.read_fault = None
    world.interrupt()


async def answers_of_the_table_lost(world: ReplicaWorld, rng: Random) -> None:
    for replica in replicas(world):
        replica.table.answers_to_lose = rng.randrange(4)


async def slow_table(world: ReplicaWorld, rng: Random) -> None:
    for replica in replicas(world):
        replica.table.delay_s = rng.choice((0.0, 0.01, 0.5))


async def slow_store(world: ReplicaWorld, rng: Random) -> None:
    """What is written comes late, or the answer does; perhaps behind a lease that was lost, and is held again."""
    world.interrupt()
    world.store.way_s = rng.choice((0, 0.5, LEASE_S, 1.5 * LEASE_S))
    world.store.answer_s = rng.choice((0, 0.5, LEASE_S))
    if rng.random() < 0.5:
        await cut_off(world, rng)
    await asyncio.sleep(rng.choice((5, 30)))
    world.store.way_s = world.store.answer_s = 0.0
    world.interrupt()


async def paused(world: ReplicaWorld, rng: Random) -> None:
    world.interrupt()
    lives = [each.life for each in replicas(world)]
    for life in lives:
        life.pause(1.0)
    await asyncio.sleep(rng.choice((0, 0.2, 5, 20)))
    for life in lives:
        life.resume()
    world.interrupt()


async def run_broken(world: ReplicaWorld, rng: Random) -> None:
    """One run ends in the middle, and the next begins in the same process, where leases of the former are held yet."""
    runners = [each.life.runner for each in replicas(world) if each.life.runner]
    if runners:
        world.interrupt()
        rng.choice(runners)._break(SourceUnavailable("broken off"))
        await asyncio.sleep(1)
        world.interrupt()


FAULTS: tuple[Fault[ReplicaWorld], ...] = (
    slow_store,
    slow_store,
    paused,
    run_broken,
    cut_off,
    cut_off,
    redis_away,
    answers_of_the_table_lost,
    slow_table,
    killed,
    killed,
    restarted,
    restarted,
    resharded,
    source_away,
    function_away,
    answers_lost,
    throttled,
)


async def simulate(plan: ShardPlan) -> tuple[ReplicaWorld, list[str]]:
    world = ReplicaWorld(plan)
    await live_through(world, FAULTS)
    wrong = world.wrong
    wrong += [f"lost: {each} of {world.shard_of[each]}" for each in world.records if not world.is_over(each)]
    wrong += world.first_deliveries_out_of_order()
    wrong += world.overlaps()
    wrong += world.unfinished_shards()
    wrong += world.crashes()
    for site in world.sites:
        await stop(site)
    wrong += [f"{key} is owned by {lease.owner}" for key, lease in world.table.leases.items() if lease.owner]
    return world, wrong


SEEDS = seeds("0:30")


@pytest.mark.parametrize("first", SEEDS[::AT_ONCE])
def test_nothing_is_lost_or_overtaken_and_no_key_runs_twice_at_once(first: int):
    for seed in range(first, min(first + AT_ONCE, SEEDS.stop)):
        world, wrong = virtual_time.run(simulate(make_plan(seed)))
        assert not wrong, "\n".join([f"seed {seed}", *wrong[:20], *world.faults])


def test_replicas_share_the_shards():
    async def share() -> list[int]:
        world = ReplicaWorld(make_plan(3))
        for site in world.sites:
            site.daemon = world.make_daemon(site)
        await asyncio.sleep(60)
        counts = [len(list(each.life.shards())) for each in replicas(world)]
        for site in world.sites:
            await stop(site)
        return counts

    counts = virtual_time.run(share())
    assert sum(counts) == make_plan(3).shard_count
    assert max(counts) - min(counts) <= 1


class Thieving(ReplicaWorld):
    """A world in which another replica has a shard's lease by the time at which the first invocation of it fails."""

    durations_s = (0.01,)

    def begin(self, request_id: str, event: bytes) -> tuple[float, Outcome, Delivery | None]:
        if not self.deliveries:
            [key] = [each for each in self.table.leases if not each.shard.startswith("@")]
            self.table._put(key, self.table.leases[key]._replace(owner="other", token=10_000))
        return super().begin(request_id, event)


def test_a_failure_of_a_shard_that_is_anothers_by_now_is_not_stored():
    async def fail() -> tuple[Thieving, int]:
        plan = make_plan(1)
        mapping = replace(plan.mapping, maximum_retry_attempts=0, parallelization_factor=1, batch_size=100)
        world = Thieving(replace(plan, mapping=mapping, shard_count=1, sites=1))
        await world.table.of("other", lease_s=LEASE_S).join()
        while not any(record.kind == "poison" for record in world.records.values()):
            world.append()
        [site] = world.sites
        site.daemon = world.make_daemon(site)
        await asyncio.sleep(LEASE_S / 2)
        stored = len(site.store.rows)
        await stop(site)
        return world, stored

    world, stored = virtual_time.run(fail())
    assert (len(world.deliveries), stored) == (1, 0)
    assert [event for _, event, _ in world.lines if event == "shard.lost"]
    assert not world.crashes()
