"""Asynchronous events: how fast they are accepted durably, and what a million that wait costs.

- `accept`: 32 clients, each with a connection of its own, invoke a function with type Event, one after the other. The
  same server with its state on the disk, and in memory, where waiting for the disk costs nothing; in turn. The function
  sleeps, so that hardly anything else goes on. Beside them, what the disk takes to make 4 KiB durable.
- `backlog`: events of 1 KB wait in the state, and a daemon is started on it: how long until it answers, beside one
  with nothing in its state; what memory it takes while it runs them; and how fast it does, beside direct invocations
  of the same function by the same pool of workers, as many at once, without a server or a store around them.

Figures are medians [lowest-highest] over the repeats; ratios are taken within a repeat.

    .venv/bin/python -m bench.inbox [--repeats 3] [--seconds 5] [--events 1000000] [--part accept|backlog] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvloop

from bench import figures, procs
from connectors.store.sqlite import SqliteStore
from handlers.function import FunctionSpec
from handlers.logs import RotatingFile
from handlers.pool import Pool
from router.assembly import DEFAULT_CONCURRENCY
from router.core.asynchronous import AsyncEvent
from router.core.model import Returned
from router.event_ports import AcceptEvent
from router.ports import Invocation

CONNECTIONS = 32
EVENT_BYTES = 1024
#: Where nothing waits for a disk.
MEMORY = Path("/dev/shm")
GOALS = {"accept_ratio": 0.5, "p99_ms": 20.0, "start_s": 2.0, "memory_mb": 150.0, "drain_ratio": 0.5}
ECHO = "def handle(event, context):\n    return event\n"
SLEEPY = "import time\ndef handle(event, context):\n    time.sleep(600)\n"
AT_ONCE = 2000
WARM_UP_S = 1.0


def make_payload(number: int) -> bytes:
    """An event of 1 KB, of which a part does not compress."""
    noise = os.urandom(200).hex()
    text = json.dumps({"order": number, "noise": noise, "text": ""})
    return json.dumps({"order": number, "noise": noise, "text": "x" * (EVENT_BYTES - len(text))}).encode()


# --- the daemon


class Served:
    """`headrace run` over a state of its own."""

    def __init__(self, folder: Path, state: Path, source: str) -> None:
        self.port = _free_port()
        code = folder / "code"
        code.mkdir(exist_ok=True)
        (code / "app.py").write_text(source)
        function = {"handler": "app.handle", "code": str(code), "timeout": 900, "logs": "off"}
        self._file = folder / "headrace.yaml"
        document = {"state": str(state), "listen": f"127.0.0.1:{self.port}", "functions": {"echo": function}}
        self._file.write_text(json.dumps(document))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; gives how long it took to answer, seconds."""
        begun_s = time.perf_counter()
        command = [Path(sys.executable).with_name("headrace"), "run", self._file]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health/ready") as answer:
                if answer.status == 200:
                    return time.perf_counter() - begun_s
            assert self._process.poll() is None, "the daemon ended"
            time.sleep(0.005)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def finished(self) -> float:
        """Count the events that are done with."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            text = answer.read().decode()
        name = 'headrace_async_events_finished_total{condition="Success",function="echo"} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    def kill(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def serving(state_in: Path, source: str) -> Iterator[tuple[Served, Path]]:
    folder, within = Path(tempfile.mkdtemp(prefix="bench-")), Path(tempfile.mkdtemp(prefix="bench-", dir=state_in))
    served = Served(folder, within / "state", source)
    try:
        yield served, within / "state"
    finally:
        with contextlib.suppress(AssertionError):
            served.kill()
        shutil.rmtree(folder)
        shutil.rmtree(within)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- accepting


async def call_for(port: int, seconds: float) -> list[float]:
    """Invoke as often as it goes for a while; gives how long each took, seconds."""
    taken: list[float] = []
    until_s = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        payload = make_payload(number)
        head = (
            f"POST /2015-03-31/functions/echo/invocations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"X-Amz-Invocation-Type: Event\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        request = head.encode() + payload
        while (sent_s := time.perf_counter()) < until_s:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 202 " in answer.partition(b"\r\n")[0], answer
            taken.append(time.perf_counter() - sent_s)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    return taken


def disk_wait_s(folder: Path) -> list[float]:
    """Give how long the disk takes to make 4 KiB durable, in a file that has its size."""
    waits = []
    with (folder / "probe").open("wb+", buffering=0) as file:
        file.write(b"x" * 4096 * 200)
        os.fsync(file.fileno())
        for number in range(200):
            os.pwrite(file.fileno(), os.urandom(4096), number * 4096)
            begun_s = time.perf_counter()
            os.fdatasync(file.fileno())
            waits.append(time.perf_counter() - begun_s)
    (folder / "probe").unlink()
    return waits


def measure_accept(state_in: Path, seconds: float) -> dict[str, float]:
    with serving(state_in, SLEEPY) as (served, state):
        served.start()
        uvloop.run(call_for(served.port, WARM_UP_S))
        taken = uvloop.run(call_for(served.port, seconds))
        waits = disk_wait_s(state)
    return {
        "rate": len(taken) / seconds,
        "p50_ms": figures.percentile(taken, 50) * 1000,
        "p99_ms": figures.percentile(taken, 99) * 1000,
        "disk_p50_ms": figures.percentile(waits, 50) * 1000,
        "disk_p99_ms": figures.percentile(waits, 99) * 1000,
    }


def accept(repeats: int, seconds: float, disk: Path) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"on disk": [], "in memory": []}
    for _ in range(repeats):
        found["in memory"].append(measure_accept(MEMORY, seconds))
        found["on disk"].append(measure_accept(disk, seconds))
    rates = {name: [each["rate"] for each in several] for name, several in found.items()}
    return {"ways": found, "accept_ratio": figures.ratios(rates["on disk"], rates["in memory"])}


# --- what waits


def make_event(number: int) -> AcceptEvent:
    now_s = time.time()
    return AcceptEvent(AsyncEvent(str(uuid4()), "echo", None, now_s, now_s, EVENT_BYTES), make_payload(number))


async def fill(state: Path, count: int) -> None:
    """Put events into a state as a daemon would that was killed."""
    store = await SqliteStore.open(state, power_safe=False)
    inbox = await store.open_inbox()
    for begin in range(0, count, AT_ONCE):
        await inbox.apply([make_event(number) for number in range(begin, min(begin + AT_ONCE, count))])
    await inbox.close()
    await store.close()


async def invoke_directly(folder: Path, seconds: float) -> float:
    """Give the rate of a closed loop over the same workers, as many at once as events of a function run."""
    sink = RotatingFile(folder / "logs" / "bench.log")
    spec = FunctionSpec(
        "echo", "app.handle", folder / "code", timeout_s=900, memory_bytes=128 << 20, logs=False,
        concurrency=DEFAULT_CONCURRENCY,
    )  # fmt: skip
    pool = Pool(spec, state=folder, sink=sink)
    payload = make_payload(1)

    async def run(length_s: float) -> int:
        count, until_s = 0, time.perf_counter() + length_s

        async def loop() -> None:
            nonlocal count
            while time.perf_counter() < until_s:
                over = asyncio.get_running_loop().create_future()
                invocation = Invocation(
                    str(uuid4()), lambda: payload, wants_body=True, done=over.set_result, wants_raw=True
                )
                pool.invoke(invocation)
                assert isinstance(await over, Returned)
                count += 1

        await asyncio.gather(*(loop() for _ in range(DEFAULT_CONCURRENCY)))
        return count

    await run(WARM_UP_S)
    rate = await run(seconds) / seconds
    await pool.close()
    sink.close()
    return rate


@contextlib.contextmanager
def folder_with(source: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        code = Path(name) / "code"
        code.mkdir()
        (code / "app.py").write_text(source)
        yield Path(name)


def measure_backlog(kept: Path, disk: Path, seconds: float) -> dict[str, float]:
    with serving(disk, ECHO) as (empty, _):
        empty_s = empty.start()
    with folder_with(ECHO) as folder:
        direct = uvloop.run(invoke_directly(folder, seconds))
    with serving(disk, ECHO) as (served, state):
        shutil.copytree(kept, state)
        os.sync()  # what of the copy is still to be written is none of the daemon's
        start_s = served.start()
        time.sleep(WARM_UP_S)
        before, begun_s = served.finished(), time.perf_counter()
        time.sleep(seconds)
        rate = (served.finished() - before) / (time.perf_counter() - begun_s)
        memory_mb = procs.usage(served.pid).peak_rss_mb
    return {
        "empty_start_s": empty_s,
        "start_s": start_s,
        "direct_rate": direct,
        "drain_rate": rate,
        "drain_ratio": rate / direct,
        "memory_mb": memory_mb,
    }


def backlog(repeats: int, seconds: float, events: int, disk: Path) -> list[dict[str, float]]:
    kept = Path(tempfile.mkdtemp(prefix="bench-", dir=disk))
    try:
        begun_s = time.perf_counter()
        asyncio.run(fill(kept / "state", events))
        size_mb = (kept / "state" / "headrace.db").stat().st_size / 2**20
        print(f"{events} events put aside in {time.perf_counter() - begun_s:.0f} s: {size_mb:.0f} MiB", file=sys.stderr)
        return [measure_backlog(kept / "state", disk, seconds) for _ in range(repeats)]
    finally:
        shutil.rmtree(kept)


# --- what is shown


def show_accept(found: Mapping[str, Any]) -> None:
    head = ["state", "events/s", "p50 ms", "p99 ms", "fdatasync of 4 KiB, p50 ms", "p99 ms"]
    columns = {"rate": ".0f", "p50_ms": ".2f", "p99_ms": ".2f", "disk_p50_ms": ".2f", "disk_p99_ms": ".2f"}
    rows = [
        [name, *(figures.spread([each[column] for each in several], form) for column, form in columns.items())]
        for name, several in found["ways"].items()
    ]
    print(figures.table(head, rows))
    print(f"rate on disk / in memory: {figures.spread(found['accept_ratio'])} (goal {GOALS['accept_ratio']})")


def show_backlog(found: list[dict[str, float]]) -> None:
    forms = {"empty_start_s": ".2f", "start_s": ".2f", "direct_rate": ".0f", "drain_rate": ".0f", "drain_ratio": ".2f",
             "memory_mb": ".0f"}  # fmt: skip
    rows = [
        [name, figures.spread([each[name] for each in found], form), str(GOALS.get(name, ""))]
        for name, form in forms.items()
    ]
    print(figures.table(["", "median [lowest-highest]", "goal"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--part", choices=("accept", "backlog"))
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="where state is on a disk")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    if given.part != "backlog":
        results["accept"] = accept(given.repeats, given.seconds, given.disk)
    if given.part != "accept":
        results["backlog"] = backlog(given.repeats, given.seconds, given.events, given.disk)
    if given.json:
        print(json.dumps({"environment": figures.environment(), **results}, indent=1))
        return
    print(json.dumps(figures.environment()))
    if "accept" in results:
        show_accept(results["accept"])
    if "backlog" in results:
        show_backlog(results["backlog"])


if __name__ == "__main__":
    main()
