"""What it takes to change one mapping of many, and what the others feel of it: `python -m bench.reload --help`.

Many mappings, each with a queue of its own name; behind all of them is one `bench.sqs_endpoint`, whose messages go to
whichever mapping asks first. Messages come at a steady rate with the time at which they were sent, and the handler
writes down when they arrived. Now and then the file is changed in one mapping and the daemon told by SIGHUP. How late
messages are around a reload, beside how late they are in as long a time before it, is how long the others paused; how
long the reload took is read from the daemon's log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from bench import procs
from bench.daemon import Headrace
from bench.figures import keep, percentile, spread, table
from bench.queues import Endpoint, headrace, sqs

#: Until all mappings poll at leisure.
_WARM_S = 20.0
#: From a reload on, messages count as touched by it for so long; and in as long a time before it as untouched.
_AROUND_S = 4.0
_LOOK_S = 0.02
_PATIENCE_S = 60.0

_CODE = """
import json, time
LEDGER = open("{ledger}", "a", buffering=1)
def handler(event, context):
    now = time.time()
    for record in event["Records"]:
        print(json.loads(record["body"])["sent"], now, file=LEDGER)
"""


@dataclass(frozen=True, slots=True)
class Reload:
    """One change of one mapping. Times from the signal on, ms."""

    #: Until the file was read and compared, until the mapping ran by it.
    read_ms: float
    done_ms: float
    #: Mappings that restarted beside it.
    others: int
    #: How late the latest message was, in the time before and around the reload, and how many there were.
    before_ms: float
    around_ms: float
    before_p99_ms: float
    around_p99_ms: float
    messages: int
    #: CPU of the daemon's process in the time around it, beyond that in as long a time before it.
    cpu_ms: float
    machine_busy: float


async def _send(endpoint: Endpoint, rate: float) -> None:
    """Send messages for ever."""
    headers = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
    async with aiohttp.ClientSession(headers=headers) as http:
        while True:
            body = {"QueueUrl": endpoint.queue_url, "MessageBody": json.dumps({"sent": time.time()})}
            async with http.post(endpoint.url, data=json.dumps(body)) as answer:
                assert answer.status == 200, await answer.text()
            await asyncio.sleep(1 / rate)


def _lines(daemon: Headrace, start: int) -> list[dict[str, Any]]:
    """Give what the daemon has logged since, whole lines only."""
    text = daemon.log.read_bytes()[start:]
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def _ms_since(began_s: float, line: Mapping[str, Any]) -> float:
    return (datetime.fromisoformat(line["timestamp"]).timestamp() - began_s) * 1000


def _late_ms(ledger: Path, since_s: float, until_s: float) -> list[float]:
    """Say how late the messages were that were sent within a time."""
    late = [tuple(map(float, line.split())) for line in ledger.read_text().splitlines()]
    return [(end_s - sent_s) * 1000 for sent_s, end_s in late if since_s <= sent_s < until_s]


async def _reload(daemon: Headrace, name: str, batch_size: int, ledger: Path) -> Reload:
    file = daemon.folder / "headrace.yaml"
    document = json.loads(file.read_text())
    document["event_source_mappings"][name]["batch_size"] = batch_size
    text = json.dumps(document, indent=1)
    start, clock = daemon.log.stat().st_size, procs.clock()
    idle_s = procs.usage(daemon.pid).cpu_s
    await asyncio.sleep(_AROUND_S)
    cpu_s = procs.usage(daemon.pid).cpu_s
    idle_s = cpu_s - idle_s
    file.write_text(text)
    began_s = time.time()
    os.kill(daemon.pid, signal.SIGHUP)
    async with asyncio.timeout(_PATIENCE_S):
        while not (done := [line for line in _lines(daemon, start) if line["event"] == "mapping.started"]):  # noqa: ASYNC110 - a file
            await asyncio.sleep(_LOOK_S)
    await asyncio.sleep(max(0.0, began_s + _AROUND_S - time.time()))
    cpu_s = procs.usage(daemon.pid).cpu_s - cpu_s
    idle_s *= (time.time() - began_s) / _AROUND_S
    await asyncio.sleep(1.0)
    lines = _lines(daemon, start)
    [read] = [line for line in lines if line["event"] == "mapping.changed"]
    assert (read["mapping"], done[0]["mapping"]) == (name, name)
    before = _late_ms(ledger, began_s - _AROUND_S, began_s)
    around = _late_ms(ledger, began_s, began_s + _AROUND_S)
    return Reload(
        _ms_since(began_s, read),
        _ms_since(began_s, done[0]),
        sum(line["event"] == "mapping.started" for line in lines) - 1,
        max(before),
        max(around),
        percentile(before, 99),
        percentile(around, 99),
        len(around),
        (cpu_s - idle_s) * 1000,
        procs.busy_share(clock, procs.clock()),
    )


async def measure(options: argparse.Namespace) -> list[Reload]:
    mappings = {f"m-{number:04d}": sqs(f"m-{number:04d}", batch_size=10) for number in range(options.mappings)}
    ledger = Path(tempfile.mkdtemp(prefix="headrace-bench-reload-")) / "ledger"
    found = []
    async with Endpoint(["--messages", "0"]) as endpoint:
        code = _CODE.format(ledger=ledger)
        async with headrace(endpoint, mappings, code, reserved_concurrency=2) as daemon:
            sending = asyncio.create_task(_send(endpoint, options.rate))
            await asyncio.sleep(options.warm)
            for repeat in range(options.repeats):
                found.append(one := await _reload(daemon, f"m-{repeat:04d}", 9 - repeat % 5, ledger))
                print(f"{repeat + 1}/{options.repeats}: {one}", file=sys.stderr, flush=True)
                await asyncio.sleep(_AROUND_S)
            sending.cancel()
    shutil.rmtree(ledger.parent)
    return found


def summary(found: Sequence[Reload]) -> str:
    rows = [
        ["from the signal until the file is read and compared, ms", spread((one.read_ms for one in found), ".0f")],
        ["from then until the changed mapping runs, ms", spread((one.done_ms - one.read_ms for one in found), ".0f")],
        ["together, ms", spread((one.done_ms for one in found), ".0f")],
        ["other mappings restarted", spread((one.others for one in found), ".0f")],
        ["latest message in the 4 s before, ms", spread((one.before_ms for one in found), ".0f")],
        ["latest message in the 4 s of a reload, ms", spread((one.around_ms for one in found), ".0f")],
        ["p99 before, ms", spread((one.before_p99_ms for one in found), ".1f")],
        ["p99 of a reload, ms", spread((one.around_p99_ms for one in found), ".1f")],
        ["CPU of the daemon beyond its usual, ms", spread((one.cpu_ms for one in found), ".0f")],
        ["machine busy", spread((one.machine_busy for one in found), ".0%")],
    ]
    return table(["", "median [lowest-highest]"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--mappings", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=100, help="messages a second")
    parser.add_argument("--warm", type=float, default=_WARM_S, help="seconds before it counts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    found = asyncio.run(measure(options))
    raw = {"options": vars(options), "runs": [asdict(one) for one in found]}
    path = keep("reload", raw)
    print(json.dumps(raw) if options.json else summary(found))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
