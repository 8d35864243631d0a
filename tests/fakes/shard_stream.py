"""A stream whose shards split, merge, roll and end, in memory, and a ShardSource over it; faults by script.

`ShardStream` is the server: records and shards. It outlives its sources, so that closing one and opening another is a
restart; checkpoints are not its business. `ShardStreamSource` is one connection. Both pass the conformance suite.

As in Kinesis, a key belongs to the open shard whose range its hash falls into, and positions grow over all shards, so
that those of a child are larger than its parents'; they go beyond 64 bits.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any
from zlib import crc32

from connectors.window_event import window_of, with_window
from router.core.facts import Demand
from router.core.model import STREAM_RULES, TRIM_HORIZON, Batch, Chunk, ShardInfo, WindowCall, time_of
from router.errors import PositionLost, RouterError, ShardGone
from router.ports import PAGE_COUNT, ShardCodec
from tests.fakes.stream_source import MemoryCodec, MemoryRecord, memory_chunk

#: First position of a stream.
FIRST_POSITION = 1 << 64
#: What a key's hash is below.
HASHES = 1 << 32


@dataclass
class Shard:
    """One shard: the hashes from `low` on, below `high`."""

    name: str
    low: int
    high: int
    parents: tuple[str, ...] = ()
    records: list[MemoryRecord] = field(default_factory=list)
    closed: bool = False
    #: Last position that was deleted.
    trimmed: int = TRIM_HORIZON

    def behind(self, checkpoint: int) -> int:
        """Index of the first record behind a checkpoint."""
        since_ms = time_of(checkpoint)
        if since_ms is None:
            return bisect_left(self.records, checkpoint + 1, key=lambda record: record.position)
        return next((index for index, each in enumerate(self.records) if each.time_ms >= since_ms), len(self.records))


class ShardStream:
    """The server side. Everything on it takes effect at once."""

    def __init__(self, shard_count: int = 2, *, now_s: Callable[[], float] = time.time) -> None:
        """Make a stream of this many shards; `now_s` is its clock, wall time."""
        self.now_s = now_s
        self.incarnation = ""
        #: All that are listed, the oldest first.
        self.shards: dict[str, Shard] = {}
        self._changed = asyncio.Event()
        self._positions = count(FIRST_POSITION)
        self._incarnations = count(1)
        self._names = count()
        self.recreate(shard_count)

    def recreate(self, shard_count: int) -> None:
        """Delete it with all that is in it, and make it again under the same name."""
        self.incarnation = f"{next(self._incarnations)}"
        self._names = count()
        self.shards = {}
        bounds = [HASHES * number // shard_count for number in range(shard_count + 1)]
        for low, high in pairwise(bounds):
            self._add(low, high)

    @property
    def open_shards(self) -> list[str]:
        return [shard.name for shard in self.shards.values() if not shard.closed]

    # --- records

    def put(self, value: bytes | None, key: bytes, *, time_ms: int | None = None) -> MemoryRecord:
        """Write a record to the shard that its key belongs to."""
        return self.append(self.shard_of(key), value, key=key, time_ms=time_ms)

    def shard_of(self, key: bytes) -> str:
        place = crc32(key)
        return next(each.name for each in self.shards.values() if not each.closed and each.low <= place < each.high)

    def append(
        self, shard: str, value: bytes | None, *, key: bytes | None = None, time_ms: int | None = None
    ) -> MemoryRecord:
        """Write a record to this shard."""
        log = self.shards[shard]
        assert not log.closed
        arrival_ms = int(self.now_s() * 1000) if time_ms is None else time_ms
        record = MemoryRecord(shard, next(self._positions), arrival_ms, key, value)
        log.records.append(record)
        self._notify()
        return record

    async def change(self) -> None:
        """Wait until a record is written or a shard closed."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def trim(self, shard: str, before: int) -> None:
        """Delete what is before a position, as retention does."""
        log = self.shards[shard]
        index = log.behind(before - 1)
        if index:
            log.trimmed = log.records[index - 1].position
            log.records = log.records[index:]

    # --- shards

    def split(self, shard: str) -> tuple[str, str]:
        """Close a shard; two children take its keys."""
        parent = self._close(shard)
        middle = (parent.low + parent.high) // 2
        return self._add(parent.low, middle, shard), self._add(middle, parent.high, shard)

    def merge(self, one: str, two: str) -> str:
        """Close two shards that are neighbours; one child takes their keys."""
        first, second = sorted((self._close(one), self._close(two)), key=lambda shard: shard.low)
        assert first.high == second.low
        return self._add(first.low, second.high, one, two)

    def roll(self, shard: str) -> str:
        """Close a shard; one child goes on with its keys, as in streams of DynamoDB."""
        parent = self._close(shard)
        return self._add(parent.low, parent.high, shard)

    def neighbours(self) -> list[tuple[str, str]]:
        """Pairs of open shards that can be merged."""
        there = sorted((self.shards[name] for name in self.open_shards), key=lambda shard: shard.low)
        return [(one.name, two.name) for one, two in pairwise(there)]

    def forget(self, shard: str) -> None:
        """Let a closed shard go with all that is in it, as retention does; it is not listed any more."""
        assert self.shards[shard].closed
        del self.shards[shard]

    def _close(self, shard: str) -> Shard:
        log = self.shards[shard]
        assert not log.closed
        log.closed = True
        self._notify()
        return log

    def _add(self, low: int, high: int, *parents: str) -> str:
        shard = Shard(f"shardId-{next(self._names):012}", low, high, parents)
        self.shards[shard.name] = shard
        return shard.name


class MemoryShardCodec(MemoryCodec):
    """Events of a made-up service, with the identifiers of streams."""

    def __init__(self) -> None:
        super().__init__(STREAM_RULES)

    def identify(self, item: object, batch: Batch) -> int | None:
        if not (isinstance(item, str) and item.isascii() and item.isdecimal()):
            return None
        return int(item) if batch.holds(int(item)) else None

    def window_event(self, shard: str, rows: Sequence[Any], call: WindowCall) -> bytes:
        return with_window(self.event(rows), shard, "memory", call)

    def parse(self, event: bytes) -> Chunk:
        found = window_of(event)
        rows = self.rows_of(event)
        chunk = memory_chunk(found[0] if found else rows[0].shard, rows, rows[-1].position if rows else -1)
        chunk.window = found[1] if found else None
        return chunk

    def write_position(self, position: int) -> str:
        return str(position)

    def read_position(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"{text} is no position")
        return int(text)


class ShardStreamSource:
    """One connection to a ShardStream."""

    identity = "memory"
    pinned = False
    handicap: str | None = None

    def __init__(self, stream: ShardStream) -> None:
        self.codec: ShardCodec = MemoryShardCodec()
        self.server_time_s = 0.0
        self.incarnation = ""
        #: Reads that were asked for, by shard.
        self.reads: dict[str, list[Demand]] = defaultdict(list)
        self._stream = stream
        self._behind_ms: dict[str, int] = {}
        self._faults: dict[str, deque[RouterError]] = defaultdict(deque)
        self._expired: set[str] = set()

    # --- the script

    def fail(self, call: str, error: RouterError, *, times: int = 1) -> None:
        """Let the next calls (open, shards, read, page) raise."""
        self._faults[call].extend([error] * times)

    def expire(self) -> None:
        """Let the next read of each shard find nothing, as when its iterator has expired."""
        self._expired = set(self._stream.shards)

    # --- ShardSource

    async def open(self) -> None:
        self._raise("open")
        self.server_time_s = int(self._stream.now_s() * 1000) / 1000
        self.incarnation = self._stream.incarnation

    async def shards(self) -> Sequence[ShardInfo]:
        self._raise("shards")
        self.incarnation = self._stream.incarnation
        return [ShardInfo(each.name, each.parents, each.closed) for each in self._stream.shards.values()]

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:
        ((shard, wish),) = demand.items()
        assert unit == shard
        self._raise("read")
        self.reads[shard].append(wish)
        log = self._reach(shard, wish.after)
        if shard in self._expired:
            self._expired.discard(shard)
            return [self._chunk(log, (), wish.after, more=True)]
        first = log.behind(wish.after)
        rows = log.records[first : first + wish.limit]
        more = first + len(rows) < len(log.records)
        last_ms = log.records[-1].time_ms if more else 0
        self._behind_ms[shard] = max(0, last_ms - rows[-1].time_ms) if rows and more else 0
        return [self._chunk(log, rows, wish.after, more=more)]

    async def page(self, shard: str, first: int, limit: int = PAGE_COUNT) -> Chunk:
        self._raise("page")
        log = self._reach(shard, first - 1)
        rows = log.records[log.behind(first - 1) :]
        return self._chunk(log, rows[:limit], first - 1, more=len(rows) > limit)

    def behind_ms(self, shard: str) -> int | None:
        return self._behind_ms.get(shard)

    async def close(self) -> None:
        """Nothing is held."""

    # --- inside

    def _raise(self, call: str) -> None:
        if self._faults[call]:
            raise self._faults[call].popleft()

    def _reach(self, shard: str, after: int) -> Shard:
        log = self._stream.shards.get(shard)
        if log is None:
            raise ShardGone(shard, f"{shard} is not there any more")
        if TRIM_HORIZON < after < log.trimmed:
            raise PositionLost(shard, f"{shard} begins behind {log.trimmed}, not behind {after}")
        return log

    @staticmethod
    def _chunk(log: Shard, rows: Sequence[Any], after: int, *, more: bool) -> Chunk:
        chunk = memory_chunk(log.name, rows, rows[-1].position if rows else after)
        chunk.more = more
        chunk.ended = log.closed and not more
        return chunk
