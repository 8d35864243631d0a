"""Trouble with Kafka as the operator meets it: said in one line, nobody else's trouble, over when its cause is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.conftest import KafkaListeners, MakeTopic
from tests.live.daemon import Daemon, await_committed, cluster, committed, plain, produce
from tests.live.kafka_proxy import KafkaProxy

#: Writes the offset of every record it is given, then fails those that say so.
ORDERS = """
import base64, json, os
def handle(event, context):
    for records in event["records"].values():
        for record in records:
            with open(os.environ["LEDGER"], "a") as ledger:
                print(record["offset"], file=ledger)
            if json.loads(base64.b64decode(record["value"])) == "poison":
                raise ValueError("no total")
"""


@pytest.fixture
def names() -> Iterator[str]:
    """The name of a topic that nobody has made yet."""
    return iter(lambda: f"headrace-test-{uuid.uuid4().hex[:12]}", "")


def offsets(ledger: Path) -> list[int]:
    return [int(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


async def make(bootstrap: str, *topics: str) -> None:
    async with cluster(bootstrap) as admin:
        await admin.create_topics([NewTopic(name, 1, 1) for name in topics])


async def unmake(bootstrap: str, *topics: str) -> None:
    async with cluster(bootstrap) as admin:
        await admin.delete_topics(list(topics))


async def test_each_mapping_has_its_own_trouble_and_says_which(
    tmp_path: Path, kafka_listeners: KafkaListeners, names: Iterator[str], topic: MakeTopic
) -> None:
    bootstrap = kafka_listeners.plaintext
    good, missing, dead_letters = await topic(1), next(names), next(names)
    wrong = {
        **plain(kafka_listeners.sasl, good),
        "consumer_group": f"{good}-wrong",
        "security": {
            "protocol": "SASL_PLAINTEXT",
            "mechanism": "SCRAM-SHA-256",
            "username": kafka_listeners.user,
            "password": "hunter2-is-wrong",
        },
    }
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", ORDERS, environment={"LEDGER": str(tmp_path / "ledger")})
        daemon.mapping(
            "good",
            plain(bootstrap, good),
            function="orders",
            batch_size=1,
            maximum_retry_attempts=0,
            destination_config={"on_failure": {"kafka": {"topic": dead_letters}}},
        )
        daemon.mapping("wrong", wrong, function="orders")
        daemon.mapping("missing", plain(bootstrap, missing), function="orders", batch_size=1)
        await daemon.start()

        waits = {"wrong": "password", "missing": f"no topic {missing}"}
        for mapping, cause in waits.items():
            line = await daemon.line("mapping.waiting", mapping=mapping)
            status = await daemon.status(mapping)
            assert status["state"] == "starting"
            for said in (line["error"], str(status["reason"])):
                assert cause in said
                assert "\n" not in said
        assert "hunter2" not in str(daemon.lines)

        await produce(bootstrap, good, [(None, "fine"), (None, "poison"), (None, "fine")])
        await await_committed(bootstrap, good, {0: 3})
        refused = await daemon.line("failure.not_delivered", mapping="good")
        assert dead_letters in refused["error"]
        [failure] = await daemon.failures("--mapping", "good")
        assert failure["status"] == "stored"

        await make(bootstrap, missing, dead_letters)
        try:
            await produce(bootstrap, missing, [(None, "late")])
            await await_committed(bootstrap, missing, {0: 1})
            await daemon.line("failure.delivered", failure=failure["id"])
            # It is told before it is stored.
            await daemon.until_failures(
                lambda found: [each["status"] for each in found] == ["delivered"], "it is delivered"
            )
            async with AIOKafkaConsumer(dead_letters, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as at:
                record = json.loads((await at.getone()).value)
            assert record["requestContext"]["condition"] == "RetriesExhausted"
            assert (await daemon.status("wrong"))["state"] == "starting"
            assert await daemon.terminate() == 0
        finally:
            await unmake(bootstrap, missing, dead_letters)


async def test_a_broker_that_comes_late_and_goes_again(tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic) -> None:
    away, steady = await topic(1), await topic(1)
    ledger = tmp_path / "ledger"
    proxy = KafkaProxy(kafka_bootstrap)
    await proxy.mend()
    await proxy.cut()
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", ORDERS, environment={"LEDGER": str(ledger)})
        daemon.function("steady", ORDERS, environment={"LEDGER": str(tmp_path / "other")})
        daemon.mapping("orders", {**plain(proxy.address, away), "session_timeout": "60s"})
        daemon.mapping("steady", plain(kafka_bootstrap, steady))
        await daemon.start()
        waiting = await daemon.line("mapping.waiting", mapping="orders")
        assert "connection refused" in waiting["error"]
        await proxy.mend()
        await produce(kafka_bootstrap, away, [(None, number) for number in range(100)])
        await await_committed(kafka_bootstrap, away, {0: 100})

        await proxy.cut()
        await produce(kafka_bootstrap, steady, [(None, number) for number in range(100)])
        await await_committed(kafka_bootstrap, steady, {0: 100})
        failed = await daemon.line("source.failed", mapping="orders")
        assert "connection refused" in failed["error"]
        assert "connection refused" in str((await daemon.status("orders"))["reason"])
        await produce(kafka_bootstrap, away, [(None, number) for number in range(100)])
        await proxy.mend()
        await await_committed(kafka_bootstrap, away, {0: 200})
        assert await daemon.terminate() == 0
        await proxy.cut()
    assert offsets(ledger) == list(range(200))


async def test_an_offset_set_from_outside_counts_and_voids_the_retries(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", ORDERS, environment={"LEDGER": str(ledger)})
        daemon.mapping("orders", plain(kafka_bootstrap, name), batch_size=1)
        await produce(kafka_bootstrap, name, [(None, "fine"), (None, "fine"), (None, "poison"), (None, "fine")])
        await daemon.start()
        await daemon.line("batch.failed", attempts=2)
        assert await daemon.terminate() == 0
        offset, retry_state = (await committed(kafka_bootstrap, name))[0]
        assert offset == 2
        assert retry_state

        delivered = len(offsets(ledger))
        await set_offset(kafka_bootstrap, name, 1, retry_state)
        after = len(daemon.lines)
        await daemon.start()
        await daemon.line("retry_state.voided", after=after)
        failed = await daemon.line("batch.failed", after=after)
        assert failed["attempts"] == 1
        assert offsets(ledger)[delivered : delivered + 2] == [1, 2]
        await daemon.kill()

        delivered = len(offsets(ledger))
        async with cluster(kafka_bootstrap) as admin:
            await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(3)})
        after = len(daemon.lines)
        await daemon.start()
        await daemon.line("position.lost", after=after)
        await await_committed(kafka_bootstrap, name, {0: 4})
        assert offsets(ledger)[delivered:] == [3]
        assert await daemon.terminate() == 0


async def set_offset(bootstrap: str, topic: str, offset: int, metadata: str) -> None:
    """Move a group that has no members, as `kafka-consumer-groups --reset-offsets` does."""
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=topic, enable_auto_commit=False) as consumer:
        consumer.assign([partition])
        await consumer.commit({partition: OffsetAndMetadata(offset, metadata)})


async def test_records_of_every_shape_arrive_as_they_are(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    shapes, filtered = await topic(1, max_message_bytes="2000000"), await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("shapes", SHAPES, memory_size=512, timeout=30, environment={"LEDGER": str(ledger)})
        daemon.mapping("shapes", plain(kafka_bootstrap, shapes), maximum_retry_attempts=0)
        pattern = {"value": {"kind": ["order"]}}
        daemon.mapping(
            "filtered",
            plain(kafka_bootstrap, filtered),
            function="shapes",
            filter_criteria={"filters": [{"pattern": pattern}]},
        )
        big = [("big", b"x" * 1_000_000) for _ in range(8)]
        await produce(kafka_bootstrap, shapes, [("key", None), (None, b"\xff\x00"), *big])
        await produce(
            kafka_bootstrap, filtered, [("f0", b"no json"), ("f1", {"kind": "order"}), ("f2", None), ("f3", [1])]
        )
        await daemon.start()
        await await_committed(kafka_bootstrap, shapes, {0: 10})
        await await_committed(kafka_bootstrap, filtered, {0: 4})
        assert await daemon.failures() == []
        assert await daemon.terminate() == 0
    lines = ledger.read_text().splitlines()
    assert [line for line in lines if not line.startswith("f")] == [
        "key -",
        "- 2",
        *["big 1000000"] * 8,
    ]
    # A pattern for fields of the data says nothing about data without fields; a tombstone and a list have none of them.
    assert [line for line in lines if line.startswith("f")] == ["f0 7", "f1 17"]


SHAPES = """
import base64, os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        for records in event["records"].values():
            for record in records:
                key = base64.b64decode(record["key"]).decode() if "key" in record else "-"
                size = len(base64.b64decode(record["value"])) if "value" in record else "-"
                print(key, size, file=ledger)
"""
