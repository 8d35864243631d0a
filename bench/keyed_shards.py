"""How much of the ideal a parallelization factor of 10 reaches on Kinesis: `python -m bench.keyed_shards --help`.

Four shards, 1,000 partition keys, and an `async def` handler that waits 5 ms for each record, one after the other: with
40 lanes that is 8,000 records a second at best. Two things take of it whoever runs the lanes. A wait of 5 ms takes
longer in an event loop: `loop` is 40 tasks that do nothing but wait, in one process. And a key belongs to one lane, and
1,000 keys do not fall evenly into 40: what may be held of a shard evens that out for a minute or so, and then a shard
goes as fast as the lane that has the most of them. `--warm` says after how many seconds it counts: 75 is then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench import procs
from bench.figures import keep, spread, table
from bench.keyed import Run
from bench.kinesis_server import keys_of
from bench.streams import Endpoint, headrace, kinesis
from router.core.shard import lane_of

CONTENDERS = ("loop", "headrace-1", "headrace-10")
SHARDS, KEYS, FACTOR = 4, 1000, 10
WORK_S = 0.005
IDEAL = SHARDS * FACTOR / WORK_S

HANDLER = f"""
import asyncio

async def handler(event, context):
    for _ in event["Records"]:
        await asyncio.sleep({WORK_S})
"""


def skew() -> float:
    """Give the share of the ideal that the keys' own distribution over lanes leaves."""
    shares = []
    for keys in keys_of(SHARDS, KEYS):
        lanes = Counter(lane_of(key.encode(), FACTOR) for key in keys)
        shares.append(len(keys) / FACTOR / max(lanes.values()))
    return sum(shares) / SHARDS


async def run_loop(seconds: float) -> float:
    """Give how many waits a second there are."""
    done = 0

    async def lane() -> None:
        nonlocal done
        while True:
            await asyncio.sleep(WORK_S)
            done += 1

    lanes = [asyncio.create_task(lane()) for _ in range(SHARDS * FACTOR)]
    began_s = time.monotonic()
    await asyncio.sleep(seconds)
    for each in lanes:
        each.cancel()
    return done / (time.monotonic() - began_s)


async def run_headrace(batch_size: int, seconds: float, warm_s: float) -> Run:
    mapping = kinesis(batch_size=batch_size, parallelization_factor=FACTOR)
    one_worker = {"reserved_concurrency": 1, "concurrency_per_worker": SHARDS * FACTOR}
    endpoint = Endpoint(["--shards", str(SHARDS), "--keys", str(KEYS)])
    async with endpoint, headrace(endpoint, {"bench": mapping}, HANDLER, **one_worker) as daemon:
        await daemon.follow(1)
        await asyncio.sleep(warm_s)
        first, began = await daemon.sample(), procs.clock()
        await asyncio.sleep(seconds)
        last, busy = await daemon.sample(), procs.busy_share(began, procs.clock())
    return Run(
        last.invoked - first.invoked,
        last.at_s - first.at_s,
        last.daemon_cpu_s - first.daemon_cpu_s,
        last.workers_cpu_s - first.workers_cpu_s,
        busy,
    )


async def measure(options: argparse.Namespace) -> tuple[list[float], dict[str, list[Run]]]:
    loops: list[float] = []
    runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS if name != "loop"}
    for repeat in range(options.repeats):
        loops.append(await run_loop(options.seconds))
        for name, mine in runs.items():
            mine.append(one := await run_headrace(int(name.removeprefix("headrace-")), options.seconds, options.warm))
            print(
                f"{repeat + 1}/{options.repeats} {name}: {one.rate:,.0f} records a second, "
                f"{one.cpu_us:.1f} us CPU a record, machine {one.machine_busy:.0%} busy; loop {loops[-1]:,.0f}",
                file=sys.stderr,
                flush=True,
            )
    return loops, runs


def summary(loops: Sequence[float], runs: Mapping[str, Sequence[Run]]) -> str:
    rows = [["loop", spread(loops, ",.0f"), spread(rate / IDEAL for rate in loops), "", ""]]
    for name, mine in runs.items():
        rates = [one.rate for one in mine]
        rows.append(
            [
                name,
                spread(rates, ",.0f"),
                spread(rate / IDEAL for rate in rates),
                spread((one.cpu_us for one in mine), ".1f"),
                spread((one.workers_cpu_s / one.records * 1e6 for one in mine), ".1f"),
            ]
        )
    shown = table(["contender", "records/s", "of the ideal", "CPU us/record", "of it workers"], rows)
    return f"{shown}\n\nThe keys' own distribution over the lanes leaves {skew():.2f} of the ideal in the long run."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm", type=float, default=12, help="seconds before it counts")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    loops, runs = asyncio.run(measure(options))
    raw = {
        "options": vars(options),
        "loops": loops,
        "skew": skew(),
        "runs": {name: [asdict(one) for one in mine] for name, mine in runs.items()},
    }
    path = keep("keyed-shards", raw)
    print(json.dumps(raw) if options.json else summary(loops, runs))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
