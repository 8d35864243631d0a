"""One mapping over all its restarts, and how it is.

It opens its source, runs it, and after an error waits and tries again. What the outside does (a broker away, a missing
topic) is tried for ever; a bug is restarted a few times and then stays down, visibly. It ends when it is told to leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from router.core import facts as f
from router.core.describe import Repeat, ShardStatus
from router.core.lane import backoff_s
from router.core.model import OUTAGE_BACKOFF, Batch, EventSourceMapping
from router.errors import DecisionNeeded, InUse, RouterError, StoreUnavailable
from router.failures.deliveries import Deliveries
from router.failures.record import iso_ms
from router.failures.shown import shown_position
from router.identity import confirm, take_over
from router.ports import Invoker, Places, Source, Store, WallClock
from router.runner import Engine, KeepFailed, Passes, ReplayListener, Runner, SourceSide
from router.telemetry import Log, MappingMetrics

#: A mapping that crashes more often than this within CRASH_SPAN_S stays down.
CRASH_BUDGET = 5
CRASH_SPAN_S = 600.0
#: A run that lasted this long was well: the wait after it is a first one again.
HEALTHY_S = 60.0
#: What closing a source may take; what it still holds then ends with the process.
CLOSE_S = 15.0
#: What a drain may take beyond its bound, for killed workers and the last commit.
DRAIN_GRACE_S = 15.0
#: Key of the store under which it is written since when a mapping is paused, wall time in seconds.
PAUSED = "paused"


class Plug(Protocol):
    """Makes the engine for one kind of source, and the source side of its runs."""

    async def __call__(
        self,
        source: Any,
        mapping: EventSourceMapping,
        rng: Random,
        *,
        store: Store,
        passes: Passes | None,
        metrics: MappingMetrics,
    ) -> tuple[Engine, SourceSide]:
        """Plug an open source in. Raises StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class MappingParts:
    """What one mapping is made of."""

    mapping: EventSourceMapping
    enabled: bool
    #: For people: "kafka:orders".
    source_name: str
    make_source: Callable[[], Source]
    plug: Plug
    invoker: Invoker
    passes: Passes | None
    keep: KeepFailed
    #: Its failures on their way; None = it has no destination.
    deliveries: Deliveries | None = None
    #: The name that the mapping had before.
    renamed_from: str | None = None
    #: Makes what knows where it is in its stream, over a store; None = it reads a queue.
    make_places: Callable[[Store], Places] | None = None
    #: Was it made through the API?
    is_made: bool = False


@dataclass(frozen=True, slots=True)
class MappingHealth:
    """How a mapping is: a state of the contract, and why it does not move."""

    state: str
    #: Code and sentence; None = it moves, or has nothing to do.
    reason: tuple[str, str] | None


class Others(Protocol):
    """The other replicas that may run a mapping."""

    async def begin(self, life: MappingLife) -> None:
        """Look before it runs first whether it must rest. Raises StoreUnavailable."""
        ...

    async def may_inherit(self, former: str) -> None:
        """Make sure that nobody runs a mapping of this name any more.

        Raises:
            InUse, StoreUnavailable
        """
        ...


class MappingLife:
    """One mapping over all its restarts."""

    def __init__(
        self,
        parts: MappingParts,
        *,
        store: Store,
        replays: ReplayListener,
        metrics: MappingMetrics,
        log: Log,
        wall: WallClock,
        rng: Random,
    ) -> None:
        self.parts = parts
        self.name = parts.mapping.name
        self.metrics = metrics
        self._store = store
        self._replays = replays
        self.log = log.bind(mapping=self.name)
        self._wall = wall
        self._rng = rng
        #: Set when it is told to leave.
        self.leaving = asyncio.Event()
        #: Set when another life has its name, or none.
        self.gone = asyncio.Event()
        self._leave_by_s = 0.0
        self._why_leaving = ""
        self._comes_back = False
        #: Set when a run must end: to leave, or to pause.
        self._stopping = asyncio.Event()
        #: Set when it is told to end sooner than it was told before.
        self._sooner = asyncio.Event()
        #: Wall time since which it is paused; None = it is not. And whether what the store says of that is known.
        self._paused_s: float | None = None
        self._is_pause_known = False
        self._resumed = asyncio.Event()
        #: Set while nobody changes where it goes on.
        self.untouched = asyncio.Event()
        self.untouched.set()
        #: Set while nothing of it runs, and nothing will before it is resumed, or left alone again.
        self.resting = asyncio.Event()
        #: What the last run has left uncommitted, or not deleted.
        self._left: Sequence[Repeat] = ()
        self._held: str | None = None
        self._crashes: deque[float] = deque(maxlen=CRASH_BUDGET)
        #: The run that is going on; None between two.
        self.runner: Runner | None = None
        self._failed = False
        #: Does it wait for somebody's decision?
        self.is_undecided = False
        self._decided = asyncio.Event()
        self._trouble: tuple[str, str] | None = None
        self._ended = not parts.enabled
        #: Set while a runner runs.
        self.running = asyncio.Event()
        #: The replicas that run it too; None = there are none.
        self.others: Others | None = None

    # --- what happens to it

    async def run(self) -> None:
        """Keep the mapping running until it has left, or stays down."""
        attempt = 0
        while self.parts.enabled and not self.leaving.is_set() and not self._failed:
            began_s = _mono_s()
            self._decided.clear()  # what is decided from now on may be too late for this attempt
            try:
                # In this order: of one whose texts are gone it cannot be read whether it is paused.
                if not self.untouched.is_set() or await self._is_paused():
                    await self._rest()
                    attempt = 0
                else:
                    await self._run_once()
            except StoreUnavailable as error:
                attempt = self._wait_for_better("StateUnavailable", str(error), attempt)
            except DecisionNeeded as decision:
                await self._await(decision, self._stopping)
                attempt = 0
            except RouterError as error:
                attempt = self._wait_for_better("SourceUnavailable", str(error), attempt)
            except ExceptionGroup as group:
                attempt = await self._after(group, attempt)
            except Exception as bug:  # noqa: BLE001 - a bug in one mapping must not stop the others
                self._crashed(bug)
                attempt = self._wait_for_better("Crashed", str(bug), attempt)
            if _mono_s() - began_s > HEALTHY_S:
                attempt = min(attempt, 1)
            await self._back_off(attempt, self._stopping)
        self._ended = True
        self.resting.set()

    async def _after(self, group: ExceptionGroup[Exception], attempt: int) -> int:
        """Take what ended a run; gives the number of attempts that did not come to one, this one counted."""
        expected, bugs = group.split(RouterError)
        decision = None if bugs else _decision(group)
        if decision:
            await self._await(decision, self._stopping)
            return attempt
        if bugs:
            self._crashed(bugs)
        code = "Crashed" if bugs else "SourceUnavailable"
        return self._wait_for_better(code, _first_message(bugs or expected or group), attempt)

    async def _is_paused(self) -> bool:
        """Say whether it is paused, perhaps since before this daemon. Raises StoreUnavailable."""
        if not self._is_pause_known:
            if self.others:
                await self.others.begin(self)
            since = (await self._store.states(self.name)).get(PAUSED)
            if since and not self._is_pause_known:
                self.pause(float(since))
            self._is_pause_known = True
        return self._paused_s is not None

    async def _rest(self) -> None:
        """Wait until it may go on, or leaves."""
        self.is_undecided = False
        self.resting.set()
        await self._resumed.wait()
        self.resting.clear()

    async def take_over(self) -> None:
        """Take over what is kept under the name that the mapping had, before anybody looks at what it keeps."""
        attempt = 0
        while self.parts.renamed_from and not self.leaving.is_set():
            self._decided.clear()
            try:
                if self.others:
                    await self.others.may_inherit(self.parts.renamed_from)
                await take_over(self._store, self.name, self.parts.renamed_from, self.log)
            except StoreUnavailable as error:
                attempt = self._wait_for_better("StateUnavailable", str(error), attempt)
            except InUse as error:
                attempt = self._wait_for_better("FormerNameRuns", str(error), attempt)
            except DecisionNeeded as decision:
                await self._await(decision, self.leaving)
            else:
                return
            await self._back_off(attempt, self.leaving)

    async def _run_once(self) -> None:
        source = self.parts.make_source()
        try:
            await source.open()
            await self._note_beginning(source)
            self.runner = await self._new_runner(source)
            self.is_undecided = False
            self._trouble = None
            self.log.write("mapping.started", source=self.parts.source_name, function=self.parts.mapping.function)
            async with asyncio.TaskGroup() as tasks:
                run = tasks.create_task(self.runner.run())
                self.running.set()
                stop = tasks.create_task(self._drain_when_asked(self.runner, run))
                await asyncio.wait([run])
                stop.cancel()
            self.log.write("mapping.drained")
        finally:
            self.running.clear()
            self._left = () if self.runner is None else self.runner.repeats()
            self.runner = None
            await self._close(source)

    async def _close(self, source: Source) -> None:
        """Close a source; one that does not come to an end must hold up neither what follows nor a stop."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await source.close()
        except TimeoutError:
            self.log.write("source.not_closed", source=self.parts.source_name, within_s=CLOSE_S)

    async def _note_beginning(self, source: Source) -> None:
        """Tell when a source that we have read before has forgotten where we were, and when it is read slowly."""
        if await confirm(self._store, self.name, source.identity) and source.pinned:
            self.log.write("position.expired", source=source.identity)
        self.metrics.slowed.set(source.handicap is not None)
        if source.handicap is not None:
            self.log.write("source.slowed", source=self.parts.source_name, reason=source.handicap)

    async def _new_runner(self, source: Source) -> Runner:
        parts = self.parts
        rng = Random(self._rng.getrandbits(64))  # noqa: S311 - jitter and request ids
        engine, side = await parts.plug(
            source, parts.mapping, rng, store=self._store, passes=parts.passes, metrics=self.metrics
        )
        return Runner(
            parts.mapping,
            engine,
            side,
            parts.invoker,
            keep=parts.keep,
            replays=self._replays,
            metrics=self.metrics,
            log=self.log,
            wall=self._wall,
        )

    async def _drain_when_asked(self, runner: Runner, run: asyncio.Task[None]) -> None:
        if self._held:
            runner.post(f.Held(self._held))
        await self._stopping.wait()
        with contextlib.suppress(TimeoutError):
            while True:
                self._sooner.clear()
                left_s = max(0.0, self._leave_by_s - _mono_s())
                runner.post(f.DrainRequested(left_s))
                async with asyncio.timeout(left_s + DRAIN_GRACE_S):
                    await self._sooner.wait()
        run.cancel()

    async def _await(self, decision: DecisionNeeded, until: asyncio.Event) -> None:
        """Wait until somebody has decided, or for the event."""
        self._trouble = (decision.code, str(decision))
        self.log.write("mapping.refused", reason=decision.code, error=str(decision))
        self.is_undecided = True
        waits = [asyncio.ensure_future(each.wait()) for each in (self._decided, until)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        # What is gone stays so until it is seen to be decided: others may ask for that now.
        self.is_undecided = decision.code == "StateGone" and not until.is_set()

    def _wait_for_better(self, code: str, message: str, attempt: int) -> int:
        self._trouble = (code, message)
        self.is_undecided = False
        if not self._failed:
            self.log.write("mapping.waiting", reason=code, error=message)
        return attempt + 1

    def _crashed(self, bug: BaseException) -> None:
        self.log.write("mapping.crashed", error=str(bug), trace="".join(traceback.format_exception(bug)))
        now_s = _mono_s()
        self._failed = len(self._crashes) == CRASH_BUDGET and now_s - self._crashes[0] < CRASH_SPAN_S
        self._crashes.append(now_s)
        if self._failed:
            self.log.write("mapping.failed", error=str(bug))

    async def _back_off(self, attempt: int, until: asyncio.Event) -> None:
        """Wait longer the more attempts there were, but no longer than for the event."""
        if attempt and not self._failed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s(OUTAGE_BACKOFF, attempt - 1, self._rng)):
                    await until.wait()

    # --- what it is told

    def drain(self, within_s: float, why: str = "The mapping is shutting down.", *, comes_back: bool = False) -> None:
        """Leave: in-flight work may take this long, counted from now; told again, the earlier end holds.

        With `comes_back`, what is given out among readers by name is kept for us for a while.
        """
        if not self.leaving.is_set():
            self._why_leaving = why
            self._comes_back = comes_back
            self.leaving.set()
            self._resumed.set()
        self._stop_by(_mono_s() + within_s)

    def _stop_by(self, by_s: float) -> None:
        if not self._stopping.is_set():
            self._leave_by_s = by_s
            self._stopping.set()
        elif by_s < self._leave_by_s:
            self._leave_by_s = by_s
            self._sooner.set()

    def decide(self) -> None:
        """Try again, because somebody has decided something."""
        self._decided.set()

    def pause(self, since_s: float) -> None:
        """End what runs as a drain does, within its own bounds, and start nothing until it is resumed.

        Args:
            since_s: Wall time since which it is paused; the store has it already.
        """
        self._is_pause_known = True
        if self._paused_s is None:
            self._paused_s = since_s
            self.log.write("mapping.paused", since=iso_ms(since_s))
            self._come_to_rest()

    def resume(self) -> None:
        """Go on after a pause; what is still ending from before ends first."""
        self._is_pause_known = True
        if self._paused_s is not None:
            self._paused_s = None
            self.log.write("mapping.resumed")
            self._go_on()

    @contextlib.asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Keep it at rest, as a pause would, while where it goes on is changed; nothing of that is written.

        Raises:
            InUse: somebody else changes it, or what runs does not come to an end.
        """
        if not self.untouched.is_set():
            raise InUse(f"where mapping {self.name} goes on is being changed already: look at it, then do it again")
        self.untouched.clear()
        self._come_to_rest()
        try:
            within_s = self.parts.mapping.drain_s + DRAIN_GRACE_S + CLOSE_S
            try:
                async with asyncio.timeout(within_s):
                    await self.resting.wait()
            except TimeoutError:
                raise InUse(
                    f"mapping {self.name} did not come to rest within {within_s:.0f} s and is where it was; "
                    f"`headrace mapping drain {self.name}` says what runs"
                ) from None
            yield
        finally:
            self.untouched.set()
            self._go_on()

    def _come_to_rest(self) -> None:
        if not self.leaving.is_set():
            self._resumed.clear()
        self._stop_by(_mono_s() + self.parts.mapping.drain_s)

    def _go_on(self) -> None:
        if self._paused_s is None and self.untouched.is_set():
            self._resumed.set()
            if not self.leaving.is_set():
                self._stopping.clear()

    def hold(self, reason: str | None) -> None:
        """Start nothing new, for this reason; None = go on."""
        if reason == self._held:
            return
        self._held = reason
        self.log.write("mapping.held" if reason else "mapping.resumed", reason=reason)
        if self.runner:
            self.runner.post(f.Held(reason) if reason else f.Unheld())

    # --- how it is

    @property
    def is_down(self) -> bool:
        """Is it disabled, does it wait for a decision, or broke so often that it is not started again?"""
        return self._failed or self.is_undecided or not self.parts.enabled

    @property
    def is_paused(self) -> bool:
        return self._paused_s is not None

    @property
    def leaves_place(self) -> bool:
        """Does it come to rest, or leave, without being expected back at once?"""
        return self._stopping.is_set() and not self._comes_back

    @property
    def known(self) -> bool:
        """Has it opened its source, or said why it cannot or will not?"""
        return self.runner is not None or self._trouble is not None or self._ended or self.is_paused

    def in_flight(self) -> Sequence[tuple[Batch, float]]:
        """Give the batches that are with the function, and how long each has been, seconds."""
        return self.runner.in_flight() if self.runner else ()

    def repeats(self) -> Sequence[Repeat]:
        """Say what the function would see again if the daemon were killed now, or as the last run ended."""
        return self.runner.repeats() if self.runner else self._left

    def position(self, checkpoint: int) -> int | str | None:
        """Give a position as people and their tools know it; None = before the first."""
        return self.runner.position(checkpoint) if self.runner else shown_position(checkpoint)

    def shards(self) -> Sequence[ShardStatus]:
        return self.runner.shards() if self.runner else []

    def health(self) -> MappingHealth:
        """Say how the mapping is, in the words of the contract."""
        if not self.parts.enabled:
            return MappingHealth("stopped", ("Disabled", "The mapping has `enabled: false`."))
        if self._failed or self.is_undecided:
            return MappingHealth("failed", self._trouble)
        if self.leaving.is_set():
            ended = MappingHealth("stopped", None)
            return ended if self._ended else MappingHealth("draining", ("Draining", self._why_leaving))
        if self._paused_s is not None or not self.untouched.is_set():
            return self._resting_health()
        if self.runner is None:
            return MappingHealth("starting", self._trouble)
        return self._running_health(self.runner)

    def _resting_health(self) -> MappingHealth:
        if self._paused_s is None or not self.untouched.is_set():
            return MappingHealth("draining", ("Moving", "Where it goes on is being changed; what is in flight ends."))
        ending = " What is in flight ends." if self.runner else ""
        sentence = f"Paused since {iso_ms(self._paused_s)}; `headrace mapping resume {self.name}` goes on.{ending}"
        return MappingHealth("paused", ("Paused", sentence))

    def _running_health(self, runner: Runner) -> MappingHealth:
        stuck = runner.why_stuck()
        if stuck:
            holding = stuck[0] in ("FailureBacklogFull", "FailureStoreUnavailable")
            return MappingHealth("holding" if holding else "retrying", stuck)
        shards = runner.shards()
        worst = max(shards, key=lambda shard: (shard.attempts, shard.refusals), default=None)
        where = "" if worst is None or worst.checkpoint < 0 else f" behind {runner.position(worst.checkpoint)}"
        if worst and worst.attempts:
            sentence = f"{worst.shard}{where}: attempt {worst.attempts} failed: {worst.last_error}"
            return MappingHealth("retrying", ("FunctionFailing", sentence))
        if worst and worst.refusals:
            sentence = f"{worst.shard}{where}: the function cannot start: {worst.last_error}"
            return MappingHealth("retrying", ("FunctionUnavailable", sentence))
        busy = any(shard.in_flight or shard.oldest_ms is not None for shard in shards)
        return MappingHealth("running" if busy else "idle", None)


def paused(mapping: str) -> str:
    """Say why a mapping that is paused runs nothing."""
    return f"its mapping {mapping} is paused: `headrace mapping resume {mapping}` first"


def _decision(group: BaseExceptionGroup[BaseException]) -> DecisionNeeded | None:
    for error in group.exceptions:
        found = _decision(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, DecisionNeeded):
            return found
    return None


def _first_message(group: BaseExceptionGroup[BaseException]) -> str:
    error = group.exceptions[0]
    return _first_message(error) if isinstance(error, BaseExceptionGroup) else str(error)


def _mono_s() -> float:
    return asyncio.get_running_loop().time()
