"""`headrace mapping seek` and `headrace checkpoints` on streams of Kinesis and of a table, as an operator uses them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.live.daemon import PATIENCE_S, Daemon
from tests.live.stream_rig import Stream, Streams

#: Notes the values it was given, in order, and the sequence numbers they came with.
NOTING = """
import base64, os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        for record in event["Records"]:
            if "kinesis" in record:
                part = record["kinesis"]
                value, number = base64.b64decode(part["data"]).decode(), part["sequenceNumber"]
            else:
                part = record["dynamodb"]
                value, number = part["NewImage"]["n"]["N"], part["SequenceNumber"]
            print(value, number, file=ledger)
"""


class Site:
    """A daemon that reads one stream."""

    def __init__(self, folder: Path, endpoint: str, source: dict[str, Any], **parameters: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.ledger = folder / "ledger"
        self.daemon = Daemon(folder, {"AWS_ENDPOINT_URL": endpoint})
        self.daemon.function("orders", NOTING, environment={"LEDGER": str(self.ledger)})
        self.daemon.document["event_source_mappings"]["orders"] = {
            "function": "orders",
            "source": source,
            "starting_position": "TRIM_HORIZON",
            "batch_size": 10,
            **parameters,
        }

    @property
    def seen(self) -> list[str]:
        return self._column(0)

    @property
    def numbers(self) -> list[str]:
        return self._column(1)

    def _column(self, number: int) -> list[str]:
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [line.split()[number] for line in lines]

    async def until(self, seen: list[str]) -> None:
        await self.daemon.until(lambda: self.seen == seen, f"the function was given {seen}, not {self.seen}")

    async def command(self, *arguments: str) -> Any:
        done = await self.daemon.command(*arguments, "--json")
        assert done.status == 0, done.err
        return done.json()

    async def drain(self) -> None:
        await self.command("mapping", "drain", "orders")

    async def resume(self) -> None:
        await self.command("mapping", "resume", "orders")

    async def seek(self, *arguments: str) -> Any:
        return await self.command("mapping", "seek", "orders", *arguments)


def texts(first: int, end: int) -> list[str]:
    return [str(number) for number in range(first, end)]


async def put(stream: Stream, first: int, end: int) -> None:
    await stream.put(*(("a", text) for text in texts(first, end)))


async def test_kinesis_back_and_forward(tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
    stream = await streams.make()
    site = Site(tmp_path, aws_endpoint, {"kinesis": {"stream": stream.name}})
    async with site.daemon as daemon:
        await put(stream, 0, 6)
        await daemon.start()
        await site.until(texts(0, 6))
        await site.drain()
        fourth = site.numbers[4]

        seen = await site.seek("--to", fourth)
        assert [(each["direction"], each["records"], each["is_exact"]) for each in seen["shards"]] == [
            ("back", 2, True)
        ]
        done = await site.seek("--to", fourth, "--apply", "--yes")
        assert (done["seen_again"], done["state"]) == (2, "paused")
        await site.resume()
        await site.until([*texts(0, 6), "4", "5"])

        await site.drain()
        await put(stream, 6, 10)
        # What came within the second that it is now is not left out.
        async with asyncio.timeout(PATIENCE_S):
            while (await site.seek("--to", "LATEST"))["skipped"] < 4:
                pass
        done = await site.seek("--to", "LATEST", "--apply", "--yes")
        assert done["skipped"] == 4
        await site.resume()
        await daemon.ready("orders")
        await put(stream, 10, 12)
        await site.until([*texts(0, 6), "4", "5", "10", "11"])

        done = await site.seek("--to", "TRIM_HORIZON", "--apply", "--yes")
        assert done["seen_again"] == 12
        await site.until([*texts(0, 6), "4", "5", "10", "11", *texts(0, 12)])
        wrong = await daemon.command("mapping", "seek", "orders", "--to", "7")
        assert (wrong.status, "has no record at 7" in wrong.err) == (1, True)


async def test_kinesis_across_a_split(tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
    stream = await streams.make()
    site = Site(tmp_path, aws_endpoint, {"kinesis": {"stream": stream.name}})
    async with site.daemon as daemon:
        await put(stream, 0, 5)
        await daemon.start()
        await site.until(texts(0, 5))
        await streams.kinesis.split_shard(
            StreamName=stream.name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 127)
        )
        await streams.kinesis.get_waiter("stream_exists").wait(StreamName=stream.name, WaiterConfig={"Delay": 1})
        await put(stream, 5, 8)
        await site.until(texts(0, 8))
        done = await site.seek("--to", "TRIM_HORIZON", "--apply", "--yes")
        assert len(done["shards"]) == 3
        await site.until([*texts(0, 8), *texts(0, 8)])
        await site.drain()
        done = await site.seek("--to", "LATEST", "--apply", "--yes")
        assert [each["finished"] for each in done["shards"]] == [True, False, False]
        await site.resume()
        await daemon.ready("orders")
        await put(stream, 8, 9)
        await site.until([*texts(0, 8), *texts(0, 8), "8"])


async def test_kinesis_of_a_registered_consumer(tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
    stream = await streams.make()
    site = Site(tmp_path, aws_endpoint, {"kinesis": {"stream": await stream.consumer()}})
    async with site.daemon as daemon:
        await put(stream, 0, 5)
        await daemon.start()
        await site.until(texts(0, 5))
        await site.drain()
        await site.resume()
        await daemon.ready("orders")
        done = await site.seek("--to", site.numbers[3], "--apply", "--yes")
        assert done["seen_again"] == 2
        await site.until([*texts(0, 5), "3", "4"])


async def test_kinesis_checkpoints_move_to_another_machine(tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
    stream, other = await streams.make(), await streams.make()
    source = {"kinesis": {"stream": stream.name}}
    old, new = Site(tmp_path / "old", aws_endpoint, source), Site(tmp_path / "new", aws_endpoint, source)
    elsewhere = Site(tmp_path / "elsewhere", aws_endpoint, {"kinesis": {"stream": other.name}})
    file = tmp_path / "orders.json"
    await put(stream, 0, 5)
    async with old.daemon as daemon:
        await daemon.start()
        await old.until(texts(0, 5))
        await old.drain()
        await old.command("checkpoints", "export", "-o", str(file))
        assert await daemon.terminate() == 0
        stopped = (await daemon.command("checkpoints", "export")).json()
    [mapping] = json.loads(file.read_text())["mappings"]
    assert [mapping] == stopped["mappings"]
    assert [each["position"] for each in mapping["shards"]] == [old.numbers[-1]]
    await put(stream, 5, 8)
    async with new.daemon as daemon, elsewhere.daemon as foreign:
        daemon.write()
        await new.command("checkpoints", "import", str(file), "--yes")
        await daemon.start()
        await new.until(texts(5, 8))
        foreign.write()
        wrong = await foreign.command("checkpoints", "import", str(file), "--yes")
        assert wrong.status == 2
        assert "positions of one mean nothing in the other" in wrong.err


async def test_the_stream_of_a_table(tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
    table = await streams.table()
    site = Site(tmp_path, aws_endpoint, {"dynamodb": {"table": table.name}})

    async def change(first: int, end: int) -> None:
        await table.put(*({"id": {"S": "a"}, "n": {"N": text}} for text in texts(first, end)))

    async with site.daemon as daemon:
        await change(0, 5)
        await daemon.start()
        await site.until(texts(0, 5))
        await site.drain()
        [shard] = (await site.seek("--to", "LATEST"))["shards"]
        done = await site.seek("--to", site.numbers[3], "--shard", shard["shard"], "--apply", "--yes")
        assert done["seen_again"] == 2
        await site.resume()
        await site.until([*texts(0, 5), "3", "4"])
        await site.drain()
        await change(5, 7)
        done = await site.seek("--to", site.numbers[0], "--shard", shard["shard"], "--apply", "--yes")
        assert done["seen_again"] == 5
        await site.resume()
        await site.until([*texts(0, 5), "3", "4", *texts(0, 7)])
        await site.drain()
        assert (await site.seek("--to", "1h"))["seen_again"] == 7
