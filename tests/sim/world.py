"""A stream, its function and the daemons that carry it, in virtual time; and what must be true of all deliveries.

The server side here are records in shards and committed progress.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.core.facts import Demand, Progress
from router.core.model import Chunk
from router.errors import SourceUnavailable
from router.ports import Source
from router.stream_side import plug_stream
from tests.fakes.stream_source import MemoryCodec, MemorySource, MemoryStream
from tests.sim.stage import KINDS, Plan, Record, Stage


@dataclass(frozen=True)
class StreamPlan(Plan):
    retry_state_limit_bytes: int


class Wire(MemorySource):
    """A connection that fails while the source is away."""

    def __init__(self, world: World) -> None:
        super().__init__(world.stream, wait_s=20.0)
        self.retry_state_limit_bytes = world.retry_state_limit_bytes
        self._world = world

    async def open(self) -> None:
        self._reach()
        await super().open()

    async def locate(self, shard: str, *, lost: bool) -> int:
        self._reach()
        return await super().locate(shard, lost=lost)

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:
        self._reach()
        chunks = await super().read(unit, demand)
        self._reach()
        return chunks

    async def commit(self, done: Mapping[str, Progress]) -> None:
        self._reach()
        await super().commit(done)

    def _reach(self) -> None:
        if self._world.away:
            raise SourceUnavailable("connection refused")


class World(Stage):
    """The server side, and the ledger; records are named by shard and position."""

    codec = MemoryCodec()
    plug = staticmethod(plug_stream)

    def __init__(self, plan: StreamPlan) -> None:
        super().__init__(plan)
        self.retry_state_limit_bytes = plan.retry_state_limit_bytes
        self.stream = MemoryStream(("orders-0", "orders-1"))
        #: Records that the source deleted before they were finished.
        self.trimmed: set[tuple[str, int]] = set()
        self._numbers: Counter[str] = Counter()

    def make_source(self) -> Source:
        return Wire(self)

    def append(self) -> None:
        key = f"k{self.rng.randrange(7)}"
        kinds = {**KINDS, "poison": 0} if self._endless else KINDS
        [kind] = self.rng.choices(list(kinds), list(kinds.values()))
        self._numbers[key] += 1
        # One key lives in one shard, as with any partitioner.
        shard = f"orders-{int(key[1:]) % 2}"
        body = b"unwanted" if kind == "unwanted" else b"wanted"
        position = self.stream.append(shard, body, key=key.encode(), time_ms=int(self.wall() * 1000))
        record = Record(key, self._numbers[key], kind, self.rng.randrange(1, 4) if kind == "flaky" else 0)
        self.records[shard, position] = record
        if kind == "unwanted":
            self.finished.add((shard, position))

    @property
    def _endless(self) -> bool:
        """Would a poison record block its lane for ever?"""
        return self.plan.mapping.maximum_retry_attempts is None

    def names(self, event: bytes) -> list[Any]:
        return [(record["partition"], record["offset"]) for record in json.loads(event)["records"]]

    def item(self, name: Any) -> object:
        shard, position = name
        return {"partition": shard, "offset": position}

    def listed(self, items: Sequence[Any]) -> set[Any]:
        return {(item["partition"], item["offset"]) for item in items}

    def check_delivery(self, names: Sequence[Any]) -> Iterator[str]:
        for shard, position in names:
            if position <= self.stream.committed[shard].checkpoint and (shard, position) not in self.replayed:
                yield f"{shard}-{position} is behind the checkpoint and runs again"

    async def is_done(self) -> bool:
        """Is everything committed that was written, and no replay under way?"""
        if await self.is_replaying():
            return False
        return all(self.stream.committed[name] == Progress(log.end - 1, "") for name, log in self.stream.shards.items())

    def live_sources(self) -> Sequence[MemorySource]:
        return list(self.stream.members)
