"""A stream in memory, and a StreamSource over it: no threads, no real time, faults by script.

`MemoryStream` is the server: records, committed progress, the group. It outlives its sources, so that closing one and
opening another is a restart. `MemorySource` is one connection. Both pass the conformance suite.
"""

from __future__ import annotations

import asyncio
import base64
import json
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from router.core.facts import Demand, Progress
from router.core.model import KAFKA_RULES, Batch, Chunk, FailedBatch, SourceRules
from router.errors import LeaseLost, PositionLost, RouterError
from router.ports import Codec, Lost, Opened, Revoking, ShardChange

UNIT = "memory"


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    shard: str
    position: int
    time_ms: int
    key: bytes | None
    value: bytes | None


@dataclass
class MemoryShard:
    records: list[MemoryRecord] = field(default_factory=list)
    #: Oldest position that is still there, and the next to be written.
    first: int = 0
    end: int = 0

    def behind(self, position: int) -> int:
        """Index of the first record behind a position."""
        return bisect_left(self.records, position + 1, key=lambda record: record.position)


class MemoryStream:
    """The server side. Everything on it takes effect at once."""

    def __init__(self, shards: Iterable[str] = ("memory-0", "memory-1"), *, drain_s: float = 30.0) -> None:
        self.shards = {name: MemoryShard() for name in shards}
        self.committed: dict[str, Progress] = {}
        #: Every commit that was stored, in order.
        self.commits: list[Mapping[str, Progress]] = []
        self.drain_s = drain_s
        self.members: list[MemorySource] = []
        self._arrived = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None

    def append(self, shard: str, value: bytes | None, *, key: bytes | None = None, time_ms: int = 0) -> int:
        log = self.shards[shard]
        log.records.append(MemoryRecord(shard, log.end, time_ms, key, value))
        log.end += 1
        self._arrived.set()
        self._arrived = asyncio.Event()
        return log.end - 1

    def append_at(self, time_s: float, shard: str, value: bytes | None, *, key: bytes | None = None) -> None:
        """Append when the loop's clock shows `time_s`."""
        asyncio.get_running_loop().call_at(
            time_s, lambda: self.append(shard, value, key=key, time_ms=int(time_s * 1000))
        )

    def skip(self, shard: str, count: int = 1) -> None:
        """Use up positions that hold no record, as transaction markers do."""
        self.shards[shard].end += count

    def trim(self, shard: str, before: int) -> None:
        """Delete everything before a position, as retention does."""
        log = self.shards[shard]
        log.first = max(log.first, before)
        log.records = log.records[log.behind(before - 1) :]

    def add_shard(self, shard: str) -> None:
        self.shards[shard] = MemoryShard()
        self.rebalance()

    async def arrival(self) -> None:
        await self._arrived.wait()

    # --- the group: the eager protocol

    def rebalance(self) -> None:
        for member in self.members:
            for shard in list(member.owned):
                member.revoke(shard)
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(self.drain_s, self._assign)
        self.settle()

    def settle(self) -> None:
        """Assign anew if nobody holds anything back."""
        if self._deadline is not None and not any(member.unreleased for member in self.members):
            self._assign()

    def _assign(self) -> None:
        assert self._deadline is not None
        self._deadline.cancel()
        self._deadline = None
        for member in self.members:
            for shard in list(member.unreleased):
                member.lose(shard)
        for number, shard in enumerate(sorted(self.shards)):
            if self.members:
                self.members[number % len(self.members)].give(shard)


def _records(event: bytes) -> list[dict[str, Any]]:
    found = json.loads(event)
    if not isinstance(found, dict):
        raise ValueError("no event")  # noqa: TRY004 - as every codec
    return list(found["records"])


class MemoryCodec:
    """Events of a made-up service, with Kafka's identifiers."""

    def __init__(self, rules: SourceRules = KAFKA_RULES) -> None:
        self.rules = rules

    def event(self, rows: Sequence[MemoryRecord]) -> bytes:
        records = [
            {
                "partition": row.shard,
                "offset": row.position,
                "timestamp": row.time_ms,
                "key": None if row.key is None else base64.b64encode(row.key).decode(),
                "value": None if row.value is None else base64.b64encode(row.value).decode(),
            }
            for row in rows
        ]
        return json.dumps({"eventSource": "memory", "records": records}, separators=(",", ":")).encode()

    def parse(self, event: bytes) -> Chunk:
        rows = self.rows_of(event)
        return memory_chunk(rows[0].shard, rows, rows[-1].position)

    def rows_of(self, event: bytes) -> list[MemoryRecord]:
        return [
            MemoryRecord(
                record["partition"],
                record["offset"],
                record["timestamp"],
                None if record["key"] is None else base64.b64decode(record["key"]),
                None if record["value"] is None else base64.b64decode(record["value"]),
            )
            for record in _records(event)
        ]

    def identify(self, item: object, batch: Batch) -> int | None:
        match item:
            case {"partition": batch.shard, "offset": int(offset)} if not isinstance(offset, bool):
                return offset if offset in batch.positions() else None
        return None

    def view(self, row: MemoryRecord) -> tuple[Mapping[str, object], bytes | None]:
        return {"partition": row.shard, "offset": row.position}, row.value

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        return {"MemoryBatchInfo": {"batchSize": failure.batch_size, "shard": failure.shard, "size": len(event)}}


def memory_chunk(shard: str, rows: Sequence[MemoryRecord], through: int) -> Chunk:
    return Chunk(
        shard,
        [row.position for row in rows],
        [120 + len(shard) + 2 * (len(row.key or b"") + len(row.value or b"")) for row in rows],
        [row.time_ms for row in rows],
        [row.key for row in rows],
        rows,
        through,
    )


class MemorySource:
    """One connection to a MemoryStream."""

    retry_state_limit_bytes = 4096
    needs_keys = True
    identity = "memory"
    pinned = False
    handicap: str | None = None

    def __init__(
        self,
        stream: MemoryStream,
        *,
        starting_position: str = "TRIM_HORIZON",
        starting_timestamp_s: float | None = None,
        wait_s: float = 1.0,
        rules: SourceRules = KAFKA_RULES,
    ) -> None:
        self.codec: Codec = MemoryCodec(rules)
        self.owned: set[str] = set()
        self.unreleased: set[str] = set()
        self.opened = False
        self._stream = stream
        self._starting_position = starting_position
        self._starting_timestamp_s = starting_timestamp_s
        self._wait_s = wait_s
        self._changes: asyncio.Queue[ShardChange | None] = asyncio.Queue()
        self._faults: dict[str, deque[tuple[RouterError, bool]]] = defaultdict(deque)

    # --- the script

    def fail(self, call: str, error: RouterError, *, times: int = 1, stored: bool = False) -> None:
        """Let the next calls (open, locate, read, commit) raise; `stored`: the commit happens, its answer is lost."""
        self._faults[call].extend([(error, stored)] * times)

    def revoke(self, shard: str) -> None:
        """Ask for a shard; the stream waits for its release."""
        self.unreleased.add(shard)
        self._changes.put_nowait(Revoking(shard))

    def lose(self, shard: str) -> None:
        """Take a shard without asking."""
        self.owned.discard(shard)
        self.unreleased.discard(shard)
        self._changes.put_nowait(Lost(shard))

    def give(self, shard: str) -> None:
        """Assign a shard, with what is committed for it now."""
        self.owned.add(shard)
        progress = self._stream.committed.get(shard)
        committed = (None,) if progress is None else (progress.checkpoint, progress.retry_state)
        opened = Opened(shard, UNIT, *committed)
        self._changes.put_nowait(opened)

    # --- StreamSource

    async def open(self) -> None:
        self._raise("open")
        stream = self._stream
        if not stream.committed:
            stream.committed = {shard: Progress(self._start(shard), "") for shard in stream.shards}
        self.opened = True
        stream.members.append(self)
        stream.rebalance()

    async def changes(self) -> AsyncIterator[ShardChange]:
        while (change := await self._changes.get()) is not None:
            yield change

    async def locate(self, shard: str, *, lost: bool) -> int:
        self._raise("locate")
        if lost or self._stream.committed:
            return self._stream.shards[shard].first - 1
        return self._start(shard)

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:
        assert unit == UNIT
        self._raise("read")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                while not (chunks := self._there(demand)):
                    await self._stream.arrival()
        return chunks

    async def commit(self, done: Mapping[str, Progress]) -> None:
        error, stored = self._faults["commit"].popleft() if self._faults["commit"] else (None, True)
        if stored:
            for shard, progress in done.items():
                if shard not in self.owned:
                    raise LeaseLost(f"{shard} is not ours")
                assert len(progress.retry_state.encode()) <= self.retry_state_limit_bytes
            self._stream.committed |= done
            self._stream.commits.append(dict(done))
        if error is not None:
            raise error

    async def release(self, shard: str) -> None:
        if shard in self.unreleased:
            self.unreleased.discard(shard)
            self.owned.discard(shard)
            self._stream.settle()

    def newest(self, shard: str) -> int | None:
        return self._stream.shards[shard].end - 1 if shard in self.owned else None

    async def close(self) -> None:
        if self in self._stream.members:
            self._stream.members.remove(self)
            self.owned.clear()
            self.unreleased.clear()
            self._stream.rebalance()
        self._changes.put_nowait(None)

    # --- inside

    def _raise(self, call: str) -> None:
        if self._faults[call]:
            raise self._faults[call].popleft()[0]

    def _start(self, shard: str) -> int:
        log = self._stream.shards[shard]
        if self._starting_position == "TRIM_HORIZON":
            return log.first - 1
        if self._starting_position == "AT_TIMESTAMP":
            since_ms = round((self._starting_timestamp_s or 0.0) * 1000)
            return next((record.position for record in log.records if record.time_ms >= since_ms), log.end) - 1
        return log.end - 1

    def _there(self, demand: Mapping[str, Demand]) -> list[Chunk]:
        chunks = []
        for shard, (after, limit) in demand.items():
            if shard not in self.owned:
                continue
            log = self._stream.shards[shard]
            if not log.first - 1 <= after < log.end:
                raise PositionLost(shard, f"{shard} holds {log.first} up to {log.end} (excluded), not {after + 1}")
            index = log.behind(after)
            rows: list[Any] = log.records[index : index + limit]
            all_there = index + limit >= len(log.records)
            through = log.end - 1 if all_there else rows[-1].position
            if through > after:
                chunks.append(memory_chunk(shard, rows, through))
        return chunks
