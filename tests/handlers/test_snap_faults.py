"""What befalls the process that forks workers, and forks that do not succeed."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from handlers.nursery import SnapStart
from router.core.model import Cancelled, Refused
from tests.handlers.conftest import eventually, is_running
from tests.handlers.test_snap_start import WHO, events

WORKS = "import os\ndef handle(event, context): return [os.getpid(), os.getppid()]"


async def test_a_process_that_is_killed_at_work_takes_its_workers_and_is_started_again(shop):
    """What they ran is nobody's fault: it ends as cancelled, and no attempt is spent."""
    pool = shop.pool(
        """
        import os, time
        def handle(event, context):
            open("ran-%d-%d" % (os.getppid(), os.getpid()), "w").close()
            while event: time.sleep(1)
            return os.getppid()
        """,
        snap_start=True,
        concurrency=3,
        timeout_s=60,
    )
    running = [shop.start(pool, True) for _ in range(2)]
    await eventually(lambda: len(list(shop.code.glob("ran-*"))) == 2, "both run")
    pids = [[int(pid) for pid in file.name.split("-")[1:]] for file in shop.code.glob("ran-*")]
    [zygote] = {parent for parent, _ in pids}
    os.kill(zygote, signal.SIGKILL)
    assert [await outcome for outcome in running] == [Cancelled()] * 2
    assert not any(is_running(worker) for _, worker in pids)
    assert (await shop.invoke(pool, False)).body != zygote
    assert events(shop) == ["function.preloaded", "function.preload_lost", "function.preloaded"]
    assert shop.notes[1][1]["error"].endswith("signal: killed")


async def test_a_process_that_is_killed_idle_costs_nothing(shop):
    pool = shop.pool(WORKS, snap_start=True)
    worker, zygote = (await shop.invoke(pool)).body
    os.kill(zygote, signal.SIGKILL)
    await eventually(lambda: pool.status.workers == 0, "the worker has gone too")
    assert not is_running(worker)
    assert (await shop.invoke(pool)).body[1] not in {zygote, os.getpid()}


async def test_a_process_that_is_killed_while_a_worker_begins_costs_nothing(shop):
    source = """
        import os, time
        from snapshot_restore_py import register_after_restore

        @register_after_restore
        def wait():
            while not os.path.exists("go"):
                with open("new", "w") as file: file.write(str(os.getppid()))
                os.rename("new", "zygote")
                time.sleep(0.01)

        def handle(event, context): return os.getppid()
    """
    pool = shop.pool(source, snap_start=True)
    outcome = shop.start(pool)
    await eventually((shop.code / "zygote").exists, "a worker runs its hook")
    zygote = int((shop.code / "zygote").read_text())
    os.kill(zygote, signal.SIGKILL)
    await eventually(lambda: "function.preload_lost" in events(shop), "it has been noticed")
    (shop.code / "go").touch()
    assert (await outcome).body != zygote


async def test_forks_that_fail_are_refused_until_they_succeed(shop):
    source = """
        import errno, os
        fork = os.fork
        def fails_at_first():
            if not os.path.exists("well"):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return fork()
        os.fork = fails_at_first
        def handle(event, context): return "fine"
    """
    pool = shop.pool(source, snap_start=True)
    outcome = await shop.invoke(pool)
    assert isinstance(outcome, Refused)
    assert not outcome.initialising
    assert "cannot start a worker of function orders: [Errno 11] Resource temporarily" in outcome.error.message
    assert pool.status.error == outcome.error
    assert pool.status.snap_start == SnapStart("ready")
    (shop.code / "well").touch()
    assert (await shop.invoke(pool)).body == "fine"
    assert pool.status.error is None


async def test_what_hangs_is_given_up_after_ten_seconds(shop):
    """The process that forks, asked for a worker or for how one has ended; and a hook in a worker."""
    exits = """
        import os, time
        open("zygote", "w").write(str(os.getpid()))
        def handle(event, context):
            while not os.path.exists("go"): time.sleep(0.01)
            os._exit(3)
    """
    stopped = [shop.pool(exits, snap_start=True, concurrency=most, timeout_s=60) for most in (1, 2)]
    zygotes, running = [], []
    for pool in stopped:
        running.append(shop.start(pool))
        await eventually(lambda pool=pool: pool.status.busy == 1, "it runs")
        zygotes.append(int((shop.code / "zygote").read_text()))
        os.kill(zygotes[-1], signal.SIGSTOP)
    hooks = "import snapshot_restore_py, time\nsnapshot_restore_py.register_after_restore(time.sleep, 1000)\n"
    shop.write(hooks + WORKS, "slow.py")
    begun_s = time.monotonic()
    (shop.code / "go").touch()
    refused, hung = await asyncio.gather(
        shop.start(stopped[1]), shop.start(shop.pool(handler="slow.handle", snap_start=True))
    )
    assert time.monotonic() - begun_s >= 10
    assert isinstance(refused, Refused)
    assert not refused.initialising
    assert "did not answer for 10.00 seconds" in refused.error.message
    assert [await outcome for outcome in running] == [Cancelled()] * 2, "nobody knows how their workers have ended"
    assert not any(map(is_running, zygotes))
    assert isinstance(hung, Refused)
    assert hung.initialising
    assert hung.error.message == "Initialisation timed out after 10.00 seconds: an after-restore hook hangs"


async def test_a_module_over_its_memory_is_not_loaded(shop):
    source = "import time\nhoard = bytearray(256 << 20)\ntime.sleep(60)\ndef handle(event, context): pass"
    outcome = await shop.run(source, snap_start=True, memory_bytes=128 << 20)
    assert isinstance(outcome, Refused)
    assert "memory limit exceeded: memory_size is 128 MB" in outcome.error.message


async def test_a_module_that_ignores_its_children_does_not_hide_how_workers_end(shop):
    source = """
        import os, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        def handle(event, context):
            if event == "ask":
                return signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
            os._exit(7)
    """
    pool = shop.pool(source, snap_start=True)
    assert (await shop.invoke(pool, "exit")).error.message.endswith("exit status 7")
    assert (await shop.invoke(pool, "ask")).body is True


async def test_workers_are_of_the_code_that_was_loaded_until_the_pool_is_made_anew(shop):
    source = "import os\ndef handle(event, context):\n if event: os._exit(1)\n return {!r}"
    pool = shop.pool(source.format("old"), snap_start=True)
    assert (await shop.invoke(pool)).body == "old"
    shop.write(source.format("newer"))
    await shop.invoke(pool, "die")
    assert (await shop.invoke(pool)).body == "old"
    await pool.close()
    assert (await shop.invoke(shop.pool(snap_start=True))).body == "newer"


async def test_nothing_is_left_of_a_pool_that_is_closed_at_any_moment(shop):
    shop.write(WHO)
    shop.write(f"import os, time\nopen('zygote', 'w').write(str(os.getpid()))\ntime.sleep(0.05)\n{WORKS}", "slow.py")
    for moment in range(8):
        pool = shop.pool(handler="slow.handle", snap_start=True)
        outcome = shop.start(pool)
        if moment == 7:
            await outcome
        elif moment:
            await eventually((shop.code / "zygote").exists, "the module is being loaded")
            for _ in range(moment):
                await asyncio.sleep(0.01)
        await pool.close()
        assert pool.status.workers == 0
        await outcome
        if (shop.code / "zygote").exists():
            assert not is_running(int((shop.code / "zygote").read_text()))
            (shop.code / "zygote").unlink()
