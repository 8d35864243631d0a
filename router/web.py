"""HTTP on `listen`: health, metrics and a small index. Nothing here changes anything."""

from __future__ import annotations

import os
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from router.board import Board
from router.errors import CannotListen
from router.gauges import Gauges, Measured
from router.metrics_page import MetricsPage
from router.status import RUNS

#: Largest request body, bytes: nothing here reads one.
BODY_LIMIT_BYTES: Final = 64 * 1024
#: Longest time an idle connection is kept, and longest wait for open requests at the end.
KEEP_ALIVE_S: Final = 30.0
CLOSE_S: Final = 2.0


class Listening(Measured, Protocol):
    """A daemon with an address; a port of 0 is replaced by the one that was given."""

    listen: tuple[str, int]


class Web:
    """The server on `listen`."""

    def __init__(self, daemon: Listening, board: Board) -> None:
        self._daemon = daemon
        self._board = board
        self._metrics = MetricsPage(daemon.metrics.registry, Gauges(daemon, board).set)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            CannotListen: the address is taken or not ours.
        """
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
                web.get("/metrics", self._metrics.respond),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=CLOSE_S)
        await self._runner.setup()
        host, port = self._daemon.listen
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            cause = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise CannotListen(
                f"cannot listen on {host}:{port}: {cause}; stop what uses it, or change `listen` in the file"
            ) from error
        self._daemon.listen = (host, self._runner.addresses[0][1])

    async def close(self) -> None:
        """Answer what is open, then stop listening. May come twice."""
        if self._runner:
            await self._runner.cleanup()

    async def _index(self, _: web.Request) -> web.Response:
        paths = ["/health/live", "/health/ready", "/metrics"]
        return answer({"name": "headrace", "version": self._daemon.version, "paths": paths})

    async def _live(self, _: web.Request) -> web.Response:
        return answer({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        ready, document = self._board.ready()
        wanted = request.query.get("mapping")
        if wanted is None:
            return answer(document, 200 if ready else 503)
        named = [each for each in document["mappings"] if each["name"] == wanted]
        if not named:
            return answer({"error": f"there is no mapping {wanted!r}"}, 404)
        runs = named[0]["state"] in RUNS
        return answer({"ready": runs, "mappings": named}, 200 if runs else 503)


def answer(document: Any, status: int = 200) -> web.Response:
    """Give a document as JSON."""
    body = msgspec.json.encode(document)
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
