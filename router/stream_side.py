"""The source side of a run over a stream: carries out reads, commits and the rest, and tells what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from functools import partial
from random import Random
from typing import assert_never

from router.core import facts as f
from router.core.model import EventSourceMapping
from router.core.streams import StreamEngine
from router.errors import LeaseLost, PositionLost, SourceUnavailable, StoreUnavailable
from router.overflow import Overflow
from router.ports import Codec, Lost, Opened, Revoking, Store, StreamSource
from router.runner import Passes, Post, Spawn, keep_passing
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
        self._is_ending = False
        self._reads: dict[Hashable, asyncio.Task[None]] = {}
        #: Demands that wait for the read they replace to end.
        self._next_reads: dict[Hashable, f.Read] = {}
        #: Committed position of each shard, for the count of committed positions.
        self._committed: dict[str, int] = {}

    async def follow(self, post: Post, spawn: Spawn) -> None:
        """Tell of shards that come and go, until cancelled."""
        self._post, self._spawn = post, spawn
        async for change in self._source.changes():
            match change:
                case Opened(shard, unit, checkpoint, retry_state):
                    if checkpoint is not None:
                        self._committed[shard] = checkpoint
                    state = await self._resolve(shard, retry_state)
                    post(f.ShardOpened(shard, unit, checkpoint, state))
                case Revoking(shard):
                    post(f.ShardRevoking(shard))
                case Lost(shard):
                    post(f.ShardLost(shard))
        if not self._is_ending:
            raise SourceUnavailable("The source ended its assignments.")

    def stop(self) -> None:
        self._is_ending = True
        for read in self._reads.values():
            read.cancel()

    def do(self, command: f.StreamCommand) -> None:
        match command:
            case f.Read():
                self._replace_read(command)
            case f.Commit(done):
                self._spawn(partial(self._commit, done))
            case f.Locate(shard, lost):
                self._spawn(partial(self._locate, shard, lost=lost))
            case f.Release(shard):
                self._spawn(partial(self._source.release, shard))
            case _:
                assert_never(command)

    def lag_records(self, shard: str, checkpoint: int) -> int | None:
        newest = self._source.newest(shard)
        return None if newest is None else max(0, newest - checkpoint)

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
        if following and following.demand and not self._is_ending:
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
                chunk.before = read.demand[chunk.shard].after
                keep_passing(chunk, self.codec, self._passes, self._metrics)
            fact = f.ChunksRead(read.unit, chunks)
        # This read is over: what the engine asks for now must not cancel it, and what was to replace it is outdated.
        self._reads.pop(read.unit, None)
        self._next_reads.pop(read.unit, None)
        self._post(fact)

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
