"""The daemon stopped, killed and started again: what is done stays done, and what was tried stays tried."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, await_committed, plain, produce

#: Writes "PARTITION OFFSET" for every record that it finishes.
LEDGER = """
import os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        for records in event["records"].values():
            for record in records:
                print(record["partition"], record["offset"], file=ledger)
"""

#: Fails whatever comes, and counts.
FAILING = """
import os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        print(context.aws_request_id, file=ledger)
    raise ValueError("no total")
"""

#: Fails until there is a file FIXED; then takes until there is no file HOLD.
FIXABLE = """
import os, time
def handle(event, context):
    if not os.path.exists(os.environ["FIXED"]):
        raise ValueError("no total")
    with open(os.environ["LEDGER"], "a", buffering=1) as ledger:
        print("began", os.getpid(), file=ledger)
        while os.path.exists(os.environ["HOLD"]):
            time.sleep(0.02)
        print("ended", os.getpid(), file=ledger)
"""

HANGING = """
import os, time
def handle(event, context):
    open(os.environ["LEDGER"], "a").close()
    time.sleep(600)
"""


async def test_a_stop_commits_what_is_done_and_a_start_repeats_nothing(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", LEDGER, environment={"LEDGER": str(ledger)})
        # Who is paused for longer than its session loses its partitions, and repeats what it had not committed.
        daemon.mapping("orders", {**plain(kafka_bootstrap, name), "session_timeout": "60s"}, batch_size=10)
        await daemon.start()
        await produce(kafka_bootstrap, name, [(None, number) for number in range(500)])
        await daemon.until(ledger.exists, "something is delivered")
        assert await daemon.terminate() == 0
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 500})
        assert await daemon.terminate() == 0
    delivered = ledger.read_text().splitlines()
    assert len(delivered) == len(set(delivered)) == 500


async def test_a_second_signal_ends_it_at_once_with_its_workers(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", HANGING, timeout=600, environment={"LEDGER": str(ledger)})
        daemon.mapping("orders", plain(kafka_bootstrap, name))
        await daemon.start()
        await produce(kafka_bootstrap, name, [(None, 1)])
        await daemon.until(ledger.exists, "the handler runs")
        [worker] = daemon.workers()
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.line("daemon.draining")
        assert daemon.process.returncode is None, "it lets the handler end"
        assert await daemon.terminate() == -signal.SIGTERM
        assert daemon.events("daemon.forced")
        await daemon.until(lambda: not Path(f"/proc/{worker}").exists(), "its worker is gone")


async def test_attempts_are_counted_over_a_kill_and_a_stop(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", FAILING, environment={"LEDGER": str(ledger)})
        daemon.mapping("orders", plain(kafka_bootstrap, name), batch_size=10, maximum_retry_attempts=6)
        await daemon.start()
        await produce(kafka_bootstrap, name, [("a", number) for number in range(3)])
        await daemon.line("batch.failed", attempts=2)
        await daemon.kill()
        reached = max(line["attempts"] for line in daemon.events("batch.failed"))
        after = len(daemon.lines)
        await daemon.start()
        await daemon.line("retry_state.restored", after=after)
        failed = await daemon.line("batch.failed", after=after)
        assert failed["attempts"] in (reached, reached + 1), "a kill forgets the attempt in flight at most"
        assert await daemon.terminate() == 0
        after = len(daemon.lines)
        await daemon.start()
        discarded = await daemon.line("batch.discarded", after=after)
        assert discarded["attempts"] == 7
        await await_committed(kafka_bootstrap, name, {0: 3})
        [failure] = await daemon.failures()
        assert (failure["attempts"], failure["reason"], failure["batch_size"]) == (7, "RetryAttemptsExhausted", 3)
        assert await daemon.terminate() == 0
    tries = ledger.read_text().splitlines()
    assert len(tries) in (7, 8), "a kill forgets the attempt in flight at most"
    assert len(set(tries)) == 1, "a batch keeps its request id"


async def test_a_replay_outlives_a_kill_and_never_runs_beside_itself(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger, fixed, hold = tmp_path / "ledger", tmp_path / "fixed", tmp_path / "hold"
    environment = {"LEDGER": str(ledger), "FIXED": str(fixed), "HOLD": str(hold)}
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", FIXABLE, timeout=60, environment=environment)
        daemon.mapping("orders", plain(kafka_bootstrap, name), batch_size=1, maximum_retry_attempts=0)
        await daemon.start()
        await produce(kafka_bootstrap, name, [("a", 1), ("a", 2)])
        await await_committed(kafka_bootstrap, name, {0: 2})
        fixed.touch()
        hold.touch()
        replays = asyncio.create_task(daemon.command("failures", "replay", "--all", "--json"))
        await daemon.until(ledger.exists, "a replay runs")
        second = await daemon.command("failures", "replay", "--all", "--status", "all", "--json")
        assert second.status == 1
        assert "being replayed already" in second.out
        await daemon.kill()
        interrupted = await replays
        assert interrupted.status == 3
        assert "daemon stopped" in interrupted.err
        after = len(daemon.lines)
        await daemon.start()
        hold.unlink()
        await daemon.until(
            lambda: len(daemon.events("failure.replayed", outcome="replayed")) == 2, "both replays have ended"
        )
        assert {failure["status"] for failure in await daemon.failures()} == {"replayed"}
        assert await daemon.terminate() == 0
        assert not [line for line in daemon.lines[after:] if line.get("event") == "batch.failed"]
    running: set[str] = set()
    for line in ledger.read_text().splitlines():
        event, process = line.split()
        # What was killed never ends; whoever comes next is another process.
        running = running - {process} if event == "ended" else {process}
    assert not running
    assert ledger.read_text().count("began") == 3
    assert ledger.read_text().count("ended") == 2
