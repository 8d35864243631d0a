"""One connection of a client: its bytes become requests, one after the other, and answers become bytes.

What the client may do is bounded: size of a request's head and body, and the time in which each must have come or been
read. Deadlines are looked at by the listener, so that a request costs no timer. Bodies must say their length: no client
of AWS sends them in pieces, and what ends where is then never in doubt. Who sends a request before the last one is
answered has the connection closed behind that answer (RFC 9112, 9.3.2, lets us). Parsed by llhttp, which is strict.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final, Protocol, cast

import httptools

from router.http.messages import Plan, Request, Response, Site, written

#: Largest request line with headers; AWS takes a client context of 3.5 KB, and session tokens of some KB.
HEAD_BYTES: Final = 32 * 1024
#: A body that has come at once and is no larger is not counted as held.
_SMALL_BYTES: Final = 16 * 1024
_LARGE_HEAD: Final = f"request line and headers are larger than {HEAD_BYTES} bytes together"


@dataclass(frozen=True, slots=True)
class Times:
    """How long a client may take, seconds."""

    #: From its first byte, or from the connection's begin, until a request's head has come.
    head_s: float = 10.0
    #: Then for its body, beside what its size takes.
    body_s: float = 10.0
    #: Between two requests.
    idle_s: float = 30.0
    #: To read an answer, beside what its size takes; as long as Prometheus waits for one.
    read_s: float = 10.0
    #: How long what comes behind a refusal is read and thrown away, so that its sender comes to read the refusal.
    linger_s: float = 5.0
    #: Bodies and answers have more time by their size: so many bytes in each second.
    rate_bytes: int = 128 * 1024


TIMES: Final = Times()


class Stage(Enum):
    """Where a connection stands."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    #: The answer is not read yet.
    WRITTEN = auto()
    #: What comes is thrown away until the client has read why.
    LINGERING = auto()
    GONE = auto()


class Host(Protocol):
    """What connections are with: the listener."""

    site: Site
    times: Times

    def now_s(self) -> float:
        """Give the time of the loop."""
        ...

    def date(self) -> str:
        """Give the time as a header has it."""
        ...

    def joined(self, connection: Connection) -> None: ...

    def left(self, connection: Connection) -> None: ...

    def hold(self, connection: Connection, count: int) -> None:
        """Count bytes that are kept for a connection from now on; cuts off who has been slow where it is too much."""
        ...

    def has_room(self, connection: Connection, count: int) -> bool:
        """Say whether so many bytes may be kept for a connection, beside those of requests that are being answered."""
        ...

    def release(self, connection: Connection) -> None:
        """Count none any more."""
        ...

    def carry_out(self, connection: Connection, plan: Plan, request: Request) -> None:
        """Have a request answered, by `Connection.answered`."""
        ...


class Connection(asyncio.Protocol):
    """A client."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parser = httptools.HttpRequestParser(self)
        self._stage = Stage.IDLE
        #: When it is cut off, and since when we wait for it, in time of the loop.
        self.deadline_s = math.inf
        self.since_s = 0.0
        #: Bytes that are kept for it.
        self.held_bytes = 0
        #: The stage that the deadline is for.
        self._timed = Stage.IDLE
        #: The head so far: bytes, and what they say.
        self._head_bytes = 0
        self._target = b""
        self._pairs: list[tuple[bytes, bytes]] = []
        #: The request whose head has come, and its body so far.
        self._request = Request("GET", "", "", {})
        self._plan: Plan | None = None
        self._length = 0
        self._body: list[bytes] = []
        #: Bytes of it that are to come without the parser, which ends where another protocol is offered.
        self._bare_bytes = 0
        #: Bytes of it that are not counted as held yet.
        self._fresh_bytes = 0
        #: Does the connection end with the answer, and may something be coming that nobody will read?
        self._is_last = False
        self._is_unread = False
        self._is_full = False

    @property
    def is_awaited(self) -> bool:
        """Do we wait for the client? Else it waits for us."""
        return self._stage not in (Stage.ANSWERING, Stage.GONE)

    # --- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(0)
        self._host.joined(self)
        self._wait(Stage.IDLE, self._host.times.head_s)

    def connection_lost(self, _: Exception | None) -> None:
        self._stage = Stage.GONE
        self._host.left(self)

    def data_received(self, data: bytes) -> None:
        if self._stage is Stage.IDLE:
            self._stage = Stage.HEAD
        elif self._stage is Stage.ANSWERING or self._stage is Stage.WRITTEN:
            self._is_last = self._is_unread = True
            self._transport.pause_reading()
        if self._stage is Stage.HEAD or self._stage is Stage.BODY:
            self._parse(data)
            self._look()

    def eof_received(self) -> bool:
        """Stay for what is being answered: a client may shut its side down once it has asked."""
        self._is_last = True
        return self._stage in (Stage.ANSWERING, Stage.WRITTEN)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._stage is Stage.WRITTEN:
            self._was_read()

    # --- the parser

    def _parse(self, data: bytes) -> None:
        if self._stage is Stage.HEAD:
            self._head_bytes += len(data)
        if self._bare_bytes:
            self._take_bare(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._is_last = True  # what we do not speak is not taken up (RFC 9110, 7.8)
            self._take_bare(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(400, f"this is no HTTP request: {error}")
        if self._stage is Stage.HEAD and self._head_bytes > HEAD_BYTES:
            self._refuse(431, _LARGE_HEAD)

    def _take_bare(self, data: bytes) -> None:
        """Take what comes of the body of a request that offers another protocol."""
        if self._stage is not Stage.BODY:
            return
        piece = data[: self._bare_bytes]
        self._bare_bytes -= len(piece)
        self._is_unread |= len(piece) < len(data)
        self.on_body(piece)
        self.on_message_complete()

    def on_message_begin(self) -> None:
        if self._stage is not Stage.HEAD:  # it came with the one before
            self._is_last = self._is_unread = True

    def on_url(self, url: bytes) -> None:
        if self._stage is Stage.HEAD:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage is Stage.HEAD:
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        if self._stage is not Stage.HEAD:
            return
        if self._is_large():
            self._refuse(431, _LARGE_HEAD)
            return
        path, _, query = self._target.decode("latin-1").partition("?")
        headers = _read_headers(self._pairs)
        self._request = Request(self._parser.get_method().decode(), path, query, headers)
        if mistake := self._mistake(headers):
            self._refuse(*mistake)
            return
        plan = self._host.site.plan(self._request)
        self._length = int(headers.get("content-length", 0))
        if not isinstance(plan, Response) and self._length > plan.body_bytes:
            plan = plan.too_large()
        elif not isinstance(plan, Response) and not self._has_room():
            plan = plan.busy()
        if isinstance(plan, Response):
            self._end_with(plan)
            return
        self._plan = plan
        self._stage = Stage.BODY
        self._bare_bytes = self._length if self._parser.should_upgrade() else 0
        if self._length and headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _has_room(self) -> bool:
        return self._length <= _SMALL_BYTES or self._host.has_room(self, self._length)

    def _is_large(self) -> bool:
        """Say whether the head is too large, which may have come with a body."""
        if self._head_bytes <= HEAD_BYTES:
            return False
        return len(self._target) + sum(len(name) + len(value) for name, value in self._pairs) > HEAD_BYTES

    def _mistake(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Say what is wrong with the head: a status, and a sentence."""
        if "transfer-encoding" in headers:
            return 411, "send the body with Content-Length, and without Transfer-Encoding"
        host = headers.get("host")
        if (host is None and self._parser.get_http_version() == "1.1") or (host is not None and "," in host):
            return 400, "there must be one Host header"
        return None

    def on_body(self, body: bytes) -> None:
        if self._stage is Stage.BODY:
            self._body.append(body)
            self._fresh_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._plan is None or self._bare_bytes or self._stage is not Stage.BODY:
            return
        self._is_last |= not self._parser.should_keep_alive()
        self._request.body, self._body = b"".join(self._body), []
        self._stage, self.deadline_s = Stage.ANSWERING, math.inf
        self._host.carry_out(self, self._plan, self._request)

    def _look(self) -> None:
        """Count what has come, and set a deadline for what has not."""
        if self._fresh_bytes > _SMALL_BYTES or (self._fresh_bytes and self._stage is Stage.BODY):
            fresh, self._fresh_bytes = self._fresh_bytes, 0
            self._host.hold(self, fresh)
            if self._plan and self._stage is Stage.BODY and not self._has_room():
                self._end_with(self._plan.busy())
                return
        if self._timed is self._stage:
            return
        if self._stage is Stage.HEAD:
            self._wait(Stage.HEAD, self._host.times.head_s)
        elif self._stage is Stage.BODY:
            self._wait(Stage.BODY, self._host.times.body_s + self._length / self._host.times.rate_bytes)

    # --- answers

    def answered(self, response: Response) -> None:
        """Give the client its answer."""
        if self._stage is not Stage.GONE and not self._transport.is_closing():
            self._write(response)

    def expire(self) -> None:
        """Let go of a client that was too slow."""
        if self._stage in (Stage.HEAD, Stage.BODY):
            self._refuse(408, "the request came too slowly")
        elif self._stage is Stage.IDLE:
            self._transport.close()
        else:
            self.cut()

    def cut(self) -> None:
        """End at once."""
        self._stage = Stage.GONE
        self._host.release(self)
        self._transport.abort()

    def finish(self) -> None:
        """Take no further request."""
        self._is_last = True
        if self.is_awaited:
            self._transport.close()

    def _refuse(self, status: int, message: str) -> None:
        if self._stage in (Stage.HEAD, Stage.BODY):
            self._end_with(self._host.site.unreadable(status, message))
        else:
            self._is_last = self._is_unread = True

    def _end_with(self, response: Response) -> None:
        """Answer a request without having read it all."""
        self._is_last = self._is_unread = True
        self._write(response)

    def _write(self, response: Response) -> None:
        is_bare = self._request.method == "HEAD"
        data = written(response, self._host.date(), is_last=self._is_last, is_bare=is_bare)
        self._plan, self._body, self._fresh_bytes = None, [], 0
        self._host.release(self)
        self._stage = Stage.WRITTEN
        self._transport.write(data)
        if self._is_full:
            self._wait(Stage.WRITTEN, self._host.times.read_s + len(data) / self._host.times.rate_bytes)
            self._host.hold(self, len(data))
        else:
            self._was_read()

    def _was_read(self) -> None:
        """Go on once the kernel has all of the answer."""
        self._host.release(self)
        if not self._is_last:
            self._head_bytes, self._target, self._pairs = 0, b"", []
            self._wait(Stage.IDLE, self._host.times.idle_s)
        elif self._is_unread:
            self._wait(Stage.LINGERING, self._host.times.linger_s)
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._stage = Stage.GONE
            self._transport.close()

    def _wait(self, stage: Stage, most_s: float) -> None:
        self._stage = self._timed = stage
        self.since_s = self._host.now_s()
        self.deadline_s = self.since_s + most_s


def _read_headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw, value in pairs:
        name, text = _name(raw), value.decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]},{text}" if name in headers else text
    return headers


@lru_cache(maxsize=256)  # the same come with every request
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()
