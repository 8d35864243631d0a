"""Reading a topic by pages on a real Kafka: what is there, what is deleted, what is skipped."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from connectors.kafka_pages import KafkaPages
from router.core.model import Chunk
from router.errors import PositionLost, ShardGone, SourceUnavailable
from tests.conftest import MakeTopic
from tests.live.daemon import cluster, committed, produce
from tests.live.kafka_rig import kafka_settings


async def everything(pages: KafkaPages, shard: str, first: int) -> list[Chunk]:
    """Read pages until nothing more waits."""
    chunks = [await pages.page(shard, first)]
    while chunks[-1].more:
        chunks.append(await pages.page(shard, chunks[-1].through + 1))
    return chunks


async def test_pages_follow_each_other_from_any_offset_and_move_no_group(
    topic: MakeTopic, kafka_bootstrap: str
) -> None:
    name = await topic(2)
    await produce(kafka_bootstrap, name, [(f"k{number}", number) for number in range(1200)], partition=0)
    await produce(kafka_bootstrap, name, [("other", "x")], partition=1)
    pages = KafkaPages(kafka_settings(kafka_bootstrap, name))
    await pages.open()
    try:
        chunks = await everything(pages, f"{name}-0", 7)
        assert [position for chunk in chunks for position in chunk.positions] == list(range(7, 1200))
        assert chunks[0].keys[0] == b"k7"
        [other] = await everything(pages, f"{name}-1", 0)
        assert list(other.positions) == [0]
        [behind] = await everything(pages, f"{name}-0", 1200)
        assert (list(behind.positions), behind.more) == ([], False)
        with pytest.raises(ShardGone, match="has no partition"):
            await pages.page(f"{name}-2", 0)
    finally:
        await pages.close()
    assert await committed(kafka_bootstrap, name) == {}


async def test_what_is_deleted_is_lost_and_what_is_left_begins_behind_it(
    topic: MakeTopic, kafka_bootstrap: str
) -> None:
    name = await topic()
    await produce(kafka_bootstrap, name, [(None, number) for number in range(10)])
    async with cluster(kafka_bootstrap) as admin:
        await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(4)})
    pages = KafkaPages(kafka_settings(kafka_bootstrap, name))
    await pages.open()
    try:
        with pytest.raises(PositionLost, match="begins at 4"):
            await pages.page(f"{name}-0", 3)
        [chunk] = await everything(pages, f"{name}-0", 0)
        assert list(chunk.positions) == list(range(4, 10))
    finally:
        await pages.close()


async def test_what_a_transaction_took_back_is_passed_over(topic: MakeTopic, kafka_bootstrap: str) -> None:
    name = await topic()
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=name) as producer:
        for keep in (True, False, True, False):
            await producer.begin_transaction()
            await producer.send_and_wait(name, b"kept" if keep else b"taken back")
            await (producer.commit_transaction() if keep else producer.abort_transaction())
    pages = KafkaPages(kafka_settings(kafka_bootstrap, name))
    await pages.open()
    try:
        chunks = await everything(pages, f"{name}-0", 0)
        assert [row.value for chunk in chunks for row in chunk.rows] == [b"kept", b"kept"]
    finally:
        await pages.close()


async def test_a_topic_that_is_not_there_is_told(kafka_bootstrap: str) -> None:
    pages = KafkaPages(kafka_settings(kafka_bootstrap, "headrace-test-no-such-topic"))
    with pytest.raises(SourceUnavailable, match="has no topic headrace-test-no-such-topic"):
        await pages.open()
    await pages.close()
    away = KafkaPages(kafka_settings("127.0.0.1:1", "orders"))
    with pytest.raises(SourceUnavailable, match="connection refused"):
        await away.open()
