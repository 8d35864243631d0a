"""Streams that are resharded while everything goes wrong: no record is lost, none comes before what it follows.

Every simulation is made of one seed: the mapping, the records, the shards, the faults. `HEADRACE_SIMULATE=FIRST:COUNT`
runs others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from router.core.model import STREAM_RULES, Backoff, EventSourceMapping, Pace
from router.errors import SourceUnavailable
from tests.sim import virtual_time
from tests.sim.course import (
    Fault,
    clock_stepped,
    destination_away,
    failures_replayed,
    function_away,
    killed,
    live_through,
    replay_everything,
    restarted,
    seeds,
    source_away,
    stop,
    store_broken,
)
from tests.sim.shard_world import DEPTH, ShardPlan, ShardWorld
from tests.sim.stage import NAME, Daemon

#: Seeds that one test runs.
AT_ONCE = 25


def make_plan(seed: int) -> ShardPlan:
    rng = Random(seed)
    position = rng.choice(("TRIM_HORIZON", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"))
    mapping = EventSourceMapping(
        NAME,
        "price",
        STREAM_RULES,
        batch_size=rng.choice((1, 3, 10, 25)),
        window_s=rng.choice((0.0, 5.0, 60.0)),
        parallelization_factor=rng.choice((1, 1, 3)),
        maximum_retry_attempts=rng.choice((0, 2, 5, None)),
        maximum_record_age_s=rng.choice((None, None, 600.0)),
        bisect=rng.random() < 0.6,
        report_item_failures=rng.random() < 0.5,
        drain_s=10.0,
        commit_interval_s=rng.choice((0.2, 1.0, 30.0)),
        buffer_count=rng.choice((None, 2, 5)),
        backoff=rng.choice((Backoff(), Backoff(base_s=20.0, cap_s=200.0))),
        pace=rng.choice((Pace(idle_s=5.0, busy_s=0.2), Pace(idle_s=10.0, busy_s=10.0))),
        starting_position=position,
    )
    return ShardPlan(
        seed,
        mapping,
        records=80,
        busy_s=800.0,
        undelivered_limit=rng.choice((3, 1000)),
        sites=1,
        killing_s=0.7,
        fault_every_s=18.0,
        look_every_s=30.0,
        shard_count=rng.choice((1, 2, 4)),
    )


# --- faults of streams with shards


async def resharded(world: ShardWorld, rng: Random) -> None:
    young = [shard for shard in world.stream.open_shards if world.depths[shard] < DEPTH]
    pairs = [(one, two) for one, two in world.stream.neighbours() if one in young and two in young]
    if pairs and (rng.random() < 0.4 or len(young) > 6):
        world.merge(*rng.choice(pairs))
    elif young:
        reshard = rng.choice((world.split, world.split, world.roll))
        reshard(rng.choice(young))


async def resharded_at_once(world: ShardWorld, rng: Random) -> None:
    for _ in range(rng.randrange(2, 5)):
        await resharded(world, rng)
        if rng.random() < 0.5:
            world.append()


async def answers_lost(world: ShardWorld, rng: Random) -> None:
    for source in world.sources:
        source.fail("read", SourceUnavailable("no answer"), times=rng.randrange(4))
        source.fail("shards", SourceUnavailable("no answer"), times=rng.randrange(4))


async def throttled(world: ShardWorld, rng: Random) -> None:
    for source in world.sources:
        source.throttled = rng.randrange(1, 6)


async def iterators_expired(world: ShardWorld, rng: Random) -> None:
    for source in world.sources:
        source.expire()


async def overlooked(world: ShardWorld, rng: Random) -> None:
    """The next listing was looked at while it changed."""
    for source in world.sources:
        source.overlooked = {name for name in world.stream.shards if rng.random() < 0.3}


async def trimmed(world: ShardWorld, rng: Random) -> None:
    """Retention deletes old records, perhaps unread ones."""
    shard = rng.choice(list(world.stream.shards))
    names = [record.position for record in world.stream.shards[shard].records]
    if names:
        world.trim(shard, rng.choice(rng.choice((names[: 1 + len(names) // 2], names[-1:]))) + rng.randrange(2))
        if rng.random() < 0.5:
            await iterators_expired(world, rng)


async def shard_gone(world: ShardWorld, rng: Random) -> None:
    """Retention deletes a closed shard whose parents are gone already."""
    shards = world.stream.shards
    old = [each.name for each in shards.values() if each.closed and not any(name in shards for name in each.parents)]
    if old:
        world.forget(rng.choice(old))


async def factor_changed(world: ShardWorld, rng: Random) -> None:
    world.mapping = replace(world.mapping, parallelization_factor=rng.choice((1, 2, 3, 7)))
    # What was settled behind the checkpoint in other lanes may run again, with all its tries.
    for _ in range(1 + (world.mapping.maximum_retry_attempts or 0)):
        world.interrupt()
    await rng.choice((killed, restarted))(world, rng)


FAULTS: tuple[Fault[ShardWorld], ...] = (
    resharded,
    resharded,
    resharded,
    resharded_at_once,
    source_away,
    answers_lost,
    throttled,
    iterators_expired,
    overlooked,
    trimmed,
    shard_gone,
    store_broken,
    destination_away,
    function_away,
    clock_stepped,
    killed,
    killed,
    restarted,
    factor_changed,
    failures_replayed,
)


# --- the course of it


async def judge(world: ShardWorld) -> list[str]:
    """Say what is wrong with what happened, once the faults are over."""
    wrong = world.wrong
    wrong += [f"lost: {each} of {world.shard_of[each]}" for each in world.records if not world.is_over(each)]
    wrong += world.first_deliveries_out_of_order()
    wrong += world.overlaps()
    wrong += world.tried_too_often()
    wrong += world.unfinished_shards()
    wrong += await world.failures_not_served()
    wrong += world.crashes()
    return wrong


async def simulate(plan: ShardPlan) -> tuple[ShardWorld, list[str]]:
    world = ShardWorld(plan)
    for _ in range(5):
        world.append()
    await asyncio.sleep(1)
    if plan.mapping.starting_position != "TRIM_HORIZON":
        world.forget_before_start()
    if plan.mapping.starting_position == "AT_TIMESTAMP":
        world.mapping = replace(world.mapping, starting_time_ms=int(world.wall() * 1000))
    await live_through(world, FAULTS)
    wrong = await judge(world)
    wrong += await replay_everything(world)
    wrong += world.overlaps()
    # Shards that the stream has no more are forgotten after two listings.
    (site,) = world.sites
    site.daemon = Daemon(world, site)
    await asyncio.sleep(120)
    await stop(site)
    return world, wrong + world.kept_for_nothing()


@pytest.mark.parametrize("first", seeds("1:300")[::AT_ONCE])
def test_nothing_is_lost_or_comes_before_what_it_follows(first: int) -> None:
    depths = interruptions = finished = records = 0
    for seed in range(first, min(first + AT_ONCE, seeds("1:300").stop)):
        plan = make_plan(seed)
        world, wrong = virtual_time.run(simulate(plan))
        assert not wrong, f"seed {seed}: {plan}\n" + "\n".join([*wrong[:20], "faults:", *world.faults[-60:]])
        depths = max(depths, *world.depths.values())
        interruptions += len(world.interruptions)
        finished += len(world.finished)
        records += len(world.records)
    assert depths >= 1
    assert interruptions
    assert finished > records * 0.3, "the simulation has become harmless"
