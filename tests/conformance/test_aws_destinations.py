"""SQS, SNS and S3 as destinations, against the suite, and what each alone must do."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.aws import s3_client, sns_client, sqs_client
from connectors.s3_destination import S3Sender
from connectors.settings import S3Destination, SnsDestination, SqsDestination
from connectors.sns_destination import SnsSender
from connectors.sqs_destination import SqsSender
from router.errors import DestinationUnavailable
from router.failures.record import mapping_uuid
from router.ports import Sent
from tests.conformance.destination import DestinationConformance, LimitConformance, Received, message
from tests.fakes.http_server import http_server, refuse, say

ARRIVAL_S = 20
REGION = "us-east-1"


def unique() -> str:
    return f"headrace-test-{uuid.uuid4().hex[:12]}"


async def take(client: Any, url: str, count: int) -> list[str]:
    """Take so many messages from a queue."""
    found: list[str] = []
    async with asyncio.timeout(ARRIVAL_S):
        while len(found) < count:
            answer = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for each in answer.get("Messages", ()):
                found.append(each["Body"])
                await client.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
    return found


# --- SQS


@dataclass
class SqsPlace:
    endpoint: str
    queue: str
    destination: SqsSender
    client: Any
    payload = "none"
    url = ""

    async def make(self) -> None:
        self.url = (await self.client.create_queue(QueueName=self.queue))["QueueUrl"]

    async def remove(self) -> None:
        await self.client.delete_queue(QueueUrl=self.url)

    async def limit(self, limit_bytes: int) -> None:
        attributes = {"MaximumMessageSize": str(limit_bytes)}
        await self.client.set_queue_attributes(QueueUrl=self.url, Attributes=attributes)

    async def received(self, count: int) -> Received:
        return [(None, json.loads(body)) for body in await take(self.client, self.url, count)]


def sqs(queue: str, endpoint: str | None, region: str | None = REGION) -> SqsSender:
    return SqsSender(SqsDestination(queue, endpoint, region))


class TestSqs(DestinationConformance, LimitConformance):
    @pytest.fixture
    async def place(self, aws_endpoint: str) -> AsyncIterator[SqsPlace]:
        queue = unique()
        async with sqs_client(aws_endpoint, REGION) as client:
            place = SqsPlace(aws_endpoint, queue, sqs(queue, aws_endpoint), client)
            yield place
            await place.destination.close()
            if place.url:
                await client.delete_queue(QueueUrl=place.url)

    async def test_a_queue_goes_by_name_url_or_arn(self, place: SqsPlace) -> None:
        await place.make()
        arn = f"arn:aws:sqs:us-east-1:000000000000:{place.queue}"
        for queue, region in ((place.queue, "us-east-1"), (place.url, "us-east-1"), (arn, None)):
            sender = sqs(queue, place.endpoint, region)
            await sender.check()
            await sender.send(message())
            await sender.close()
            assert sender.name == f"sqs:{place.queue}"
        assert len(await place.received(3)) == 3

    async def test_a_missing_queue_is_named(self, place: SqsPlace) -> None:
        with pytest.raises(DestinationUnavailable, match=f"SQS queue {place.queue}: the queue does not exist there"):
            await place.destination.send(message())


# --- SNS


@dataclass
class SnsPlace:
    endpoint: str
    topic: str
    destination: SnsSender
    sns: Any
    sqs: Any
    payload = "none"
    arn = ""
    url = ""

    async def make(self) -> None:
        self.arn = (await self.sns.create_topic(Name=self.topic))["TopicArn"]
        self.url = (await self.sqs.create_queue(QueueName=self.topic))["QueueUrl"]
        queue = f"arn:aws:sqs:{REGION}:000000000000:{self.topic}"
        await self.sns.subscribe(
            TopicArn=self.arn, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"}
        )

    async def remove(self) -> None:
        await self.sns.delete_topic(TopicArn=self.arn)
        await self.sqs.delete_queue(QueueUrl=self.url)

    async def limit(self, limit_bytes: int) -> None:
        assert limit_bytes < 262_144, "SNS has a limit of its own, and no other"

    async def received(self, count: int) -> Received:
        return [(None, json.loads(body)) for body in await take(self.sqs, self.url, count)]


def sns(topic: str, endpoint: str | None, region: str | None = REGION) -> SnsSender:
    return SnsSender(SnsDestination(topic, endpoint, region))


class TestSns(DestinationConformance, LimitConformance):
    @pytest.fixture
    async def place(self, aws_endpoint: str) -> AsyncIterator[SnsPlace]:
        name = unique()
        async with sns_client(aws_endpoint, REGION) as client, sqs_client(aws_endpoint, REGION) as queues:
            place = SnsPlace(aws_endpoint, name, sns(name, aws_endpoint), client, queues)
            yield place
            await place.destination.close()
            if place.arn:
                await place.remove()

    async def test_a_topic_goes_by_name_or_arn(self, place: SnsPlace) -> None:
        await place.make()
        for topic, region in ((place.topic, REGION), (place.arn, None)):
            sender = sns(topic, place.endpoint, region)
            await sender.check()
            await sender.send(message())
            await sender.close()
            assert sender.name == f"sns:{place.topic}"
        assert len(await place.received(2)) == 2

    async def test_a_missing_topic_is_named(self, place: SnsPlace) -> None:
        arn = f"arn:aws:sns:{REGION}:000000000000:{place.topic}"
        for topic in (place.topic, arn):
            sender = sns(topic, place.endpoint)
            with pytest.raises(DestinationUnavailable, match=f"SNS topic {topic}: .*create it"):
                await sender.send(message())
            await sender.close()


# --- S3


@dataclass
class S3Place:
    endpoint: str
    bucket: str
    destination: S3Sender
    client: Any
    payload = "escaped"

    async def make(self) -> None:
        await self.client.create_bucket(Bucket=self.bucket)

    async def remove(self) -> None:
        for key in await self.keys():
            await self.client.delete_object(Bucket=self.bucket, Key=key)
        await self.client.delete_bucket(Bucket=self.bucket)

    async def keys(self) -> list[str]:
        listed = await self.client.list_objects_v2(Bucket=self.bucket)
        return [each["Key"] for each in listed.get("Contents", ())]

    async def received(self, count: int) -> Received:
        keys = await self.keys()
        assert len(keys) == count
        found: Received = []
        for key in keys:
            answer = await self.client.get_object(Bucket=self.bucket, Key=key)
            assert answer["ContentType"] == "application/octet-stream"
            found.append((None, json.loads(await answer["Body"].read())))
        return found


def s3(bucket: str, endpoint: str | None, prefix: str = "") -> S3Sender:
    return S3Sender(S3Destination(bucket, prefix, endpoint, REGION))


class TestS3(DestinationConformance):
    @pytest.fixture
    async def place(self, aws_endpoint: str) -> AsyncIterator[S3Place]:
        bucket = unique()
        async with s3_client(aws_endpoint, REGION) as client:
            place = S3Place(aws_endpoint, bucket, s3(bucket, aws_endpoint), client)
            yield place
            await place.destination.close()
            if bucket in {each["Name"] for each in (await client.list_buckets())["Buckets"]}:
                await place.remove()

    async def test_keys_are_those_of_aws_behind_the_prefix_and_one_failure_is_one_object(self, place: S3Place) -> None:
        await place.make()
        sender = s3(place.bucket, place.endpoint, "failed/")
        for _ in range(2):
            await sender.send(message("f1"))
        await sender.send(message("f2"))
        await sender.close()
        assert sender.name == f"s3:{place.bucket}/failed"
        keys = await place.keys()
        assert len(keys) == 2
        beginning = f"failed/aws/lambda/{mapping_uuid('orders')}/orders-0/2026/01/01/2026-01-01T00.01.10-"
        for key in keys:
            assert key.startswith(beginning)
            assert str(uuid.UUID(key.removeprefix(beginning))) == key.removeprefix(beginning)

    async def test_a_missing_bucket_is_named(self, place: S3Place) -> None:
        with pytest.raises(DestinationUnavailable, match=f"S3 bucket {place.bucket}: the bucket does not exist there"):
            await place.destination.send(message())


# --- what they have in common


Sender = SqsSender | SnsSender | S3Sender
ARN = "arn:aws:sns:us-east-1:000000000000:dlq"


def senders(endpoint: str) -> list[Sender]:
    return [sqs(f"{endpoint}/000000000000/dlq", endpoint), sns(ARN, endpoint), s3("dlq", endpoint)]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")


@pytest.mark.usefixtures("keys")
async def test_an_endpoint_that_is_away_is_named() -> None:
    for sender in senders("http://127.0.0.1:9"):
        with pytest.raises(DestinationUnavailable, match="dlq: it cannot be reached; check endpoint_url"):
            await sender.check()
    for sender in senders("no url"):
        with pytest.raises(DestinationUnavailable, match="correct endpoint_url"):
            await sender.check()


@pytest.mark.usefixtures("keys")
async def test_an_endpoint_that_never_answers_is_given_up_and_named() -> None:
    async with http_server() as server:
        server.continues = False
        ends = await asyncio.gather(*(each.send(message()) for each in senders(server.url)), return_exceptions=True)
    assert [type(end) for end in ends] == [DestinationUnavailable] * 3
    assert all("it did not answer within" in str(end) for end in ends)


async def test_missing_credentials_and_region_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DestinationUnavailable, match="there are no credentials; set AWS_ACCESS_KEY_ID"):
        await sqs("dlq", "http://127.0.0.1:9").check()
    with pytest.raises(DestinationUnavailable, match=r"there is no region; set aws.region"):
        await sqs("dlq", None, None).check()


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("InvalidClientTokenId", "the credentials are not accepted"),
        ("SignatureDoesNotMatch", "the credentials are not accepted"),
        ("AccessDenied", "the credentials do not allow this"),
        ("Throttling", "it is throttled"),
        ("Strange", "Strange: it said no"),
    ],
)
@pytest.mark.usefixtures("keys")
async def test_a_refusal_of_the_service_is_named(code: str, meaning: str) -> None:
    as_xml = f"<Error><Code>{code}</Code><Message>it said no</Message></Error>".encode()
    answers = (
        refuse(400, code),
        say(b"<ErrorResponse>" + as_xml + b"</ErrorResponse>", 400),
        say(as_xml, 400),
    )
    async with http_server(*answers) as server:
        for sender in senders(server.url):
            with pytest.raises(DestinationUnavailable, match=meaning) as raised:
                await sender.send(message())
            assert "very-secret" not in str(raised.value)
        assert len(server.requests) == 3


@pytest.mark.usefixtures("keys")
async def test_what_a_bucket_finds_too_large_is_a_claim_check() -> None:
    refusal = say(b"<Error><Code>EntityTooLarge</Code><Message>no</Message></Error>", 400)
    async with http_server(refusal, say(b"")) as server:
        sender = s3("dlq", server.url)
        assert await sender.send(message()) is Sent.CLAIM_CHECK
        await sender.close()
        assert b"payload" in server.requests[0].body
        assert b"claimCheck" in server.requests[1].body
        assert server.requests[0].line == server.requests[1].line


@pytest.mark.usefixtures("keys")
async def test_where_not_even_a_pointer_fits_that_is_said() -> None:
    refusal = refuse(400, "InvalidParameterValue", "Message must be shorter than 10 bytes.")
    async with http_server(refusal, refusal) as server:
        sender = senders(server.url)[0]
        with pytest.raises(DestinationUnavailable, match=r"shorter than 10 bytes\., even for the pointer to a failure"):
            await sender.send(message())
        await sender.close()
