"""The SQS source and its check, against a server that answers by script."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.settings import SqsSettings
from connectors.sqs import SqsSource
from connectors.sqs_check import check_sqs
from connectors.sqs_codec import SqsCodec
from connectors.sqs_queue import Place, place_of
from router.errors import SourceUnavailable
from tests.fakes.http_server import Answer, HttpServer, http_server, refuse, say, send, stall

ARN = "arn:aws:sqs:eu-west-1:111122223333:orders"
URL = "http://sqs.example/111122223333/orders"
CODEC = SqsCodec()
EVENT = json.dumps(
    {
        "Records": [
            {
                "messageId": "m-1",
                "receiptHandle": "r-1",
                "body": "a",
                "attributes": {},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": ARN,
                "awsRegion": "eu-west-1",
            }
        ]
    }
).encode()
ATTRIBUTES = {"QueueArn": ARN, "VisibilityTimeout": "45", "ApproximateNumberOfMessages": "7"}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "very-secret-too")


def settings(
    queue: str = "orders", endpoint_url: str | None = None, *, region: str | None = "eu-west-1", windowed: bool = False
) -> SqsSettings:
    return SqsSettings("m", queue, endpoint_url, region, windowed)


@asynccontextmanager
async def queue(**attributes: str) -> AsyncIterator[HttpServer]:
    """A server that has the queue, always empty."""
    async with http_server() as server:
        server.always |= {
            "GetQueueUrl": say({"QueueUrl": URL}),
            "GetQueueAttributes": say({"Attributes": {**ATTRIBUTES, **attributes}}),
            "ReceiveMessage": say({}),
        }
        yield server


@asynccontextmanager
async def opened(server: HttpServer, name: str = "orders", **options: Any) -> AsyncIterator[SqsSource]:
    source = SqsSource(settings(name, server.url), **options)
    await source.open()
    try:
        yield source
    finally:
        await source.close()


def operations(server: HttpServer) -> list[str]:
    return [request.headers["x-amz-target"].removeprefix("AmazonSQS.") for request in server.requests]


# --- opening


async def test_a_queue_that_is_open_has_identity_lease_and_backlog() -> None:
    source = SqsSource(settings())
    assert (source.name, source.backlog(), source.pinned) == ("orders", None, False)
    async with queue() as server, opened(server) as source:
        assert (source.name, source.identity) == ("orders", ARN)
        assert (source.lease_s, source.backlog()) == (45.0, 7)
        assert operations(server) == ["GetQueueUrl", "GetQueueAttributes"]
        assert server.requests[0].json == {"QueueName": "orders"}


async def test_a_queue_that_is_named_by_arn_is_that_of_its_owner_and_region() -> None:
    arn = "arn:aws:sqs:ap-south-1:444455556666:orders"
    async with queue() as server, opened(server, arn) as source:
        assert source.name == "orders"
        assert server.requests[0].json == {"QueueName": "orders", "QueueOwnerAWSAccountId": "444455556666"}
        await source.receive(1, 0.0)
        for request in server.requests:
            assert "/ap-south-1/sqs/aws4_request" in request.headers["authorization"]


async def test_a_queue_that_is_named_by_url_need_not_be_looked_for() -> None:
    async with queue() as server, opened(server, "http://elsewhere.example/1/orders") as source:
        await source.receive(1, 0.0)
        assert operations(server) == ["GetQueueAttributes", "ReceiveMessage"]
        assert {request.json["QueueUrl"] for request in server.requests} == {"http://elsewhere.example/1/orders"}


@pytest.mark.parametrize(
    ("name", "endpoint_url", "place"),
    [
        ("orders", None, Place(None, "us-west-2", "orders")),
        ("orders", "http://127.0.0.1:1", Place("http://127.0.0.1:1", "us-west-2", "orders")),
        (ARN, None, Place(None, "eu-west-1", "orders", owner="111122223333")),
        ("https://sqs.eu-west-1.amazonaws.com/1/orders", None, Place(None, "eu-west-1", "orders")),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/orders", None, Place(None, "cn-north-1", "orders")),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/orders", None, Place(None, "us-gov-west-1", "orders")),
        ("https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/1/orders", None, Place(None, "eu-west-1", "orders")),
        ("https://queue.amazonaws.com/1/orders", None, Place(None, "us-west-2", "orders")),
        ("http://127.0.0.1:4566/000000000000/orders", None, Place("http://127.0.0.1:4566", "us-west-2", "orders")),
        (
            "http://sqs.eu-west-1.localhost.localstack.cloud:4566/0/orders",
            None,
            Place("http://sqs.eu-west-1.localhost.localstack.cloud:4566", "eu-west-1", "orders"),
        ),
        (
            "http://127.0.0.1:4566/0/orders",
            "http://gate.example/sqs",
            Place("http://gate.example/sqs", "us-west-2", "orders"),
        ),
        ("https://amazonaws.com.example/1/orders", None, Place("https://amazonaws.com.example", "us-west-2", "orders")),
    ],
)
def test_a_name_says_where_the_queue_is(name: str, endpoint_url: str | None, place: Place) -> None:
    found = place_of(settings(name, endpoint_url, region="us-west-2"))
    assert found == (
        place if not name.startswith("http") else Place(place.endpoint_url, place.region, "orders", url=name)
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refuse(400, "QueueDoesNotExist"), r"the queue does not exist there; .* \(GetQueueUrl: "),
        (refuse(403, "InvalidClientTokenId"), "the credentials are not accepted; check AWS_ACCESS_KEY_ID"),
        (refuse(403, "AccessDenied"), r"the credentials do not allow this; .* \(GetQueueUrl: AccessDenied\)"),
        (refuse(500, "InternalFailure"), "GetQueueUrl: InternalFailure: it said no"),
        (say(b"<html>very-secret-too</html>", 404), "GetQueueUrl: HTTP status 404"),
        (say(b"<html>very-secret-too</html>"), "GetQueueUrl: what answers is not the service .*; check endpoint_url"),
        (say({}), "GetQueueUrl: what answers is not the service .*; check endpoint_url"),
        (send(b""), "it closed the connection"),
        (stall(), r"GetQueueUrl: it did not answer within 2 s"),
    ],
)
async def test_a_queue_that_cannot_be_opened_says_why(answer: Answer, reason: str) -> None:
    async with queue() as server:
        server.script.append(answer)
        source = SqsSource(settings(endpoint_url=server.url), call_s=2.0)
        with pytest.raises(SourceUnavailable, match=f"^SQS queue orders: .*{reason}") as raised:
            await source.open()
        assert "very-secret" not in str(raised.value)
        with pytest.raises(SourceUnavailable, match="SQS queue orders: it is not open yet"):
            await source.receive(1, 0.0)
        await source.open()
        assert source.identity == ARN
        await source.close()


@pytest.mark.parametrize("lacking", sorted(ATTRIBUTES))
async def test_a_queue_without_its_attributes_is_none(lacking: str) -> None:
    async with queue() as server:
        server.always["GetQueueAttributes"] = say(
            {"Attributes": {name: value for name, value in ATTRIBUTES.items() if name != lacking}}
        )
        with pytest.raises(SourceUnavailable, match=f"what answers is not SQS .*{lacking}.*; check endpoint_url"):
            await SqsSource(settings(endpoint_url=server.url)).open()


@pytest.mark.parametrize(
    ("endpoint_url", "reason"),
    [
        ("http://127.0.0.1:9", "it cannot be reached; check endpoint_url, region and network"),
        ("http://127.0.0.1:99999", "Port out of range 0-65535; correct endpoint_url"),
        ("no url", "correct endpoint_url"),
    ],
)
async def test_an_endpoint_that_is_away_or_none_is_named(endpoint_url: str, reason: str) -> None:
    with pytest.raises(SourceUnavailable, match=f"SQS queue orders: .*{reason}"):
        await SqsSource(settings(endpoint_url=endpoint_url)).open()


async def test_missing_credentials_and_region_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"SQS queue orders: there is no region; set aws.region"):
        await SqsSource(settings(region=None)).open()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceUnavailable, match="SQS queue orders: there are no credentials; set AWS_ACCESS_KEY_ID"):
        await SqsSource(settings(endpoint_url="http://127.0.0.1:9")).open()


async def test_the_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with queue() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        source = SqsSource(settings(endpoint_url="http://sqs.example/aws"))
        await source.open()
        await source.receive(1, 0.0)
        await source.close()
    assert [request.line for request in proxy.requests] == ["POST http://sqs.example/aws HTTP/1.1"] * 3


async def test_what_the_environment_says_is_named_when_it_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = SqsSource(settings(endpoint_url="https://127.0.0.1:9"))
    for content in (None, "no certificate"):
        bundle = tmp_path / "bundle.pem"
        if content:
            bundle.write_text(content)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        with pytest.raises(
            SourceUnavailable, match=r"SQS queue orders: cannot use .*bundle\.pem; correct AWS_CA_BUNDLE"
        ):
            await source.open()
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:very-secret@127.0.0.1:many")
    with pytest.raises(SourceUnavailable, match="the environment's proxy is no URL; correct HTTPS_PROXY") as raised:
        await source.open()
    assert "very-secret" not in str(raised.value)


# --- receiving


async def test_a_receive_asks_within_what_the_queue_allows() -> None:
    async with queue() as server, opened(server) as source:
        for limit, wait_s in ((3, 0.0), (10, 0.2), (10, 20.0), (50, 99.0)):
            await source.receive(limit, wait_s)
        asked = [request.json for request in server.requests[2:]]
    assert [(each["MaxNumberOfMessages"], each["WaitTimeSeconds"]) for each in asked] == [
        (3, 0),
        (10, 1),
        (10, 20),
        (10, 20),
    ]
    assert not any("VisibilityTimeout" in each for each in asked)


@pytest.mark.parametrize("windowed", [True, False])
async def test_a_message_becomes_a_record_of_its_queue(*, windowed: bool) -> None:
    body = '{"total":5}'
    message = {
        "MessageId": "7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a01",
        "ReceiptHandle": "r-1",
        "Body": body,
        "MD5OfBody": hashlib.md5(body.encode()).hexdigest(),
        "Attributes": {"SentTimestamp": "1767225600123"},
    }
    async with queue() as server:
        server.always["ReceiveMessage"] = say({"Messages": [message]})
        source = SqsSource(settings(endpoint_url=server.url, windowed=windowed))
        await source.open()
        chunk = await source.receive(10, 0.0)
        await source.close()
    [record] = json.loads(source.codec.event(chunk.rows))["Records"]
    assert (record["eventSourceARN"], record["awsRegion"], record["body"]) == (ARN, "eu-west-1", body)
    assert record.get("md5OfMessageAttributes", "absent") == (None if windowed else "absent")
    assert (chunk.shard, chunk.times_ms) == ("orders", [1767225600123])


async def test_the_queues_settings_are_looked_up_now_and_then() -> None:
    async with queue() as server, opened(server, look_s=3600.0) as source:
        for _ in range(3):
            await source.receive(1, 0.0)
        assert operations(server).count("GetQueueAttributes") == 1
    async with queue() as server, opened(server, look_s=0.0) as source:
        server.always["GetQueueAttributes"] = say(
            {"Attributes": {"VisibilityTimeout": "90", "ApproximateNumberOfMessages": "0"}}
        )
        await source.receive(1, 0.0)
        assert (source.lease_s, source.backlog()) == (90.0, 0)
        assert server.requests[-2].json["AttributeNames"] == ["VisibilityTimeout", "ApproximateNumberOfMessages"]
        assert operations(server)[2:] == ["GetQueueAttributes", "ReceiveMessage"]


async def test_what_was_received_does_not_wait_any_more() -> None:
    messages = [
        {"MessageId": f"m-{n}", "ReceiptHandle": "r", "Body": "", "MD5OfBody": hashlib.md5(b"").hexdigest()}
        for n in range(5)
    ]
    async with queue() as server, opened(server, look_s=3600.0) as source:
        server.always["ReceiveMessage"] = say({"Messages": messages})
        for left in (2, 0, 0):
            await source.receive(10, 0.0)
            assert source.backlog() == left


async def test_receives_at_once_look_up_the_settings_once() -> None:
    async with queue() as server, opened(server, look_s=0.5) as source:
        await asyncio.sleep(0.5)
        await asyncio.gather(*(source.receive(1, 0.0) for _ in range(8)))
        assert operations(server).count("GetQueueAttributes") == 2


async def test_after_a_failure_the_settings_are_looked_up_again() -> None:
    async with queue() as server, opened(server, look_s=3600.0) as source:
        server.script.append(refuse(400, "QueueDoesNotExist"))
        with pytest.raises(SourceUnavailable, match="the queue does not exist there"):
            await source.receive(1, 0.0)
        server.script.append(refuse(400, "QueueDoesNotExist"))
        with pytest.raises(SourceUnavailable, match="GetQueueAttributes"):
            await source.receive(1, 0.0)
        await source.receive(1, 0.0)
        await source.receive(1, 0.0)
        assert operations(server)[2:] == [
            "ReceiveMessage",
            "GetQueueAttributes",
            "GetQueueAttributes",
            "ReceiveMessage",
            "ReceiveMessage",
        ]


async def test_settings_that_make_no_sense_are_an_outage() -> None:
    async with queue() as server, opened(server, look_s=0.0) as source:
        server.always["GetQueueAttributes"] = say({"Attributes": {"VisibilityTimeout": "long"}})
        with pytest.raises(SourceUnavailable, match="what answers is not SQS"):
            await source.receive(1, 0.0)


async def test_credentials_that_were_refused_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with queue() as server, opened(server) as source:
        server.always["DeleteMessageBatch"] = say({"Successful": [{"Id": "0"}]})
        row = CODEC.parse(EVENT).rows[0]
        for _ in range(2):
            server.script.append(refuse(403, "ExpiredTokenException"))
            with pytest.raises(SourceUnavailable, match="the credentials are not accepted"):
                await source.delete([row])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIARENEWED")
        asked = len(server.requests)
        assert await source.delete([row]) == {}
        await source.receive(1, 0.0)
        later = server.requests[asked:]
    assert all("Credential=AKIARENEWED/" in request.headers["authorization"] for request in later)
    assert [request.headers["x-amz-target"].rpartition(".")[2] for request in later] == [
        *("GetQueueUrl", "GetQueueAttributes", "DeleteMessageBatch"),
        *("GetQueueAttributes", "ReceiveMessage"),
    ]


async def test_credentials_are_read_once_for_all_queues_of_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFIRST")
    async with queue() as server, opened(server), queue() as elsewhere:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECOND")
        async with opened(server, "invoices"), opened(elsewhere):
            assert {_key(request) for request in server.requests} == {"AKIAFIRST"}
            assert {_key(request) for request in elsewhere.requests} == {"AKIASECOND"}


async def test_a_queue_that_refused_credentials_is_opened_with_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFIRST")
    async with queue() as server, opened(server):
        server.script.append(refuse(403, "InvalidClientTokenId"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECOND")
        source = SqsSource(settings("invoices", server.url))
        with pytest.raises(SourceUnavailable, match="the credentials are not accepted"):
            await source.open()
        asked = len(server.requests)
        async with opened(server, "invoices"):
            assert {_key(request) for request in server.requests[asked:]} == {"AKIASECOND"}


def _key(request: Any) -> str:
    return str(request.headers["authorization"]).partition("Credential=")[2].partition("/")[0]


# --- checking


async def test_a_check_tells_what_is_in_the_queue_and_what_becomes_of_failures() -> None:
    async with queue() as server:
        assert await check_sqs(settings(endpoint_url=server.url), 45.0) == (
            "queue orders: messages waiting: about 7; visibility timeout 45 s; no redrive policy, so that what always "
            "fails comes back until its retention ends"
        )
        assert operations(server) == ["GetQueueUrl", "GetQueueAttributes"]
    redrive = json.dumps({"deadLetterTargetArn": f"{ARN}-dead", "maxReceiveCount": 5})
    async with queue(RedrivePolicy=redrive) as server:
        assert (await check_sqs(settings(endpoint_url=server.url), 3.0)).endswith("; after 5 receives to orders-dead")


async def test_a_queue_that_shows_messages_before_the_function_ends_is_refused() -> None:
    async with queue() as server:
        with pytest.raises(
            SourceUnavailable,
            match=r"^SQS queue orders: Queue visibility timeout: 45 seconds is less than Function timeout: 60 seconds; "
            r"raise the first",
        ):
            await check_sqs(settings(endpoint_url=server.url), 60.0)


async def test_a_queue_that_is_not_there_fails_its_check() -> None:
    async with queue() as server:
        server.script.append(refuse(400, "QueueDoesNotExist"))
        with pytest.raises(SourceUnavailable, match="the queue does not exist there"):
            await check_sqs(settings(endpoint_url=server.url), 3.0)
