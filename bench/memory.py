"""What the daemon holds: idle, under load, and whether the backlog matters: `python -m bench.memory --help`.

Resident sizes are those of /proc, of the daemon's process; a worker's are the user's business and listed beside. A
separate start with Python's own import timing tells which modules the daemon loads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from dataclasses import asdict, dataclass

from bench import procs, topics
from bench.daemon import Headrace
from bench.figures import keep, spread, table

_AWS = ("boto3", "aioboto3", "botocore", "aiobotocore")
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
    async with topics.temporary(servers, "headrace-bench-idle") as topic, Headrace(servers, topic, {}) as daemon:
        await asyncio.sleep(seconds)
        return await _look(daemon)


async def loaded(servers: str, records: int, size_bytes: int) -> Held:
    """A backlog, until it is done."""
    topic = await topics.filled(servers, records, size_bytes)
    async with Headrace(servers, topic, {"batch_size": 100}) as daemon:
        await daemon.follow(records)
        return await _look(daemon)


async def aws_modules(servers: str) -> list[str]:
    """Give the AWS libraries that a daemon without need of them has loaded."""
    async with topics.temporary(servers, "headrace-bench-imports") as topic:
        async with Headrace(servers, topic, {}, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as daemon:
            imported = set(_IMPORTED.findall(daemon.log.read_text()))
        assert "aiokafka" in imported, "the list of imports is there"
        return sorted(imported.intersection(_AWS))


async def measure(options: argparse.Namespace) -> dict[str, object]:
    servers = topics.bootstrap()
    loaded_aws = await aws_modules(servers)
    found: dict[str, list[Held]] = {}
    for _ in range(options.repeats):
        found.setdefault("idle", []).append(await idle(servers, options.idle_seconds))
        for size_bytes in options.sizes:
            for records in options.records:
                held = found.setdefault(f"{records:,} x {size_bytes} B", [])
                held.append(await loaded(servers, records, size_bytes))
    return {"held": found, "aws_modules": loaded_aws}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--records", type=int, nargs="+", default=[200_000, 1_000_000], help="sizes of the backlog")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1000], help="bytes of a value")
    parser.add_argument("--idle-seconds", type=float, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    results = asyncio.run(measure(options))
    held: dict[str, list[Held]] = results["held"]  # type: ignore[assignment]
    raw = {
        "options": vars(options),
        **results,
        "held": {name: [asdict(one) for one in each] for name, each in held.items()},
    }
    path = keep("memory", raw)
    if options.json:
        print(json.dumps(raw))
    else:
        print(summary(held))
        print(f"AWS libraries loaded: {', '.join(map(str, results['aws_modules'])) or 'none'}")  # type: ignore[call-overload]
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
