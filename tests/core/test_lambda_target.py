"""A function on AWS Lambda, against a server that answers as its Invoke does: what is asked, and what answers mean."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from connectors.lambda_target import LambdaTarget
from connectors.settings import LambdaFunction
from router.core.model import Failed, FailureKind, Refused, Returned, TooLarge
from router.errors import HandlerUnavailable
from router.ports import Answered
from tests.fakes.function_server import FunctionServer, function_server, refusal
from tests.fakes.http_server import http_server, say, send, stall

PATIENCE_S = 30.0
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:priced"
HEAD = b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: r\r\n"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")


@asynccontextmanager
async def opened(url: str, **changes: object) -> AsyncIterator[LambdaTarget]:
    settings = LambdaFunction("priced", ARN, None, url, "eu-west-1", PATIENCE_S, 2, logs=True)
    target = LambdaTarget(replace(settings, **changes))
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield target
    finally:
        await target.close()


@asynccontextmanager
async def served(**changes: object) -> AsyncIterator[tuple[FunctionServer, LambdaTarget]]:
    async with function_server() as server, opened(server.url, **changes) as target:
        yield server, target


@pytest.mark.parametrize("qualifier", [None, "live"])
async def test_the_event_is_sent_with_a_signature_and_the_end_of_the_log_comes_back(qualifier) -> None:
    async with served(qualifier=qualifier) as (server, target):
        answered = await target.call("the-id", b'{"a": 1}')
        [asked] = server.asked
    assert answered == Answered(Returned(b'{"a": 1}'), server.log)
    assert asked.path == f"/2015-03-31/functions/{ARN}/invocations"
    assert asked.query == ({"Qualifier": qualifier} if qualifier else {})
    assert asked.body == b'{"a": 1}'
    assert (asked.headers["x-amz-invocation-type"], asked.headers["x-amz-log-type"]) == ("RequestResponse", "Tail")
    assert "/eu-west-1/lambda/aws4_request" in asked.headers["authorization"]


async def test_no_log_is_asked_for_where_none_is_kept() -> None:
    async with served(logs=False) as (server, target):
        assert (await target.call("r", b"{}")).log == ""
        assert server.asked[0].headers["X-Amz-Log-Type"] == "None"


ERROR = {"errorMessage": "no price", "errorType": "PriceError", "requestId": "r", "stackTrace": ["line 1"]}


@pytest.mark.parametrize(
    ("described", "kind", "error_type", "message"),
    [
        (ERROR, FailureKind.RAISED, "PriceError", "no price"),
        (
            {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: r Error: Task timed out after 1.00 seconds"},
            FailureKind.TIMED_OUT,
            "Sandbox.Timedout",
            "RequestId: r Error: Task timed out after 1.00 seconds",
        ),
        (
            {"errorMessage": "2024-05-01T00:00:00Z r Task timed out after 1.00 seconds"},
            FailureKind.TIMED_OUT,
            "Sandbox.Timedout",
            "2024-05-01T00:00:00Z r Task timed out after 1.00 seconds",
        ),
        (
            {"errorType": "Runtime.ExitError", "errorMessage": "RequestId: r Error: Runtime exited with error"},
            FailureKind.CRASHED,
            "Runtime.ExitError",
            "RequestId: r Error: Runtime exited with error",
        ),
        (["no error object"], FailureKind.RAISED, "Unhandled", '["no error object"]'),
    ],
)
async def test_an_error_of_the_function_is_its_failure(described, kind, error_type, message) -> None:
    tail = base64.b64encode(b"[ERROR] PriceError").decode()
    async with served() as (server, target):
        body = json.dumps(described).encode()
        server.instead = (200, {"X-Amz-Function-Error": "Unhandled", "X-Amz-Log-Result": tail}, body)
        answered = await target.call("r", b"{}")
    assert isinstance(answered.outcome, Failed)
    error = answered.outcome.error
    assert (answered.outcome.kind, error.error_type, error.message) == (kind, error_type, message)
    assert answered.log == "[ERROR] PriceError\n"


async def test_a_function_that_cannot_initialise_was_not_run() -> None:
    body = json.dumps({**ERROR, "errorType": "Runtime.ImportModuleError", "requestId": ""}).encode()
    async with served() as (server, target):
        server.instead = (200, {"X-Amz-Function-Error": "Unhandled"}, body)
        outcome = (await target.call("r", b"{}")).outcome
    assert isinstance(outcome, Refused)
    assert (outcome.initialising, outcome.error.error_type) == (True, "Runtime.ImportModuleError")


@pytest.mark.parametrize(
    ("answer", "message", "wait_s"),
    [
        (
            refusal(429, "TooManyRequestsException", "Rate Exceeded.", retry_after="9"),
            "it is throttled (Invoke: TooManyRequestsException)",
            9.0,
        ),
        (
            refusal(404, "ResourceNotFoundException", f"Function not found: {ARN}"),
            (
                "it does not exist there; deploy it, or correct arn, region or endpoint_url "
                f"(ResourceNotFoundException: Function not found: {ARN})"
            ),
            0.0,
        ),
        (
            refusal(403, "AccessDeniedException"),
            "the credentials do not allow this; give their owner the permission (Invoke: AccessDeniedException)",
            0.0,
        ),
        (refusal(500, "ServiceException"), "Invoke: ServiceException: it said no", 0.0),
        (refusal(502, "EC2ThrottledException"), "Invoke: EC2ThrottledException: it said no", 0.0),
        (refusal(409, "ResourceConflictException"), "Invoke: ResourceConflictException: it said no", 0.0),
    ],
)
async def test_what_lambda_does_not_accept_is_refused(answer, message, wait_s) -> None:
    async with served() as (server, target):
        server.instead = answer
        answered = await target.call("r", b"{}")
        assert len(server.asked) == 1, "the library tries again by itself"
    assert isinstance(answered.outcome, Refused)
    assert answered.outcome.error.message == f"function priced: {message}"
    assert (answered.outcome.initialising, answered.wait_s) == (False, wait_s)


async def test_an_event_that_is_too_large_is_split_and_one_that_is_no_json_to_lambda_fails() -> None:
    async with served() as (server, target):
        server.instead = refusal(413, "RequestTooLargeException")
        assert (await target.call("r", b"{}")).outcome == TooLarge(2)
        server.instead = refusal(400, "InvalidRequestContentException", "Could not parse request body into json")
        outcome = (await target.call("r", b"{}")).outcome
    assert isinstance(outcome, Failed)
    assert outcome.error.error_type == "InvalidRequestContentException"


async def test_what_is_not_lambda_is_refused_whatever_it_answers() -> None:
    for answer in (say({"fine": True}), say(b"<p>welcome"), send(b"220 mail ESMTP\r\n"), send(b""), say(b"", 204)):
        async with http_server(answer) as server, opened(server.url) as target:
            outcome = (await target.call("r", b"{}")).outcome
        assert isinstance(outcome, Refused)
        assert outcome.error.message.startswith("function priced: ")


async def test_a_flood_is_cut_off_and_held_in_bounds() -> None:
    async def flood(writer: asyncio.StreamWriter) -> bool:
        writer.write(HEAD + b"Content-Length: 10000000000\r\n\r\n")
        while True:  # ends with the connection
            writer.write(b"x" * 65536)
            await writer.drain()

    async with http_server(flood) as server, opened(server.url) as target:
        outcome = (await target.call("r", b"{}")).outcome
    assert isinstance(outcome, Failed)
    assert outcome.error.error_type == "Function.ResponseSizeTooLarge"


@pytest.mark.parametrize("part", [b"Content-Length: 9\r\n\r\nhal", b"Transfer-Encoding: chunked\r\n\r\n3\r\nhal"])
async def test_an_answer_that_breaks_off_is_a_failure(part) -> None:
    async with http_server(send(HEAD + part)) as server, opened(server.url) as target:
        outcome = (await target.call("r", b"{}")).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.error.error_type) == (FailureKind.BAD_RESPONSE, "Headrace.BadAnswer")


@pytest.mark.parametrize("parts", [(), (HEAD + b"Content-Length: 9\r\n\r\n", b"hal")])
async def test_an_answer_that_stalls_anywhere_is_a_timeout(parts) -> None:
    async with http_server(stall(*parts)) as server, opened(server.url, timeout_s=1.0) as target:
        outcome = (await target.call("the-id", b"{}")).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.error.error_type) == (FailureKind.TIMED_OUT, "Sandbox.Timedout")
    assert outcome.error.message.startswith("RequestId: the-id Error: Task timed out after 1.00 seconds")


async def test_an_endpoint_that_is_away_is_told() -> None:
    async with opened("http://127.0.0.1:9") as target:
        outcome = (await target.call("r", b"{}")).outcome
        assert isinstance(outcome, Refused)
        expected = "function priced: it cannot be reached; check endpoint_url, region and network"
        assert outcome.error.message == expected
        with pytest.raises(HandlerUnavailable, match="it cannot be reached"):
            await target.check()


async def test_new_credentials_are_seen_once_the_old_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as (server, target):
        server.instead = refusal(403, "UnrecognizedClientException")
        assert isinstance((await target.call("r", b"{}")).outcome, Refused)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
        server.instead = None
        assert isinstance((await target.call("r", b"{}")).outcome, Returned)
        keys = [asked.headers["Authorization"].split("/")[0].partition("=")[2] for asked in server.asked]
        assert keys == ["AKIAEXAMPLE", "AKIANEW"]


# --- check


async def test_checking_invokes_nothing_and_tells_its_own_timeout() -> None:
    async with served(qualifier="live") as (server, target):
        assert await target.check() == "may be invoked; its own timeout is 3 s"
        dry, configuration = server.asked
    assert dry.headers["X-Amz-Invocation-Type"] == "DryRun"
    assert (dry.query, configuration.query) == ({"Qualifier": "live"}, {"Qualifier": "live"})


async def test_a_timeout_of_its_own_that_is_longer_is_told() -> None:
    async with served(timeout_s=5.0) as (server, target):
        server.timeout_s = 6
        with pytest.raises(HandlerUnavailable, match=r"its own timeout, 6 s, is longer than its timeout here, 5 s"):
            await target.check()


async def test_checking_does_without_the_permission_to_look_at_the_timeout() -> None:
    async with served() as (server, target):
        server.configuration_status = 403
        found = await target.check()
        assert found == "may be invoked; its own timeout is not known: GetFunctionConfiguration is not allowed"


async def test_a_function_that_may_not_be_invoked_is_told() -> None:
    async with served() as (server, target):
        server.instead = refusal(403, "AccessDeniedException")
        with pytest.raises(HandlerUnavailable, match="function priced: the credentials do not allow this"):
            await target.check()


async def test_connections_are_kept() -> None:
    kept = say({"fine": True}, x_amzn_RequestId="r")
    large = say(b'"' + b"x" * 500_000 + b'"', x_amzn_RequestId="r")
    async with http_server(kept, large, kept) as server, opened(server.url) as target:
        for _ in range(3):
            assert isinstance((await target.call("r", b"{}")).outcome, Returned)
        assert [request.connection for request in server.requests] == [1, 1, 1]
