"""Targets of asynchronous events on a stand-in of AWS: what arrives at each, whole and too large, or is refused."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from connectors import EVENT_TARGETS, load
from connectors.aws import s3_client, service_client, sns_client, sqs_client
from connectors.settings import AwsSettings
from router.asynchronous.record import dead_letter_message, destination_message
from router.core.asynchronous import AsyncEvent, Condition, LastAnswer, Settled
from router.errors import DestinationUnavailable
from router.event_ports import EventTarget, TargetMessage
from router.ports import Sent
from tests.fakes.function_server import function_server, refusal
from tests.fakes.http_server import http_server, say

VECTORS = Path(__file__).parents[1] / "vectors" / "destinations"
ARRIVAL_S = 20
REGION = "us-east-1"
ACCOUNT = "000000000000"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:worker"
REQUEST = "c0ffee00-1111-4222-8333-444455556666"
AT_S = datetime.fromisoformat("2026-01-01T00:03:00.500Z").timestamp()
EVENT = b'{"order": 17}'
ERROR = b'{"errorMessage": "boom", "errorType": "ValueError", "requestId": "r", "stackTrace": []}'
#: More than a topic takes of any one message, 256 KiB.
LARGE = json.dumps({"order": 17, "note": "x" * 300_000}).encode()


def settled(error: str = "boom") -> Settled:
    last = LastAnswer(200, "$LATEST", "Unhandled", ERROR, error)
    event = AsyncEvent(REQUEST, "worker", None, 0.0, 0.0, len(EVENT), tries=3, last=last)
    return Settled(event, Condition.RETRIES_EXHAUSTED, 3, AT_S)


def record(event: bytes = EVENT) -> TargetMessage:
    return destination_message(settled(), event, FUNCTION)


def letter(event: bytes = EVENT, error: str = "boom") -> TargetMessage:
    return dead_letter_message(settled(error), event, FUNCTION)


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


@asynccontextmanager
async def opened(target: str, endpoint: str) -> AsyncIterator[EventTarget]:
    made: EventTarget = load(EVENT_TARGETS[target.split(":")[2]])(target, AwsSettings(endpoint, REGION))
    assert made.name == target
    try:
        yield made
    finally:
        await made.close()


class Queue:
    """A queue of a test, whose messages can be taken."""

    def __init__(self, client: Any, name: str, url: str) -> None:
        self.client, self.name, self.url = client, name, url
        self.arn = arn("sqs", name)

    async def take(self) -> dict[str, Any]:
        async with asyncio.timeout(ARRIVAL_S):
            while True:
                answer = await self.client.receive_message(
                    QueueUrl=self.url, MessageAttributeNames=["All"], WaitTimeSeconds=1
                )
                for message in answer.get("Messages", ()):
                    await self.client.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                    return dict(message)


@pytest.fixture
async def queue(aws_endpoint: str) -> AsyncIterator[Queue]:
    name = f"headrace-test-{uuid.uuid4().hex[:12]}"
    async with sqs_client(aws_endpoint, REGION) as client:
        url = (await client.create_queue(QueueName=name))["QueueUrl"]
        yield Queue(client, name, url)
        await client.delete_queue(QueueUrl=url)


@pytest.fixture
async def topic(aws_endpoint: str, queue: Queue) -> AsyncIterator[str]:
    """A topic whose messages go to the queue."""
    async with sns_client(aws_endpoint, REGION) as client:
        made = (await client.create_topic(Name=queue.name))["TopicArn"]
        await client.subscribe(
            TopicArn=made, Protocol="sqs", Endpoint=queue.arn, Attributes={"RawMessageDelivery": "true"}
        )
        yield made
        await client.delete_topic(TopicArn=made)


@pytest.fixture
async def bus(aws_endpoint: str, queue: Queue) -> AsyncIterator[str]:
    """An event bus that sends what comes from functions to the queue."""
    async with service_client("events", aws_endpoint, REGION) as client:
        made = (await client.create_event_bus(Name=queue.name))["EventBusArn"]
        named = {"EventBusName": queue.name}
        await client.put_rule(Name="all", EventPattern='{"source": ["lambda"]}', **named)
        await client.put_targets(Rule="all", Targets=[{"Id": "queue", "Arn": queue.arn}], **named)
        yield made
        await client.remove_targets(Rule="all", Ids=["queue"], **named)
        await client.delete_rule(Name="all", **named)
        await client.delete_event_bus(Name=queue.name)


async def test_a_queue_gets_the_record_as_its_message(aws_endpoint: str, queue: Queue) -> None:
    async with opened(queue.arn, aws_endpoint) as target:
        await target.check()
        assert await target.send(record()) is Sent.WHOLE
    message = await queue.take()
    assert message["Body"].encode() == record().body
    assert not message.get("MessageAttributes")


async def test_a_dead_letter_queue_gets_the_event_with_the_recorded_attributes(aws_endpoint: str, queue: Queue) -> None:
    recorded = json.loads((VECTORS / "async_dlq_sqs_message.json").read_text())
    async with opened(queue.arn, aws_endpoint) as target:
        await target.send(letter())
    message = await queue.take()
    assert message["Body"] == recorded["Body"]
    assert message["MessageAttributes"] == recorded["MessageAttributes"]


async def test_a_topic_gets_the_record_and_the_dead_letter(aws_endpoint: str, queue: Queue, topic: str) -> None:
    async with opened(topic, aws_endpoint) as target:
        await target.check()
        assert await target.send(record()) is Sent.WHOLE
        assert (await queue.take())["Body"].encode() == record().body
        await target.send(letter())
    message = await queue.take()
    assert message["Body"].encode() == EVENT
    assert message["MessageAttributes"]["ErrorCode"] == {"StringValue": "200", "DataType": "Number"}


async def test_what_is_too_large_for_a_queue_or_topic_goes_without_payloads(
    aws_endpoint: str, queue: Queue, topic: str
) -> None:
    await queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"MaximumMessageSize": "262144"})
    for place in (queue.arn, topic):
        async with opened(place, aws_endpoint) as target:
            assert await target.send(record(LARGE)) is Sent.WITHOUT_PAYLOADS
        assert (await queue.take())["Body"].encode() == record().small


async def test_a_dead_letter_that_is_too_large_is_kept_for_it_says_nothing_without_its_event(
    aws_endpoint: str, queue: Queue
) -> None:
    await queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"MaximumMessageSize": "262144"})
    async with opened(queue.arn, aws_endpoint) as target:
        with pytest.raises(DestinationUnavailable):
            await target.send(letter(LARGE))


async def test_characters_that_queues_refuse_arrive_as_json_writes_them(
    aws_endpoint: str, queue: Queue, topic: str
) -> None:
    event = '{"a": "\ufffe\uffff\U0001f600"}'.encode()
    for place in (queue.arn, topic):
        async with opened(place, aws_endpoint) as target:
            await target.send(letter(event, "bad\x00\x1b[31m news"))
        message = await queue.take()
        assert json.loads(message["Body"]) == json.loads(event)
        assert message["MessageAttributes"]["ErrorMessage"]["StringValue"] == "bad\ufffd\ufffd[31m news"


async def test_an_event_bus_gets_the_recorded_event(aws_endpoint: str, queue: Queue, bus: str) -> None:
    recorded = json.loads((VECTORS / "async_on_failure_eventbridge.json").read_text())
    async with opened(bus, aws_endpoint) as target:
        await target.check()
        assert await target.send(record()) is Sent.WHOLE
    event = json.loads((await queue.take())["Body"])
    assert sorted(event) == sorted(recorded)
    assert event["detail"] == json.loads(record().body)
    for member in ("version", "detail-type", "source", "time"):
        assert event[member] == recorded[member]
    assert event["resources"] == [bus, f"{FUNCTION}:$LATEST"]


async def test_a_bucket_gets_an_object_and_the_same_one_again(aws_endpoint: str) -> None:
    bucket = f"headrace-test-{uuid.uuid4().hex[:12]}"
    async with s3_client(aws_endpoint, REGION) as client:
        await client.create_bucket(Bucket=bucket)
        async with opened(f"arn:aws:s3:::{bucket}", aws_endpoint) as target:
            await target.check()
            for _ in range(2):
                assert await target.send(record()) is Sent.WHOLE
        [listed] = (await client.list_objects_v2(Bucket=bucket))["Contents"]
        assert listed["Key"] == f"aws/lambda/async/worker/2026/01/01/2026-01-01T00.03.00-{REQUEST}"
        found = await client.get_object(Bucket=bucket, Key=listed["Key"])
        assert found["ContentType"] == "application/octet-stream"
        assert await found["Body"].read() == record().body
        await client.delete_object(Bucket=bucket, Key=listed["Key"])
        await client.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (arn("sqs", "no-such-queue"), "the queue does not exist there"),
        (arn("sns", "no-such-topic"), "the topic does not exist there"),
        ("arn:aws:s3:::headrace-no-such-bucket", "the bucket does not exist there"),
        (arn("events", "event-bus/no-such-bus"), "the event bus does not exist there"),
    ],
)
async def test_what_is_missing_is_named_and_nothing_is_taken_for_sent(aws_endpoint: str, place: str, says: str) -> None:
    async with opened(place, aws_endpoint) as target:
        with pytest.raises(DestinationUnavailable, match=says):
            await target.send(record())
        with pytest.raises(DestinationUnavailable, match=says):
            await target.check()


async def test_a_queue_of_the_same_name_in_another_account_is_another_queue(aws_endpoint: str, queue: Queue) -> None:
    parts = queue.arn.split(":")
    theirs = ":".join([*parts[:4], "111122223333", parts[5]])
    async with opened(theirs, aws_endpoint) as target:
        with pytest.raises(DestinationUnavailable, match="the queue does not exist there"):
            await target.send(record())


@pytest.mark.parametrize("place", [arn("sqs", "q.fifo"), arn("sns", "t.fifo")])
async def test_queues_and_topics_in_order_are_refused(place: str) -> None:
    async with opened(place, "http://127.0.0.1:9") as target:
        with pytest.raises(DestinationUnavailable, match="FIFO"):
            await target.send(record())
        with pytest.raises(DestinationUnavailable, match="FIFO"):
            await target.check()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")


@pytest.mark.usefixtures("keys")
async def test_a_function_elsewhere_is_invoked_as_with_an_event() -> None:
    async with function_server() as server, opened(f"{FUNCTION}:live", server.url) as target:
        assert await target.send(record()) is Sent.WHOLE
        [asked] = server.asked
    assert asked.body == record().body
    assert asked.headers["x-amz-invocation-type"] == "Event"
    assert asked.path == f"/2015-03-31/functions/{FUNCTION}/invocations"
    assert asked.query == {"Qualifier": "live"}


@pytest.mark.usefixtures("keys")
async def test_what_is_too_large_for_a_function_goes_without_payloads() -> None:
    too_large = say({"message": "no"}, 413, x_amzn_errortype="RequestEntityTooLargeException")
    taken = say(b"", 202, x_amzn_requestid="r")
    async with http_server(too_large, taken) as server, opened(FUNCTION, server.url) as target:
        assert await target.send(record(LARGE)) is Sent.WITHOUT_PAYLOADS
        assert server.requests[1].body == record().small


@pytest.mark.usefixtures("keys")
async def test_a_function_that_is_missing_is_named() -> None:
    async with function_server() as server, opened(FUNCTION, server.url) as target:
        server.instead = refusal(404, "ResourceNotFoundException")
        with pytest.raises(DestinationUnavailable, match="it does not exist there; deploy it"):
            await target.send(record())


@pytest.mark.usefixtures("keys")
async def test_an_event_that_a_bus_refuses_is_not_taken_for_sent() -> None:
    described = say({"Name": "b"})
    failed = say({"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "no"}]})
    async with http_server() as server, opened(arn("events", "event-bus/b"), server.url) as target:
        server.always = {"DescribeEventBus": described, "PutEvents": failed}
        with pytest.raises(DestinationUnavailable, match="InternalFailure"):
            await target.send(record())


@pytest.mark.usefixtures("keys")
async def test_what_is_too_large_for_a_bus_goes_without_payloads_and_looking_is_no_duty() -> None:
    def answer(request: Any) -> Any:
        if request.operation == "DescribeEventBus":
            return say({"__type": "AccessDeniedException", "message": "no"}, 400)
        if len(request.body) > len(LARGE):
            return say({"__type": "ValidationException", "message": "Total size of the entries is over the limit"}, 400)
        return say({"FailedEntryCount": 0, "Entries": [{"EventId": "e"}]})

    async with http_server() as server, opened(arn("events", "event-bus/b"), server.url) as target:
        server.handle = answer
        assert await target.send(record(LARGE)) is Sent.WITHOUT_PAYLOADS
        [sent] = server.requests[-1].json["Entries"]
        assert sent["Detail"].encode() == record().small
        assert await target.send(replace(record(), body=b"{}")) is Sent.WHOLE
