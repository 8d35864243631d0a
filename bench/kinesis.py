"""What a page of Kinesis records costs the process that reads it: `python -m bench.kinesis --help`.

The stream is `bench.kinesis_server`, in another process and so cheap that what is measured is the reader. `headrace` is
its Kinesis source alone: GetRecords, the records in columns, and the bytes of the complete event, as a worker is given
them. `aioboto3` gets the same pages with the library's client, which parses them; no event is made. `empty` are polls
that find nothing. They take turns in one process, so that what else the machine does hits all alike.

The stall is the longest time that the event loop does not turn: by the clock, in which other processes have a part, and
in CPU time of our own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import aioboto3
import uvloop

from bench.figures import keep, ratios, spread, table
from bench.queues import CREDENTIALS
from connectors.kinesis import KinesisSource
from connectors.settings import KinesisSettings
from router.core.facts import Demand
from router.core.model import TRIM_HORIZON

STREAM: Final = "bench"
SHARD: Final = "shardId-000000000000"
PAGE: Final = 1000
LARGE_PAGE: Final = 10_000
#: Between two looks at the loop.
_LOOK_S: Final = 0.001
_WARM_CALLS: Final = 20

#: Reads a page; gives how many records it had.
Read = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender did in its turn."""

    calls: int
    records: int
    cpu_s: float
    seconds: float
    #: Longest that the loop did not turn, by the clock and in CPU time.
    stall_ms: float
    stall_cpu_ms: float

    @property
    def cpu_us(self) -> float:
        """CPU of a call."""
        return self.cpu_s / self.calls * 1e6


@asynccontextmanager
async def server(*options: str) -> Any:
    """Run a `bench.kinesis_server` and give its URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.kinesis_server", "--stream", STREAM, "--shards", "1", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield json.loads(await process.stdout.readline())["url"]
    finally:
        process.stdin.close()
        await process.wait()


async def headrace(stack: AsyncExitStack, url: str, limit: int) -> Read:
    source = KinesisSource(KinesisSettings("bench", STREAM, url, "us-east-1"))
    await source.open()
    stack.push_async_callback(source.close)
    after = TRIM_HORIZON

    async def read() -> int:
        nonlocal after
        [chunk] = await source.read(SHARD, {SHARD: Demand(after, limit)})
        after = chunk.through
        if chunk.rows:
            source.codec.event(chunk.rows)
        return len(chunk.rows)

    return read


async def library(stack: AsyncExitStack, url: str, limit: int) -> Read:
    client: Any = await stack.enter_async_context(aioboto3.Session().client("kinesis", endpoint_url=url))
    found = await client.get_shard_iterator(StreamName=STREAM, ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    iterator = found["ShardIterator"]

    async def read() -> int:
        nonlocal iterator
        page = await client.get_records(ShardIterator=iterator, Limit=limit)
        iterator = page["NextShardIterator"]
        return len(page["Records"])

    return read


CONTENDERS: Final = {"aioboto3": library, "headrace": headrace}


async def turn(read: Read, seconds: float) -> Run:
    """Let a contender read for a while, and look at the loop meanwhile."""
    loop = asyncio.get_running_loop()
    looked_s = looked_cpu_s = stall_s = stall_cpu_s = 0.0
    looking: asyncio.TimerHandle

    def look() -> None:
        nonlocal looked_s, looked_cpu_s, stall_s, stall_cpu_s, looking
        now_s, now_cpu_s = time.monotonic(), time.process_time()
        if looked_s:
            stall_s = max(stall_s, now_s - looked_s - _LOOK_S)
            stall_cpu_s = max(stall_cpu_s, now_cpu_s - looked_cpu_s)
        looked_s, looked_cpu_s = now_s, now_cpu_s
        looking = loop.call_later(_LOOK_S, look)

    for _ in range(_WARM_CALLS):
        await read()
    looking = loop.call_later(_LOOK_S, look)
    calls = records = 0
    began_s, cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() - began_s < seconds:
        records += await read()
        calls += 1
    cpu_s = time.process_time() - cpu_s
    looking.cancel()
    return Run(calls, records, cpu_s, time.monotonic() - began_s, stall_s * 1000, stall_cpu_s * 1000)


async def measure(options: argparse.Namespace) -> Mapping[str, Mapping[str, Sequence[Run]]]:
    kinds = {
        f"{PAGE} records": (PAGE, ("--page", str(PAGE))),
        "empty": (PAGE, ("--supply", "0")),
        f"{LARGE_PAGE} records": (LARGE_PAGE, ("--page", str(LARGE_PAGE))),
    }
    runs: dict[str, dict[str, list[Run]]] = {kind: {name: [] for name in CONTENDERS} for kind in kinds}
    for kind, (limit, wanted) in kinds.items():
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(server("--size", str(options.size), *wanted))
            reads = {name: await make(stack, url, limit) for name, make in CONTENDERS.items()}
            for repeat in range(options.repeats):
                for name, read in reads.items():
                    one = await turn(read, options.seconds)
                    runs[kind][name].append(one)
                    print(
                        f"{repeat + 1}/{options.repeats} {kind}, {name}: {one.cpu_us:,.0f} us CPU a call, "
                        f"stall {one.stall_ms:.1f} ms, of it CPU {one.stall_cpu_ms:.1f}",
                        file=sys.stderr,
                        flush=True,
                    )
    return runs


def summary(runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    rows = []
    for kind, mine in runs.items():
        base = [one.cpu_us for one in mine["aioboto3"]]
        for name, each in mine.items():
            records = sum(one.records for one in each)
            rows.append(
                [
                    kind,
                    name,
                    spread((one.cpu_us for one in each), ",.0f"),
                    spread((one.cpu_s / one.records * 1e6 for one in each), ".2f") if records else "",
                    spread(ratios([one.cpu_us for one in each], base), ".3f"),
                    spread((one.stall_ms for one in each), ".1f"),
                    spread((one.stall_cpu_ms for one in each), ".1f"),
                ]
            )
    return table(
        ["page", "reader", "CPU us/call", "CPU us/record", "CPU / aioboto3", "longest stall ms", "in CPU ms"], rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--size", type=int, default=180, help="bytes of a record's data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    os.environ |= CREDENTIALS
    runs = uvloop.run(measure(options))
    raw = {
        "options": vars(options),
        "runs": {
            kind: {name: [asdict(one) for one in each] for name, each in mine.items()} for kind, mine in runs.items()
        },
    }
    path = keep("kinesis", raw)
    print(json.dumps(raw) if options.json else summary(runs))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
