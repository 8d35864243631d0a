"""Several invocations of one worker at once, in the whole pipeline: only who takes a worker down pays for it."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, await_committed, plain, produce

OBEDIENT = """
import asyncio, base64, json, os, time

async def handle(event, context):
    [[record]] = event["records"].values()
    wish = json.loads(base64.b64decode(record["value"]))
    await asyncio.sleep(0.02)
    with open(os.environ["LEDGER"], "a") as ledger:
        print(wish, file=ledger)
    if wish == "exit":
        os._exit(3)
    if wish == "hang":
        await asyncio.sleep(600)
    if wish == "block":
        time.sleep(600)
"""
PARTITIONS = 4
RECORDS = 400
WISHES = {
    101: ("exit", "Runtime.ExitError", "exit status 3"),
    202: ("hang", "Sandbox.Timedout", "timed out after 5.00 seconds"),
    303: ("block", "Sandbox.Timedout", "timed out after 5.00 seconds"),
}


async def test_neighbours_of_what_crashes_hangs_or_blocks_spend_no_attempt(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(PARTITIONS)
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        limits = {"timeout": 5, "reserved_concurrency": 2, "concurrency_per_worker": 32}
        daemon.function("orders", OBEDIENT, environment={"LEDGER": str(ledger)}, **limits)
        daemon.mapping(
            "orders",
            plain(kafka_bootstrap, name),
            batch_size=1,
            parallelization_factor=10,
            maximum_retry_attempts=0,
        )
        wishes = {number: WISHES[number][0] if number in WISHES else f"fine-{number}" for number in range(RECORDS)}
        for partition in range(PARTITIONS):
            mine = [(f"key-{number}", wish) for number, wish in wishes.items() if number % PARTITIONS == partition]
            await produce(kafka_bootstrap, name, mine, partition=partition)
        await daemon.start()
        await await_committed(kafka_bootstrap, name, dict.fromkeys(range(PARTITIONS), RECORDS // PARTITIONS))
        failures = await daemon.failures()
        assert await daemon.terminate() == 0
    assert set(ledger.read_text().split()) == set(wishes.values())
    assert len(failures) == len(WISHES)
    for _, error_type, message in WISHES.values():
        told = [each for each in failures if each["error_type"] == error_type and message in each["error_message"]]
        assert told, message
        assert {each["attempts"] for each in told} == {1}
