"""What takes a worker down with its neighbours: who is blamed, who spends an attempt, and that it ends."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from handlers.suspects import Suspects
from router.core.model import Cancelled, Failed, FailureKind, Returned
from tests.handlers.conftest import PATIENCE_S, Shop, await_death, eventually

#: Notes its starts and its companies; goes on when the file `go` is there, and does what the event says.
SOURCE = """
    import asyncio, os, sys, time
    open("starts", "a").write("x")
    running = 0

    async def handle(event, context):
        global running
        running += 1
        with open("companies", "a") as file:
            file.write(f"{context.aws_request_id} {running}\\n")
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        if event == "exit":
            os._exit(7)
        if event == "sys.exit":
            print("going")
            sys.exit(3)
        if event == "interrupt":
            raise KeyboardInterrupt
        if event == "block":
            time.sleep(1000)
        if event == "hoard":
            hoard = bytearray(300 << 20)
        if event in ("hang", "hoard"):
            await asyncio.sleep(1000)
        await asyncio.sleep(0.1)
        running -= 1
        return [event, os.getpid()]
"""
MARGIN_S = 10


def starts(shop: Shop) -> int:
    return len((shop.code / "starts").read_text())


def companies(shop: Shop, request_id: str) -> list[int]:
    """Give what each try of a request found running, itself included."""
    file = shop.code / "companies"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [int(count) for name, count in lines if name == request_id]


async def run_together(shop: Shop, pool, events: dict[str, object]) -> dict[str, tuple[object, int]]:
    """Let them run all at once, as an engine does, until each has ended."""
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        settling = {name: group.create_task(shop.settle(pool, event, name)) for name, event in events.items()}
        await eventually(lambda: all(companies(shop, name) for name in events), "all have begun")
        (shop.code / "go").touch()
    return {name: each.result() for name, each in settling.items()}


def test_companies_shrink_to_one_and_are_forgotten_in_time():
    suspects = Suspects()
    together = [str(number) for number in range(1000)]
    sizes = []
    while len(together) > 1:
        suspects.suspect(together)
        sizes.append(suspects.companies["0"])
        together = together[: sizes[-1]]
    assert sizes == [125, 15, 1]
    suspects.clear("0")
    assert "0" not in suspects.companies
    suspects.suspect(["a", "b"])
    suspects.blame("b")
    for number in range(20_000):
        suspects.blame(f"later {number}")
    assert len(suspects.companies) == 10_000
    assert "a" not in suspects.companies
    assert "later 19999" in suspects.companies


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("exit", "Runtime exited with error: exit status 7"),
        ("sys.exit", "Runtime exited with error: exit status 3"),
        ("interrupt", "Runtime exited with error: signal: interrupt"),
        ("hoard", "Runtime exited with error: signal: killed (memory limit exceeded: memory_size is 200 MB"),
    ],
)
async def test_a_crash_costs_its_own_attempt_and_no_other(shop, event, message):
    pool = shop.pool(SOURCE, concurrency_per_worker=64, timeout_s=30, memory_bytes=200 << 20)
    events = {f"id-{number}": "fine" for number in range(40)} | {"bad": event}
    ends = await run_together(shop, pool, events)
    outcome, tries = ends.pop("bad")
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CRASHED
    assert outcome.error.error_type == "Runtime.ExitError"
    assert outcome.error.message.startswith(f"RequestId: bad Error: {message}")
    assert tries <= 3
    assert all(isinstance(end, Returned) and tries <= 3 for end, tries in ends.values())
    assert starts(shop) <= 4
    assert pool.status.busy == 0


async def test_what_ends_with_a_worker_says_so_in_its_log_and_keeps_what_it_printed(shop):
    pool = shop.pool(SOURCE, concurrency_per_worker=2, timeout_s=30)
    await run_together(shop, pool, {"good": "fine", "bad": "sys.exit"})
    first = {}
    for name, text in shop.log.texts:
        first.setdefault(name, text)
    for name in ("good", "bad"):
        assert re.search(
            rf"\S+Z {name} Ended with its worker, runs again, no attempt is spent: "
            r"Runtime exited with error: exit status 3\n\nEND RequestId",
            first[name],
        )
        assert first[name].endswith("Status: error\tError Type: Headrace.Interrupted\t\n")
    assert "going\n" in first["bad"]
    assert "going" not in first["good"]
    assert "Task was destroyed" not in "".join(text for _, text in shop.log.texts)


async def test_what_was_blamed_runs_alone_until_it_ends_by_itself(shop):
    pool = shop.pool(SOURCE, concurrency_per_worker=8, concurrency=2, timeout_s=30)
    await run_together(shop, pool, {"good": "fine", "bad": "exit"})
    for _ in range(2):
        neighbours = [shop.start(pool, "fine") for _ in range(8)]
        outcome, tries = await shop.settle(pool, "exit", "bad")
        assert isinstance(outcome, Failed)
        assert tries == 1
        outcomes = await asyncio.gather(*neighbours)
        assert all(isinstance(each, Returned) for each in outcomes), "its retry ended none of them"
    assert isinstance(await shop.invoke(pool, "fine", "bad"), Returned)
    assert set(companies(shop, "bad")[1:]) == {1}
    (shop.code / "go").unlink()
    together = [shop.start(pool, "fine", name) for name in ("bad", "other", "another")]
    await eventually(lambda: pool.status.busy == 3, "it runs beside others again")
    (shop.code / "go").touch()
    await asyncio.gather(*together)


async def test_suspects_do_not_hold_up_the_other_workers(shop):
    pool = shop.pool(SOURCE, concurrency_per_worker=4, concurrency=2, timeout_s=30)
    suspects = [asyncio.ensure_future(shop.settle(pool, "fine", f"id-{number}")) for number in range(3)]
    bad = asyncio.ensure_future(shop.settle(pool, "exit", "bad"))
    await eventually(lambda: pool.status.busy == 4, "all run")
    (shop.code / "go").touch()
    await eventually(lambda: starts(shop) == 2, "the first worker has gone")
    others = await asyncio.gather(*(shop.invoke(pool, "fine", f"other-{number}") for number in range(30)))
    assert all(isinstance(outcome, Returned) for outcome in others)
    assert all(isinstance(end, Returned) for end, _ in await asyncio.gather(*suspects))
    assert isinstance((await bad)[0], Failed)
    counts = [companies(shop, f"id-{number}")[1:] for number in range(3)]
    assert all(set(each) <= {1} for each in counts)


async def test_memory_that_only_all_together_exceed_costs_no_attempt(shop):
    source = """
        import asyncio, os
        is_first = not os.path.exists("seen")
        open("seen", "w").close()

        async def handle(event, context):
            hoard = bytearray(60 << 20)
            await asyncio.sleep(1000 if is_first else 0.5)
    """
    pool = shop.pool(source, concurrency_per_worker=4, timeout_s=30, memory_bytes=200 << 20)
    ends = await asyncio.gather(*(shop.settle(pool, None, f"id-{number}") for number in range(4)))
    assert [(type(outcome), tries) for outcome, tries in ends] == [(Returned, 2)] * 4


async def test_a_timeout_ends_the_worker_and_spends_its_own_attempt_only(shop):
    pool = shop.pool(SOURCE, concurrency_per_worker=8, timeout_s=3)
    (shop.code / "go").touch()
    begun_s = time.monotonic()
    late = shop.start(pool, "hang", "late")
    await eventually(lambda: pool.status.busy == 1, "it runs")
    await asyncio.sleep(0.5)
    neighbours = [shop.start(pool, "hang", f"id-{number}") for number in range(3)]
    outcome = await late
    assert 3 <= time.monotonic() - begun_s < 3 + MARGIN_S
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.TIMED_OUT
    assert outcome.error.message == "RequestId: late Error: Task timed out after 3.00 seconds"
    assert [await neighbour for neighbour in neighbours] == [Cancelled()] * 3
    (shop.code / "go").unlink()
    again = [shop.start(pool, "fine", f"id-{number}") for number in range(3)]
    await eventually(lambda: pool.status.busy == 3, "they run together again: they are no suspects")
    (shop.code / "go").touch()
    pids = {(await each).body[1] for each in again}
    assert len(pids) == 1
    assert starts(shop) == 2
    text = next(text for name, text in shop.log.texts if name == "late")
    assert text.endswith("\tStatus: timeout\t\n")
    text = next(text for name, text in shop.log.texts if name == "id-0")
    assert "Ended with its worker, runs again, no attempt is spent: RequestId: late Error: Task timed out" in text


async def test_who_blocks_the_event_loop_is_found_though_others_are_late_first(shop):
    pool = shop.pool(SOURCE, concurrency_per_worker=8, timeout_s=3)
    older = [asyncio.ensure_future(shop.settle(pool, "fine", f"id-{number}")) for number in range(4)]
    await eventually(
        lambda: all((shop.code / "companies").exists() and companies(shop, f"id-{n}") for n in range(4)), ""
    )
    block = asyncio.ensure_future(shop.settle(pool, "block", "bad"))
    await eventually(lambda: companies(shop, "bad"), "the last has begun")
    (shop.code / "go").touch()
    ends = await asyncio.wait_for(asyncio.gather(*older), PATIENCE_S)
    assert [(type(outcome), tries) for outcome, tries in ends] == [(Returned, 2)] * 4
    outcome, tries = await block
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.TIMED_OUT
    assert outcome.error.message == "RequestId: bad Error: Task timed out after 3.00 seconds"
    assert tries == 2
    text = next(text for name, text in shop.log.texts if name == "id-0")
    assert "no attempt is spent: Task timed out after 3.00 seconds: something blocked the event loop" in text


async def test_an_answer_that_came_before_the_end_counts(shop):
    source = """
        import asyncio, os
        answered = 0
        async def handle(event, context):
            global answered
            if event == "exit":
                while answered < 60:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)  # answers are sent at the end of a turn
                os._exit(7)
            if event != "pid":
                answered += 1
            return os.getpid() if event == "pid" else event
    """
    pool = shop.pool(source, concurrency_per_worker=64, timeout_s=30)
    pid = (await shop.invoke(pool, "pid")).body
    bad = shop.start(pool, "exit")
    quick = [shop.start(pool, number) for number in range(60)]
    await asyncio.sleep(0)
    assert pool.status.busy == 61
    await_death(pid)  # nobody reads what the worker says before it is gone
    assert [(await each).body for each in quick] == list(range(60))
    assert isinstance(await bad, Failed), "it was the only one left"


async def test_closing_ends_all_that_runs_or_waits(shop):
    pool = shop.pool(SOURCE, concurrency_per_worker=4, timeout_s=30)
    outcomes = [shop.start(pool, "fine") for _ in range(6)]
    await eventually(lambda: pool.status.busy == 4, "four run")
    await pool.close()
    assert [await outcome for outcome in outcomes] == [Cancelled()] * 6
