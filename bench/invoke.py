"""Invocations per second of one isolated worker, beside a `multiprocessing.Pipe` worker that does the same work.

Two comparisons, each a closed loop of one invocation at a time on an event loop's thread:

- From objects (the goals are about this one): an event of dicts goes to a handler in another process, its small dict
  comes back. The peer uses a Pipe as programs use it: `send(event)`, `recv()`, its descriptor watched by uvloop. Ours
  encodes the event as JSON and the worker decodes it, with everything a function has around it: timeout, context,
  captured output, log lines.
- From bytes, against the floor: the event stands ready as JSON bytes, the peer sends them with `send_bytes` and blocks
  until the answer is there. No event loop, nothing around it; nothing that is to serve more than one worker can be
  faster than that by more than chance.

In both, the worker decodes and the daemon parses the result.

Then several at once in one worker (`concurrency_per_worker`): an `async def` handler that sleeps 5 ms, one record each,
1, 64 and 256 in flight as a closed loop, beside the same handler awaited by as many tasks of one uvloop loop, with
nothing around it. CPU is that of the process over what it ran.

All ways run in turn within each repeat, so that they share the noise of the machine; figures are medians
[lowest-highest] over the repeats, ratios are taken within a repeat.

    .venv/bin/python -m bench.invoke [--repeats 5] [--seconds 1] [--part one|several] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import uvloop

from bench import procs
from handlers.function import FunctionSpec
from handlers.logs import RotatingFile
from handlers.pool import Pool
from router.core.model import Returned
from router.ports import Invocation

RECORDS = (1, 100, 1000)
#: Least share of the peer's rate, by records.
GOALS = {1: 2.0, 100: 1.1, 1000: 0.9}
ROUND_TRIP_GOAL_US = 50
WARM_UP_S = 0.05
#: Columns of the table and their decimals.
COLUMNS = {"rate": 0, "p50_us": 0, "p99_us": 0, "ratio": 2, "p50_ratio": 2}
LINE = "{:>7}  {:<23}{:>24}{:>20}{:>23}{:>20}{:>18}  {}"
REQUEST_ID = "3f0c6c1e-8d0b-4b1c-9a55-6d1f0e9a7c11"
IN_FLIGHT = (1, 64, 256)
SLEEP_S = 0.005
SEVERAL_COLUMNS = {"rate": 0, "of_ideal": 2, "ratio": 2, "daemon_us": 1, "worker_us": 1}
SEVERAL_LINE = "{:>9}  {:<21}{:>24}{:>18}{:>18}{:>20}{:>20}"
RESULT: dict[str, list[Any]] = {"batchItemFailures": []}
HANDLER = f"def handle(event, context):\n    return {RESULT!r}\n"


def make_event(count: int) -> dict[str, Any]:
    """Records of about 250 bytes, as Kafka's are; no two values are equal, which a pickle would notice."""
    records = [
        {
            "topic": "orders",
            "partition": 0,
            "offset": number,
            "timestamp": 1700000000000 + number,
            "timestampType": "CREATE_TIME",
            "key": base64.b64encode(b"key-%d" % number).decode(),
            "value": base64.b64encode(os.urandom(75)).decode(),
            "headers": [],
        }
        for number in range(count)
    ]
    return {"eventSource": "SelfManagedKafka", "records": {"orders-0": records}}


def handle(event: Any, context: Any) -> Any:
    return RESULT


def serve_objects(connection: Connection) -> None:
    with contextlib.suppress(EOFError):
        while True:
            connection.send(handle(connection.recv(), None))


def serve_bytes(connection: Connection) -> None:
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(json.dumps(handle(orjson.loads(connection.recv_bytes()), None)).encode())


@contextlib.contextmanager
def peer(serve: Callable[[Connection], None]) -> Iterator[Connection]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()
    yield ours
    ours.close()
    process.join()


class Times:
    """Round trips of one closed loop."""

    def __init__(self, seconds: float) -> None:
        self.round_trips_s: list[float] = []
        self._end_s = time.perf_counter() + seconds
        self._begun_s = time.perf_counter()
        self._sent_s = self._begun_s

    def sent(self) -> None:
        self._sent_s = time.perf_counter()

    def came(self) -> bool:
        """Note an answer; False when the time is over."""
        now_s = time.perf_counter()
        self.round_trips_s.append(now_s - self._sent_s)
        return now_s < self._end_s

    def summary(self) -> dict[str, float]:
        ordered = sorted(self.round_trips_s)
        total_s = time.perf_counter() - self._begun_s
        return {
            "rate": len(ordered) / total_s,
            "p50_us": statistics.median(ordered) * 1e6,
            "p99_us": ordered[int(len(ordered) * 0.99)] * 1e6,
        }


def measure_floor(event: bytes, seconds: float) -> dict[str, float]:
    with peer(serve_bytes) as connection:
        run_floor(connection, event, WARM_UP_S)
        return run_floor(connection, event, seconds).summary()


def run_floor(connection: Connection, event: bytes, seconds: float) -> Times:
    times = Times(seconds)
    goes_on = True
    while goes_on:
        times.sent()
        connection.send_bytes(event)
        assert orjson.loads(connection.recv_bytes()) == RESULT
        goes_on = times.came()
    return times


async def measure_objects(event: Any, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    with peer(serve_objects) as connection:

        async def run(length_s: float) -> Times:
            times = Times(length_s)
            over = loop.create_future()

            def send() -> None:
                times.sent()
                connection.send(event)

            def answered() -> None:
                assert connection.recv() == RESULT
                if times.came():
                    send()
                else:
                    over.set_result(None)

            loop.add_reader(connection.fileno(), answered)
            send()
            await over
            loop.remove_reader(connection.fileno())
            return times

        await run(WARM_UP_S)
        return (await run(seconds)).summary()


async def measure_pool(
    folder: Path, encode: Callable[[], bytes], seconds: float, *, logs: bool = True
) -> dict[str, float]:
    sink = RotatingFile(folder / "logs" / "bench.log")
    spec = FunctionSpec("bench", "app.handle", folder, timeout_s=30, memory_bytes=512 << 20, logs=logs)
    pool = Pool(spec, state=folder, sink=sink)
    await run_pool(pool, encode, WARM_UP_S)
    summary = (await run_pool(pool, encode, seconds)).summary()
    await pool.close()
    sink.close()
    return summary


async def run_pool(pool: Pool, encode: Callable[[], bytes], seconds: float) -> Times:
    times = Times(seconds)
    over = asyncio.get_running_loop().create_future()

    def send() -> None:
        times.sent()
        pool.invoke(Invocation(REQUEST_ID, encode, wants_body=True, done=done))

    def done(outcome: object) -> None:
        assert isinstance(outcome, Returned), outcome
        assert outcome.body == RESULT
        if times.came():
            send()
        else:
            over.set_result(None)

    send()
    await over
    return times


def ways(folder: Path, event: Any, seconds: float) -> dict[str, Callable[[], dict[str, float]]]:
    """Name what is measured; each peer stands before what is compared with it."""
    ready = orjson.dumps(event)
    return {
        "Pipe, objects": lambda: uvloop.run(measure_objects(event, seconds)),
        "headrace from objects": lambda: uvloop.run(measure_pool(folder, lambda: orjson.dumps(event), seconds)),
        "Pipe, bytes, blocking": lambda: measure_floor(ready, seconds),
        "headrace from bytes": lambda: uvloop.run(measure_pool(folder, lambda: ready, seconds)),
        "the same, logs: off": lambda: uvloop.run(measure_pool(folder, lambda: ready, seconds, logs=False)),
        "the same, asyncio": lambda: asyncio.run(measure_pool(folder, lambda: ready, seconds)),
    }


# --- several at once


async def sleepy(event: Any, context: Any) -> Any:
    await asyncio.sleep(SLEEP_S)
    return RESULT


SLEEPY = (
    f"import asyncio\nasync def handle(event, context):\n    await asyncio.sleep({SLEEP_S})\n    return {RESULT!r}\n"
)


def serve_alone(connection: Connection) -> None:
    """Await the handler in as many tasks as asked for, as long as asked for; give count, seconds and CPU seconds."""

    async def run(in_flight: int, seconds: float) -> tuple[int, float, float]:
        begun_s, cpu_s = time.perf_counter(), time.process_time()

        async def repeat() -> int:
            count = 0
            while time.perf_counter() < begun_s + seconds:
                await sleepy(None, None)
                count += 1
            return count

        counts = await asyncio.gather(*(repeat() for _ in range(in_flight)))
        return sum(counts), time.perf_counter() - begun_s, time.process_time() - cpu_s

    with contextlib.suppress(EOFError):
        while True:
            connection.send(uvloop.run(run(*connection.recv())))


def measure_alone(in_flight: int, seconds: float) -> dict[str, float]:
    with peer(serve_alone) as connection:
        connection.send((in_flight, WARM_UP_S))
        connection.recv()
        connection.send((in_flight, seconds))
        count, total_s, cpu_s = connection.recv()
    return {"rate": count / total_s, "daemon_us": 0.0, "worker_us": cpu_s / count * 1e6}


async def measure_several(folder: Path, in_flight: int, seconds: float, *, logs: bool) -> dict[str, float]:
    event = orjson.dumps(make_event(1))
    sink = RotatingFile(folder / "logs" / "bench.log")
    limits = {"timeout_s": 30.0, "memory_bytes": 512 << 20}
    spec = FunctionSpec("bench", "sleepy.handle", folder, logs=logs, concurrency_per_worker=max(IN_FLIGHT), **limits)
    pool = Pool(spec, state=folder, sink=sink)
    await run_several(pool, event, in_flight, WARM_UP_S)
    [worker] = workers()
    begun_s, cpu_s, worker_s = time.perf_counter(), time.process_time(), procs.usage(worker).cpu_s
    count = await run_several(pool, event, in_flight, seconds)
    total_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    worker_s = procs.usage(worker).cpu_s - worker_s
    await pool.close()
    sink.close()
    return {"rate": count / total_s, "daemon_us": cpu_s / count * 1e6, "worker_us": worker_s / count * 1e6}


def workers() -> list[int]:
    """Give the process ids of the pool's workers; there is a helper of multiprocessing's beside them."""
    pids = procs.children(os.getpid())
    return [pid for pid in pids if b"bootstrap.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def run_several(pool: Pool, event: bytes, in_flight: int, seconds: float) -> int:
    """Keep as many in flight; give how many have ended."""
    end_s = time.perf_counter() + seconds
    over = asyncio.get_running_loop().create_future()
    begun = ended = 0

    def send() -> None:
        nonlocal begun
        begun += 1
        pool.invoke(Invocation(f"{REQUEST_ID[:-12]}{begun:012}", lambda: event, wants_body=True, done=done))

    def done(outcome: object) -> None:
        nonlocal ended
        assert isinstance(outcome, Returned), outcome
        assert outcome.body == RESULT
        ended += 1
        if time.perf_counter() < end_s:
            send()
        elif ended == begun:
            over.set_result(None)

    for _ in range(in_flight):
        send()
    await over
    return ended


def collect_several(repeats: int, seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sleepy.py").write_text(SLEEPY)
        for in_flight in IN_FLIGHT:
            measured: dict[str, Callable[[], dict[str, float]]] = {
                "the handler alone": lambda count=in_flight: measure_alone(count, seconds),
                "headrace": lambda count=in_flight: uvloop.run(measure_several(folder, count, seconds, logs=True)),
                "headrace, logs: off": lambda count=in_flight: uvloop.run(
                    measure_several(folder, count, seconds, logs=False)
                ),
            }
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in measured}
            for _ in range(repeats):
                for way, measure in measured.items():
                    runs[way].append(measure())
            rows += summarise_several(in_flight, runs)
    return rows


def summarise_several(in_flight: int, runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    alone = runs["the handler alone"]
    for way, results in runs.items():
        row: dict[str, Any] = {"in_flight": in_flight, "way": way}
        row |= {key: [run[key] for run in results] for key in ("rate", "daemon_us", "worker_us")}
        row["of_ideal"] = [rate * SLEEP_S / in_flight for rate in row["rate"]]
        row["ratio"] = [run["rate"] / other["rate"] for run, other in zip(results, alone, strict=True)]
        rows.append(row)
    return rows


def show_several(rows: list[dict[str, Any]]) -> None:
    titles = ("invocations/s", "of the ideal", "of it alone", "daemon CPU us", "worker CPU us")
    print(SEVERAL_LINE.format("in flight", "way", *titles))
    for row in rows:
        columns = [spread(row[key], digits) for key, digits in SEVERAL_COLUMNS.items()]
        print(SEVERAL_LINE.format(row["in_flight"], row["way"], *columns))


# --- the table


def spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}-{max(values):,.{digits}f}]"


def collect(repeats: int, seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(HANDLER)
        for count in RECORDS:
            measured = ways(folder, make_event(count), seconds)
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in measured}
            for _ in range(repeats):
                for way, measure in measured.items():
                    runs[way].append(measure())
            rows += summarise(count, runs)
    return rows


def summarise(count: int, runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    peer_runs: list[dict[str, float]] = []
    for way, results in runs.items():
        if way.startswith("Pipe"):
            peer_runs = results
        row: dict[str, Any] = {"records": count, "way": way}
        row |= {key: [run[key] for run in results] for key in ("rate", "p50_us", "p99_us")}
        pairs = list(zip(results, peer_runs, strict=True))
        row["ratio"] = [run["rate"] / other["rate"] for run, other in pairs]
        row["p50_ratio"] = [other["p50_us"] / run["p50_us"] for run, other in pairs]
        row["goal"] = GOALS[count] if way == "headrace from objects" else None
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    titles = ("invocations/s", "p50 us", "p99 us", "rate of the peer's", "by p50")
    print(LINE.format("records", "way", *titles, "goal"))
    for row in rows:
        columns = [spread(row[key], digits) for key, digits in COLUMNS.items()]
        print(LINE.format(row["records"], row["way"], *columns, row["goal"] or ""))
    print(f"Goal for p50 at 1 record: {ROUND_TRIP_GOAL_US} us. By p50: round trip of the peer over ours.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each loop")
    parser.add_argument("--part", choices=("one", "several"), help="measure only this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    one = collect(options.repeats, options.seconds) if options.part != "several" else []
    several = collect_several(options.repeats, options.seconds) if options.part != "one" else []
    if options.json:
        print(json.dumps([*one, *several], indent=2))
        return
    if one:
        show(one)
    if several:
        show_several(several)


if __name__ == "__main__":
    main()
