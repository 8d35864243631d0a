"""What a fleet's store costs in Redis: `python -m bench.redis_store --help`.

A Redis of the bench's own (`redis-server` on PATH), which waits for its disk at every write. Commits are what a shard
of Kinesis writes behind each batch: its checkpoint, under its lease. The same without leases goes to the embedded one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import keep, table
from connectors.redis import rows
from connectors.redis.store import RedisStore
from connectors.store.sqlite import SqliteStore
from router.api.mapping_kinds import Kind
from router.api.mapping_values import completed
from router.catalogue import records
from router.catalogue.catalogue import Catalogue
from router.core.fleet import Lease, LeaseKey
from router.ports import Change, Holds, KeepFailure, PutState, Selection, Store
from tests.fakes.failures import entry
from tests.live.own_redis import OwnRedis

TEXT = '{"checkpoint":"49590338271490256608559692538361571095921575989136588898","retry":"","finished":false}'
TOKEN = 2**50


@dataclass(frozen=True, slots=True)
class Commits:
    """Commits of so many shards at once."""

    store: str
    at_once: int
    per_s: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Took:
    """Bytes of memory, or milliseconds."""

    what: str
    value: float


def shard(number: int) -> str:
    return f"shardId-{number:012}"


def commit(number: int) -> list[Change]:
    return [PutState("clicks", f"shard:{shard(number)}", TEXT)]


def fenced(number: int) -> list[Change]:
    return [Holds("clicks", shard(number), TOKEN), *commit(number)]


async def drive(
    store: Store, name: str, at_once: int, seconds: float, change: Callable[[int], list[Change]]
) -> Commits:
    done, until_s = 0, time.perf_counter() + seconds

    async def writer(number: int) -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            await store.apply(change(number))
            done += 1

    began_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(writer, range(at_once)))
    cpu_us = (time.process_time() - cpu_s) / done * 1e6
    return Commits(name, at_once, done / (time.perf_counter() - began_s), cpu_us)


async def memory(store: RedisStore) -> int:
    """Sum up what Redis says of all keys, bytes."""
    total, cursor = 0, b"0"
    while True:
        cursor, keys = await store.link.command("SCAN", cursor, "MATCH", store.link.key("*"), "COUNT", 1000)
        for each in keys:
            total += await store.link.command("MEMORY", "USAGE", each, "SAMPLES", 0)
        if int(cursor) == 0:
            return total


async def sizes(store: RedisStore, shards: int, failures: int) -> list[Took]:
    found: list[Took] = []
    chance = random.Random(7)
    records = [{"kinesis": {"partitionKey": f"k{n}", "data": chance.randbytes(150).hex()}} for n in range(10)]
    event = json.dumps({"Records": records}).encode()
    before = await memory(store)
    for at in range(0, shards, 500):
        await store.apply([change for number in range(at, at + 500) for change in commit(number)])
    after = await memory(store)
    found.append(Took("a shard, bytes", (after - before) / shards))
    for name, keys in (("a failure, bytes", 0), ("a failure with 10 keys, bytes", 10)):
        before, took = await memory(store), store.size_bytes()
        for at in range(0, failures, 100):
            await store.apply(
                [kept(f"{name[10:12]}{number:020}", number, keys, event) for number in range(at, at + 100)]
            )
        found.append(Took(name, (await memory(store) - before) / failures))
        found.append(Took(f"{name}: event and what is told of it", (store.size_bytes() - took) / failures))
    return found


async def made(store: RedisStore, count: int) -> list[Took]:
    """Weigh functions of one version, and mappings, as the API has them made."""
    catalogue = Catalogue(store, is_shared=True)
    found: list[Took] = []
    before = await memory(store)
    for number in range(count):
        await catalogue.put_mapping(mapping(number))
    after = await memory(store)
    found.append(Took("a mapping of the API, bytes", (after - before) / count))
    for number in range(count):
        await catalogue.put_function(function(number))
    found.append(Took("a function of the API, bytes", (await memory(store) - after) / count))
    began_s = time.perf_counter()
    await catalogue.load()
    found.append(Took("reading all of them, ms", (time.perf_counter() - began_s) * 1e3))
    return found


def mapping(number: int) -> records.Mapping:
    name = f"4d296bc0-8749-45af-b667-{number:012}"
    stream = f"arn:aws:kinesis:us-east-1:000000000000:stream/clicks-{number}"
    members = {"EventSourceArn": stream, "StartingPosition": "LATEST"}
    properties = completed(members, Kind.KINESIS, name)
    return records.Mapping(uuid=name, name=name, function="orders", properties=properties, created_s=1.8e9)


def function(number: int) -> records.Function:
    latest = records.Version(
        runtime="python3.12",
        handler="orders.handler",
        role="arn:aws:iam::000000000000:role/orders",
        code=records.Code(sha256="ab" * 32, size_bytes=1234),
        environment={"TABLE": "orders"},
        revision="4d296bc0-8749-45af-b667-3bc43853fbdb",
    )
    return records.Function(name=f"orders-{number}", latest=latest, created_s=1.8e9)


def kept(failure_id: str, number: int, keys: int, event: bytes) -> KeepFailure:
    each = tuple(f"customer-{number}-{key}".encode() for key in range(keys))
    return KeepFailure(entry(failure_id, mapping="clicks", failed_at_s=1.8e9 + number, keys=each), event)


async def questions(store: RedisStore) -> list[Took]:
    asked = {
        "a page of 500 failures, ms": lambda: store.failures(Selection(mapping="clicks", limit=500)),
        "counting them, ms": lambda: store.count(Selection(mapping="clicks")),
        "tallies, ms": store.tallies,
    }
    found = []
    for what, ask in asked.items():
        times = []
        for _ in range(20):
            began_s = time.perf_counter()
            await ask()
            times.append(time.perf_counter() - began_s)
        found.append(Took(what, sorted(times)[10] * 1000))
    return found


async def measure(options: argparse.Namespace) -> tuple[list[Commits], list[Took]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        OwnRedis(Path(folder), "--appendonly", "yes", "--appendfsync", "always") as server,
    ):
        store = await RedisStore.open(server.settings, "bench", replica="a", folder=None)
        embedded = await SqliteStore.open(Path(folder) / "state")
        row = rows.lease_value(Lease(TOKEN, "a", "", 0.1, 1767225600015))
        for number in range(max(options.at_once)):
            field = rows.lease_field(LeaseKey("clicks", shard(number)))
            await store.link.command("HSET", store.link.key(rows.LEASES), field, row)
        commits = []
        for at_once in options.at_once:
            commits.append(await drive(store, "Redis", at_once, options.seconds, fenced))
            commits.append(await drive(embedded, "SQLite", at_once, options.seconds, commit))
        took = [*await sizes(store, 10_000, options.failures), *await questions(store), *await made(store, 1_000)]
        await embedded.close()
        await store.close()
    return commits, took


def summary(commits: Sequence[Commits], took: Sequence[Took]) -> str:
    head = ["commits to", "at once", "a second", "CPU us each"]
    first = table(head, [[one.store, f"{one.at_once}", f"{one.per_s:,.0f}", f"{one.cpu_us:.0f}"] for one in commits])
    return f"{first}\n\n{table(['in Redis', ''], [[one.what, f'{one.value:,.1f}'] for one in took])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each kind of commits")
    parser.add_argument("--failures", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    commits, took = asyncio.run(measure(options))
    raw = {
        "options": vars(options),
        "commits": [asdict(one) for one in commits],
        "took": [asdict(one) for one in took],
    }
    path = keep("redis-store", raw)
    print(json.dumps(raw) if options.json else summary(commits, took))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
