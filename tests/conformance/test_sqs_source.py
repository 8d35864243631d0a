"""The SQS source against the suite, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.aws import sqs_client
from connectors.settings import SqsSettings
from connectors.sqs import SqsSource
from router.ports import QueueSource
from tests.conformance.queue_source import Counts, Features, QueueRig, QueueSourceConformance


class SqsRig:
    #: LocalStack deletes by any receipt that the message ever had.
    features = Features(stale_receipts=False)

    def __init__(self, endpoint: str, client: Any) -> None:
        self._endpoint = endpoint
        self._client = client
        self._urls: dict[str, str] = {}

    async def make(self, *, fifo: bool = False, lease_s: int = 30) -> str:
        name = f"headrace-test-{uuid.uuid4().hex[:12]}" + (".fifo" if fifo else "")
        attributes = {"VisibilityTimeout": str(lease_s)}
        if fifo:
            attributes |= {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        self._urls[name] = (await self._client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
        return name

    def source(self, queue: str) -> QueueSource:
        return SqsSource(SqsSettings("orders", queue, self._endpoint, "us-east-1", windowed=False))

    async def send(self, queue: str, *bodies: str, group: str | None = None) -> list[str]:
        options = {} if group is None else {"MessageGroupId": group}
        return [
            (await self._client.send_message(QueueUrl=self._urls[queue], MessageBody=body, **options))["MessageId"]
            for body in bodies
        ]

    async def counts(self, queue: str) -> Counts:
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        answer = await self._client.get_queue_attributes(QueueUrl=self._urls[queue], AttributeNames=names)
        visible, in_flight = (int(answer["Attributes"][name]) for name in names)
        return Counts(visible, in_flight)

    async def remove(self, queue: str) -> None:
        await self._client.delete_queue(QueueUrl=self._urls.pop(queue))

    async def clear(self) -> None:
        for queue in list(self._urls):
            await self.remove(queue)


class TestSqsSource(QueueSourceConformance):
    @pytest.fixture
    async def rig(self, aws_endpoint: str) -> AsyncIterator[QueueRig]:
        async with sqs_client(aws_endpoint, "us-east-1") as client:
            rig = SqsRig(aws_endpoint, client)
            yield rig
            await rig.clear()
