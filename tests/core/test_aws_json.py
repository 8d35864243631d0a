"""What callers of AWS's JSON protocol can tell apart: refusals by code, throttles, and the service's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from connectors.aws_json import AT_ONCE, JsonClient, Refused
from router.errors import SourceUnavailable, Throttled
from tests.core.test_sqs_client import access
from tests.fakes.http_server import Answer, http_server, refuse, say

PATIENCE_S = 20.0


@asynccontextmanager
async def asking(*answers: Answer) -> AsyncIterator[JsonClient]:
    async with http_server(*answers) as server:
        client = JsonClient(access(server.url), service="kinesis", target="Kinesis", version="1.1", what="stream c")
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield client
        finally:
            await client.close()


async def ask(client: JsonClient) -> object:
    return await client.call("GetRecords", b"{}", PATIENCE_S, msgspec.json.decode)


async def test_a_refusal_has_the_services_code() -> None:
    async with asking(refuse(400, "ExpiredIteratorException")) as client:
        with pytest.raises(Refused, match="stream c: GetRecords: ExpiredIteratorException: it said no") as refused:
            await ask(client)
    assert refused.value.code == "ExpiredIteratorException"


async def test_an_error_without_words_of_the_service_has_no_code() -> None:
    async with asking(say(b"<html>", 502)) as client:
        with pytest.raises(Refused, match="HTTP status 502") as refused:
            await ask(client)
    assert refused.value.code == ""


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException"]
)
async def test_too_much_asked_is_a_throttle(code: str) -> None:
    async with asking(refuse(400, code)) as client:
        with pytest.raises(Throttled, match="it is throttled"):
            await ask(client)


async def test_the_services_clock_is_that_of_its_last_answer() -> None:
    early, late = "Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:07 GMT"
    async with asking(say({}, Date=early), say({"__type": "x"}, 500, Date=late), say({}, Date="soon")) as client:
        assert client.server_time_s is None
        await ask(client)
        assert client.server_time_s == 1767225600
        with pytest.raises(SourceUnavailable):
            await ask(client)
        assert client.server_time_s == 1767225607
        await ask(client)
        assert client.server_time_s is None


async def test_a_thousand_calls_take_turns_on_a_bounded_number_of_connections() -> None:
    waiting, most, all_came = 0, 0, asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> bool:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        if waiting == AT_ONCE:
            all_came.set()
        await all_came.wait()
        waiting -= 1
        return await say({})(writer)

    async with asking(*[answer] * 1000) as client:
        assert await asyncio.gather(*(ask(client) for _ in range(1000))) == [{}] * 1000
    assert most == AT_ONCE
