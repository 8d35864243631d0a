"""A daemon over streams of LocalStack: shards that split and merge, consumers, poison, crashes, streams made again."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.aggregates import aggregate
from tests.live.daemon import PATIENCE_S, Daemon, whole_lines
from tests.live.queue_rig import REGION
from tests.live.stream_rig import Stream, Streams

#: Notes each batch; a record that is poison fails it, unless the file `mended` is there.
NOTING = """
import base64, json, os, pathlib

HERE = pathlib.Path(os.environ["NOTES"])

def handle(event, context):
    for record in event["Records"]:
        if base64.b64decode(record["kinesis"]["data"]) == b"poison" and not (HERE / "mended").exists():
            raise ValueError("cannot read it")
    with (HERE / "batches").open("a") as notes:
        notes.write(json.dumps(event) + "\\n")
"""


class StreamDaemon(Daemon):
    """A daemon with one mapping, `clicks`, over a stream."""

    def __init__(self, folder: Path, streams: Streams, source: Mapping[str, Any], **mapping: Any) -> None:
        super().__init__(folder)
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.document["aws"] = {"endpoint_url": streams.endpoint_url, "region": REGION}
        self.function("clicks", NOTING, environment={"NOTES": str(self.notes)}, reserved_concurrency=4)
        self.document["event_source_mappings"]["clicks"] = {
            "function": "clicks",
            "source": {"kinesis": source},
            "starting_position": "TRIM_HORIZON",
            **mapping,
        }

    def records(self) -> Iterator[tuple[str, str]]:
        """Give partition key and data of each record that succeeded, in the order in which they did."""
        for line in whole_lines(self.notes / "batches"):
            for record in json.loads(line)["Records"]:
                kinesis = record["kinesis"]
                yield kinesis["partitionKey"], base64.b64decode(kinesis["data"]).decode()

    async def until_values(self, count: int) -> list[str]:
        """Wait for so many different records; gives each as it came first."""
        await self.until(lambda: len({data for _, data in self.records()}) >= count, f"{count} records")
        return list(dict.fromkeys(data for _, data in self.records()))


async def shards(stream: Stream) -> dict[str, Any]:
    listed = await stream.streams.kinesis.list_shards(StreamName=stream.name)
    return {each["ShardId"]: each for each in listed["Shards"]}


async def split(stream: Stream, shard: str) -> list[str]:
    """Split a shard in the middle; gives its children."""
    hashes = (await shards(stream))[shard]["HashKeyRange"]
    middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"])) // 2
    await stream.streams.kinesis.split_shard(StreamName=stream.name, ShardToSplit=shard, NewStartingHashKey=str(middle))
    return await children(stream, shard, 2)


async def merge(stream: Stream, one: str, two: str) -> str:
    await stream.streams.kinesis.merge_shards(StreamName=stream.name, ShardToMerge=one, AdjacentShardToMerge=two)
    return (await children(stream, one, 1))[0]


async def children(stream: Stream, parent: str, count: int) -> list[str]:
    """Wait until a shard has so many children and the stream takes the next change."""
    async with asyncio.timeout(PATIENCE_S):
        found: list[str] = []
        while len(found) < count:
            found = [name for name, each in (await shards(stream)).items() if each.get("ParentShardId") == parent]
    await stream.streams.kinesis.get_waiter("stream_exists").wait(StreamName=stream.name, WaiterConfig={"Delay": 1})
    return found


@pytest.mark.parametrize("by", ["stream", "consumer"])
async def test_keys_keep_their_order_through_splits_and_merges(streams: Streams, tmp_path: Path, by: str) -> None:
    stream = await streams.make(shards=2)
    name = stream.name if by == "stream" else await stream.consumer()
    numbers = iter(range(1000))

    async def put() -> None:
        await stream.put(*[(f"key-{number % 8}", f"{number}") for number in (next(numbers) for _ in range(16))])

    async with StreamDaemon(tmp_path, streams, {"stream": name}, batch_size=5, parallelization_factor=3) as daemon:
        await put()
        await daemon.start()
        await put()
        one, two = list(await shards(stream))
        _, right = await split(stream, one)
        await put()
        merged = await merge(stream, right, two)
        await put()
        await split(stream, merged)
        await put()
        values = await daemon.until_values(80)
        assert await daemon.terminate() == 0
    given = [int(data) for _, data in daemon.records()]
    assert sorted(given) == list(range(80))
    of_key = defaultdict(list)
    for number in map(int, values):
        of_key[number % 8].append(number)
    assert all(mine == sorted(mine) for mine in of_key.values())


async def test_a_crash_in_the_middle_of_a_split_loses_nothing(streams: Streams, tmp_path: Path) -> None:
    stream = await streams.make()
    async with StreamDaemon(tmp_path, streams, {"stream": stream.name}, batch_size=3) as daemon:
        await stream.put(*[(f"key-{number % 4}", f"{number}") for number in range(20)])
        await daemon.start()
        await daemon.until(lambda: list(daemon.records()), "a record")
        await split(stream, next(iter(await shards(stream))))
        await daemon.kill()
        await stream.put(*[(f"key-{number % 4}", f"{number}") for number in range(20, 40)])
        await daemon.start()
        values = [int(each) for each in await daemon.until_values(40)]
    for key in range(4):
        mine = [number for number in values if number % 4 == key]
        assert mine == sorted(mine)


async def test_what_is_retried_in_several_lanes_goes_on_when_there_is_one(streams: Streams, tmp_path: Path) -> None:
    stream = await streams.make()
    await stream.put(*[(f"key-{number % 8}", "poison" if number == 5 else f"{number}") for number in range(16)])
    async with StreamDaemon(
        tmp_path, streams, {"stream": stream.name}, batch_size=2, parallelization_factor=3
    ) as daemon:
        await daemon.start()
        await daemon.line("batch.failed")
        assert await daemon.terminate() == 0
        daemon.document["event_source_mappings"]["clicks"]["parallelization_factor"] = 1
        await daemon.start()
        await daemon.line("retry_state.restored")
        (daemon.notes / "mended").touch()
        await daemon.line("lanes.changed", former=3, lanes=1)
        await stream.put(*[(f"key-{number % 8}", f"{number}") for number in range(16, 24)])
        values = await daemon.until_values(24)
        assert not daemon.events("mapping.crashed")
    for key in range(8):
        mine = [5 if value == "poison" else int(value) for value in values]
        mine = [number for number in mine if number % 8 == key]
        assert mine == sorted(mine)


async def test_a_poison_record_is_isolated_stored_told_and_replayed(streams: Streams, tmp_path: Path) -> None:
    stream = await streams.make()
    told = tmp_path / "told.jsonl"
    numbers = await stream.put(*[("key", "poison" if number == 5 else f"{number}") for number in range(8)])
    async with StreamDaemon(
        tmp_path,
        streams,
        {"stream": stream.name},
        batch_size=8,
        maximum_batching_window_in_seconds=1,
        maximum_retry_attempts=1,
        bisect_batch_on_function_error=True,
        destination_config={"on_failure": {"file": {"path": str(told)}}},
    ) as daemon:
        await daemon.start()
        assert await daemon.until_values(7) == ["0", "1", "2", "3", "4", "6", "7"]
        await daemon.line("failure.delivered")
        # It is told before it is stored.
        [failure] = await daemon.until_failures(lambda found: found[0]["status"] == "delivered", "it is delivered")
        assert (failure["batch_size"], failure["attempts"]) == (1, 2)
        info = json.loads(told.read_text())["KinesisBatchInfo"]
        assert info["startSequenceNumber"] == info["endSequenceNumber"] == numbers[5]
        assert info["streamArn"] == await stream.arn()
        (daemon.notes / "mended").touch()
        done = await daemon.command("failures", "replay", failure["id"], "--yes", "--json")
        assert done.status == 0, done.err
        assert list(daemon.records())[-1] == ("key", "poison")


@pytest.mark.parametrize("source", ["stream", "deaggregated", "consumer"])
async def test_aggregates_come_as_on_aws_or_apart(streams: Streams, tmp_path: Path, source: str) -> None:
    stream = await streams.make()
    data = aggregate(("a", b"one"), ("b", b"two"))
    await streams.kinesis.put_record(StreamName=stream.name, PartitionKey="outer", Data=data)
    await stream.put(("c", "three"))
    settings: dict[str, Any] = {"stream": await stream.consumer() if source == "consumer" else stream.name}
    if source == "deaggregated":
        settings["deaggregate"] = True
    async with StreamDaemon(tmp_path, streams, settings) as daemon:
        await daemon.start()
        count = 2 if source == "stream" else 3
        file = daemon.notes / "batches"

        def given() -> list[dict[str, Any]]:
            return [record["kinesis"] for line in whole_lines(file) for record in json.loads(line)["Records"]]

        await daemon.until(lambda: len(given()) == count, f"{count} records")
        keys = [each["partitionKey"] for each in given()]
        assert keys == (["outer", "c"] if source == "stream" else ["a", "b", "c"])
        assert base64.b64decode(given()[0]["data"]) == (data if source == "stream" else b"one")
        assert len({each["sequenceNumber"] for each in given()}) == 2


async def test_a_stream_made_again_under_a_running_daemon_is_read_whole(streams: Streams, tmp_path: Path) -> None:
    stream = await streams.make()
    async with StreamDaemon(tmp_path, streams, {"stream": stream.name}) as daemon:
        await stream.put(("key", "old"))
        await daemon.start()
        await daemon.until_values(1)
        await streams.kinesis.delete_stream(StreamName=stream.name)
        await streams.kinesis.get_waiter("stream_not_exists").wait(StreamName=stream.name, WaiterConfig={"Delay": 1})
        await streams.kinesis.create_stream(StreamName=stream.name, ShardCount=1)
        await streams.kinesis.get_waiter("stream_exists").wait(StreamName=stream.name, WaiterConfig={"Delay": 1})
        await stream.put(("key", "new"))
        assert await daemon.until_values(2) == ["old", "new"]
