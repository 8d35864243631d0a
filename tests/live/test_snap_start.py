"""`snap_start` in the whole pipeline: what is killed at work, and what cannot be forked."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.conftest import MakeTopic
from tests.handlers.conftest import is_running
from tests.live.daemon import Daemon, await_committed, plain, produce

#: Writes down what it was given, in the order of its coming, and by whom it was loaded.
LEDGER = """
import base64, json, os, time

with open(os.environ["LOADED"], "a") as file:
    print(os.getpid(), file=file)

def handle(event, context):
    [records] = event["records"].values()
    for record in records:
        with open(os.environ["LEDGER"], "a") as ledger:
            print(record["partition"], record["offset"], file=ledger)
        time.sleep(0.03)
"""
THREAD = """
import threading

stop = threading.Event()
threading.Thread(target=stop.wait, name="refresh", daemon=True).start()

def handle(event, context):
    return None
"""
PARTITIONS = 3
RECORDS = 300


async def test_nothing_is_lost_or_left_when_what_forks_and_the_daemon_are_killed(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(PARTITIONS)
    ledger, loaded = tmp_path / "ledger", tmp_path / "loaded"
    ledger.touch()

    def count() -> int:
        return ledger.read_text().count("\n")

    async with Daemon(tmp_path) as daemon:
        paths = {"LEDGER": str(ledger), "LOADED": str(loaded)}
        daemon.function("orders", LEDGER, environment=paths, snap_start=True, reserved_concurrency=PARTITIONS)
        daemon.mapping("orders", plain(kafka_bootstrap, name), batch_size=5, maximum_retry_attempts=0)
        for partition in range(PARTITIONS):
            records = [(None, number) for number in range(RECORDS // PARTITIONS)]
            await produce(kafka_bootstrap, name, records, partition=partition)
        await daemon.start()
        await daemon.until(lambda: count() > 30, "some records are done")
        os.kill(int(loaded.read_text()), signal.SIGKILL)
        await daemon.line("function.preload_lost", function="orders")
        await daemon.until(lambda: count() > 120, "it goes on")
        pids = [int(note.name) for note in (daemon.state / "workers").iterdir()]
        assert len(pids) > 1
        await daemon.kill()
        await daemon.until(lambda: not any(map(is_running, pids)), "nothing is left")
        await daemon.start()
        await await_committed(kafka_bootstrap, name, dict.fromkeys(range(PARTITIONS), RECORDS // PARTITIONS))
        assert await daemon.failures() == [], "nobody's fault spends no attempt"
        assert await daemon.terminate() == 0
    assert len(loaded.read_text().split()) == 3
    done = [tuple(map(int, line.split())) for line in ledger.read_text().splitlines()]
    for partition in range(PARTITIONS):
        offsets = [offset for where, offset in done if where == partition]
        assert list(dict.fromkeys(offsets)) == list(range(RECORDS // PARTITIONS)), "first deliveries are in order"


async def test_what_cannot_be_forked_is_told_in_log_status_and_check(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    found = "thread refresh of threading"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", THREAD, snap_start=True)
        daemon.mapping("orders", plain(kafka_bootstrap, name))
        await produce(kafka_bootstrap, name, [(None, 1)])
        await daemon.start()
        line = await daemon.line("function.not_forked", function="orders", found=[found])
        assert line["level"] == "warning"
        assert "register_after_restore" in line["hint"]
        await await_committed(kafka_bootstrap, name, {0: 1})
        status = await daemon.command("status", "--json")
        [function] = status.json()["functions"]
        assert function["snap_start"] == {"state": "refused", "found": [found]}
        shown = await daemon.command("status")
        assert (
            f"orders: snap_start has no effect, workers are started anew: its module leaves open {found}" in shown.out
        )
        checked = await daemon.command("check", "--connect")
        assert f"app.handle: loads; snap_start has no effect, it leaves open {found}" in checked.out
        assert await daemon.terminate() == 0
