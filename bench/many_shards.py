"""What many shards cost, empty ones and ones that never end: `python -m bench.many_shards --help`.

1,000 shards that stay empty, polled once a second each. Plain aioboto3 takes turns with the daemon: it polls as many
shards in one loop, as fast as it can, so that its CPU for an empty poll can be told; at one poll a second of each shard
it would take the share of a core in the table.

100 shards that never end, and a handler that takes 100 ms for a batch: whatever may be held is held. A line through
what the daemon held tells whether it grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench import procs
from bench.figures import keep, ratios, spread, table
from bench.queues import Peer
from bench.streams import STREAM, Endpoint, Run, headrace, kinesis, observe

CONTENDERS = ("aioboto3", "headrace")
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(0.1)\n"
#: As many of the aioboto3 polls are under way at once; more do not make it faster.
_PEER_SHARDS = 10
_WARM_POLLS = 3
_LOOK_S = 0.5


async def idle(name: str, options: argparse.Namespace) -> Run:
    shards = _PEER_SHARDS if name == "aioboto3" else options.shards
    async with Endpoint(["--shards", str(shards), "--supply", "0"]) as endpoint:
        if name == "aioboto3":
            polls = ("-m", "bench.peers.kinesis_polls", endpoint.url, STREAM, "1000")
            async with Peer([sys.executable, *polls]) as peer:
                await endpoint.reached("polls", _WARM_POLLS * shards)
                return await observe(endpoint, peer.pids, options.seconds)
        async with headrace(endpoint, {"bench": kinesis()}) as daemon:
            await endpoint.reached("polls", _WARM_POLLS * shards)
            return await observe(endpoint, lambda: [daemon.pid], options.seconds)


async def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
    for repeat in range(options.repeats):
        for name, mine in found.items():
            mine.append(one := await idle(name, options))
            print(
                f"{repeat + 1}/{options.repeats} {name}: {one.poll_us:.0f} us CPU a poll, "
                f"{one.polls / one.seconds:,.0f} polls a second, {one.rss_mb:.0f} MB, "
                f"machine {one.machine_busy:.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return found


def summary(found: Mapping[str, Sequence[Run]], shards: int) -> str:
    rows = [
        [
            name,
            spread((one.poll_us for one in mine), ".0f"),
            spread((one.poll_us * shards / 1e4 for one in mine), ".1f"),
            spread((one.polls / one.seconds for one in mine), ",.0f"),
            spread((one.rss_mb for one in mine), ".0f"),
            spread(ratios([one.poll_us for one in mine], [one.poll_us for one in found["aioboto3"]])),
        ]
        for name, mine in found.items()
    ]
    head = ["", "CPU us/poll", f"% of a core, {shards:,} shards", "polls/s", "RSS MB", "CPU / aioboto3"]
    return table(head, rows)


# --- more than the handler takes


@dataclass(frozen=True, slots=True)
class Course:
    """What the daemon held while it worked."""

    rss_mb: Sequence[float]
    #: Records that it has read, and those that the function is done with.
    read: int
    done: int

    @property
    def growth_mb_per_min(self) -> float:
        """Slope of the straight line nearest to what was seen."""
        return statistics.linear_regression(range(len(self.rss_mb)), self.rss_mb).slope * 60 / _LOOK_S


async def backed_up(batch_size: int, options: argparse.Namespace) -> Course:
    mapping = kinesis(batch_size=batch_size)
    endpoint = Endpoint(["--shards", str(options.busy_shards)])
    async with endpoint, headrace(endpoint, {"bench": mapping}, SLOW) as daemon:
        await asyncio.sleep(options.warm)
        seen: list[float] = []
        for _ in range(int(options.seconds / _LOOK_S)):
            await asyncio.sleep(_LOOK_S)
            seen.append(procs.usage(daemon.pid).rss_mb)
        done = (await daemon.metrics())["invocation_duration_seconds_count"]
        return Course(seen, (await endpoint.report())["records"], int(done) * batch_size)


def courses_summary(found: Mapping[int, Course]) -> str:
    rows = [
        [
            f"batch {batch_size:,}",
            spread(one.rss_mb, ".0f"),
            f"{one.growth_mb_per_min:+.1f}",
            f"{one.read - one.done:,}",
            f"{one.done:,}",
        ]
        for batch_size, one in found.items()
    ]
    return table(["backed up, MB", "daemon", "growth a minute", "records held", "records done"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--shards", type=int, default=1000, help="that are idle")
    parser.add_argument("--busy-shards", type=int, default=100, help="that never end")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warm", type=float, default=5, help="seconds before what is held is looked at")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="*", default=[100, 1000], help="sizes of batches, of busy shards")
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    runs = asyncio.run(measure(options))
    courses = {size: asyncio.run(backed_up(size, options)) for size in options.batches}
    raw = {
        "options": vars(options),
        "runs": {name: [asdict(one) for one in mine] for name, mine in runs.items()},
        "courses": {size: asdict(one) for size, one in courses.items()},
    }
    path = keep("many-shards", raw)
    shown = [summary(runs, options.shards), *([courses_summary(courses)] if courses else [])]
    print(json.dumps(raw) if options.json else "\n\n".join(shown))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
