"""Reads from a source of shards: one at a time for each unit, a newer one in the place of the one under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from router.core import facts as f
from router.core.model import Chunk
from router.errors import LeaseLost, PositionLost, ShardGone, SourceUnavailable, Throttled
from router.ports import Codec
from router.runner import Passes, Post, Spawn, keep_passing
from router.telemetry import MappingMetrics

ReadUnit: TypeAlias = Callable[[Hashable, Mapping[str, f.Demand]], Awaitable[Sequence[Chunk]]]


class Reads:
    """Carries out Read commands, and tells what came of them."""

    def __init__(
        self, read: ReadUnit, codec: Codec, passes: Passes | None, metrics: MappingMetrics, post: Post, spawn: Spawn
    ) -> None:
        self._read_unit = read
        self._codec = codec
        self._passes = passes
        self._metrics = metrics
        self._post = post
        self._spawn = spawn
        self._is_ending = False
        self._reads: dict[Hashable, asyncio.Task[None]] = {}
        #: Demands that wait for the read they replace to end.
        self._next_reads: dict[Hashable, f.Read] = {}

    def replace(self, read: f.Read) -> None:
        """Begin a read, when the one that is under way for its unit has been cancelled; without demand, only cancel."""
        running = self._reads.get(read.unit)
        if running:
            self._next_reads[read.unit] = read
            running.cancel()
        elif read.demand:
            self._start(read)

    def stop(self) -> None:
        """Cancel all reads."""
        self._is_ending = True
        for read in self._reads.values():
            read.cancel()

    def _start(self, read: f.Read) -> None:
        task = self._spawn(partial(self._read, read))
        self._reads[read.unit] = task
        task.add_done_callback(partial(self._ended, read.unit))

    def _ended(self, unit: Hashable, task: asyncio.Task[None]) -> None:
        if self._reads.get(unit) is not task:
            return
        del self._reads[unit]
        following = self._next_reads.pop(unit, None)
        if following and following.demand and not self._is_ending:
            self._start(following)

    async def _read(self, read: f.Read) -> None:
        try:
            chunks = await self._read_unit(read.unit, read.demand)
        except PositionLost as error:
            fact: f.Fact = f.PositionGone(read.unit, error.shard, str(error))
        except ShardGone as error:
            fact = f.ShardDeleted(read.unit, error.shard, str(error))
        except (SourceUnavailable, LeaseLost) as error:
            fact = f.ReadFailed(read.unit, str(error), throttled=isinstance(error, Throttled))
        else:
            for chunk in chunks:
                chunk.before = read.demand[chunk.shard].after
                keep_passing(chunk, self._codec, self._passes, self._metrics)
            fact = f.ChunksRead(read.unit, chunks)
        # This read is over: what the engine asks for now must not cancel it, and what was to replace it is outdated.
        self._reads.pop(read.unit, None)
        self._next_reads.pop(read.unit, None)
        self._post(fact)
