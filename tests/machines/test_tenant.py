"""Random lives of a fleet: no lease is ever two replicas' at one time, and in the end each is somebody's."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from router.core import fleet as f
from tests.machines.tenant_world import KEYS, LEASE_S, Process, World

NAMES = ("a", "b", "c", "d")
indexes = st.integers(0, 1_000_000)
mappings = st.sampled_from(({"m", "n"}, {"m", "n"}, {"m", "n"}, {"m"}, {"n"}))
waits = st.sampled_from((0.0, 0.01, 0.5, 1.0, 1.0, 3.0, LEASE_S - 2.5, LEASE_S - 1, LEASE_S, LEASE_S + 1, 60.0))


class FleetMachine(RuleBasedStateMachine):
    world: World

    @initialize(seed=st.integers(0, 2**32), count=st.integers(1, 3))
    def begin(self, seed: int, count: int) -> None:
        self.world = World(seed)
        for name in NAMES[:count]:
            self.world.start(name, {"m", "n"}, 0.0)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle(13)
            self.world.check_settled()
            takes = self.world.table.takes
            self.world.settle(5)
            self.world.check_settled()
            assert self.world.table.takes == takes, "nothing moves when nothing changes"

    def pick(self, index: int, *, awake: bool = True) -> Process | None:
        processes = [each for _, each in sorted(self.world.processes.items()) if not (awake and each.is_stopped)]
        return processes[index % len(processes)] if processes else None

    # --- the table

    @rule(index=indexes)
    def arrives(self, index: int) -> None:
        flying = [each for each in self.world.processes.values() if each.flight and not each.flight.heard]
        if flying and not flying[index % len(flying)].is_cut:
            self.world.arrive(flying[index % len(flying)])

    @rule(index=indexes)
    def answered(self, index: int) -> None:
        process = self.pick(index)
        if process and process.flight and (process.flight.heard or process.is_cut):
            self.world.answer(process, is_lost=process.is_cut)

    @rule(index=indexes)
    def answer_lost(self, index: int) -> None:
        process = self.pick(index)
        if process and process.flight:
            self.world.answer(process, is_lost=True)

    @rule(count=st.integers(1, 12), seconds=st.sampled_from((0.02, 0.5, 1.0)))
    def all_talk(self, count: int, seconds: float) -> None:
        """Some turns without trouble for who is not in any."""
        for _ in range(count):
            for _, process in sorted(self.world.processes.items()):
                if process.flight and not process.is_stopped:
                    if not process.is_cut and process.flight.heard is None:
                        self.world.arrive(process)
                    self.world.answer(process, is_lost=process.is_cut)
            self.world.pass_time(seconds)

    @rule(index=indexes)
    def nudged(self, index: int) -> None:
        if process := self.pick(index):
            self.world.feed(process, f.Nudged())

    @rule()
    def steered(self) -> None:
        self.world.table.steered += 1

    # --- time and trouble

    @rule(seconds=waits)
    def time_goes_by(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(index=indexes)
    def stopped(self, index: int) -> None:
        if process := self.pick(index):
            process.is_stopped = True

    @rule(index=indexes)
    @precondition(lambda self: any(each.is_stopped for each in self.world.processes.values()))
    def goes_on(self, index: int) -> None:
        process = self.pick(index, awake=False)
        if process and process.is_stopped:
            self.world.resume(process)

    @rule(index=indexes, is_cut=st.booleans())
    def cut(self, index: int, *, is_cut: bool) -> None:
        if process := self.pick(index, awake=False):
            process.is_cut = is_cut

    @rule(index=indexes)
    def crashes(self, index: int) -> None:
        if process := self.pick(index, awake=False):
            self.world.crash(process)

    @rule(name=st.sampled_from(NAMES), runs=mappings, ahead_s=st.sampled_from((0.0, 1000.0, -30.0)))
    def starts(self, name: str, runs: set[str], ahead_s: float) -> None:
        if name not in self.world.processes:
            self.world.start(name, runs, ahead_s)

    @rule(index=indexes)
    def leaves(self, index: int) -> None:
        process = self.pick(index)
        if process and not process.is_leaving:
            self.world.leave(process)

    @rule(index=indexes)
    def goes(self, index: int) -> None:
        process = self.pick(index)
        if process and process.is_leaving and not process.running:
            self.world.crash(process)
            self.world.table.leave(process.name, process.incarnation)
            self.world.check()

    # --- what works by the leases

    @rule(index=indexes, which=indexes, finished=st.sampled_from((False, False, False, True)))
    def releases(self, index: int, which: int, *, finished: bool) -> None:
        process = self.pick(index)
        if process and process.running:
            keys = sorted(process.revoked or process.running)
            self.world.release(process, keys[which % len(keys)], finished=finished)

    @rule(index=indexes, key=st.sampled_from(KEYS))
    def wishes(self, index: int, key: f.LeaseKey) -> None:
        if process := self.pick(index):
            self.world.wish(process, key)

    @rule(index=indexes, which=indexes)
    def unwishes(self, index: int, which: int) -> None:
        process = self.pick(index)
        if process and process.wished:
            self.world.unwish(process, sorted(process.wished)[which % len(process.wished)])

    @rule(index=indexes, key=st.sampled_from(KEYS), load=st.sampled_from((0.0, 0.01, 0.5, 1.0, 4.0)))
    def costs(self, index: int, key: f.LeaseKey, load: float) -> None:
        if process := self.pick(index):
            self.world.feed(process, f.Measured({key: load}))

    @rule(index=indexes)
    def forgets(self, index: int) -> None:
        if process := self.pick(index):
            self.world.feed(process, f.Forgotten(sorted(self.world.finished)))


FleetMachine.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestFleet = FleetMachine.TestCase
