"""The destinations that we have, against the suite, and what each alone must do."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors.aws import sqs_client
from connectors.destinations import FileSender, SqsSender
from connectors.kafka_destination import KafkaSender
from connectors.settings import FileDestination, KafkaDestination, Secret, Security, SqsDestination
from router.errors import DestinationUnavailable
from tests.conformance.destination import DestinationConformance, Received, expected, message
from tests.fakes.destination import MemoryDestination

ARRIVAL_S = 20


def unique() -> str:
    return f"headrace-test-{uuid.uuid4().hex[:12]}"


# --- memory


@dataclass
class MemoryPlace:
    destination: MemoryDestination = field(default_factory=MemoryDestination)
    payload = "none"

    def __post_init__(self) -> None:
        self.destination.fault = "there is nothing; make it"

    async def make(self) -> None:
        self.destination.fault = None

    async def received(self, count: int) -> Received:
        found = [record for sent in self.destination.accepted for record in expected(sent, self.payload)]
        assert len(found) == count
        return found


class TestMemory(DestinationConformance):
    @pytest.fixture
    async def place(self) -> MemoryPlace:
        return MemoryPlace()


# --- file


class FilePlace:
    payload = "event"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.destination = FileSender(FileDestination(path))

    async def make(self) -> None:
        self.path.parent.mkdir()

    async def received(self, count: int) -> Received:
        lines = self.path.read_text().splitlines()
        assert len(lines) == count
        return [(None, json.loads(line)) for line in lines]


class TestFile(DestinationConformance):
    @pytest.fixture
    async def place(self, tmp_path: Path) -> FilePlace:
        return FilePlace(tmp_path / "failed" / "orders.jsonl")

    async def test_only_this_user_may_read_it(self, place: FilePlace) -> None:
        await place.make()
        await place.destination.send(message())
        assert stat.S_IMODE(place.path.stat().st_mode) == 0o600

    async def test_what_was_there_stays_and_half_a_line_is_ended(self, place: FilePlace) -> None:
        await place.make()
        place.path.write_text('{"first":1}\n{"torn')
        await place.destination.send(message())
        first, torn, whole = place.path.read_text().splitlines()
        assert (first, torn) == ('{"first":1}', '{"torn')
        assert json.loads(whole)["requestContext"]["requestId"] == "f1"

    async def test_a_directory_or_device_is_refused(self, tmp_path: Path) -> None:
        for path, reason in ((tmp_path, "Is a directory"), (Path("/dev/null"), "no regular file")):
            with pytest.raises(DestinationUnavailable, match=reason):
                await FileSender(FileDestination(path)).send(message())

    async def test_a_full_disk_leaves_no_half_line(self) -> None:
        with pytest.raises(DestinationUnavailable, match="/dev/full"):
            await FileSender(FileDestination(Path("/dev/full"))).send(message())


# --- SQS


@dataclass
class SqsPlace:
    endpoint: str
    queue: str
    destination: SqsSender
    client: Any
    payload = "none"
    url = ""

    async def make(self) -> None:
        self.url = (await self.client.create_queue(QueueName=self.queue))["QueueUrl"]

    async def received(self, count: int) -> Received:
        found: Received = []
        async with asyncio.timeout(ARRIVAL_S):
            while len(found) < count:
                answer = await self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                for each in answer.get("Messages", ()):
                    found.append((None, json.loads(each["Body"])))
                    await self.client.delete_message(QueueUrl=self.url, ReceiptHandle=each["ReceiptHandle"])
        return found


def sqs(queue: str, endpoint: str | None, region: str | None = "us-east-1") -> SqsSender:
    return SqsSender(SqsDestination(queue, endpoint, region))


class TestSqs(DestinationConformance):
    @pytest.fixture
    async def place(self, aws_endpoint: str) -> AsyncIterator[SqsPlace]:
        queue = unique()
        async with sqs_client(aws_endpoint, "us-east-1") as client:
            place = SqsPlace(aws_endpoint, queue, sqs(queue, aws_endpoint), client)
            yield place
            await place.destination.close()
            if place.url:
                await client.delete_queue(QueueUrl=place.url)

    async def test_a_queue_goes_by_name_url_or_arn(self, place: SqsPlace) -> None:
        await place.make()
        arn = f"arn:aws:sqs:us-east-1:000000000000:{place.queue}"
        for queue, region in ((place.queue, "us-east-1"), (place.url, "us-east-1"), (arn, None)):
            sender = sqs(queue, place.endpoint, region)
            await sender.check()
            await sender.send(message())
            await sender.close()
            assert sender.name == f"sqs:{place.queue}"
        assert len(await place.received(3)) == 3

    async def test_a_missing_queue_is_named(self, place: SqsPlace) -> None:
        with pytest.raises(DestinationUnavailable, match=f"SQS queue {place.queue}: the queue does not exist there"):
            await place.destination.send(message())


async def test_an_endpoint_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(DestinationUnavailable, match="SQS queue dlq: it cannot be reached; check endpoint_url"):
        await sqs("dlq", "http://127.0.0.1:9").check()
    with pytest.raises(DestinationUnavailable, match="correct endpoint_url"):
        await sqs("dlq", "no url").check()


async def test_missing_credentials_and_region_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DestinationUnavailable, match="there are no credentials; set AWS_ACCESS_KEY_ID"):
        await sqs("dlq", "http://127.0.0.1:9").check()
    with pytest.raises(DestinationUnavailable, match=r"there is no region; set aws.region"):
        await sqs("dlq", None, None).check()


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("InvalidClientTokenId", "the credentials are not accepted"),
        ("AccessDenied", "the credentials do not allow this"),
        ("Throttling", "it is throttled"),
        ("Strange", "Strange: it said no"),
    ],
)
async def test_a_refusal_of_the_service_is_named(code: str, meaning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    requests = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "it said no"}).encode()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DestinationUnavailable, match=meaning) as raised:
            await sqs("dlq", f"http://127.0.0.1:{port}").send(message())
    assert requests == 1
    assert "very-secret" not in str(raised.value)


# --- Kafka


@dataclass
class KafkaPlace:
    bootstrap: str
    topic: str
    destination: KafkaSender
    payload = "record"

    async def make(self, **configs: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(self.topic, 2, 1, topic_configs=configs)])
        async with asyncio.timeout(ARRIVAL_S):
            while not await self._has_leaders(admin):
                pass  # every turn is a round trip to the broker
        await admin.close()

    async def _has_leaders(self, admin: AIOKafkaAdminClient) -> bool:
        [topic] = await admin.describe_topics([self.topic])
        led = [each for each in topic["partitions"] if not each["error_code"] and each["leader"] >= 0]
        return len(led) == 2

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


class TestKafka(DestinationConformance):
    @pytest.fixture
    async def place(self, kafka_bootstrap: str) -> AsyncIterator[KafkaPlace]:
        name = unique()
        place = KafkaPlace(kafka_bootstrap, name, kafka(name, kafka_bootstrap))
        yield place
        await place.destination.close()
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        if name in await admin.list_topics():
            await admin.delete_topics([name])
        await admin.close()

    async def test_a_missing_topic_is_named_and_not_created(self, place: KafkaPlace) -> None:
        for _ in range(2):
            with pytest.raises(DestinationUnavailable, match=rf"Kafka topic {place.topic} at .*there is no such topic"):
                await place.destination.send(message())

    async def test_a_record_beyond_the_brokers_limit_is_named_and_later_ones_pass(self, place: KafkaPlace) -> None:
        await place.make(**{"max.message.bytes": "20000"})
        record = {"topic": "t", "partition": 0, "offset": 1, "timestamp": 1000, "value": "A" * 40_000}
        with pytest.raises(DestinationUnavailable, match=r"larger than the broker takes; raise max\.message\.bytes"):
            await place.destination.send(message(event=json.dumps({"records": {"t-0": [record]}}).encode()))
        await place.destination.send(message())
        assert len(await place.received(3)) == 3


async def test_a_cluster_that_is_away_is_named() -> None:
    for attempt in (kafka("dlq", "127.0.0.1:9").check(), kafka("dlq", "127.0.0.1:9").send(message())):
        with pytest.raises(DestinationUnavailable, match=r"Kafka topic dlq at 127\.0\.0\.1:9: .*connection refused"):
            await attempt


async def test_a_refused_login_is_named(kafka_listeners: Any) -> None:
    login = Security(protocol="SASL_PLAINTEXT", mechanism="SCRAM-SHA-256", username="esm", password=Secret("wrong-one"))
    with pytest.raises(DestinationUnavailable, match="authentication failed for user esm") as raised:
        await kafka("dlq", kafka_listeners.sasl, login).send(message())
    assert "wrong-one" not in str(raised.value)
