"""Where a consumer group is in a topic, and where it is put, from beside the group: nothing here joins it.

The broker takes offsets from outside only while the group has no members, so a commit that it takes is one that nobody
works against. One request holds all partitions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from connectors.kafka_client import client_options, diagnose
from connectors.kafka_codec import shard_name
from connectors.kafka_offsets import GroupOffsets
from connectors.settings import KafkaSettings
from router.core.facts import Progress
from router.core.seek import AtTime, Extent, Move, SeekTo, direction
from router.errors import InUse, SourceUnavailable
from router.ports import Span

#: Longest time for the answer to any call.
_CALL_S: Final = 10.0
#: Longest wait for the records whose times are looked up; of those that do not come in it the time is not known.
_TIMES_S: Final = 3.0


class KafkaPlaces:
    """One topic as one consumer group has read it."""

    #: Default of the broker's offset.metadata.max.bytes.
    retry_state_limit_bytes: int | None = 4096

    def __init__(self, settings: KafkaSettings) -> None:
        self.stream = f"kafka:{settings.topic}"
        self.incarnation = ""
        self.now_ms = 0
        self._settings = settings
        self._options: dict[str, Any] = {}
        self._offsets: GroupOffsets | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: Mapping[str, TopicPartition] = {}

    async def open(self) -> None:
        settings = self._settings
        self._options = await client_options(settings.bootstrap_servers, settings.security, settings.client_id)
        self._offsets = GroupOffsets(settings, self._options)
        self._consumer = AIOKafkaConsumer(
            **self._options,
            group_id=settings.consumer_group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=settings.isolation_level,
        )
        async with self._answering("look at"):
            partitions = await self._offsets.open()
            self.incarnation = f"cluster {await self._offsets.cluster()}"
            await self._consumer.start()
            self._consumer.assign(partitions)
        self._partitions = {shard_name(*each): each for each in sorted(partitions)}
        self.now_ms = int(time.time() * 1000)

    async def close(self) -> None:
        if self._consumer is not None and self._offsets is not None:
            await asyncio.gather(self._consumer.stop(), self._offsets.close(), return_exceptions=True)

    async def extents(self, target: SeekTo | None = None, shard: str | None = None) -> Sequence[Extent]:
        consumer, offsets = self._clients()
        partitions = list(self._partitions.values())
        since = {}
        if isinstance(target, AtTime):
            since = {each: target.time_ms for name, each in self._partitions.items() if shard in (None, name)}
        async with self._answering("look at"):
            committed = await offsets.committed(partitions)
            firsts = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            found = await consumer.offsets_for_times(since) if since else {}
        extents = []
        for name, partition in self._partitions.items():
            at, young = committed.get(partition), found.get(partition)
            place = None if at is None else Progress(at.offset - 1, at.metadata)
            extents.append(
                Extent(name, place, firsts[partition], ends[partition], None if young is None else young.offset)
            )
        return extents

    async def measure(self, moves: Sequence[Move]) -> Sequence[Span]:
        ranges = {
            self._partitions[shard]: (
                min(before.checkpoint, after.checkpoint) + 1,
                max(before.checkpoint, after.checkpoint) + 1,
            )
            for shard, before, after in moves
            if before is not None and before.checkpoint != after.checkpoint
        }
        async with self._answering("read"):
            firsts = await self._times(ranges)
            lasts = await self._times({partition: (high - 1, high) for partition, (_, high) in ranges.items()})
        spans = []
        for shard, before, after in moves:
            partition = self._partitions[shard]
            low, high = ranges.get(partition, (0, 0))
            known = partition in firsts and partition in lasts
            seconds = (lasts[partition] - firsts[partition]) / 1000 if known else None
            way = direction(None if before is None else before.checkpoint, after.checkpoint)
            spans.append(Span(way, high - low, seconds=seconds))
        return spans

    async def _times(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> dict[TopicPartition, int]:
        """Give the times of the first records at or behind offsets and before others; those that do not come lack."""
        consumer, _ = self._clients()
        for partition, (offset, _) in ranges.items():
            consumer.seek(partition, offset)
        reads = {partition: asyncio.ensure_future(consumer.getone(partition)) for partition in ranges}
        if reads:
            await asyncio.wait(reads.values(), timeout=_TIMES_S)
        times = {}
        for partition, read in reads.items():
            if read.cancel() or read.cancelled() or read.exception() is not None:
                continue
            record: ConsumerRecord = read.result()
            if record.offset < ranges[partition][1]:
                times[partition] = record.timestamp
        return times

    async def write(self, places: Mapping[str, Progress]) -> None:
        consumer, _ = self._clients()
        offsets = {
            self._partitions[shard]: OffsetAndMetadata(place.checkpoint + 1, place.retry_state)
            for shard, place in places.items()
        }
        group = self._settings.consumer_group
        async with self._answering("write the offsets of"):
            try:
                await consumer.commit(offsets)
            except CommitFailedError as error:
                raise InUse(
                    f"consumer group {group} has members beside this mapping, and the broker changes no offsets "
                    "under them: stop or pause every reader of the group (a static member counts until its "
                    "session_timeout is over), then do it again"
                ) from error

    def show(self, place: Progress) -> str:
        return str(place.checkpoint + 1)

    def checkpoint(self, text: str) -> int:
        return int(text) - 1

    def position(self, text: str) -> int:
        return int(text)

    def _clients(self) -> tuple[AIOKafkaConsumer, GroupOffsets]:
        assert self._consumer is not None, "it is open"
        assert self._offsets is not None
        return self._consumer, self._offsets

    @asynccontextmanager
    async def _answering(self, what: str) -> AsyncIterator[None]:
        """Bound what is asked of the cluster, and turn its errors into ours."""
        try:
            async with asyncio.timeout(_CALL_S):
                yield
        except (KafkaError, OSError) as error:
            reason = await diagnose(self._options) or f"{type(error).__name__}: {error}"
            settings = self._settings
            raise SourceUnavailable(
                f"Cannot {what} group {settings.consumer_group} on topic {settings.topic}: {reason}."
            ) from error
