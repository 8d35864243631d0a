"""Handlers that hang, die, flood, fork or outgrow their memory; and invocations that are cancelled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from handlers.limits import find_cgroup_home
from router.core.model import EVENT_LIMIT_BYTES, Cancelled, Failed, FailureKind, Returned, TooLarge
from tests.handlers.conftest import await_death, eventually, is_running

BOTH_WAYS = True

FORKS = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def handle(event, context):
        if event == "healthy":
            return os.getpid()
        forked = os.fork()
        if not forked:
            time.sleep(1000)
        executed = subprocess.Popen(["sleep", "1000"])
        escaped = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with open("pids.new", "w") as file:
            file.write(" ".join(map(str, [os.getpid(), forked, executed.pid, escaped.pid])))
        os.rename("pids.new", "pids")
        if event == "hang":
            time.sleep(1000)
        if event == "exit":
            escaped.kill()
            os._exit(7)
"""


def pids_of(shop) -> list[int]:
    return [int(pid) for pid in (shop.code / "pids").read_text().split()]


async def test_a_handler_that_hangs_is_killed_with_all_it_started(shop):
    pool = shop.pool(FORKS, timeout_s=3)
    outcome = await shop.invoke(pool, "hang", "the-id")
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.TIMED_OUT
    assert outcome.error.error_type == "Sandbox.Timedout"
    assert outcome.error.message == "RequestId: the-id Error: Task timed out after 3.00 seconds"
    assert 3000 <= outcome.duration_ms < 13_000
    pids = pids_of(shop)
    assert len(pids) == 4
    await eventually(lambda: not any(map(is_running, pids)), "all four are gone")
    assert (await shop.invoke(pool, "healthy")).body not in pids


PATIENT = """
    import os, pathlib, time

    def handle(event, context):
        if event == "work":
            pathlib.Path("begun").touch()
            for _ in range(20):
                time.sleep(0.05)
        return os.getpid()
"""


async def test_a_handler_that_stood_still_with_the_daemon_has_the_time_that_it_lacked(shop):
    pool = shop.pool(PATIENT, timeout_s=2.0)
    pid = (await shop.invoke(pool, "hello")).body
    work = shop.start(pool, "work")
    await eventually((shop.code / "begun").exists, "it runs")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)  # noqa: ASYNC251 - we stand still, too
    os.kill(pid, signal.SIGCONT)
    assert isinstance(await work, Returned)


async def test_children_that_outlive_their_invocation_end_with_the_pool(shop):
    pool = shop.pool(FORKS)
    assert isinstance(await shop.invoke(pool, "leave them"), Returned)
    pids = pids_of(shop)
    assert all(map(is_running, pids))
    assert (await shop.invoke(pool, "healthy")).body == pids[0]
    await pool.close()
    await eventually(lambda: not any(map(is_running, pids)), "all four are gone")


async def test_children_do_not_hide_the_end_of_their_parent(shop):
    outcome = await shop.run(FORKS, "exit", timeout_s=60)
    assert outcome.error.message.endswith("exit status 7")
    await eventually(lambda: not any(map(is_running, pids_of(shop))), "all four are gone")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("sys.exit(3)", "Runtime exited with error: exit status 3"),
        ("sys.exit()", "Runtime exited without providing a reason"),
        ("os._exit(9)", "Runtime exited with error: exit status 9"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.abort()", "Runtime exited with error: signal: aborted"),
        ("raise KeyboardInterrupt", "Runtime exited with error: signal: interrupt"),
    ],
)
async def test_the_end_of_the_process_is_a_crash_with_its_status(shop, statement, message):
    pool = shop.pool(f"import os, sys\ndef handle(event, context):\n if event: return 'fine'\n {statement}")
    outcome = await shop.invoke(pool, None, "the-id")
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CRASHED
    assert outcome.error.error_type == "Runtime.ExitError"
    assert outcome.error.message == f"RequestId: the-id Error: {message}"
    assert (await shop.invoke(pool, "again")).body == "fine"


async def test_a_worker_that_dies_idle_costs_nothing(shop):
    pool = shop.pool("import os\ndef handle(event, context): return os.getpid()")
    first = (await shop.invoke(pool)).body
    os.kill(first, 9)
    await_death(first)
    outcome = await shop.invoke(pool)
    assert isinstance(outcome, Returned)
    assert outcome.body != first


async def test_a_child_that_returns_from_the_handler_does_not_answer_for_it(shop):
    source = "import os\ndef handle(event, context):\n return 'child' if os.fork() == 0 else 'parent'"
    pool = shop.pool(source)
    assert [(await shop.invoke(pool)).body for _ in range(3)] == ["parent"] * 3
    assert pool.status.workers == 1


async def test_garbage_on_the_channel_is_a_crash(shop):
    source = """
        import os, socket
        def handle(event, context):
            for fd in range(3, 64):
                try:
                    channel = socket.socket(fileno=os.dup(fd))
                    channel.getpeername()
                except OSError:
                    continue
                channel.send(b"x" * 100)
    """
    outcome = await shop.run(source)
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CRASHED
    assert "cannot be read" in outcome.error.message


async def test_an_exception_in_a_thread_leaves_the_invocation_alone(shop):
    source = """
        import threading
        def fail(): raise ValueError("in a thread")
        def handle(event, context):
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
            return "fine"
    """
    assert (await shop.run(source)).body == "fine"
    assert "ValueError: in a thread" in shop.log.requests[0][1]


async def test_a_handler_over_its_memory_is_killed(shop):
    source = """
        import time
        def handle(event, context):
            hoard = bytearray(event << 20)
            time.sleep(1 if event < 128 else 60)
            return "kept"
    """
    pool = shop.pool(source, memory_bytes=128 << 20, timeout_s=90)
    outcome = await shop.invoke(pool, 256, "the-id")
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CRASHED
    assert outcome.error.error_type == "Runtime.ExitError"
    start = "RequestId: the-id Error: Runtime exited with error: signal: killed"
    assert outcome.error.message.startswith(f"{start} (memory limit exceeded: memory_size is 128 MB")
    assert (await shop.invoke(pool, 64)).body == "kept"


async def test_memory_of_children_counts_but_shared_pages_count_once(shop):
    source = """
        import os, time
        hoard = bytearray(80 << 20)
        def handle(event, context):
            child = os.fork()
            if not child:
                more = bytearray(event << 20)
                time.sleep(1 if event < 80 else 60)
                os._exit(0)
            os.waitpid(child, 0)
            return "kept"
    """
    pool = shop.pool(source, memory_bytes=160 << 20, timeout_s=90)
    assert (await shop.invoke(pool, 10)).body == "kept"
    outcome = await shop.invoke(pool, 120)
    assert isinstance(outcome, Failed)
    assert "memory limit exceeded" in outcome.error.message


async def test_a_delegated_cgroup_holds_the_worker(shop):
    mount = shop.folder / "cgroup"
    service = mount / "system.slice" / "headrace.service"
    service.mkdir(parents=True)
    (service / "cgroup.subtree_control").write_text("cpu memory\n")
    (service / "cgroup.procs").write_text("")
    own = shop.folder / "self-cgroup"
    own.write_text("9:name=systemd:/\n0::/system.slice/headrace.service/main\n")
    pool = shop.pool(
        "import os, time\ndef handle(event, context):\n if event: os.kill(os.getpid(), 9)\n return os.getpid()",
        cgroups=find_cgroup_home(mount, own),
        memory_bytes=200 << 20,
    )
    pid = (await shop.invoke(pool)).body
    [group] = [each for each in service.glob("headrace-*") if (each / "cgroup.procs").read_text() == str(pid)]
    assert (group / "memory.max").read_text() == str(200 << 20)
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    outcome = await shop.invoke(pool, "die")
    assert "memory limit exceeded: memory_size is 200 MB" in outcome.error.message


@pytest.mark.parametrize(
    ("controllers", "path"),
    [("cpu", "/a/b"), ("memory", "/"), (None, "/a/b")],
    ids=["without the memory controller", "the root", "no cgroup v2"],
)
def test_no_cgroup_is_used_where_none_is_delegated(tmp_path, controllers, path):
    (tmp_path / "a").mkdir()
    if controllers:
        (tmp_path / "a" / "cgroup.subtree_control").write_text(controllers)
    own = tmp_path / "own"
    own.write_text(f"0::{path}\n")
    assert find_cgroup_home(tmp_path, own) is None


async def test_events_too_large_or_not_encodable_reach_no_worker(shop):
    pool = shop.pool("def handle(event, context): return 'ran'")
    assert (await shop.invoke(pool)).body == "ran"
    size = EVENT_LIMIT_BYTES + 1
    assert await shop.start(pool, encode=lambda: b"x" * size) == TooLarge(size)
    assert await shop.start(pool, encode=lambda: str(1 / 0).encode()) == TooLarge(0)
    assert (await shop.invoke(pool)).body == "ran"


async def test_cancelling_ends_what_waits_and_kills_what_runs(shop):
    pool = shop.pool(
        "import time\ndef handle(event, context):\n while event: time.sleep(1)\n return 'ran'", timeout_s=60
    )
    running = shop.start(pool, True, "running")
    await eventually(lambda: pool.status.busy == 1, "it runs")
    waiting = shop.start(pool, False, "waiting")
    third = shop.start(pool, False, "third")
    pool.cancel("running", waiting_only=True)
    pool.cancel("waiting", waiting_only=True)
    assert await waiting == Cancelled()
    assert not running.done()
    pool.cancel("unknown", waiting_only=False)
    pool.cancel("running", waiting_only=False)
    assert await running == Cancelled()
    assert (await third).body == "ran"


async def test_what_waits_is_served_in_order(shop):
    pool = shop.pool("ran = []\ndef handle(event, context):\n ran.append(event)\n return ran")
    started = [shop.start(pool, number) for number in range(20)]
    assert (await started[-1]).body == list(range(20))


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_no_descriptors_are_left_behind(shop):
    pool = shop.pool("import os\ndef handle(event, context): os._exit(1)")
    await shop.invoke(pool)
    before = open_descriptors()
    for _ in range(20):
        await shop.invoke(pool)
    # Those of a worker that starts or ends just now come and go; what is left behind by each would be 20 at least.
    await eventually(lambda: open_descriptors() < before + 10, "they are closed")


@pytest.mark.parametrize("delegated", [True, False])
def test_the_memory_controller_is_turned_on_in_what_systemd_delegates_and_nowhere_else(tmp_path, delegated):
    service = tmp_path / "headrace.service"
    service.mkdir()
    (service / "cgroup.procs").touch()
    (service / "cgroup.subtree_control").write_text("")
    if delegated:
        try:
            os.setxattr(service, "user.delegate", b"1")
        except OSError:
            pytest.skip("this file system has no attributes")
    own = tmp_path / "own"
    own.write_text("0::/headrace.service/daemon\n")
    assert (find_cgroup_home(tmp_path, own) is not None) is delegated
    assert (service / "cgroup.subtree_control").read_text() == ("+memory" if delegated else "")
