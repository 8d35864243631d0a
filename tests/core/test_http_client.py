"""Connections that are kept from one call to the next, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connectors.http_client import HttpClient, HungUp
from tests.fakes.http_server import HttpServer, http_server, say


@asynccontextmanager
async def opened(server: HttpServer, *, keep_s: float = 15.0) -> AsyncIterator[HttpClient]:
    client = HttpClient(server.url, host_header="example", ca="", proxy=None, limit_bytes=1000, keep_s=keep_s)
    try:
        async with asyncio.timeout(20):
            yield client
    finally:
        await client.close()


async def post(client: HttpClient) -> int:
    return (await client.post({"host": "example"}, b"{}")).status


async def test_a_connection_is_not_kept_for_ever() -> None:
    async with http_server(*[say({})] * 3) as server, opened(server, keep_s=0.0) as client:
        for _ in range(3):
            assert await post(client) == 200
        assert [request.connection for request in server.requests] == [1, 2, 3]


async def test_connections_are_as_many_as_calls_at_once_and_the_last_used_is_used_first() -> None:
    async with http_server(*[say({})] * 9) as server, opened(server) as client:
        await asyncio.gather(*(post(client) for _ in range(3)))
        assert sorted(request.connection for request in server.requests) == [1, 2, 3]
        await asyncio.gather(*(post(client) for _ in range(3)))
        assert server.connections == 3
        for _ in range(3):
            await post(client)
        assert len({request.connection for request in server.requests[6:]}) == 1


async def test_connections_that_a_burst_has_left_end_while_others_are_used() -> None:
    async with http_server(*[say({})] * 50) as server, opened(server, keep_s=2.0) as client:
        await asyncio.gather(*(post(client) for _ in range(5)))
        assert len(client._kept) == 5
        while len(client._kept) > 1:
            await post(client)
            server.script.append(say({}))
            await asyncio.sleep(0.05)  # time must pass, and much less than it takes for the one that is used to end
        assert server.connections == 5


async def test_a_request_is_sent_as_it_stands() -> None:
    async with http_server(say({})) as server, opened(server) as client:
        await client.post({"host": "example", "x-name": "value"}, b"{\r\n\r\n}")
        [request] = server.requests
    assert request.line == "POST / HTTP/1.1"
    assert request.headers == {"host": "example", "x-name": "value", "content-length": "6"}
    assert request.body == b"{\r\n\r\n}"


async def test_a_call_that_was_connecting_when_all_was_closed_ends() -> None:
    async with http_server() as server, opened(server) as client:
        call = asyncio.create_task(post(client))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(HungUp):
            await call
        assert not server.requests
