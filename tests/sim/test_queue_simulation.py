"""Hours of trouble with queues in seconds: no message is lost, deleted too early, or run beside its own group.

Every simulation is made of one seed: the mapping, the messages, the faults. `HEADRACE_SIMULATE=FIRST:COUNT` runs
others.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from router.core.model import QUEUE_RULES, Backoff, EventSourceMapping, Polling
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
    store_broken,
)
from tests.sim.queue_world import QueuePlan, QueueWorld
from tests.sim.stage import HOUR_S, NAME


def make_plan(seed: int) -> QueuePlan:
    rng = Random(seed)
    sites = rng.choice((1, 1, 2))
    fifo = rng.random() < 0.5
    retries = rng.choice((0, 2, 5, None, None))
    polling = Polling(
        maximum_concurrency=rng.choice((None, None, 2, 5)),
        function_concurrency=3,
        fifo=fifo,
        heartbeat=(fifo and sites > 1) or rng.random() < 0.3,
        hold_group=rng.random() < 0.5,
        needed_lease_s=rng.choice((0.0, 25.0)),
    )
    mapping = EventSourceMapping(
        NAME,
        "price",
        QUEUE_RULES,
        batch_size=rng.choice((1, 3, 10) if fifo else (1, 3, 10, 25)),
        window_s=0.0 if fifo else rng.choice((0.0, 5.0, 30.0)),
        maximum_retry_attempts=retries,
        maximum_record_age_s=rng.choice((None, None, HOUR_S)),
        bisect=rng.random() < 0.6,
        report_item_failures=rng.random() < 0.5,
        drain_s=10.0,
        # Long waits too, longer than a lease.
        backoff=rng.choice((Backoff(), Backoff(base_s=60.0, cap_s=600.0))),
        polling=polling,
    )
    return QueuePlan(
        seed,
        mapping,
        records=400,
        busy_s=4 * HOUR_S,
        undelivered_limit=rng.choice((3, 1000)),
        sites=sites,
        killing_s=0.0 if sites > 1 else 0.7,
        fifo=fifo,
        lease_s=rng.choice((60.0, 150.0, 600.0)),
        maximum_receives=rng.choice((None, 20) if retries is not None else (None, 4, 20)),
    )


# --- faults of queues


async def answers_lost(world: QueueWorld, rng: Random) -> None:
    """Calls fail a few times; what they asked for may have happened all the same."""
    for source in list(world.sources):
        for call in ("receive", "delete") if world.needs_leases else ("receive", "delete", "extend"):
            source.fail(call, SourceUnavailable("no answer"), times=rng.randrange(4), happens=rng.random() < 0.5)


async def messages_refused(world: QueueWorld, rng: Random) -> None:
    """Single messages of a call fail, a few times or for long."""
    for source in list(world.sources):
        for name in rng.sample(list(world.queue.messages), min(5, len(world.queue.messages))):
            call = "delete" if world.needs_leases else rng.choice(("delete", "delete", "extend"))
            source.refuse(call, name, times=rng.choice((1, 3, 30)))


async def delivered_twice(world: QueueWorld, rng: Random) -> None:
    """A standard queue shows messages again although they are leased."""
    if not world.fifo:
        for name in rng.sample(list(world.queue.messages), min(10, len(world.queue.messages))):
            world.queue.expose(name)


async def lease_changed(world: QueueWorld, rng: Random) -> None:
    world.queue.lease_s = rng.choice((60.0, 150.0, 600.0))


async def queue_deleted(world: QueueWorld, rng: Random) -> None:
    if world.needs_leases:
        return  # a new queue knows nothing of the groups that another machine still has in hand
    world.purge()
    await asyncio.sleep(rng.choice((0, 100)))
    world.queue.gone = False


FAULTS: tuple[Fault[QueueWorld], ...] = (
    source_away,
    answers_lost,
    answers_lost,
    messages_refused,
    delivered_twice,
    lease_changed,
    queue_deleted,
    store_broken,
    destination_away,
    function_away,
    clock_stepped,
    killed,
    killed,
    restarted,
    failures_replayed,
)


# --- the course of it


async def judge(world: QueueWorld) -> list[str]:
    """Say what is wrong with what happened, once the faults are over."""
    over = world.finished | await world.stored() | world.purged | world.dead.messages.keys()
    wrong = world.wrong
    wrong += [f"lost: {each}" for each in world.records if each not in over]
    wrong += [f"still in the queue: {each}" for each in world.queue.messages]
    wrong += world.first_deliveries_out_of_order() if world.fifo else []
    wrong += world.overlaps()
    # Each machine counts tries on its own; what is left of a batch of which some were too old has a fresh budget.
    if len(world.sites) == 1 and world.plan.mapping.maximum_record_age_s is None:
        wrong += world.tried_too_often()
    wrong += await world.failures_not_served()
    wrong += world.held_for_ever()
    wrong += world.crashes()
    return wrong


async def simulate(plan: QueuePlan) -> tuple[QueueWorld, list[str]]:
    world = QueueWorld(plan)
    await live_through(world, FAULTS)
    wrong = await judge(world)
    wrong += await replay_everything(world)
    wrong += world.overlaps()
    return world, wrong


@pytest.mark.parametrize("seed", seeds("1:16"))
def test_nothing_is_lost_deleted_early_or_run_beside_its_own_group(seed: int) -> None:
    plan = make_plan(seed)
    world, wrong = virtual_time.run(simulate(plan))
    assert not wrong, f"seed {seed}: {plan}\n" + "\n".join([*wrong[:20], "faults:", *world.faults[-40:]])
    assert len(world.interruptions) > 10, "the simulation has become harmless"
    assert len(world.finished) > plan.records * 0.3
