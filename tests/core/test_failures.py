"""Failures of a mapping, in virtual time: never lost, delivered until accepted, held when there is no room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from router.core.retention import Retention
from router.errors import StoreUnavailable
from router.failures.deliveries import DeliveryEnd, OutboxFacts
from router.failures.failures import Failures
from router.ports import KeepFailure, Selection, SetStatus
from router.telemetry import Log, Metrics
from tests.fakes.destination import MemoryDestination
from tests.fakes.failures import EVENT, entry, failed_batch
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import run

WALL_S = 1_800_000_000.0
DAY_S = 24 * 3600.0
DEFAULTS = Retention()


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def runs() -> None:
        run(test())

    return runs


@dataclass
class World:
    """One mapping's failures over a memory store and a memory destination."""

    store: MemoryStore = field(default_factory=MemoryStore)
    destination: MemoryDestination | None = field(default_factory=MemoryDestination)
    retention: Retention = DEFAULTS
    holds: list[str | None] = field(default_factory=list)
    wall_step_s: float = 0.0
    mapping: str = "orders"

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.started_s = asyncio.get_running_loop().time()

    def wall(self) -> float:
        return WALL_S + asyncio.get_running_loop().time() - self.started_s + self.wall_step_s

    def failures(self) -> Failures:
        return Failures(
            self.mapping,
            store=self.store,
            destination=self.destination,
            retention=self.retention,
            batch_info=lambda failure, event: {"KafkaBatchInfo": {"batchSize": failure.batch_size}},
            hold=self.holds.append,
            metrics=self.metrics.of(self.mapping),
            log=Log(),
            wall=self.wall,
            rng=Random(1),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Failures]:
        failures = self.failures()
        task = asyncio.ensure_future(failures.run())
        yield failures
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()

    async def statuses(self) -> dict[str, str]:
        return {each.batch.id: each.status for each in await self.store.failures(Selection())}

    def count(self, metric: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"headrace_{metric}_total", {"mapping": "orders"})


async def keep(failures: Failures, *ids: str, event: bytes = EVENT, first: int = 0) -> None:
    """Keep failures that happened a second apart."""
    for number, failure_id in enumerate(ids, first):
        await failures.keep(failed_batch(failure_id, failed_at_s=WALL_S + number), event, (b"k",))


@in_virtual_time
async def test_a_kept_failure_is_delivered_whole_and_once() -> None:
    world = World()
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(3600)
    assert world.destination
    [message] = world.destination.accepted
    assert message.event == EVENT
    assert message.entry.batch == failed_batch("f1", failed_at_s=WALL_S)
    assert (message.entry.destination, message.entry.batch_info) == (
        "memory:failed",
        {"KafkaBatchInfo": {"batchSize": 3}},
    )
    assert await world.statuses() == {"f1": "delivered"}
    assert [each.batch.id for each in await world.store.failures(Selection(key=b"k"))] == ["f1"]
    assert world.count("on_failure_destination_delivered_event_count") == 3


@in_virtual_time
async def test_keeping_says_so_when_nothing_was_written() -> None:
    world = World()
    world.store.write_fault = "disk full"
    async with world.running() as failures:
        with pytest.raises(StoreUnavailable, match="disk full"):
            await keep(failures, "f1")
        world.store.write_fault = None
        await asyncio.sleep(3600)
    assert world.destination
    assert (world.destination.tried_at_s, await world.statuses()) == ([], {})


@in_virtual_time
async def test_a_failure_without_destination_stays_stored_and_is_counted() -> None:
    world = World(destination=None)
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(3600)
    assert await world.statuses() == {"f1": "stored"}
    assert world.count("dropped_event_count") == 3


@in_virtual_time
async def test_it_is_sent_again_until_the_destination_accepts() -> None:
    world = World()
    assert world.destination
    world.destination.fault = "queue away"
    async with world.running() as failures:
        await keep(failures, "f1", "f2")
        await asyncio.sleep(2 * DAY_S)
        [first, _] = await world.store.undelivered("orders")
        assert (first.status, first.delivery_error) == ("stored", "queue away")
        assert first.deliveries > 500
        world.destination.fault = None
        await asyncio.sleep(400)
    assert max(later - earlier for earlier, later in pairwise(world.destination.tried_at_s)) <= 360
    assert sorted(world.destination.ids) == ["f1", "f2"]
    assert await world.statuses() == {"f1": "delivered", "f2": "delivered"}


@in_virtual_time
async def test_one_that_is_never_accepted_holds_up_no_other() -> None:
    world = World()
    assert world.destination
    world.destination.poison = {"f1"}
    async with world.running() as failures:
        await keep(failures, "f1", "f2", "f3")
        await asyncio.sleep(1)
        assert world.destination.ids == ["f2", "f3"]
        await asyncio.sleep(DAY_S)
        assert await world.statuses() == {"f1": "stored", "f2": "delivered", "f3": "delivered"}
        world.destination.poison = set()
        await asyncio.sleep(400)
    assert await world.statuses() == {"f1": "delivered", "f2": "delivered", "f3": "delivered"}


@in_virtual_time
async def test_after_a_restart_undelivered_ones_are_sent_oldest_first() -> None:
    world = World()
    assert world.destination
    kept = [entry(f"f{number}", failed_at_s=100.0 - number) for number in range(5)]
    await world.store.apply([KeepFailure(each, EVENT) for each in kept])
    await world.store.apply([SetStatus("f1", "replayed"), SetStatus("f2", "failed_again")])
    await world.store.claim(["f3"])
    async with world.running():
        await asyncio.sleep(1)
    assert world.destination.ids == ["f4", "f3", "f0"]


@in_virtual_time
async def test_a_restart_goes_on_with_the_backoff_but_not_beyond_a_stepped_clock() -> None:
    world = World()
    assert world.destination
    world.destination.fault = "queue away"
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(100)
    tried = len(world.destination.tried_at_s)
    world.destination.fault = None
    async with world.running():
        await asyncio.sleep(1)
        assert len(world.destination.tried_at_s) == tried
    world.wall_step_s = -10 * DAY_S
    async with world.running():
        await asyncio.sleep(361)
    assert world.destination.ids == ["f1"]


@in_virtual_time
async def test_a_send_that_was_cut_off_is_made_again() -> None:
    world = World()
    assert world.destination
    world.destination.answers.clear()
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(1)
    assert len(world.destination.tried_at_s) == 1
    world.destination.answers.set()
    async with world.running():
        await asyncio.sleep(1)
    assert world.destination.ids == ["f1"]


@in_virtual_time
async def test_a_failure_whose_keeping_was_cut_off_after_it_was_written_is_delivered_too() -> None:
    world = World()
    assert world.destination
    async with world.running():
        await asyncio.sleep(1)
        await world.store.apply([KeepFailure(entry("f1"), EVENT)])
        await asyncio.sleep(700)
        assert world.destination.ids == ["f1"]
        await asyncio.sleep(3600)
        assert world.destination.ids == ["f1"]


@in_virtual_time
async def test_what_was_dropped_or_replayed_meanwhile_is_not_sent() -> None:
    world = World()
    assert world.destination
    world.destination.fault = "queue away"
    async with world.running() as failures:
        await keep(failures, "f1", "f2", "f3")
        await asyncio.sleep(1)
        await world.store.drop(["f1"])
        await world.store.apply([SetStatus("f2", "replayed")])
        world.destination.fault = None
        await asyncio.sleep(400)
    assert world.destination.ids == ["f3"]


@in_virtual_time
async def test_what_was_accepted_is_not_sent_again_because_the_store_cannot_write_it_down() -> None:
    world = World()
    assert world.destination
    world.destination.answers.clear()
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(1)
        world.store.write_fault = "disk full"
        world.destination.answers.set()
        await asyncio.sleep(DAY_S)
        assert await world.statuses() == {"f1": "stored"}
        world.store.write_fault = None
        await asyncio.sleep(400)
    assert world.destination.ids == ["f1"]
    assert await world.statuses() == {"f1": "delivered"}


@in_virtual_time
async def test_a_store_that_cannot_be_read_at_the_start_delays_only() -> None:
    world = World()
    await world.store.apply([KeepFailure(entry("f1"), EVENT)])
    world.store.read_fault = "disk away"
    async with world.running():
        await asyncio.sleep(3600)
        world.store.read_fault = None
        await asyncio.sleep(400)
    assert world.destination
    assert world.destination.ids == ["f1"]


@in_virtual_time
async def test_nothing_is_read_while_nothing_happens() -> None:
    world = World()
    async with world.running():
        await asyncio.sleep(1)
        reads = world.store.reads
        await asyncio.sleep(3600)
        assert world.store.reads - reads <= 4 * 6  # the tidying, every ten minutes


@in_virtual_time
async def test_too_many_undelivered_hold_the_mapping_until_they_are_fewer() -> None:
    world = World(retention=Retention(undelivered_limit=10))
    assert world.destination
    world.destination.fault = "queue away"
    async with world.running() as failures:
        await keep(failures, *(f"f{number}" for number in range(9)))
        await asyncio.sleep(10)
        assert world.holds == []
        await keep(failures, "f9")
        await asyncio.sleep(1)
        [reason] = world.holds
        assert reason
        assert "10 failures wait for memory:failed, which last said: queue away" in reason
        assert failures.backlog.undelivered == 10
        await world.store.drop(["f0"])
        await asyncio.sleep(10)
        assert world.holds == [reason]
        await world.store.drop(["f1"])
        await asyncio.sleep(10)
        assert world.holds == [reason, None]
    assert await world.statuses() == {f"f{n}": "dropped" if n < 2 else "stored" for n in range(10)}


@in_virtual_time
async def test_a_destination_that_hangs_holds_the_mapping_too_and_delivery_lets_it_go() -> None:
    world = World(retention=Retention(undelivered_limit=5))
    assert world.destination
    world.destination.answers.clear()
    async with world.running() as failures:
        await keep(failures, *(f"f{number}" for number in range(5)))
        await asyncio.sleep(1)
        assert len(world.holds) == 1
        world.destination.answers.set()
        await asyncio.sleep(0.001)
        assert (len(world.destination.ids), world.holds[1:]) == (5, [None])


@in_virtual_time
async def test_failures_left_by_a_former_run_hold_the_mapping_at_once() -> None:
    world = World(retention=Retention(undelivered_limit=3))
    assert world.destination
    world.destination.fault = "queue away"
    await world.store.apply([KeepFailure(entry(f"f{number}"), EVENT) for number in range(3)])
    async with world.running():
        await asyncio.sleep(0.001)
        assert len(world.holds) == 1


@in_virtual_time
async def test_bytes_hold_the_mapping_and_nothing_is_lost() -> None:
    world = World(retention=Retention(keep_bytes=1000))
    async with world.running() as failures:
        await keep(failures, *(f"f{number}" for number in range(10)), event=b"x" * 100)
        await asyncio.sleep(DAY_S)
        [reason] = world.holds
        assert reason
        assert "failures.keep_bytes allows 1000" in reason
        assert len(await world.statuses()) == 10
        await world.store.drop(["f0", "f1"])
        failures.settled({"f0", "f1"})
        await asyncio.sleep(0.001)
        assert world.holds[1:] == [None]


@in_virtual_time
async def test_when_told_so_the_oldest_make_room_settled_ones_first() -> None:
    world = World(retention=Retention(keep_bytes=1000, drop_oldest=True), destination=None)
    async with world.running() as failures:
        await keep(failures, *(f"f{number}" for number in range(6)), event=b"x" * 100)
        await world.store.apply([SetStatus("f4", "replayed"), SetStatus("f5", "failed_again")])
        await world.store.claim(["f0"])
        await keep(failures, "g0", "g1", "g2", event=b"x" * 100, first=6)
        await asyncio.sleep(1)
        assert len(await world.statuses()) == 9
        await keep(failures, "g3", event=b"x" * 100, first=9)
        await asyncio.sleep(1)
        assert sorted(await world.statuses()) == ["f0", "f1", "f2", "f3", "f5", "g0", "g1", "g2", "g3"]
        await keep(failures, "g4", "g5", "g6", event=b"x" * 100, first=10)
        await asyncio.sleep(1)
        left = await world.statuses()
    assert left["f0"] == "replaying"
    assert "f5" not in left
    assert "f1" not in left
    assert sum(100 for _ in left) <= 1000
    assert {"g4", "g5", "g6"} < set(left)
    assert world.holds == []


@in_virtual_time
async def test_settled_failures_are_deleted_after_their_time_and_no_other() -> None:
    world = World(retention=Retention(keep_for_s=30 * DAY_S), destination=None)
    old = [entry(f"old-{status}", failed_at_s=WALL_S - 29 * DAY_S) for status in STATUSES]
    new = [entry(f"new-{status}", failed_at_s=WALL_S) for status in STATUSES]
    other = entry("other", mapping="invoices", failed_at_s=0.0)
    await world.store.apply([KeepFailure(each, EVENT) for each in (*old, *new, other)])
    for each in (*old, *new):
        await world.store.apply([SetStatus(each.batch.id, each.batch.id.partition("-")[2])])
    await world.store.apply([SetStatus("other", "replayed")])
    async with world.running():
        await asyncio.sleep(3600)
        assert len(await world.statuses()) == 2 * len(STATUSES) + 1
        await asyncio.sleep(DAY_S)
    assert sorted(await world.statuses()) == sorted(
        ["old-stored", "old-replaying", *(f"new-{status}" for status in STATUSES), "other"]
    )


STATUSES = ("stored", "delivered", "replaying", "replayed", "failed_again", "dropped")


@in_virtual_time
async def test_what_somebody_asks_for_is_sent_now_and_its_end_is_told() -> None:
    world = World()
    assert world.destination
    world.destination.fault = "queue away"
    ends: list[DeliveryEnd] = []
    async with world.running() as failures:
        await keep(failures, "f1", "f2")
        await asyncio.sleep(3600)
        before = world.destination.tried_at_s[:]
        [first, _] = await world.store.undelivered("orders")
        failures.deliver(first, ends.append)
        await asyncio.sleep(0.001)
        [refused] = ends
        assert (refused.id, refused.outcome, refused.reason) == ("f1", "not_delivered", "queue away")
        assert refused.next_try
        assert len(world.destination.tried_at_s) == len(before) + 1
        world.destination.fault = None
        failures.deliver(first, ends.append)
        await asyncio.sleep(0.001)
        assert ends[1:] == [DeliveryEnd("f1", "delivered", form="whole")]
        assert await world.statuses() == {"f1": "delivered", "f2": "stored"}


@in_virtual_time
async def test_a_sending_that_is_under_way_is_the_one_that_was_asked_for() -> None:
    world = World()
    assert world.destination
    world.destination.answers.clear()
    ends: list[DeliveryEnd] = []
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(1)
        [first] = await world.store.undelivered("orders")
        failures.deliver(first, ends.append)
        failures.deliver(first, ends.append)
        await asyncio.sleep(1)
        assert ends == []
        world.destination.answers.set()
        await asyncio.sleep(1)
    assert ends == [DeliveryEnd("f1", "delivered", form="whole")] * 2
    assert world.destination.ids == ["f1"]


@in_virtual_time
async def test_who_asked_hears_when_it_was_dropped_and_when_the_mapping_ends() -> None:
    world = World()
    assert world.destination
    world.destination.answers.clear()
    ends: list[DeliveryEnd] = []
    async with world.running() as failures:
        await keep(failures, "f1", "f2", "f3")
        await asyncio.sleep(1)
        for each in await world.store.undelivered("orders"):
            failures.deliver(each, ends.append)
        await world.store.drop(["f2"])
        failures.settled({"f2", "f9"})
        assert [(end.id, end.outcome) for end in ends] == [("f2", "refused")]
    assert sorted((end.id, end.outcome) for end in ends) == [("f1", "refused"), ("f2", "refused"), ("f3", "refused")]


@in_virtual_time
async def test_who_asks_while_nothing_is_delivered_is_told_so() -> None:
    world = World()
    assert world.destination
    world.destination.fault = "queue away"
    ends: list[DeliveryEnd] = []
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(1)
        [first] = await world.store.undelivered("orders")
    failures.deliver(first, ends.append)
    assert [(end.outcome, end.reason) for end in ends] == [
        ("refused", "its mapping starts or stops now; ask again in a moment")
    ]


@in_virtual_time
async def test_what_was_accepted_since_somebody_looked_is_delivered_and_not_sent_again() -> None:
    world = World()
    assert world.destination
    ends: list[DeliveryEnd] = []
    async with world.running() as failures:
        await keep(failures, "f1")
        [looked_at] = await world.store.undelivered("orders")
        await asyncio.sleep(1)
        failures.deliver(looked_at, ends.append)
        await asyncio.sleep(1)
        assert failures.facts().undelivered == 0
    assert ends == [DeliveryEnd("f1", "delivered", "its destination has it already")]
    assert world.destination.ids == ["f1"]


@in_virtual_time
async def test_it_says_what_waits() -> None:
    world = World()
    assert world.destination
    async with world.running() as failures:
        assert failures.facts() == OutboxFacts("memory:failed", 0)
        world.destination.fault = "queue away"
        await keep(failures, "f1", "f2")
        await asyncio.sleep(0.001)
        facts = failures.facts()
        assert (facts.undelivered, facts.oldest_s, facts.last_error) == (2, WALL_S, "queue away")
        assert facts.next_try_s
        assert WALL_S < facts.next_try_s < WALL_S + 2
        world.destination.fault = None
        await asyncio.sleep(60)
        assert failures.facts() == OutboxFacts("memory:failed", 0)


@in_virtual_time
async def test_it_says_why_one_waits_though_others_are_accepted() -> None:
    world = World()
    assert world.destination
    world.destination.poison = {"f1"}
    async with world.running() as failures:
        await keep(failures, "f1", "f2")
        await asyncio.sleep(60)
        assert world.destination.ids == ["f2"]
        facts = failures.facts()
        assert (facts.undelivered, facts.last_error) == (1, "memory:failed takes no f1")
        failures.settled({"f1"})
        assert failures.facts() == OutboxFacts("memory:failed", 0)


@in_virtual_time
async def test_after_a_restart_it_knows_the_last_error_before_the_next_try() -> None:
    world = World()
    assert world.destination
    world.destination.fault = "queue away"
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(3600)
    async with world.running() as failures:
        await asyncio.sleep(0.001)
        facts = failures.facts()
        assert (facts.undelivered, facts.last_error) == (1, "queue away")


@in_virtual_time
async def test_a_destination_that_hangs_delays_no_other_mapping() -> None:
    store = MemoryStore()
    hanging, sound = World(store=store), World(store=store, mapping="invoices")
    assert hanging.destination
    assert sound.destination
    hanging.destination.answers.clear()
    async with hanging.running() as failures, sound.running() as others:
        await keep(failures, "f1", "f2")
        await asyncio.sleep(1)
        for number in range(5):
            await others.keep(failed_batch(f"g{number}", mapping="invoices", failed_at_s=WALL_S), EVENT, ())
        await asyncio.sleep(0.001)
        assert sound.destination.ids == [f"g{number}" for number in range(5)]
        assert hanging.destination.ids == []


@in_virtual_time
async def test_the_same_failure_kept_again_is_one_and_delivered_again() -> None:
    world = World()
    async with world.running() as failures:
        await keep(failures, "f1")
        await asyncio.sleep(1)
        await keep(failures, "f1")
        await asyncio.sleep(1)
    assert world.destination
    assert world.destination.ids == ["f1", "f1"]
    assert await world.statuses() == {"f1": "delivered"}


@in_virtual_time
async def test_who_goes_waits_for_what_is_being_sent_and_not_for_what_is_refused() -> None:
    world, loop = World(), asyncio.get_running_loop()
    assert world.destination
    async with world.running() as failures:
        await keep(failures, "f1", "f2")
        await failures.sent()
        assert await world.statuses() == {"f1": "delivered", "f2": "delivered"}
        world.destination.fault = "away"
        began_s = loop.time()
        await keep(failures, "f3", first=3)
        await failures.sent()
        assert loop.time() - began_s < 1
        assert (await world.statuses())["f3"] == "stored"
