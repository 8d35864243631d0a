"""A Kafka topic as a PageSource: read from an offset on, without a group, so that nobody's place is moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from connectors.kafka_client import client_options, diagnose
from connectors.kafka_codec import KafkaCodec, KafkaRecord, chunk_of, shard_name
from connectors.kafka_fetch import plain_fetch
from connectors.kafka_offsets import GroupOffsets
from connectors.settings import KafkaSettings
from router.core.model import Chunk
from router.errors import PositionLost, ShardGone, SourceUnavailable
from router.ports import PAGE_COUNT, PositionCodec

#: Longest wait for the records of a page, and for the answer to any other call.
_READ_S: Final = 2.0
_CALL_S: Final = 15.0
#: Records of a page, at most.
_PAGE_COUNT: Final = 500


class KafkaPages:
    """One topic. A closed one stays closed: make another."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Prepare without I/O."""
        self.codec: PositionCodec = KafkaCodec(
            settings.bootstrap_servers, settings.event_source, settings.event_source_arn
        )
        self._settings = settings
        self._options: dict[str, Any] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: dict[str, TopicPartition] = {}
        #: The client reads one place at a time.
        self._reading = asyncio.Lock()

    async def open(self) -> None:
        settings = self._settings
        self._options = await client_options(settings.bootstrap_servers, settings.security, settings.client_id)
        offsets = GroupOffsets(settings, self._options)
        consumer = AIOKafkaConsumer(
            **self._options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=settings.isolation_level,
        )
        try:
            async with self._answering():
                partitions = await offsets.open()
                await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        finally:
            await offsets.close()
        self._partitions = {shard_name(*each): each for each in partitions}
        self._consumer = consumer

    async def page(self, shard: str, first: int, limit: int = PAGE_COUNT) -> Chunk:
        partition = self._partitions.get(shard)
        if self._consumer is None or partition is None:
            raise ShardGone(shard, f"Topic {self._settings.topic} has no partition {shard}.")
        async with self._reading, self._answering():
            return await self._page(self._consumer, partition, first, min(limit, _PAGE_COUNT))

    async def close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def _page(self, consumer: AIOKafkaConsumer, partition: TopicPartition, first: int, limit: int) -> Chunk:
        shard = shard_name(*partition)
        if consumer.assignment() != {partition}:
            consumer.assign([partition])
        begin = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        if 0 < first < begin:
            raise PositionLost(shard, f"Offset {first} of {shard} is not in the log any more, which begins at {begin}.")
        start = max(first, begin)
        if start >= end:
            return Chunk(shard, (), (), (), (), (), start - 1)
        consumer.seek(partition, start)
        fetched = await plain_fetch(consumer)([partition], limit, _READ_S)
        rows: Sequence[KafkaRecord] = fetched.get(partition, ())
        # Behind the last record may be transaction markers, aborted records, or nothing after a compaction.
        position = int(await consumer.position(partition))
        if rows:
            chunk = chunk_of(shard, rows, needs_keys=True, through=position - 1)
        else:
            chunk = Chunk(shard, (), (), (), (), (), position - 1)
        if position == start:
            raise SourceUnavailable(f"The leader of {shard} gave nothing within {_READ_S:.0f} s; look at the cluster.")
        chunk.more = position < end
        return chunk

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Bound what is asked of the cluster, and turn its errors into ours."""
        settings = self._settings
        try:
            async with asyncio.timeout(_CALL_S):
                yield
        except OffsetOutOfRangeError as error:
            ((partition, offset),) = error.args[0].items()
            shard = shard_name(*partition)
            raise PositionLost(shard, f"Offset {offset} of {shard} is not in the log any more.") from error
        except (KafkaError, OSError) as error:
            reason = await diagnose(self._options) or f"{type(error).__name__}: {error}"
            servers = ", ".join(settings.bootstrap_servers)
            raise SourceUnavailable(f"Cannot read topic {settings.topic} at {servers} again: {reason}.") from error
