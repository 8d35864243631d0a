"""The Kinesis source against the suite, on LocalStack."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aioboto3
import pytest

from connectors.kinesis import KinesisSource
from connectors.settings import KinesisSettings
from router.ports import ShardSource
from tests.conformance.shard_source import Bench, Features, ShardSourceConformance

PATIENCE_S = 60.0


class KinesisBench:
    # Nobody can make a day pass there, and times are whole seconds.
    features = Features(trims=False, times_ms=1000)

    def __init__(self, client: Any, endpoint: str) -> None:
        self.client = client
        self.name = f"conformance-{uuid.uuid4().hex[:8]}"
        self.settings = KinesisSettings("m", self.name, endpoint, "us-east-1")

    def source(self) -> ShardSource:
        return KinesisSource(self.settings)

    async def create(self) -> None:
        await self.client.create_stream(StreamName=self.name, ShardCount=2)
        await self._until_active()

    async def append(self, shard: str, *values: bytes) -> list[int]:
        low = (await self._hashes(shard))[0]
        positions = []
        for number, value in enumerate(values):
            put = await self.client.put_record(
                StreamName=self.name, Data=value, PartitionKey=f"k-{number}", ExplicitHashKey=str(low)
            )
            assert put["ShardId"] == shard
            positions.append(self.source().codec.read_position(put["SequenceNumber"]))
        return positions

    def value(self, data: bytes | None) -> bytes | None:
        return data

    async def split(self, shard: str) -> tuple[str, str]:
        low, high = await self._hashes(shard)
        await self.client.split_shard(
            StreamName=self.name, ShardToSplit=shard, NewStartingHashKey=str((low + high) // 2)
        )
        return await self._children(shard, 2)

    async def merge(self, one: str, two: str) -> str:
        await self.client.merge_shards(StreamName=self.name, ShardToMerge=one, AdjacentShardToMerge=two)
        return (await self._children(one, 1))[0]

    async def trim(self, shard: str, before: int) -> None:
        raise NotImplementedError

    async def recreate(self) -> None:
        await self.delete()
        await self.create()

    async def delete(self) -> None:
        await self.client.delete_stream(StreamName=self.name, EnforceConsumerDeletion=True)
        async with asyncio.timeout(PATIENCE_S):
            while self.name in (await self.client.list_streams(Limit=1000))["StreamNames"]:
                pass

    async def _hashes(self, shard: str) -> tuple[int, int]:
        listed = (await self.client.list_shards(StreamName=self.name))["Shards"]
        [found] = [each["HashKeyRange"] for each in listed if each["ShardId"] == shard]
        return int(found["StartingHashKey"]), int(found["EndingHashKey"])

    async def _children(self, parent: str, count: int) -> Any:
        await self._until_active()
        async with asyncio.timeout(PATIENCE_S):
            children: list[str] = []
            while len(children) < count:
                listed = (await self.client.list_shards(StreamName=self.name))["Shards"]
                children = [each["ShardId"] for each in listed if each.get("ParentShardId") == parent]
        return tuple(children)

    async def _until_active(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            status = ""
            while status != "ACTIVE":
                found = await self.client.describe_stream_summary(StreamName=self.name)
                status = found["StreamDescriptionSummary"]["StreamStatus"]


@asynccontextmanager
async def kinesis_bench(endpoint: str, kind: type[KinesisBench] = KinesisBench) -> AsyncIterator[KinesisBench]:
    async with aioboto3.Session().client("kinesis", endpoint_url=endpoint) as client:
        bench = kind(client, endpoint)
        await bench.create()
        yield bench
        await bench.delete()


class ConsumerBench(KinesisBench):
    # A consumer goes with its stream.
    features = Features(trims=False, times_ms=1000, recreates=False)

    async def create(self) -> None:
        await super().create()
        found = await self.client.describe_stream_summary(StreamName=self.name)
        arn = found["StreamDescriptionSummary"]["StreamARN"]
        registered = await self.client.register_stream_consumer(StreamARN=arn, ConsumerName="conformance")
        consumer = registered["Consumer"]["ConsumerARN"]
        self.settings = replace(self.settings, stream=consumer)
        async with asyncio.timeout(PATIENCE_S):
            status = ""
            while status != "ACTIVE":
                described = await self.client.describe_stream_consumer(ConsumerARN=consumer)
                status = described["ConsumerDescription"]["ConsumerStatus"]


class TestKinesisConsumer(ShardSourceConformance):
    @pytest.fixture
    async def bench(self, streams_endpoint: str) -> AsyncIterator[Bench]:
        async with kinesis_bench(streams_endpoint, ConsumerBench) as bench:
            yield bench


class TestKinesisSource(ShardSourceConformance):
    @pytest.fixture
    async def bench(self, streams_endpoint: str) -> AsyncIterator[Bench]:
        async with kinesis_bench(streams_endpoint) as bench:
            yield bench
