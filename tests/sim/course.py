"""The course of a simulation: records come, faults happen, things settle, what failed is replayed.

A fault takes what it breaks away for a while, then gives it back.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, TypeAlias, TypeVar

from router.ports import Selection
from router.replay.end import ReplayEnd
from tests.sim.stage import HOUR_S, Site, Stage

S = TypeVar("S", bound=Stage)
Fault: TypeAlias = Callable[[S, Random], Coroutine[Any, Any, None]]

#: Time that what is left to do may take once the faults are over: one poison record after another, each with its waits.
PATIENCE_S = 72 * HOUR_S


def seeds(default: str) -> range:
    """Give the seeds to run: `HEADRACE_SIMULATE=FIRST:COUNT` runs others than the default."""
    first, _, count = os.environ.get("HEADRACE_SIMULATE", default).partition(":")
    return range(int(first), int(first) + int(count or 1))


# --- faults of every stage


async def source_away(stage: Stage, rng: Random) -> None:
    stage.away = True
    await asyncio.sleep(rng.choice(stage.outages_s))
    stage.away = False


async def store_broken(stage: Stage, rng: Random) -> None:
    store = rng.choice(stage.sites).store
    store.write_fault = "the disk is full"
    store.read_fault = rng.choice((None, "the disk does not answer"))
    await asyncio.sleep(rng.choice((5, 300)))
    store.write_fault = store.read_fault = None


async def destination_away(stage: Stage, rng: Random) -> None:
    stage.destination.fault = "no such queue"
    await asyncio.sleep(rng.choice((60, 1800)))
    stage.destination.fault = None


async def function_away(stage: Stage, rng: Random) -> None:
    stage.refusing = True
    await asyncio.sleep(rng.choice((3, 400)))
    stage.refusing = False


async def clock_stepped(stage: Stage, rng: Random) -> None:
    """Somebody sets the clock; only the age of records may depend on it."""
    stage.step_s = rng.choice((0.0, -2 * HOUR_S, 2 * HOUR_S))


async def killed(stage: Stage, rng: Random) -> None:
    stage.interrupt()
    site = rng.choice(stage.sites)
    if site.daemon:
        daemon, site.daemon = site.daemon, None
        await daemon.kill()
        await asyncio.sleep(rng.choice((0, 0, 0.5, 200)))
        stage.interrupt()  # it takes shards away from the other machine
        site.daemon = stage.make_daemon(site)


async def restarted(stage: Stage, rng: Random) -> None:
    stage.interrupt()
    site = rng.choice(stage.sites)
    if site.daemon:
        daemon, site.daemon = site.daemon, None
        await daemon.drain(rng.choice((0.1, 30.0)))
        await asyncio.sleep(rng.choice((0, 20)))
        stage.interrupt()
        site.daemon = stage.make_daemon(site)


async def failures_replayed(stage: Stage, rng: Random) -> None:
    site = rng.choice(stage.sites)
    if site.store.read_fault is None:
        failures = await site.store.failures(Selection())
        chosen = tuple(entry.batch.id for entry in failures if rng.random() < 0.3)
        await stage.note_replays(site, chosen)
        if chosen and site.daemon:
            site.daemon.replayer.start(Selection(ids=chosen), 0.0)


# --- the course


async def live_through(stage: S, faults: Sequence[Fault[S]]) -> None:
    """Let records come and faults happen, then wait until all is done."""
    plan, loop = stage.plan, asyncio.get_running_loop()
    for site in stage.sites:
        site.daemon = stage.make_daemon(site)
    start_s = loop.time()
    for _ in range(plan.records):
        loop.call_at(start_s + stage.rng.uniform(0, plan.busy_s), stage.append)
    rng = Random(plan.seed + 1)
    async with asyncio.TaskGroup() as troubles:
        while loop.time() < start_s + plan.busy_s:
            await asyncio.sleep(rng.expovariate(1 / plan.fault_every_s))
            fault = rng.choice(faults)
            stage.faults.append(f"{loop.time():.1f} {fault.__name__}")
            troubles.create_task(fault(stage, rng))
    while not await stage.is_done() and loop.time() < start_s + plan.busy_s + PATIENCE_S:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(plan.look_every_s)
    await asyncio.sleep(plan.look_every_s)


async def replay_everything(stage: Stage) -> list[str]:
    """Repair the function and replay what is stored, one machine after the other; give what did not end well."""
    stage.fixed = True
    trouble = []
    for site in stage.sites:
        # A replay runs where its shard is, and one machine alone has them all.
        for each in stage.sites:
            await stop(each)
        site.daemon = stage.make_daemon(site)
        await asyncio.sleep(1.0)
        failures = await site.store.failures(Selection())
        statuses = ("stored", "delivered", "replaying", "dropped")
        left = [entry.batch.id for entry in failures if entry.status in statuses]
        await stage.note_replays(site, left)
        ends = site.daemon.replayer.start(Selection(statuses=statuses), 0.0)
        while isinstance(end := await ends.next(), ReplayEnd):
            left.remove(end.id)
            if end.outcome != "replayed":
                trouble.append(f"{end.id} {end.outcome}: {end.reason}")
        trouble += [f"{failure} did not end" for failure in left]
        await stop(site)
    trouble += [f"not finished by its replay: {each}" for each in await stage.stored() if each not in stage.finished]
    return trouble


async def stop(site: Site) -> None:
    if site.daemon:
        await site.daemon.drain(30.0)
        site.daemon = None
