"""Sources that are looked up before a mapping of one is made: there, not there, not ours, or not to be asked."""

from __future__ import annotations

import pytest

from connectors.settings import AwsSettings
from connectors.source_lookup import SourceLookup
from router.errors import SourceUnavailable
from router.event_ports import FoundSource, NoSource
from tests.core.test_api_mapping_rules import CONSUMER, QUEUE, STREAM, TABLE
from tests.fakes.http_server import HttpServer, http_server, refuse, say

STREAM_THERE = say(
    {"StreamDescriptionSummary": {"StreamARN": STREAM, "StreamStatus": "ACTIVE", "StreamCreationTimestamp": 1.0}}
)
#: Of each kind: its ARN, what asks for it, and how the service says that it is not there.
KINDS = [
    pytest.param(QUEUE, "GetQueueUrl", "AWS.SimpleQueueService.NonExistentQueue", id="queue"),
    pytest.param(STREAM, "DescribeStreamSummary", "ResourceNotFoundException", id="stream"),
    pytest.param(TABLE, "DescribeStream", "ResourceNotFoundException", id="table"),
]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


def lookup(server: HttpServer) -> SourceLookup:
    return SourceLookup(lambda: AwsSettings(server.url, "us-east-1"))


@pytest.mark.parametrize(("arn", "operation", "code"), KINDS)
async def test_one_that_is_not_there(arn: str, operation: str, code: str) -> None:
    async with http_server() as server:
        server.always[operation] = refuse(400, code)
        assert await lookup(server).find(arn) is NoSource.ABSENT


@pytest.mark.parametrize(
    ("arn", "operation", "code"),
    [
        (QUEUE, "GetQueueUrl", "InvalidAddress"),
        (STREAM, "DescribeStreamSummary", "InvalidArgumentException"),
        (TABLE, "DescribeStream", "ValidationException"),
    ],
)
async def test_a_name_that_none_can_have_is_not_there(arn: str, operation: str, code: str) -> None:
    async with http_server() as server:
        server.always[operation] = refuse(400, code)
        assert await lookup(server).find(arn) is NoSource.ABSENT


@pytest.mark.parametrize(("arn", "operation", "code"), KINDS)
async def test_one_that_we_may_not_read(arn: str, operation: str, code: str) -> None:
    async with http_server() as server:
        server.always[operation] = refuse(400, "AccessDeniedException")
        assert await lookup(server).find(arn) is NoSource.DENIED


@pytest.mark.parametrize(("arn", "operation", "code"), KINDS)
@pytest.mark.parametrize("trouble", ["InternalFailure", "ThrottlingException", "InvalidSignatureException"])
async def test_a_service_that_cannot_say_is_no_answer(arn: str, operation: str, code: str, trouble: str) -> None:
    async with http_server() as server:
        server.always[operation] = refuse(500, trouble)
        with pytest.raises(SourceUnavailable):
            await lookup(server).find(arn)


async def test_a_queue_tells_how_long_it_hides_messages() -> None:
    attributes = {"VisibilityTimeout": "42", "ApproximateNumberOfMessages": "0", "QueueArn": QUEUE}
    async with http_server() as server:
        server.always["GetQueueUrl"] = say({"QueueUrl": f"{server.url}/000000000000/orders"})
        server.always["GetQueueAttributes"] = say({"Attributes": attributes})
        assert await lookup(server).find(QUEUE) == FoundSource(42)


async def test_a_consumer_is_looked_for_beside_its_stream() -> None:
    async with http_server() as server:
        server.always["DescribeStreamSummary"] = STREAM_THERE
        server.always["DescribeStreamConsumer"] = refuse(400, "ResourceNotFoundException")
        assert await lookup(server).find(STREAM) == FoundSource()
        assert await lookup(server).find(CONSUMER) is NoSource.ABSENT
        server.always["DescribeStreamConsumer"] = say({"ConsumerDescription": {"ConsumerStatus": "ACTIVE"}})
        assert await lookup(server).find(CONSUMER) == FoundSource()


async def test_a_stream_that_is_being_made_is_to_be_waited_for() -> None:
    described = {"StreamARN": STREAM, "StreamStatus": "CREATING", "StreamCreationTimestamp": 1.0}
    async with http_server() as server:
        server.always["DescribeStreamSummary"] = say({"StreamDescriptionSummary": described})
        with pytest.raises(SourceUnavailable, match="wait until it is there"):
            await lookup(server).find(STREAM)
