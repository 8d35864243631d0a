"""A daemon that is killed takes its workers along, and the next one invokes only after all of them are gone."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from handlers.predecessors import WorkerLock
from router.errors import HandlerUnavailable
from tests.handlers.conftest import eventually, is_running

ROOT = Path(__file__).parents[2]

HANDLER = """
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)

def handle(event, context):
    forked = os.fork()
    if not forked:
        time.sleep(1000)
    escaped = os.fork()
    if not escaped:
        os.setsid()
        time.sleep(1000)
    executed = subprocess.Popen(["sleep", "1000"])
    with open("pids.new", "w") as file:
        file.write(" ".join(map(str, [os.getpid(), forked, escaped, executed.pid])))
    os.rename("pids.new", "pids")
    time.sleep(1000)
"""

DAEMON = """
import asyncio, sys
from pathlib import Path
from handlers.function import FunctionSpec
from handlers.pool import Pool
from handlers.predecessors import WorkerLock
from router.ports import Invocation

async def main(folder):
    lock = WorkerLock(folder)
    await lock.await_predecessors()
    function = FunctionSpec("f", "app.handle", folder, timeout_s=900, snap_start=sys.argv[2] == "forked")
    pool = Pool(function, state=folder, lock=lock)
    pool.invoke(Invocation("id", lambda: b"{}", False, print))
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


def popen(folder: Path, way: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DAEMON, str(folder), way], cwd=ROOT)


async def start_daemon(folder: Path, way: str = "started") -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a daemon whose handler hangs: it, and its worker, which was started or forked, with its children."""
    (folder / "app.py").write_text(HANDLER)
    (folder / "pids").unlink(missing_ok=True)
    daemon = popen(folder, way)
    try:
        await eventually((folder / "pids").exists, "the handler runs")
    except AssertionError:
        daemon.kill()
        raise
    return daemon, [int(pid) for pid in (folder / "pids").read_text().split()]


@pytest.mark.parametrize("way", ["started", "forked"])
async def test_a_killed_daemon_leaves_nothing_to_its_successor(tmp_path, way):
    daemon, pids = await start_daemon(tmp_path, way)
    worker, *children = pids
    noted = [int(note.name) for note in (tmp_path / "workers").iterdir()]
    assert worker in noted
    assert len(noted) == (2 if way == "forked" else 1)
    daemon.kill()
    daemon.wait()
    await eventually(lambda: not any(map(is_running, noted)), "what it had started died with it")
    assert all(map(is_running, children)), "the case is only worth a test with survivors"
    lock = WorkerLock(tmp_path)
    await lock.await_predecessors()
    assert not any(map(is_running, pids))
    assert list((tmp_path / "workers").iterdir()) == []
    lock.close()


@pytest.mark.parametrize("way", ["started", "forked"])
async def test_a_daemon_succeeds_another_at_once(tmp_path, way):
    first, before = await start_daemon(tmp_path, way)
    first.kill()
    second, after = await start_daemon(tmp_path, way)
    assert not any(map(is_running, before))
    second.kill()
    second.wait()
    first.wait()
    lock = WorkerLock(tmp_path)
    await lock.await_predecessors()
    assert not any(map(is_running, after))
    lock.close()


async def test_a_living_daemon_is_not_succeeded(tmp_path):
    daemon, pids = await start_daemon(tmp_path)
    lock = WorkerLock(tmp_path)
    try:
        with pytest.raises(HandlerUnavailable, match=f"process id {daemon.pid}"):
            await lock.await_predecessors()
        assert all(map(is_running, pids))
    finally:
        daemon.kill()
        daemon.wait()
    await lock.await_predecessors()
    lock.close()


async def test_what_will_not_end_is_named_after_a_bounded_time(tmp_path):
    """Holds the lock through a descriptor of this process, which is never killed."""
    lock = WorkerLock(tmp_path)
    with (tmp_path / "workers.lock").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_SH)
        begun = time.monotonic()
        with pytest.raises(HandlerUnavailable, match="do not end"):
            await lock.await_predecessors(patience_s=0.2)
        assert 0.2 <= time.monotonic() - begun < 9, "not as long as one that is told no patience waits"
    await lock.await_predecessors(patience_s=0.2)
    lock.close()


async def test_a_number_that_belongs_to_another_process_is_left_alone(tmp_path):
    bystander = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    lock = WorkerLock(tmp_path)
    (tmp_path / "workers" / str(bystander.pid)).write_text(f"{bystander.pid} 1")
    (tmp_path / "workers" / "half").write_text("12")
    await lock.await_predecessors()
    assert is_running(bystander.pid)
    bystander.kill()
    await bystander.wait()
    lock.close()
