"""Replays of a fleet in virtual time: replicas come, go and die, and every failure ends exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import msgspec
import pytest

from router.errors import PeerGone, StoreUnavailable
from router.ports import Selection
from router.replay.carrying import Told
from router.replay.end import ASTRAY
from router.replay.replay import PATIENCE_S
from tests.sim.course import seeds
from tests.sim.fleet_failures_world import SHARDS, WALL_S, World, ended
from tests.sim.virtual_time import in_virtual_time, run


@in_virtual_time
async def test_a_replay_runs_on_the_owners_of_the_shards() -> None:
    world = World()
    a, _ = await world.start("a", "b")
    await world.keep(40)
    assert await a.replay() == {"replayed": 40}
    where = Counter(replica for _, replica, *_ in world.runs)
    assert set(where) == {"a", "b"}
    assert set(world.times_run().values()) == {1}
    assert await world.statuses() == {"replayed": 40}
    await ended(world)


@in_virtual_time
async def test_one_that_fails_again_is_told_with_its_new_failure() -> None:
    world = World(refused={"f001", "f002"})
    a, _ = await world.start("a", "b")
    await world.keep(8)
    assert await a.replay() == {"replayed": 6, "failed_again": 2}
    failures = await world.store.failures(Selection())
    assert {each.batch.parent for each in failures} == {None, "f001", "f002"}
    await ended(world)


@in_virtual_time
async def test_what_a_dead_replica_was_replaying_ends_though_it_is_gone() -> None:
    world = World()
    a, _ = await world.start("a", "b")
    await world.keep(40)
    job = asyncio.create_task(a.replay())
    await world.until(lambda: len(world.runs) > 8)
    await a.kill()
    job.cancel()
    await world.until_statuses(replayed=40)
    assert world.overlaps() == []
    await ended(world)


@in_virtual_time
async def test_what_a_replica_replays_that_lives_again_is_left_to_it() -> None:
    world = World()
    a, b = await world.start("a", "b")
    await world.keep(8)
    await a.store.claim(["f000", "f001"])
    b.replayer.orphaned("a")
    await asyncio.sleep(60.0)
    assert (await world.statuses())["replaying"] == 2
    assert not world.runs
    await ended(world)


@in_virtual_time
async def test_when_an_owner_dies_its_replays_go_to_the_next_owner() -> None:
    world = World()
    a, b = await world.start("a", "b")
    await world.keep(40)
    job = asyncio.create_task(a.replay())
    await world.until(lambda: any(run[1] == "b" for run in world.runs))
    await b.kill()
    assert await job == {"replayed": 40}
    assert world.overlaps() == []
    await ended(world)


@in_virtual_time
async def test_a_shard_that_is_handed_over_meanwhile_takes_its_replays_along() -> None:
    world = World()
    a, b = await world.start("a", "b")
    await world.keep(60)
    job = asyncio.create_task(a.replay())
    await world.until(lambda: any(run[1] == "b" for run in world.runs))
    await b.stop()
    assert await job == {"replayed": 60}
    assert world.overlaps() == []
    assert set(world.times_run().values()) == {1}
    await ended(world)


@in_virtual_time
async def test_a_replica_that_stops_leaves_nothing_that_is_replayed_for_ever() -> None:
    world = World()
    a, b = await world.start("a", "b")
    await world.keep(60)
    job = asyncio.create_task(a.replay())
    await world.until(lambda: len(world.runs) > 8)
    await a.stop()
    job.cancel()
    await world.until(lambda: len(b.shards) == SHARDS)
    await asyncio.sleep(120)
    assert set(await world.statuses()) <= {"stored", "delivered", "replayed"}
    await b.replay()
    assert await world.statuses() == {"replayed": 60}
    assert world.overlaps() == []
    await ended(world)


@in_virtual_time
async def test_a_replica_that_stops_in_a_long_job_claims_nothing_more_that_nobody_would_take_up() -> None:
    world = World(takes_s=0.1)
    a, b = await world.start("a", "b")
    await world.keep(600)
    job = asyncio.create_task(a.replay())
    await world.until(lambda: len(world.runs) > 100)
    a.table.delay_s = 0.3  # it leaves the table while what it has asked for ends
    await a.stop()
    job.cancel()
    await world.until(lambda: len(b.shards) == SHARDS)
    await asyncio.sleep(60)
    assert set(world.table.rows) == {"b"}
    assert "replaying" not in await world.statuses()
    assert world.overlaps() == []
    await ended(world)


@in_virtual_time
async def test_a_failure_that_two_replicas_are_asked_to_replay_runs_once() -> None:
    world = World()
    a, b = await world.start("a", "b")
    await world.keep(40)
    ends = sum(await asyncio.gather(a.replay(), b.replay()), Counter[str]())
    assert ends["replayed"] == 40
    assert set(world.times_run().values()) == {1}
    await ended(world)


class Fickle:
    """Owners of which each asking ends as the script says; the last is repeated."""

    def __init__(self, *script: bytes | Exception) -> None:
        self.script = list(script)
        self.asked = 0
        self.others: Sequence[str] = ()

    async def owner(self, mapping: str, shard: str) -> str | None:
        return "b"

    async def ask(self, replica: str, what: str, body: bytes, within_s: float) -> bytes:
        self.asked += 1
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, Exception):
            await asyncio.sleep(20.0)
            raise said
        return said


def told(outcome: str) -> bytes:
    return msgspec.msgpack.encode(Told(outcome, [], None))


@in_virtual_time
async def test_a_replay_whose_shard_nobody_has_waits_a_while_and_is_refused() -> None:
    world = World()
    [a] = await world.start("a")
    await world.keep(1)
    a.replayer.join(Fickle(told(ASTRAY)))
    began_s = asyncio.get_running_loop().time()
    assert await a.replay() == {"refused": 1}
    assert PATIENCE_S <= asyncio.get_running_loop().time() - began_s < PATIENCE_S + 2
    assert set(await world.statuses()) <= {"stored", "delivered"}
    await ended(world)


@in_virtual_time
async def test_an_owner_that_is_gone_or_slow_or_not_reached_is_asked_again() -> None:
    world = World()
    [a] = await world.start("a")
    await world.keep(1)
    owners = Fickle(PeerGone("b"), TimeoutError(), StoreUnavailable("away"), b"", told(ASTRAY), told("replayed"))
    a.replayer.join(owners)
    assert await a.replay() == {"replayed": 1}
    assert owners.asked == 6
    await ended(world)


@in_virtual_time
async def test_a_replay_that_takes_long_is_asked_for_again_and_runs_once() -> None:
    world = World(takes_s=100.0)
    a, b = await world.start("a", "b")
    await world.until(lambda: len(a.shards) == len(b.shards) == SHARDS // 2)
    await world.keep(8)
    assert await a.replay() == {"replayed": 8}
    assert set(world.times_run().values()) == {1}
    assert {replica for _, replica, *_ in world.runs} == {"a", "b"}
    await ended(world)


@in_virtual_time
async def test_what_is_of_a_finished_shard_runs_where_it_is_asked_for() -> None:
    world = World()
    a, b = await world.start("a", "b")
    await world.keep(8)
    parent = world.shards[0]
    children = set(world.stream.split(parent))
    await world.until(lambda: children <= {*a.shards, *b.shards})
    of_parent = [each.batch.id for each in await world.store.failures(Selection(shard=parent))]
    for one in (a, b):
        before = len(world.runs)
        assert await one.replay(*of_parent) == {"replayed": len(of_parent)}
        assert {replica for _, replica, *_ in world.runs[before:]} == {one.name}
    await ended(world)


@in_virtual_time
async def test_a_paused_mapping_refuses_what_is_another_replica_s_too() -> None:
    world = World()
    a, _ = await world.start("a", "b")
    await world.keep(8)
    for each in world.living:
        each.life.pause(WALL_S)
    began_s = asyncio.get_running_loop().time()
    assert await a.replay() == {"refused": 8}
    assert asyncio.get_running_loop().time() - began_s < 10.0
    await ended(world)


@in_virtual_time
async def test_a_lost_answer_is_asked_for_again_and_nothing_runs_twice() -> None:
    world = World()
    a, _ = await world.start("a", "b")
    await world.keep(40)
    job = asyncio.create_task(a.replay())
    await world.until(lambda: any(run[1] == "b" for run in world.runs))
    for _ in range(5):
        a.table.fault = "cut off"
        await asyncio.sleep(0.7)
        a.table.fault = None
        await asyncio.sleep(1.1)
    assert await job == {"replayed": 40}
    assert set(world.times_run().values()) == {1}
    await ended(world)


@pytest.mark.parametrize("seed", seeds("0:6"))
def test_replicas_that_come_and_go_leave_every_failure_ended(seed: int) -> None:
    run(_turmoil(seed))


async def _turmoil(seed: int) -> None:
    world = World(seed, refused={f"f{number:03}" for number in range(0, 60, 7)})
    await world.start("a", "b")
    await world.keep(60)
    rng = Random(seed)
    jobs: list[asyncio.Task[Counter[str]]] = []
    names = iter("cdefghij")
    for _ in range(6):
        one = rng.choice(world.living)
        jobs.append(asyncio.create_task(one.replay()))
        await asyncio.sleep(rng.choice((0.5, 2.0, 7.0)))
        victim = rng.choice(world.living)
        act: Callable[[], Awaitable[None]] = rng.choice((victim.kill, victim.stop, _nothing))
        if len(world.living) > 1:
            await act()
        if len(world.living) < 3:
            await world.start(next(names))
    await asyncio.sleep(200)
    for job in jobs:
        job.cancel()
    statuses = await world.statuses()
    assert statuses["replaying"] == 0, statuses
    world.refused.clear()
    left = [each.batch.id for each in await world.store.failures(Selection()) if each.status in ("stored", "delivered")]
    if left:
        assert await world.living[0].replay(*left) == {"replayed": len(left)}
    assert set(await world.statuses()) == {"replayed", "failed_again"}
    assert world.overlaps() == []
    await ended(world)


async def _nothing() -> None:
    """Let all go on."""
