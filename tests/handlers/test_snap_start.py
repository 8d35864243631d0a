"""Workers that are forked from a process that has loaded the function: what is shared, and what is each one's own.

That they keep all that fresh ones promise is tested where that is (`BOTH_WAYS`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import sqlite3
import sys
import textwrap
from pathlib import Path

import pytest

from handlers.nursery import SnapStart
from router.core.model import Refused
from tests.handlers.conftest import PATIENCE_S, Shop, is_running

#: Begins a handler; its answers come from as many workers as the event says.
WAIT = """
    import os, time
    LOADED_BY = os.getpid()

    def meet(event):
        while len(os.listdir("here")) < event:
            open("here/%d" % os.getpid(), "w").close()
            time.sleep(0.01)
"""
WHO = (
    WAIT
    + """
    def handle(event, context):
        meet(event)
        return os.getpid(), LOADED_BY, os.getppid()
"""
)


async def together(shop: Shop, pool, count: int) -> list:
    """Have as many workers at work at once, and give their answers."""
    (shop.code / "here").mkdir(exist_ok=True)
    for file in (shop.code / "here").iterdir():
        file.unlink()
    started = [shop.start(pool, count) for _ in range(count)]
    return [outcome.body for outcome in await asyncio.wait_for(asyncio.gather(*started), PATIENCE_S)]


def events(shop: Shop) -> list[str]:
    return [event for event, _ in shop.notes]


def found(shop: Shop) -> list[str]:
    [(event, fields)] = shop.notes
    assert event == "function.not_forked"
    return fields["found"]


async def test_workers_share_one_import(shop):
    pool = shop.pool(WHO, snap_start=True, concurrency=3)
    assert pool.status.snap_start == SnapStart("idle")
    answers = await together(shop, pool, 3)
    workers = {worker for worker, _, _ in answers}
    assert len(workers) == pool.status.workers == 3
    [zygote] = {parent for _, *parents in answers for parent in parents}
    assert pool.status.snap_start == SnapStart("ready")
    await pool.close()
    assert not any(map(is_running, [zygote, *workers]))
    assert events(shop) == ["function.preloaded"]


async def test_each_worker_has_what_is_its_own(shop):
    source = (
        WAIT
        + """
    import logging, random, ssl, secrets, uuid
    random.seed(1)
    AT_IMPORT = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]

    def handle(event, context):
        meet(event)
        print("printed by", os.getpid())
        logging.warning("logged by %d", os.getpid())
        assert os.getpgrp() == os.getsid(0) == os.getpid()
        assert context.log_stream_name == os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] != AT_IMPORT
        assert os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"] == "snap-start"
        return [os.getpid(), random.random(), str(uuid.uuid4()), secrets.token_hex(8), ssl.RAND_bytes(8).hex(),
                context.log_stream_name, os.environ["_X_AMZN_TRACE_ID"]]
    """
    )
    pool = shop.pool(source, snap_start=True, concurrency=2)
    first, second = await together(shop, pool, 2)
    assert not any(a == b for a, b in zip(first, second, strict=True))
    assert len(shop.log.requests) == 2
    for request_id, text in shop.log.requests:
        [pid] = [pid for pid in (first[0], second[0]) if f"printed by {pid}\n" in text]
        assert f"\t{request_id}\tlogged by {pid}\n" in text


async def test_nothing_open_is_shared_with_another_worker_or_the_process_that_forks(shop):
    source = (
        WAIT
        + """
    def handle(event, context):
        meet(event)
        return [link for link in map(link_of, os.listdir("/proc/self/fd")) if link.startswith(("socket:", "pipe:"))]

    def link_of(descriptor):
        try:
            return os.readlink("/proc/self/fd/" + descriptor)
        except OSError:  # that of the listing
            return ""

    """
    )
    pool = shop.pool(source, snap_start=True, concurrency=2)
    first, second = await together(shop, pool, 2)
    assert len(first) == len(second) == 4, "standard output and error, and the channel twice"
    assert not set(first) & set(second)


async def test_what_is_printed_at_import_is_logged_once_and_restores_are_told(shop):
    pool = shop.pool("print('imported')\ndef handle(event, context): print('ran')", snap_start=True)
    await shop.invoke(pool, None, "one")
    await shop.invoke(pool, None, "two")
    (nobody, loaded), (_, first), (_, second) = shop.log.texts
    assert nobody == ""
    assert loaded.startswith("imported\nINIT_REPORT Init Duration: ")
    assert "Status" not in loaded
    assert first.startswith("START RequestId: one ")
    assert "imported" not in first
    assert "\tRestore Duration: " in first
    assert "Restore" not in second


async def test_async_handlers_and_several_at_once(shop):
    source = """
        import asyncio, os
        async def handle(event, context):
            await asyncio.sleep(0)
            return os.getppid()
    """
    one = shop.pool(source, snap_start=True)
    assert isinstance((await shop.invoke(one)).body, int)
    several = shop.pool(snap_start=True, concurrency_per_worker=8)
    answers = await asyncio.gather(*(shop.start(several) for _ in range(8)))
    assert len({answer.body for answer in answers}) == 1
    assert several.status.workers == 1


# --- hooks

HOOKS = """
    from snapshot_restore_py import register_after_restore, register_before_snapshot
    import os, snapshot_restore_py
    done = []

    @register_before_snapshot
    def first():
        done.append("before 1")

    def note(what, who="nobody"):
        done.append("%s of %s" % (what, who))
        by.append(os.getpid())

    by = []
    register_before_snapshot(note, "before 2", who="me")
    register_after_restore(note, "after 1", who="you")
    register_after_restore(note, "after 2")

    def handle(event, context):
        assert first() is None, "a decorated function stays what it is"
        return done[:-1], by[0] == os.getppid(), by[1:] == [os.getpid()] * 2
"""
ORDER = ["before 2 of me", "before 1", "after 1 of you", "after 2 of nobody"]


async def test_hooks_run_around_the_fork_in_the_order_of_aws(shop):
    pool = shop.pool(HOOKS, snap_start=True)
    assert (await shop.invoke(pool)).body == [ORDER, True, True]


async def test_the_module_of_hooks_is_there_where_the_interpreter_has_none(shop):
    """And the user's own is preferred: that of the folder."""
    python = getattr(sys, "_base_executable", sys.executable)
    pool = shop.pool(HOOKS, snap_start=True, python=python)
    assert (await shop.invoke(pool)).body == [ORDER, True, True]
    shop.write("raise ImportError('my own')", "snapshot_restore_py.py")
    outcome = await shop.invoke(shop.pool(snap_start=True, python=python))
    assert "my own" in outcome.error.message


async def test_hooks_can_be_registered_without_snap_start_and_do_not_run(shop):
    python = getattr(sys, "_base_executable", sys.executable)
    source = HOOKS.replace("return", "return done\n        return")
    assert (await shop.run(source, python=python)).body == ["before 1"]


@pytest.mark.parametrize(
    ("moment", "error_type"), [("before_snapshot", "BeforeSnapshotError"), ("after_restore", "AfterRestoreError")]
)
async def test_a_hook_that_fails_is_an_init_error_and_tried_again(shop, moment, error_type):
    source = f"""
        import os
        from snapshot_restore_py import register_{moment}

        @register_{moment}
        def hook():
            if not os.path.exists("well"):
                raise ValueError("not yet")

        def handle(event, context): return "fine"
    """
    pool = shop.pool(source, snap_start=True)
    outcome = await shop.invoke(pool)
    assert isinstance(outcome, Refused)
    assert outcome.initialising
    assert outcome.error.error_type == f"Runtime.{error_type}"
    assert outcome.error.message == "ValueError: not yet"
    assert outcome.error.trace[-1].endswith('raise ValueError("not yet")\n')
    assert pool.status.error == outcome.error
    assert "[ERROR] Runtime." in shop.log.texts[-1][1]
    (shop.code / "well").touch()
    assert (await shop.invoke(pool)).body == "fine"
    assert pool.status.error is None


async def test_a_hook_that_ends_the_process_is_an_init_error(shop):
    source = """
        import sys
        from snapshot_restore_py import register_after_restore
        register_after_restore(sys.exit, 3)
        def handle(event, context): pass
    """
    outcome = await shop.run(source, snap_start=True)
    assert isinstance(outcome, Refused)
    assert "exit status 3" in outcome.error.message


@pytest.mark.parametrize("snap_start", [True, False])
async def test_the_example_of_the_docs(shop, snap_start):
    page = (Path(__file__).parents[2] / "docs" / "snap-start.md").read_text()
    [example] = re.findall(r"```python\n(# functions/rates/rates.py\n.*?)```", page, re.DOTALL)
    shop.write(example.replace("< 0.01", "< event['luck']"), "rates.py")
    with contextlib.closing(sqlite3.connect(shop.code / "rates.db")) as db, db:
        db.execute("CREATE TABLE rates (currency, rate)")
        db.execute("INSERT INTO rates VALUES ('EUR', 1.5)")
    pool = shop.pool(handler="rates.handler", snap_start=snap_start, concurrency=2)
    event = {"currency": "EUR", "amount": 2}
    started = [shop.start(pool, {**event, "luck": luck}) for luck in (0, 1)]
    assert [(await outcome).body for outcome in started] == [3.0, 3.0]
    assert events(shop) == (["function.preloaded"] if snap_start else [])


# --- what must not be shared

NATIVE = """
    import ctypes
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)
"""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, name='poll', daemon=True).start()",
            "thread poll of threading",
        ),
        (NATIVE, "native thread python"),
        ("import socket\nsock = socket.socket()\nsock.bind(('127.0.0.1', 0))\nsock.listen()", "socket at 127.0.0.1:"),
        (
            """
                import socket
                server = socket.create_server(("127.0.0.1", 0))
                client = socket.create_connection(server.getsockname())
            """,
            "socket connected to 127.0.0.1:",
        ),
        ("import socket\nends = socket.socketpair()", "socket of a pair"),
        ("import asyncio\nloop = asyncio.new_event_loop()", "epoll of an event loop"),
        ("import os\nends = os.pipe()", "pipe:["),
        ("import sqlite3\ndb = sqlite3.connect('a.db')", "/code/a.db"),
        ("file = open('app.py')\nfile.readline()", "/code/app.py"),
    ],
    ids=["thread", "native thread", "listening", "connected", "pair", "event loop", "pipe", "database", "file"],
)
async def test_what_is_left_open_is_told_and_workers_are_fresh(shop, source, told):
    shop.write(textwrap.dedent(source) + textwrap.dedent(WHO))
    pool = shop.pool(snap_start=True, concurrency=2)
    answers = await together(shop, pool, 2)
    assert {(worker, os.getpid()) for worker, _, _ in answers} == {(loader, parent) for _, loader, parent in answers}
    assert any(told in each for each in found(shop)), shop.notes
    assert pool.status.snap_start == SnapStart("refused", tuple(found(shop)))
    assert not list((shop.folder / "state").glob("workers/*"))


async def test_hooks_run_in_fresh_workers_too_where_none_are_forked(shop):
    source = HOOKS.replace("by = []", "by = []\n    import threading\n    threading.Timer(1000, print).start()")
    pool = shop.pool(source.replace("by[0] == os.getppid()", "by[0] == os.getpid()"), snap_start=True)
    assert (await shop.invoke(pool)).body == [ORDER, True, True]
    assert found(shop)


async def test_what_a_hook_closes_or_does_no_harm_is_no_reason(shop):
    source = """
        import mmap, os, socket, threading
        from snapshot_restore_py import register_before_snapshot
        sock = socket.socket()
        register_before_snapshot(sock.close)
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()

        @register_before_snapshot
        def end():
            stop.set()
            thread.join()

        log = open("log.txt", "a")
        null = open(os.devnull, "r+b", buffering=0)
        folder = os.open(".", os.O_RDONLY)
        with open("app.py", "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

        def handle(event, context): return mapped[:4].decode() + str(os.getppid())
    """
    pool = shop.pool(source, snap_start=True)
    outcome = await shop.invoke(pool)
    assert not outcome.body.endswith(str(os.getpid()))
    assert events(shop) == ["function.preloaded"]


async def test_what_files_hold_back_is_written_once(shop):
    source = (
        WAIT
        + """
    log = open("log.txt", "a")
    log.write("loaded\\n")

    def handle(event, context):
        meet(event)
        log.write("ran\\n")
        log.flush()
    """
    )
    await together(shop, shop.pool(source, snap_start=True, concurrency=3), 3)
    assert (shop.code / "log.txt").read_text().split() == ["loaded", "ran", "ran", "ran"]


async def test_http_connections_that_idle_are_closed_and_open_again_by_themselves(shop):
    """boto3 leaves one where it asks at import who it is, or for a parameter; so does requests."""
    source = """
        import http.client, os
        connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]))

        def fetch():
            connection.request("GET", "/")
            return connection.getresponse().read().decode()

        FIRST = fetch()
        OPEN = connection.sock is not None

        def handle(event, context): return [OPEN, FIRST, fetch(), fetch(), os.getppid() != event]
    """

    async def serve(reader, writer):
        number = next(connections)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        writer.close()

    connections = itertools.count(1)
    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    pool = shop.pool(source, snap_start=True, environment={"PORT": str(port)})
    assert (await shop.invoke(pool, os.getpid())).body == [True, "1", "2", "2", True]
    assert events(shop) == ["function.preloaded"]
    server.close()


async def test_threads_of_a_library_that_stops_them_for_a_fork_are_no_reason(shop):
    """As OpenBLAS does with its own, which every import of numpy starts."""
    source = """
        import ctypes, os
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        semaphore = ctypes.create_string_buffer(64)
        libc.sem_init(semaphore, 0, 0)
        libc.pthread_create(ctypes.byref(thread), None, libc.sem_wait, semaphore)

        def stop():
            global thread
            if thread:
                libc.sem_post(semaphore)
                libc.pthread_join(thread, None)
                thread = None

        os.register_at_fork(before=stop)
        def handle(event, context): return os.getppid()
    """
    pool = shop.pool(source, snap_start=True)
    assert (await shop.invoke(pool)).body != os.getpid()
    assert events(shop) == ["function.preloaded"]
