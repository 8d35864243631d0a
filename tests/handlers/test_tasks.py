"""Several invocations of one worker at once: results, contexts, limits, and handlers that cannot have that."""

from __future__ import annotations

import asyncio
import os

import pytest

from router.core.model import EVENT_LIMIT_BYTES, Cancelled, Failed, FailureKind, Refused, Returned
from tests.handlers.conftest import PATIENCE_S, await_death, eventually

BOTH_WAYS = True

GATES = """
    import asyncio, os
    gates = {}

    async def handle(event, context):
        await gates.setdefault(event["await"], asyncio.Event()).wait() if "await" in event else None
        gates.setdefault(event.get("open"), asyncio.Event()).set()
        return [event.get("open"), os.getpid()]
"""


async def test_results_come_in_any_order(shop):
    pool = shop.pool(GATES, concurrency_per_worker=4)
    first = shop.start(pool, {"await": "b", "open": "a"})
    second = shop.start(pool, {"await": "c", "open": "b"})
    third = shop.start(pool, {"open": "c"})
    ended = []
    for future, name in ((first, "a"), (second, "b"), (third, "c")):
        future.add_done_callback(lambda _, name=name: ended.append(name))
    outcomes = await asyncio.wait_for(asyncio.gather(first, second, third), PATIENCE_S)
    assert ended == ["c", "b", "a"]
    assert [outcome.body[0] for outcome in outcomes] == ["a", "b", "c"]
    assert len({outcome.body[1] for outcome in outcomes}) == 1, "one process ran them"


async def test_no_more_run_at_once_than_allowed(shop):
    source = """
        import asyncio
        running = most = 0
        async def handle(event, context):
            global running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1
            return most
    """
    pool = shop.pool(source, concurrency_per_worker=3)
    outcomes = await asyncio.gather(*(shop.invoke(pool) for _ in range(10)))
    assert max(outcome.body for outcome in outcomes) == 3
    assert pool.status.workers == 1


async def test_another_worker_is_started_when_all_are_full_and_then_all_are_used_evenly(shop):
    source = """
        import asyncio, os
        async def handle(event, context):
            while not os.path.exists(event):
                await asyncio.sleep(0.01)
            return os.getpid()
    """
    pool = shop.pool(source, concurrency_per_worker=2, concurrency=2)
    two = [shop.start(pool, "go") for _ in range(2)]
    await eventually(lambda: pool.status.busy == 2, "both run")
    assert pool.status.workers == 1
    three = [shop.start(pool, "go") for _ in range(3)]
    await eventually(lambda: pool.status.busy == 4, "four run")
    assert (pool.status.workers, pool.status.waiting) == (2, 1)
    (shop.code / "go").touch()
    await asyncio.gather(*two, *three)
    pair = [shop.start(pool, "again") for _ in range(2)]
    await eventually(lambda: pool.status.busy == 2, "both run")
    (shop.code / "again").touch()
    assert len({(await outcome).body for outcome in pair}) == 2, "each in a worker of its own"


async def test_each_invocation_has_its_own_context(shop):
    source = """
        import asyncio
        from contextvars import ContextVar
        mine = ContextVar("mine", default=None)

        async def handle(event, context):
            before = mine.get()
            mine.set(event)
            left = context.get_remaining_time_in_millis()
            await asyncio.sleep(0.01 * (event % 3))
            fell = left - context.get_remaining_time_in_millis()
            return [before, mine.get(), context.aws_request_id, 50_000 < left <= 60_000, 0 <= fell < 10_000]
    """
    pool = shop.pool(source, concurrency_per_worker=50, timeout_s=60)
    outcomes = await asyncio.gather(*(shop.invoke(pool, number, f"id-{number}") for number in range(50)))
    assert [outcome.body for outcome in outcomes] == [
        [None, number, f"id-{number}", True, True] for number in range(50)
    ]


BLOCKS = """
    import os, time
    async def handle(event, context):
        if event == "block":
            open("blocked", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.01)
        return context.get_remaining_time_in_millis()
"""


async def test_time_on_the_way_counts_against_the_timeout(shop):
    pool = shop.pool(BLOCKS, concurrency_per_worker=2, timeout_s=30)
    block = shop.start(pool, "block")
    await eventually((shop.code / "blocked").exists, "the loop is blocked")
    waiting = shop.start(pool)
    await asyncio.sleep(0.3)  # the time that is to count
    (shop.code / "go").touch()
    await block
    assert (await waiting).body <= 29_700


async def test_errors_of_one_leave_the_others_alone(shop):
    source = """
        import asyncio
        async def handle(event, context):
            await asyncio.sleep(0.01)
            if event == "raise":
                raise ValueError(context.aws_request_id)
            if event == "set":
                return {1, 2}
            if event == "base":
                raise asyncio.CancelledError
            return event
    """
    pool = shop.pool(source, concurrency_per_worker=5)
    events = ["a", "raise", "set", "base", "b"]
    outcomes = await asyncio.gather(*(shop.invoke(pool, event, f"id-{event}") for event in events))
    assert [type(outcome) for outcome in outcomes] == [Returned, Failed, Failed, Failed, Returned]
    raised, marshalled, cancelled = outcomes[1:4]
    assert (raised.kind, raised.error.message) == (FailureKind.RAISED, "id-raise")
    assert [line.split(", ")[2].split("\n")[0] for line in raised.error.trace] == ["in handle"]
    assert (marshalled.kind, marshalled.error.error_type) == (FailureKind.BAD_RESPONSE, "Runtime.MarshalError")
    assert cancelled.error.error_type == "CancelledError"
    assert pool.status.workers == 1


async def test_events_and_results_of_every_size_pass_each_other(shop):
    pool = shop.pool(
        "import asyncio\nasync def handle(event, context):\n await asyncio.sleep(0)\n return event",
        concurrency_per_worker=64,
        timeout_s=30,
        memory_bytes=1 << 30,
    )
    sizes = [size for _ in range(4) for size in (0, 1, 65_524, 65_525, 300_000, 5_000_000, 10, 100, 1000)]
    outcomes = await asyncio.gather(*(shop.invoke(pool, "y" * size) for size in sizes))
    assert [outcome.body == "y" * size for outcome, size in zip(outcomes, sizes, strict=True)] == [True] * len(sizes)


async def test_a_worker_that_takes_nothing_is_sent_no_more_than_its_socket_holds(shop):
    pool = shop.pool(BLOCKS, concurrency_per_worker=64, timeout_s=30, memory_bytes=1 << 30)
    block = shop.start(pool, "block")
    await eventually((shop.code / "blocked").exists, "the loop is blocked")
    encoded = []

    def encode() -> bytes:
        encoded.append(None)
        return b'"' + b"y" * 5_000_000 + b'"'

    large = [shop.start(pool, encode=encode) for _ in range(20)]
    assert len(encoded) < 3
    assert pool.status.waiting > 17
    (shop.code / "go").touch()
    outcomes = await asyncio.wait_for(asyncio.gather(block, *large), PATIENCE_S)
    assert all(isinstance(outcome, Returned) for outcome in outcomes)


@pytest.mark.parametrize(
    "source",
    [
        "def handle(event, context): pass",
        "import asyncio\nasync def work(event): pass\ndef handle(event, context): return asyncio.run(work(event))",
        "class handle:\n def __init__(self, event, context): pass",
    ],
    ids=["plain", "plain around async", "a class"],
)
async def test_a_handler_that_is_not_async_is_refused(shop, source):
    pool = shop.pool(source, concurrency_per_worker=4)
    outcome = await shop.invoke(pool)
    assert isinstance(outcome, Refused)
    assert outcome.initialising
    assert outcome.error.error_type == "Runtime.HandlerNotAsync"
    assert outcome.error.message == (
        "concurrency_per_worker is 4, which needs an async def handler, and 'app.handle' is none: "
        "make it async def, or leave concurrency_per_worker at 1"
    )
    assert "Runtime.HandlerNotAsync" in shop.log.texts[0][1]
    loading = shop.start(pool, encode=lambda: bytes(EVENT_LIMIT_BYTES + 1))
    assert (await loading).error.error_type == "Runtime.HandlerNotAsync", "told also where nothing is to run"


@pytest.mark.parametrize(
    "source",
    [
        "from functools import partial\nasync def work(table, event, context): return table\nhandle = partial(work, 7)",
        "class Work:\n async def __call__(self, event, context): return 7\nhandle = Work()",
        "class Work:\n async def run(self, event, context): return 7\nhandle = Work().run",
    ],
    ids=["partial", "callable", "method"],
)
async def test_whatever_is_awaited_is_an_async_handler(shop, source):
    assert (await shop.run(source, concurrency_per_worker=4)).body == 7


async def test_cancelling_one_ends_its_task_alone(shop):
    source = """
        import asyncio, os
        cleaned = []
        async def handle(event, context):
            if event == "look":
                return [cleaned, os.getpid()]
            try:
                while event == "hang" or not os.path.exists("go"):
                    await asyncio.sleep(0.01)
            finally:
                cleaned.append(event)
            return os.getpid()
    """
    pool = shop.pool(source, concurrency_per_worker=4, timeout_s=60)
    hanging = shop.start(pool, "hang", "the-id")
    neighbour = shop.start(pool, "sleep")
    await eventually(lambda: pool.status.busy == 2, "both run")
    pool.cancel("the-id", waiting_only=True)
    pool.cancel("the-id", waiting_only=False)
    pool.cancel("the-id", waiting_only=False)
    assert await hanging == Cancelled()
    assert not neighbour.done()
    (shop.code / "go").touch()
    outcome = await neighbour
    assert (await shop.invoke(pool, "look")).body == [["hang", "sleep"], outcome.body]


async def test_what_is_cancelled_before_it_began_ends_too(shop):
    pool = shop.pool(
        "import asyncio\nasync def handle(event, context): await asyncio.sleep(event)",
        concurrency_per_worker=4,
        timeout_s=60,
    )
    await shop.invoke(pool, 0)
    neighbour = shop.start(pool, 0.2)
    outcome = shop.start(pool, 1000, "the-id")
    pool.cancel("the-id", waiting_only=False)
    assert await outcome == Cancelled()
    assert isinstance(await neighbour, Returned)


async def test_a_task_that_does_not_let_itself_be_cancelled_goes_with_the_worker(shop):
    source = """
        import asyncio, os
        async def handle(event, context):
            while event == "stay":
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    pass
            await asyncio.sleep(1000 if event == "wait" else 0)
            return os.getpid()
    """
    pool = shop.pool(source, concurrency_per_worker=4, timeout_s=60)
    before = (await shop.invoke(pool)).body
    staying = shop.start(pool, "stay", "the-id")
    neighbour = shop.start(pool, "wait", "neighbour")
    pool.cancel("the-id", waiting_only=False)
    assert await asyncio.wait_for(staying, PATIENCE_S) == Cancelled()
    assert await neighbour == Cancelled()
    again = [shop.start(pool, "wait", "neighbour"), shop.start(pool, "wait")]
    await eventually(lambda: pool.status.busy == 2, "it runs beside another: it is no suspect")
    pool.cancel("neighbour", waiting_only=False)
    assert await again[0] == Cancelled()
    assert (await shop.invoke(pool)).body != before


async def test_cancelling_the_only_one_kills_the_worker(shop):
    pool = shop.pool("import time\nasync def handle(event, context): time.sleep(1000)", concurrency_per_worker=4)
    outcome = shop.start(pool, None, "the-id")
    await eventually(lambda: pool.status.busy == 1, "it runs")
    pool.cancel("the-id", waiting_only=False)
    assert await asyncio.wait_for(outcome, PATIENCE_S) == Cancelled()


async def test_a_worker_that_dies_idle_costs_nothing(shop):
    pool = shop.pool("import os\nasync def handle(event, context): return os.getpid()", concurrency_per_worker=4)
    first = (await shop.invoke(pool)).body
    os.kill(first, 9)
    await_death(first)
    outcomes = await asyncio.gather(*(shop.invoke(pool) for _ in range(4)))
    assert all(isinstance(outcome, Returned) for outcome in outcomes)
    assert first not in {outcome.body for outcome in outcomes}


async def test_a_forked_child_that_returns_does_not_answer(shop):
    source = """
        import os
        async def handle(event, context):
            child = os.fork()
            print("child" if not child else "parent")
            if child:
                os.waitpid(child, 0)
            return "parent" if child else "child"
    """
    pool = shop.pool(source, concurrency_per_worker=4)
    outcomes = await asyncio.gather(*(shop.invoke(pool) for _ in range(3)))
    assert [outcome.body for outcome in outcomes] == ["parent"] * 3
    assert pool.status.workers == 1
