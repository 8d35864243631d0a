"""What a million stored failures cost: `python -m bench.failures --help`.

A mapping over Kafka first reads a topic live, over an empty store; then a daemon of the same mapping starts over one
that holds a million failures, batches of as many records as the live ones. Measured are a page of the list (and the
whole command), a scrape of the metrics, the daemon's memory with both stores, and how fast it replays some of the
failures beside how fast it read the topic. The first failures are written as the daemon writes them, the others are
copies of them under other ids and times that SQLite itself makes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

from msgspec import Raw

from bench import procs, topics
from bench.daemon import Headrace, kafka
from bench.figures import keep, percentile, spread, table
from connectors.kafka_codec import KafkaCodec, KafkaRecord, shard_name
from connectors.store.reader import SqliteReader
from connectors.store.sqlite import SqliteStore
from router.commands import control_client
from router.commands.selecting import OPEN, REPLAYABLE
from router.core.model import FailedBatch, FunctionError, Reason, Try
from router.ports import FailureEntry, KeepFailure, Selection

MAPPING = "bench"
SIZE_BYTES = 200
LIVE_RECORDS = 1_000_000
PAGE = 100
#: Pages that are timed: the first one, and others spread over the store.
PAGES = 50
#: Failures that are written before copies are made, a second apart.
_WRITTEN = 10_000
_WRITTEN_AT_ONCE = 1000
_ID_LENGTH = 20
_TRACE = tuple(f'  File "/srv/functions/orders/orders.py", line {line}, in handler' for line in range(10, 16))
_ERROR = FunctionError("KeyError", "'price'", _TRACE)


def failures(topic: str, servers: str, count: int, batch_size: int) -> Iterator[KeepFailure]:
    """Make failures as a mapping with four attempts leaves them, spread over the partitions of a topic."""
    codec = KafkaCodec(servers.split(","), "SelfManagedKafka")
    began_s = 1_767_225_600.0
    for number in range(count):
        partition = number % topics.PARTITIONS
        first = number // topics.PARTITIONS * batch_size
        shard = shard_name(topic, partition)
        keys = [topics.KEYS[(number * 7 + index) % len(topics.KEYS)] for index in range(batch_size)]
        rows = [_row(topic, partition, first + index, key) for index, key in enumerate(keys)]
        event = codec.event(rows)
        failed_at_s = began_s + number
        batch = FailedBatch(
            id=f"{number:0{_ID_LENGTH}x}",
            mapping=MAPPING,
            function="bench",
            shard=shard,
            reason=Reason.RETRIES,
            first_position=first,
            last_position=first + batch_size - 1,
            batch_size=batch_size,
            attempts=4,
            request_id=f"{number:032x}",
            error=_ERROR,
            responded=True,
            function_error="Unhandled",
            first_time_ms=rows[0].timestamp,
            last_time_ms=rows[-1].timestamp,
            failed_at_s=failed_at_s,
            tries=tuple(Try(failed_at_s - 4 + each, f"{number:032x}", batch_size, _ERROR) for each in range(4)),
        )
        entry = FailureEntry(batch, "stored", None, codec.batch_info(batch, event), tuple(dict.fromkeys(keys)))
        yield KeepFailure(entry, event)


def _row(topic: str, partition: int, offset: int, key: bytes) -> KafkaRecord:
    value = os.urandom(SIZE_BYTES)
    return KafkaRecord(topic, partition, offset, 1767225600000 + offset, "CREATE_TIME", key, value, Raw(b"[]"))


async def fill(state: Path, topic: str, servers: str, count: int, batch_size: int) -> float:
    """Fill a store; gives how long it took, seconds."""
    began_s = time.monotonic()
    written = min(count, _WRITTEN)
    made = failures(topic, servers, written, batch_size)
    store = await SqliteStore.open(state, power_safe=False)
    while group := list(islice(made, _WRITTEN_AT_ONCE)):
        await store.apply(group)
    await store.close()
    with closing(sqlite3.connect(state / "headrace.db", isolation_level=None)) as database:
        # No log, no waiting and a large cache: if this is cut off, the store is made anew anyway.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000"):
            database.execute(f"PRAGMA {pragma}")
        for number in range(1, count // written):
            database.executescript(_copied(number, written))
    return time.monotonic() - began_s


def _copied(number: int, written: int) -> str:
    """Give the SQL that makes one more copy of the failures that were written, as much later as these took."""
    new_id, later_s = f"id || '-{number:04}'", f"failed_at_s + {number * written}"
    same = "mapping, shard, error, status, undelivered, deliveries, next_delivery_s, event_bytes, batch_info"
    batch = f"json_set(CAST(batch AS TEXT), '$.id', {new_id}, '$.failed_at_s', {later_s})"
    originals = f"length(id) = {_ID_LENGTH}"
    return f"""
        BEGIN;
        INSERT INTO failures (id, failed_at_s, batch, {same})
            SELECT {new_id}, {later_s}, CAST({batch} AS BLOB), {same} FROM failures WHERE {originals};
        INSERT INTO events SELECT {new_id}, compressed, event FROM events JOIN failures ON id = failure_id
            WHERE {originals};
        INSERT INTO keys SELECT key, {new_id} FROM keys JOIN failures ON id = failure_id WHERE {originals};
        COMMIT;
    """


async def page_times_ms(state: Path, count: int) -> list[float]:
    """Time pages of the list as the command reads them, beginning anywhere in the store."""
    store = await SqliteReader.open_read_only(state)
    [oldest] = await store.failures(Selection(limit=1))
    times_ms = []
    for number in range(PAGES):
        since_s = oldest.batch.failed_at_s + number / PAGES * (count - PAGE)
        began_s = time.perf_counter()
        page = await store.failures(Selection(statuses=OPEN, since_s=since_s, limit=PAGE))
        times_ms.append((time.perf_counter() - began_s) * 1000)
        assert len(page) == PAGE
    await store.close()
    return times_ms


def time_s(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


async def live(daemon: Headrace, records: int) -> float:
    """Give the rate of live records: between 5 % and the last look."""
    samples = await daemon.follow(records)
    counted = [each for each in samples if each.invoked >= records * 0.05]
    first, last = counted[0], counted[-1]
    return (last.invoked - first.invoked) / (last.at_s - first.at_s)


def replayed_per_s(state: Path, count: int) -> float:
    """Replay so many failures; gives batches a second, the first 5 % left out."""
    ends = control_client.replay(state, Selection(mapping=MAPPING, statuses=REPLAYABLE, limit=count), 0.0)
    skipped = count // 20
    began_s = 0.0
    for number, end in enumerate(ends, 1):
        assert end["outcome"] == "replayed", end
        if number == skipped:
            began_s = time.monotonic()
    assert number == count
    return (count - skipped) / (time.monotonic() - began_s)


async def run(options: argparse.Namespace, batch_size: int, folder: Path) -> dict[str, float | Sequence[float]]:
    servers = topics.bootstrap()
    topic = await topics.filled(servers, LIVE_RECORDS, SIZE_BYTES)
    mapping = {**kafka(servers, topic, batch_size=batch_size), "maximum_batching_window_in_seconds": 0}
    found: dict[str, float | Sequence[float]] = {}
    async with Headrace({MAPPING: mapping}) as daemon:
        found["live_records_per_s"] = await live(daemon, options.live)
        found["rss_mb_empty"] = procs.usage(daemon.pid).rss_mb
    state = folder / f"state-{batch_size}"
    found["fill_s"] = await fill(state, topic, servers, options.failures, batch_size)
    found["store_gb"] = (state / "headrace.db").stat().st_size / 1e9
    mapping["starting_position"] = "LATEST"
    mapping["source"] = kafka(servers, topic)["source"]
    async with Headrace({MAPPING: mapping}, more={"state": str(state)}) as daemon:
        found["rss_mb_started"] = procs.usage(daemon.pid).rss_mb
        found["page_ms"] = await page_times_ms(state, options.failures)
        found["scrape_ms"] = [await _scrape_ms(daemon) for _ in range(20)]
        listing = [
            Path(sys.executable).with_name("headrace"),
            "-c",
            daemon.folder / "headrace.yaml",
            "failures",
            "list",
        ]
        found["list_command_s"] = await asyncio.to_thread(
            time_s, lambda: subprocess.run(listing, check=True, capture_output=True)
        )
        found["replayed_batches_per_s"] = await asyncio.to_thread(replayed_per_s, state, options.replays)
        used = procs.usage(daemon.pid)
        found["rss_mb_replayed"], found["peak_rss_mb"] = used.rss_mb, used.peak_rss_mb
    return found


async def _scrape_ms(daemon: Headrace) -> float:
    began_s = time.perf_counter()
    await daemon.metrics()
    return (time.perf_counter() - began_s) * 1000


def summary(results: Mapping[int, Mapping[str, float | Sequence[float]]]) -> str:
    rows = []
    for batch_size, found in results.items():
        pages, scrapes = found["page_ms"], found["scrape_ms"]
        assert isinstance(pages, list)
        assert isinstance(scrapes, list)
        number = {name: value for name, value in found.items() if isinstance(value, float)}
        replayed = number["replayed_batches_per_s"] * batch_size
        rows.append(
            [
                str(batch_size),
                f"{number['store_gb']:.1f}",
                f"{percentile(pages, 50):.1f} / {max(pages):.1f}",
                spread(scrapes, ".1f"),
                f"{number['rss_mb_empty']:.0f} / {number['rss_mb_started']:.0f} / {number['rss_mb_replayed']:.0f}",
                f"{number['live_records_per_s']:,.0f}",
                f"{replayed:,.0f}",
                f"{replayed / number['live_records_per_s']:.2f}",
            ]
        )
    head = ["batch", "store GB", f"page of {PAGE}, ms p50 / max", "scrape ms", "RSS MB live / full / replayed"]
    return table([*head, "live records/s", "replayed records/s", "replay / live"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--failures", type=int, default=1_000_000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--live", type=int, default=100_000, help="live records that are timed, for each batch size")
    parser.add_argument("--replays", type=int, default=20_000, help="failures that are replayed")
    parser.add_argument("--folder", type=Path, help="where stores are made; else a temporary one, removed afterwards")
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    with ExitStack() as cleaning:
        folder = options.folder or Path(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        results = {size: asyncio.run(run(options, size, folder)) for size in options.batch_sizes}
    raw = {"options": {name: str(value) for name, value in vars(options).items()}, "runs": results}
    print(json.dumps(raw) if options.json else summary(results))
    print(f"raw results: {keep('failures', raw)}", file=sys.stderr)


if __name__ == "__main__":
    main()
