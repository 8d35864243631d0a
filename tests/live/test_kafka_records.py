"""Records as producers really write them: headers, tombstones, large ones, transactions, compaction."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from connectors.kafka import KafkaSource
from router.core.facts import Demand
from tests.conformance.stream_source import Client, running
from tests.conftest import MakeTopic
from tests.live.kafka_rig import kafka_settings

MakeSource = Callable[..., KafkaSource]


@pytest.fixture(params=[False, True], ids=["fast", "plain"])
def source(kafka_bootstrap: str, request: pytest.FixtureRequest) -> MakeSource:
    """Make sources that read in one of the two ways."""

    def make(name: str, **settings: Any) -> KafkaSource:
        return KafkaSource(kafka_settings(kafka_bootstrap, name, **settings), plain=request.param)

    return make


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, max_request_size=2_000_000) as client:
        yield client


async def events(client: Client, shard: str, count: int) -> list[dict[str, Any]]:
    """Read the records as a function would see them."""
    rows: list[Any] = []
    after = -1
    async with asyncio.timeout(30):
        while len(rows) < count:
            if chunk := await client.read(shard, after):
                rows += chunk.rows
                after = chunk.through
    records: list[dict[str, Any]] = json.loads(client.source.codec.event(rows))["records"][shard]
    return records


async def read_all(client: Client, shard: str, through: int) -> list[int]:
    """Read until everything up to `through` is covered; returns the positions of the records."""
    positions: list[int] = []
    after = -1
    async with asyncio.timeout(30):
        while after < through:
            if chunk := await client.read(shard, after):
                positions += chunk.positions
                after = chunk.through
    assert after == through
    return positions


async def test_headers_tombstones_and_missing_keys(
    source: MakeSource, topic: MakeTopic, producer: AIOKafkaProducer
) -> None:
    name = await topic()
    headers = [("trace", b"abc"), ("bin", b"\xdc\x00\x7f\x80"), ("trace", b"")]
    stamp_ms = int(time.time() * 1000) - 5000
    await producer.send_and_wait(name, b"v", key=b"k", headers=headers, timestamp_ms=stamp_ms)
    await producer.send_and_wait(name, None, key=b"k")
    await producer.send_and_wait(name, b"v")
    async with running(source(name), shards=1) as client:
        full, tombstone, keyless = await events(client, f"{name}-0", 3)
    assert full == {
        "topic": name,
        "partition": 0,
        "offset": 0,
        "timestamp": stamp_ms,
        "timestampType": "CREATE_TIME",
        "key": "aw==",
        "value": "dg==",
        "headers": [{"trace": [97, 98, 99]}, {"bin": [-36, 0, 127, -128]}, {"trace": []}],
    }
    assert "value" not in tombstone
    assert "key" not in keyless


async def test_a_topic_that_stamps_records_itself(
    source: MakeSource, topic: MakeTopic, producer: AIOKafkaProducer
) -> None:
    name = await topic(message_timestamp_type="LogAppendTime")
    await producer.send_and_wait(name, b"v", timestamp_ms=1)
    async with running(source(name), shards=1) as client:
        [record] = await events(client, f"{name}-0", 1)
    assert record["timestampType"] == "LOG_APPEND_TIME"
    assert record["timestamp"] > 1


async def test_records_larger_than_one_fetch(source: MakeSource, topic: MakeTopic, producer: AIOKafkaProducer) -> None:
    name = await topic(2)
    values = [bytes([number]) * 1_000_000 for number in range(6)]
    for number, value in enumerate(values):
        await producer.send_and_wait(name, value, partition=number % 2)
    async with running(source(name)) as client:
        assert await client.read_values(f"{name}-0", -1, 3) == values[0::2]
        assert await client.read_values(f"{name}-1", -1, 3) == values[1::2]


async def test_one_read_covers_all_partitions(source: MakeSource, topic: MakeTopic, producer: AIOKafkaProducer) -> None:
    name = await topic(3)
    for partition in range(3):
        await producer.send_and_wait(name, b"v", partition=partition)
    async with running(source(name), shards=3) as client:
        [unit] = {opened.unit for opened in client.opened.values()}
        seen: set[str] = set()
        async with asyncio.timeout(30):
            while len(seen) < 3:
                demand = {shard: Demand(-1, 10) for shard in client.opened.keys() - seen}
                seen |= {chunk.shard for chunk in await client.source.read(unit, demand)}


async def transactions(bootstrap: str, name: str) -> int:
    """Write a b | c (aborted) | d, each in a transaction; returns the last offset, that of the last marker."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name) as producer:
        for values, committed in (((b"a", b"b"), True), ((b"c",), False), ((b"d",), True)):
            await producer.begin_transaction()
            for value in values:
                await producer.send_and_wait(name, value)
            await (producer.commit_transaction() if committed else producer.abort_transaction())
    return 6


async def test_a_reader_of_committed_records_passes_aborted_ones_and_markers(
    kafka_bootstrap: str, source: MakeSource, topic: MakeTopic
) -> None:
    name = await topic()
    last = await transactions(kafka_bootstrap, name)
    async with running(source(name), shards=1) as client:
        assert await read_all(client, f"{name}-0", last) == [0, 1, 5]
        assert client.source.newest(f"{name}-0") == last


async def test_a_reader_of_all_records_sees_aborted_ones_and_no_markers(
    kafka_bootstrap: str, source: MakeSource, topic: MakeTopic
) -> None:
    name = await topic()
    last = await transactions(kafka_bootstrap, name)
    async with running(source(name, isolation_level="read_uncommitted"), shards=1) as client:
        assert await read_all(client, f"{name}-0", last) == [0, 1, 3, 5]


async def test_an_open_transaction_is_not_read_before_it_ends(
    kafka_bootstrap: str, source: MakeSource, topic: MakeTopic
) -> None:
    name = await topic()
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=name) as producer,
        running(source(name), shards=1) as client,
    ):
        await producer.begin_transaction()
        await producer.send_and_wait(name, b"a")
        assert await client.read(f"{name}-0", -1) is None
        await producer.commit_transaction()
        assert await client.read_values(f"{name}-0", -1, 1) == [b"a"]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_compression(kafka_bootstrap: str, source: MakeSource, topic: MakeTopic, compression: str) -> None:
    name = await topic()
    values = [b"%d" % number * 50 for number in range(100)]
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, compression_type=compression) as producer:
        for sent in [await producer.send(name, value) for value in values]:
            await sent
    async with running(source(name), shards=1) as client:
        assert await client.read_values(f"{name}-0", -1, 100) == values
