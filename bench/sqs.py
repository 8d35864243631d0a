"""What a message costs from a queue to a no-op handler: `python -m bench.sqs --help`.

The queue is `bench.sqs_endpoint`: so cheap that what is measured is the reader. Beside `headrace run` with one isolated
worker and batches of ten run the cycle of receiving ten and deleting ten with plain aioboto3 (no handler, no event),
and npm's sqs-consumer with batches of ten (its handler in its own process), both with as many pollers as headrace
starts with; `sqs-consumer-1` is one consumer, as its documentation shows it. They take turns, so that what else the
machine does hits all alike. Start-up is not measured.

`s3` is a mapping of a bucket's notifications; `s3-raw` is an SQS mapping that hands over the same messages as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench.figures import keep, ratios, spread, table
from bench.peers import npm
from bench.queues import DRAINED, Endpoint, Peer, Run, headrace, observe, sqs

CONTENDERS = ("aioboto3", "headrace", "sqs-consumer", "sqs-consumer-1", "s3-raw", "s3")
#: As AWS's own.
POLLERS = 5
BUCKET = "uploads"

#: What everybody must have done before it counts, and after which headrace no longer takes up speed.
_WARM_MESSAGES = 2_000
_WARM_S = 1.5


def peer(name: str, endpoint: Endpoint) -> Peer:
    """Give what headrace is compared with."""
    if name.startswith("sqs-consumer"):
        folder = npm.home()
        assert folder, "it is left out where there is no node"
        pollers = 1 if name == "sqs-consumer-1" else POLLERS
        return Peer(["node", "sqs_consumer.mjs", endpoint.url, endpoint.queue_url, str(pollers)], folder)
    attributes = [] if name == "aioboto3-bare" else ["All"]
    cycle = ("-m", "bench.peers.sqs_cycle", endpoint.url, endpoint.name, str(POLLERS))
    return Peer([sys.executable, *cycle, *attributes])


async def run(name: str, seconds: float, size_bytes: int) -> Run:
    supply = ["--bucket", BUCKET] if name.startswith("s3") else ["--size", str(size_bytes)]
    async with Endpoint(supply) as endpoint:
        if name in {"headrace", "s3", "s3-raw"}:
            mapping = sqs(endpoint.name, batch_size=10)
            if name == "s3":
                mapping["source"] = {"s3": {"bucket": BUCKET, "queue": endpoint.name}}
            async with headrace(endpoint, {"bench": mapping}) as daemon:
                await endpoint.deleted(_WARM_MESSAGES)
                await asyncio.sleep(_WARM_S)
                one = await observe(endpoint, lambda: [daemon.pid, *daemon.workers()], seconds)
            left = await endpoint.report()
            assert left["in_flight"] <= DRAINED, f"a drained daemon left {left['in_flight']} messages undeleted"
            return one
        async with peer(name, endpoint) as other:
            await endpoint.deleted(_WARM_MESSAGES)
            await asyncio.sleep(_WARM_S)
            return await observe(endpoint, other.pids, seconds)


async def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    names = list(options.only)
    if any(name.startswith("sqs-consumer") for name in names) and npm.home() is None:
        print("sqs-consumer is left out: no node and npm here", file=sys.stderr)
        names = [name for name in names if not name.startswith("sqs-consumer")]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for repeat in range(options.repeats):
        for name in names:
            one = await run(name, options.seconds, options.size)
            runs[name].append(one)
            print(
                f"{repeat + 1}/{options.repeats} {name}: {one.cpu_us:.1f} us CPU a message, {one.rate:,.0f} a second, "
                f"{one.messages / max(one.receives, 1):.1f} a receive, queue {one.endpoint_busy:.0%} of a core, "
                f"machine {one.machine_busy:.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return runs


def summary(runs: Mapping[str, Sequence[Run]]) -> str:
    bases = [name for name in ("aioboto3", "sqs-consumer", "sqs-consumer-1", "s3-raw") if name in runs]
    head = ["contender", "CPU us/message", "of it workers", "messages/s (1000s)", "peak RSS MB"]
    rows = []
    for name, mine in runs.items():
        row = [
            name,
            spread((one.cpu_us for one in mine), ".1f"),
            spread((one.workers_cpu_s / one.messages * 1e6 for one in mine), ".1f"),
            spread((one.rate / 1000 for one in mine), ".1f"),
            spread((one.peak_rss_mb for one in mine), ".0f"),
        ]
        row += [spread(ratios([one.cpu_us for one in mine], [one.cpu_us for one in runs[base]])) for base in bases]
        rows.append(row)
    return table([*head, *(f"CPU / {base}" for base in bases)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--size", type=int, default=1024, help="bytes of a body")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=CONTENDERS, metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}, aioboto3-bare"
    )
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    runs = asyncio.run(measure(options))
    raw = {"options": vars(options), "runs": {name: [asdict(one) for one in mine] for name, mine in runs.items()}}
    path = keep("sqs", raw)
    print(json.dumps(raw) if options.json else summary(runs))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
