"""The source side of a run over a stream: carries out reads, commits and the rest, and tells what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import assert_never

from router.core import facts as f
from router.core.describe import ShardStatus
from router.core.model import EventSourceMapping
from router.core.streams import StreamEngine
from router.errors import LeaseLost, SourceUnavailable, StoreUnavailable
from router.failures.shown import shown_position
from router.overflow import Overflow
from router.ports import Codec, Holds, Lost, Opened, Revoking, Store, StreamSource
from router.reads import Reads
from router.runner import Passes, Post, Spawn
from router.telemetry import MappingMetrics


class StreamSide:
    """Serves the commands of a StreamEngine."""

    def __init__(
        self, source: StreamSource, overflow: Overflow, *, passes: Passes | None, metrics: MappingMetrics
    ) -> None:
        self.codec: Codec = source.codec
        self._source = source
        self._overflow = overflow
        self._passes = passes
        self._metrics = metrics
        self._post: Post
        self._spawn: Spawn
        #: None before `follow`.
        self._reads: Reads | None = None
        self._is_ending = False
        #: Committed position of each shard, for the count of committed positions.
        self._committed: dict[str, int] = {}

    async def follow(self, post: Post, spawn: Spawn) -> None:
        """Tell of shards that come and go, until cancelled."""
        self._post, self._spawn = post, spawn
        self._reads = Reads(self._source.read, self.codec, self._passes, self._metrics, post, spawn)
        async for change in self._source.changes():
            match change:
                case Opened(shard, unit, checkpoint, retry_state):
                    if checkpoint is not None:
                        self._committed[shard] = checkpoint
                    state = await self._resolve(shard, retry_state)
                    if state:  # it may be of another parallelization factor, and then it goes on by key
                        self._source.needs_keys = True
                    post(f.ShardOpened(shard, unit, checkpoint, state))
                case Revoking(shard):
                    post(f.ShardRevoking(shard))
                case Lost(shard):
                    post(f.ShardLost(shard))
        if not self._is_ending:
            raise SourceUnavailable("The source ended its assignments.")

    def stop(self) -> None:
        self._is_ending = True
        if self._reads:
            self._reads.stop()

    def left(self) -> None:
        """Nothing: closing the source gives its partitions back."""

    def may_begin(self, shard: str) -> bool:  # noqa: ARG002 - the group says what is ours
        return True

    def fences(self, shard: str) -> Sequence[Holds]:  # noqa: ARG002 - the group keeps what is committed
        return ()

    def do(self, command: f.StreamCommand) -> None:
        match command:
            case f.Read():
                assert self._reads is not None, "commands come after `follow`"
                self._reads.replace(command)
            case f.Commit(done):
                self._spawn(partial(self._commit, done))
            case f.Locate(shard, lost):
                self._spawn(partial(self._locate, shard, lost=lost))
            case f.Release(shard):
                self._spawn(partial(self._source.release, shard))
            case f.List() | f.Open() | f.Forget():
                raise AssertionError("the source assigns shards")
            case _:
                assert_never(command)

    def why_stuck(self) -> tuple[str, str] | None:
        return None  # the engine is told of all that the source meets

    def lag_records(self, shard: ShardStatus) -> int | None:
        newest = self._source.newest(shard.shard)
        return None if newest is None else max(0, newest - shard.checkpoint)

    def position(self, checkpoint: int) -> int | str | None:
        return None if checkpoint < 0 else shown_position(checkpoint)

    async def _resolve(self, shard: str, retry_state: str) -> str:
        try:
            return await self._overflow.resolve(shard, retry_state)
        except StoreUnavailable as error:
            raise SourceUnavailable(f"Retry state of {shard} cannot be read: {error}") from error

    async def _locate(self, shard: str, *, lost: bool) -> None:
        try:
            checkpoint = await self._source.locate(shard, lost=lost)
        except (SourceUnavailable, LeaseLost) as error:
            self._post(f.LocateFailed(shard, str(error)))
        else:
            self._post(f.Located(shard, checkpoint))

    # --- committing

    async def _commit(self, done: Mapping[str, f.Progress]) -> None:
        try:
            await self._source.commit(await self._overflow.fit(done))
        except (SourceUnavailable, LeaseLost, StoreUnavailable) as error:
            self._post(f.CommitFailed(str(error)))
            return
        for shard, progress in done.items():
            self._metrics.committed.inc(max(0, progress.checkpoint - self._committed.get(shard, progress.checkpoint)))
            self._committed[shard] = progress.checkpoint
        self._post(f.Committed())
        await self._overflow.committed(done)


async def plug_stream(
    source: StreamSource,
    mapping: EventSourceMapping,
    rng: Random,
    *,
    store: Store,
    passes: Passes | None,
    metrics: MappingMetrics,
) -> tuple[StreamEngine, StreamSide]:
    """Make the engine of a stream and its source side."""
    overflow = Overflow(store, mapping.name, source.retry_state_limit_bytes)
    engine = StreamEngine(mapping, source.codec.identify, rng)
    return engine, StreamSide(source, overflow, passes=passes, metrics=metrics)
