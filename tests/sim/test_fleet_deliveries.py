"""Deliveries of a fleet in virtual time: one replica delivers, and another goes on when it is gone."""

from __future__ import annotations

import asyncio

from router.core.retention import Retention
from router.failures.deliveries import deliver
from router.ports import Selection
from router.replay.end import JobOver
from tests.sim.fleet_failures_world import MAPPING, World, ended
from tests.sim.virtual_time import in_virtual_time


@in_virtual_time
async def test_each_failure_is_delivered_once_whoever_has_kept_it() -> None:
    world = World(refused={f"x{number}" for number in range(20)})
    replicas = await world.start("a", "b", "c")
    for number in range(20):
        world.stream.put(f"x{number}".encode(), f"k{number}".encode())
    await world.until(lambda: len(world.destination.accepted) == 20, 30.0)
    await asyncio.sleep(100)
    assert len(world.destination.ids) == len(set(world.destination.ids)) == 20
    assert len({run[1] for run in world.runs}) == len(replicas)
    await ended(world)


@in_virtual_time
async def test_who_delivers_may_die_or_stop_and_another_goes_on() -> None:
    world = World(refused={f"x{number}" for number in range(30)})
    await world.start("a", "b", "c")
    world.destination.fault = "queue away"
    for number in range(30):
        world.stream.put(f"x{number}".encode(), f"k{number}".encode())
    await world.until_statuses(stored=30)
    [owner] = [each for each in world.living if each.failures.is_ours]
    await owner.kill()
    await world.until(lambda: any(each.failures.is_ours for each in world.living))
    [owner] = [each for each in world.living if each.failures.is_ours]
    await owner.stop()
    world.destination.fault = None
    await world.until_statuses(delivered=30, within_s=600.0)
    assert len(world.destination.ids) == 30
    await ended(world)


@in_virtual_time
async def test_what_is_being_sent_is_finished_before_another_delivers() -> None:
    world = World()
    await world.start("a", "b")
    world.destination.answers.clear()
    await world.keep(1)
    await world.until(lambda: world.destination.tried_at_s)
    [owner] = [each for each in world.living if each.failures.is_ours]
    stopping = asyncio.create_task(owner.stop())
    await asyncio.sleep(5.0)
    world.destination.answers.set()
    await stopping
    await asyncio.sleep(60.0)
    assert (world.destination.ids, len(world.destination.tried_at_s)) == (["f000"], 1)
    await ended(world)


@in_virtual_time
async def test_an_owner_that_has_lost_its_lease_writes_no_end() -> None:
    world = World()
    await world.start("a", "b")
    world.destination.answers.clear()
    await world.keep(1)
    await world.until(lambda: world.destination.tried_at_s)
    [owner] = [each for each in world.living if each.failures.is_ours]
    [other] = [each for each in world.living if each is not owner]
    owner.table.fault = "cut off"
    await world.until(lambda: other.failures.is_ours)
    assert not owner.failures.is_ours
    await world.until(lambda: len(world.destination.tried_at_s) == 2)
    world.destination.answers.set()
    await world.until_statuses(delivered=1)
    assert len(world.destination.ids) == 1
    [failure] = await world.store.failures(Selection())
    assert failure.deliveries == 1
    await ended(world)


@in_virtual_time
async def test_any_replica_has_a_failure_delivered_by_who_delivers() -> None:
    world = World()
    await world.start("a", "b")
    world.destination.fault = "queue away"
    await world.keep(3)
    await world.until(lambda: len(world.destination.tried_at_s) >= 3)
    [other] = [each for each in world.living if not each.failures.is_ours]
    ends = await deliver(other.store, {MAPPING: other.failures}, ["f000"])
    end = await ends.next()
    assert (end.outcome, end.reason) == ("not_delivered", "queue away")  # type: ignore[union-attr]
    world.destination.fault = None
    ends = await deliver(other.store, {MAPPING: other.failures}, ["f000", "f001"])
    told = [await ends.next(), await ends.next()]
    assert [each.outcome for each in told] == ["delivered", "delivered"]  # type: ignore[union-attr]
    assert await ends.next() == JobOver(None)
    await ended(world)


@in_virtual_time
async def test_who_asked_is_told_where_the_replica_that_was_asked_stops_first() -> None:
    world = World()
    await world.start("a", "b")
    world.destination.answers.clear()
    await world.keep(1)
    await world.until(lambda: world.destination.tried_at_s)
    [other] = [each for each in world.living if not each.failures.is_ours]
    ends = await deliver(other.store, {MAPPING: other.failures}, ["f000"])
    await asyncio.sleep(1.0)
    await other.stop()
    end = await asyncio.wait_for(ends.next(), 300.0)
    assert (end.outcome, end.reason) == ("refused", "its mapping starts or stops now; ask again in a moment")  # type: ignore[union-attr]
    await ended(world)


@in_virtual_time
async def test_what_is_dropped_anywhere_is_settled_where_it_is_delivered() -> None:
    world = World()
    await world.start("a", "b")
    world.destination.fault = "queue away"
    await world.keep(3)
    [owner] = [each for each in world.living if each.failures.is_ours]
    [other] = [each for each in world.living if each is not owner]
    await world.until(lambda: owner.failures.facts().undelivered == 3)
    other.failures.settled(set(await other.store.drop(["f000"])))
    await asyncio.sleep(2.0)
    assert owner.failures.facts().undelivered == 2
    await ended(world)


@in_virtual_time
async def test_too_much_that_waits_holds_every_replica() -> None:
    world = World(retention=Retention(undelivered_limit=5), refused={f"x{number}" for number in range(6)})
    replicas = await world.start("a", "b", "c")
    world.destination.fault = "queue away"
    for number in range(6):
        world.stream.put(f"x{number}".encode(), b"k")
    await world.until(lambda: all(each.holds for each in replicas), 40.0)
    assert all("wait for memory:failed" in (each.holds[0] or "") for each in replicas)
    world.destination.fault = None
    await world.until(lambda: all(each.holds[-1] is None for each in replicas), 400.0)
    await ended(world)
