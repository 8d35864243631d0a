"""Workers whose daemon does not say in time that they may live are ended, with all that they have started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path

from handlers.leash_holder import Leash
from handlers.predecessors import WorkerLock, registry
from router.core.model import Cancelled, Refused, Returned
from tests.handlers.conftest import PATIENCE_S, Shop, eventually, is_running

BOTH_WAYS = True
PROCESSES = Path("/proc")

HANGING = """
import os, subprocess, time

def handle(event, context):
    if event == "quick":
        return os.getpid()
    escaped = os.fork()
    if not escaped:
        os.setsid()
        time.sleep(1000)
    executed = subprocess.Popen(["sleep", "1000"])
    with open(event + ".new", "w") as file:
        file.write(" ".join(map(str, [os.getpid(), escaped, executed.pid])))
    os.rename(event + ".new", event)
    time.sleep(1000)
"""


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@asynccontextmanager
async def leashed(state: Path, until: Callable[[], float], ends: list[int | None]) -> AsyncIterator[None]:
    leash = asyncio.create_task(Leash(registry(state), until, every_s=0.02, ended=ends.append).run())
    try:
        yield
    finally:
        leash.cancel()
        with suppress(asyncio.CancelledError):
            await leash


def _words(file: Path) -> list[str]:
    return file.read_text().split()


async def pids_in(file: Path) -> list[int]:
    await eventually(file.exists, "the handler runs")
    return list(map(int, _words(file)))


async def test_a_worker_is_killed_when_its_time_is_up_and_that_spends_no_attempt(shop: Shop):
    state = shop.folder / "state"
    lock = WorkerLock(state)
    await lock.await_predecessors()
    pool = shop.pool(HANGING, lock=lock, timeout_s=900, concurrency=1)
    until_s = inf
    async with leashed(state, lambda: until_s, []):
        outcome = shop.start(pool, str(shop.folder / "pids"))
        pids = await pids_in(shop.folder / "pids")
        until_s = now_s() + 0.2
        assert await asyncio.wait_for(outcome, PATIENCE_S) == Cancelled()
        assert now_s() >= until_s
        until_s = inf
        await eventually(lambda: not any(map(is_running, pids)), "all of it is gone")
        await eventually(lambda: pool.status.workers == 0, "the worker is gone")
        async with asyncio.timeout(PATIENCE_S):
            # A leash that has not heard yet that they may live again ends also what is being started.
            while isinstance(outcome := (await shop.settle(pool, "quick", "request"))[0], Refused):
                pass
        assert isinstance(outcome, Returned)
    await pool.close()
    lock.close()


async def test_a_leash_that_ends_is_told_of_and_started_again(shop: Shop):
    state = shop.folder / "state"
    lock = WorkerLock(state)
    ends: list[int | None] = []
    async with leashed(state, lambda: inf, ends):
        first = await leash_of(state)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: ends == [-signal.SIGKILL], "its end is told")
        assert await leash_of(state) != first
    assert leashes(state) == []
    lock.close()


def leashes(state: Path) -> list[int]:
    command = f"{registry(state)}\0"
    found = []
    for process in PROCESSES.iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "cmdline").read_text().endswith(command):
                found.append(int(process.name))
    return found


async def leash_of(state: Path) -> int:
    await eventually(lambda: len(leashes(state)) == 1, "there is a leash")
    return leashes(state)[0]


DAEMON = """
import asyncio, sys
from math import inf
from pathlib import Path
from handlers.function import FunctionSpec
from handlers.leash_holder import Leash
from handlers.pool import Pool
from handlers.predecessors import WorkerLock, registry
from router.ports import Invocation

async def main(folder):
    lock = WorkerLock(folder)
    await lock.await_predecessors()
    pool = Pool(FunctionSpec("f", "app.handle", folder, timeout_s=900), state=folder, lock=lock)
    pool.invoke(Invocation("id", lambda: b'"%s/pids"' % str(folder).encode(), False, print))
    await Leash(registry(folder), lambda: inf, every_s=0.02, ended=print).run()

asyncio.run(main(Path(sys.argv[1])))
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DAEMON, str(folder)], cwd=Path(__file__).parents[2])


async def test_what_a_killed_daemon_leaves_is_killed_by_its_leash_which_ends_too(tmp_path):
    (tmp_path / "app.py").write_text(HANGING)
    daemon = start(tmp_path)
    worker, escaped, executed = await pids_in(tmp_path / "pids")
    await leash_of(tmp_path)
    daemon.kill()
    await asyncio.to_thread(daemon.wait)
    await eventually(lambda: not (is_running(worker) or is_running(executed)), "its group is gone")
    with suppress(
        ProcessLookupError
    ):  # what has left the group of a worker that is gone is for the next daemon to find
        os.kill(escaped, signal.SIGKILL)
    await eventually(lambda: leashes(tmp_path) == [], "the leash is gone")
