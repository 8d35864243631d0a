"""Failure records of Kinesis streams and DynamoDB tables, replayed by the documented commands on real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import Daemon
from tests.live.queue_rig import REGION, Queue, Queues, add_mapping
from tests.live.rehydrate_rig import Rehydrating
from tests.live.stream_rig import Stream, Streams, Table, open_streams

NOTHING = {"replayed": 0, "failed_again": 0, "refused": 0, "settled": 0, "later": 0, "gone": 0}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rehydrating]:
    async with Daemon(tmp_path) as daemon:
        yield Rehydrating(daemon)


@pytest.fixture
async def tables(dynamodb_endpoint: str) -> AsyncIterator[Streams]:
    async with open_streams(dynamodb_endpoint) as made:
        yield made


def mapped(rig: Rehydrating, source: dict[str, Any], queue: Queue, **more: object) -> None:
    add_mapping(
        rig.daemon,
        "orders",
        source,
        starting_position="TRIM_HORIZON",
        batch_size=10,
        maximum_retry_attempts=0,
        bisect_batch_on_function_error=True,
        destination_config={"on_failure": place_of(queue)},
        **more,
    )


def place_of(queue: Queue) -> dict[str, Any]:
    return {"sqs": {"queue": queue.name, "endpoint_url": queue.queues.endpoint_url, "region": REGION}}


def source_of(made: Stream | Table) -> dict[str, Any]:
    where = {"endpoint_url": made.streams.endpoint_url, "region": REGION}
    if isinstance(made, Stream):
        return {"kinesis": {"stream": made.name, **where}}
    return {"dynamodb": {"table": made.name, **where}}


async def write(made: Stream | Table, *values: str) -> None:
    if isinstance(made, Stream):
        await made.put(*((value, value) for value in values))
        return
    for value in values:
        await made.put({"id": {"S": value}, "value": {"S": value}})


async def replayed_from_its_queue(
    rig: Rehydrating, made: Stream | Table, queue: Queue, consumer: str | None = None
) -> list[dict[str, Any]]:
    """Isolate a poison record, look at its failure record, mend the function, and replay; gives what the look told."""
    source = source_of(made)
    if consumer:
        source["kinesis"]["stream"] = consumer
    mapped(rig, source, queue)
    await write(made, "a", "b", "poison", "c")
    await rig.daemon.start()
    await queue.until((1, 0))
    await rig.daemon.until(lambda: sorted(rig.values()) == ["a", "b", "c"], "the others are done")
    status, shown, _, _ = await rig.replay(f"sqs:{queue.name}", "--dry-run")
    assert status == 0
    await rig.mend()
    status, [end], summary, _ = await rig.replay(f"sqs:{queue.name}")
    assert (status, summary) == (0, {**NOTHING, "replayed": 1})
    assert (end["mapping"], end["reason"]) == ("orders", None)
    assert rig.values() == ["poison"]
    await queue.until((0, 0))
    return shown


async def test_a_poison_record_of_a_stream_comes_back_by_its_sequence_number(
    rig: Rehydrating, streams: Streams, queues: Queues
) -> None:
    [shown] = await replayed_from_its_queue(rig, await streams.make(), await queues.make())
    assert (shown["held"], shown["records"], shown["has_event"]) == (1, 1, False)
    assert shown["stream"].startswith("arn:aws:kinesis:")


async def test_a_poison_record_of_a_table_comes_back_by_its_sequence_number(
    rig: Rehydrating, tables: Streams, queues: Queues
) -> None:
    [shown] = await replayed_from_its_queue(rig, await tables.table(), await queues.make())
    assert (shown["held"], shown["records"], shown["has_event"]) == (1, 1, False)
    assert ":table/" in shown["stream"]


async def test_a_consumer_s_record_comes_back_from_its_stream(
    rig: Rehydrating, streams: Streams, queues: Queues
) -> None:
    stream, queue = await streams.make(), await queues.make()
    [shown] = await replayed_from_its_queue(rig, stream, queue, await stream.consumer())
    assert "/consumer/headrace-test:" in shown["stream"]


async def test_a_table_of_the_stand_in_too(rig: Rehydrating, streams: Streams, queues: Queues) -> None:
    await replayed_from_its_queue(rig, await streams.table(), await queues.make())


async def test_what_failed_in_a_shard_that_was_split_since_runs_again_beside_its_children(
    rig: Rehydrating, streams: Streams, queues: Queues
) -> None:
    stream, queue = await streams.make(), await queues.make()
    mapped(rig, source_of(stream), queue)
    await write(stream, "a", "poison")
    await rig.daemon.start()
    await queue.until((1, 0))
    kinesis = streams.kinesis
    await kinesis.split_shard(
        StreamName=stream.name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127)
    )
    await kinesis.get_waiter("stream_exists").wait(StreamName=stream.name, WaiterConfig={"Delay": 1})
    await write(stream, "b", "c", "d", "e")
    await rig.daemon.until(lambda: sorted(rig.values()) == ["a", "b", "c", "d", "e"], "the children are read")
    await rig.mend()
    status, [end], summary, _ = await rig.replay(f"sqs:{queue.name}", "--mapping", "orders")
    assert (status, summary, end["reason"]) == (0, {**NOTHING, "replayed": 1}, None)
    assert rig.values() == ["poison"]


async def test_what_is_not_there_is_named(rig: Rehydrating, streams: Streams, queues: Queues) -> None:
    stream, queue = await streams.make(), await queues.make()
    mapped(rig, source_of(stream), queue)
    [number] = await stream.put(("a", "a"))
    await rig.daemon.start()
    await rig.daemon.until(lambda: rig.values() == ["a"], "it is done")
    info = {
        "shardId": "shardId-000000000000",
        "startSequenceNumber": number,
        "endSequenceNumber": number,
        "batchSize": 1,
        "streamArn": await stream.arn(),
    }
    changes: list[dict[str, Any]] = [
        {},
        {"shardId": "shardId-000000000077"},
        {"streamArn": (await stream.arn()).replace("headrace", "another")},
        {"startSequenceNumber": "1", "endSequenceNumber": "2"},
        {"approximateArrivalOfFirstRecord": "2020-01-01T00:00:00.000Z"},
    ]
    lines = [json.dumps({"KinesisBatchInfo": {**info, **change}}) for change in changes]
    (rig.daemon.folder / "failed.jsonl").write_text("\n".join(lines))
    status, ends, summary, _ = await rig.replay("failed.jsonl")
    assert (status, summary["replayed"], summary["refused"]) == (1, 1, 4)
    reasons = [end["reason"] or "" for end in sorted(ends, key=lambda end: str(end["where"]))]
    for reason, said in zip(
        reasons, ("", "its records are gone", "no mapping reads", "are gone", "deleted and made again"), strict=True
    ):
        assert said in reason
    assert rig.values() == ["a", "a"]
