"""How much of the ideal a FIFO queue of many groups reaches with a slow handler: `python -m bench.fifo --help`.

64 groups, and an `async def` handler that waits 5 ms for each message, one after the other: with 64 invocations in
flight that is 12,800 messages a second at best, whatever the batch size. Beside `headrace run` with two workers runs a
plain consumer in one process (`bench.peers.fifo_loop`), for the machine may not allow the ideal. The queue is
`bench.sqs_endpoint`. headrace starts with five batches at once and takes more step by step, as AWS does: it is measured
when it has them all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench.figures import keep, ratios, spread, table
from bench.queues import DRAINED, Endpoint, Peer, Run, headrace, observe, sqs

CONTENDERS = ("loop", "headrace-1", "headrace-10")
GROUPS = 64
WORK_S = 0.005
IDEAL = GROUPS / WORK_S
WORKERS = 2

_LOOP_WARM_S = 3.0
#: From 5 batches at once to 64, five more a second.
_WARM_S = 13.0

HANDLER = f"""
import asyncio

async def handler(event, context):
    for _ in event["Records"]:
        await asyncio.sleep({WORK_S})
"""


async def run(name: str, seconds: float) -> Run:
    async with Endpoint(["--fifo", "--groups", str(GROUPS)], "bench.fifo") as endpoint:
        if name == "loop":
            loop = ("-m", "bench.peers.fifo_loop", endpoint.url, endpoint.name, str(GROUPS), str(WORK_S))
            async with Peer([sys.executable, *loop]) as peer:
                await endpoint.deleted(1)
                await asyncio.sleep(_LOOP_WARM_S)
                return await observe(endpoint, peer.pids, seconds)
        mapping = sqs(endpoint.name, batch_size=int(name.removeprefix("headrace-")))
        workers = {"reserved_concurrency": WORKERS, "concurrency_per_worker": GROUPS // WORKERS}
        async with headrace(endpoint, {"bench": mapping}, HANDLER, **workers) as daemon:
            await endpoint.deleted(1)
            await asyncio.sleep(_WARM_S)
            one = await observe(endpoint, lambda: [daemon.pid, *daemon.workers()], seconds)
        left = await endpoint.report()
        assert left["in_flight"] <= DRAINED, f"a drained daemon left {left['in_flight']} messages undeleted"
        return one


async def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in options.only}
    for repeat in range(options.repeats):
        for name in options.only:
            one = await run(name, options.seconds)
            runs[name].append(one)
            print(
                f"{repeat + 1}/{options.repeats} {name}: {one.rate:,.0f} messages a second, {one.rate / IDEAL:.0%} of "
                f"the ideal, {one.cpu_us:.1f} us CPU a message, machine {one.machine_busy:.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return runs


def summary(runs: Mapping[str, Sequence[Run]]) -> str:
    rows = [
        [
            name,
            spread((one.rate for one in mine), ",.0f"),
            spread(one.rate / IDEAL for one in mine),
            spread((one.cpu_us for one in mine), ".1f"),
            spread((one.workers_cpu_s / one.messages * 1e6 for one in mine), ".1f"),
            spread(ratios([one.rate for one in mine], [one.rate for one in runs["loop"]])) if "loop" in runs else "",
        ]
        for name, mine in runs.items()
    ]
    return table(["contender", "messages/s", "of the ideal", "CPU us/message", "of it workers", "rate / loop"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--only", nargs="+", default=CONTENDERS, metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    runs = asyncio.run(measure(options))
    raw = {"options": vars(options), "runs": {name: [asdict(one) for one in mine] for name, mine in runs.items()}}
    path = keep("fifo", raw)
    print(json.dumps(raw) if options.json else summary(runs))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
