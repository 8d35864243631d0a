"""Invocations per second through the API, beside a bare aiohttp server and AWS's own runtime interface emulator.

An echo handler, a small event, connections that are kept, each client a closed loop. Ours is a whole daemon: the API,
a function of isolated workers with timeout, context and log lines. The peers:

- a bare aiohttp server that answers after one round trip over `multiprocessing.Pipe` to one of as many workers, which
  decode and encode as ours do (`bench.peers.pipe_server`);
- the emulator (Go) with `awslambdaric`, which is one worker that runs one invocation at a time, asked by one client.

All run in turn within each repeat, so that they share the noise of the machine; figures are medians [lowest-highest]
over the repeats, ratios are taken within a repeat.

    .venv/bin/python -m bench.api_invoke [--repeats 5] [--seconds 3] [--emulator PATH] [--json]

The emulator: `go install github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie@latest`.
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
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench import figures, procs
from bench.daemon import Headrace
from bench.peers import environment
from router.assembly import DEFAULT_CONCURRENCY

#: Clients -> workers. A function of reserved concurrency is asked by as many, for it refuses more; one of none has
#: as many workers as are usual.
ROUNDS = {2: 2, 16: DEFAULT_CONCURRENCY}
RESERVED = 2
EVENT = json.dumps({"key1": "value1", "key2": "value2", "items": [{"id": number} for number in range(5)]}).encode()
ECHO = "def handler(event, context):\n    return event\n"
PATH = "/2015-03-31/functions/{}/invocations"
_EMULATOR = "aws-lambda-rie"
_START_S = 20
_ROOT = Path(__file__).parents[1]


def measure(port: int, path: str, clients: int, seconds: float, pid: int | None = None) -> dict[str, float]:
    """Load a server for a while; `pid` is the process whose CPU is looked at."""
    command = [sys.executable, "-m", "bench.api_load", str(port), path, str(clients), str(seconds)]
    before_s = procs.usage(pid).cpu_s if pid else 0.0
    done = subprocess.run(command, input=EVENT, cwd=_ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    rate = found["answers"] / found["seconds"]
    measured = {"rate": rate, "p50_us": found["p50_us"], "p99_us": found["p99_us"]}
    if pid:
        measured["cpu_us"] = (procs.usage(pid).cpu_s - before_s) / found["all_answers"] * 1e6
    return measured


@contextlib.contextmanager
def server(command: Sequence[str | Path], port: int, **more: Any) -> Iterator[int]:
    """Run a peer until it is left; gives its process id."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, **more)
    try:
        _await(port, process)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        assert process.poll() is None, f"{process.args} has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args} does not listen on {port}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def emulator(program: str) -> AsyncIterator[int]:
    """Run the emulator with a function; gives its port."""
    port, runtime = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench_handler.py").write_text(ECHO)
        addresses = [f"--{name}=127.0.0.1:{at}" for name, at in _addresses(port, runtime)]
        command = [program, *addresses, environment.python(), "-m", "awslambdaric", "bench_handler.handler"]
        env = {**os.environ, "AWS_LAMBDA_FUNCTION_TIMEOUT": "60"}
        with server(command, port, cwd=folder, env=env, stderr=subprocess.DEVNULL):
            yield port


def _addresses(port: int, runtime: int) -> list[tuple[str, int]]:
    return [("runtime-interface-emulator-address", port), ("runtime-api-address", runtime)]


async def repeat(seconds: float, program: str | None) -> dict[str, dict[str, float]]:
    """Measure all once, one after the other; by clients and server."""
    found: dict[str, dict[str, float]] = {}
    for clients, workers in ROUNDS.items():
        port = free_port()
        with server([sys.executable, "-m", "bench.peers.pipe_server", str(port), str(workers)], port, cwd=_ROOT) as pid:
            found[f"{clients} aiohttp"] = await asyncio.to_thread(measure, port, "/invoke", clients, seconds, pid)
        found[f"{clients} headrace"] = await ours(clients, seconds, RESERVED if workers == RESERVED else None)
    if program:
        async with emulator(program) as port:
            path = PATH.format("function")
            found["1 emulator"] = await asyncio.to_thread(measure, port, path, 1, seconds)
        found["1 headrace"] = await ours(1, seconds, RESERVED)
    return found


async def ours(clients: int, seconds: float, reserved: int | None) -> dict[str, float]:
    """Measure a daemon."""
    async with Headrace({}, code=ECHO, function={"reserved_concurrency": reserved}) as daemon:
        return await asyncio.to_thread(measure, daemon.port, PATH.format("bench"), clients, seconds, daemon.pid)


def report(found: Sequence[dict[str, dict[str, float]]]) -> str:
    """Lay the figures out."""
    rows = []
    for name in found[0]:
        clients, _, which = name.partition(" ")
        peers = [each for each in found[0] if each.startswith(f"{clients} ") and each != name]
        ratio = ""
        if which == "headrace":
            rates = ([each[one]["rate"] for each in found] for one in (name, *peers))
            ratio = figures.spread(figures.ratios(*rates))
        cells = [figures.spread((each[name][key] for each in found), ".0f") for key in ("rate", "p50_us", "p99_us")]
        cpu_us = [each[name]["cpu_us"] for each in found if "cpu_us" in each[name]]
        cells.append(figures.spread(cpu_us, ".0f") if cpu_us else "")
        rows.append((clients, which, *cells, ratio))
    return figures.table(("clients", "server", "invocations/s", "p50 us", "p99 us", "server CPU us", "ratio"), rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--emulator", default=shutil.which(_EMULATOR))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not given.emulator:
        print(f"{_EMULATOR} is not on PATH: it is left out", file=sys.stderr)
    found = [asyncio.run(repeat(given.seconds, given.emulator)) for _ in range(given.repeats)]
    if given.json:
        print(json.dumps({"environment": figures.environment(), "found": found}, indent=1))
    else:
        print(report(found))
        print(figures.keep("api_invoke", {"found": found}))


if __name__ == "__main__":
    main()
