"""Random lives of an engine with tumbling windows: every record is counted once, in its window, whatever happens."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from router.core import facts as f
from router.core.model import (
    STREAM_RULES,
    Cancelled,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Refused,
    Returned,
    TooLarge,
)
from tests.machines.window_world import Flight, World

ERROR = FunctionError("Boom", "boom")
RAISED = Failed(FailureKind.RAISED, ERROR)

mappings = st.builds(
    EventSourceMapping,
    st.just("mapping"),
    st.just("function"),
    st.just(STREAM_RULES),
    batch_size=st.sampled_from((1, 2, 3, 7)),
    window_s=st.sampled_from((0.0, 0.0, 5.0)),
    batch_bytes=st.sampled_from((60, 100_000)),
    maximum_retry_attempts=st.sampled_from((0, 1, 3, None)),
    maximum_record_age_s=st.sampled_from((None, None, 60.0, 300.0)),
    bisect=st.booleans(),
    report_item_failures=st.booleans(),
    commit_interval_s=st.sampled_from((0.0, 1.0)),
    buffer_count=st.sampled_from((None, 1, 6)),
    tumbling_window_s=st.sampled_from((1, 10, 60)),
)
#: Gap before it, age on arrival in seconds.
records = st.tuples(st.sampled_from((1, 1, 2)), st.sampled_from((0, 0, 0, 0.5, 3, 15, 200)))
indexes = st.integers(0, 1_000_000)


class WindowMachine(RuleBasedStateMachine):
    world: World

    @initialize(mapping=mappings, seed=st.integers(0, 2**32))
    def begin(self, mapping: EventSourceMapping, seed: int) -> None:
        self.world = World(mapping, seed)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            self.world.check_settled()

    @rule(batch=st.lists(records, min_size=1, max_size=8))
    def append(self, batch: list[tuple[int, float]]) -> None:
        for gap, age_s in () if self.world.ended else batch:
            self.world.append(gap, age_s)

    @rule(chance=st.integers(0, 9))
    def end_of_shard(self, chance: int) -> None:
        self.world.ended = self.world.ended or not chance

    @rule(share=st.sampled_from((0.1, 0.5, 1.0)))
    @precondition(lambda self: self.world.life.read)
    def read(self, share: float) -> None:
        self.world.answer_read(share)

    @rule()
    @precondition(lambda self: self.world.life.read)
    def read_fails(self) -> None:
        self.world.life.read = None
        self.world.feed(f.ReadFailed("s", "away"))

    @rule(data=st.data())
    @precondition(lambda self: self.world.life.flight)
    def end_invocation(self, data: st.DataObject) -> None:
        flight = self.world.life.flight
        assert flight
        self.world.end(data.draw(outcomes(self.world, flight)))

    @rule(stored=st.sampled_from((True, True, False)))
    @precondition(lambda self: self.world.life.keeps)
    def keep(self, *, stored: bool) -> None:
        self.world.answer_keep(stored=stored)

    @rule(ok=st.sampled_from((True, True, True, False)), remembered=st.booleans())
    @precondition(lambda self: self.world.life.commit)
    def commit(self, *, ok: bool, remembered: bool) -> None:
        self.world.answer_commit(remembered=ok or remembered, ok=ok)

    @rule(pick=indexes)
    @precondition(lambda self: self.world.stored and not self.world.life.draining)
    def replay(self, pick: int) -> None:
        waiting = [each for each in self.world.stored if each not in self.world.life.replaying]
        if waiting:
            self.world.replay(waiting[pick % len(waiting)])

    @rule(seconds=st.sampled_from((0.0, 0.1, 0.5, 5.0, 40.0, 200.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(steps=st.integers(1, 12))
    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step_well()

    @rule(steps=st.integers(1, 60))
    def stumble_on(self, steps: int) -> None:
        for _ in range(steps):
            self.world.stumble(RAISED)

    @rule()
    @precondition(lambda self: not self.world.life.draining)
    def hold(self) -> None:
        life = self.world.life
        life.held = not life.held
        self.world.feed(f.Held("too many undelivered failures") if life.held else f.Unheld())

    @rule(within_s=st.sampled_from((0.5, 30.0)))
    @precondition(lambda self: not self.world.life.draining)
    def drain(self, within_s: float) -> None:
        self.world.life.draining = True
        self.world.feed(f.DrainRequested(within_s))

    @rule()
    def crash(self) -> None:
        self.world.crash()


def outcomes(world: World, flight: Flight) -> st.SearchStrategy[Outcome]:
    batch = flight.batch
    good = world.reply(batch)
    choices: list[st.SearchStrategy[Outcome]] = [
        st.just(good),
        st.just(good),
        st.just(RAISED),
        st.sampled_from((Returned(None), Returned({}), Returned({"state": []}))),
        st.just(Refused(ERROR)),
        st.just(TooLarge(7_000_000)),
    ]
    if batch.count:
        choices.append(st.just(world.reply(batch, large=True)))
    if batch.count and world.mapping.report_item_failures:
        reports = st.builds(world.reply, st.just(batch), large=st.booleans(), failed=st.integers(0, batch.count - 1))
        choices.append(reports)
    if flight.cancel is not None:
        choices.append(st.just(Cancelled()))
    return st.one_of(choices)


TestWindows = WindowMachine.TestCase
TestWindows.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
