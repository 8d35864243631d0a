"""HTTP/1.1 for calls that are many and small: POST with a body in memory, one at a time on each kept connection.

A general client spends several times what such a call needs: 105 us of CPU against 17 us here, most of which is the
kernel's. So there are no redirects, cookies, compression, streams or other methods.

Nothing is repeated, with one exception that servers make necessary: they end kept connections when they like, also just
when a request is on its way. When a connection that has served before ends before any byte of the answer, the request
is sent once more on a new one.

Sources: RFC 9112 (messages), RFC 9110 (CONNECT, 9.3.6).
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, cast
from urllib.parse import SplitResult, unquote, urlsplit

from connectors.http_answer import Answer, AnswerReader, HttpError

_CONNECT_S: Final = 5.0
_CLOSE_S: Final = 5.0


class Unreachable(HttpError):
    """No connection can be made."""


class Untrusted(HttpError):
    """The server's certificate is not trusted."""


class NoTls(HttpError):
    """The server speaks no TLS, or none that we speak."""


class Unanswered(HttpError):
    """A request was sent, and not answered in time."""


class ProxyRefused(HttpError):
    """The proxy cannot be reached, or makes no connection for us."""


class HungUp(HttpError):
    """The connection ended before its answer did."""

    def __init__(self, *, answering: bool) -> None:
        super().__init__()
        #: Had the answer begun?
        self.answering = answering


class HttpClient:
    """Posts to one URL, on as many connections as there are calls at once."""

    def __init__(
        self, url: str, *, host_header: str, ca: str | None, proxy: str | None, limit_bytes: int, keep_s: float = 15.0
    ) -> None:
        """Prepare without I/O.

        Args:
            url: http or https; its path and query are sent as they stand.
            host_header: the Host that requests name.
            ca: PEM file of the authorities to trust, looked at for https only; None = the system's.
            proxy: URL of a proxy; it may hold a login.
            limit_bytes: largest body of an answer.
            keep_s: longest time a connection is kept without a call.

        Raises:
            OSError: `ca` cannot be used.
            ValueError: a URL is none.
        """
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = None
        if parts.scheme == "https":
            self._tls = _trusting(ca, Path(ca).stat().st_mtime_ns if ca else 0)
        self._proxy = _Proxy(proxy) if proxy else None
        self._limit_bytes = limit_bytes
        self._keep_s = keep_s
        place = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        start = f"POST {place} HTTP/1.1\r\n"
        if self._proxy and not self._tls:
            start = f"POST http://{host_header}{place} HTTP/1.1\r\n{self._proxy.login}"
        self._start = start
        #: Connections without a call, the last used last.
        self._kept: list[_Connection] = []
        self._open: set[_Connection] = set()
        self.closed = False

    async def post(self, headers: Mapping[str, str], body: bytes, answer_s: float | None = None) -> Answer:
        """Send a request and give its answer; when this is cancelled, the connection ends.

        Args:
            headers: all but Content-Length, a Host among them.
            body: all of it.
            answer_s: longest time from sending it to the end of the answer; None = as long as it takes.

        Raises:
            HttpError
        """
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = f"{self._start}{fields}content-length: {len(body)}\r\n\r\n".encode() + body
        kept = self._take_kept()
        if kept:
            try:
                return await self._ask(kept, request, answer_s)
            except HungUp as error:
                if error.answering or self.closed:
                    raise
        return await self._ask(await self._connect(), request, answer_s)

    async def reach(self) -> None:
        """Make a connection without sending anything; it is kept. Raises HttpError."""
        self._keep(await self._connect())

    async def close(self) -> None:
        """End all connections and the calls on them. May come twice."""
        self.closed = True
        ends = [connection.end() for connection in self._open]
        if ends:
            # They have ended already; the event loop's word for it need not come.
            await asyncio.wait(ends, timeout=_CLOSE_S)

    # --- connections

    async def _ask(self, connection: _Connection, request: bytes, answer_s: float | None) -> Answer:
        try:
            # Whoever sets no limit has one timer for many calls.
            async with asyncio.timeout(answer_s):
                answer = await connection.ask(request, AnswerReader(self._limit_bytes))
        except TimeoutError as error:
            connection.end()
            raise Unanswered from error
        except BaseException:
            connection.end()
            raise
        self._keep(connection)
        return answer

    def _keep(self, connection: _Connection) -> None:
        if connection.stays and not self.closed:
            connection.kept_since_s = asyncio.get_running_loop().time()
            self._kept.append(connection)
        else:
            connection.end()

    def _take_kept(self) -> _Connection | None:
        """Take the connection that was used last, and end those that nobody has needed for too long."""
        oldest_s = asyncio.get_running_loop().time() - self._keep_s
        while self._kept and self._kept[0].kept_since_s <= oldest_s:
            self._kept.pop(0).end()
        while self._kept:
            connection = self._kept.pop()
            if not connection.is_ending:
                return connection
            connection.end()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(_CONNECT_S):
                if self._proxy and self._tls:
                    connection = await self._connect_through(self._proxy, self._tls)
                elif self._proxy:
                    connection = await self._connect_to(self._proxy)
                else:
                    _, connection = await asyncio.get_running_loop().create_connection(
                        self._made, self._host, self._port, ssl=self._tls
                    )
        except ssl.SSLCertVerificationError as error:
            raise Untrusted from error
        except ssl.SSLError as error:
            raise NoTls from error
        except (OSError, ValueError) as error:  # the latter for names that no host can have
            raise Unreachable from error
        if self.closed:
            connection.end()
            raise HungUp(answering=False)
        return connection

    async def _connect_to(self, proxy: _Proxy) -> _Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(self._made, proxy.host, proxy.port)
        except (OSError, ValueError) as error:
            raise ProxyRefused from error
        return connection

    async def _connect_through(self, proxy: _Proxy, tls: ssl.SSLContext) -> _Connection:
        connection = await self._connect_to(proxy)
        try:
            await self._ask_through(proxy, connection)
            await connection.encrypt(tls, self._host)
        except BaseException:
            connection.end()
            raise
        return connection

    async def _ask_through(self, proxy: _Proxy, connection: _Connection) -> None:
        """Let the proxy make a connection of its own and hand it through."""
        place = f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        request = f"CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n{proxy.login}\r\n".encode()
        try:
            answer = await connection.ask(request, AnswerReader(self._limit_bytes, connecting=True))
        except HttpError as error:
            raise ProxyRefused from error
        if answer.status >= 300 or not connection.stays:
            raise ProxyRefused

    def _made(self) -> _Connection:
        return _Connection(self._open, self._kept)


@lru_cache(maxsize=4)
def _trusting(ca: str | None, _: int) -> ssl.SSLContext:
    """Trust the authorities of a file of this age; read once for all clients, as that takes 30 ms and 700 KB."""
    return ssl.create_default_context(cafile=ca)


class _Proxy:
    """A proxy by its URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        #: A line of the head that logs in, or nothing.
        self.login = _login(parts)


def _login(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"proxy-authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"


class _Connection(asyncio.Protocol):
    """One connection, for one call at a time."""

    def __init__(self, open_ones: set[_Connection], kept_ones: list[_Connection]) -> None:
        self._open_ones = open_ones
        self._kept_ones = kept_ones
        self._transport: asyncio.Transport
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Answer | HttpError]
        #: May it serve another call?
        self.stays = True
        #: Time of the loop since which it has no call.
        self.kept_since_s = 0.0

    async def ask(self, request: bytes, reader: AnswerReader) -> Answer:
        self._reader = reader
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        answer = await self._answer
        self._reader = None
        if isinstance(answer, HttpError):
            raise answer
        self.stays = reader.stays
        return answer

    async def encrypt(self, tls: ssl.SSLContext, host: str) -> None:
        transport = await asyncio.get_running_loop().start_tls(self._transport, self, tls, server_hostname=host)
        if transport is None:
            raise ConnectionResetError
        self._transport = transport

    @property
    def is_ending(self) -> bool:
        return self._transport.is_closing()

    def end(self) -> asyncio.Future[None]:
        """End it at once; give what is done when it has ended."""
        self._transport.abort()
        return self._ended

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answer.done():
            # Nobody has asked: what it says next would be taken for an answer.
            self._transport.abort()
            return
        try:
            answer: Answer | HttpError | None = self._reader.feed(data)
        except HttpError as error:
            answer = error
        if answer:
            self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self)
        if self in self._kept_ones:
            self._kept_ones.remove(self)
        self._ended.set_result(None)
        if self._reader is None or self._answer.done():
            return
        answer = None if exc else self._reader.end()
        self._answer.set_result(answer or HungUp(answering=self._reader.started))
