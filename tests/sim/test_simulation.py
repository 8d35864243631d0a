"""Hours of trouble in seconds: whatever happens outside, no record is lost, reordered or run beside its own kind.

Every simulation is made of one seed: the mapping, the records, the faults. `HEADRACE_SIMULATE=FIRST:COUNT` runs others.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from router.core.facts import Progress
from router.core.model import KAFKA_RULES, Backoff, EventSourceMapping
from router.errors import LeaseLost, SourceUnavailable
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
    store_broken,
)
from tests.sim.stage import HOUR_S, NAME
from tests.sim.world import StreamPlan, World


def make_plan(seed: int) -> StreamPlan:
    rng = Random(seed)
    sites = rng.choice((1, 1, 2))
    mapping = EventSourceMapping(
        NAME,
        "price",
        KAFKA_RULES,
        batch_size=rng.choice((1, 3, 10, 25)),
        window_s=rng.choice((0.0, 5.0, 120.0)),
        parallelization_factor=rng.choice((1, 3)),
        maximum_retry_attempts=rng.choice((0, 2, 5, None)),
        maximum_record_age_s=rng.choice((None, None, HOUR_S)),
        bisect=rng.random() < 0.6,
        report_item_failures=rng.random() < 0.5,
        drain_s=10.0,
        commit_interval_s=rng.choice((0.2, 1.0, 30.0)),
        # Long waits, so that much happens between two tries.
        backoff=rng.choice((Backoff(), Backoff(base_s=60.0, cap_s=600.0))),
    )
    return StreamPlan(
        seed,
        mapping,
        records=400,
        busy_s=4 * HOUR_S,
        # A pointer leads into the store of one machine, so only a mapping with one machine has them.
        retry_state_limit_bytes=4096 if sites > 1 else rng.choice((4096, 150)),
        undelivered_limit=rng.choice((3, 1000)),
        sites=sites,
        # A shard that went without asking is with its next owner at once.
        killing_s=0.0 if sites > 1 else 0.7,
    )


# --- faults of streams


async def answers_lost(world: World, rng: Random) -> None:
    """Commits, reads and lookups fail a few times; a commit may have been stored all the same."""
    for source in world.live_sources():
        source.fail("commit", SourceUnavailable("no answer"), times=rng.randrange(4), stored=rng.random() < 0.5)
        source.fail("read", SourceUnavailable("no answer"), times=rng.randrange(4))
        source.fail("locate", SourceUnavailable("no answer"), times=rng.randrange(3))
        source.fail("commit", LeaseLost("another generation"), times=rng.randrange(2), stored=False)


async def rebalanced(world: World, rng: Random) -> None:
    world.interrupt()  # what does not end within the drain bound is cut off
    world.stream.rebalance()


async def shard_taken(world: World, rng: Random) -> None:
    world.interrupt()
    for source in world.live_sources():
        if source.owned:
            source.lose(rng.choice(sorted(source.owned)))
    world.stream.rebalance()


async def trimmed(world: World, rng: Random) -> None:
    """The source deletes old records, while it cannot be read, so that some may be gone unread."""
    world.away = True
    await asyncio.sleep(rng.choice((1, 900)))
    name = rng.choice(sorted(world.stream.shards))
    shard = world.stream.shards[name]
    before = max(shard.first, shard.end - rng.randrange(1, 12))
    world.trimmed |= {each for each in world.records if each[0] == name and each[1] < before}
    world.stream.trim(name, before)
    world.away = False


FAULTS: tuple[Fault[World], ...] = (
    source_away,
    answers_lost,
    store_broken,
    destination_away,
    function_away,
    rebalanced,
    shard_taken,
    trimmed,
    clock_stepped,
    killed,
    killed,
    killed,
    restarted,
    failures_replayed,
)


# --- the course of it


async def judge(world: World) -> list[str]:
    """Say what is wrong with what happened, once the faults are over."""
    stored = await world.stored()
    wrong = world.wrong
    wrong += [f"lost: {each}" for each in world.records if each not in world.finished | stored | world.trimmed]
    wrong += world.first_deliveries_out_of_order()
    wrong += world.overlaps()
    wrong += world.tried_too_often()
    for name, shard in world.stream.shards.items():
        if world.stream.committed[name] != Progress(shard.end - 1, ""):
            wrong.append(f"{name} ends at {shard.end - 1}, committed is {world.stream.committed[name]}")
    wrong += await world.failures_not_served()
    wrong += world.crashes()
    return wrong


async def simulate(plan: StreamPlan) -> tuple[World, list[str]]:
    world = World(plan)
    await live_through(world, FAULTS)
    wrong = await judge(world)
    wrong += await replay_everything(world)
    wrong += world.overlaps()
    return world, wrong


@pytest.mark.parametrize("seed", seeds("1:16"))
def test_nothing_is_lost_reordered_or_run_beside_its_own_kind(seed: int) -> None:
    plan = make_plan(seed)
    world, wrong = virtual_time.run(simulate(plan))
    assert not wrong, f"seed {seed}: {plan}\n" + "\n".join([*wrong[:20], "faults:", *world.faults[-40:]])
    assert len(world.records) == plan.records
    assert len(world.interruptions) > 10, "the simulation has become harmless"
    assert len(world.finished) > plan.records * 0.3
