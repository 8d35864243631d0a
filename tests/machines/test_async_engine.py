"""Random lives of an engine of asynchronous events: nothing is lost, nothing runs twice at once, tries are bounded."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from router.core.async_rules import Standing
from tests.machines.async_world import FAILURE, LATEST, OUTAGE, SUCCESS, THROTTLE, World

indexes = st.integers(0, 1_000_000)
functions = st.sampled_from(("f", "f", "g", "h"))
standings = st.builds(
    Standing,
    st.sampled_from((LATEST, LATEST, "3", None)),
    st.integers(0, 2),
    st.sampled_from((60.0, 150.0, 21_600.0)),
    st.sampled_from((False, False, False, True)),
)


class AsyncMachine(RuleBasedStateMachine):
    world: World

    @initialize(
        seed=indexes,
        rooms=st.fixed_dictionaries({"f": st.integers(1, 3), "g": st.integers(0, 1)}),
        tells=st.sampled_from(((), ("a",), ("a", "b"))),
    )
    def begin(self, seed: int, rooms: dict[str, int], tells: tuple[str, ...]) -> None:
        self.world = World(seed, rooms=rooms, targets=tells)
        self.count = 0

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        if world.is_draining:
            world.crash()
        world.settle()
        for event_id in world.accepted:
            ends = len(world.ended[event_id])
            assert ends == 1 or 1 < ends <= 1 + world.crashes
            for target in world.targets:
                assert world.told[event_id, target] >= 1
                assert world.told[event_id, target] == 1 or world.crashes
        assert not world.payloads, "nothing that is done with is held"

    @rule(function=functions, size=st.sampled_from((0, 10, 1_000_000)), count=st.sampled_from((1, 1, 3, 40)))
    def accepts(self, function: str, size: int, count: int) -> None:
        for _ in range(count):
            self.count += 1
            self.world.accept(f"{self.count:04}", function, size)

    @rule(index=indexes)
    def reads(self, index: int) -> None:
        unread = [each for each in self.world.loads if each.page is None]
        if unread:
            self.world.read(unread[index % len(unread)])

    @rule(index=indexes, works=st.sampled_from((True, True, True, False)))
    def loads(self, index: int, works: bool) -> None:  # noqa: FBT001
        if loads := self.world.loads:
            loading = loads[index % len(loads)]
            (self.world.loaded if works else self.world.load_failed)(loading)

    @rule(index=indexes, answer=st.sampled_from((SUCCESS, FAILURE, FAILURE, THROTTLE, OUTAGE, None)))
    def tries(self, index: int, answer: object) -> None:
        if running := list(self.world.running):
            self.world.tried(running[index % len(running)], answer)  # type: ignore[arg-type]

    @rule(index=indexes, accepted=st.booleans())
    def delivers(self, index: int, accepted: bool) -> None:  # noqa: FBT001
        if telling := list(self.world.telling):
            self.world.delivered(telling[index % len(telling)], accepted=accepted)

    @rule(index=indexes, count=st.integers(1, 5))
    def writes(self, index: int, count: int) -> None:
        for _ in range(count):
            if writes := list(self.world.writes):
                self.world.written(writes[index % len(writes)])

    @rule(index=indexes)
    def commits(self, index: int) -> None:
        if writes := list(self.world.writes):
            self.world.commit(writes[index % len(writes)])

    @rule(seconds=st.sampled_from((0.0, 0.1, 1.0, 5.0, 60.0, 120.0, 3600.0)))
    def waits(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from((-3600.0, -10.0, 10.0)))
    def clock_steps(self, seconds: float) -> None:
        self.world.step_clock(seconds)

    @rule(function=functions, standing=standings)
    def changes(self, function: str, standing: Standing) -> None:
        self.world.standings[function] = standing

    @rule()
    def drains(self) -> None:
        self.world.drain()

    @rule()
    def crashes(self) -> None:
        self.world.crash()


AsyncMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAsyncEngine = AsyncMachine.TestCase
