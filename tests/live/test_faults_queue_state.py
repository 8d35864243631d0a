"""Trouble with the state directory of a daemon that reads queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.daemon import Daemon
from tests.live.queue_rig import FaultyEndpoint, Queues, add_mapping
from tests.live.test_faults_state import fill

#: Notes every body, then fails for those that are poison.
CHOOSING = """
import os
def handle(event, context):
    for record in event["Records"]:
        with open(os.environ["LEDGER"], "a") as ledger:
            print(record["body"], file=ledger)
        if record["body"].startswith("poison"):
            raise ValueError("no total")
"""


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines()


@pytest.mark.parametrize(("retries", "event"), [(0, "failure.not_stored"), (2, "store.failed")])
async def test_a_full_disk_holds_what_fails_and_nothing_else(
    tmp_path: Path, disk: Path, queues: Queues, retries: int, event: str
) -> None:
    queue, fine = await queues.make(VisibilityTimeout="3"), await queues.make()
    ledger = tmp_path / "ledger"
    async with FaultyEndpoint(queues.endpoint_url, waits=False) as endpoint, Daemon(tmp_path) as daemon:
        await endpoint.come()
        daemon.function("orders", CHOOSING, environment={"LEDGER": str(ledger)}, logs="off")
        add_mapping(daemon, "orders", queue.source(endpoint.url), batch_size=1, maximum_retry_attempts=retries)
        add_mapping(daemon, "fine", fine.source(), maximum_retry_attempts=retries)
        await daemon.start()
        # Workers that are there need nothing of the disk.
        await queue.send("poison before")
        await fine.send("before")
        await daemon.line("batch.discarded", mapping="orders")
        await queue.until((0, 0))
        await fine.until((0, 0))
        fill(disk / "ballast")
        await queue.send("poison 1", "poison 2")
        refused = await daemon.line(event, mapping="orders")
        assert "disk is full" in refused["error"]
        status = await daemon.status("orders")
        assert status["state"] == ("retrying" if retries else "holding")
        assert "disk is full" in str(status["reason"])
        await fine.send("meanwhile")
        await fine.until((0, 0))
        await daemon.until(
            lambda: min(endpoint.received.count(f"poison {number}") for number in (1, 2)) > 2,
            "the queue has shown both twice more",
        )
        assert [lines(ledger).count(f"poison {number}") for number in (1, 2)] == [1, 1], "they do not run again"
        assert len(daemon.events("batch.discarded")) == 1

        (disk / "ballast").unlink()
        await queue.until((0, 0))
        failures = await daemon.failures()
        assert [failure["reason"] for failure in failures] == ["RetryAttemptsExhausted"] * 3
        assert [failure["attempts"] for failure in failures] == [retries + 1] * 3
        assert await daemon.terminate() == 0
    assert [lines(ledger).count(f"poison {number}") for number in ("before", 1, 2)] == [retries + 1] * 3
