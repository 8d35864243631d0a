"""HTTP by hand over real sockets, for what no client library would send."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from router.api.access import Access, Credentials
from router.api.server import Api
from router.http.listener import Listener
from router.http.messages import Response
from router.telemetry import Log

OPEN = Credentials()
PORT = 9301
HOST = f"127.0.0.1:{PORT}"


@dataclass
class Got:
    status: int
    headers: dict
    body: bytes

    @property
    def document(self):
        return json.loads(self.body)


class ApiSite:
    """A site that is the API alone."""

    def __init__(self, operations, *, host="127.0.0.1", wall=lambda: 0.0, credentials=OPEN):
        self.access = Access(host, wall, credentials)
        # What requests call it by, wherever it listens.
        self.access.port = PORT
        self._api = Api(operations, self.access, Log())

    def plan(self, request):
        return self._api.plan(request)

    def unreadable(self, status, message):
        return Response(status, json.dumps({"message": message}).encode())


@asynccontextmanager
async def listening(site, wall=lambda: 0.0, **options):
    """A listener, and its port."""
    listener = Listener(site, wall, **options)
    port = await listener.start("127.0.0.1", 0)
    try:
        yield listener, port
    finally:
        await listener.close(1.0)


async def until(fact):
    """Let others go on until something is so."""
    while not fact():  # noqa: ASYNC110 - nobody announces it
        await asyncio.sleep(0)


def head(method, path, length=None, **headers):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {headers.pop('Host', HOST)}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def post(path, body=b"", **headers):
    return head("POST", path, len(body), **headers) + body


async def read_answer(reader, *, is_bare=False):
    """Read one answer; None where the connection ends before it."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
    first, *lines = text.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    length = 0 if is_bare else int(headers.get("content-length", 0))
    return Got(int(first.split()[1]), headers, await reader.readexactly(length))


@asynccontextmanager
async def connected(port, **options):
    """A client's reader and writer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ask(port, data):
    """Send bytes on a connection of their own, and give the answer."""
    async with connected(port) as (reader, writer):
        writer.write(data)
        return await read_answer(reader)
