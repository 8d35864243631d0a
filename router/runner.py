"""Runs one mapping: carries out what its engine commands and tells it what happened. No decisions.

Facts are taken one at a time in the order they come, also those that arrive while commands are carried out. Invoking,
cancelling and waking are plain calls; only what waits for the outside is a task of the mapping's one TaskGroup.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from functools import partial
from typing import Any, Protocol, assert_never

from router.core import facts as f
from router.core.describe import ShardStatus
from router.core.model import Batch, Chunk, EventSourceMapping, FailedBatch, Instant, Outcome, Returned
from router.core.streams import StreamEngine
from router.errors import LeaseLost, PositionLost, SourceUnavailable, StoreUnavailable
from router.overflow import Overflow
from router.ports import Invocation, Invoker, Lost, Opened, Revoking, StreamSource, WallClock
from router.telemetry import Log, MappingMetrics

#: Does a record pass the mapping's filters? None = all do.
Passes = Callable[[Mapping[str, object], bytes | None], bool]
#: Stores a failed batch with its event and ordering keys.
KeepFailed = Callable[[FailedBatch, bytes, tuple[bytes, ...]], Awaitable[None]]


class ReplayListener(Protocol):
    """Hears how replays end."""

    def replayed(self, failure_id: str, new_failures: tuple[str, ...]) -> None: ...

    def refused(self, failure_id: str, reason: str) -> None: ...


class Runner:
    """One life of one mapping, from the first assignment to Finished."""

    def __init__(
        self,
        mapping: EventSourceMapping,
        engine: StreamEngine,
        source: StreamSource,
        invoker: Invoker,
        *,
        keep: KeepFailed,
        overflow: Overflow,
        passes: Passes | None,
        replays: ReplayListener,
        metrics: MappingMetrics,
        log: Log,
        wall: WallClock,
    ) -> None:
        self._mapping = mapping
        self._engine = engine
        self._source = source
        self._codec = source.codec
        self._invoker = invoker
        self._keep = keep
        self._overflow = overflow
        self._passes = passes
        self._replays = replays
        self._metrics = metrics
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
        self._reads: dict[Hashable, asyncio.Task[None]] = {}
        #: Demands that wait for the read they replace to end.
        self._next_reads: dict[Hashable, f.Read] = {}
        self._started_s: dict[str, float] = {}
        #: Committed position of each shard, for the count of committed positions.
        self._committed: dict[str, int] = {}
        #: What the last invocation gave, in AWS's words.
        self.last_result = "No records processed"

    # --- from outside

    async def run(self) -> None:
        """Run until drained. Errors of the source that end it, and bugs, come out as an exception group."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                changes = self._tasks.create_task(self._carry(self._follow_changes))
                try:
                    await self._end
                finally:
                    self._is_ending = True
                changes.cancel()
                for read in self._reads.values():
                    read.cancel()
        finally:
            if self._timer:
                self._timer.cancel()
            await self._end_invocations()
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

    def replay(self, failure_id: str, event: bytes) -> None:
        """Run a stored event again; the listener hears the end."""
        self.post(f.ReplayRequested(failure_id, self._codec.parse(event)))

    def shards(self) -> list[ShardStatus]:
        """Describe every shard the mapping has."""
        return list(self._engine.status(Instant(self._loop.time(), self._wall())))

    @property
    def records_done(self) -> int:
        """Records that the function has succeeded with, for rates."""
        return self._engine.records_done

    def why_stuck(self) -> tuple[str, str] | None:
        return self._engine.why_stuck()

    def newest(self, shard: str) -> int | None:
        return self._source.newest(shard)

    # --- commands

    def _do(self, command: f.Command) -> None:  # noqa: C901, PLR0912 - one line a command
        match command:
            case f.Invoke(batch):
                self._invoke(batch)
            case f.Read():
                self._replace_read(command)
            case f.WakeAt(mono_s):
                self._wake_at(mono_s)
            case f.Commit(done):
                self._spawn(partial(self._commit, done))
            case f.Note(event, shard, fields):
                self._note(event, shard, fields)
            case f.Keep(failure, batch):
                self._spawn(partial(self._store_failure, failure, batch))
            case f.Cancel(batch_id, waiting_only):
                self._invoker.cancel(batch_id, waiting_only=waiting_only)
            case f.Locate(shard, lost):
                self._spawn(partial(self._locate, shard, lost=lost))
            case f.Release(shard):
                self._spawn(partial(self._source.release, shard))
            case f.Replayed(failure_id, new_failures):
                self._replays.replayed(failure_id, tuple(new_failures))
            case f.ReplayRefused(failure_id, reason):
                self._replays.refused(failure_id, reason)
            case f.Finished():
                self._finish()
            case _:
                assert_never(command)

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
                wants_body=self._mapping.report_item_failures,
                done=partial(self._ended, batch),
            )
        )

    def _event(self, batch: Batch) -> bytes:
        return self._codec.event(batch.rows())

    def _ended(self, batch: Batch, outcome: Outcome) -> None:
        self._metrics.duration.observe(self._loop.time() - self._started_s.pop(batch.id))
        if self._is_ending:
            if not self._started_s:
                self._all_ended.set()
            return
        if isinstance(outcome, Returned):
            self.last_result = "OK"
        self.post(f.InvocationEnded(batch.id, outcome))

    def _note(self, event: str, shard: str, fields: Mapping[str, object]) -> None:
        records = fields.get("failed", fields.get("records"))
        if event in ("batch.failed", "batch.split", "batch.refused", "batch.partly_failed") and isinstance(
            records, int
        ):
            self._metrics.failed_invoke.inc(records)
            self._metrics.invoke_errors.inc()
            if event != "batch.partly_failed":
                self.last_result = "PROBLEM: Function call failed"
        elif event == "commit.failed":
            self._metrics.commit_errors.inc()
        elif event == "source.failed":
            self._metrics.polling_errors.inc()
        self._log.write(event, shard=shard, **fields)

    # --- reading

    def _replace_read(self, read: f.Read) -> None:
        running = self._reads.get(read.unit)
        if running:
            self._next_reads[read.unit] = read
            running.cancel()
        elif read.demand:
            self._start_read(read)

    def _start_read(self, read: f.Read) -> None:
        task = self._spawn(partial(self._read, read))
        self._reads[read.unit] = task
        task.add_done_callback(partial(self._read_ended, read.unit))

    def _read_ended(self, unit: Hashable, task: asyncio.Task[None]) -> None:
        if self._reads.get(unit) is not task:
            return
        del self._reads[unit]
        following = self._next_reads.pop(unit, None)
        if following and following.demand and not (self._end.done() or self._is_ending):
            self._start_read(following)

    async def _read(self, read: f.Read) -> None:
        try:
            chunks = await self._source.read(read.unit, read.demand)
        except PositionLost as error:
            fact: f.Fact = f.PositionGone(read.unit, error.shard, str(error))
        except (SourceUnavailable, LeaseLost) as error:
            fact = f.ReadFailed(read.unit, str(error))
        else:
            for chunk in chunks:
                self._receive(chunk, read.demand[chunk.shard])
            fact = f.ChunksRead(read.unit, chunks)
        # This read is over: what the engine asks for now must not cancel it, and what was to replace it is outdated.
        self._reads.pop(read.unit, None)
        self._next_reads.pop(read.unit, None)
        self.post(fact)

    def _receive(self, chunk: Chunk, demand: f.Demand) -> None:
        chunk.before = demand.after
        self._metrics.polled.inc(len(chunk.positions))
        if self._passes is None or not chunk.rows:
            return
        view, passes = self._codec.view, self._passes
        chunk.kept = [index for index, row in enumerate(chunk.rows) if passes(*view(row))]
        self._metrics.filtered_out.inc(len(chunk.rows) - len(chunk.kept))

    async def _follow_changes(self) -> None:
        async for change in self._source.changes():
            match change:
                case Opened(shard, unit, checkpoint, retry_state):
                    if checkpoint is not None:
                        self._committed[shard] = checkpoint
                    state = await self._resolve(shard, retry_state)
                    self.post(f.ShardOpened(shard, unit, checkpoint, state))
                case Revoking(shard):
                    self.post(f.ShardRevoking(shard))
                case Lost(shard):
                    self.post(f.ShardLost(shard))
        if not self._end.done():
            raise SourceUnavailable("The source ended its assignments.")

    async def _resolve(self, shard: str, retry_state: str) -> str:
        try:
            return await self._overflow.resolve(shard, retry_state)
        except StoreUnavailable as error:
            raise SourceUnavailable(f"Retry state of {shard} cannot be read: {error}") from error

    async def _locate(self, shard: str, *, lost: bool) -> None:
        try:
            checkpoint = await self._source.locate(shard, lost=lost)
        except (SourceUnavailable, LeaseLost) as error:
            self.post(f.LocateFailed(shard, str(error)))
        else:
            self.post(f.Located(shard, checkpoint))

    # --- remembering

    async def _commit(self, done: Mapping[str, f.Progress]) -> None:
        try:
            await self._source.commit(await self._overflow.fit(done))
        except (SourceUnavailable, LeaseLost, StoreUnavailable) as error:
            self.post(f.CommitFailed(str(error)))
            return
        for shard, progress in done.items():
            self._metrics.committed.inc(max(0, progress.checkpoint - self._committed.get(shard, progress.checkpoint)))
            self._committed[shard] = progress.checkpoint
        self.post(f.Committed())
        await self._overflow.committed(done)

    async def _store_failure(self, failure: FailedBatch, batch: Batch) -> None:
        try:
            event = self._event(batch)
            # Read from the event, because the keys column is empty where order needs none.
            keys = dict.fromkeys(key for key in self._codec.parse(event).keys if key is not None)
            await self._keep(failure, event, tuple(keys))
        except StoreUnavailable as error:
            self.post(f.KeepFailed(failure.id, str(error)))
            return
        self._metrics.discarded.labels(self._mapping.name, failure.reason.value).inc()
        self._log.write(
            "batch.discarded",
            shard=failure.shard,
            failure=failure.id,
            reason=failure.reason.value,
            first_position=failure.first_position,
            records=failure.batch_size,
            attempts=failure.attempts,
        )
        self.post(f.Kept(failure.id))
