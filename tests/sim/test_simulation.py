"""Hours of trouble in seconds: whatever happens outside, no record is lost, reordered or run beside its own kind.

Every simulation is made of one seed: the mapping, the records, the faults. `HEADRACE_SIMULATE=FIRST:COUNT` runs others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from router.core.model import KAFKA_RULES, Backoff, EventSourceMapping
from router.errors import LeaseLost, SourceUnavailable
from router.ports import Selection
from tests.sim import virtual_time
from tests.sim.world import NAME, Daemon, Plan, Site, World

HOUR_S = 3600.0
#: Time that what is left to do may take once the faults are over: one poison record after another, each with its waits.
PATIENCE_S = 72 * HOUR_S


def seeds() -> range:
    first, _, count = os.environ.get("HEADRACE_SIMULATE", "1:16").partition(":")
    return range(int(first), int(first) + int(count or 1))


def make_plan(seed: int) -> Plan:
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
    return Plan(
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


# --- faults: each takes what it breaks away for a while, then gives it back


async def source_away(world: World, rng: Random) -> None:
    world.away = True
    await asyncio.sleep(rng.choice((1, 30, 600)))
    world.away = False


async def answers_lost(world: World, rng: Random) -> None:
    """Commits, reads and lookups fail a few times; a commit may have been stored all the same."""
    for source in world.live_sources():
        source.fail("commit", SourceUnavailable("no answer"), times=rng.randrange(4), stored=rng.random() < 0.5)
        source.fail("read", SourceUnavailable("no answer"), times=rng.randrange(4))
        source.fail("locate", SourceUnavailable("no answer"), times=rng.randrange(3))
        source.fail("commit", LeaseLost("another generation"), times=rng.randrange(2), stored=False)


async def store_broken(world: World, rng: Random) -> None:
    store = rng.choice(world.sites).store
    store.write_fault = "the disk is full"
    store.read_fault = rng.choice((None, "the disk does not answer"))
    await asyncio.sleep(rng.choice((5, 300)))
    store.write_fault = store.read_fault = None


async def destination_away(world: World, rng: Random) -> None:
    world.destination.fault = "no such queue"
    await asyncio.sleep(rng.choice((60, 1800)))
    world.destination.fault = None


async def function_away(world: World, rng: Random) -> None:
    world.refusing = True
    await asyncio.sleep(rng.choice((3, 400)))
    world.refusing = False


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


async def clock_stepped(world: World, rng: Random) -> None:
    """Somebody sets the clock; only the age of records may depend on it."""
    world.step_s = rng.choice((0.0, -2 * HOUR_S, 2 * HOUR_S))


async def killed(world: World, rng: Random) -> None:
    world.interrupt()
    site = rng.choice(world.sites)
    if site.daemon:
        daemon, site.daemon = site.daemon, None
        await daemon.kill()
        await asyncio.sleep(rng.choice((0, 0, 0.5, 200)))
        world.interrupt()  # it takes shards away from the other machine
        site.daemon = Daemon(world, site)


async def restarted(world: World, rng: Random) -> None:
    world.interrupt()
    site = rng.choice(world.sites)
    if site.daemon:
        daemon, site.daemon = site.daemon, None
        await daemon.drain(rng.choice((0.1, 30.0)))
        await asyncio.sleep(rng.choice((0, 20)))
        world.interrupt()
        site.daemon = Daemon(world, site)


async def failures_replayed(world: World, rng: Random) -> None:
    site = rng.choice(world.sites)
    if site.store.read_fault is None:
        failures = await site.store.failures(Selection())
        chosen = tuple(entry.batch.id for entry in failures if rng.random() < 0.3)
        await world.note_replays(site, chosen)
        if chosen and site.daemon:
            site.daemon.replayer.start(chosen, 0.0)


Fault = Callable[[World, Random], Coroutine[Any, Any, None]]
FAULTS: tuple[Fault, ...] = (
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


async def live_through(plan: Plan) -> World:
    world = World(plan)
    loop = asyncio.get_running_loop()
    for site in world.sites:
        site.daemon = Daemon(world, site)
    start_s = loop.time()
    for _ in range(plan.records):
        loop.call_at(start_s + world.rng.uniform(0, plan.busy_s), world.append)
    rng = Random(plan.seed + 1)
    async with asyncio.TaskGroup() as troubles:
        while loop.time() < start_s + plan.busy_s:
            await asyncio.sleep(rng.expovariate(1 / 120.0))
            fault = rng.choice(FAULTS)
            world.faults.append(f"{loop.time():.1f} {fault.__name__}")
            troubles.create_task(fault(world, rng))
    while not await world.is_done() and loop.time() < start_s + plan.busy_s + PATIENCE_S:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(HOUR_S)
    await asyncio.sleep(HOUR_S)
    return world


async def replay_everything(world: World) -> list[str]:
    """Repair the function and replay what is stored, one machine after the other; give what did not end well."""
    world.fixed = True
    trouble = []
    for site in world.sites:
        # A replay runs where its shard is, and one machine alone has them all.
        for each in world.sites:
            await stop(each)
        site.daemon = Daemon(world, site)
        await asyncio.sleep(1.0)
        failures = await site.store.failures(Selection())
        left = [entry.batch.id for entry in failures if entry.status not in ("replayed", "failed_again")]
        await world.note_replays(site, left)
        ends = site.daemon.replayer.start(tuple(left), 0.0)
        while end := await ends.get():
            left.remove(end.id)
            if end.outcome != "replayed":
                trouble.append(f"{end.id} {end.outcome}: {end.reason}")
        trouble += [f"{failure} did not end" for failure in left]
        await stop(site)
    return trouble


async def stop(site: Site) -> None:
    if site.daemon:
        await site.daemon.drain(30.0)
        site.daemon = None


async def judge(world: World) -> list[str]:
    """Say what is wrong with what happened, once the faults are over."""
    stored = await world.stored()
    wrong = world.wrong
    wrong += [f"lost: {each}" for each in world.records if each not in world.finished | stored | world.trimmed]
    wrong += world.first_deliveries_out_of_order()
    wrong += world.overlaps()
    wrong += world.tried_too_often()
    for name, shard in world.stream.shards.items():
        if world.stream.committed[name] != (shard.end - 1, ""):
            wrong.append(f"{name} ends at {shard.end - 1}, committed is {world.stream.committed[name]}")
    accepted = set(world.destination.ids)
    for site in world.sites:
        for entry in await site.store.failures(Selection()):
            if entry.status not in ("delivered", "replayed", "failed_again"):
                wrong.append(f"failure {entry.batch.id} is {entry.status}: {entry.delivery_error}")
            if entry.status == "delivered" and entry.batch.id not in accepted:
                wrong.append(f"failure {entry.batch.id} was not delivered")
    wrong += [f"{at_s:.1f} {line}" for at_s, event, line in world.lines if event == "mapping.crashed"]
    return wrong


async def simulate(plan: Plan) -> tuple[World, list[str]]:
    world = await live_through(plan)
    wrong = await judge(world)
    wrong += await replay_everything(world)
    wrong += [f"not finished by its replay: {each}" for each in await world.stored() if each not in world.finished]
    wrong += world.overlaps()
    return world, wrong


@pytest.mark.parametrize("seed", seeds())
def test_nothing_is_lost_reordered_or_run_beside_its_own_kind(seed: int) -> None:
    plan = make_plan(seed)
    world, wrong = virtual_time.run(simulate(plan))
    assert not wrong, f"seed {seed}: {plan}\n" + "\n".join([*wrong[:20], "faults:", *world.faults[-40:]])
    assert len(world.records) == plan.records
    assert len(world.interruptions) > 10, "the simulation has become harmless"
    assert len(world.finished) > plan.records * 0.3
