"""A function behind a URL, against a server that answers by script: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.settings import Secret, UrlFunction
from connectors.url_target import UrlTarget
from router.core.model import Failed, FailureKind, Refused, Returned, TooLarge
from router.errors import HandlerUnavailable
from router.ports import Answered
from tests.core.test_sqs_client import make_certificate, serving
from tests.fakes.http_server import Answer, http_server, say, send, stall

PATIENCE_S = 20.0
HEAD = b"HTTP/1.1 200 OK\r\n"
INVOKE = "/2015-03-31/functions/function/invocations"


def settings(url: str, **changes: object) -> UrlFunction:
    return replace(UrlFunction("legacy", Secret(url), {}, None, PATIENCE_S, 1, logs=True), **changes)


@asynccontextmanager
async def opened(url: str, **changes: object) -> AsyncIterator[UrlTarget]:
    target = UrlTarget(settings(url, **changes))
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield target
    finally:
        await target.close()


async def answered(answer: Answer, path: str = "", **changes: object) -> Answered:
    async with http_server(answer) as server, opened(f"{server.url}{path}", **changes) as target:
        return await target.call("the-id", b"{}")


async def test_the_event_is_posted_as_it_is_with_the_request_id_and_the_deadline() -> None:
    headers = {"Authorization": Secret("Bearer hush"), "User-Agent": Secret("shop")}
    async with http_server(say({"a": 1}), say({})) as server:
        async with opened(f"{server.url}/x?code=hush", headers=headers, timeout_s=9.0) as target:
            before_ms = time.time() * 1000
            assert await target.call("the-id", b'{"b": 2}') == Answered(Returned(b'{"a": 1}'))
            await target.call("another", b"{}")
        first, second = server.requests
    assert (first.line, first.body) == ("POST /x?code=hush HTTP/1.1", b'{"b": 2}')
    sent = dict(first.headers)
    assert before_ms + 8_000 < int(sent.pop("lambda-runtime-deadline-ms")) < time.time() * 1000 + 9_001
    assert sent == {
        "host": f"127.0.0.1:{server.port}",
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "shop",
        "authorization": "Bearer hush",
        "x-amz-log-type": "Tail",
        "lambda-runtime-aws-request-id": "the-id",
        "content-length": "8",
    }
    assert (first.connection, second.connection) == (1, 1), "the connection is kept"


ERROR = {"errorType": "PriceError", "errorMessage": "no price", "stackTrace": ["line 1"]}


@pytest.mark.parametrize(
    ("answer", "kind", "error_type", "message"),
    [
        (say(ERROR, 400), FailureKind.RAISED, "PriceError", "no price"),
        (
            say(b"<p>no\n such  page", 404),
            FailureKind.RAISED,
            "Http404",
            "it answered with status 404: <p>no such page",
        ),
        (say(b"", 422), FailureKind.RAISED, "Http422", "it answered with status 422: nothing more"),
        (say(ERROR, 200, x_amz_function_error="Unhandled"), FailureKind.RAISED, "PriceError", "no price"),
        (say(b"text", 500, x_amz_function_error="Handled"), FailureKind.RAISED, "Unhandled", "text"),
        (
            send(HEAD + b"Content-Length: 5\r\n\r\nhal"),
            FailureKind.BAD_RESPONSE,
            "Headrace.BadAnswer",
            "the answer ended before it was complete",
        ),
    ],
)
async def test_what_the_function_answers_for_is_its_failure(answer, kind, error_type, message) -> None:
    outcome = (await answered(answer)).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.error.error_type, outcome.error.message) == (kind, error_type, message)


@pytest.mark.parametrize(
    ("answer", "message", "initialising", "wait_s"),
    [
        (say(b"", 429, retry_after="7"), "it answered with status 429: nothing more", False, 7.0),
        (say(b"busy", 503), "it answered with status 503: busy", False, 0.0),
        (say(b"", 500, retry_after="7"), "it answered with status 500: nothing more", True, 0.0),
        (say(b"bad gateway", 502), "it answered with status 502: bad gateway", True, 0.0),
        (say(b"", 302, location="/"), "it answered with status 302: nothing more; correct url", False, 0.0),
        (send(b""), "it closed the connection without an answer", False, 0.0),
        (send(b"220 mail ESMTP\r\n"), "what answers does not speak HTTP; check url", False, 0.0),
        (send(b"\x15\x03\x01\x00\x02\x02\x46"), "what answers does not speak HTTP; check url", False, 0.0),
        (send(HEAD + b"Content-Length: x\r\n\r\n"), "what answers does not speak HTTP; check url", False, 0.0),
    ],
)
async def test_what_is_not_accepted_is_refused(answer, message, initialising, wait_s) -> None:
    given = await answered(answer)
    assert isinstance(given.outcome, Refused)
    assert given.outcome.error.error_type == "Headrace.NotAccepted"
    assert given.outcome.error.message.startswith("function legacy: ")
    assert given.outcome.error.message.endswith(message)
    assert (given.outcome.initialising, given.wait_s) == (initialising, wait_s)


async def test_what_it_says_may_repeat_what_it_was_sent_and_secrets_are_not_told_on() -> None:
    page = b"Cannot POST /x?code=hush-code&a=b for hush-code with Bearer hush-token; " + b"or hush-token" * 40
    headers = {"Authorization": Secret("Bearer hush-token")}
    for status in (404, 500, 503):
        given = await answered(say(page, status), "/x?code=hush-code&a=b", headers=headers)
        assert isinstance(given.outcome, Failed | Refused)
        message = given.outcome.error.message
        assert "hush" not in message
        assert f"it answered with status {status}: Cannot POST /x?*** for *** with ***; or ***or" in message


async def test_an_event_that_is_too_large_for_it_is_split() -> None:
    assert (await answered(say(b"", 413))).outcome == TooLarge(2)


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_an_answer_without_a_body_is_a_null(status) -> None:
    assert (await answered(say(b"", status))).outcome == Returned(b"null")


async def test_a_flood_is_cut_off_and_held_in_bounds() -> None:
    async def flood(writer: asyncio.StreamWriter) -> bool:
        writer.write(HEAD + b"Content-Length: 10000000000\r\n\r\n")
        while True:  # ends with the connection
            writer.write(b"x" * 65536)
            await writer.drain()

    given = await answered(flood)
    assert isinstance(given.outcome, Failed)
    assert given.outcome.error.error_type == "Function.ResponseSizeTooLarge"


async def test_an_answer_of_many_small_chunks_may_be_as_large_as_a_result() -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (1000, b"x" * 1000) for _ in range(6000))
    given = await answered(send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"))
    assert given.outcome == Returned(b"x" * 6_000_000)


@pytest.mark.parametrize("parts", [(), (HEAD,), (HEAD + b"Content-Length: 5\r\n\r\n", b"hal")])
async def test_an_answer_that_stalls_anywhere_is_a_timeout(parts) -> None:
    outcome = (await answered(stall(*parts), timeout_s=1.0)).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.error.error_type) == (FailureKind.TIMED_OUT, "Sandbox.Timedout")
    assert outcome.error.message == (
        "RequestId: the-id Error: Task timed out after 1.00 seconds: it did not answer, and may still run"
    )


async def test_errors_of_the_interface_emulator_are_errors_though_it_says_200() -> None:
    outcome = (await answered(say(ERROR), INVOKE)).outcome
    assert isinstance(outcome, Failed)
    assert outcome.error.error_type == "PriceError"
    assert (await answered(say(ERROR), "/elsewhere")).outcome == Returned(json.dumps(ERROR).encode())
    assert (await answered(say({"fine": 1}), INVOKE)).outcome == Returned(b'{"fine": 1}')


async def test_the_end_of_its_log_is_taken_if_it_is_wanted() -> None:
    tail = base64.b64encode(b"printed").decode()
    assert (await answered(say({}, x_amz_log_result=tail))).log == "printed\n"
    async with http_server(say({}, x_amz_log_result=tail)) as server, opened(server.url, logs=False) as target:
        assert (await target.call("r", b"{}")).log == ""
        assert "x-amz-log-type" not in server.requests[0].headers


async def test_a_service_that_is_away_is_told_without_its_url() -> None:
    async with opened("http://127.0.0.1:9/hush?code=hush") as target:
        given = await target.call("r", b"{}")
        assert isinstance(given.outcome, Refused)
        assert given.outcome.error.message == "function legacy: it cannot be reached; check url and network"
        with pytest.raises(HandlerUnavailable, match="function legacy: it cannot be reached") as raised:
            await target.check()
    assert "hush" not in str(raised.value)


async def test_checking_sends_nothing_and_the_connection_serves_the_first_call() -> None:
    async with http_server(say({})) as server, opened(server.url) as target:
        assert await target.check() == "takes connections; nothing was sent"
        await target.call("r", b"{}")
        assert [request.connection for request in server.requests] == [1]


async def test_its_certificate_must_be_trusted(tmp_path: Path) -> None:
    paths = make_certificate(tmp_path)
    async with http_server(say({}), say({}), tls=serving(paths)) as server:
        async with opened(server.url) as target:
            with pytest.raises(HandlerUnavailable, match="its certificate is not trusted; check url, and give its"):
                await target.check()
        async with opened(server.url, ca=paths[0]) as target:
            assert (await target.call("r", b"{}")).outcome == Returned(b"{}")


async def test_an_authority_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no authority")
    async with opened("https://127.0.0.1:9", ca=tmp_path / "ca.pem") as target:
        given = await target.call("r", b"{}")
        assert isinstance(given.outcome, Refused)
        assert "ca.pem holds no authorities to trust; correct ca" in given.outcome.error.message


async def test_tls_where_there_is_none_is_told() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with opened(f"https://127.0.0.1:{port}") as target:
            with pytest.raises(HandlerUnavailable, match="it does not speak TLS; check whether url is https or http"):
                await target.check()


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, "POST http://service.example/x?y HTTP/1.1"),
        ({"no_proxy": "example"}, None),
        ({"http_proxy": "http://[nonsense"}, None),
    ],
)
async def test_the_proxy_of_the_environment_is_used(
    environment: Mapping[str, str], line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    async with http_server(say({})) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        async with opened("http://service.example/x?y") as target:
            given = await target.call("r", b"{}")
        assert [request.line for request in proxy.requests] == ([line] if line else [])
        assert isinstance(given.outcome, Returned if line else Refused)


async def test_a_call_that_is_cancelled_ends_its_request() -> None:
    async with http_server() as server, opened(server.url) as target:
        call = asyncio.create_task(target.call("r", b"{}"))
        await server.asked(1)
        call.cancel()
        assert await server.abandoned.get() == 1
        with pytest.raises(asyncio.CancelledError):
            await call
