"""Draining and handing over when things are not as they should be."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from bench.ledger import HANDLER
from bench.ledger_judge import Place, Produced, judge, read
from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, await_committed, cluster, committed, plain, produce
from tests.live.kafka_proxy import KafkaProxy

#: Begins, and ends when there is no file HOLD.
WAITING = """
import os, time
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        print(sum(map(len, event["records"].values())), file=ledger)
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.02)
"""

#: Reports every second record of the first 1000 as failed, until there is a file FIXED.
HALF = """
import os
def handle(event, context):
    records = [record for records in event["records"].values() for record in records]
    with open(os.environ["LEDGER"], "a") as ledger:
        print(*(record["offset"] for record in records), file=ledger)
    if os.path.exists(os.environ["FIXED"]):
        return None
    return {"batchItemFailures": [
        {"itemIdentifier": {"partition": f"{record['topic']}-{record['partition']}", "offset": record["offset"]}}
        for record in records if record["offset"] % 2
    ]}
"""


async def test_what_does_not_end_is_cut_off_and_comes_again(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger, hold = tmp_path / "ledger", tmp_path / "hold"
    hold.touch()
    async with Daemon(tmp_path) as daemon:
        daemon.document["drain_timeout"] = "1s"
        daemon.function("orders", WAITING, timeout=600, environment={"LEDGER": str(ledger), "HOLD": str(hold)})
        daemon.mapping("orders", plain(kafka_bootstrap, name), maximum_retry_attempts=0)
        await produce(kafka_bootstrap, name, [("a", 1)])
        await daemon.start()
        await daemon.until(ledger.exists, "the handler runs")
        began_s = time.monotonic()
        assert await daemon.terminate() == 0
        assert time.monotonic() - began_s < 20, "it would have been 30 s by default"
        hold.unlink()
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 1})
        assert await daemon.failures() == [], "it spent no attempt"
        assert await daemon.terminate() == 0
    assert ledger.read_text().split() == ["1", "1"]


async def test_a_drain_without_a_broker_ends_in_bounded_time_and_loses_nothing(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger, hold = tmp_path / "ledger", tmp_path / "hold"
    hold.touch()
    proxy = KafkaProxy(kafka_bootstrap)
    await proxy.mend()
    async with Daemon(tmp_path) as daemon:
        daemon.document["drain_timeout"] = "1s"
        daemon.function("orders", WAITING, timeout=600, environment={"LEDGER": str(ledger), "HOLD": str(hold)})
        daemon.mapping("orders", plain(proxy.address, name))
        await produce(kafka_bootstrap, name, [("a", 1)])
        await daemon.start()
        await daemon.until(ledger.exists, "the handler runs")
        await proxy.cut()
        hold.unlink()
        await daemon.line("commit.failed")
        began_s = time.monotonic()
        assert await daemon.terminate() == 0
        assert time.monotonic() - began_s < 30
        assert len(daemon.events("library.warned")) < 30, "a reconnecting client does not fill the log"
        await proxy.mend()
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 1})
        assert await daemon.terminate() == 0
        await proxy.cut()


async def test_retry_state_that_is_too_large_for_the_broker_survives_a_kill(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger, fixed = tmp_path / "ledger", tmp_path / "fixed"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", HALF, timeout=60, environment={"LEDGER": str(ledger), "FIXED": str(fixed)})
        daemon.mapping(
            "orders",
            plain(kafka_bootstrap, name),
            batch_size=2000,
            maximum_batching_window_in_seconds=300,
            function_response_types=["ReportBatchItemFailures"],
        )
        await produce(kafka_bootstrap, name, [("a", number) for number in range(2000)])
        await daemon.start()
        await daemon.line("batch.failed", attempts=2)
        await daemon.kill()
        reached = max(line["attempts"] for line in daemon.events("batch.failed"))
        assert (await committed(kafka_bootstrap, name))[0][1].startswith("store:")
        after = len(daemon.lines)
        await daemon.start()
        await daemon.line("retry_state.restored", after=after)
        failed = await daemon.line("batch.failed", after=after)
        assert failed["attempts"] in (reached, reached + 1), "a kill forgets the attempt in flight at most"
        fixed.touch()
        await await_committed(kafka_bootstrap, name, {0: 2000})
        assert await daemon.terminate() == 0
    first, *others = [[int(each) for each in line.split()] for line in ledger.read_text().splitlines()]
    assert first == list(range(2000))
    assert all(each == list(range(1, 2000, 2)) for each in others)


async def test_two_daemons_hand_shards_over_without_loss_repeat_or_overlap(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(4)
    ledger = tmp_path / "ledger"
    produced: dict[Place, Produced] = {}
    stop = asyncio.Event()

    async def flow() -> None:
        number = 0
        async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
            while not stop.is_set():
                number += 1
                for key in (f"key-{each}" for each in range(12)):
                    value = json.dumps({"key": key, "n": number, "poison": False}).encode()
                    at = await (await producer.send(name, value, key=key.encode()))
                    produced[Place(at.partition, at.offset)] = Produced(key, number, poison=False)

    async with Daemon(tmp_path / "one") as one, Daemon(tmp_path / "two") as two, asyncio.TaskGroup() as tasks:
        for daemon in (one, two):
            daemon.function("orders", HANDLER, environment={"LEDGER": str(ledger), "PARTIAL": ""})
            # Who is paused for longer than its session loses its partitions, and repeats what it had not committed.
            kafka = {**plain(kafka_bootstrap, name), "session_timeout": "60s"}
            daemon.mapping("orders", kafka, batch_size=20, parallelization_factor=2)
        writing = tasks.create_task(flow())
        await one.start()
        await one.line("shard.opened")
        await two.start()
        await two.line("shard.opened")
        before = len(ledger.read_text())
        await one.until(lambda: len(ledger.read_text()) > before + 80_000, "records flow")
        after = len(one.lines)
        assert await two.terminate() == 0
        await one.line("shard.opened", after=after)
        stop.set()
        ends: dict[int, int] = {}
        await writing
        for place in produced:
            ends[place.partition] = max(ends.get(place.partition, 0), place.offset + 1)
        await await_committed(kafka_bootstrap, name, ends)
        assert await one.terminate() == 0
    with ledger.open() as lines:
        verdict = judge(produced, read(lines, []), set(), [], attempts_limit=1, commit_late_s=0)
    assert not verdict.violations
    assert verdict.finished == len(produced) > 500


async def test_a_topic_that_is_deleted_and_made_again(tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic) -> None:
    name = await topic(1)
    ledger, hold = tmp_path / "ledger", tmp_path / "hold"
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", WAITING, environment={"LEDGER": str(ledger), "HOLD": str(hold)})
        daemon.mapping("orders", plain(kafka_bootstrap, name), batch_size=1)
        await produce(kafka_bootstrap, name, [("a", 1), ("a", 2)])
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 2})
        async with cluster(kafka_bootstrap) as admin:
            await admin.delete_topics([name])
            await daemon.line("shard.released")
            await admin.create_topics([NewTopic(name, 1, 1)])
        await produce(kafka_bootstrap, name, [("a", 3)])
        await daemon.until(lambda: len(ledger.read_text().split()) == 3, "the record of the new topic is delivered")
        assert await daemon.terminate() == 0
