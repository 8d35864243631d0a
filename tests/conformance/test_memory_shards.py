"""The stream of shards in memory against the suite."""

from __future__ import annotations

import pytest

from router.ports import ShardSource
from tests.conformance.shard_source import Bench, Features, ShardSourceConformance
from tests.fakes.shard_stream import ShardStream, ShardStreamSource


class MemoryBench:
    features = Features()

    def __init__(self) -> None:
        self.stream = ShardStream()

    def source(self) -> ShardSource:
        return ShardStreamSource(self.stream)

    async def append(self, shard: str, *values: bytes) -> list[int]:
        return [self.stream.append(shard, value, key=b"k-%d" % number).position for number, value in enumerate(values)]

    def value(self, data: bytes | None) -> bytes | None:
        return data

    async def split(self, shard: str) -> tuple[str, str]:
        return self.stream.split(shard)

    async def merge(self, one: str, two: str) -> str:
        return self.stream.merge(one, two)

    async def trim(self, shard: str, before: int) -> None:
        self.stream.trim(shard, before)

    async def recreate(self) -> None:
        self.stream.recreate(1)


class TestMemoryShards(ShardSourceConformance):
    @pytest.fixture
    async def bench(self) -> Bench:
        return MemoryBench()
