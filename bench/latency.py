"""How late a handler starts, beside a plain aiokafka consumer: `python -m bench.latency --help`.

A producer in this process sends messages at a steady pace; each carries the time at which it was handed to the client.
The handler notes the time first thing and writes both down; so does the plain consumer for each message it gets. One
machine, one clock. Plain consumer and headrace take turns, with a topic of their own each.

The end of a window cannot be seen from outside. What can is the time from the moment a batch's first message was handed
to the producer until the handler starts, less the window. That is how late the window fires, and the way of one message
through the broker; the plain consumer shows how long that way is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer

from bench import procs, topics
from bench.daemon import Headrace, kafka
from bench.figures import keep, percentile, spread, table

_ROOT = Path(__file__).parents[1]
#: Default of Kafka mappings, and the only one below a second that AWS has.
WINDOW_S = 0.5
#: The first messages meet connections that are being made.
_WARM_S = 2
_PATIENCE_S = 20

#: One line a call: when it began, then when each of its messages was sent.
HANDLER = """
import base64, os, time
notes = os.open(os.environ["BENCH_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def handler(event, context):
    began = time.time_ns()
    [records] = event["records"].values()
    sent = " ".join(base64.b64decode(record["value"]).decode() for record in records)
    os.write(notes, f"{began} {sent}\\n".encode())
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One start of a handler, or one return of the plain consumer; epoch nanoseconds."""

    began_ns: int
    sent_ns: Sequence[int]


@dataclass(slots=True)
class Plain(AbstractAsyncContextManager["Plain"]):
    """The plain consumer in its own process."""

    servers: str
    topic: str
    notes: Path
    _process: asyncio.subprocess.Process = field(init=False)

    async def __aenter__(self) -> Self:
        arguments = (self.servers, self.topic, str(self.notes))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.peers.notes", *arguments, cwd=_ROOT, stdout=subprocess.PIPE
        )
        assert self._process.stdout
        assert await self._process.stdout.readline(), "the plain consumer says when it has begun"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._process.terminate()
        await self._process.wait()


def follower(name: str, servers: str, topic: str, notes: Path) -> AbstractAsyncContextManager[object]:
    """Give what reads the topic and takes notes."""
    if name == "plain":
        return Plain(servers, topic, notes)
    window_s = WINDOW_S if name == "window" else 0
    mapping: dict[str, Any] = {"batch_size": 1000}
    if not window_s:
        mapping["maximum_batching_window_in_seconds"] = 0
    return Headrace({"bench": kafka(servers, topic, **mapping)}, HANDLER, {"environment": {"BENCH_NOTES": str(notes)}})


async def observe(name: str, servers: str, rate: int, seconds: float) -> list[Call]:
    """Send messages and give what was noted of them, without the first ones."""
    with TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        async with topics.temporary(servers, "headrace-bench-latency") as topic, follower(name, servers, topic, notes):
            sent = await _produce(servers, topic, rate, seconds)
            calls = await _all_noted(notes, sent)
    warm_ns = min(call.sent_ns[0] for call in calls) + _WARM_S * 1_000_000_000
    return [call for call in calls if call.sent_ns[0] > warm_ns]


async def _produce(servers: str, topic: str, rate: int, seconds: float) -> int:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        count = int(rate * (seconds + _WARM_S))
        began_s = time.monotonic()
        for number in range(count):
            await asyncio.sleep(began_s + number / rate - time.monotonic())
            partition = number % topics.PARTITIONS
            await producer.send(
                topic, str(time.time_ns()).encode(), key=topics.KEYS[number % 1000], partition=partition
            )
        await producer.flush()
        return count
    finally:
        await producer.stop()


async def _all_noted(notes: Path, sent: int) -> list[Call]:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            calls = _read(notes)
            if sum(len(call.sent_ns) for call in calls) >= sent:
                return calls
            await asyncio.sleep(0.2)


def _read(notes: Path) -> list[Call]:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [Call(began, rest) for began, *rest in (map(int, line.split()) for line in lines)]


def delays_ms(calls: Sequence[Call], name: str) -> list[float]:
    """Give what is measured of these calls: of each message, or of each window."""
    if name == "window":
        return [(call.began_ns - call.sent_ns[0]) / 1e6 - WINDOW_S * 1000 for call in calls]
    return [(call.began_ns - sent) / 1e6 for call in calls for sent in call.sent_ns]


async def measure(options: argparse.Namespace) -> dict[str, list[list[float]]]:
    servers = topics.bootstrap()
    found: dict[str, list[list[float]]] = {"plain": [], "headrace": [], "window": []}
    for repeat in range(options.repeats):
        for name, rounds in found.items():
            began = procs.clock()
            delays = delays_ms(await observe(name, servers, options.rate, options.seconds), name)
            rounds.append(delays)
            print(
                f"{repeat + 1}/{options.repeats} {name}: p50 {percentile(delays, 50):.2f} ms, "
                f"p99 {percentile(delays, 99):.2f} ms of {len(delays)}, "
                f"machine {procs.busy_share(began, procs.clock()):.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return found


def summary(found: dict[str, list[list[float]]]) -> str:
    rows = []
    for name, title in (
        ("plain", "produce to plain aiokafka"),
        ("headrace", "produce to handler, window 0"),
        ("window", f"first produce to handler, less the window of {WINDOW_S} s"),
    ):
        points = {percent: [percentile(delays, percent) for delays in found[name]] for percent in (50, 99)}
        plain = {percent: [percentile(delays, percent) for delays in found["plain"]] for percent in (50, 99)}
        added = [[ours - base for ours, base in zip(points[p], plain[p], strict=True)] for p in (50, 99)]
        rows.append([title, spread(points[50]), spread(points[99]), spread(added[0]), spread(added[1])])
    return table(["ms", "p50", "p99", "p50 added to plain", "p99 added to plain"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rate", type=int, default=200, help="messages a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    found = asyncio.run(measure(options))
    raw = {"options": vars(options), "delays_ms": found}
    path = keep("latency", raw)
    print(json.dumps(raw) if options.json else summary(found))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
