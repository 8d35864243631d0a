"""Random lives of a queue engine: whatever happens in whatever order, what the mapping promises holds."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from router.core import facts as f
from router.core.model import (
    QUEUE_RULES,
    Cancelled,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Polling,
    Refused,
    Returned,
    TooLarge,
)
from tests.machines.queue_world import Flight, World

T = TypeVar("T")
ERROR = FunctionError("Boom", "boom")
RAISED = Failed(FailureKind.RAISED, ERROR)
KEYS = (b"k1", b"k2", b"k3")

pollings = st.builds(
    Polling,
    maximum_concurrency=st.sampled_from((None, None, 1, 2)),
    function_concurrency=st.integers(1, 4),
    fifo=st.sampled_from((True, True, False)),
    heartbeat=st.booleans(),
    hold_group=st.sampled_from((True, True, False)),
    needed_lease_s=st.sampled_from((0.0, 0.0, 5.0)),
)
mappings = st.builds(
    EventSourceMapping,
    st.just("mapping"),
    st.just("function"),
    st.just(QUEUE_RULES),
    batch_size=st.sampled_from((1, 2, 3, 3, 5, 10, 25)),
    window_s=st.sampled_from((0.0, 0.0, 0.5, 5.0)),
    batch_bytes=st.sampled_from((60, 200, 100_000, 100_000, 100_000)),
    maximum_retry_attempts=st.sampled_from((0, 1, 3, None, None)),
    maximum_record_age_s=st.sampled_from((None, None, 5.0, 60.0)),
    bisect=st.booleans(),
    report_item_failures=st.sampled_from((True, True, False)),
    init_errors_count=st.booleans(),
    memory_bytes=st.sampled_from((200, 100_000, 100_000, 100_000)),
    polling=pollings,
)
#: Key, size, age on arrival in seconds, kept by the filter, unfit.
sent = st.tuples(
    st.sampled_from(KEYS),
    st.sampled_from((1, 20, 50, 80)),
    st.sampled_from((0, 0, 0, 0, 0, 4, 100)),
    st.sampled_from((True, True, True, True, True, False)),
    st.sampled_from((False,) * 14 + (True,)),
)
indexes = st.integers(0, 1_000_000)


class QueueEngineMachine(RuleBasedStateMachine):
    world: World

    @initialize(
        mapping=mappings,
        lease_s=st.sampled_from((2.0, 30.0, 600.0)),
        maximum_receives=st.sampled_from((None, None, 2)),
        keyed=st.booleans(),
        messages=st.lists(sent, max_size=30),
        seed=st.integers(0, 2**32),
    )
    def begin(
        self,
        mapping: EventSourceMapping,
        lease_s: float,
        maximum_receives: int | None,
        messages: list[Any],
        *,
        keyed: bool,
        seed: int,
    ) -> None:
        self.world = World(mapping, seed, lease_s=lease_s, maximum_receives=maximum_receives)
        #: Standard queues can have ordering keys too (S3 object keys).
        self.keyed = keyed or mapping.polling.fifo
        self.send(messages)

    def teardown(self) -> None:
        if hasattr(self, "world") and not self.world.broken:
            self.world.settle()
            self.world.check_settled()

    # --- what goes on all the time

    @rule(messages=st.lists(sent, min_size=1, max_size=12))
    def send(self, messages: list[Any]) -> None:
        for key, size, age_s, kept, unfit in messages:
            self.world.send(key if self.keyed else None, size, age_s, kept=kept, unfit=unfit)

    @rule(pick=indexes, most=st.sampled_from((1, 3, 10, 10)))
    @precondition(lambda self: self.world.life.receives)
    def receive(self, pick: int, most: int) -> None:
        self.world.answer_receive(one_of(self.world.life.receives, pick), most)

    @rule(pick=indexes)
    @precondition(lambda self: self.world.can_be_tried_elsewhere())
    def try_elsewhere(self, pick: int) -> None:
        found = self.world.can_be_tried_elsewhere()
        self.world.try_elsewhere(found[pick % len(found)])

    @rule(pick=indexes, data=st.data())
    @precondition(lambda self: self.world.life.flights)
    def end_invocation(self, pick: int, data: st.DataObject) -> None:
        flights = self.world.life.flights
        batch_id = one_of(flights, pick)
        self.world.end(batch_id, data.draw(outcomes(flights[batch_id])))

    @rule(pick=indexes, happens=st.sets(st.integers(0, 9)), everything=st.booleans(), ok=st.booleans())
    @precondition(lambda self: self.world.life.deletes)
    def delete(self, pick: int, happens: set[int], *, everything: bool, ok: bool) -> None:
        call = one_of(self.world.life.deletes, pick)
        self.world.answer_delete(call, happens=None if everything else happens, ok=ok)

    @rule(pick=indexes, happens=st.booleans(), ok=st.booleans())
    @precondition(lambda self: self.world.life.extends)
    def extend(self, pick: int, *, happens: bool, ok: bool) -> None:
        self.world.answer_extend(one_of(self.world.life.extends, pick), happens=happens, ok=ok)

    @rule(pick=indexes, stored=st.sampled_from((True, True, False)), ok=st.sampled_from((True, True, False)))
    @precondition(lambda self: self.world.life.keeps)
    def keep(self, pick: int, *, stored: bool, ok: bool) -> None:
        self.world.answer_keep(one_of(self.world.life.keeps, pick), stored=stored, ok=ok)

    @rule(pick=indexes, written=st.sampled_from((True, True, False)), ok=st.sampled_from((True, True, False)))
    @precondition(lambda self: self.world.life.remembers)
    def remember(self, pick: int, *, written: bool, ok: bool) -> None:
        self.world.answer_remember(one_of(self.world.life.remembers, pick), written=written, ok=ok)

    @rule(seconds=st.sampled_from((0.0, 0.1, 0.5, 5.0, 40.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(steps=st.integers(1, 30), outcome=st.sampled_from((Returned(None), RAISED, RAISED)))
    def go_on(self, steps: int, outcome: Outcome) -> None:
        for _ in range(steps):
            self.world.step_well(outcome)

    @rule(steps=st.integers(1, 60), seed=st.integers(0, 2**32))
    def stumble_on(self, steps: int, seed: int) -> None:
        """Do much of the above, one thing after the other as it comes."""
        chance = Random(seed)
        for _ in range(steps):
            self.world.stumble(chance)

    # --- what happens now and then

    @rule(pick=indexes, taken=st.booleans())
    @precondition(lambda self: self.world.life.receives)
    def receive_fails(self, pick: int, *, taken: bool) -> None:
        poll = one_of(self.world.life.receives, pick)
        receive = self.world.life.receives.pop(poll)
        if taken:
            self.world.page(self.world.receivable()[: receive.limit])
        self.world.feed(f.ReceiveFailed(poll, "away"))

    @rule(pick=indexes)
    @precondition(lambda self: not self.world.fifo and self.world.queue)
    def deliver_twice(self, pick: int) -> None:
        self.world.expose(self.world.queue[pick % len(self.world.queue)])

    @rule(pick=indexes, elsewhere=st.booleans())
    @precondition(lambda self: self.world.stored)
    def replay(self, pick: int, *, elsewhere: bool) -> None:
        waiting = [failure_id for failure_id in self.world.stored if failure_id not in self.world.life.replaying]
        if waiting and not self.world.life.finished:
            self.world.replay(waiting[pick % len(waiting)], elsewhere=elsewhere)

    @rule(
        trouble=st.sampled_from(("crash", "hold", "drain", "clock", "lease")),
        seconds=st.sampled_from((0.5, 30.0)),
        back=st.booleans(),
    )
    def trouble(self, trouble: str, seconds: float, *, back: bool) -> None:
        world = self.world
        if world.life.draining or trouble == "crash":
            world.crash()
        elif trouble == "hold":
            world.life.held = not world.life.held
            world.feed(f.Held("too many undelivered failures") if world.life.held else f.Unheld())
        elif trouble == "drain":
            world.drain(seconds)
        elif trouble == "clock":
            world.wall_offset_s += -120 * seconds if back else 120 * seconds
        else:
            world.lease_s = 2.0 if back else 20 * seconds


def one_of(pending: Mapping[T, object], pick: int) -> T:
    return list(pending)[pick % len(pending)]


def outcomes(flight: Flight) -> st.SearchStrategy[Outcome]:
    positions = flight.batch.positions()
    names = st.lists(st.sampled_from((*positions, -5, None)), max_size=3) | st.lists(
        st.sampled_from(positions), min_size=1, max_size=3, unique=True
    )
    reports = names.map(lambda named: Returned({"batchItemFailures": [{"itemIdentifier": name} for name in named]}))
    choices: list[st.SearchStrategy[Outcome]] = [
        st.just(Returned(None)),
        reports,
        st.just(Returned({"batchItemFailures": [{}]})),
        st.just(RAISED),
        st.builds(Refused, st.just(ERROR), st.booleans()),
        st.just(TooLarge(7_000_000)),
    ]
    if flight.cancel is not None:
        choices.append(st.just(Cancelled()))
    return st.one_of(choices)


TestQueueEngine = QueueEngineMachine.TestCase
TestQueueEngine.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@given(count=st.integers(1, 25), data=st.data())
def test_poison_is_bounded(count: int, data: st.DataObject) -> None:
    """n messages with k bad ones cost at most 1 + 2k*ceil(log2 n) invocations until each bad one stands alone."""
    mapping = EventSourceMapping(
        "mapping", "function", QUEUE_RULES, batch_size=count, window_s=1.0, maximum_retry_attempts=0, bisect=True
    )
    world = World(mapping, 1, lease_s=600.0, maximum_receives=None)
    for _ in range(count):
        world.send(None, 1, 0, kept=True, unfit=False)
    numbers = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    bad = {world.queue[number].position for number in numbers}
    invocations = 0
    while world.queue:
        for batch_id, flight in list(world.life.flights.items()):
            invocations += 1
            world.end(batch_id, RAISED if bad.intersection(flight.batch.positions()) else Returned(None))
        if not world.life.flights:
            world.step_well()
    assert invocations <= 1 + 2 * len(bad) * ceil(log2(count))
    assert {row.position for stored in world.stored.values() for row in stored.rows} == bad
