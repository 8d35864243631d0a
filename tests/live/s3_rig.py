"""Buckets, queues and topics of a real server, and what comes through them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aioboto3

from connectors.s3 import S3Source
from connectors.s3_codec import S3Row
from connectors.settings import S3Settings, SqsSettings
from router.core.model import Chunk

#: Longest time until a notification is there.
PATIENCE_S = 30.0
REGION = "us-east-1"
CREATED = "s3:ObjectCreated:*"
REMOVED = "s3:ObjectRemoved:*"


class S3Rig:
    """Makes what a test needs under names of its own, and removes it."""

    def __init__(self, endpoint_url: str, s3: Any, sqs: Any, sns: Any) -> None:
        self.endpoint_url = endpoint_url
        self.s3 = s3
        self.sqs = sqs
        self.sns = sns
        self.buckets: list[str] = []
        #: All that were given out, whatever was made under them.
        self.names: list[str] = []
        self.topics: list[str] = []

    def name(self) -> str:
        self.names.append(f"headrace-test-{uuid.uuid4().hex[:12]}")
        return self.names[-1]

    async def bucket(self) -> str:
        name = self.name()
        await self.s3.create_bucket(Bucket=name)
        self.buckets.append(name)
        return name

    async def queue(self) -> tuple[str, str]:
        """Make a queue; give its name and ARN."""
        name = self.name()
        await self.sqs.create_queue(QueueName=name)
        return name, (await self.attributes(name))["QueueArn"]

    async def topic(self, queue_arn: str, *, raw: bool) -> str:
        """Make a topic that sends to a queue; give its ARN."""
        arn: str = (await self.sns.create_topic(Name=self.name()))["TopicArn"]
        self.topics.append(arn)
        attributes = {"RawMessageDelivery": json.dumps(raw)}
        await self.sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn, Attributes=attributes)
        return arn

    async def remove_queue(self, name: str) -> None:
        for url in (await self.sqs.list_queues(QueueNamePrefix=name)).get("QueueUrls", ()):
            await self.sqs.delete_queue(QueueUrl=url)

    async def url(self, queue: str) -> str:
        return str((await self.sqs.get_queue_url(QueueName=queue))["QueueUrl"])

    async def attributes(self, queue: str) -> dict[str, str]:
        url = await self.url(queue)
        attributes: dict[str, str] = (await self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))[
            "Attributes"
        ]
        return attributes

    async def notify(self, bucket: str, **configuration: Sequence[dict[str, Any]]) -> None:
        await self.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)

    async def rules(self, bucket: str) -> dict[str, Any]:
        answer = await self.s3.get_bucket_notification_configuration(Bucket=bucket)
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}

    def settings(self, bucket: str, queue: str, *events: str, prefix: str = "", suffix: str = "") -> S3Settings:
        carrier = SqsSettings("uploads", queue, self.endpoint_url, REGION, windowed=False)
        return S3Settings(carrier, bucket, events or (CREATED,), prefix, suffix, by_sequencer=False)

    @asynccontextmanager
    async def source(self, settings: S3Settings) -> AsyncIterator[S3Source]:
        source = S3Source(settings)
        await source.open()
        try:
            yield source
        finally:
            await source.close()

    async def close(self) -> None:
        for name in self.names:
            await self.remove_queue(name)
        for topic in self.topics:
            await self.sns.delete_topic(TopicArn=topic)
        for bucket in self.buckets:
            for thing in (await self.s3.list_objects_v2(Bucket=bucket)).get("Contents", ()):
                await self.s3.delete_object(Bucket=bucket, Key=thing["Key"])
            await self.s3.delete_bucket(Bucket=bucket)


@asynccontextmanager
async def open_rig(endpoint_url: str) -> AsyncIterator[S3Rig]:
    session = aioboto3.Session()
    async with AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(session.client(name, endpoint_url=endpoint_url, region_name=REGION))
            for name in ("s3", "sqs", "sns")
        ]
        rig = S3Rig(endpoint_url, *clients)
        opened.push_async_callback(rig.close)
        yield rig


async def receive(source: S3Source, messages: int) -> list[Chunk]:
    """Receive so many messages, and delete them."""
    chunks: list[Chunk] = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(len(chunk.rows) for chunk in chunks) < messages:
            chunk = await source.receive(10, 5)
            if chunk.rows:
                chunks.append(chunk)
                assert await source.delete(chunk.rows) == {}
    return chunks


def kept_rows(chunks: Sequence[Chunk]) -> list[S3Row]:
    return [
        chunk.rows[index]
        for chunk in chunks
        for index in (range(len(chunk.rows)) if chunk.kept is None else chunk.kept)
        if index not in chunk.unfit
    ]


def records(source: S3Source, chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    """Give the records that the function would be given, whatever order the queue had them in."""
    event = json.loads(source.codec.event(kept_rows(chunks)))
    found: list[dict[str, Any]] = sorted(event["Records"], key=lambda each: (each["eventTime"], each["eventName"]))
    return found
