"""The broker that is measured on, and topics full of records, made once and used again."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import murmur2
from aiokafka.structs import TopicPartition

PARTITIONS = 8
KEYS = [b"key-%06d" % number for number in range(1000)]

_SERVICES = Path(__file__).parents[1] / "tests" / "services" / "services"
_BATCH_BYTES = 64 * 1024
_WAIT_S = 30


def bootstrap() -> str:
    """Give the plain address of a Kafka: HEADRACE_TEST_KAFKA, else one started by the project's own script."""
    named = os.environ.get("HEADRACE_TEST_KAFKA")
    if named:
        return named
    subprocess.run([sys.executable, _SERVICES, "start", "kafka"], check=True, stdout=sys.stderr)
    shown = subprocess.run([sys.executable, _SERVICES, "env", "kafka"], check=True, capture_output=True, text=True)
    exports = dict(shlex.split(line)[1].split("=", 1) for line in shown.stdout.splitlines())
    return exports["HEADRACE_TEST_KAFKA"]


async def filled(servers: str, records: int, size_bytes: int, partitions: int = PARTITIONS) -> str:
    """Give the name of a topic that holds just so many records of random bytes; fill it when there is none."""
    topic = f"headrace-bench-{records}x{size_bytes}x{partitions}"
    async with _admin(servers) as admin:
        if topic in await admin.list_topics():
            if await _count(servers, topic, partitions) == records:
                return topic
            await admin.delete_topics([topic])
            await _wait_for(lambda: _is_gone(admin, topic))
        await create(admin, topic, partitions)
    print(f"filling {topic} ...", file=sys.stderr, flush=True)
    await _fill(servers, topic, records, size_bytes, partitions)
    return topic


@asynccontextmanager
async def temporary(servers: str, name: str, settings: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Give a new empty topic, with settings of the broker's for topics; delete it afterwards."""
    topic = f"{name}-{os.getpid()}-{random.getrandbits(32):08x}"
    async with _admin(servers) as admin:
        await create(admin, topic, settings=settings)
        try:
            yield topic
        finally:
            await admin.delete_topics([topic])


async def create(
    admin: AIOKafkaAdminClient, topic: str, partitions: int = PARTITIONS, settings: Mapping[str, str] | None = None
) -> None:
    """Create a topic and wait until it can be written."""
    await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=dict(settings or {}))])
    await _wait_for(lambda: _has_leaders(admin, topic, partitions))


async def committed(servers: str, group: str) -> int:
    """Give the sum of a group's committed offsets."""
    async with _admin(servers) as admin:
        offsets = await admin.list_consumer_group_offsets(group)
        return sum(max(0, found.offset) for found in offsets.values())


async def _wait_for(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_WAIT_S):
        while not await is_so():
            pass  # every turn is a round trip to the broker


async def _is_gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return topic not in await admin.list_topics()


async def _has_leaders(admin: AIOKafkaAdminClient, topic: str, partitions: int) -> bool:
    [described] = await admin.describe_topics([topic])
    led = [found for found in described["partitions"] if not found["error_code"] and found["leader"] >= 0]
    return len(led) == partitions


async def _count(servers: str, topic: str, partitions: int) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
        return sum(ends.values())
    finally:
        await consumer.stop()


async def _fill(servers: str, topic: str, records: int, size_bytes: int, partitions: int) -> None:
    pool = random.Random(1).randbytes(size_bytes + 65536)
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=_BATCH_BYTES, acks="all")
    await producer.start()
    try:
        batches = [producer.create_batch() for _ in range(partitions)]
        # as Kafka's own clients place keys
        places = [(murmur2(key) & 0x7FFFFFFF) % partitions for key in KEYS]
        for number in range(records):
            key = KEYS[number % len(KEYS)]
            value = pool[number % 65536 :][:size_bytes]
            partition = places[number % len(KEYS)]
            if batches[partition].append(key=key, value=value, timestamp=None) is None:
                await producer.send_batch(batches[partition], topic, partition=partition)
                batches[partition] = producer.create_batch()
                batches[partition].append(key=key, value=value, timestamp=None)
        for partition, batch in enumerate(batches):
            if batch.record_count():
                await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()
    finally:
        await producer.stop()
    assert await _count(servers, topic, partitions) == records


@asynccontextmanager
async def _admin(servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
