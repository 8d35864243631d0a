"""A sink that takes pieces has what an invocation prints while that runs."""

from __future__ import annotations

import asyncio
import time

from handlers.output import LIMIT_BYTES
from handlers.worker import SHOW_INTERVAL_S
from router.core.model import Outcome, Returned
from router.ports import Invocation
from tests.handlers.conftest import PATIENCE_S, Memory, Shop, eventually

BOTH_WAYS = True

WAITS = """
    import os, time
    print("at import")
    def handle(event, context):
        print("begun")
        print("half a ", end="", flush=True)
        while not os.path.exists(event):
            time.sleep(0.01)
        print("line")
        return context.log_stream_name
"""


async def test_lines_are_told_while_the_invocation_runs_and_each_once(shop: Shop) -> None:
    shop.log = log = Memory(is_live=True)
    pool = shop.pool(WAITS, timeout_s=2 * PATIENCE_S)
    go = shop.folder / "go"
    begun_s = time.monotonic()
    ending = shop.start(pool, str(go), "id-1")
    await eventually(lambda: "begun\n" in "".join(text for _, text in log.requests), "it is told")
    assert time.monotonic() - begun_s < SHOW_INTERVAL_S + 10
    assert not ending.done()
    go.write_text("")
    outcome = await ending
    assert isinstance(outcome, Returned)
    lines = "".join(text for _, text in log.requests).splitlines()
    assert lines[-5:-1] == ["START RequestId: id-1 Version: $LATEST", "begun", "half a line", "END RequestId: id-1"]
    assert lines[-1].startswith("REPORT RequestId: id-1\t")
    own = [stream for stream, (request_id, _) in zip(log.streams, log.texts, strict=True) if request_id]
    assert set(own) == {outcome.body}


async def test_each_of_several_has_its_own_lines_while_they_run(shop: Shop) -> None:
    shop.log = log = Memory(is_live=True)
    source = """
        import asyncio, os
        async def handle(event, context):
            print("begun", event)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
            print("done", event)
    """
    pool = shop.pool(source, concurrency_per_worker=2, timeout_s=2 * PATIENCE_S)
    running = [shop.start(pool, number, f"id-{number}") for number in (1, 2)]
    told = lambda: "".join(text for _, text in log.requests)  # noqa: E731
    await eventually(lambda: "begun 1\n" in told() and "begun 2\n" in told(), "both are told")
    shop.write("", "go")
    for each in running:
        await each
    for number in (1, 2):
        lines = "".join(text for request_id, text in log.texts if request_id == f"id-{number}").splitlines()
        start = f"START RequestId: id-{number} Version: $LATEST"
        assert lines[:-1] == [start, f"begun {number}", f"done {number}", f"END RequestId: id-{number}"]


async def test_a_flood_is_told_in_pieces(shop: Shop) -> None:
    shop.log = log = Memory(is_live=True)
    await shop.run(
        "import time\ndef handle(event, context):\n for number in range(20000):\n  print('x' * 99)", timeout_s=60
    )
    told = "".join(text for _, text in log.requests)
    assert told.count("START") == told.count("REPORT") == 1
    assert len(told) > 1_000_000


async def test_of_what_was_told_already_only_the_end_is_kept_for_who_wants_the_log(shop: Shop) -> None:
    shop.log = log = Memory(is_live=True)
    source = """
        import os, time
        def handle(event, context):
            for number in range(2):
                print("x" * 700_000)
                while not os.path.exists(f"go-{number}"):
                    time.sleep(0.01)
    """
    pool = shop.pool(source, timeout_s=4 * PATIENCE_S)
    told = lambda: sum(len(text) for _, text in log.requests)  # noqa: E731
    wanted: list[str] = []
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    pool.invoke(Invocation("id-1", lambda: b"null", True, ended.set_result, log=wanted.append))
    for number in range(2):
        await eventually(lambda: told() > 700_000 * (number + 1), "it is told")  # noqa: B023
        shop.write("", f"go-{number}")
    assert isinstance(await ended, Returned)
    [text] = wanted
    assert LIMIT_BYTES <= len(text) < LIMIT_BYTES + 1000
    assert text.splitlines()[-2:-1] == ["END RequestId: id-1"]


async def test_what_dies_with_its_worker_has_its_end_told(shop: Shop) -> None:
    shop.log = log = Memory(is_live=True)
    pool = shop.pool("import time\ndef handle(event, context):\n print('begun')\n time.sleep(99)", timeout_s=3)
    await shop.invoke(pool, None, "id-1")
    lines = "".join(text for _, text in log.requests).splitlines()
    assert lines[:2] == ["START RequestId: id-1 Version: $LATEST", "begun"]
    assert "Task timed out after" in lines[2]
    assert lines[-2] == "END RequestId: id-1"
    assert lines[-1].endswith("Status: timeout\t")
