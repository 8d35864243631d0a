"""The Kinesis source against the suite, on an endpoint in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from connectors.kinesis import KinesisSource
from connectors.settings import KinesisSettings
from router.ports import ShardSource
from tests.conformance.shard_source import Bench, ShardSourceConformance
from tests.conformance.test_memory_shards import MemoryBench
from tests.fakes.kinesis_server import REGION, KinesisServer, kinesis_server


class FakeBench(MemoryBench):
    def __init__(self, server: KinesisServer) -> None:
        self.server = server
        self.stream = server.stream

    def source(self) -> ShardSource:
        return KinesisSource(KinesisSettings("m", self.server.name, self.server.http.url, REGION))


class ConsumerBench(FakeBench):
    """The same by a consumer, whose positions are those of records that may be put together."""

    def source(self) -> ShardSource:
        settings = KinesisSettings("m", self.server.consumer_arn, self.server.http.url, REGION)
        return KinesisSource(settings, wait_s=0.01)

    async def append(self, shard: str, *values: bytes) -> list[int]:
        read = self.source().codec.read_position
        return [read(str(position)) for position in await super().append(shard, *values)]

    async def trim(self, shard: str, before: int) -> None:
        await super().trim(shard, int(self.source().codec.write_position(before)))


class TestKinesisSource(ShardSourceConformance):
    @pytest.fixture(params=[FakeBench, ConsumerBench])
    async def bench(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        async with kinesis_server() as server:
            yield request.param(server)
