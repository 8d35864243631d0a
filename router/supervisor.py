"""Starts, restarts and drains all mappings, and knows how each of them is.

One mapping's trouble never stops another's: each has a task of its own that opens its source, runs it, and after an
error waits and tries again. What the outside does (a broker away, a missing topic) is tried for ever; a bug is
restarted a few times and then stays down, visibly.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from router.core import facts as f
from router.core.describe import ShardStatus
from router.core.lane import backoff_s
from router.core.model import OUTAGE_BACKOFF, EventSourceMapping
from router.errors import RouterError, StoreUnavailable
from router.ports import Invoker, PutState, Source, Store, WallClock
from router.runner import Engine, KeepFailed, Passes, ReplayListener, Runner, SourceSide
from router.telemetry import Log, MappingMetrics

#: A mapping that crashes more often than this within CRASH_SPAN_S stays down.
CRASH_BUDGET = 5
CRASH_SPAN_S = 600.0
#: A run that lasted this long was well: the wait after it is a first one again.
HEALTHY_S = 60.0
#: What a drain may take beyond its bound, for killed workers and the last commit.
DRAIN_GRACE_S = 15.0
#: Key of the store under which a mapping notes what it has begun to read.
_BEGUN = "begun"


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


@dataclass(frozen=True, slots=True)
class MappingHealth:
    """How a mapping is: a state of the contract, and why it does not move."""

    state: str
    #: Code and sentence; None = it moves, or has nothing to do.
    reason: tuple[str, str] | None


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
        self._log = log.bind(mapping=self.name)
        self._wall = wall
        self._rng = rng
        self._draining = asyncio.Event()
        self._drain_s = 0.0
        self._held: str | None = None
        self._crashes: deque[float] = deque(maxlen=CRASH_BUDGET)
        #: The run that is going on; None between two.
        self.runner: Runner | None = None
        self._failed = False
        self._trouble: tuple[str, str] | None = None
        self._ended = not parts.enabled
        #: Set while a runner runs.
        self.running = asyncio.Event()

    # --- what happens to it

    async def run(self) -> None:
        """Keep the mapping running until it is drained."""
        attempt = 0
        loop = asyncio.get_running_loop()
        while self.parts.enabled and not self._draining.is_set() and not self._failed:
            began_s = loop.time()
            try:
                await self._run_once()
            except StoreUnavailable as error:
                attempt = self._wait_for_better("StateUnavailable", str(error), attempt)
            except RouterError as error:
                attempt = self._wait_for_better("SourceUnavailable", str(error), attempt)
            except ExceptionGroup as group:
                expected, bugs = group.split(RouterError)
                if bugs:
                    self._crashed(bugs)
                code = "Crashed" if bugs else "SourceUnavailable"
                attempt = self._wait_for_better(code, _first_message(bugs or expected or group), attempt)
            except Exception as bug:  # noqa: BLE001 - a bug in one mapping must not stop the others
                self._crashed(bug)
                attempt = self._wait_for_better("Crashed", str(bug), attempt)
            if loop.time() - began_s > HEALTHY_S:
                attempt = min(attempt, 1)
            await self._pause(attempt)
        self._ended = True

    async def _run_once(self) -> None:
        source = self.parts.make_source()
        try:
            await source.open()
            await self._note_beginning(source)
            self.runner = await self._new_runner(source)
            self._trouble = None
            self._log.write("mapping.started", source=self.parts.source_name, function=self.parts.mapping.function)
            async with asyncio.TaskGroup() as tasks:
                run = tasks.create_task(self.runner.run())
                self.running.set()
                stop = tasks.create_task(self._drain_when_asked(self.runner, run))
                await asyncio.wait([run])
                stop.cancel()
            self._log.write("mapping.drained")
        finally:
            self.running.clear()
            self.runner = None
            await source.close()

    async def _note_beginning(self, source: Source) -> None:
        """Tell when a source that we have read before has forgotten where we were."""
        if (await self._store.states(self.name)).get(_BEGUN) != source.identity:
            await self._store.apply([PutState(self.name, _BEGUN, source.identity)])
        elif source.pinned:
            self._log.write("position.expired", source=source.identity)

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
            log=self._log,
            wall=self._wall,
        )

    async def _drain_when_asked(self, runner: Runner, run: asyncio.Task[None]) -> None:
        if self._held:
            runner.post(f.Held(self._held))
        await self._draining.wait()
        runner.post(f.DrainRequested(self._drain_s))
        await asyncio.wait([run], timeout=self._drain_s + DRAIN_GRACE_S)
        run.cancel()

    def _wait_for_better(self, code: str, message: str, attempt: int) -> int:
        self._trouble = (code, message)
        if not self._failed:
            self._log.write("mapping.waiting", reason=code, error=message)
        return attempt + 1

    def _crashed(self, bug: BaseException) -> None:
        self._log.write("mapping.crashed", error=str(bug), trace="".join(traceback.format_exception(bug)))
        now_s = asyncio.get_running_loop().time()
        self._failed = len(self._crashes) == CRASH_BUDGET and now_s - self._crashes[0] < CRASH_SPAN_S
        self._crashes.append(now_s)
        if self._failed:
            self._log.write("mapping.failed", error=str(bug))

    async def _pause(self, attempt: int) -> None:
        if attempt and not self._failed:
            try:
                await asyncio.wait_for(self._draining.wait(), backoff_s(OUTAGE_BACKOFF, attempt - 1, self._rng))
            except TimeoutError:
                return

    # --- what it is told

    def drain(self, within_s: float) -> None:
        """Stop: in-flight work may take this long."""
        self._drain_s = within_s
        self._draining.set()

    def hold(self, reason: str | None) -> None:
        """Start nothing new, for this reason; None = go on."""
        if reason == self._held:
            return
        self._held = reason
        self._log.write("mapping.held" if reason else "mapping.resumed", reason=reason)
        if self.runner:
            self.runner.post(f.Held(reason) if reason else f.Unheld())

    # --- how it is

    @property
    def is_down(self) -> bool:
        """Is it disabled, or broke so often that it is not started again?"""
        return self._failed or not self.parts.enabled

    @property
    def known(self) -> bool:
        """Has it opened its source, or said why it cannot?"""
        return self.runner is not None or self._trouble is not None or self._ended

    def shards(self) -> Sequence[ShardStatus]:
        return self.runner.shards() if self.runner else []

    def health(self) -> MappingHealth:
        """Say how the mapping is, in the words of the contract."""
        if not self.parts.enabled:
            return MappingHealth("stopped", ("Disabled", "The mapping has `enabled: false`."))
        if self._failed:
            return MappingHealth("failed", self._trouble)
        if self._draining.is_set():
            ended = MappingHealth("stopped", None)
            return ended if self._ended else MappingHealth("draining", ("Draining", "The mapping is shutting down."))
        if self.runner is None:
            return MappingHealth("starting", self._trouble)
        return self._running_health(self.runner)

    def _running_health(self, runner: Runner) -> MappingHealth:
        stuck = runner.why_stuck()
        if stuck:
            holding = stuck[0] in ("FailureBacklogFull", "FailureStoreUnavailable")
            return MappingHealth("holding" if holding else "retrying", stuck)
        shards = runner.shards()
        worst = max(shards, key=lambda shard: (shard.attempts, shard.refusals), default=None)
        where = "" if worst is None or worst.checkpoint < 0 else f" behind {worst.checkpoint}"
        if worst and worst.attempts:
            sentence = f"{worst.shard}{where}: attempt {worst.attempts} failed: {worst.last_error}"
            return MappingHealth("retrying", ("FunctionFailing", sentence))
        if worst and worst.refusals:
            sentence = f"{worst.shard}{where}: the function cannot start: {worst.last_error}"
            return MappingHealth("retrying", ("FunctionUnavailable", sentence))
        busy = any(shard.in_flight or shard.oldest_ms is not None for shard in shards)
        return MappingHealth("running" if busy else "idle", None)


def _first_message(group: BaseExceptionGroup[BaseException]) -> str:
    error = group.exceptions[0]
    return _first_message(error) if isinstance(error, BaseExceptionGroup) else str(error)


class Supervisor:
    """All mappings of a daemon."""

    def __init__(self, lives: Mapping[str, MappingLife]) -> None:
        self.lives = lives

    async def run(self) -> None:
        """Run all mappings until all of them are drained."""
        async with asyncio.TaskGroup() as tasks:
            for life in self.lives.values():
                tasks.create_task(life.run())

    def drain(self, within_s: float) -> None:
        for life in self.lives.values():
            life.drain(within_s)
