"""Random lives of a stream engine: whatever happens in whatever order, what the mapping promises holds."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from router.core import facts as f
from router.core.model import (
    KAFKA_RULES,
    STREAM_RULES,
    Cancelled,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Pace,
    Refused,
    Returned,
    TooLarge,
)
from router.core.shard import Phase
from tests.machines.stream_world import Flight, Row, World

ERROR = FunctionError("Boom", "boom")
RAISED = Failed(FailureKind.RAISED, ERROR)
SHARDS = ("a", "b", "c")

mappings = st.builds(
    EventSourceMapping,
    st.just("mapping"),
    st.just("function"),
    st.sampled_from((KAFKA_RULES, STREAM_RULES)),
    batch_size=st.sampled_from((1, 2, 3, 7)),
    window_s=st.sampled_from((0.0, 0.0, 0.5, 5.0)),
    batch_bytes=st.sampled_from((60, 200, 100_000)),
    parallelization_factor=st.integers(1, 4),
    maximum_retry_attempts=st.sampled_from((0, 1, 3, None)),
    maximum_record_age_s=st.sampled_from((None, None, 5.0, 60.0)),
    bisect=st.booleans(),
    report_item_failures=st.booleans(),
    init_errors_count=st.booleans(),
    drain_s=st.sampled_from((1.0, 30.0)),
    commit_interval_s=st.sampled_from((0.0, 1.0)),
    buffer_count=st.sampled_from((None, 1, 6, 20)),
    buffer_bytes=st.sampled_from((300, 100_000)),
    memory_bytes=st.sampled_from((200, 100_000)),
    pace=st.sampled_from((Pace(), Pace(idle_s=1.0, busy_s=0.2))),
)
#: Gap before it, key, size, age on arrival in seconds, kept by the filter.
records = st.tuples(
    st.sampled_from((1, 1, 1, 2, 5)),
    st.sampled_from((None, b"k1", b"k2", b"k3", b"k4", b"k5")),
    st.sampled_from((1, 20, 50, 80)),
    st.sampled_from((0, 0, 0, 4, 100)),
    st.sampled_from((True, True, True, False)),
)
indexes = st.integers(0, 1_000_000)


class StreamEngineMachine(RuleBasedStateMachine):
    world: World

    @initialize(mapping=mappings, shared=st.booleans(), seed=st.integers(0, 2**32))
    def begin(self, mapping: EventSourceMapping, *, shared: bool, seed: int) -> None:
        self.world = World(mapping, {shard: "all" if shared else shard for shard in SHARDS}, seed)
        self.world.open("a")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            self.world.check_settled()

    # --- the source

    @rule(shard=st.sampled_from(SHARDS), batch=st.lists(records, min_size=1, max_size=12), tail=st.integers(0, 2))
    def append(self, shard: str, batch: list[Any], tail: int) -> None:
        log = self.world.logs[shard]
        if log.closed:
            return
        for gap, key, size, age_s, kept in batch:
            log.end += gap
            log.rows.append(Row(log.end, key, size, self.world.wall_ms - age_s * 1000, kept))
        log.end += 0 if self.world.found else tail

    @rule(shard=st.sampled_from(SHARDS))
    @precondition(lambda self: self.world.found)
    def close(self, shard: str) -> None:
        self.world.logs[shard].closed = True

    @rule()
    @precondition(lambda self: self.world.listing)
    def list_shards(self) -> None:
        self.world.answer_listing()

    @rule()
    @precondition(lambda self: self.world.listing)
    def listing_fails(self) -> None:
        self.world.listing = False
        self.world.feed(f.ListFailed("away"))

    @rule(pick=indexes)
    def open_shard(self, pick: int) -> None:
        away = [shard for shard, log in self.world.logs.items() if not (log.assigned or log.over)]
        if away:
            self.world.open(away[pick % len(away)])

    @rule(pick=indexes)
    def revoke(self, pick: int) -> None:
        ours = [shard for shard, log in self.world.logs.items() if log.assigned]
        if ours:
            shard = ours[pick % len(ours)]
            self.world.logs[shard].revoking = True
            self.world.feed(f.ShardRevoking(shard))

    @rule(pick=indexes, comes_back=st.booleans())
    def lose(self, pick: int, *, comes_back: bool) -> None:
        ours = [shard for shard, log in self.world.logs.items() if log.assigned]
        if ours:
            shard = ours[pick % len(ours)]
            self.world.unassign(shard)
            self.world.feed(f.ShardLost(shard))
            if comes_back and not self.world.draining:
                self.world.open(shard)

    @rule(pick=indexes)
    @precondition(lambda self: self.world.found)
    def finish_elsewhere(self, pick: int) -> None:
        others = [shard for shard, log in self.world.logs.items() if not (log.assigned or log.over)]
        if others:
            self.world.finish_elsewhere(others[pick % len(others)])

    @rule(latest=st.booleans(), fails=st.booleans())
    @precondition(lambda self: self.world.locates)
    def locate(self, *, latest: bool, fails: bool) -> None:
        shard = next(iter(self.world.locates))
        if fails:
            self.world.locates.pop(shard)
            self.world.feed(f.LocateFailed(shard, "away"))
        else:
            self.world.answer_locate(shard, latest=latest)

    @rule(pick=indexes, share=st.sampled_from((0.1, 0.5, 1.0)))
    @precondition(lambda self: self.world.reads)
    def read(self, pick: int, share: float) -> None:
        units = list(self.world.reads)
        self.world.answer_read(units[pick % len(units)], share)

    @rule(pick=indexes)
    @precondition(lambda self: self.world.reads)
    def read_fails(self, pick: int) -> None:
        units = list(self.world.reads)
        unit = units[pick % len(units)]
        del self.world.reads[unit]
        self.world.feed(f.ReadFailed(unit, "away"))

    @rule(pick=indexes, further=st.integers(0, 6), anew=st.booleans())
    @precondition(lambda self: self.world.reads)
    def position_gone(self, pick: int, further: int, *, anew: bool) -> None:
        unit, demand = list(self.world.reads.items())[pick % len(self.world.reads)]
        shard = list(demand)[pick % len(demand)]
        state = self.world.engine._shards.get(shard)
        if state is None or state.phase is not Phase.OPEN or demand[shard].after != state.read_through:
            return
        if self.world.found and demand[shard].after < 0:
            return
        if anew and not self.world.found and demand[shard].after >= 0:
            self.world.begin_anew(unit, shard)
        else:
            self.world.trim(unit, shard, demand[shard].after + further)

    @rule(pick=indexes)
    @precondition(lambda self: self.world.found and self.world.reads)
    def shard_deleted(self, pick: int) -> None:
        units = [unit for unit in self.world.reads if self.world.logs[unit].closed]
        if units:
            shard = units[pick % len(units)]
            state = self.world.engine._shards.get(shard)
            if state is not None and state.phase is Phase.OPEN:
                self.world.delete(shard, shard)

    # --- the function

    @rule(pick=indexes, data=st.data())
    @precondition(lambda self: self.world.flights)
    def end_invocation(self, pick: int, data: st.DataObject) -> None:
        batch_id = list(self.world.flights)[pick % len(self.world.flights)]
        self.world.end(batch_id, data.draw(outcomes(self.world, self.world.flights[batch_id])))

    # --- the store and the committed progress

    @rule(pick=indexes, stored=st.sampled_from((True, True, False)))
    @precondition(lambda self: self.world.keeps)
    def keep(self, pick: int, *, stored: bool) -> None:
        self.world.answer_keep(self.world.keeps[pick % len(self.world.keeps)], stored=stored)

    @rule(ok=st.sampled_from((True, True, True, False)), remembered=st.booleans())
    @precondition(lambda self: self.world.commit is not None)
    def commit(self, *, ok: bool, remembered: bool) -> None:
        self.world.answer_commit(remembered=ok or remembered, ok=ok)

    @rule(pick=indexes)
    @precondition(lambda self: self.world.stored)
    def replay(self, pick: int) -> None:
        waiting = [failure_id for failure_id in self.world.stored if failure_id not in self.world.replaying]
        if waiting:
            self.world.replay(waiting[pick % len(waiting)])

    # --- the daemon and time

    @rule(seconds=st.sampled_from((0.0, 0.1, 0.5, 5.0, 40.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(steps=st.integers(1, 30), outcome=st.sampled_from((Returned(None), Returned(None), RAISED)))
    def go_on(self, steps: int, outcome: Outcome) -> None:
        for _ in range(steps):
            self.world.step_well(outcome)

    @rule()
    def hold(self) -> None:
        self.world.held = not self.world.held
        self.world.feed(f.Held("too many undelivered failures") if self.world.held else f.Unheld())

    @rule(within_s=st.sampled_from((0.5, 30.0)))
    @precondition(lambda self: not self.world.draining)
    def drain(self, within_s: float) -> None:
        self.world.draining = True
        self.world.feed(f.DrainRequested(within_s))

    @rule(come_back=st.booleans(), factor=st.none() | st.integers(1, 4))
    def crash(self, *, come_back: bool, factor: int | None) -> None:
        ours = [shard for shard, log in self.world.logs.items() if log.assigned]
        self.world.crash(factor)
        for shard in ours if come_back else ():
            if not self.world.logs[shard].over:
                self.world.open(shard)


def outcomes(world: World, flight: Flight) -> st.SearchStrategy[Outcome]:
    positions = flight.batch.positions()
    items = st.sampled_from((*positions, -5, None))
    names = st.lists(items, max_size=3) | st.lists(st.sampled_from(positions), min_size=1, max_size=3, unique=True)
    reports = names.map(lambda named: Returned({"batchItemFailures": [{"itemIdentifier": name} for name in named]}))
    choices: list[st.SearchStrategy[Outcome]] = [
        st.just(Returned(None)),
        reports,
        st.just(RAISED),
        st.builds(Refused, st.just(ERROR), st.booleans()),
        st.just(TooLarge(7_000_000)),
    ]
    if flight.cancel is not None:
        choices.append(st.just(Cancelled()))
    return st.one_of(choices)


TestStreamEngine = StreamEngineMachine.TestCase
TestStreamEngine.settings = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
