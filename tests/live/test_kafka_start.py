"""Where a group starts, and what it does about topics and partitions that are missing or new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from connectors.kafka import KafkaSource
from router.core.facts import Progress
from router.errors import SourceUnavailable
from router.ports import Opened, Revoking
from tests.conformance.stream_source import running
from tests.conftest import MakeTopic
from tests.live.kafka_rig import kafka_settings


@pytest.fixture
async def admin(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as client:
        yield client


async def commit_from_outside(bootstrap: str, group: str, partition: TopicPartition, offset: int) -> None:
    """Do what kafka-consumer-groups --reset-offsets does."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([partition])
    await consumer.commit({partition: OffsetAndMetadata(offset, "")})
    await consumer.stop()


async def test_a_missing_topic_is_named_and_not_created_and_read_once_it_is_there(
    kafka_bootstrap: str, topic: MakeTopic, admin: AIOKafkaAdminClient, producer: AIOKafkaProducer
) -> None:
    name = f"{await topic()}-missing"
    source = KafkaSource(kafka_settings(kafka_bootstrap, name))
    with pytest.raises(SourceUnavailable, match=f"Kafka at {kafka_bootstrap} has no topic {name} .*: create it"):
        await source.open()
    assert name not in await admin.list_topics()
    await admin.create_topics([NewTopic(name, 1, 1)])
    try:
        await producer.send_and_wait(name, b"a")
        async with running(source, shards=1) as client:
            assert await client.read_values(f"{name}-0", -1, 1) == [b"a"]
    finally:
        await admin.delete_topics([name])


async def test_an_added_partition_is_read_from_its_beginning_even_with_latest(
    kafka_bootstrap: str, topic: MakeTopic, admin: AIOKafkaAdminClient, producer: AIOKafkaProducer
) -> None:
    name = await topic(1)
    source = KafkaSource(kafka_settings(kafka_bootstrap, name, starting_position="LATEST"), metadata_max_age_s=0.2)
    async with running(source, shards=1) as client:
        await admin.create_partitions({name: NewPartitions(2)})
        added = TopicPartition(name, 1)
        while added.partition not in await producer.partitions_for(name):
            await producer.client.force_metadata_update()
        await producer.send_and_wait(name, b"first of its partition", partition=1)
        assert await client.change() == Revoking(f"{name}-0")
        await source.release(f"{name}-0")
        await client.until_given(2)
        assert client.opened[f"{name}-1"].checkpoint is None
        start = await source.locate(f"{name}-1", lost=False)
        assert await client.read_values(f"{name}-1", start, 1) == [b"first of its partition"]


async def test_a_group_whose_offsets_are_gone_while_it_is_shared_starts_at_the_starting_position(
    kafka_bootstrap: str, topic: MakeTopic, producer: AIOKafkaProducer
) -> None:
    name = await topic(1)
    await producer.send_and_wait(name, b"before")
    stranger = AIOKafkaConsumer(
        name, bootstrap_servers=kafka_bootstrap, group_id=name, enable_auto_commit=False, heartbeat_interval_ms=200
    )
    await stranger.start()
    source = KafkaSource(kafka_settings(kafka_bootstrap, name, starting_position="LATEST"))
    await source.open()
    await stranger.stop()
    changes = source.changes()
    async with asyncio.timeout(30):
        opened = await anext(changes)
    assert opened == Opened(f"{name}-0", name, None, "")
    assert await source.locate(f"{name}-0", lost=False) == 0
    await source.close()


async def test_offsets_that_were_reset_from_outside_count_and_carry_no_retry_state(
    kafka_bootstrap: str, topic: MakeTopic, producer: AIOKafkaProducer
) -> None:
    name = await topic(1)
    for value in (b"a", b"b", b"c"):
        await producer.send_and_wait(name, value)
    async with running(KafkaSource(kafka_settings(kafka_bootstrap, name)), shards=1) as client:
        await client.source.commit({f"{name}-0": Progress(2, "state of the old position")})
    await commit_from_outside(kafka_bootstrap, name, TopicPartition(name, 0), 1)
    async with running(KafkaSource(kafka_settings(kafka_bootstrap, name)), shards=1) as client:
        assert client.opened[f"{name}-0"] == Opened(f"{name}-0", name, 0, "")
        assert await client.read_values(f"{name}-0", 0, 2) == [b"b", b"c"]


async def test_a_refused_commit_in_a_group_that_others_use_is_not_taken_for_done(
    kafka_bootstrap: str, topic: MakeTopic, producer: AIOKafkaProducer
) -> None:
    name = await topic(1)
    await producer.send_and_wait(name, b"a")
    async with running(KafkaSource(kafka_settings(kafka_bootstrap, name)), shards=1) as client:
        limit = client.source.retry_state_limit_bytes
        with pytest.raises(SourceUnavailable, match="OffsetMetadataTooLarge"):
            await client.source.commit({f"{name}-0": Progress(0, "x" * (limit + 1))})
    async with running(KafkaSource(kafka_settings(kafka_bootstrap, name)), shards=1) as client:
        assert client.opened[f"{name}-0"].checkpoint == -1


async def test_a_static_member_keeps_its_shards_over_a_restart_without_rebalance(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    settings = kafka_settings(kafka_bootstrap, name, group_instance_id="one")
    for _ in range(2):
        async with running(KafkaSource(settings), shards=1) as client:
            await client.source.commit({f"{name}-0": Progress(-1, "s")})
            assert client.opened.keys() == {f"{name}-0"}


async def test_a_topic_that_is_deleted_and_made_again_is_read_from_its_new_beginning(
    kafka_bootstrap: str, topic: MakeTopic, admin: AIOKafkaAdminClient
) -> None:
    name = f"{await topic()}-again"
    shard = f"{name}-0"
    source = KafkaSource(kafka_settings(kafka_bootstrap, name), metadata_max_age_s=0.2, call_s=2.0)
    await admin.create_topics([NewTopic(name, 1, 1)])
    await produce(kafka_bootstrap, name, b"old", b"old", b"old")
    await source.open()
    try:
        changes = source.changes()
        assert await anext(changes) == Opened(shard, name, -1)
        await source.commit({shard: Progress(2, "")})
        await admin.delete_topics([name])
        # Its partitions are gone, so they are taken from us.
        assert await anext(changes) == Revoking(shard)
        await source.release(shard)
        with pytest.raises(SourceUnavailable, match="the topic is not there any more"):
            await anext(changes)
    finally:
        await source.close()
    await admin.create_topics([NewTopic(name, 1, 1)])
    try:
        await produce(kafka_bootstrap, name, b"new")
        async with running(KafkaSource(kafka_settings(kafka_bootstrap, name)), shards=1) as client:
            assert client.opened[shard].checkpoint == -1
            assert await client.read_values(shard, -1, 1) == [b"new"]
    finally:
        await admin.delete_topics([name])


async def produce(bootstrap: str, name: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            await producer.send_and_wait(name, value)
