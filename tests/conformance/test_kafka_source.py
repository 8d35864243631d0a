"""The Kafka source against the suite, on a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from connectors.kafka import KafkaSource
from router.ports import StreamSource
from tests.conformance.stream_source import Bench, Features, StreamSourceConformance
from tests.conftest import MakeTopic
from tests.live.kafka_rig import kafka_settings


class KafkaBench:
    features = Features()

    def __init__(self, bootstrap: str, topic: str, producer: AIOKafkaProducer, *, plain: bool) -> None:
        self.shards = (f"{topic}-0", f"{topic}-1")
        self._bootstrap = bootstrap
        self._topic = topic
        self._producer = producer
        self._plain = plain

    def source(self, starting_position: str = "TRIM_HORIZON", since_s: float | None = None) -> StreamSource:
        return KafkaSource(
            kafka_settings(
                self._bootstrap,
                self._topic,
                starting_position=starting_position,
                starting_timestamp_s=since_s,
                drain_s=5.0,
            ),
            grace_s=0.0,
            plain=self._plain,
        )

    def _partition(self, shard: str) -> int:
        return self.shards.index(shard)

    async def append(self, shard: str, *values: bytes | None, key: bytes | None = None) -> list[int]:
        sent = [
            await self._producer.send(self._topic, value, key=key, partition=self._partition(shard)) for value in values
        ]
        return [(await each).offset for each in sent]

    async def trim(self, shard: str, before: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(self._topic, self._partition(shard)): RecordsToDelete(before)})
        finally:
            await admin.close()

    async def skip(self, shard: str) -> None:
        """Leave the marker of an empty transaction."""
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, transactional_id=self._topic) as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(self._topic, b"aborted", partition=self._partition(shard))
            await producer.abort_transaction()


class TestKafkaSource(StreamSourceConformance):
    @pytest.fixture(params=[False, True], ids=["fast", "plain"])
    async def bench(
        self, kafka_bootstrap: str, topic: MakeTopic, request: pytest.FixtureRequest
    ) -> AsyncIterator[Bench]:
        name = await topic(2)
        async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
            yield KafkaBench(kafka_bootstrap, name, producer, plain=request.param)
