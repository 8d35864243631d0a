"""A function that cannot be started or initialised: refused with its own error, and tried again without spinning."""

from __future__ import annotations

import asyncio
import time
import zipfile

import pytest

from handlers.predecessors import WorkerLock
from router.core.model import Cancelled, Refused, Returned
from tests.handlers.conftest import eventually

BOTH_WAYS = True

WORKS = "def handle(event, context): return 'works'"


@pytest.mark.parametrize(
    ("handler", "source", "error_type", "message"),
    [
        (
            "nowhere.handle",
            "",
            "Runtime.ImportModuleError",
            "import module 'nowhere': No module named 'nowhere'",
        ),
        ("app.other", WORKS, "Runtime.HandlerNotFound", "Handler 'other' missing on module 'app'"),
        ("app", WORKS, "Runtime.MalformedHandlerName", "Bad handler 'app': not enough values to unpack"),
        ("sys.exit", WORKS, "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"),
        ("app.handle", "def handle(event", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
        (
            "app.handle",
            "import lost",
            "Runtime.ImportModuleError",
            "import module 'app': No module named 'lost'",
        ),
        ("app.handle", "raise ValueError('no table')", "ValueError", "no table"),
        ("app.handle", "import sys; sys.exit(3)", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("app.handle", "import os; os._exit(0)", "Runtime.ExitError", "Runtime exited without providing a reason"),
        ("app.handle", "import os; os.kill(os.getpid(), 11)", "Runtime.ExitError", "signal: segmentation fault"),
    ],
)
async def test_a_broken_module_refuses_with_its_own_error(shop, handler, source, error_type, message):
    outcome = await shop.run(source, handler=handler)
    assert isinstance(outcome, Refused)
    assert outcome.initialising
    assert outcome.error.error_type == error_type
    assert message in outcome.error.message
    assert error_type in shop.log.texts[0][1]


async def test_an_error_at_import_shows_where(shop):
    outcome = await shop.run("def connect():\n    raise OSError('down')\nconnect()\n")
    trace = outcome.error.trace
    assert [line.split("\n")[0] for line in trace] == [
        '  File "/var/task/app.py", line 3, in <module>',
        '  File "/var/task/app.py", line 2, in connect',
    ]


async def test_an_import_that_fails_names_files_as_on_aws(shop):
    shop.write("def handle(event, context) return 1\n", "library.py")
    broken = await shop.run("import library\n", handler="app.handle")
    assert broken.error.error_type == "Runtime.UserCodeSyntaxError"
    assert broken.error.trace[0].startswith('  File "/var/task/library.py" Line 1\n')
    shop.write("", "library.py")
    lacking = await shop.run("from library import prices\n", handler="app.handle")
    assert lacking.error.error_type == "Runtime.ImportModuleError"
    assert lacking.error.message.endswith("cannot import name 'prices' from 'library' (/var/task/library.py)")
    assert str(shop.code) not in shop.log.texts[-1][1]


async def test_a_module_that_hangs_is_given_up_after_ten_seconds_or_the_timeout(shop):
    begun = time.monotonic()
    shop.write("import time\ntime.sleep(1000)", "hung.py")
    shop.write("import time\ntime.sleep(11)\ndef handle(event, context): return event", "slow.py")
    # A long import has as long as an invocation, as where AWS begins it anew within the first one.
    slow = shop.start(shop.pool(handler="slow.handle", timeout_s=600.0), "imported")
    outcome = await shop.invoke(shop.pool(handler="hung.handle", timeout_s=3.0))
    assert isinstance(outcome, Refused)
    assert outcome.initialising
    assert outcome.error.error_type == "Sandbox.Timedout"
    assert outcome.error.message.startswith("Initialisation timed out after 10.00 seconds")
    assert time.monotonic() - begun >= 10
    assert (await slow).body == "imported"


async def test_garbage_on_the_channel_is_told(shop):
    source = """
        import os, socket
        for fd in range(3, 64):
            try:
                channel = socket.socket(fileno=os.dup(fd))
                channel.getpeername()
                channel.send(b"x" * 100)
            except OSError:
                pass
        def handle(event, context): pass
    """
    outcome = await shop.run(source)
    assert isinstance(outcome, Refused)
    assert "cannot be read" in outcome.error.message


async def test_a_missing_interpreter_is_named(shop):
    outcome = await shop.run(WORKS, python="/nowhere/python3")
    assert isinstance(outcome, Refused)
    assert not outcome.initialising
    assert "/nowhere/python3" in outcome.error.message
    assert "orders" in outcome.error.message


async def test_a_missing_folder_is_named_and_found_when_it_comes(shop):
    pool = shop.pool(code=shop.folder / "later")
    outcome = await shop.invoke(pool)
    assert isinstance(outcome, Refused)
    assert str(shop.folder / "later") in outcome.error.message
    shop.write(WORKS)
    shop.code.rename(shop.folder / "later")
    assert (await shop.invoke(pool)).body == "works"


async def test_a_state_directory_that_takes_nothing_refuses_and_leaves_no_worker(shop):
    lock = WorkerLock(shop.folder / "state")
    registry = shop.folder / "state" / "workers"
    registry.rmdir()
    registry.write_text("a file where the folder should be")
    pool = shop.pool(WORKS, lock=lock)
    outcome = await shop.invoke(pool)
    assert isinstance(outcome, Refused)
    assert not outcome.initialising
    assert "cannot set up a worker of function orders" in outcome.error.message
    assert pool.status.workers == 0
    registry.unlink()
    registry.mkdir()
    assert (await shop.invoke(pool)).body == "works"
    await pool.close()
    assert list(registry.iterdir()) == []
    lock.close()


async def test_each_failed_start_ends_one_invocation_and_starts_are_spaced_out(shop):
    pool = shop.pool("import os\nopen('starts', 'a').write('x')\nraise ValueError('broken')")
    begun = time.monotonic()
    waiting = [shop.start(pool) for _ in range(4)]
    outcomes = await asyncio.gather(*waiting)
    assert all(isinstance(outcome, Refused) for outcome in outcomes)
    assert time.monotonic() - begun >= 0.1 + 0.2 + 0.4
    assert (shop.code / "starts").read_text() == "xxxx"
    assert pool.status.error.message == "broken"


async def test_a_repaired_module_runs(shop):
    pool = shop.pool("raise ValueError('broken')")
    assert isinstance(await shop.invoke(pool), Refused)
    shop.write(WORKS + "  # repaired")
    assert (await shop.invoke(pool)).body == "works"
    assert pool.status.error is None


async def test_workers_are_started_on_demand_up_to_the_limit(shop):
    pool = shop.pool("import time\ndef handle(event, context): time.sleep(event)", concurrency=3, timeout_s=30)
    await shop.invoke(pool, 0)
    assert pool.status.workers == 1
    running = [shop.start(pool, 20) for _ in range(5)]
    await eventually(lambda: pool.status.busy == 3, "three run")
    assert pool.status.workers == 3
    assert pool.status.waiting == 2
    await pool.close()
    assert [await outcome for outcome in running] == [Cancelled()] * 5
    await pool.close()


async def test_users_modules_may_have_our_names(shop):
    shop.write("NAME = 'their config'", "config.py")
    shop.write("NAME = 'their router'", "router.py")
    shop.write("NAME = 'their connectors'", "connectors/__init__.py")
    shop.write(
        """
        import config, connectors, router
        def handle(event, context): return [config.NAME, router.NAME, connectors.NAME]
        """,
        "handlers/orders.py",  # without __init__.py: a namespace package, weaker than any regular one
    )
    pool = shop.pool(handler="handlers.orders.handle")
    assert (await shop.invoke(pool)).body == ["their config", "their router", "their connectors"]
    slashed = shop.pool(handler="handlers/orders.handle")
    assert isinstance(await shop.invoke(slashed), Returned)


async def test_our_own_modules_are_out_of_reach(shop):
    for name in ("router", "connectors", "handlers", "config"):
        outcome = await shop.run(f"import {name}\n{WORKS}")
        assert isinstance(outcome, Refused)
        assert f"No module named '{name}'" in outcome.error.message


async def test_pythonpath_of_the_function_is_searched_after_its_code(shop):
    shared = shop.folder / "shared"
    shared.mkdir()
    (shared / "library.py").write_text("NAME = 'shared'")
    (shared / "app.py").write_text("")
    shop.write("import library\ndef handle(event, context): return library.NAME")
    pool = shop.pool(environment={"PYTHONPATH": str(shared)})
    assert (await shop.invoke(pool)).body == "shared"


async def test_code_in_an_archive_is_unpacked_once(shop):
    archive = shop.folder / "code.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("pkg/app.py", "import os\ndef handle(event, context): return os.getcwd()")
    pools = [shop.pool(code=archive, handler="pkg/app.handle") for _ in range(2)]
    places = [(await shop.invoke(pool)).body for pool in pools]
    assert places[0] == places[1]
    assert str(shop.folder / "state" / "code") in places[0]
