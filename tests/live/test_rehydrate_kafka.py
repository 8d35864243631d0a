"""Failure records of a Kafka mapping, as its destinations were given them, replayed by the documented commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from connectors.aws import s3_client
from router.replay.record_places import AT_ONCE
from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, await_committed, cluster, plain, produce
from tests.live.queue_rig import REGION, Queue, Queues
from tests.live.rehydrate_rig import Rehydrating

ISOLATING = {"batch_size": 10, "maximum_retry_attempts": 0, "bisect_batch_on_function_error": True}
NOTHING = {"replayed": 0, "failed_again": 0, "refused": 0, "settled": 0, "later": 0, "gone": 0}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rehydrating]:
    async with Daemon(tmp_path) as daemon:
        yield Rehydrating(daemon)


async def fail(rig: Rehydrating, bootstrap: str, name: str, place: dict[str, Any], values: list[str]) -> None:
    """Run a mapping over a topic with these values until all is settled."""
    rig.daemon.mapping("orders", plain(bootstrap, name), **ISOLATING, destination_config={"on_failure": place})
    await produce(bootstrap, name, [(None, value.encode()) for value in values], partition=0)
    await rig.daemon.start()
    await await_committed(bootstrap, name, {0: len(values)})


def place_of(queue: Queue) -> dict[str, Any]:
    return {"sqs": {"queue": queue.name, "endpoint_url": queue.queues.endpoint_url, "region": REGION}}


async def test_a_poison_record_comes_back_from_a_queue_by_its_offset(
    rig: Rehydrating, topic: MakeTopic, kafka_bootstrap: str, queues: Queues
) -> None:
    name, queue = await topic(), await queues.make()
    await fail(rig, kafka_bootstrap, name, place_of(queue), ["a", "b", "poison", "c"])
    await queue.until((1, 0))
    assert sorted(rig.values()) == ["a", "b", "c"]

    status, [shown], summary, _ = await rig.replay(f"sqs:{queue.name}", "--dry-run")
    assert (status, shown["mapping"], shown["ranges"]) == (0, "orders", [[f"{name}-0", "2", "2"]])
    assert (shown["held"], shown["records"], shown["has_event"]) == (1, 1, False)
    assert await queue.counts() == (1, 0)

    # It still fails: a new failure, whose parent the failure record is, and its own record in the queue, which this job
    # may come to see, as often as it likes, and leaves.
    status, ends, summary, _ = await rig.replay(f"sqs:{queue.name}")
    assert (status, {**summary, "later": 0}) == (1, {**NOTHING, "failed_again": 1})
    [end] = [each for each in ends if each["outcome"] != "later"]
    [again] = [each for each in await rig.daemon.failures("--status", "all") if each["parent"]]
    assert (again["id"], again["parent"]) == (end["new_failure"], end["id"])
    await queue.until((1, 0))

    await rig.mend()
    status, [end], summary, _ = await rig.replay(f"sqs:{queue.name}", "--mapping", "orders")
    assert (status, summary) == (0, {**NOTHING, "replayed": 1})
    assert rig.values() == ["poison"]
    await queue.until((0, 0))
    assert rig.daemon.events("records.replayed", place=f"sqs:{queue.name}", replayed=1)


async def test_objects_of_a_bucket_run_from_what_they_carry_though_the_topic_has_it_no_more(
    rig: Rehydrating, topic: MakeTopic, kafka_bootstrap: str, queues: Queues
) -> None:
    name = await topic()
    endpoint = {"endpoint_url": queues.endpoint_url, "region": REGION}
    async with s3_client(**endpoint) as s3:
        bucket = f"{name}-failures"
        await s3.create_bucket(Bucket=bucket)
        await s3.put_object(Bucket=bucket, Key="failed/notes.txt", Body=b"not a failure record")
        place = {"s3": {"bucket": bucket, "prefix": "failed/", **endpoint}}
        await fail(rig, kafka_bootstrap, name, place, ["a", "poison", "poison"])
        await rig.daemon.until(lambda: len(rig.daemon.events("failure.delivered")) == 2, "both are in the bucket")
        async with cluster(kafka_bootstrap) as admin:
            await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(3)})
        await rig.mend()
        status, ends, summary, _ = await rig.replay(f"s3://{bucket}/failed/")
        assert (status, summary) == (1, {**NOTHING, "replayed": 2, "refused": 1})
        assert rig.values() == ["poison", "poison"]
        assert [end["where"] for end in ends if end["outcome"] == "refused"] == ["failed/notes.txt"]

        # What is settled stays so while something is left: nothing runs twice.
        status, ends, summary, _ = await rig.replay(f"s3://{bucket}/failed/")
        assert (status, summary) == (1, {**NOTHING, "settled": 2, "refused": 1})
        assert rig.values() == ["poison", "poison"]
        status, _, _, err = await rig.replay(f"s3://{bucket}/elsewhere/")
        assert (status, err) == (
            1,
            f"headrace: there is no object in s3://{bucket}/elsewhere/; correct bucket or prefix\n",
        )
        keys = (await s3.list_objects_v2(Bucket=bucket))["Contents"]
        for each in keys:
            await s3.delete_object(Bucket=bucket, Key=each["Key"])
        await s3.delete_bucket(Bucket=bucket)


async def test_lines_of_a_file_are_read_again_and_what_is_gone_is_named(
    rig: Rehydrating, topic: MakeTopic, kafka_bootstrap: str
) -> None:
    name = await topic()
    file = rig.daemon.folder / "failed.jsonl"
    await fail(rig, kafka_bootstrap, name, {"file": {"path": str(file)}}, ["a", "poison", "b", "poison", "c"])
    await rig.daemon.until(lambda: len(rig.daemon.events("failure.delivered")) == 2, "both are in the file")
    first, second = map(json.loads, file.read_text().splitlines())
    for record in (first, second):
        record.pop("payload")
    # One range that begins with what is gone by then, and one that is gone wholly.
    second["KafkaBatchInfo"]["batchSize"] = 4
    offsets = second["KafkaBatchInfo"]["recordsInfo"][f"{name}-0"]
    offsets |= {"firstRecordOffset": "0", "lastRecordOffset": "3"}
    file.write_text("\n".join([json.dumps(first), "{", json.dumps(second)]) + "\n")
    async with cluster(kafka_bootstrap) as admin:
        await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(2)})
    await rig.mend()
    where = "failed.jsonl"
    status, ends, summary, _ = await rig.replay(where)
    told = {end["where"]: end for end in ends}
    assert (status, summary) == (1, {**NOTHING, "replayed": 1, "refused": 2, "gone": 3})
    assert "1 of 1 records" in told[f"{where}:1"]["reason"]
    assert "it is no JSON" in told[f"{where}:2"]["reason"]
    assert told[f"{where}:3"]["gone"] == 2
    assert told[f"{where}:3"]["reason"] == (
        f"2 of 4 records of {name}-0 from 0 to 3 are gone: the stream still holds only what begins at 2"
    )
    assert rig.values() == ["b", "poison"]


async def test_what_cannot_be_is_one_line(rig: Rehydrating, topic: MakeTopic, kafka_bootstrap: str) -> None:
    name = await topic()
    file = rig.daemon.folder / "failed.jsonl"
    await fail(rig, kafka_bootstrap, name, {"file": {"path": str(file)}}, ["poison"])
    await rig.daemon.line("failure.delivered")
    status, _, _, err = await rig.replay("nothing.jsonl")
    assert (status, err.startswith("headrace: --from: nothing.jsonl cannot be read: No such file")) == (2, True)
    status, _, _, err = await rig.replay("failed.jsonl", "--mapping", "nobody")
    assert (status, err) == (1, "headrace: there is no mapping 'nobody'; see `headrace status`\n")
    await rig.daemon.command("mapping", "pause", "orders")
    status, [end], _, _ = await rig.replay("failed.jsonl")
    assert (status, end["outcome"]) == (1, "refused")
    assert "`headrace mapping resume orders` first" in end["reason"]
    assert await rig.daemon.terminate() == 0
    status, _, _, err = await rig.replay("failed.jsonl")
    assert (status, "start it with `headrace run`" in err) == (3, True)


async def test_a_daemon_that_is_killed_goes_on_and_runs_nothing_twice_that_was_settled(
    rig: Rehydrating, topic: MakeTopic, kafka_bootstrap: str
) -> None:
    name = await topic()
    file = rig.daemon.folder / "failed.jsonl"
    poison = [f"poison{number}" for number in range(20)]
    await fail(rig, kafka_bootstrap, name, {"file": {"path": str(file)}}, poison)
    await rig.daemon.until(lambda: len(rig.daemon.events("failure.delivered")) == 20, "all are in the file")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(f"{json.dumps({**each, 'payload': None})}\n" for each in records))
    await rig.mend()
    watching = asyncio.create_task(rig.replay("failed.jsonl", "--rate", "5"))
    await rig.daemon.line("failure.replayed")
    await rig.daemon.kill()
    status, _, _, err = await watching
    assert (status, "start it and replay again: it goes on from there" in err) == (3, True)
    done = {line["failure"] for line in rig.daemon.events("failure.replayed")}
    assert 0 < len(done) < 20

    await rig.daemon.start()
    status, ends, summary, _ = await rig.replay("failed.jsonl")
    assert (status, summary["replayed"] + summary["settled"], summary["refused"]) == (0, 20, 0)
    assert done <= {end["id"] for end in ends if end["outcome"] == "settled"}
    assert set(rig.values()) == set(poison)
    # Only what was with the function, or just done, when it was killed may have run twice.
    assert len(rig.values()) <= 20 + AT_ONCE
    status, ends, summary, _ = await rig.replay("failed.jsonl")
    assert (status, summary) == (0, {**NOTHING, "settled": 20})
