"""What the daemon holds: idle, under load, and whether the backlog matters: `python -m bench.memory --help`.

Resident sizes are those of /proc, of the daemon's process; a worker's are the user's business and listed beside. A
separate start with Python's own import timing tells which modules the daemon loads.

With both a Kafka and an SQS mapping the daemon is watched for some time: with a handler that does nothing, and with one
so slow that whatever may be held is held; a line through what it held tells whether it grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench import procs, topics
from bench.daemon import NOOP, Headrace, kafka
from bench.figures import keep, spread, table
from bench.queues import Endpoint, headrace, sqs

_AWS = ("boto3", "aioboto3", "botocore", "aiobotocore")
#: Before it counts: all is loaded, and buffers are full.
_WARM_S = 10.0
_LOOK_S = 0.5
_HANDLERS = {"no-op": NOOP, "slow": "import time\n\ndef handler(event, context):\n    time.sleep(0.1)\n"}
_IMPORTED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Held:
    """Resident sizes, MB."""

    rss_mb: float
    peak_rss_mb: float
    worker_rss_mb: float


async def _look(daemon: Headrace) -> Held:
    seen = procs.usage(daemon.pid)
    workers = [procs.usage(worker).rss_mb for worker in daemon.workers()]
    return Held(seen.rss_mb, seen.peak_rss_mb, max(workers, default=0.0))


async def idle(servers: str, seconds: float) -> Held:
    """One mapping on an empty topic."""
    empty = topics.temporary(servers, "headrace-bench-idle")
    async with empty as topic, Headrace({"bench": kafka(servers, topic)}) as daemon:
        await asyncio.sleep(seconds)
        return await _look(daemon)


async def loaded(servers: str, records: int, size_bytes: int) -> Held:
    """A backlog, until it is done."""
    topic = await topics.filled(servers, records, size_bytes)
    async with Headrace({"bench": kafka(servers, topic, batch_size=100)}) as daemon:
        await daemon.follow(records)
        return await _look(daemon)


@dataclass(frozen=True, slots=True)
class Course:
    """What the daemon held while it worked for two mappings."""

    rss_mb: Sequence[float]
    seconds: float
    kafka_records: int
    queue_messages: int

    @property
    def growth_mb_per_min(self) -> float:
        """Slope of the straight line nearest to what was seen."""
        return statistics.linear_regression(range(len(self.rss_mb)), self.rss_mb).slope * 60 / _LOOK_S


async def both(servers: str, records: int, size_bytes: int, handler: str, seconds: float) -> Course:
    """Watch a daemon that reads a backlog from Kafka, and a queue that does not end."""
    topic = await topics.filled(servers, records, size_bytes)
    async with Endpoint(["--size", str(size_bytes)]) as endpoint:
        mappings = {"queue": sqs(endpoint.name, batch_size=10), "topic": kafka(servers, topic, batch_size=100)}
        async with headrace(endpoint, mappings, _HANDLERS[handler]) as daemon:
            await endpoint.deleted(1)
            await asyncio.sleep(_WARM_S)
            seen: list[float] = []
            for _ in range(int(seconds / _LOOK_S)):
                await asyncio.sleep(_LOOK_S)
                seen.append(procs.usage(daemon.pid).rss_mb)
            done = {name: (await daemon.metrics(name))["invoked_event_count_total"] for name in mappings}
    return Course(seen, seconds, int(done["topic"]), int(done["queue"]))


async def aws_modules(servers: str) -> list[str]:
    """Give the AWS libraries that a daemon without need of them has loaded."""
    async with topics.temporary(servers, "headrace-bench-imports") as topic:
        watched = {"PYTHONPROFILEIMPORTTIME": "1"}
        async with Headrace({"bench": kafka(servers, topic)}, environment=watched) as daemon:
            imported = set(_IMPORTED.findall(daemon.log.read_text()))
        assert "aiokafka" in imported, "the list of imports is there"
        return sorted(imported.intersection(_AWS))


async def measure(options: argparse.Namespace) -> tuple[list[str], dict[str, list[Held]], dict[str, Course]]:
    servers = topics.bootstrap()
    loaded_aws = await aws_modules(servers)
    found: dict[str, list[Held]] = {}
    courses: dict[str, Course] = {}
    for _ in range(options.repeats if "kafka" in options.only else 0):
        found.setdefault("idle", []).append(await idle(servers, options.idle_seconds))
        for size_bytes in options.sizes:
            for records in options.records:
                held = found.setdefault(f"{records:,} x {size_bytes} B", [])
                held.append(await loaded(servers, records, size_bytes))
    for handler in _HANDLERS if "both" in options.only else ():
        size_bytes = max(options.sizes)
        course = await both(servers, max(options.records), size_bytes, handler, options.seconds)
        courses[f"{size_bytes} B, {handler} handler"] = course
    return loaded_aws, found, courses


def summary(found: dict[str, list[Held]]) -> str:
    rows = [
        [
            name,
            *(
                spread((getattr(one, what) for one in held), ".1f")
                for what in ("rss_mb", "peak_rss_mb", "worker_rss_mb")
            ),
        ]
        for name, held in found.items()
    ]
    return table(["MB", "daemon", "daemon at its peak", "worker"], rows)


def courses_summary(courses: dict[str, Course]) -> str:
    rows = [
        [
            name,
            spread(one.rss_mb, ".1f"),
            f"{one.growth_mb_per_min:+.2f}",
            f"{one.kafka_records:,}",
            f"{one.queue_messages:,}",
        ]
        for name, one in courses.items()
    ]
    return table(["Kafka and SQS, MB", "daemon", "growth a minute", "records", "messages"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--records", type=int, nargs="+", default=[200_000, 1_000_000], help="sizes of the backlog")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1000], help="bytes of a value")
    parser.add_argument("--idle-seconds", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=30, help="to watch a daemon of two mappings")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("kafka", "both"), default=("kafka", "both"))
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    aws, held, courses = asyncio.run(measure(options))
    raw = {
        "options": vars(options),
        "held": {name: [asdict(one) for one in each] for name, each in held.items()},
        "courses": {name: asdict(one) for name, one in courses.items()},
        "aws_modules": aws,
    }
    path = keep("memory", raw)
    if options.json:
        print(json.dumps(raw))
    else:
        print(*(shown for shown in (held and summary(held), courses and courses_summary(courses)) if shown), sep="\n\n")
        print(f"AWS libraries loaded by a daemon of Kafka only: {', '.join(aws) or 'none'}")
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
