"""The SQS source on a real server, alone: events, long polls, queues that come and go."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from connectors.aws import sqs_client
from connectors.settings import SqsSettings
from connectors.sqs import SqsSource
from connectors.sqs_check import check_sqs
from router.core.model import Chunk
from router.errors import SourceUnavailable

REGION = "us-east-1"
#: Longest that anything may take that should come at once.
PATIENCE_S = 30.0
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


class SqsRig:
    """Makes queues under names of their own, and removes them."""

    def __init__(self, endpoint_url: str, client: Any) -> None:
        self.endpoint_url = endpoint_url
        self.client = client
        self.urls: dict[str, str] = {}

    async def make(self, *, fifo: bool = False, name: str = "", **attributes: str) -> str:
        name = name or f"headrace-test-{uuid.uuid4().hex[:12]}{'.fifo' if fifo else ''}"
        if fifo:
            attributes |= {"FifoQueue": "true"}
        self.urls[name] = (await self.client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
        return name

    async def arn(self, queue: str) -> str:
        answer = await self.client.get_queue_attributes(QueueUrl=self.urls[queue], AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    async def send(self, queue: str, body: str = "a", **options: Any) -> str:
        sent = await self.client.send_message(QueueUrl=self.urls[queue], MessageBody=body, **options)
        return str(sent["MessageId"])

    async def remove(self, queue: str) -> None:
        await self.client.delete_queue(QueueUrl=self.urls.pop(queue))

    def settings(self, queue: str, *, windowed: bool = False) -> SqsSettings:
        return SqsSettings("orders", queue, self.endpoint_url, REGION, windowed)

    @asynccontextmanager
    async def opened(self, queue: str, *, windowed: bool = False, **options: Any) -> AsyncIterator[SqsSource]:
        source = SqsSource(self.settings(queue, windowed=windowed), **options)
        await source.open()
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield source
        finally:
            await source.close()


@pytest.fixture
async def rig(aws_endpoint: str) -> AsyncIterator[SqsRig]:
    async with sqs_client(aws_endpoint, REGION) as client:
        rig = SqsRig(aws_endpoint, client)
        yield rig
        for queue in list(rig.urls):
            await rig.remove(queue)


def records(source: SqsSource, rows: Sequence[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(source.codec.event(rows))["Records"]
    return found


async def receive(source: SqsSource) -> Chunk:
    while True:
        chunk = await source.receive(10, 20.0)
        if chunk.rows:
            return chunk


# --- events


async def test_an_event_has_the_recorded_shape(rig: SqsRig) -> None:
    queue = await rig.make()
    body = '{"größe":"99.50","quote":"\\""}'
    message_id = await rig.send(
        queue,
        body,
        MessageAttributes={
            "tenant": {"DataType": "String", "StringValue": "acme"},
            "weight": {"DataType": "Number.float", "StringValue": "12.5"},
            "blob": {"DataType": "Binary", "BinaryValue": b"\x00\x01\xfe"},
        },
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": TRACE}},
    )
    async with rig.opened(queue) as source:
        chunk = await receive(source)
    [record] = records(source, chunk.rows)
    lists: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    assert record == {
        "messageId": message_id,
        "receiptHandle": chunk.rows[0].receipt_handle,
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": str(chunk.times_ms[0]),
            "SenderId": record["attributes"]["SenderId"],
            "ApproximateFirstReceiveTimestamp": record["attributes"]["ApproximateFirstReceiveTimestamp"],
            "AWSTraceHeader": TRACE,
        },
        "messageAttributes": {
            "tenant": {"stringValue": "acme", **lists, "dataType": "String"},
            "weight": {"stringValue": "12.5", **lists, "dataType": "Number.float"},
            "blob": {"binaryValue": "AAH+", **lists, "dataType": "Binary"},
        },
        "md5OfMessageAttributes": record["md5OfMessageAttributes"],
        "md5OfBody": hashlib.md5(body.encode()).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:000000000000:{queue}",
        "awsRegion": REGION,
    }
    assert list(record) == [
        *("messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfMessageAttributes"),
        *("md5OfBody", "eventSource", "eventSourceARN", "awsRegion"),
    ]
    assert list(record["attributes"])[:2] == ["ApproximateReceiveCount", "SentTimestamp"]
    assert len(record["md5OfMessageAttributes"]) == 32
    assert source.codec.event(source.codec.parse(source.codec.event(chunk.rows)).rows) == source.codec.event(chunk.rows)


async def test_a_message_without_attributes_has_none(rig: SqsRig) -> None:
    queue = await rig.make(VisibilityTimeout="0")
    await rig.send(queue)
    for windowed in (False, True):
        async with rig.opened(queue, windowed=windowed) as source:
            [record] = records(source, (await receive(source)).rows)
        assert record["messageAttributes"] == {}
        assert record.get("md5OfMessageAttributes", "absent") == (None if windowed else "absent")


async def test_a_fifo_event_tells_sequence_group_and_deduplication(rig: SqsRig) -> None:
    queue = await rig.make(fifo=True)
    for number in range(2):
        await rig.send(queue, str(number), MessageGroupId="cart-9", MessageDeduplicationId=f"step-{number}")
    async with rig.opened(queue) as source:
        chunk = await receive(source)
        assert source.identity == f"arn:aws:sqs:{REGION}:000000000000:{queue}"
    assert chunk.keys == [b"cart-9", b"cart-9"]
    attributes = [record["attributes"] for record in records(source, chunk.rows)]
    assert [each["MessageGroupId"] for each in attributes] == ["cart-9"] * 2
    assert [each["MessageDeduplicationId"] for each in attributes] == ["step-0", "step-1"]
    assert attributes[0]["SequenceNumber"] < attributes[1]["SequenceNumber"]
    assert list(attributes[0])[4:] == ["SequenceNumber", "MessageGroupId", "MessageDeduplicationId"]


async def test_a_message_from_a_redrive_names_where_it_came_from(rig: SqsRig) -> None:
    dead = await rig.make()
    policy = json.dumps({"deadLetterTargetArn": await rig.arn(dead), "maxReceiveCount": 1})
    queue = await rig.make(VisibilityTimeout="0", RedrivePolicy=policy)
    await rig.send(queue)
    async with rig.opened(queue) as source, rig.opened(dead) as dead_source:
        await receive(source)
        assert not (await source.receive(10, 0.0)).rows
        [record] = records(dead_source, (await receive(dead_source)).rows)
    assert record["attributes"]["DeadLetterQueueSourceArn"] == await rig.arn(queue)
    assert record["eventSourceARN"] == await rig.arn(dead)


# --- names


async def test_a_queue_goes_by_name_url_or_arn(rig: SqsRig) -> None:
    queue = await rig.make()
    arn = await rig.arn(queue)
    for name in (queue, rig.urls[queue], arn):
        async with rig.opened(name) as source:
            assert (source.name, source.identity) == (queue, arn)
            sent = await rig.send(queue)
            chunk = await receive(source)
            assert [row.message_id for row in chunk.rows] == [sent]
            assert await source.delete(chunk.rows) == {}


async def test_the_url_of_a_stand_in_says_where_it_is(rig: SqsRig) -> None:
    queue = await rig.make()
    source = SqsSource(SqsSettings("orders", rig.urls[queue], None, REGION, windowed=False))
    await source.open()
    assert not (await source.receive(1, 0.0)).rows
    await source.close()


# --- polls


async def test_twelve_long_polls_do_not_hold_up_a_delete_and_share_what_comes(rig: SqsRig) -> None:
    queue = await rig.make()
    await rig.send(queue)
    async with rig.opened(queue) as source:
        first = await receive(source)
        polls = [asyncio.create_task(source.receive(10, 20.0)) for _ in range(12)]
        assert await source.extend(first.rows, 60) == {}
        began_s = asyncio.get_running_loop().time()
        assert await source.delete(first.rows) == {}
        assert asyncio.get_running_loop().time() - began_s < 10.0
        assert not any(poll.done() for poll in polls)
        sent = {await rig.send(queue, str(number)) for number in range(6)}
        given: set[str] = set()
        while given != sent:
            done, _ = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            for poll in done:
                polls.remove(poll)
                given |= {row.message_id for row in poll.result().rows}
        for poll in polls:
            poll.cancel()
        await asyncio.wait(polls)


async def test_what_cannot_be_deleted_or_extended_is_told_by_place(rig: SqsRig) -> None:
    queue = await rig.make(VisibilityTimeout="60")
    for number in range(3):
        await rig.send(queue, str(number))
    async with rig.opened(queue) as source:
        rows: list[Any] = []
        while len(rows) < 3:
            rows += (await receive(source)).rows
        assert await source.delete([rows[1]]) == {}
        # The lease of a message that is deleted cannot be changed.
        assert list(await source.extend(rows, 90)) == [1]
        stranger = msgspec.structs.replace(rows[2], receipt_handle="no handle")
        failed = await source.delete([rows[0], stranger])
        assert list(failed) == [1]
        assert "ReceiptHandleIsInvalid" in failed[1]


# --- queues that come and go


async def test_a_queue_that_is_deleted_under_a_poll_and_made_again_is_read_on(rig: SqsRig) -> None:
    queue = await rig.make(VisibilityTimeout="60")
    async with rig.opened(queue) as source:
        await rig.remove(queue)
        with pytest.raises(SourceUnavailable, match=f"SQS queue {queue}: the queue does not exist there; create it"):
            await source.receive(10, 20.0)
        with pytest.raises(SourceUnavailable, match="the queue does not exist there"):
            await source.receive(10, 20.0)
        await rig.make(name=queue, VisibilityTimeout="77")
        sent = await rig.send(queue)
        chunk = await receive(source)
        assert [row.message_id for row in chunk.rows] == [sent]
        # The new queue has settings of its own.
        assert source.lease_s == 77.0
        assert await source.delete(chunk.rows) == {}


async def test_a_visibility_timeout_that_changes_is_noticed(rig: SqsRig) -> None:
    queue = await rig.make(VisibilityTimeout="60")
    async with rig.opened(queue, look_s=0.0) as source:
        await rig.client.set_queue_attributes(QueueUrl=rig.urls[queue], Attributes={"VisibilityTimeout": "90"})
        await rig.send(queue)
        await source.receive(10, 0.0)
        assert source.lease_s == 90.0


# --- checking


async def test_a_check_takes_nothing_out_of_the_queue(rig: SqsRig) -> None:
    dead = await rig.make()
    policy = json.dumps({"deadLetterTargetArn": await rig.arn(dead), "maxReceiveCount": 4})
    queue = await rig.make(VisibilityTimeout="60", RedrivePolicy=policy)
    await rig.send(queue)
    assert await check_sqs(rig.settings(queue), 60.0) == (
        f"queue {queue}: messages waiting: about 1; visibility timeout 60 s; after 4 receives to {dead}"
    )
    with pytest.raises(SourceUnavailable, match="60 seconds is less than Function timeout: 61 seconds"):
        await check_sqs(rig.settings(queue), 61.0)
    async with rig.opened(queue) as source:
        [record] = records(source, (await receive(source)).rows)
    assert record["attributes"]["ApproximateReceiveCount"] == "1"


async def test_a_check_names_a_queue_that_is_not_there(rig: SqsRig) -> None:
    with pytest.raises(SourceUnavailable, match="SQS queue there-is-no-such-queue: the queue does not exist there"):
        await check_sqs(rig.settings("there-is-no-such-queue"), 3.0)
