"""A stream whose shards split, merge and go, its function and the daemons that carry it, in virtual time.

The server side are records in shards; checkpoints are in the store of the one machine. Records are named by position.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from router.checkpoints import SHARD, read_shard
from router.core.facts import Demand, Progress
from router.core.model import Chunk, EventSourceMapping, Returned, ShardInfo
from router.errors import SourceUnavailable, Throttled
from router.ports import Source, Store
from router.runner import Engine, Passes, SourceSide
from router.shard_side import plug_shards
from router.telemetry import MappingMetrics
from tests.fakes.shard_stream import MemoryShardCodec, ShardStream, ShardStreamSource
from tests.sim.stage import KINDS, NAME, Delivery, Plan, Record, Stage

#: Generations of shards, at most.
DEPTH = 6


@dataclass(frozen=True)
class ShardPlan(Plan):
    #: Shards that the stream begins with.
    shard_count: int


class Wire(ShardStreamSource):
    """A connection that fails while the source is away, and whose listing may have been looked at while it changed."""

    def __init__(self, world: ShardWorld) -> None:
        super().__init__(world.stream)
        self._world = world
        #: Reads that are refused because there are too many.
        self.throttled = 0
        #: What the next listing leaves out.
        self.overlooked: set[str] = set()
        world.sources.append(self)

    async def open(self) -> None:
        self._connect()
        await super().open()

    async def shards(self) -> Sequence[ShardInfo]:
        self._connect()
        overlooked, self.overlooked = self.overlooked, set()
        return [shard for shard in await super().shards() if shard.name not in overlooked]

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:
        self._connect()
        if self.throttled:
            self.throttled -= 1
            raise Throttled("too many reads")
        chunks = await super().read(unit, demand)
        for chunk in chunks:
            self._world.in_hand.update(chunk.positions)
        return chunks

    async def close(self) -> None:
        await super().close()
        if self in self._world.sources:
            self._world.sources.remove(self)

    def _connect(self) -> None:
        if self._world.away:
            raise SourceUnavailable("connection refused")


class ShardWorld(Stage):
    """The server side, and the ledger."""

    codec = MemoryShardCodec()
    durations_s = (0.0, 0.01, 0.2, 2.0, 25.0)
    outages_s = (1, 30, 200)

    def __init__(self, plan: ShardPlan) -> None:
        super().__init__(plan)
        self.plug = self._plug
        self.mapping = plan.mapping
        self.stream = ShardStream(plan.shard_count, now_s=self.clock)
        self.sources: list[Wire] = []
        #: All shards that there ever were: parents, and how many generations are before it.
        self.parents: dict[str, tuple[str, ...]] = dict.fromkeys(self.stream.shards, ())
        self.depths: dict[str, int] = dict.fromkeys(self.stream.shards, 0)
        #: Records of a shard, and of a key in order.
        self.of_shard: dict[str, list[int]] = defaultdict(list)
        self.of_key: dict[str, list[int]] = defaultdict(list)
        self.shard_of: dict[int, str] = {}
        #: Records that the source deleted before they were read, or that came before the mapping's start.
        self.trimmed: set[int] = set()
        #: Records that this life of the mapping has read, and those of them that the source deleted since.
        self.in_hand: set[int] = set()
        self.owed: set[int] = set()
        #: What was delivered in this life, by key: the newest number.
        self._delivered: dict[str, int] = {}
        self._seen: set[int] = set()
        self._numbers: Counter[str] = Counter()
        self._stored: dict[str, frozenset[int]] = {}

    def clock(self) -> float:
        """Tell the time of the stream's own service."""
        return self.wall() - self.step_s

    def make_source(self) -> Source:
        return Wire(self)

    async def _plug(
        self,
        source: Any,
        mapping: EventSourceMapping,
        rng: Random,
        *,
        store: Store,
        passes: Passes | None,
        metrics: MappingMetrics,
    ) -> tuple[Engine, SourceSide]:
        # What the run before had in memory only is gone with it.
        self.trimmed |= self.owed
        self.owed, self.in_hand, self._seen, self._delivered = set(), set(), set(), {}
        return await plug_shards(source, mapping, rng, store=store, passes=passes, metrics=metrics)

    # --- the stream

    def append(self) -> None:
        key = f"k{self.rng.randrange(9)}"
        kinds = {**KINDS, "poison": 0} if self._endless else KINDS
        [kind] = self.rng.choices(list(kinds), list(kinds.values()))
        self._numbers[key] += 1
        record = self.stream.put(b"unwanted" if kind == "unwanted" else b"wanted", key.encode())
        name = record.position
        self.records[name] = Record(key, self._numbers[key], kind, self.rng.randrange(1, 4) if kind == "flaky" else 0)
        self.of_key[key].append(name)
        self.of_shard[record.shard].append(name)
        self.shard_of[name] = record.shard
        if kind == "unwanted":
            self.finished.add(name)

    @property
    def _endless(self) -> bool:
        """Would a poison record block its lane for ever?"""
        return self.plan.mapping.maximum_retry_attempts is None

    def split(self, shard: str) -> None:
        for child in self.stream.split(shard):
            self._born(child, shard)

    def merge(self, one: str, two: str) -> None:
        self._born(self.stream.merge(one, two), one, two)

    def roll(self, shard: str) -> None:
        self._born(self.stream.roll(shard), shard)

    def _born(self, child: str, *parents: str) -> None:
        self.parents[child] = parents
        self.depths[child] = 1 + max(self.depths[parent] for parent in parents)

    def trim(self, shard: str, before: int) -> None:
        """Let retention delete what is before a position."""
        self._deleted(name for name in self.of_shard[shard] if name < before)
        self.stream.trim(shard, before)

    def forget(self, shard: str) -> None:
        """Let retention delete a shard with all that is in it."""
        self._deleted(self.of_shard[shard])
        self.stream.forget(shard)

    def _deleted(self, names: Iterator[int] | Sequence[int]) -> None:
        for name in names:
            if not self.is_over(name):
                (self.owed if name in self.in_hand else self.trimmed).add(name)

    def forget_before_start(self) -> None:
        """Let what was written so far be none of the mapping's business."""
        self.trimmed.update(self.records)

    # --- events

    def names(self, event: bytes) -> list[Any]:
        return [record["offset"] for record in json.loads(event)["records"]]

    def item(self, name: Any) -> object:
        return str(name)

    def listed(self, items: Sequence[Any]) -> set[Any]:
        return {int(item) for item in items}

    def end(self, delivery: Delivery, outcome: Any) -> None:
        """Write down how it ended; what is listed first takes all that comes after it along."""
        if isinstance(outcome, Returned) and isinstance(outcome.body, dict):
            named = [item["itemIdentifier"] for item in outcome.body.get("batchItemFailures", [])]
            if named and "?" not in named:
                first = min(self.listed(named))
                items = [{"itemIdentifier": self.item(each)} for each in delivery.records if each >= first]
                super().end(delivery, replace(outcome, body={"batchItemFailures": items}))
                return
        super().end(delivery, outcome)

    # --- what must be true

    def check_delivery(self, names: Sequence[Any]) -> Iterator[str]:
        live = [name for name in names if name not in self.replayed]
        for index, name in enumerate(live):
            yield from self._check_place(name)
            yield from self._check_order(name, live[:index])

    def _check_place(self, name: int) -> Iterator[str]:
        shard = self.shard_of[name]
        progress = self.progress(shard)
        if progress and (progress.ended or name <= progress.checkpoint):
            yield f"{name} of {shard} is behind the checkpoint and runs again"
        for parent in self.parents[shard]:
            yield from (
                f"{name} of {shard} runs before {each} of its parent {parent}"
                for each in self.of_shard[parent]
                if not self.is_over(each)
            )

    def _check_order(self, name: int, before: Sequence[int]) -> Iterator[str]:
        record = self.records[name]
        yield from (
            f"{name} runs before {each} of the same key"
            for each in self.of_key[record.key][: record.number - 1]
            if not self.is_over(each) and each not in before
        )
        if name not in self._seen:
            self._seen.add(name)
            if record.number <= self._delivered.get(record.key, 0):
                yield f"{name}: {record.key} goes back in this life"
            self._delivered[record.key] = record.number

    def is_over(self, name: int) -> bool:
        """Is a record done, filtered out, deleted unread or stored as failed?"""
        return name in self.finished or name in self.trimmed or self.is_stored(name)

    def is_stored(self, name: int) -> bool:
        for failure_id, row in self.sites[0].store.rows.items():
            if failure_id not in self._stored and row.event is not None:
                self._stored[failure_id] = frozenset(self.names(row.event))
        return any(name in names for names in self._stored.values())

    def progress(self, shard: str) -> Progress | None:
        text = self.sites[0].store.texts.get((NAME, f"{SHARD}{shard}"))
        return None if text is None else read_shard(text, self.codec)

    def unfinished_shards(self) -> list[str]:
        """Name shards that are not committed to their end."""
        wrong = []
        for name, log in self.stream.shards.items():
            progress = self.progress(name)
            if log.closed:
                if not (progress and progress.ended):
                    wrong.append(f"{name} is not finished: {progress}")
            elif log.records and (progress is None or progress != Progress(log.records[-1].position, "")):
                wrong.append(f"{name} ends at {log.records[-1].position}, committed is {progress}")
        return wrong

    def kept_for_nothing(self) -> list[str]:
        """Name shards that the store remembers, and of which the stream knows nothing any more."""
        shards = [key.removeprefix(SHARD) for _, key in self.sites[0].store.texts if key.startswith(SHARD)]
        known = {*self.stream.shards, *(parent for each in self.stream.shards.values() for parent in each.parents)}
        return [f"{shard} is remembered for ever" for shard in shards if shard not in known]

    async def is_done(self) -> bool:
        """Is everything committed that was written, nothing undelivered, and no replay under way?"""
        waiting = any(row.undelivered for row in self.sites[0].store.rows.values())
        return not (waiting or self.unfinished_shards() or await self.is_replaying())
