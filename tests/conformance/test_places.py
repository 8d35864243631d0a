"""Places in a Kafka topic and in the fake stream against one suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from connectors.kafka_places import KafkaPlaces
from router.ports import Places
from tests.conformance.places import PlacesConformance
from tests.conftest import MakeTopic
from tests.fakes.places import MemoryPlaces
from tests.fakes.stream_source import MemorySource, MemoryStream
from tests.live.kafka_rig import kafka_settings
from tests.sim.virtual_time import all_in_virtual_time


class MemoryBench:
    shards = ("memory-0", "memory-1")

    def __init__(self) -> None:
        self._stream = MemoryStream(self.shards)
        self._member = MemorySource(self._stream)

    def places(self) -> Places:
        return MemoryPlaces(self._stream)

    async def append(self, shard: str, *times_ms: int) -> None:
        for time_ms in times_ms:
            self._stream.append(shard, b"x", time_ms=time_ms)

    async def trim(self, shard: str, before: int) -> None:
        self._stream.trim(shard, before)

    async def join(self) -> None:
        await self._member.open()

    async def leave(self) -> None:
        await self._member.close()


@all_in_virtual_time
class TestMemoryPlaces(PlacesConformance):
    @pytest.fixture
    def bench(self) -> MemoryBench:
        return MemoryBench()


class KafkaBench:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self.shards = (f"{topic}-0", f"{topic}-1")
        self._bootstrap = bootstrap
        self._topic = topic
        self._member = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=topic, enable_auto_commit=False)

    def places(self) -> Places:
        return KafkaPlaces(kafka_settings(self._bootstrap, self._topic))

    async def append(self, shard: str, *times_ms: int) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap) as producer:
            for time_ms in times_ms:
                partition = self.shards.index(shard)
                await producer.send_and_wait(self._topic, b"x", partition=partition, timestamp_ms=time_ms)

    async def trim(self, shard: str, before: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        partition = TopicPartition(self._topic, self.shards.index(shard))
        await admin.delete_records({partition: RecordsToDelete(before)})
        await admin.close()

    async def join(self) -> None:
        await self._member.start()

    async def leave(self) -> None:
        await self._member.stop()


class TestKafkaPlaces(PlacesConformance):
    @pytest.fixture
    async def bench(self, kafka_bootstrap: str, topic: MakeTopic) -> AsyncIterator[KafkaBench]:
        bench = KafkaBench(kafka_bootstrap, await topic(2))
        yield bench
        await bench.leave()
