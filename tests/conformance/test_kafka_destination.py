"""A Kafka topic as a destination, against the suite, and what it alone must do."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from connectors.kafka_destination import KafkaSender
from connectors.settings import KafkaDestination, Secret, Security
from router.errors import DestinationUnavailable
from router.ports import Sent
from tests.conformance.destination import (
    DestinationConformance,
    LimitConformance,
    Received,
    assert_claim_check,
    expected,
    in_order,
    message,
)
from tests.conftest import has_leaders

ARRIVAL_S = 20


def unique() -> str:
    return f"headrace-test-{uuid.uuid4().hex[:12]}"


@dataclass
class KafkaPlace:
    bootstrap: str
    topic: str
    destination: KafkaSender
    payload = "record"

    async def make(self, **configs: str) -> None:
        async with self._admin() as admin:
            await admin.create_topics([NewTopic(self.topic, 2, 1, topic_configs=configs)])
            async with asyncio.timeout(ARRIVAL_S):
                while not await has_leaders(admin, self.topic, 2):
                    pass  # every turn is a round trip to the broker

    async def remove(self) -> None:
        async with self._admin() as admin:
            await admin.delete_topics([self.topic])
            async with asyncio.timeout(ARRIVAL_S):
                while self.topic in await admin.list_topics():
                    pass  # every turn is a round trip to the broker

    async def limit(self, limit_bytes: int) -> None:
        configs = {"max.message.bytes": str(limit_bytes)}
        async with self._admin() as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic, configs)])

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def received(self, count: int) -> Received:
        found: Received = []
        consumer = AIOKafkaConsumer(self.topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            async with asyncio.timeout(ARRIVAL_S):
                while len(found) < count:
                    record = await consumer.getone()
                    found.append((record.key, json.loads(record.value or b"")))
        finally:
            await consumer.stop()
        return found


def kafka(topic: str, bootstrap: str, security: Security | None = None) -> KafkaSender:
    return KafkaSender(KafkaDestination(topic, (bootstrap,), security or Security()))


class TestKafka(DestinationConformance, LimitConformance):
    @pytest.fixture
    async def place(self, kafka_bootstrap: str) -> AsyncIterator[KafkaPlace]:
        name = unique()
        place = KafkaPlace(kafka_bootstrap, name, kafka(name, kafka_bootstrap))
        yield place
        await place.destination.close()
        async with place._admin() as admin:
            if name in await admin.list_topics():
                await admin.delete_topics([name])

    async def test_a_missing_topic_is_named_and_not_created(self, place: KafkaPlace) -> None:
        for _ in range(2):
            with pytest.raises(DestinationUnavailable, match=rf"Kafka topic {place.topic} at .*there is no such topic"):
                await place.destination.send(message())

    async def test_only_the_records_that_are_too_large_are_claim_checks_and_keep_their_keys(
        self, place: KafkaPlace
    ) -> None:
        await place.make(**{"max.message.bytes": "20000"})
        event = json.dumps({"records": {"t-0": [record(1, "A" * 40_000), record(2, "B"), record(3, "C" * 30_000)]}})
        sent = message(event=event.encode())
        assert await place.destination.send(sent) is Sent.CLAIM_CHECK
        received = {each["KafkaBatchInfo"]["recordInfo"]["offset"]: each for _, each in await place.received(3)}
        assert "claimCheck" not in received["2"]
        assert received["2"]["payload"]["records"]["t-0"][0]["value"] == "B"
        for offset in ("1", "3"):
            assert_claim_check(received[offset], sent)
        assert {key for key, _ in await place.received(3)} == {b"k"}

    async def test_many_small_records_pass_a_limit_that_is_smaller_than_what_travels_together(
        self, place: KafkaPlace
    ) -> None:
        await place.make(**{"max.message.bytes": "2000"})
        event = json.dumps({"records": {"t-0": [record(number, "A" * 300) for number in range(40)]}})
        sent = message(event=event.encode())
        assert await place.destination.send(sent) is Sent.WHOLE
        wanted = expected(sent, place.payload)
        assert in_order(await place.received(len(wanted))) == in_order(wanted)


def record(offset: int, value: str) -> dict[str, Any]:
    return {"topic": "t", "partition": 0, "offset": offset, "timestamp": 1000, "key": "aw==", "value": value}


async def test_a_cluster_that_is_away_is_named() -> None:
    for attempt in (kafka("dlq", "127.0.0.1:9").check(), kafka("dlq", "127.0.0.1:9").send(message())):
        with pytest.raises(DestinationUnavailable, match=r"Kafka topic dlq at 127\.0\.0\.1:9: .*connection refused"):
            await attempt


async def test_a_broker_that_never_answers_is_given_up_and_named() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        sender = kafka("dlq", f"127.0.0.1:{port}")
        with pytest.raises(DestinationUnavailable, match=rf"Kafka topic dlq at 127\.0\.0\.1:{port}: "):
            await sender.send(message())
        await sender.close()


async def test_a_refused_login_is_named(kafka_listeners: Any) -> None:
    login = Security(protocol="SASL_PLAINTEXT", mechanism="SCRAM-SHA-256", username="esm", password=Secret("wrong-one"))
    with pytest.raises(DestinationUnavailable, match="authentication failed for user esm") as raised:
        await kafka("dlq", kafka_listeners.sasl, login).send(message())
    assert "wrong-one" not in str(raised.value)
