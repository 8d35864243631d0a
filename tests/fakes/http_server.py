"""An HTTP server that answers by script, down to the byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

#: Answers one request: writes what it likes, and says whether the connection stays.
Answer = Callable[[asyncio.StreamWriter], Awaitable[bool]]


@dataclass(frozen=True)
class Request:
    line: str
    headers: Mapping[str, str]
    body: bytes
    #: Number of the connection that it came on, from 1.
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def operation(self) -> str:
        """What X-Amz-Target asks for."""
        return self.headers.get("x-amz-target", "").rpartition(".")[2]


def say(content: object, status: int = 200, **headers: str) -> Answer:
    """Answer with JSON, or with bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def answer(writer: asyncio.StreamWriter) -> bool:
        fields = {"content-length": str(len(body)), **{name.replace("_", "-"): each for name, each in headers.items()}}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
        return True

    return answer


def refuse(status: int, code: str, message: str = "it said no") -> Answer:
    """Answer with an error of AWS's JSON protocol."""
    return say({"__type": f"com.amazonaws.sqs#{code}", "message": message}, status)


def send(*parts: bytes, keep: bool = False) -> Answer:
    """Answer with these bytes, each part on its way before the next is sent, and hang up or `keep` the connection."""

    async def answer(writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
            # Lets the reader see the parts one by one, mostly.
            await asyncio.sleep(0)
        return keep

    return answer


def stall(*parts: bytes) -> Answer:
    """Answer with these bytes and then no more."""

    async def answer(writer: asyncio.StreamWriter) -> bool:
        writer.writelines(parts)
        await asyncio.get_running_loop().create_future()
        return False

    return answer


@dataclass
class HttpServer:
    """Answers requests in the order of its script; what is not in it, by `handle`, by operation, or it stalls."""

    port: int = 0
    scheme: str = "http"
    script: deque[Answer] = field(default_factory=deque)
    #: Answers by operation (X-Amz-Target), used again and again.
    always: dict[str, Answer] = field(default_factory=dict)
    #: Gives the answer to a request, if it is set.
    handle: Callable[[Request], Answer] | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    #: Is whoever asks for leave to send a body given it?
    continues: bool = True
    #: Connections whose client went away while it waited for an answer.
    abandoned: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def asked(self, count: int) -> None:
        """Wait until there were so many requests."""
        while len(self.requests) < count:
            self._changed.clear()
            await self._changed.wait()

    def _answer(self, request: Request) -> Answer:
        if self.handle:
            return self.handle(request)
        return self.always.get(request.operation, stall())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        early: bytes | None = b""
        try:
            while early is not None:
                early = await self._serve_one(reader, writer, number, early)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, early: bytes
    ) -> bytes | None:
        """Answer a request of which `early` is the beginning; give that of the next, None when there is none."""
        head = (early + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
        if headers.get("expect") == "100-continue" and self.continues:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(line, headers, body, number)
        self.requests.append(request)
        self._changed.set()
        answer = self.script.popleft() if self.script else self._answer(request)
        answering = asyncio.ensure_future(answer(writer))
        leaving = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            leaving.cancel()
            await asyncio.wait({leaving})
            stays = answering.result()
            return (b"" if leaving.cancelled() else leaving.result()) if stays else None
        answering.cancel()
        await asyncio.wait({answering})
        self.abandoned.put_nowait(number)
        return None


@asynccontextmanager
async def http_server(*script: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpServer]:
    server = HttpServer(script=deque(script), scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(server._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await listening.wait_closed()
