"""Lines are written to streams that are made when they are missing; what goes wrong says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from connectors.cloudwatch_logs import CloudWatchLogs
from router.errors import DestinationUnavailable
from router.ports import LogLine
from tests.fakes.http_server import Answer, HttpServer, http_server, refuse, say

PATIENCE_S = 20.0
LINES = [LogLine(1, "START\n"), LogLine(2, "é\n")]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as server, asyncio.timeout(PATIENCE_S):
        yield server


@pytest.fixture
async def logs(server: HttpServer) -> AsyncIterator[CloudWatchLogs]:
    logs = CloudWatchLogs("CloudWatch Logs of function orders", server.url, "eu-west-1")
    yield logs
    await logs.close()


def asked(server: HttpServer) -> list[str]:
    return [request.operation for request in server.requests]


async def test_a_call_is_what_the_service_documents(server: HttpServer, logs: CloudWatchLogs) -> None:
    server.script.append(say({}))
    assert await logs.put("/aws/lambda/orders", "stream", LINES) == 0
    [request] = server.requests
    assert request.headers["x-amz-target"] == "Logs_20140328.PutLogEvents"
    assert request.headers["content-type"] == "application/x-amz-json-1.1"
    assert "/eu-west-1/logs/aws4_request" in request.headers["authorization"]
    assert request.json == {
        "logGroupName": "/aws/lambda/orders",
        "logStreamName": "stream",
        "logEvents": [{"timestamp": 1, "message": "START\n"}, {"timestamp": 2, "message": "é\n"}],
    }


async def test_a_stream_and_its_group_are_made_when_they_are_missing(server: HttpServer, logs: CloudWatchLogs) -> None:
    missing = refuse(400, "ResourceNotFoundException")
    server.script += [missing, missing, say(b""), say(b""), say({})]
    await logs.put("group", "stream", LINES)
    made = ["CreateLogStream", "CreateLogGroup", "CreateLogStream"]
    assert asked(server) == ["PutLogEvents", *made, "PutLogEvents"]


async def test_a_stream_that_another_has_just_made_will_do(server: HttpServer, logs: CloudWatchLogs) -> None:
    made = refuse(400, "ResourceAlreadyExistsException")
    server.script += [refuse(400, "ResourceNotFoundException"), made, say({})]
    await logs.put("group", "stream", LINES)
    assert asked(server) == ["PutLogEvents", "CreateLogStream", "PutLogEvents"]


@pytest.mark.parametrize(
    ("rejected", "count"),
    [
        ({"tooOldLogEventEndIndex": 1}, 1),
        ({"expiredLogEventEndIndex": 2}, 2),
        ({"tooNewLogEventStartIndex": 1}, 1),
        ({"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 1}, 2),
        ({"tooOldLogEventEndIndex": 0}, 1),
    ],
)
async def test_lines_that_are_not_taken_are_counted(
    server: HttpServer, logs: CloudWatchLogs, rejected: dict[str, int], count: int
) -> None:
    server.script.append(say({"rejectedLogEventsInfo": rejected}))
    assert await logs.put("group", "stream", LINES) == count


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("AccessDeniedException", "the credentials do not allow this"),
        ("ThrottlingException", "it is throttled"),
        ("ServiceUnavailableException", "PutLogEvents: ServiceUnavailableException"),
        ("UnrecognizedClientException", "the credentials are not accepted"),
    ],
)
async def test_what_is_refused_says_what_to_do(server: HttpServer, logs: CloudWatchLogs, code: str, says: str) -> None:
    server.script.append(refuse(400, code))
    with pytest.raises(DestinationUnavailable, match=f"CloudWatch Logs of function orders: .*{says}"):
        await logs.put("group", "stream", LINES)


async def test_whoever_may_not_make_groups_is_told_so(server: HttpServer, logs: CloudWatchLogs) -> None:
    missing = refuse(400, "ResourceNotFoundException")
    server.script += [missing, missing, refuse(400, "AccessDeniedException")]
    with pytest.raises(DestinationUnavailable, match=r"do not allow this.*CreateLogGroup"):
        await logs.put("group", "stream", LINES)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (say({"logStreams": []}), "log group group: reached"),
        (refuse(400, "ResourceNotFoundException"), "log group group: it is made with the first line"),
        (refuse(400, "AccessDeniedException"), "log group group: not known, DescribeLogStreams is not allowed"),
    ],
)
async def test_a_look_at_the_group_says_what_is_there(
    server: HttpServer, logs: CloudWatchLogs, answer: Answer, said: str
) -> None:
    server.script.append(answer)
    assert await logs.check("group") == said
    assert asked(server) == ["DescribeLogStreams"]


async def test_a_service_that_is_away_says_so() -> None:
    logs = CloudWatchLogs("CloudWatch Logs of function orders", "http://127.0.0.1:9", "eu-west-1")
    with pytest.raises(DestinationUnavailable, match="it cannot be reached; check endpoint_url"):
        await logs.check("group")
    with pytest.raises(DestinationUnavailable, match="it cannot be reached; check endpoint_url"):
        await logs.put("group", "stream", LINES)
    await logs.close()
