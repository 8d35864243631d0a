"""What handlers print that run beside others in one worker: each line in the log of its own request."""

from __future__ import annotations

import asyncio
import re

import pytest

from handlers.output import LIMIT_BYTES as OUTPUT_LIMIT_BYTES
from router.core.model import Returned

BOTH_WAYS = True

ROUNDS = 5


async def test_lines_of_interleaved_requests_are_told_apart(shop):
    source = f"""
        import asyncio, logging, sys
        log = logging.getLogger()
        log.setLevel("INFO")

        async def below(name):
            await asyncio.sleep(0)
            print("subtask", name)

        async def handle(event, context):
            for turn in range({ROUNDS}):
                print("out", event, end=" ")
                print("err", event, file=sys.stderr)
                await asyncio.sleep(0)
                print("turn", turn)
                log.info("log %s", event)
                sys.stdout.buffer.write(f"bytes {{event}}\\n".encode())
                await asyncio.gather(below(event), below(event))
            await asyncio.to_thread(print, "thread", event)
            await asyncio.to_thread(log.info, "thread log %s", event)
            print("the end of", event, end="")
    """
    pool = shop.pool(source, concurrency_per_worker=32)
    names = [f"<{number}>" for number in range(32)]
    await asyncio.gather(*(shop.invoke(pool, name, f"id-{name}") for name in names))
    texts = dict(shop.log.texts)
    for name in names:
        lines = texts[f"id-{name}"].splitlines()
        if lines[0] != f"START RequestId: id-{name} Version: $LATEST":
            pytest.fail(f"it begins with {lines[0]!r}")
        own = [re.sub(r"^\[INFO\]\t\S+Z\t", "[INFO] ", line) for line in lines[1:-2]]
        expected = []
        for turn in range(ROUNDS):
            out = [f"out {name} turn {turn}", f"[INFO] id-{name}\tlog {name}", f"bytes {name}"]
            expected += [f"err {name}", *out, f"subtask {name}", f"subtask {name}"]
        expected += [f"thread {name}", f"[INFO] id-{name}\tthread log {name}", f"the end of {name}"]
        assert own == expected
        assert lines[-2] == f"END RequestId: id-{name}"


async def test_what_belongs_to_nobody_stands_before_the_next_that_ends(shop):
    source = """
        import asyncio, os, threading
        print("at import")
        left = []

        async def linger():
            await asyncio.sleep(0.1)
            print("too late")

        async def handle(event, context):
            if event == "first":
                os.system("echo from a child")
                thread = threading.Thread(target=print, args=("from a thread",))
                thread.start()
                thread.join()
                left.append(asyncio.create_task(linger()))
            else:
                await left[0]
            print("mine", event)
    """
    pool = shop.pool(source, concurrency_per_worker=2)
    await shop.invoke(pool, "first", "id-1")
    await shop.invoke(pool, "second", "id-2")
    await shop.invoke(pool, "third", "id-3")
    (_, first), (_, second), (_, third) = shop.log.requests
    assert shop.log.texts[0][1].startswith("at import\n")
    assert "START RequestId: id-1 Version: $LATEST\nmine first\nEND" in first
    assert "START RequestId: id-2 Version: $LATEST\nmine second\nEND" in second
    together = first + second + third
    for line in ("from a child\n", "from a thread\n", "too late\n"):
        assert together.count(line) == 1
        assert re.search(f"{line}(.*\n)?(.*\n)?START", together), "it stands before a START line"


async def test_what_was_printed_before_the_end_of_the_process_is_kept(shop):
    source = """
        import asyncio, os
        async def handle(event, context):
            print("begun", event)
            await asyncio.sleep(0)
            if event == "crash":
                print("last words", end="\\n")
                os._exit(1)
            await asyncio.sleep(1000)
    """
    pool = shop.pool(source, concurrency_per_worker=2, timeout_s=60)
    await asyncio.gather(shop.invoke(pool, "stay", "id-1"), shop.invoke(pool, "crash", "id-2"))
    texts = dict(shop.log.texts)
    assert "$LATEST\nbegun stay\n" in texts["id-1"]
    assert "$LATEST\nbegun crash\nlast words\n" in texts["id-2"]


async def test_a_flood_of_output_is_cut_and_leaves_the_others_alone(shop):
    source = """
        import asyncio, os
        async def handle(event, context):
            if event == "flood":
                while not os.path.exists("enough"):
                    print("x" * 65535)
                    await asyncio.sleep(0)
                print("y" * 65535, end="")
            print("said", event)
    """
    pool = shop.pool(source, concurrency_per_worker=16, timeout_s=120)
    flood = shop.start(pool, "flood", "flood")
    for _ in range(100):
        assert isinstance(await shop.invoke(pool, "other"), Returned)
        assert not flood.done(), "it floods until it is told"
    (shop.code / "enough").touch()
    assert isinstance(await flood, Returned)
    texts = dict(shop.log.requests)
    text = texts.pop("flood")
    assert OUTPUT_LIMIT_BYTES < len(text) < OUTPUT_LIMIT_BYTES + 1000
    assert text.count("x\n[more output of this request was not kept]\nEND") == 1
    assert all("$LATEST\nsaid other\nEND" in each for each in texts.values())


async def test_a_line_without_end_is_kept_in_pieces(shop):
    pool = shop.pool(
        "import sys\nasync def handle(event, context):\n for _ in range(9): sys.stdout.write('x' * 1000)",
        concurrency_per_worker=2,
    )
    await shop.invoke(pool)
    assert f"$LATEST\n{'x' * 9000}\nEND" in shop.log.requests[0][1]


async def test_logs_off_keeps_nothing(shop):
    source = "async def handle(event, context):\n print('secret')\n return 'fine'"
    outcome = await shop.run(source, concurrency_per_worker=2, logs=False)
    assert outcome.body == "fine"
    assert shop.log.texts == []


async def test_closed_or_replaced_output_is_no_failure(shop):
    source = """
        import sys
        async def handle(event, context):
            sys.stdout.close()
            sys.stderr = None
            if event:
                raise ValueError("said")
            return "fine"
    """
    pool = shop.pool(source, concurrency_per_worker=2)
    assert (await shop.invoke(pool)).body == "fine"
    assert (await shop.invoke(pool, True)).error.message == "said"
