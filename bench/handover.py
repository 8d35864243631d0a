"""How long a shard stands still when it goes to another replica, and what replicas cost: `python -m bench.handover`.

The stream is `bench.kinesis_server`, so every shard always has records; Redis is one of our own, append-only and synced
at every write. Three replicas run on this machine from one file. Each invocation takes 100 ms of waiting, and writes
down when it began and ended on the machine's monotonic clock, of which shard, and in which replica.

- `moves`: a replica joins and leaves again and again. A gap is the time from the end of the last invocation of a shard
  in one replica to the beginning of the first in the next.
- `kill`: a replica is killed with -9. Taken over is a shard when its next invocation begins, counted from the kill.
- `cpu`: CPU a record of one replica and of three with the same shards and the same rate.
- `idle`: round trips to Redis of replicas whose shards have no records, for each exchange with the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import uvloop

from bench import procs
from bench.chaos_redis import Redis
from bench.figures import keep, percentile, spread, table
from bench.queues import CREDENTIALS
from bench.streams import Endpoint, kinesis

_COMMAND: Final = Path(sys.executable).with_name("headrace")
_PATIENCE_S: Final = 90.0
SHARDS: Final = 12
MOVES: Final = 100
#: Exchanges with the table in the length of a lease, and their bounds in seconds: router.core.tenant.
EXCHANGES: Final = 10
TICK_S: Final = (0.2, 1.0)

HANDLER: Final = """
import asyncio, json, os, time

LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
WAIT_S, NOTES = float(os.environ["WAIT_S"]), os.environ["NOTES"] == "yes"


async def handle(event, context):
    began_s = time.monotonic()
    await asyncio.sleep(WAIT_S)
    if NOTES:
        shard = event["Records"][0]["eventID"].partition(":")[0]
        os.write(LEDGER, (json.dumps([os.environ["REPLICA"], shard, began_s, time.monotonic()]) + "\\n").encode())
"""


class Run(NamedTuple):
    """One invocation."""

    replica: str
    shard: str
    began_s: float
    ended_s: float


class Replicas:
    """Daemons of one file in one folder."""

    def __init__(self, folder: Path, redis: Redis, endpoint: Endpoint, *, lease: str, notes: bool = True) -> None:
        self._folder = folder
        self._ledger = folder / "ledger"
        self._processes: dict[str, Process] = {}
        self._ports: dict[str, int] = {}
        (folder / "code").mkdir()
        (folder / "code" / "app.py").write_text(HANDLER)
        document = {
            "state": redis.url,
            "lease": lease,
            "aws": {"endpoint_url": endpoint.url, "region": "us-east-1"},
            "functions": {
                "note": {
                    "handler": "app.handle",
                    "code": "./code",
                    "environment": {
                        "LEDGER": str(self._ledger),
                        "WAIT_S": "0.1",
                        "NOTES": "yes" if notes else "no",
                        "REPLICA": "${env:HEADRACE_REPLICA}",
                    },
                    "reserved_concurrency": 1,
                    "concurrency_per_worker": 2 * SHARDS,
                    "logs": "off",
                }
            },
            "event_source_mappings": {"bench": {"function": "note", "batch_size": 100, **kinesis()}},
        }
        (folder / "headrace.yaml").write_text(json.dumps(document))

    async def start(self, *names: str) -> None:
        """Start replicas, and wait until they have joined."""
        for name in names:
            self._ports[name] = _free_port()
            with (self._folder / f"{name}.log").open("ab") as log:
                self._processes[name] = await asyncio.create_subprocess_exec(
                    *(
                        _COMMAND,
                        "run",
                        "--replica",
                        name,
                        "--listen",
                        f"127.0.0.1:{self._ports[name]}",
                        "headrace.yaml",
                    ),
                    cwd=self._folder,
                    env={**os.environ, **CREDENTIALS, "HEADRACE_REPLICA": name},
                    stdout=DEVNULL,
                    stderr=log,
                )
        async with asyncio.timeout(_PATIENCE_S), aiohttp.ClientSession() as http:
            for name in names:
                while not await _is_ready(http, self._ports[name]):
                    assert self._processes[name].returncode is None, self._end_of_log(name)
                    await asyncio.sleep(0.05)

    async def stop(self, *names: str) -> None:
        """Stop replicas with SIGTERM, and wait for their ends."""
        for name in names:
            self._processes[name].terminate()
        for name in names:
            assert await self._processes.pop(name).wait() == 0, self._end_of_log(name)

    async def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        await process.wait()

    async def close(self) -> None:
        for name in list(self._processes):
            await self.kill(name)

    def pids(self) -> list[int]:
        """Give the processes of all replicas with their workers and leashes."""
        daemons = [each.pid for each in self._processes.values()]
        return [*daemons, *(child for pid in daemons for child in procs.children(pid))]

    def runs(self) -> list[Run]:
        """Give all invocations by the time at which they began."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return sorted((Run(*json.loads(line)) for line in lines), key=lambda run: run.began_s)

    def owners(self) -> dict[str, str]:
        """Say which replica has run each shard last."""
        return {run.shard: run.replica for run in self.runs()}

    async def until_spread(self, names: Sequence[str], shards: int = SHARDS) -> None:
        """Wait until all shards run in these replicas, and each of them has one less than its part at least."""
        fewest = shards // len(names) - 1
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                since_s = time.monotonic() - 1.0
                late = {run.shard: run.replica for run in self.runs() if run.began_s > since_s}
                counts = [sum(owner == name for owner in late.values()) for name in names]
                if sum(counts) == shards == len(late) and min(counts) >= fewest:
                    return
                await asyncio.sleep(0.2)

    def _end_of_log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()[-2000:]


async def _is_ready(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{port}/health/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def fleet(lease: str, *, notes: bool = True, supply: int | None = None) -> AsyncIterator[tuple[Replicas, Redis]]:
    """Run a stream and a Redis, and give replicas that are not started."""
    options = ["--shards", str(SHARDS), *(() if supply is None else ("--supply", str(supply)))]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir="/dev/shm") as folder:
        async with Redis(Path(folder) / "redis") as redis, Endpoint(options) as endpoint:
            replicas = Replicas(Path(folder), redis, endpoint, lease=lease, notes=notes)
            try:
                yield replicas, redis
            finally:
                await replicas.close()


def gaps(runs: Sequence[Run], since_s: float) -> list[float]:
    """Give the time for which each shard stood still when it went to another replica, since then."""
    by_shard: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_shard[run.shard].append(run)
    return [
        after.began_s - before.ended_s
        for each in by_shard.values()
        for before, after in pairwise(each)
        if before.replica != after.replica and after.began_s >= since_s
    ]


async def moves(count: int) -> dict[str, Any]:
    """Let a replica join and leave until so many shards have moved."""
    found: list[float] = []
    joins, leaves = [], []
    async with fleet("5s") as (replicas, _):
        await replicas.start("a", "b")
        await replicas.until_spread(["a", "b"])
        begun = time.clock_gettime(time.CLOCK_MONOTONIC)
        busy = procs.clock()
        while len(found) < count:
            began_s = time.monotonic()
            await replicas.start("c")
            await replicas.until_spread(["a", "b", "c"])
            joins += gaps(replicas.runs(), began_s)
            began_s = time.monotonic()
            await replicas.stop("c")
            await replicas.until_spread(["a", "b"])
            leaves += gaps(replicas.runs(), began_s)
            found = gaps(replicas.runs(), begun)
        return {"all": found, "joins": joins, "leaves": leaves, "busy": procs.busy_share(busy, procs.clock())}


async def kills(lease: str, times: int) -> list[float]:
    """Kill a replica so many times; gives the time until each shard that it had ran again."""
    found: list[float] = []
    async with fleet(lease) as (replicas, _):
        await replicas.start("a", "b", "c")
        for number in range(times):
            await replicas.until_spread(["a", "b", "c"])
            had = {shard for shard, owner in replicas.owners().items() if owner == "c"}
            killed_s = time.monotonic()
            await replicas.kill("c")
            await replicas.until_spread(["a", "b"])
            after = [run for run in replicas.runs() if run.began_s > killed_s and run.replica != "c"]
            found += [min(run.began_s for run in after if run.shard == shard) - killed_s for shard in had]
            if number + 1 < times:
                await replicas.start("c")
    return found


async def cpu(names: Sequence[str], seconds: float) -> dict[str, float]:
    """Measure CPU a record of so many replicas."""
    async with fleet("5s") as (replicas, _):
        await replicas.start(*names)
        await replicas.until_spread(names)
        await asyncio.sleep(3)
        before = {pid: procs.usage(pid).cpu_s for pid in replicas.pids()}
        runs = len(replicas.runs())
        began_s = time.monotonic()
        await asyncio.sleep(seconds)
        after = {pid: procs.usage(pid).cpu_s for pid in replicas.pids()}
        elapsed_s, records = time.monotonic() - began_s, 100 * (len(replicas.runs()) - runs)
        used_s = sum(used - before.get(pid, 0.0) for pid, used in after.items())
        return {"us": used_s / records * 1e6, "rate": records / elapsed_s}


async def idle(names: Sequence[str], lease_s: float, seconds: float) -> dict[str, float]:
    """Count the round trips to Redis of idle replicas, for each exchange that one of them is to have."""
    async with fleet(f"{lease_s:g}s", supply=0) as (replicas, redis):
        await replicas.start(*names)
        await asyncio.sleep(10)
        before = await _reads(redis)
        await asyncio.sleep(seconds)
        reads = await _reads(redis) - before - 1  # what we ask ourselves
        tick_s = min(max(lease_s / EXCHANGES, TICK_S[0]), TICK_S[1])
        return {"reads": reads, "exchanges": len(names) * seconds / tick_s}


async def _reads(redis: Redis) -> int:
    """Say how often Redis has read something that a client sent."""
    host, _, port = redis.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"INFO stats\r\n")
    text = (await reader.readexactly(int((await reader.readline())[1:]))).decode()
    writer.close()
    return int(text.partition("total_reads_processed:")[2].split()[0])


def _spread_ms(values: Sequence[float]) -> Sequence[str]:
    return [f"{1000 * value:.0f}" for value in (percentile(values, 50), percentile(values, 99), max(values))]


async def main(wanted: Sequence[str], count: int, seconds: float) -> None:
    results: dict[str, Any] = {}
    if "moves" in wanted:
        found = results["moves"] = await moves(count)
        rows = [(name, str(len(found[name])), *_spread_ms(found[name])) for name in ("all", "joins", "leaves")]
        print(table(("moves", "count", "p50 ms", "p99 ms", "longest ms"), rows))
        print(f"machine busy: {found['busy']:.0%}\n")
    if "kill" in wanted:
        rows = []
        for lease_s, times in ((5, 3), (30, 1)):
            taken = results[f"kill_{lease_s}"] = await kills(f"{lease_s}s", times)
            rows.append((f"{lease_s} s", str(len(taken)), f"{percentile(taken, 50):.1f}", f"{max(taken):.1f}"))
        print(table(("lease", "shards", "median s", "longest s"), rows), "\n")
    if "cpu" in wanted:
        one, three = [], []
        for _ in range(3):
            one.append(await cpu(["a"], seconds))
            three.append(await cpu(["a", "b", "c"], seconds))
        results["cpu"] = {"one": one, "three": three}
        rows = [
            (name, spread([each["us"] for each in runs], ".1f"), spread([each["rate"] for each in runs], ".0f"))
            for name, runs in (("one", one), ("three", three))
        ]
        print(table(("replicas", "CPU us a record", "records a second"), rows))
        print("three / one:", spread([b["us"] / a["us"] for a, b in zip(one, three, strict=True)]), "\n")
    if "idle" in wanted:
        for lease_s in (5.0, 30.0):
            results[f"idle_{lease_s:g}"] = found = await idle(["a", "b", "c"], lease_s, 30)
            each = found["reads"] / found["exchanges"]
            print(f"lease {lease_s:g} s: {each:.2f} round trips for each exchange that is due")
    print("raw:", keep("handover", results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[], help="moves, kill, cpu, idle; all of them unless some are named")
    parser.add_argument("--moves", type=int, default=MOVES, help="shards that move, at least")
    parser.add_argument("--seconds", type=float, default=20, help="length of one measure of CPU")
    given = parser.parse_args()
    uvloop.run(main(given.what or ("moves", "kill", "cpu", "idle"), given.moves, given.seconds))
