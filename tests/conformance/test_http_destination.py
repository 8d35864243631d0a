"""An HTTP endpoint as a destination, against the suite, and what it alone must do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connectors.http_destination import HttpSender
from connectors.settings import HttpDestination, Secret
from router.errors import DestinationUnavailable
from router.ports import Sent
from tests.conformance.destination import (
    DestinationConformance,
    LimitConformance,
    Received,
    assert_claim_check,
    message,
)
from tests.fakes.certificates import make_certificate, serving
from tests.fakes.http_server import http_server, send
from tests.fakes.receiver import SECRET, Receiver, receiver

PATIENCE_S = 20.0


def sender(
    url: str,
    *,
    secret: str | None = SECRET,
    headers: Mapping[str, Secret] | None = None,
    ca: Path | None = None,
    timeout_s: float = PATIENCE_S,
) -> HttpSender:
    return HttpSender(HttpDestination(Secret(url), Secret(secret) if secret else None, headers or {}, ca, timeout_s))


@dataclass
class HttpPlace:
    receiver: Receiver
    destination: HttpSender = field(init=False)
    payload = "event"

    def __post_init__(self) -> None:
        self.destination = sender(self.receiver.url)

    async def make(self) -> None:
        self.receiver.exists = True

    async def remove(self) -> None:
        self.receiver.exists = False
        self.receiver.accepted.clear()

    async def limit(self, limit_bytes: int) -> None:
        self.receiver.limit_bytes = limit_bytes

    async def received(self, count: int) -> Received:
        assert len(self.receiver.records) == count
        return [(None, record) for record in self.receiver.records]


class TestHttp(DestinationConformance, LimitConformance):
    @pytest.fixture
    async def place(self) -> AsyncIterator[HttpPlace]:
        async with receiver(exists=False) as other_end:
            place = HttpPlace(other_end)
            yield place
            await place.destination.close()

    async def test_what_is_posted_names_the_failure_and_is_json(self, place: HttpPlace) -> None:
        await place.make()
        for _ in range(2):
            await place.destination.send(message("f1"))
        for headers, _ in place.receiver.accepted:
            assert headers["webhook-id"] == "f1"
            assert headers["content-type"] == "application/json"
        assert place.receiver.asked == ["POST /hooks/failed"] * 2

    async def test_only_the_payload_is_left_out_where_the_rest_fits(self, place: HttpPlace) -> None:
        await place.make()
        await place.limit(2000)
        sent = message(event=json.dumps({"Records": ["A" * 3000]}).encode())
        assert await place.destination.send(sent) is Sent.CLAIM_CHECK
        [record] = place.receiver.records
        assert_claim_check(record, sent)
        assert record["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert record["KafkaBatchInfo"] == {"batchSize": 3}

    async def test_another_secret_is_named(self, place: HttpPlace) -> None:
        await place.make()
        place.receiver.secret = "whsec_" + "A" * 32
        for attempt in (place.destination.check(), place.destination.send(message())):
            with pytest.raises(DestinationUnavailable, match=r"does not accept our signature; check that secret") as it:
                await attempt
            assert SECRET not in str(it.value)

    @pytest.mark.parametrize(
        ("status", "meaning"),
        [
            (301, "redirects are not followed; correct url"),
            (403, "does not let us in"),
            (422, r"it did not accept it \(422\)"),
            (429, "throttled"),
            (500, "it is broken; look at its log"),
            (503, "throttled or away"),
        ],
    )
    async def test_a_refusal_is_named(self, place: HttpPlace, status: int, meaning: str) -> None:
        place.receiver.status = status
        with pytest.raises(DestinationUnavailable, match=meaning):
            await place.destination.send(message())
        assert len(place.receiver.asked) == 1


async def test_headers_of_the_file_are_sent_and_never_shown() -> None:
    async with receiver() as other_end:
        destination = sender(other_end.url, headers={"Authorization": Secret("Bearer very-secret")})
        await destination.send(message())
        [(headers, _)] = other_end.accepted
        assert headers["authorization"] == "Bearer very-secret"
        other_end.status = 403
        with pytest.raises(DestinationUnavailable) as raised:
            await destination.send(message())
        await destination.close()
        assert "very-secret" not in str(raised.value)


async def test_the_code_of_the_docs_verifies_what_is_posted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "destinations.md").read_text()
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    verify = names["verify"]
    async with receiver() as other_end:
        destination = sender(other_end.url)
        await destination.send(message())
        await destination.close()
        [(given, body)] = other_end.accepted
    headers = {name.lower(): value for name, value in given.items()}
    sent_s = int(headers["webhook-timestamp"])
    assert verify(SECRET, headers, body, sent_s + 10.0)
    assert not verify(SECRET, headers, body + b" ", sent_s + 10.0)
    assert not verify(SECRET, {**headers, "webhook-id": "f2"}, body, sent_s + 10.0)
    assert not verify("whsec_" + "A" * 32, headers, body, sent_s + 10.0)
    assert not verify(SECRET, headers, body, sent_s + 301.0)
    assert verify(SECRET, {**headers, "webhook-signature": f"v1,other {headers['webhook-signature']}"}, body, sent_s)


async def test_without_a_secret_nothing_is_signed() -> None:
    async with receiver(secret=None) as other_end:
        destination = sender(other_end.url, secret=None)
        await destination.check()
        await destination.send(message())
        await destination.close()
        [(headers, _)] = other_end.accepted
        assert "webhook-signature" not in headers


async def test_a_query_is_posted_to_and_never_shown() -> None:
    async with receiver(status=500) as other_end:
        destination = sender(f"{other_end.url}?token=very-secret")
        assert destination.name == f"http:127.0.0.1:{other_end.port}"
        with pytest.raises(DestinationUnavailable, match=rf"http://127.0.0.1:{other_end.port}: it is broken") as raised:
            await destination.send(message())
        await destination.close()
        assert other_end.asked == ["POST /hooks/failed?token=very-secret"]
        assert "very-secret" not in str(raised.value)
        assert "hooks" not in str(raised.value)


async def test_one_that_never_answers_is_given_up_and_used_again_once_it_does() -> None:
    async with receiver() as other_end:
        destination = sender(other_end.url, timeout_s=0.2)
        other_end.answers.clear()
        for attempt in (destination.check(), destination.send(message())):
            with pytest.raises(DestinationUnavailable, match="did not answer in time; look at it, or raise timeout"):
                await attempt
        await destination.close()
        other_end.answers.set()
        again = sender(other_end.url)
        assert await again.send(message("f2")) is Sent.WHOLE
        await again.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n", b""])
async def test_one_that_hangs_up_on_what_is_too_large_gets_a_claim_check(answer: bytes) -> None:
    """Servers may answer 413, or not, and hang up before they have read a body; the answer may then be lost."""
    accepted: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split()[0])
        if size > 100_000:
            writer.write(answer)
            await writer.drain()
            writer.transport.abort()
            return
        accepted.append(await reader.readexactly(size))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        destination = sender(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        sent = message(event=json.dumps({"Records": ["A" * 5_000_000]}).encode())
        assert await destination.send(sent) is Sent.CLAIM_CHECK
        await destination.close()
    [body] = accepted
    assert_claim_check(json.loads(body), sent)


async def test_one_that_is_away_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid"):
        destination = sender(f"http://{host}/hooks")
        for attempt in (destination.check(), destination.send(message())):
            with pytest.raises(DestinationUnavailable, match=f"http://{host}: it cannot be reached; check url"):
                await attempt


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "speaks no HTTP"),
        (b"\x00\xff" * 5000, "speaks no HTTP"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "closed the connection"),
    ],
)
async def test_garbage_for_an_answer_is_named(answer: bytes, meaning: str) -> None:
    async with http_server(send(answer)) as server:
        destination = sender(server.url)
        with pytest.raises(DestinationUnavailable, match=meaning):
            await destination.send(message())
        await destination.close()


async def test_a_large_answer_is_not_read() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n"
    async with http_server(send(head, b"x" * 100_000, keep=True)) as server:
        destination = sender(server.url)
        assert await destination.send(message()) is Sent.WHOLE
        await destination.close()


async def test_an_untrusted_certificate_is_named_and_trusted_with_its_authority(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with receiver(serving(certificate)) as other_end:
        stranger = sender(other_end.url)
        with pytest.raises(DestinationUnavailable, match="its certificate is not trusted; set ca, or correct url"):
            await stranger.send(message())
        trusting = sender(other_end.url, ca=certificate[0])
        assert await trusting.send(message()) is Sent.WHOLE
        await trusting.close()
        broken = sender(other_end.url, ca=Path(__file__))
        with pytest.raises(DestinationUnavailable, match="the file of ca cannot be used"):
            await broken.send(message())


async def test_one_without_tls_is_named() -> None:
    async with receiver() as other_end:
        destination = sender(other_end.url.replace("http:", "https:"))
        with pytest.raises(DestinationUnavailable, match="it speaks no TLS"):
            await destination.send(message())


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        destination = sender("http://hooks.invalid/hooks/failed")
        await destination.send(message())
        await destination.close()
        [(headers, _)] = proxy.accepted
        assert headers["host"] == "hooks.invalid"
