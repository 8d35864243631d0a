"""What a record of Kinesis costs from its shard to a no-op handler: `python -m bench.shards --help`.

The stream is `bench.kinesis_server`: so cheap that what is measured is the reader. Four shards, pages of 1,000 records
of 180 B. Beside `headrace run` with one isolated worker, at its own pace of five polls a second of each shard, runs
plain aioboto3 that gets the same pages, as many at once as there are shards, and does nothing with them: no event, no
handler. They take turns, so that what else the machine does hits all alike. Start-up is not measured.

The second table is how long the daemon's event loop is busy with one thing while pages of 10,000 records come in, go
through the engine and to the worker in batches of as many: a clock in the loop ticks every millisecond
(`bench.ticking`), beside a daemon whose shard is empty. On a machine that is shared, CPU between two ticks says more
than how late they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import keep, percentile, ratios, spread, table
from bench.queues import Peer
from bench.streams import STREAM, Endpoint, Run, headrace, kinesis, observe

CONTENDERS = ("aioboto3", "headrace-1000", "headrace-100")
SHARDS = 4
#: Of a page; the same for both.
RECORDS = 1000
LARGE_PAGE = 10_000

#: What everybody must have read before it counts, and after which headrace no longer takes up speed.
_WARM_RECORDS = 50_000
_WARM_S = 1.5


async def run(name: str, options: argparse.Namespace) -> Run:
    supply = ["--shards", str(SHARDS), "--page", str(RECORDS), "--size", str(options.size)]
    async with Endpoint(supply) as endpoint:
        if name == "aioboto3":
            polls = ("-m", "bench.peers.kinesis_polls", endpoint.url, STREAM, str(RECORDS))
            async with Peer([sys.executable, *polls]) as peer:
                await endpoint.reached("records", _WARM_RECORDS)
                return await observe(endpoint, peer.pids, options.seconds)
        mapping = kinesis(batch_size=int(name.removeprefix("headrace-")))
        async with headrace(endpoint, {"bench": mapping}) as daemon:
            await endpoint.reached("records", _WARM_RECORDS)
            await asyncio.sleep(_WARM_S)
            return await observe(endpoint, lambda: [daemon.pid, *daemon.workers()], options.seconds)


async def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in options.only}
    for repeat in range(options.repeats):
        for name in options.only:
            one = await run(name, options)
            runs[name].append(one)
            print(
                f"{repeat + 1}/{options.repeats} {name}: {one.cpu_us:.2f} us CPU a record, "
                f"{one.records / one.seconds:,.0f} records a second, {one.records / one.polls:,.0f} a poll, "
                f"stream {one.endpoint_busy:.0%} of a core, machine {one.machine_busy:.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return runs


def summary(runs: Mapping[str, Sequence[Run]]) -> str:
    rows = [
        [
            name,
            spread((one.cpu_us for one in mine), ".2f"),
            spread((one.workers_cpu_s / one.records * 1e6 for one in mine), ".2f"),
            spread((one.records / one.seconds / 1000 for one in mine), ".1f"),
            spread((one.peak_rss_mb for one in mine), ".0f"),
            spread(ratios([one.cpu_us for one in mine], [one.cpu_us for one in runs["aioboto3"]]))
            if "aioboto3" in runs
            else "",
        ]
        for name, mine in runs.items()
    ]
    head = ["contender", "CPU us/record", "of it workers", "records/s (1000s)", "peak RSS MB", "CPU / aioboto3"]
    return table(head, rows)


# --- how long the loop is busy with one thing


@dataclass(frozen=True, slots=True)
class Stalls:
    """How late the ticks of a daemon's loop were, and the CPU of its thread between two of them."""

    late_ms: Sequence[float]
    cpu_ms: Sequence[float]
    pages: int


async def stalls(pages: bool, options: argparse.Namespace) -> Stalls:  # noqa: FBT001 - the two rows
    supply = ["--shards", "1", "--page", str(LARGE_PAGE), "--size", str(options.size)]
    with TemporaryDirectory() as folder:
        ticks = Path(folder) / "ticks"
        async with Endpoint([*supply, *([] if pages else ["--supply", "0"])]) as endpoint:
            daemon = headrace(endpoint, {"bench": kinesis(batch_size=LARGE_PAGE)})
            daemon.command = (sys.executable, "-m", "bench.ticking", ticks)
            async with daemon:
                await endpoint.reached("polls", 3)
                await asyncio.sleep(_WARM_S)
                from_s, before = time.monotonic(), (await endpoint.report())["polls"]
                await asyncio.sleep(options.seconds)
                until_s, after = time.monotonic(), (await endpoint.report())["polls"]
        seen = [tuple(map(float, line.split())) for line in ticks.read_text().splitlines()]
    watched = [(late_s * 1000, cpu_s * 1000) for at_s, late_s, cpu_s in seen if from_s <= at_s <= until_s]
    return Stalls([late for late, _ in watched], [cpu for _, cpu in watched], after - before)


async def measure_stalls(options: argparse.Namespace) -> dict[str, list[Stalls]]:
    found: dict[str, list[Stalls]] = {"empty shard": [], f"pages of {LARGE_PAGE:,}": []}
    for _ in range(options.repeats):
        for name, mine in found.items():
            mine.append(await stalls(name.startswith("pages"), options))
    return found


def stalls_summary(found: Mapping[str, Sequence[Stalls]]) -> str:
    rows = [
        [
            name,
            spread((one.pages for one in mine), ".0f"),
            spread((percentile(one.late_ms, 99) for one in mine), ".1f"),
            spread((max(one.late_ms) for one in mine), ".1f"),
            spread((max(one.cpu_ms) for one in mine), ".1f"),
        ]
        for name, mine in found.items()
    ]
    return table(["a tick is late, ms", "pages", "p99", "longest", "most CPU between two"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--size", type=int, default=180, help="bytes of a record's data")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="*", default=CONTENDERS, metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}; none: stalls"
    )
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    runs = asyncio.run(measure(options))
    waits = asyncio.run(measure_stalls(options))
    raw = {
        "options": vars(options),
        "runs": {name: [asdict(one) for one in mine] for name, mine in runs.items()},
        "stalls": {name: [asdict(one) for one in mine] for name, mine in waits.items()},
    }
    path = keep("shards", raw)
    shown = [*([summary(runs)] if runs else []), stalls_summary(waits)]
    print(json.dumps(raw) if options.json else "\n\n".join(shown))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
