"""Does a daemon that works for long hold more and more memory? `python -m bench.soak --help`.

One daemon reads a topic and a queue that are filled at a steady rate, and one record in so many is poison: it is
bisected out, retried, kept in the failure store and sent to a file. The resident sizes of the daemon and its worker are
looked at every few seconds. A straight line through what the daemon held after the first minutes says whether it grows.
With `--plot` the course is drawn, as an SVG.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import procs, topics
from bench.daemon import Headrace, kafka
from bench.feed import POISON
from bench.figures import keep, table
from bench.queues import Endpoint, Peer, headrace, sqs

_LOOK_S = 5.0
_WARM_S = 20.0
#: The topic keeps what was written lately, so that an hour's records do not fill the disk.
_SHORT = {"retention.ms": "60000", "segment.bytes": "16777216"}

HANDLER = f"""
import base64

POISON = base64.b64encode({POISON!r}).decode()

def handler(event, context):
    if "records" in event:
        for records in event["records"].values():
            if any(record["key"] == POISON for record in records):
                raise ValueError("poison")
"""


@dataclass(frozen=True, slots=True)
class Look:
    """The daemon at one moment."""

    at_s: float
    rss_mb: float
    worker_rss_mb: float
    cpu_s: float
    #: Records and messages handed to the function, and batches given up, since the start.
    records: int
    messages: int
    given_up: int
    #: Records that wait.
    lag: int


@dataclass(frozen=True, slots=True)
class Course:
    """A whole run."""

    looks: Sequence[Look]
    #: What was before does not count for the slope, seconds.
    settle_s: float

    @property
    def settled(self) -> Sequence[Look]:
        return [look for look in self.looks if look.at_s >= self.settle_s]

    @property
    def line(self) -> tuple[float, float]:
        """Slope (MB an hour) and start (MB) of the straight line nearest to what was held after the first minutes."""
        found = self.settled
        line = statistics.linear_regression([look.at_s / 3600 for look in found], [look.rss_mb for look in found])
        return line.slope, line.intercept

    def rate(self, what: str) -> float:
        """Give how much of something went through a second."""
        first, last = self.settled[0], self.settled[-1]
        return float(getattr(last, what) - getattr(first, what)) / (last.at_s - first.at_s)


async def _look(daemon: Headrace, began_s: float) -> Look:
    found = {name: await daemon.metrics(name) for name in ("topic", "queue")}
    seen = procs.usage(daemon.pid)
    workers = [procs.usage(worker).rss_mb for worker in daemon.workers()]
    return Look(
        time.monotonic() - began_s,
        seen.rss_mb,
        max(workers, default=0.0),
        seen.cpu_s,
        int(found["topic"]["invoked_event_count_total"]),
        int(found["queue"]["invoked_event_count_total"]),
        int(found["topic"].get("discarded_batch_count_total", 0)),
        int(found["topic"]["sum_offset_lag"]),
    )


async def soak(options: argparse.Namespace) -> Course:
    servers = topics.bootstrap()
    poison = int(options.rate * options.poison_s)
    feed = ("-m", "bench.feed", servers, "--rate", str(options.rate), "--poison", str(poison))
    async with AsyncExitStack() as stack:
        topic = await stack.enter_async_context(topics.temporary(servers, "headrace-bench-soak", _SHORT))
        supply = ["--messages", "0", "--rate", str(options.queue_rate)]
        endpoint = await stack.enter_async_context(Endpoint(supply))
        reading = kafka(
            servers,
            topic,
            maximum_retry_attempts=1,
            bisect_batch_on_function_error=True,
            retry_backoff={"base": "100ms"},
            destination_config={"on_failure": {"file": {"path": "./failures.jsonl"}}},
        )
        mappings = {"topic": reading, "queue": sqs(endpoint.name, batch_size=10)}
        daemon = await stack.enter_async_context(headrace(endpoint, mappings, HANDLER))
        await stack.enter_async_context(Peer([sys.executable, *feed, topic]))
        await endpoint.deleted(1)
        await asyncio.sleep(_WARM_S)
        began_s, looks = time.monotonic(), list[Look]()
        while not looks or looks[-1].at_s < options.minutes * 60:
            looks.append(await _look(daemon, began_s))
            if len(looks) % 24 == 1:
                print(f"{looks[-1].at_s / 60:.0f} min: {looks[-1]}", file=sys.stderr, flush=True)
            await asyncio.sleep(_LOOK_S)
    return Course(looks, options.settle_minutes * 60)


def plot(course: Course) -> str:
    """Draw what the daemon and its worker held over time, and the line through it."""
    width, height, left, bottom = 760, 300, 50, 260
    end_s = course.looks[-1].at_s
    top_mb = 10 * (int(max(max(look.rss_mb, look.worker_rss_mb) for look in course.looks)) // 10 + 1)

    def x(at_s: float) -> float:
        return round(left + (width - left - 20) * at_s / end_s, 1)

    def y(mb: float) -> float:
        return round(bottom - (bottom - 20) * mb / top_mb, 1)

    def curve(what: str, colour: str) -> str:
        points = " ".join(f"{x(look.at_s)},{y(getattr(look, what))}" for look in course.looks)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'

    def text(at_x: float, at_y: float, said: str, anchor: str = "middle") -> str:
        return f'<text x="{at_x}" y="{at_y}" text-anchor="{anchor}">{said}</text>'

    slope, start = course.line
    first_s = course.settled[0].at_s
    ends = [(x(at_s), y(start + slope * at_s / 3600)) for at_s in (first_s, end_s)]
    step_mb = max(10, top_mb // 5 // 10 * 10)
    grid = [
        f'<line x1="{left}" x2="{width - 20}" y1="{y(mb)}" y2="{y(mb)}" stroke="#ddd"/>'
        + text(left - 6, y(mb) + 4, str(mb), "end")
        for mb in range(0, top_mb + 1, step_mb)
    ]
    minutes = [text(x(end_s * part / 6), bottom + 18, f"{end_s * part / 360:.0f}") for part in range(7)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *grid,
            *minutes,
            text(width / 2, height - 6, "minutes"),
            text(
                left,
                14,
                f"resident MB: daemon (blue; from the first bar on {slope:+.2f} MB an hour), worker (grey)",
                "start",
            ),
            f'<line x1="{x(first_s)}" x2="{x(first_s)}" y1="20" y2="{bottom}" stroke="#999" stroke-dasharray="4"/>',
            curve("worker_rss_mb", "#999"),
            curve("rss_mb", "#1f77b4"),
            '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="#d62728" stroke-dasharray="6"/>'.format(*ends[0], *ends[1]),
            "</svg>\n",
        ]
    )


def summary(course: Course) -> str:
    first, last = course.settled[0], course.settled[-1]
    rows = [
        ["daemon, MB an hour", f"{course.line[0]:+.2f}"],
        ["daemon, first and last MB", f"{first.rss_mb:.1f}, {last.rss_mb:.1f}"],
        ["worker, first and last MB", f"{first.worker_rss_mb:.1f}, {last.worker_rss_mb:.1f}"],
        ["records a second", f"{course.rate('records'):,.0f}"],
        ["messages a second", f"{course.rate('messages'):,.0f}"],
        ["batches given up", f"{last.given_up - first.given_up}"],
        ["daemon's share of a core", f"{course.rate('cpu_s'):.2f}"],
        ["largest lag, records", f"{max(look.lag for look in course.settled):,}"],
        ["minutes", f"{(last.at_s - first.at_s) / 60:.0f}"],
    ]
    return table(["after the first minutes", ""], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--settle-minutes", type=float, default=10, help="before the slope counts")
    parser.add_argument("--rate", type=float, default=20_000, help="records of 200 B a second")
    parser.add_argument("--queue-rate", type=float, default=2_000, help="messages of 1 KB a second")
    parser.add_argument("--poison-s", type=float, default=1, help="seconds from one poison record to the next")
    parser.add_argument("--plot", type=Path, help="an SVG to write")
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    course = asyncio.run(soak(options))
    raw = {"options": {**vars(options), "plot": str(options.plot)}, "looks": [asdict(look) for look in course.looks]}
    path = keep("soak", raw)
    if options.plot:
        options.plot.write_text(plot(course))
    print(json.dumps(raw) if options.json else summary(course))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
