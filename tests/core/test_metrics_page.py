"""The page of metrics, and those who read it slowly or not at all."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from router.metrics_page import PIECE_BYTES, READERS, MetricsPage

#: Enough that no buffer between two sockets holds a page (Linux: up to 2.6 MB on loopback).
SERIES = 20_000


@pytest.fixture(scope="module")
def registry():
    made = CollectorRegistry()
    counter = Counter("records", "Records.", ("mapping",), registry=made)
    for number in range(SERIES):
        counter.labels(f"{number:06}, a mapping with a name of 300 letters".ljust(300, "x")).inc()
    return made


class Gauges:
    def __init__(self):
        self.set_count = 0

    async def set(self):
        self.set_count += 1


@asynccontextmanager
async def serving(registry, **options):
    """Give the port of a server, what is asked to set the gauges, and the connections it has."""
    gauges = Gauges()
    page = MetricsPage(registry, gauges.set, **options)
    app = web.Application()
    app.add_routes([web.get("/metrics", page.respond)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1], gauges, runner.server
    finally:
        await runner.cleanup()


async def read_page(port):
    """Give what a reader gets that reads as fast as it can."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: headrace\r\nConnection: close\r\n\r\n")
    try:
        return await reader.read()
    finally:
        writer.close()


async def ask_and_stop_reading(port):
    """Give a connection that has asked for the page, and that has seen its beginning."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\nHost: headrace\r\n\r\n")
    assert await loop.sock_recv(client, 1) == b"H"
    return client


async def until_cut_off(client):
    """Read what is left, up to the end that the server makes."""
    loop = asyncio.get_running_loop()
    count = 0
    try:
        while piece := await loop.sock_recv(client, 1 << 16):
            count += len(piece)
    except ConnectionResetError:
        pass
    return count


async def test_slow_readers_hold_up_nobody_and_hold_a_piece_each(registry):
    async with serving(registry) as (port, _, server):
        slow = await asyncio.gather(*(ask_and_stop_reading(port) for _ in range(READERS)))
        try:
            page = await read_page(port)
            assert page.count(b"\nrecords_total{") == SERIES
            # What the server holds for them is what it has not handed to the kernel yet.
            held = [each.transport.get_write_buffer_size() for each in server.connections if each.transport]
            assert sum(held) <= READERS * PIECE_BYTES < len(page)
        finally:
            for client in slow:
                client.close()


async def test_the_oldest_of_too_many_readers_goes(registry):
    async with serving(registry) as (port, _, _):
        first = await ask_and_stop_reading(port)
        others = await asyncio.gather(*(ask_and_stop_reading(port) for _ in range(READERS)))
        try:
            page = len(await read_page(port))
            assert await until_cut_off(first) < page
        finally:
            for client in (first, *others):
                client.close()


async def test_who_does_not_read_in_time_is_cut_off(registry):
    async with serving(registry, read_s=0.1) as (port, _, server):
        client = await ask_and_stop_reading(port)
        while server.connections:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
        assert await until_cut_off(client) < SERIES * 300
        client.close()


async def test_a_page_is_made_once_for_all_who_ask_at_a_time(registry):
    async with serving(registry) as (port, gauges, _):
        pages = await asyncio.gather(*(read_page(port) for _ in range(8)))
        assert gauges.set_count == 1
        assert len({page.split(b"\r\n\r\n", 1)[1] for page in pages}) == 1


async def test_a_connection_takes_further_requests(registry):
    async with serving(registry) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: headrace\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert head.startswith("http/1.1 200 ")
            [length] = [line.split(":")[1] for line in head.splitlines() if line.startswith("content-length")]
            assert len(await reader.readexactly(int(length))) > SERIES
        writer.close()
