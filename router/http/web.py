"""What is served on `listen`: the Lambda API, health, metrics and a small index."""

from __future__ import annotations

import os
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from prometheus_client import CONTENT_TYPE_LATEST

from router.api.access import Access, Credentials
from router.api.call import Carry
from router.api.errors import ApiError
from router.api.server import Api, refusal
from router.board import Board
from router.errors import CannotListen
from router.gauges import Gauges, Measured
from router.http.listener import Listener
from router.http.messages import Plan, Request, Response, answer
from router.metrics_page import MetricsPage
from router.status import RUNS
from router.telemetry import Log

#: How long answers have at the end.
CLOSE_S: Final = 2.0
#: Where the API is, for people.
API_PATH: Final = "/2015-03-31/"
#: What everybody may look at, wherever we listen.
_HEALTH: Final = ("/health/live", "/health/ready")
_NONE: Final = Credentials()


class Listening(Measured, Protocol):
    """A daemon with an address; a port of 0 is replaced by the one that was given."""

    listen: tuple[str, int]
    log: Log


Page = Callable[[Request], Awaitable[Response]]


class Web:
    """The server on `listen`."""

    def __init__(
        self, daemon: Listening, board: Board, operations: Mapping[str, Carry], credentials: Credentials = _NONE
    ) -> None:
        """Make it; `operations` carry out those of the API."""
        self._daemon = daemon
        self._board = board
        self.access = Access(daemon.listen[0], daemon.wall, credentials)
        self._api = Api(operations, self.access, daemon.log)
        self._metrics = MetricsPage(daemon.metrics.registry, Gauges(daemon, board).set)
        self._pages: Mapping[str, Page] = {
            "/": self._index,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._metrics_page,
        }
        self._listener = Listener(self, daemon.wall)

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            CannotListen: the address is taken or not ours.
        """
        host, port = self._daemon.listen
        try:
            port = await self._listener.start(host, port)
        except OSError as error:
            cause = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise CannotListen(
                f"cannot listen on {host}:{port}: {cause}; stop what uses it, or give another address: "
                "`listen` in the file, or --listen"
            ) from error
        self._daemon.listen, self.access.port = (host, port), port

    async def close(self) -> None:
        """Answer what is open, then stop listening. May come twice."""
        await self._listener.close(CLOSE_S)

    def plan(self, request: Request) -> Plan | Response:
        page = self._pages.get(request.path)
        if page is None:
            return self._api.plan(request)
        try:
            self._check(request)
        except ApiError as error:
            return refusal(error)
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers={"Allow": "GET, HEAD"})
        return _PagePlan(page, self._daemon.log)

    def _check(self, request: Request) -> None:
        """Refuse who may not see a page. Raises ApiError."""
        if request.path == "/metrics":
            self.access.check_metrics(request)
        elif request.path not in _HEALTH or request.query:
            self.access.check_reader(request)

    def _may_see_names(self, request: Request) -> bool:
        try:
            self.access.check_reader(request)
        except ApiError:
            return False
        return True

    def unreadable(self, status: int, message: str) -> Response:
        return answer({"message": message}, status)

    async def _index(self, _: Request) -> Response:
        paths = [path for path in self._pages if path != "/"]
        return answer({"name": "headrace", "version": self._daemon.version, "paths": paths, "lambda_api": API_PATH})

    async def _live(self, _: Request) -> Response:
        return answer({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready, document = self._board.ready()
        wanted = parse_qs(request.query).get("mapping")
        if wanted is None:
            return answer(document if self._may_see_names(request) else {"ready": ready}, 200 if ready else 503)
        named = [each for each in document["mappings"] if each["name"] == wanted[-1]]
        if not named:
            return answer({"error": f"there is no mapping {wanted[-1]!r}"}, 404)
        runs = named[0]["state"] in RUNS
        return answer({"ready": runs, "mappings": named}, 200 if runs else 503)

    async def _metrics_page(self, _: Request) -> Response:
        return Response(200, await self._metrics.page(), CONTENT_TYPE_LATEST)


class _PagePlan:
    """One look at a page."""

    body_bytes = 0

    def __init__(self, page: Page, log: Log) -> None:
        self._page = page
        self._log = log

    def too_large(self) -> Response:
        return answer({"error": "this takes no body"}, 413)

    def busy(self) -> Response:
        raise AssertionError("pages take no body")

    def begin(self, request: Request, _: Callable[[Response], None]) -> Coroutine[Any, Any, Response]:
        return self._answer(request)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._page(request)
        except Exception as bug:  # noqa: BLE001 - an answer must come whatever happens, and the log has the trace
            self._log.write("page.failed", path=request.path, trace="".join(traceback.format_exception(bug)))
            return answer({"error": "a bug of Headrace; its log has the trace"}, 500)
