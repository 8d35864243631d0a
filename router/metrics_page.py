"""The page of metrics, for readers of any speed.

A page of many mappings is some megabytes, and somebody who reads it slowly, or never, holds it for as long. So the page
is made once for all who ask within a second, is written in pieces as it is read, and who has not read it in time, or is
the oldest of too many, is cut off. What one reader holds is then one piece, and the daemon waits for none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

#: A page is as new as this, seconds.
FRESH_S: Final = 1.0
#: Time in which a page must have been read: as long as Prometheus waits for one.
READ_S: Final = 10.0
#: Readers at once; with one more, the oldest goes.
READERS: Final = 16
#: More than aiohttp takes without waiting for what was written before.
PIECE_BYTES: Final = 128 * 1024


class MetricsPage:
    """Makes the page when somebody asks, and writes it to who asked."""

    def __init__(
        self, registry: CollectorRegistry, set_gauges: Callable[[], Awaitable[None]], read_s: float = READ_S
    ) -> None:
        self._registry = registry
        self._set_gauges = set_gauges
        self._read_s = read_s
        self._making: asyncio.Task[bytes] | None = None
        #: Loop time at which the page was asked for.
        self._asked_s = 0.0
        #: The connections of those who read, oldest first.
        self._readers: dict[int, asyncio.Transport] = {}

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Answer a request; returns when the page was read, or the reader was cut off."""
        body = await asyncio.shield(self._page())
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_LATEST, "Content-Length": str(len(body))})
        transport = request.transport
        if transport is None:  # it has gone meanwhile
            return response
        with self._reading(transport), contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(self._read_s):
                    await _write(body, response, request, transport)
            except TimeoutError:
                transport.abort()
        return response

    @contextlib.contextmanager
    def _reading(self, transport: asyncio.Transport) -> Iterator[None]:
        """Count a reader."""
        if len(self._readers) >= READERS:
            self._readers.pop(next(iter(self._readers))).abort()
        self._readers[id(transport)] = transport
        try:
            yield
        finally:
            self._readers.pop(id(transport), None)

    def _page(self) -> asyncio.Task[bytes]:
        now_s = asyncio.get_running_loop().time()
        if self._making is None or (self._making.done() and now_s - self._asked_s >= FRESH_S):
            self._asked_s = now_s
            self._making = asyncio.ensure_future(self._make())
        return self._making

    async def _make(self) -> bytes:
        await self._set_gauges()
        # In a thread: the page of a thousand mappings takes half a second.
        return await asyncio.to_thread(generate_latest, self._registry)


async def _write(body: bytes, response: web.StreamResponse, request: web.Request, transport: asyncio.Transport) -> None:
    """Write a page piece by piece; returns when the kernel has all of it."""
    transport.set_write_buffer_limits(0)
    await response.prepare(request)
    last = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES
    for at in range(0, last, PIECE_BYTES):
        await response.write(body[at : at + PIECE_BYTES])
    await response.write_eof(body[last:])
