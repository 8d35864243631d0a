"""Functions that misbehave, in the whole pipeline: what spends attempts, what does not, and where it ends."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, await_committed, plain, produce

#: Does what the record says.
OBEDIENT = """
import base64, json, os, signal, time
def handle(event, context):
    for records in event["records"].values():
        for record in records:
            wish = json.loads(base64.b64decode(record["value"]))
            with open(os.environ["LEDGER"], "a") as ledger:
                print(wish, file=ledger)
            if wish == "hang":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            if wish == "exit":
                os._exit(3)
            if wish == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if wish == "raise":
                raise KeyError("total")
            if wish == "memory":
                hoard = bytearray(1 << 30)
                time.sleep(600)
            if wish == "large":
                return "x" * 7_000_000
            if wish == "nonsense":
                return {"batchItemFailures": [{"itemIdentifier": "nonsense"}]}
            if wish == "bytes":
                return b"no json"
"""

#: What a record wishes, and what is then stored about it: error type and part of its message.
WISHES = {
    "hang": ("Sandbox.Timedout", "timed out after 3.00 seconds"),
    "exit": ("Runtime.ExitError", "exit status 3"),
    "kill": ("Runtime.ExitError", "signal: killed"),
    "raise": ("KeyError", "total"),
    "memory": ("Runtime.ExitError", "memory limit exceeded"),
    "large": ("Function.ResponseSizeTooLarge", ""),
    "nonsense": ("Headrace.BadBatchResponse", "malformed"),
    "bytes": ("Runtime.MarshalError", ""),
}


async def test_every_way_to_fail_spends_its_attempts_and_is_stored_under_its_name(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", OBEDIENT, timeout=3, environment={"LEDGER": str(ledger)})
        daemon.mapping(
            "orders",
            plain(kafka_bootstrap, name),
            batch_size=1,
            maximum_retry_attempts=1,
            function_response_types=["ReportBatchItemFailures"],
        )
        await produce(kafka_bootstrap, name, [(None, "fine"), *((None, wish) for wish in WISHES), (None, "fine")])
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: len(WISHES) + 2})
        failures = await daemon.failures()
        assert await daemon.terminate() == 0
    assert Counter(ledger.read_text().split()) == {"fine": 2, **dict.fromkeys(WISHES, 2)}
    for failure, (wish, (error_type, message)) in zip(failures, WISHES.items(), strict=True):
        assert failure["attempts"] == 2, wish
        assert failure["error_type"] == error_type, wish
        assert message in failure["error_message"], wish


BROKEN = """
import os
with open(os.environ["LEDGER"], "a") as ledger:
    print("import", file=ledger)
raise RuntimeError("no table")
"""

MENDED = """
import os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        print("handled", file=ledger)
"""


async def test_a_function_that_cannot_start_spends_nothing_and_runs_once_it_can(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        file = daemon.function("orders", BROKEN, environment={"LEDGER": str(ledger)})
        daemon.mapping("orders", plain(kafka_bootstrap, name), maximum_retry_attempts=0)
        await produce(kafka_bootstrap, name, [("a", 1)])
        await daemon.start()
        refused = await daemon.line("batch.refused", mapping="orders", attempts=0)
        assert "no table" in refused["error_message"]
        await daemon.until(lambda: len(daemon.events("batch.refused")) >= 3, "it is tried again and again")
        status = await daemon.status("orders")
        assert "no table" in str(status["reason"])
        assert "FunctionUnavailable" in str(status["reason"])
        file.write_text(MENDED)
        await await_committed(kafka_bootstrap, name, {0: 1})
        assert await daemon.failures() == []
        assert await daemon.terminate() == 0
    lines = ledger.read_text().split()
    assert lines.count("handled") == 1
    assert lines.count("import") >= 3


SLOW = """
import os, time
def handle(event, context):
    with open(os.environ["LEDGER"], "a", buffering=1) as ledger:
        print("begin", file=ledger)
        time.sleep(0.2)
        print("end", file=ledger)
"""


async def test_what_ends_while_the_daemon_is_frozen_has_not_timed_out(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", SLOW, timeout="3s", environment={"LEDGER": str(ledger)})
        daemon.mapping("orders", plain(kafka_bootstrap, name), maximum_retry_attempts=0)
        await produce(kafka_bootstrap, name, [("a", 1)])
        await daemon.start()
        await daemon.until(ledger.exists, "it runs")
        daemon.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(4)  # the outage
        assert ledger.read_text() == "begin\nend\n"
        daemon.process.send_signal(signal.SIGCONT)
        await await_committed(kafka_bootstrap, name, {0: 1})
        assert await daemon.failures() == []
        assert daemon.events("batch.failed") == []
        assert await daemon.terminate() == 0
    assert ledger.read_text() == "begin\nend\n"
