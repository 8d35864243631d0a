"""The calls of a queue, against a server that answers by script: what is asked, what is read, what can go wrong."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from botocore.exceptions import CredentialRetrievalError

from connectors.aws_access import Access
from connectors.sqs_client import SqsClient
from router.errors import SourceUnavailable
from tests.fakes.certificates import Certificate, make_certificate, serving
from tests.fakes.http_server import Answer, HttpServer, http_server, refuse, say, send, stall

#: Longest that anything may take that should come at once.
PATIENCE_S = 20.0
HEAD = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Keys:
    access_key: str = "AKIAEXAMPLE"
    secret_key: str = "very-secret"
    token: str | None = "very-secret-too"


@dataclass
class Credentials:
    keys: Keys
    error: Exception | None = None

    async def get_frozen_credentials(self) -> Keys:
        if self.error:
            raise self.error
        return self.keys


def access(url: str, **changes: Any) -> Access:
    return replace(Access(url, "eu-west-1", Credentials(Keys()), ca="", proxy=None), **changes)


@asynccontextmanager
async def opened(
    server: HttpServer, path: str = "", *, call_s: float = 10.0, **changes: Any
) -> AsyncIterator[SqsClient]:
    client = SqsClient(access(server.url + path, **changes), "https://sqs/1/orders", "SQS queue orders", call_s=call_s)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield client
    finally:
        await client.close()


def message(body: str, **changes: str) -> dict[str, Any]:
    digest = hashlib.md5(body.encode()).hexdigest()
    return {"MessageId": "m-1", "ReceiptHandle": "r-1", "Body": body, "MD5OfBody": digest, **changes}


def receipts(count: int) -> list[str]:
    return [f"r-{number}" for number in range(count)]


# --- what is asked


async def test_a_receive_asks_for_everything_there_is_to_know() -> None:
    async with http_server(say({"Messages": [message("a")]})) as server, opened(server) as client:
        [received] = await client.receive(7, 3)
        [request] = server.requests
    assert (received.message_id, received.receipt_handle, received.body) == ("m-1", "r-1", "a")
    assert request.line == "POST / HTTP/1.1"
    assert request.json == {
        "QueueUrl": "https://sqs/1/orders",
        "MaxNumberOfMessages": 7,
        "WaitTimeSeconds": 3,
        "AttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
    }
    assert request.headers["x-amz-target"] == "AmazonSQS.ReceiveMessage"
    assert request.headers["content-type"] == "application/x-amz-json-1.0"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")


async def test_a_delete_and_an_extend_name_their_messages_by_place() -> None:
    done = {"Successful": [{"Id": "0"}, {"Id": "1"}]}
    async with http_server(say(done), say(done)) as server, opened(server) as client:
        assert await client.delete(receipts(2)) == {}
        assert await client.extend(receipts(2), 45) == {}
        deleted, extended = server.requests
    assert deleted.headers["x-amz-target"] == "AmazonSQS.DeleteMessageBatch"
    assert deleted.json["Entries"] == [{"Id": "0", "ReceiptHandle": "r-0"}, {"Id": "1", "ReceiptHandle": "r-1"}]
    assert extended.headers["x-amz-target"] == "AmazonSQS.ChangeMessageVisibilityBatch"
    assert [entry["VisibilityTimeout"] for entry in extended.json["Entries"]] == [45, 45]
    assert {each.json["QueueUrl"] for each in (deleted, extended)} == {"https://sqs/1/orders"}


async def test_an_endpoint_may_have_a_path() -> None:
    async with http_server(say({})) as server, opened(server, "/aws/a%20b/") as client:
        await client.receive(1, 0)
        assert server.requests[0].line == "POST /aws/a%20b/ HTTP/1.1"


async def test_calls_one_after_the_other_share_a_connection() -> None:
    async with http_server(*[say({})] * 5) as server, opened(server) as client:
        for _ in range(5):
            assert not await client.receive(1, 0)
        assert server.connections == 1


async def test_many_long_polls_hold_nobody_up() -> None:
    async with http_server() as server, opened(server) as client:
        server.always["DeleteMessageBatch"] = say({"Successful": [{"Id": "0"}]})
        polls = [asyncio.create_task(client.receive(10, 20)) for _ in range(120)]
        await server.asked(120)
        assert await client.delete(receipts(1)) == {}
        assert not any(poll.done() for poll in polls)
    await asyncio.wait(polls)


async def test_credentials_that_were_renewed_are_used_at_once() -> None:
    credentials = Credentials(Keys())
    async with (
        http_server(say({}), say({})) as server,
        opened(server, credentials=credentials) as client,
    ):
        await client.receive(1, 0)
        credentials.keys = Keys("AKIAOTHER", "other", None)
        await client.receive(1, 0)
        first, second = server.requests
    assert first.headers["x-amz-security-token"] == "very-secret-too"
    assert "Credential=AKIAOTHER/" in second.headers["authorization"]
    assert "x-amz-security-token" not in second.headers


# --- what is read


BODY = json.dumps({"Messages": [message("é" * 40_000)]}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        say(BODY),
        send(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY), BODY[:10], BODY[10:], keep=True),
        send(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
            BODY[:5],
            b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) - 5, BODY[5:]),
        ),
        send(HEAD + b"Connection: close\r\n\r\n", BODY[:9000], BODY[9000:]),
        send(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"content-length:%d\r\n\r\n" % len(BODY) + BODY),
    ],
    ids=["whole", "in parts", "chunked", "to the end", "after a continue"],
)
async def test_an_answer_may_come_in_any_form(answer: Answer) -> None:
    async with http_server(answer, say({})) as server, opened(server) as client:
        [received] = await client.receive(10, 0)
        assert received.body == "é" * 40_000
        assert not await client.receive(10, 0)


@pytest.mark.parametrize("content", [{}, {"Messages": []}, {"Messages": None}, {"Messages": [], "More": 1}])
async def test_an_answer_without_messages_is_none(content: object) -> None:
    async with http_server(say(content)) as server, opened(server) as client:
        assert not await client.receive(10, 0)


async def test_what_failed_is_told_by_place() -> None:
    mixed = {
        "Successful": [{"Id": "2"}, {"Id": "0"}],
        "Failed": [
            {"Id": "1", "Code": "ReceiptHandleIsInvalid", "Message": "it is stale", "SenderFault": True},
            {"Id": "3", "Code": "InternalError", "SenderFault": False},
        ],
    }
    async with http_server(say(mixed), say(mixed), say({})) as server, opened(server) as client:
        expected = {1: "ReceiptHandleIsInvalid: it is stale", 3: "InternalError"}
        assert await client.delete(receipts(4)) == expected
        assert await client.extend(receipts(4), 9) == expected
        assert list(await client.delete(receipts(2))) == [0, 1]


# --- what can go wrong


CREDENTIALS = "the credentials are not accepted; check AWS_ACCESS_KEY_ID"
NOT_SQS = "what answers is not the service .*; check endpoint_url"
HUNG_UP = "it closed the connection"
EXPIRED = "Signature expired: 20261121T085500Z is now earlier than 20261121T095000Z (20261121T100500Z - 15 min.)"
EARLY = "Signature not yet current: 20261121T110000Z is still later than 20261121T102000Z (20261121T100500Z + 15 min.)"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refuse(400, "QueueDoesNotExist"), r"the queue does not exist there; .* \(ReceiveMessage: QueueDoesNotExist\)"),
        (refuse(400, "AWS.SimpleQueueService.NonExistentQueue"), "the queue does not exist there"),
        (refuse(403, "AccessDeniedException"), r"the credentials do not allow this; .* \(ReceiveMessage: "),
        (refuse(403, "InvalidClientTokenId"), CREDENTIALS),
        (refuse(403, "InvalidSignatureException"), CREDENTIALS),
        (refuse(403, "InvalidSignatureException", EXPIRED), "set this machine's clock"),
        (refuse(403, "SignatureDoesNotMatch", EARLY), "set this machine's clock"),
        (refuse(403, "ExpiredTokenException"), CREDENTIALS),
        (refuse(403, "RequestExpired"), "set this machine's clock"),
        (refuse(400, "OverLimit"), "too many messages are in flight"),
        (refuse(400, "ThrottlingException"), "it is throttled"),
        (refuse(500, "InternalFailure", "try\nlater  "), "ReceiveMessage: InternalFailure: try later$"),
        (say({"__type": "Odd", "Message": "x" * 9000}, 400), "ReceiveMessage: Odd: x{300}$"),
        (say({"__type": "Odd"}, 400), "ReceiveMessage: Odd: no reason given"),
        (say(b"<html>very-secret-too</html>", 503), "ReceiveMessage: HTTP status 503"),
        (say(b"", 403), "ReceiveMessage: HTTP status 403"),
        (say(b"{}", 404), "ReceiveMessage: HTTP status 404"),
        (say(b"", 302, location="http://127.0.0.1:9/"), "ReceiveMessage: HTTP status 302"),
        (say(b""), NOT_SQS),
        (say(b"<html></html>"), NOT_SQS),
        (say(b'{"Messages":['), NOT_SQS),
        (say({"Messages": {}}), NOT_SQS),
        (say({"Messages": [{"MessageId": "m-1"}]}), NOT_SQS),
        (say([]), NOT_SQS),
        (send(b""), HUNG_UP),
        (send(HEAD), HUNG_UP),
        (send(HEAD + b"Content-Length: 100\r\n\r\n", b'{"Messages":'), HUNG_UP),
        (send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n", b'{"M'), HUNG_UP),
        (send(HEAD + b"Connection: close\r\n\r\n", b'{"Messages":'), NOT_SQS),
        (send(b"220 mail.example ESMTP\r\n\r\n"), "check endpoint_url"),
        (send(b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n"), "check endpoint_url"),
        (send(HEAD + b"Content-Length: many\r\n\r\n"), "check endpoint_url"),
        (send(HEAD + b"X: " + b"x" * 200_000 + b"\r\n\r\n"), "check endpoint_url"),
    ],
)
async def test_an_answer_that_is_none_is_an_outage_that_says_what_to_do(answer: Answer, reason: str) -> None:
    async with http_server(answer, say({"Messages": [message("a")]})) as server, opened(server) as client:
        with pytest.raises(SourceUnavailable, match=f"^SQS queue orders: .*{reason}") as raised:
            await client.receive(10, 0)
        assert "very-secret" not in str(raised.value)
        assert "\n" not in str(raised.value)
        [received] = await client.receive(10, 0)
        assert received.body == "a"


@pytest.mark.parametrize(
    "answer",
    [
        stall(),
        stall(HEAD),
        stall(HEAD + b"Content-Length: 100\r\n\r\n{"),
        stall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"),
        stall(HEAD + b"Connection: close\r\n\r\n{}"),
    ],
)
async def test_an_answer_that_stalls_ends_in_time_and_its_connection_with_it(answer: Answer) -> None:
    async with http_server(answer, say({})) as server, opened(server, call_s=1.0) as client:
        with pytest.raises(SourceUnavailable, match=r"SQS queue orders: ReceiveMessage: it did not answer within 1 s"):
            await client.receive(10, 0)
        assert await server.abandoned.get() == 1
        assert not await client.receive(10, 0)


async def test_credentials_that_do_not_come_end_in_time() -> None:
    class Stalling:
        async def get_frozen_credentials(self) -> Keys:
            await asyncio.get_running_loop().create_future()
            return Keys()

    async with http_server() as server, opened(server, call_s=1.0, credentials=Stalling()) as client:
        with pytest.raises(SourceUnavailable, match=r"ReceiveMessage: it did not answer within 1 s"):
            await client.receive(10, 0)
        assert not server.requests


async def test_a_call_that_has_less_time_than_one_before_it_ends_first() -> None:
    async with http_server() as server, opened(server, call_s=1.0) as client:
        poll = asyncio.create_task(client.receive(10, 20))
        await server.asked(1)
        with pytest.raises(SourceUnavailable, match=r"it did not answer within 1 s"):
            await client.delete(receipts(1))
        assert not poll.done()
        poll.cancel()
        await asyncio.wait({poll})


async def test_a_long_poll_has_its_wait_and_the_time_of_a_call() -> None:
    async with http_server() as server, opened(server, call_s=0.1) as client:
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(SourceUnavailable, match=r"it did not answer within 1\.1 s"):
            await client.receive(10, 1)
        assert asyncio.get_running_loop().time() - began_s >= 1.1


@pytest.mark.parametrize("operation", ["delete", "extend", "attributes"])
async def test_every_call_can_fail(operation: str) -> None:
    async with http_server(say({}, 500), stall()) as server, opened(server, call_s=1.0) as client:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "delete": lambda: client.delete(receipts(1)),
            "extend": lambda: client.extend(receipts(1), 5),
            "attributes": lambda: client.attributes("VisibilityTimeout"),
        }
        for reason in ("HTTP status 500", "it did not answer"):
            with pytest.raises(SourceUnavailable, match=reason):
                await calls[operation]()


async def test_an_answer_without_end_is_cut_off() -> None:
    async def pour(writer: asyncio.StreamWriter) -> bool:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
            await writer.drain()

    async with http_server(pour) as server, opened(server) as client:
        with pytest.raises(SourceUnavailable, match="its answer is larger than 64 MiB; check endpoint_url"):
            await client.receive(10, 0)


async def test_a_body_that_was_altered_on_the_way_is_not_given_to_anybody() -> None:
    altered = message("a", MessageId="m-2") | {"Body": "changed"}
    async with http_server(say({"Messages": [message("a"), altered]})) as server, opened(server) as client:
        with pytest.raises(SourceUnavailable, match="SQS queue orders: the body of message m-2 is not what was sent"):
            await client.receive(10, 0)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9", "it cannot be reached; check endpoint_url, region and network"),
        ("http://there-is-no-such-host.invalid", "it cannot be reached; check endpoint_url"),
    ],
)
async def test_an_endpoint_that_is_away_is_named(url: str, reason: str) -> None:
    client = SqsClient(access(url), "https://sqs/1/orders", "SQS queue orders", call_s=PATIENCE_S)
    with pytest.raises(SourceUnavailable, match=f"SQS queue orders: .*{reason}"):
        await client.receive(10, 0)
    await client.close()


async def test_credentials_that_cannot_be_had_are_an_outage() -> None:
    error = CredentialRetrievalError(provider="custom-process", error_msg="exit status 1")
    async with http_server() as server, opened(server, credentials=Credentials(Keys(), error)) as client:
        with pytest.raises(SourceUnavailable, match=r"SQS queue orders: CredentialRetrievalError: .*custom-process"):
            await client.receive(10, 0)
        assert not server.requests


# --- leaving


async def test_a_cancelled_receive_hangs_up() -> None:
    async with http_server() as server, opened(server) as client:
        poll = asyncio.create_task(client.receive(10, 20))
        await server.asked(1)
        poll.cancel()
        await asyncio.wait({poll})
        assert poll.cancelled()
        assert await server.abandoned.get() == 1
        server.script.append(say({}))
        assert not await client.receive(1, 0)


async def test_closing_ends_what_waits_and_what_comes_later() -> None:
    async with http_server() as server, opened(server) as client:
        polls = [asyncio.create_task(client.receive(10, 20)) for _ in range(3)]
        await server.asked(3)
        await asyncio.gather(client.close(), client.close())
        for poll in polls:
            with pytest.raises(SourceUnavailable):
                await poll
        with pytest.raises(SourceUnavailable, match="SQS queue orders: it is closed"):
            await client.receive(10, 0)
        await client.close()


LAST = send(HEAD + b"Content-Length: 2\r\n\r\n{}")


async def test_a_kept_connection_that_the_server_ends_is_replaced() -> None:
    async with http_server(LAST, LAST, say({}), send(b""), say({})) as server, opened(server) as client:
        for _ in range(4):
            assert not await client.receive(1, 0)
        # The last call found its connection ended only when it had sent its request there, or else the one before did.
        assert [request.connection for request in server.requests] == [1, 2, 3, 3, 4]


async def test_a_new_connection_that_ends_is_not_tried_again() -> None:
    async with http_server(send(b""), say({})) as server, opened(server) as client:
        with pytest.raises(SourceUnavailable, match=HUNG_UP):
            await client.receive(1, 0)
        assert len(server.requests) == 1


async def test_a_kept_connection_that_ends_within_its_answer_is_not_tried_again() -> None:
    async with http_server(say({}), send(HEAD), say({})) as server, opened(server) as client:
        await client.receive(1, 0)
        with pytest.raises(SourceUnavailable, match=HUNG_UP):
            await client.receive(1, 0)
        assert len(server.requests) == 2


async def test_what_nobody_asked_for_ends_the_connection() -> None:
    more = HEAD + b"Content-Length: 2\r\n\r\n{}" + HEAD
    async with http_server(send(more, keep=True), say({})) as server, opened(server) as client:
        await client.receive(1, 0)
        await client.receive(1, 0)
        assert server.connections == 2


# --- TLS and proxies


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


async def test_a_trusted_certificate_is_taken(certificate: Certificate) -> None:
    done = {"Successful": [{"Id": "0"}]}
    async with (
        http_server(say({"Messages": [message("é" * 100_000)]}), say(done), tls=serving(certificate)) as server,
        opened(server, ca=str(certificate[0])) as client,
    ):
        [received] = await client.receive(10, 0)
        assert received.body == "é" * 100_000
        assert await client.delete(receipts(1)) == {}
        assert server.connections == 1


async def test_a_certificate_that_is_not_trusted_is_named(certificate: Certificate, tmp_path: Path) -> None:
    other, _ = make_certificate(tmp_path)
    async with http_server(tls=serving(certificate)) as server, opened(server, ca=str(other)) as client:
        with pytest.raises(SourceUnavailable, match="its certificate is not trusted; check endpoint_url and AWS_CA_"):
            await client.receive(10, 0)


async def test_tls_to_a_port_without_it_is_named(certificate: Certificate) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        server = HttpServer(port=listening.sockets[0].getsockname()[1], scheme="https")
        async with opened(server, ca=str(certificate[0])) as client:
            with pytest.raises(SourceUnavailable, match="it does not speak TLS; check whether endpoint_url is https"):
                await client.receive(10, 0)


async def test_a_proxy_is_asked_for_the_whole_url() -> None:
    async with http_server(say({})) as proxy:
        url = f"http://user:word@127.0.0.1:{proxy.port}"
        server = HttpServer(port=9)
        async with opened(server, "/aws", proxy=url) as client:
            await client.receive(10, 0)
        [request] = proxy.requests
    assert request.line == "POST http://127.0.0.1:9/aws HTTP/1.1"
    assert request.headers["host"] == "127.0.0.1:9"
    assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:word").decode()


@pytest.mark.parametrize("answer", [send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), send(b"")])
async def test_a_proxy_that_refuses_is_named(answer: Answer, certificate: Certificate) -> None:
    async with http_server(answer) as proxy:
        server = HttpServer(port=9, scheme="https")
        async with opened(server, proxy=f"http://127.0.0.1:{proxy.port}", ca=str(certificate[0])) as client:
            with pytest.raises(SourceUnavailable, match=r"SQS queue orders: the proxy .* check HTTPS_PROXY"):
                await client.receive(10, 0)
        assert proxy.requests[0].line == "CONNECT 127.0.0.1:9 HTTP/1.1"


async def test_tls_goes_through_a_proxy(certificate: Certificate) -> None:
    def answer(number: int) -> Answer:
        return say({"Messages": [message(f"{number}" * 50_000)]})

    asked: list[bytes] = []

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            await asyncio.gather(pour(reader, server_writer), pour(server_reader, writer))
        except OSError:
            pass  # the client ends its connections without ceremony
        finally:
            writer.close()
            server_writer.close()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(10_000):
            writer.write(data)
        writer.write_eof()

    async with (
        http_server(answer(1), answer(2), tls=serving(certificate)) as server,
        await asyncio.start_server(connect, "127.0.0.1", 0) as proxy,
    ):
        url = f"http://user:word@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with opened(server, proxy=url, ca=str(certificate[0])) as client:
            for number in (1, 2):
                [received] = await client.receive(10, 0)
                assert received.body == f"{number}" * 50_000
    [head] = asked
    assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % (server.port, server.port))
    assert b"proxy-authorization: Basic " in head
    assert b"AWS4" not in head
    assert "proxy-authorization" not in server.requests[0].headers


async def test_a_proxy_that_is_away_is_named() -> None:
    server = HttpServer(port=9)
    async with opened(server, proxy="http://127.0.0.1:9") as client:
        with pytest.raises(SourceUnavailable, match="the proxy that the environment names cannot be reached"):
            await client.receive(10, 0)


# --- uvloop, whose transports differ from asyncio's


@pytest.mark.parametrize(
    "scenario",
    [
        test_calls_one_after_the_other_share_a_connection,
        test_many_long_polls_hold_nobody_up,
        test_an_answer_without_end_is_cut_off,
        test_a_cancelled_receive_hangs_up,
        test_closing_ends_what_waits_and_what_comes_later,
        test_a_kept_connection_that_the_server_ends_is_replaced,
        test_a_kept_connection_that_ends_within_its_answer_is_not_tried_again,
        test_what_nobody_asked_for_ends_the_connection,
        test_a_proxy_is_asked_for_the_whole_url,
        test_a_proxy_that_is_away_is_named,
    ],
)
def test_it_is_the_same_with_uvloop(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(scenario())


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_trusted_certificate_is_taken,
        test_tls_to_a_port_without_it_is_named,
        test_tls_goes_through_a_proxy,
    ],
)
def test_tls_is_the_same_with_uvloop(
    scenario: Callable[[Certificate], Coroutine[Any, Any, None]], certificate: Certificate
) -> None:
    uvloop.run(scenario(certificate))
