"""The source of a table's streams against the suite: on a fake endpoint whose shards roll, and on DynamoDB Local."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.aws import service_client
from connectors.dynamodb import DynamoDbSource
from connectors.settings import DynamoDbSettings
from router.core.facts import Demand
from router.core.model import TRIM_HORIZON
from router.ports import ShardSource
from tests.conformance.shard_source import LIMIT, Bench, Features, ShardSourceConformance
from tests.fakes.dynamodb_server import FakeDynamoDb, serving

REGION = "eu-west-1"
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


def written(data: bytes | None) -> bytes | None:
    return base64.b64decode(json.loads(data or b"")["NewImage"]["value"]["B"])


class FakeBench:
    """Two shards; the values are what is in the items' images."""

    #: A table made again is told from the former one by its shards, and time is in whole seconds: test_dynamodb_source.
    features = Features(merges=False, recreates=False, times_ms=None, resolution_ms=1000, shard_in_event=False)

    def __init__(self, service: FakeDynamoDb, url: str) -> None:
        self._service = service
        self._url = url
        service.create_table("orders")
        service.enable("orders", shards=2)

    def source(self) -> ShardSource:
        return DynamoDbSource(DynamoDbSettings("orders", "orders", self._url, REGION))

    async def append(self, shard: str, *values: bytes) -> list[int]:
        images = [{"NewImage": {"value": {"B": base64.b64encode(value).decode()}}} for value in values]
        return [
            self._service.append(shard, {"pk": {"S": f"é-{number}"}}, dynamodb=image)
            for number, image in enumerate(images)
        ]

    def value(self, data: bytes | None) -> bytes | None:
        return written(data)

    async def split(self, shard: str) -> tuple[str, str]:
        one, two = self._service.roll(shard, 2)
        return one, two

    async def merge(self, one: str, two: str) -> str:
        raise NotImplementedError

    async def trim(self, shard: str, before: int) -> None:
        self._service.trim(shard, before)

    async def recreate(self) -> None:
        raise NotImplementedError


class TestDynamoDbSource(ShardSourceConformance):
    @pytest.fixture
    async def bench(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        service = FakeDynamoDb()
        async with serving(service) as server:
            yield FakeBench(service, server.url)


class LocalBench:
    """One shard; times are in whole minutes."""

    features = Features(
        splits=False,
        merges=False,
        trims=False,
        recreates=False,
        times_ms=None,
        resolution_ms=60_000,
        shard_in_event=False,
    )

    def __init__(self, endpoint: str, client: Any, table: str) -> None:
        self._endpoint = endpoint
        self._client = client
        self._table = table

    def source(self) -> ShardSource:
        return DynamoDbSource(DynamoDbSettings("orders", self._table, self._endpoint, REGION))

    async def append(self, shard: str, *values: bytes) -> list[int]:
        for number, value in enumerate(values):
            # A write that changes nothing makes no record: the second attribute differs in each.
            item = {"pk": {"S": f"é-{number}"}, "value": {"B": value}, "once": {"S": uuid.uuid4().hex}}
            await self._client.put_item(TableName=self._table, Item=item)
        source = self.source()
        try:
            await source.open()
            [page] = await source.read(shard, {shard: Demand(TRIM_HORIZON, LIMIT)})
        finally:
            await source.close()
        return list(page.positions[-len(values) :])

    def value(self, data: bytes | None) -> bytes | None:
        return written(data)

    async def split(self, shard: str) -> tuple[str, str]:
        raise NotImplementedError

    async def merge(self, one: str, two: str) -> str:
        raise NotImplementedError

    async def trim(self, shard: str, before: int) -> None:
        raise NotImplementedError

    async def recreate(self) -> None:
        raise NotImplementedError


class TestDynamoDbLocal(ShardSourceConformance):
    @pytest.fixture
    async def bench(self, dynamodb_endpoint: str) -> AsyncIterator[Bench]:
        table = f"headrace-test-{uuid.uuid4().hex[:12]}"
        async with service_client("dynamodb", dynamodb_endpoint, REGION) as client:
            await client.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
                StreamSpecification=STREAM,
            )
            yield LocalBench(dynamodb_endpoint, client, table)
            await client.delete_table(TableName=table)
