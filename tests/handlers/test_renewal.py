"""A function that becomes another one under the invocations that run and wait."""

from __future__ import annotations

import asyncio

from handlers.archive import fingerprint
from handlers.function import FunctionSpec
from handlers.nursery import SnapStart
from router.core.model import Refused, Returned
from tests.handlers.conftest import PATIENCE_S, eventually

BOTH_WAYS = True

#: Says that it runs, then waits to be let go.
WAITS = """
    import os, time
    def handle(event, context):
        open(event["began"], "w").close()
        while not os.path.exists(event["go"]):
            time.sleep(0.01)
        return os.environ.get("VERSION", "first")
"""


def spec_of(shop, **fields) -> FunctionSpec:
    return FunctionSpec(
        "orders", "app.handle", shop.code, **{"timeout_s": 30.0, "snap_start": shop.snap_start, **fields}
    )


def event_of(shop, name):
    return {"began": str(shop.folder / f"{name}.began"), "go": str(shop.folder / f"{name}.go")}


def go(shop, *names):
    for name in names:
        (shop.folder / f"{name}.go").touch()


async def ended(start):
    return await asyncio.wait_for(start, PATIENCE_S)


async def test_what_runs_ends_with_the_old_and_what_waits_runs_with_the_new(shop):
    pool = shop.pool(WAITS, timeout_s=30.0)
    running = shop.start(pool, event_of(shop, "a"))
    await eventually((shop.folder / "a.began").exists, "the first runs")
    waiting = shop.start(pool, event_of(shop, "b"))
    pool.renew(spec_of(shop, environment={"VERSION": "second"}))
    go(shop, "a", "b")
    assert (await ended(running)).body == "first"
    assert (await ended(waiting)).body == "second"


async def test_the_limit_of_workers_holds_over_both(shop):
    pool = shop.pool(WAITS, timeout_s=30.0, concurrency=1)
    running = shop.start(pool, event_of(shop, "a"))
    await eventually((shop.folder / "a.began").exists, "the first runs")
    pool.renew(spec_of(shop, concurrency=1))
    waiting = shop.start(pool, event_of(shop, "b"))
    go(shop, "b")
    assert pool.status.workers == 1
    assert not (shop.folder / "b.began").exists()
    go(shop, "a")
    assert isinstance(await ended(running), Returned)
    assert isinstance(await ended(waiting), Returned)


async def test_idle_workers_end_at_once(shop):
    pool = shop.pool("def handle(event, context): return 1")
    assert (await shop.invoke(pool)).body == 1
    pool.renew(spec_of(shop))
    await eventually(lambda: pool.status.workers == 0, "the idle worker ends")
    assert (await shop.invoke(pool)).body == 1


async def test_a_function_that_could_not_start_is_mended_without_a_wait(shop):
    pool = shop.pool("import lost")
    assert isinstance(await shop.invoke(pool), Refused)
    shop.write("def handle(event, context): return 'mended'")
    pool.renew(spec_of(shop))
    assert (await shop.invoke(pool)).body == "mended"


async def test_what_was_loading_when_it_was_renewed_refuses_nobody(shop):
    pool = shop.pool("import time\ntime.sleep(60)")
    waiting = shop.start(pool)
    loading = SnapStart("loading")
    await eventually(lambda: pool.status.workers or pool.status.snap_start == loading, "a worker is being started")
    shop.write("def handle(event, context): return 'new'")
    pool.renew(spec_of(shop))
    assert (await ended(waiting)).body == "new"


async def test_several_in_one_worker_all_end_with_the_old_one(shop):
    source = """
        import asyncio, os
        async def handle(event, context):
            open(event["began"], "w").close()
            while not os.path.exists(event["go"]):
                await asyncio.sleep(0.01)
            return os.environ.get("VERSION", "first")
    """
    pool = shop.pool(source, timeout_s=30.0, concurrency_per_worker=3)
    running = [shop.start(pool, event_of(shop, name)) for name in "ab"]
    for name in "ab":
        await eventually((shop.folder / f"{name}.began").exists, "both run")
    pool.renew(spec_of(shop, concurrency_per_worker=1, environment={"VERSION": "second"}))
    go(shop, "a", "b", "c")
    assert [(await ended(each)).body for each in running] == ["first", "first"]
    assert (await shop.invoke(pool, event_of(shop, "c"))).body == "second"


async def test_code_that_changed_gets_new_workers_and_code_that_did_not_keeps_its_own(shop):
    pool = shop.pool("def handle(event, context): return 1")
    assert not await pool.renew_if_changed()
    assert (await shop.invoke(pool)).body == 1
    assert not await pool.renew_if_changed()
    shop.write("def handle(event, context): return 22")
    assert await pool.renew_if_changed()
    assert (await shop.invoke(pool)).body == 22
    assert not await pool.renew_if_changed()


def test_the_fingerprint_sees_files_of_folders_and_archives_and_no_bytecode(tmp_path):
    (tmp_path / "pkg" / "__pycache__").mkdir(parents=True)
    (tmp_path / "pkg" / "a.py").write_text("1")
    first = fingerprint(tmp_path)
    (tmp_path / "pkg" / "__pycache__" / "a.pyc").write_text("1")
    assert fingerprint(tmp_path) == first
    (tmp_path / "pkg" / "b.py").write_text("1")
    assert fingerprint(tmp_path) != first
    archive = tmp_path / "code.zip"
    archive.write_bytes(b"one")
    zipped = fingerprint(archive)
    archive.write_bytes(b"three")
    assert fingerprint(archive) != zipped
    assert fingerprint(tmp_path / "absent") == fingerprint(tmp_path / "absent")


async def test_what_forks_workers_ends_with_the_last_that_it_forked(shop):
    pool = shop.pool(WAITS, timeout_s=30.0, snap_start=True)
    running = shop.start(pool, event_of(shop, "a"))
    await eventually((shop.folder / "a.began").exists, "the first runs")
    [former] = [pool._nursery.zygote]
    pool.renew(spec_of(shop, snap_start=True, environment={"VERSION": "second"}))
    assert not former.is_ending, "its worker would end with it"
    go(shop, "a", "b")
    assert (await ended(running)).body == "first"
    assert (await shop.invoke(pool, event_of(shop, "b"))).body == "second"
    await eventually(lambda: former.is_ending and not pool._former, "the former process ends")
    assert pool.status.snap_start.state == "ready"
