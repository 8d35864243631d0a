"""Endpoints of streams that refuse, break off and change under `headrace run`, and a daemon that is killed.

All kinds of trouble, for as long as it takes, are in tests/sim/test_endpoint_faults.py; here is what an operator sees
of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.dynamodb_server import FakeDynamoDb, serving
from tests.fakes.http_server import Answer, HttpServer, refuse, send
from tests.fakes.kinesis_server import kinesis_server
from tests.fakes.shard_stream import ShardStream
from tests.live.daemon import PATIENCE_S, Daemon

#: Notes every value; waits where one says so, until it is killed.
NOTING = """
import base64, os, time
def handle(event, context):
    for record in event["Records"]:
        if "kinesis" in record:
            value = base64.b64decode(record["kinesis"]["data"]).decode()
        else:
            value = record["dynamodb"]["NewImage"]["value"]["S"]
        with open(os.environ["LEDGER"], "a") as ledger:
            print(value, file=ledger)
        if value == os.environ.get("STOP_AT"):
            time.sleep(60)
"""
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_REGION": "eu-west-1"}
HALF = send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b'{"Records":[{"Sequ')


class Stream:
    """A stream behind an endpoint, whatever its kind."""

    def __init__(
        self,
        http: HttpServer,
        source: Mapping[str, Any],
        put: Callable[[str], object],
        remake: Callable[[], object],
    ) -> None:
        self.source = {next(iter(source)): {**next(iter(source.values())), "endpoint_url": http.url}}
        self._put = put
        self.remake = remake
        self.written: list[str] = []
        #: Answers to all reads, in place of the service's.
        self.trouble: Answer | None = None
        serve = http.handle
        assert serve
        http.handle = lambda asked: (asked.operation == "GetRecords" and self.trouble) or serve(asked)

    def put(self, *values: str) -> None:
        for value in values:
            self.written.append(value)
            self._put(value)


@asynccontextmanager
async def kinesis() -> AsyncIterator[Stream]:
    stream = ShardStream(1)
    async with kinesis_server(stream) as server:

        def remake() -> None:
            stream.recreate(1)
            server.iterators.clear()

        yield Stream(
            server.http,
            {"kinesis": {"stream": server.name, "region": "eu-west-1"}},
            lambda value: stream.put(value.encode(), b"key"),
            remake,
        )


@asynccontextmanager
async def dynamodb() -> AsyncIterator[Stream]:
    service = FakeDynamoDb()
    service.create_table("orders")
    service.enable("orders")

    def put(value: str) -> None:
        stream = service.tables["orders"]
        assert stream
        image = {"NewImage": {"value": {"S": value}}}
        service.append([*stream.shards][-1], {"id": {"S": "key"}}, dynamodb=image)

    def remake() -> None:
        service.delete_table("orders")
        service.create_table("orders")
        service.enable("orders")

    async with serving(service) as http:
        yield Stream(http, {"dynamodb": {"table": "orders", "region": "eu-west-1"}}, put, remake)


@pytest.fixture(params=[kinesis, dynamodb], ids=["kinesis", "dynamodb"])
async def stream(request: pytest.FixtureRequest) -> AsyncIterator[Stream]:
    async with request.param() as made:
        yield made


class Reader(Daemon):
    """A daemon with the noting function and one mapping."""

    def __init__(self, folder: Path, stream: Stream) -> None:
        super().__init__(folder, KEYS)
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.stream = stream
        self.function("orders", NOTING, timeout=60, environment={"LEDGER": str(self.ledger), "STOP_AT": "stop"})
        self.document["event_source_mappings"]["orders"] = {
            "function": "orders",
            "source": stream.source,
            "starting_position": "TRIM_HORIZON",
            "batch_size": 10,
        }

    @property
    def values(self) -> list[str]:
        return self.ledger.read_text().split()

    async def all_seen(self) -> None:
        await self.until(lambda: set(self.values) >= set(self.stream.written), "all records are seen")

    async def why(self) -> str:
        """Give the sentence that `status` says of the mapping, once it does not move."""
        async with asyncio.timeout(PATIENCE_S):
            while (status := await self.status("orders"))["reason"] is None:
                pass
        assert status["state"] == "retrying"
        assert status["reason"]["code"] == "SourceUnavailable"
        return str(status["reason"]["message"])


async def test_what_an_endpoint_does_wrong_is_seen_and_passes(tmp_path: Path, stream: Stream) -> None:
    troubles = {
        "source.throttled": (refuse(400, "ProvisionedThroughputExceededException"), "it is throttled"),
        "source.failed": (HALF, "it closed the connection"),
    }
    async with Reader(tmp_path, stream) as daemon:
        stream.put("a", "b")
        await daemon.start()
        await daemon.all_seen()
        for number, (event, (trouble, reason)) in enumerate(troubles.items()):
            stream.trouble = trouble
            stream.put(f"{number}-1", f"{number}-2")
            line = await daemon.line(event, mapping="orders")
            assert reason in line["error"]
            assert reason in await daemon.why()
            stream.trouble = None
            await daemon.all_seen()
            assert (await daemon.status("orders"))["reason"] is None
        assert await daemon.terminate() == 0
        assert daemon.values == stream.written


async def test_a_daemon_that_is_killed_goes_on_behind_what_it_has_committed(tmp_path: Path, stream: Stream) -> None:
    async with Reader(tmp_path, stream) as daemon:
        stream.put("a", "b")
        await daemon.start()
        await daemon.all_seen()
        assert await daemon.terminate() == 0

        stream.put("c", "stop", "d")
        await daemon.start()
        await daemon.until(lambda: "stop" in daemon.values, "the function has begun with the batch")
        await daemon.kill()
        daemon.document["functions"]["orders"]["environment"]["STOP_AT"] = "never"
        await daemon.start()
        await daemon.all_seen()
        assert await daemon.terminate() == 0
        # What was in flight comes again, whole and in order; what was committed does not.
        assert daemon.values == ["a", "b", "c", "stop", "c", "stop", "d"]


async def test_a_stream_that_was_made_again_meanwhile_is_read_whole(tmp_path: Path, stream: Stream) -> None:
    async with Reader(tmp_path, stream) as daemon:
        stream.put("a", "b")
        await daemon.start()
        await daemon.all_seen()
        assert await daemon.terminate() == 0
        stream.remake()
        stream.put("c", "d")
        await daemon.start()
        if "kinesis" in stream.source:
            await daemon.line("stream.remade", mapping="orders")
        await daemon.all_seen()
        assert await daemon.terminate() == 0
        assert daemon.values == stream.written
