"""Clients that ask the same of an HTTP server again and again, each as soon as it has its answer, on kept connections.

They cost as little as clients in Python can, because they share the machine with what they measure: an answer is known
by its length, which that to the first request has shown. A process of its own; prints answers, seconds and latencies.

    python -m bench.api_load PORT PATH CLIENTS SECONDS < BODY
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop

#: Time for the first answers, which may have to start workers.
START_S = 20.0
WARM_UP_S = 0.5
#: Latencies that are kept of each client, at most.
KEPT = 20_000
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._data = b""
        self._length = 0
        self._missing = 0
        self._sent_s = 0.0
        self.answers = 0
        self.latencies_s: list[float] = []
        self.first = asyncio.Event()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are not its children
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_exception(error or ConnectionError("the server has closed the connection"))

    def _ask(self) -> None:
        self._sent_s = time.perf_counter()
        self._missing = self._length
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._length:
            self._learn(data)
            return
        self._missing -= len(data)
        if not self._missing:
            self.answers += 1
            if len(self.latencies_s) < KEPT:
                self.latencies_s.append(time.perf_counter() - self._sent_s)
            self._ask()
        elif self._missing < 0:
            self._fail(data)

    def _learn(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(body) == int(length[1]):
            if b" 200 " not in head[:16]:
                self._fail(self._data)
            self._length = len(self._data)
            self.first.set()
            self._ask()

    def _fail(self, data: bytes) -> None:
        if not self.lost.done():
            self.lost.set_exception(AssertionError(f"an answer of another length or status: {data[:500]!r}"))
        self.transport.abort()


async def load(port: int, path: str, clients: int, seconds: float, body: bytes) -> dict[str, object]:
    """Ask for so long."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Client(request), "127.0.0.1", port) for _ in range(clients)]
    all_of = [client for _, client in made]
    async with asyncio.timeout(START_S):
        await asyncio.gather(*(client.first.wait() for client in all_of))
    await _last(all_of, WARM_UP_S)
    warm_up_answers = sum(client.answers for client in all_of)
    for client in all_of:
        client.answers, client.latencies_s = 0, []
    begun_s = time.perf_counter()
    await _last(all_of, seconds)
    took_s = time.perf_counter() - begun_s
    latencies_s = sorted(each for client in all_of for each in client.latencies_s)
    answers = sum(client.answers for client in all_of)
    return {
        "answers": answers,
        "all_answers": len(all_of) + warm_up_answers + answers,
        "seconds": took_s,
        "p50_us": latencies_s[len(latencies_s) // 2] * 1e6,
        "p99_us": latencies_s[int(len(latencies_s) * 0.99)] * 1e6,
    }


async def _last(clients: list[Client], seconds: float) -> None:
    done, _ = await asyncio.wait([client.lost for client in clients], timeout=seconds, return_when="FIRST_COMPLETED")
    for each in done:
        each.result()


def main() -> None:
    """Read the request, ask, and print what came."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("port", type=int, metavar="PORT", help="of 127.0.0.1")
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("clients", type=int, metavar="CLIENTS")
    parser.add_argument("seconds", type=float, metavar="SECONDS")
    given = parser.parse_args()
    body = sys.stdin.buffer.read()
    print(json.dumps(uvloop.run(load(given.port, given.path, given.clients, given.seconds, body))))


if __name__ == "__main__":
    main()
