"""Daemons over streams that are killed again and again while shards split and merge: no promise is broken."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import Daemon
from tests.live.queue_rig import REGION
from tests.live.stream_ledger import LEDGER, Ledger
from tests.live.stream_rig import Streams
from tests.live.table_rig import Tables, open_tables
from tests.live.test_kinesis import merge, shards, split

KEYS = 12
KILLS = 4
#: Records that are written before each run.
AT_ONCE = 40

Put = Callable[[Sequence[tuple[str, int]]], Awaitable[None]]


@pytest.fixture
async def tables(dynamodb_endpoint: str) -> AsyncIterator[Tables]:
    async with open_tables(dynamodb_endpoint) as made:
        yield made


class LedgerDaemon(Daemon):
    """A daemon with one mapping, `ledger`, whose function fails now and then."""

    def __init__(self, folder: Path, endpoint_url: str, source: Mapping[str, Any], **mapping: Any) -> None:
        super().__init__(folder)
        self.ledger = Ledger(folder / "ledger")
        self.run = 0
        self.written: Counter[str] = Counter()
        self.document["aws"] = {"endpoint_url": endpoint_url, "region": REGION}
        self.document["event_source_mappings"]["ledger"] = {
            "function": "ledger",
            "source": source,
            "starting_position": "TRIM_HORIZON",
            "parallelization_factor": 3,
            "batch_size": 5,
            **mapping,
        }

    async def start(self, **options: Any) -> None:
        environment = {"LEDGER": str(self.ledger.file), "RUN": str(self.run)}
        self.function("ledger", LEDGER, environment=environment, reserved_concurrency=4)
        await super().start(**options)

    async def crash(self) -> None:
        """Kill it, and note what is committed then."""
        await self.kill()
        done = await self.command("checkpoints", "export")
        assert done.status == 0, done.err
        [saved] = json.loads(done.out)["mappings"]
        self.ledger.committed[self.run] = saved["shards"]
        self.run += 1

    async def put(self, put: Put, rng: random.Random, count: int = AT_ONCE) -> None:
        records = []
        for _ in range(count):
            key = f"key-{rng.randrange(KEYS)}"
            records.append((key, self.written[key]))
            self.written[key] += 1
        await put(records)

    async def until_finished(self, count: int) -> None:
        await self.until(lambda: len(self.ledger.finished()) >= count, f"{count} records are finished")


async def live(daemon: LedgerDaemon, put: Put, seed: int, changes: Mapping[int, Callable[[], Awaitable[Any]]]) -> None:
    """Write records, kill the daemon at some number of finished ones, change the shards, and start again."""
    rng = random.Random(seed)
    for kill in range(KILLS):
        done = len(daemon.ledger.finished())  # before the start: nothing of what is written now is among them
        await daemon.put(put, rng)
        await daemon.start()
        if kill in changes:
            await changes[kill]()
            await daemon.put(put, rng)
        await daemon.until_finished(done + rng.randrange(1, daemon.written.total() - done + 1))
        await daemon.crash()
    await daemon.start()
    await daemon.until_finished(daemon.written.total())
    assert await daemon.terminate() == 0
    assert not daemon.ledger.judge(daemon.written), f"seed {seed}"
    assert not [line for line in daemon.lines if line.get("event") == "mapping.crashed"]


async def test_a_stream_that_is_split_and_merged(streams: Streams, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    stream = await streams.make(shards=2)

    async def put(records: Sequence[tuple[str, int]]) -> None:
        await stream.put(*[(key, [key, number]) for key, number in records])

    async def split_first() -> None:
        await split(stream, next(iter(await shards(stream))))

    async def merge_last() -> None:
        there = await shards(stream)
        open_ones = [name for name, each in there.items() if "EndingSequenceNumber" not in each["SequenceNumberRange"]]
        by_hash = sorted(open_ones, key=lambda name: int(there[name]["HashKeyRange"]["StartingHashKey"]))
        await merge(stream, by_hash[1], by_hash[2])

    async with LedgerDaemon(tmp_path, streams.endpoint_url, {"kinesis": {"stream": stream.name}}) as daemon:
        await live(daemon, put, seed, {1: split_first, 3: merge_last})


async def test_a_table(tables: Tables, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    table = await tables.make()

    async def put(records: Sequence[tuple[str, int]]) -> None:
        for key, number in records:
            await tables.put(table, key, number={"N": str(number)})

    async with LedgerDaemon(tmp_path, tables.endpoint_url, {"dynamodb": {"table": table}}) as daemon:
        await live(daemon, put, seed, {})
