"""The stream in memory against the suite."""

from __future__ import annotations

import time

import pytest

from router.ports import StreamSource
from tests.conformance.stream_source import Bench, Features, StreamSourceConformance
from tests.fakes.stream_source import MemorySource, MemoryStream


class MemoryBench:
    features = Features()
    shards = "memory-0", "memory-1"

    def __init__(self) -> None:
        self.stream = MemoryStream(self.shards, drain_s=1.0)

    def source(self, starting_position: str = "TRIM_HORIZON", since_s: float | None = None) -> StreamSource:
        return MemorySource(self.stream, starting_position=starting_position, starting_timestamp_s=since_s, wait_s=0.01)

    async def append(self, shard: str, *values: bytes | None, key: bytes | None = None) -> list[int]:
        return [self.stream.append(shard, value, key=key, time_ms=int(time.time() * 1000)) for value in values]

    async def trim(self, shard: str, before: int) -> None:
        self.stream.trim(shard, before)

    async def skip(self, shard: str) -> None:
        self.stream.skip(shard)


class TestMemorySource(StreamSourceConformance):
    @pytest.fixture
    async def bench(self) -> Bench:
        return MemoryBench()
