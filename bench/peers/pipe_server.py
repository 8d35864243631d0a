"""A bare aiohttp server that answers with what a worker makes of the body: one round trip over multiprocessing.Pipe.

As little as such a server can be: bytes go over the pipe, its descriptor is watched by uvloop, and who finds no worker
free waits for one in a queue. No timeout, no context, no logs, no isolation.

    python -m bench.peers.pipe_server PORT WORKERS
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import sys
from multiprocessing.connection import Connection
from typing import Any

import orjson
import uvloop
from aiohttp import web


def handle(event: Any, context: Any) -> Any:
    return event


def serve(connection: Connection) -> None:
    with contextlib.suppress(EOFError):
        while True:
            connection.send_bytes(json.dumps(handle(orjson.loads(connection.recv_bytes()), None)).encode())


class Worker:
    """One process, and who waits for its answer."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        spawn.Process(target=serve, args=(theirs,), daemon=True).start()
        theirs.close()
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[bytes] | None = None
        self._loop.add_reader(self._connection.fileno(), self._read)

    async def ask(self, body: bytes) -> bytes:
        self._answer = self._loop.create_future()
        self._connection.send_bytes(body)
        return await self._answer

    def _read(self) -> None:
        body = self._connection.recv_bytes()
        if self._answer:
            self._answer.set_result(body)


async def run(port: int, count: int) -> None:
    free: asyncio.Queue[Worker] = asyncio.Queue()
    for _ in range(count):
        free.put_nowait(Worker())

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        worker = await free.get()
        try:
            return web.Response(body=await worker.ask(body), content_type="application/json")
        finally:
            free.put_nowait(worker)

    app = web.Application()
    app.add_routes([web.post("/invoke", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2])))
