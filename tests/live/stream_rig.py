"""Kinesis streams and tables of a real server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aioboto3

from tests.live.queue_rig import REGION


class Streams:
    """Makes streams and tables under names of their own, and removes them."""

    def __init__(self, endpoint_url: str, kinesis: Any, dynamodb: Any) -> None:
        self.endpoint_url = endpoint_url
        self.kinesis = kinesis
        self.dynamodb = dynamodb
        self._streams: list[str] = []
        self._tables: list[str] = []

    async def make(self, shards: int = 1) -> Stream:
        """Make a stream, and wait until it can be used."""
        name = _name()
        await self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self._streams.append(name)
        await self.kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
        return Stream(self, name)

    async def delete(self, name: str) -> None:
        """Delete a stream that was made here."""
        await self.kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
        self._streams.remove(name)

    async def table(self) -> Table:
        """Make a table whose items have an `id`, with a stream of new and old images."""
        name = _name()
        await self.dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        self._tables.append(name)
        await self.dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
        return Table(self, name)

    async def close(self) -> None:
        for name in self._streams:
            await self.kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
        for name in self._tables:
            await self.dynamodb.delete_table(TableName=name)


def _name() -> str:
    return f"headrace-test-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True, slots=True)
class Stream:
    """One Kinesis stream, beside whatever reads it."""

    streams: Streams
    name: str

    async def put(self, *records: tuple[str, object]) -> Sequence[str]:
        """Put records with their partition keys, one after the other, as JSON if they are no texts; gives numbers."""
        numbers = []
        for key, data in records:
            text = data if isinstance(data, str) else json.dumps(data)
            put = self.streams.kinesis.put_record(StreamName=self.name, PartitionKey=key, Data=text.encode())
            numbers.append((await put)["SequenceNumber"])
        return numbers

    async def arn(self) -> str:
        answer = await self.streams.kinesis.describe_stream_summary(StreamName=self.name)
        return str(answer["StreamDescriptionSummary"]["StreamARN"])

    async def consumer(self) -> str:
        """Register a consumer, and wait until it can be used; gives its ARN."""
        kinesis = self.streams.kinesis
        made = await kinesis.register_stream_consumer(StreamARN=await self.arn(), ConsumerName="headrace-test")
        arn = str(made["Consumer"]["ConsumerARN"])
        while True:
            found = await kinesis.describe_stream_consumer(ConsumerARN=arn)
            if found["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE":
                return arn
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Table:
    """One table with a stream, beside whatever reads it."""

    streams: Streams
    name: str

    async def put(self, *items: dict[str, dict[str, Any]]) -> None:
        """Put items of DynamoDB's types, one after the other."""
        for item in items:
            await self.streams.dynamodb.put_item(TableName=self.name, Item=item)


@asynccontextmanager
async def open_streams(endpoint_url: str) -> AsyncIterator[Streams]:
    session = aioboto3.Session()
    async with AsyncExitStack() as stack:
        kinesis, dynamodb = [
            await stack.enter_async_context(session.client(name, endpoint_url=endpoint_url, region_name=REGION))
            for name in ("kinesis", "dynamodb")
        ]
        streams = Streams(endpoint_url, kinesis, dynamodb)
        try:
            yield streams
        finally:
            await streams.close()
