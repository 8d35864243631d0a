"""Trouble with queues as the operator meets it: said in one line, nobody else's trouble, over when its cause is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.live.daemon import Daemon
from tests.live.queue_rig import FaultyEndpoint, Queues, add_mapping

#: Notes when a message begins and ends; in between it takes as many seconds as its body says.
TAKING = """
import os, time
def handle(event, context):
    with open(os.environ["LEDGER"], "a", buffering=1) as ledger:
        for record in event["Records"]:
            print("began", record["body"], file=ledger)
            time.sleep(float(record["body"]))
            print("ended", record["body"], file=ledger)
"""

#: Notes the bodies, as they are in Python.
NOTING = """
import os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        for record in event["Records"]:
            print(repr(record["body"]), file=ledger)
"""

#: Waits until there is no file HOLD.
WAITING = """
import os, time
def handle(event, context):
    with open(os.environ["LEDGER"], "a", buffering=1) as ledger:
        for record in event["Records"]:
            print("began", record["body"], file=ledger)
        while os.path.exists(os.environ["HOLD"]):
            time.sleep(0.02)
        print("ended", file=ledger)
"""


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


async def test_a_visibility_timeout_below_that_of_the_function_is_told_before_it_hurts(
    tmp_path: Path, queues: Queues
) -> None:
    short, exact = await queues.make(VisibilityTimeout="29"), await queues.make(fifo=True, VisibilityTimeout="30")
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", NOTING, timeout=30)
        add_mapping(daemon, "short", short.source())
        add_mapping(daemon, "exact", exact.source())
        daemon.write()
        done = await daemon.command("check", "--connect", "--json")
        assert done.status == 1
        found = {check["name"]: check for check in done.json()["checks"]}
        assert found["event_source_mappings.exact.source"]["ok"]
        assert not found["event_source_mappings.short.source"]["ok"]
        said = found["event_source_mappings.short.source"]["detail"]
        assert "Queue visibility timeout: 29 seconds is less than Function timeout: 30 seconds" in said
        assert short.name in said


async def test_a_queue_that_is_deleted_and_made_again(tmp_path: Path, queues: Queues) -> None:
    queue, steady = await queues.make(), await queues.make()
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", NOTING, environment={"LEDGER": str(ledger)})
        add_mapping(daemon, "orders", queue.source())
        add_mapping(daemon, "steady", steady.source())
        await daemon.start()
        await queue.send("before")
        await queue.until((0, 0))

        await queue.delete()
        failed = await daemon.line("source.failed", mapping="orders")
        assert "the queue does not exist" in failed["error"]
        assert queue.name in failed["error"]
        status = await daemon.status("orders")
        assert status["state"] == "retrying"
        assert status["reason"]["code"] == "SourceUnavailable"
        assert "the queue does not exist" in status["reason"]["message"]
        await steady.send("meanwhile")
        await steady.until((0, 0))

        began_s = time.monotonic()
        await queues.make_again(queue.name)
        await queue.send("after")
        await queue.until((0, 0))
        away_s = time.monotonic() - began_s
        assert away_s < 30, "it goes on within half a minute"
        assert (await daemon.status("orders"))["state"] in ("running", "idle")
        assert lines(ledger) == ["'before'", "'meanwhile'", "'after'"]
        assert not daemon.events("source.failed", mapping="steady")
        assert await daemon.terminate() == 0


@pytest.mark.parametrize(("fifo", "workers"), [(False, 1), (False, 2), (True, 1), (True, 2)])
async def test_what_is_shown_again_while_it_runs_does_not_run_beside_itself_and_goes(
    tmp_path: Path, queues: Queues, *, fifo: bool, workers: int
) -> None:
    queue = await queues.make(fifo=fifo, VisibilityTimeout="2")
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", TAKING, timeout=20, reserved_concurrency=workers, environment={"LEDGER": str(ledger)})
        add_mapping(daemon, "orders", queue.source(), batch_size=1)
        await daemon.start()
        await queue.send("5", "0.1", group="a" if fifo else None)
        await daemon.until(lambda: "ended 5" in lines(ledger), "the long one has ended")
        await queue.until((0, 0))
        assert await daemon.terminate() == 0
    said = lines(ledger)
    assert [said.count(line) for line in ("began 5", "ended 5")] == [1, 1]
    assert said.count("began 0.1") == said.count("ended 0.1") == 1
    if fifo:
        assert said == ["began 5", "ended 5", "began 0.1", "ended 0.1"]


async def test_bodies_that_are_not_json_are_the_functions_unless_a_filter_wants_json(
    tmp_path: Path, queues: Queues
) -> None:
    plain, filtered = await queues.make(), await queues.make()
    ledger = tmp_path / "ledger"
    bodies = ["not JSON", '{"kind": "order"', "\ufeff{}", "[1]", "null", "{}", '{"kind": "order"}']
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", NOTING, environment={"LEDGER": str(ledger)})
        add_mapping(daemon, "filtered", filtered.source())
        pattern = {"body": {"kind": ["order"]}}
        daemon.document["event_source_mappings"]["filtered"]["filter_criteria"] = {"filters": [{"pattern": pattern}]}
        await daemon.start()
        await filtered.send(*bodies)
        await filtered.until((0, 0))
        assert lines(ledger) == [repr('{"kind": "order"}')]
        assert await daemon.terminate() == 0

        ledger.unlink()
        add_mapping(daemon, "plain", plain.source())
        await daemon.start()
        await plain.send(*bodies)
        await plain.until((0, 0))
        assert sorted(lines(ledger)) == sorted(map(repr, bodies))
        assert await daemon.terminate() == 0
        assert not [line for line in daemon.lines if line["level"] in ("warning", "error")]


async def test_a_stop_ends_what_runs_and_shows_what_waits_to_others_at_once(tmp_path: Path, queues: Queues) -> None:
    running, gathering = await queues.make(VisibilityTimeout="600"), await queues.make(VisibilityTimeout="600")
    ledger, hold = tmp_path / "ledger", tmp_path / "hold"
    hold.touch()
    async with FaultyEndpoint(queues.endpoint_url, waits=False) as endpoint, Daemon(tmp_path) as daemon:
        await endpoint.come()
        daemon.function("orders", WAITING, timeout=60, environment={"LEDGER": str(ledger), "HOLD": str(hold)})
        add_mapping(daemon, "running", running.source(endpoint.url))
        gathers = gathering.source(endpoint.url)
        add_mapping(daemon, "gathering", gathers, maximum_batching_window_in_seconds=300, batch_size=100)
        await daemon.start()
        await running.send("one")
        await gathering.send(*map(str, range(25)))
        await gathering.until((0, 25))
        await daemon.until(lambda: lines(ledger) == ["began one"], "one is with the function")
        stopping = asyncio.create_task(daemon.terminate())
        await gathering.until((25, 0))
        assert not stopping.done(), "it waits for what runs"
        assert await running.counts() == (0, 1)
        hold.unlink()
        assert await stopping == 0
        assert await running.counts() == (0, 0)
        for mapping in ("running", "gathering"):
            assert daemon.events("queue.left", mapping=mapping)
    assert lines(ledger) == ["began one", "ended"]
