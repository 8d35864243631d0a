"""Replicas that share a queue of LocalStack over a real Redis."""

from __future__ import annotations

from pathlib import Path

from tests.live.fleet_rig import FleetRig, Replica
from tests.live.queue_rig import Queues, add_mapping

FAILING = """
import os, pathlib

def handle(event, context):
    with open(pathlib.Path(os.environ["NOTES"]) / "tries", "a") as tries:
        print(os.getpid(), context.aws_request_id, file=tries)
    raise ValueError("no price")
"""


async def test_tries_of_a_message_count_whichever_replica_made_them(
    tmp_path: Path, redis_url: str, queues: Queues
) -> None:
    queue = await queues.make(fifo=True, VisibilityTimeout="5")
    async with FleetRig(tmp_path, redis_url, lease="10s") as fleet:
        fleet.function("orders", FAILING)
        backoff = {"base": "2s", "cap": "2s"}
        add_mapping(Replica(fleet, "unused"), "orders", queue.source(), maximum_retry_attempts=3, retry_backoff=backoff)
        a, b = await fleet.start("a", "b")
        await queue.send("poison", group="g")
        tries = fleet.notes / "tries"
        await a.until(lambda: tries.exists() and tries.read_text().endswith("\n"), "it was tried")
        first, other = (a, b) if int(tries.read_text().split()[0]) in a.workers() else (b, a)
        assert await first.terminate() == 0
        [failure] = await other.until_failures(bool, "it is given up")
        assert failure["attempts"] == 4
        pids, requests = zip(*(line.split() for line in tries.read_text().splitlines()), strict=True)
        assert (len(pids), len(set(pids)), len(set(requests))) == (4, 2, 1)
        await queue.until((0, 0))
