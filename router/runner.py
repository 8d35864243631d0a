"""Runs one mapping: carries out what its engine commands and tells it what happened. No decisions.

Facts are taken one at a time in the order they come, also those that arrive while commands are carried out. Invoking,
cancelling and waking are plain calls; only what waits for the outside is a task of the mapping's one TaskGroup.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, cast

from router.core import facts as f
from router.core.describe import Repeat, ShardStatus
from router.core.model import Batch, Cancelled, Chunk, EventSourceMapping, FailedBatch, Instant, Outcome, Returned
from router.errors import LeaseLost, StoreUnavailable
from router.events import event_of
from router.ports import Codec, Holds, Invocation, Invoker, WallClock
from router.telemetry import Log, MappingMetrics

#: Tells the engine a fact.
Post: TypeAlias = Callable[[f.Fact], None]
#: Starts a task of the run.
Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], asyncio.Task[None]]
#: Does a record pass the mapping's filters? None = all do.
Passes: TypeAlias = Callable[[Mapping[str, object], bytes | None], bool]


class KeepFailed(Protocol):
    """Stores a failed batch with its event and ordering keys, if the fences hold."""

    def __call__(
        self, failure: FailedBatch, event: bytes, keys: tuple[bytes, ...], fences: Sequence[Holds], /
    ) -> Awaitable[None]:
        """Store it. Raises StoreUnavailable, and LeaseLost when a fence does not hold."""
        ...


#: Fields of notes that are positions.
_PLACES: Final = frozenset(("position", "committed", "first_position"))


class Engine(Protocol):
    """What decides: a StreamEngine or a QueueEngine."""

    records_done: int

    def feed(self, fact: Any, now: Instant) -> list[f.Command]: ...

    def why_stuck(self) -> tuple[str, str] | None: ...

    def in_flight(self) -> Sequence[Batch]: ...

    def repeats(self) -> Sequence[Repeat]: ...

    def waiting(self) -> Mapping[str, Sequence[str]]: ...

    def status(self, now: Instant) -> Iterable[ShardStatus]: ...


class SourceSide(Protocol):
    """Carries out what an engine wants of its source."""

    @property
    def codec(self) -> Codec: ...

    async def follow(self, post: Post, spawn: Spawn) -> None:
        """Tell the engine what the source does by itself, until cancelled; called once, before any command."""
        ...

    def do(self, command: Any) -> None:
        """Carry out a command that is not for every engine."""
        ...

    def stop(self) -> None:
        """End what waits for the source."""
        ...

    def left(self) -> None:
        """Give back what is still ours: the run is over, and nothing of it is with the function."""
        ...

    def may_begin(self, shard: str) -> bool:
        """Say whether more may be begun for a shard now; when not, the engine has been told why."""
        ...

    def fences(self, shard: str) -> Sequence[Holds]:
        """Give what a write for a shard must name, to be refused once the shard is another's."""
        ...

    def why_stuck(self) -> tuple[str, str] | None:
        """Say why it can give the engine nothing to do, as code and sentence; None = it can."""
        ...

    def lag_records(self, shard: ShardStatus) -> int | None:
        """Count the records behind a shard's checkpoint, without asking anybody; None = not known."""
        ...

    def position(self, checkpoint: int) -> int | str | None:
        """Give a position as people and their tools know it; None = before the first."""
        ...


class ReplayListener(Protocol):
    """Hears how replays end."""

    def replayed(self, failure_id: str, new_failures: tuple[str, ...]) -> None: ...

    def refused(self, failure_id: str, reason: str, *, failed: bool = False, astray: bool = False) -> None:
        """Learn that it did not run; or, with `failed`, that it did and stays where it has a place of its own.

        With `astray` its shard is not ours, and another replica may have it.
        """
        ...


class Runner:
    """One life of one mapping, from the first assignment to Finished."""

    def __init__(
        self,
        mapping: EventSourceMapping,
        engine: Engine,
        side: SourceSide,
        invoker: Invoker,
        *,
        keep: KeepFailed,
        replays: ReplayListener,
        metrics: MappingMetrics,
        log: Log,
        wall: WallClock,
    ) -> None:
        self._mapping = mapping
        self._engine = engine
        self._side = side
        self._codec = side.codec
        self._invoker = invoker
        self._keep = keep
        self._replays = replays
        self._metrics = metrics
        self._function = metrics.of_function(mapping.function)
        self._log = log
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._tasks: asyncio.TaskGroup | None = None
        self._facts: deque[f.Fact] = deque()
        self._feeding = False
        #: Done when the engine has finished; an error in it ends the run.
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._is_ending = False
        #: Set when the run is over, however it ended, and nothing of it is with the function any more.
        self.ended = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._started_s: dict[str, float] = {}
        #: Time that batches of a shard have been with the function, those that have ended.
        self._spent_s: dict[str, float] = defaultdict(float)
        #: What of shards that were left could not be committed, or deleted.
        self._abandoned: list[Repeat] = []
        #: What the last invocation gave, in AWS's words.
        self.last_result = "No records processed"

    # --- from outside

    async def run(self) -> None:
        """Run until drained. Errors of the source that end it, and bugs, come out as an exception group."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                following = self._spawn(partial(self._side.follow, self.post, self._spawn))
                try:
                    await self._end
                finally:
                    self._is_ending = True
                following.cancel()
                self._side.stop()
        finally:
            if self._timer:
                self._timer.cancel()
            await self._end_invocations()
            self._side.left()
            self.ended.set()

    async def _end_invocations(self) -> None:
        """Kill what an unexpected end left with the function: the next run must not deliver its keys beside it."""
        for batch_id in self._started_s:
            self._invoker.cancel(batch_id, waiting_only=False)
        if self._started_s:
            await self._all_ended.wait()

    def post(self, fact: f.Fact) -> None:
        """Tell the engine something; its commands are carried out before this returns, unless it is already at it."""
        if self._is_ending:
            return
        self._facts.append(fact)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._facts:
                now = Instant(self._loop.time(), self._wall())
                for command in self._engine.feed(self._facts.popleft(), now):
                    self._do(command)
        except Exception as bug:  # noqa: BLE001 - wherever the fact came from, it is this run that must end
            self._break(bug)
        finally:
            self._feeding = False

    def replay(
        self, failure_id: str, event: bytes, *, elsewhere: bool = False, shard: str = "", waits: bool = True
    ) -> None:
        """Run a stored event again; the listener hears the end.

        With `elsewhere` its records have a place of their own: it is tried once, and refused if that fails. A `shard`
        is the one that its records are of, for not every event says it. Unless it `waits` for its shard to be ours, it
        is given back as astray when it is not.

        Raises:
            ValueError: it is no event of this source, or has no records.
        """
        chunk = self._codec.parse(event)
        if not chunk.positions and chunk.window is None:
            raise ValueError("it holds no records")
        chunk.shard = shard or chunk.shard
        self.post(f.ReplayRequested(failure_id, chunk, elsewhere, waits))

    def shards(self) -> list[ShardStatus]:
        """Describe every shard the mapping has."""
        return list(self._engine.status(Instant(self._loop.time(), self._wall())))

    def waiting(self) -> Mapping[str, Sequence[str]]:
        """Give the shards that wait for their parents, and for which."""
        return self._engine.waiting()

    @property
    def records_done(self) -> int:
        """Records that the function has succeeded with, for rates."""
        return self._engine.records_done

    def why_stuck(self) -> tuple[str, str] | None:
        return self._engine.why_stuck() or self._side.why_stuck()

    def in_flight(self) -> list[tuple[Batch, float]]:
        """Give the batches that are with the function, and how long each has been, seconds."""
        now_s = self._loop.time()
        return [(batch, now_s - self._started_s.get(batch.id, now_s)) for batch in self._engine.in_flight()]

    def spent_s(self) -> Mapping[str, float]:
        """Give how long batches of each shard have been with the function in this run, seconds, one by one summed."""
        spent = self._spent_s.copy()
        for batch, elapsed_s in self.in_flight():
            spent[batch.shard] += elapsed_s
        return spent

    def repeats(self) -> list[Repeat]:
        """Say what the function would see again if nothing more were committed or deleted."""
        return [*self._abandoned, *self._engine.repeats()]

    def lag_records(self, shard: ShardStatus) -> int | None:
        """Count the records behind a shard's checkpoint; None while that is not known."""
        return None if shard.phase == "locating" else self._side.lag_records(shard)

    def position(self, checkpoint: int) -> int | str | None:
        """Give a position as people and their tools know it; None = before the first."""
        return self._side.position(checkpoint)

    # --- commands

    def _do(self, command: f.Command) -> None:
        match command:
            case f.Invoke(batch):
                if self._side.may_begin(batch.shard):
                    self._invoke(batch)
                else:
                    self.post(f.InvocationEnded(batch.id, Cancelled()))
            case f.WakeAt(mono_s):
                self._wake_at(mono_s)
            case f.Note(event, shard, fields):
                self._note(event, shard, fields)
            case f.Keep(failure, batch):
                self._spawn(partial(self._store_failure, failure, batch, self._side.fences(failure.shard)))
            case f.Cancel(batch_id, waiting_only):
                self._invoker.cancel(batch_id, waiting_only=waiting_only)
            case f.Replayed(failure_id, new_failures):
                self._replays.replayed(failure_id, tuple(new_failures))
            case f.ReplayRefused(failure_id, reason, failed, astray):
                self._replays.refused(failure_id, reason, failed=failed, astray=astray)
            case f.Finished():
                self._finish()
            case _:
                self._side.do(command)

    def _finish(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def _break(self, error: Exception) -> None:
        """End the run with an error. Tasks of the group never raise: all ends come this one way."""
        if not self._end.done():
            self._end.set_exception(error)
            self._is_ending = True

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        assert self._tasks is not None, "facts come only while the runner runs"
        return self._tasks.create_task(self._carry(work))

    async def _carry(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the supervisor tells outages from bugs
            self._break(error)

    def _wake_at(self, mono_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(mono_s, self.post, f.Due())

    # --- invoking

    def _invoke(self, batch: Batch) -> None:
        self._started_s[batch.id] = self._loop.time()
        self._metrics.invoked.inc(batch.count)
        self._invoker.invoke(
            Invocation(
                batch.id,
                event=partial(self._event, batch),
                wants_body=self._mapping.report_item_failures or batch.window is not None,
                done=partial(self._ended, batch),
            )
        )

    def _event(self, batch: Batch) -> bytes:
        return event_of(self._codec, batch.shard, batch.rows(), batch.window)

    def _ended(self, batch: Batch, outcome: Outcome) -> None:
        elapsed_s = self._loop.time() - self._started_s.pop(batch.id)
        self._metrics.duration.observe(elapsed_s)
        self._spent_s[batch.shard] += elapsed_s
        self._function.ended(outcome)
        if self._is_ending:
            if not self._started_s:
                self._all_ended.set()
            return
        if not isinstance(outcome, Cancelled):
            # Whatever it has reported of the records.
            self.last_result = "OK" if isinstance(outcome, Returned) else "PROBLEM: Function call failed"
        self.post(f.InvocationEnded(batch.id, outcome))

    def _note(self, event: str, shard: str, fields: Mapping[str, object]) -> None:
        records = fields.get("failed", fields.get("records"))
        if event in ("batch.failed", "batch.split", "batch.refused", "batch.partly_failed") and isinstance(
            records, int
        ):
            self._metrics.failed_invoke.inc(records)
            self._metrics.invoke_errors.inc()
        elif event == "commit.failed":
            self._metrics.commit_errors.inc()
        elif event == "shard.abandoned":
            self._abandoned.append(Repeat(shard, cast("int", fields["committed"]) + 1))
        elif event == "queue.abandoned":
            self._abandoned.append(Repeat(shard, records=cast("int", fields["messages"])))
        elif event in ("source.failed", "source.throttled"):
            self._metrics.polling_errors.inc()
        places = {name: self._side.position(place) for name in _PLACES if isinstance(place := fields.get(name), int)}
        self._log.write(event, shard=shard, **{**fields, **places})

    # --- giving up

    async def _store_failure(self, failure: FailedBatch, batch: Batch, fences: Sequence[Holds]) -> None:
        try:
            event = self._event(batch)
            # Read from the event, because the keys column is empty where order needs none.
            keys = dict.fromkeys(key for key in self._codec.parse(event).keys if key is not None)
            await self._keep(failure, event, tuple(keys), fences)
        except StoreUnavailable as error:
            self.post(f.KeepFailed(failure.id, str(error)))
            return
        except LeaseLost:
            if self._side.fences(failure.shard) == fences:  # else it is ours again meanwhile
                self.post(f.ShardLost(failure.shard))
            return
        self._metrics.discarded.labels(self._mapping.name, failure.reason.value).inc()
        self._log.write(
            "batch.discarded",
            shard=failure.shard,
            failure=failure.id,
            reason=failure.reason.value,
            first_position=self._side.position(failure.first_position) if failure.batch_size else None,
            records=failure.batch_size,
            attempts=failure.attempts,
        )
        self.post(f.Kept(failure.id))


def keep_passing(chunk: Chunk, codec: Codec, passes: Passes | None, metrics: MappingMetrics) -> None:
    """Count a page, and narrow what is kept of it to the records that pass the mapping's filters."""
    metrics.polled.inc(len(chunk.positions))
    if passes is not None and chunk.rows:
        kept = range(len(chunk.rows)) if chunk.kept is None else chunk.kept
        view, rows, unfit = codec.view, chunk.rows, chunk.unfit
        chunk.kept = [index for index in kept if index in unfit or passes(*view(rows[index]))]
    if chunk.kept is not None:
        metrics.filtered_out.inc(len(chunk.positions) - len(chunk.kept))
