"""A receiver of posted failure records: a real server that keeps what it accepts, and looks at signatures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATH = "/hooks/failed"


@dataclass
class Receiver:
    """Takes what is posted to PATH."""

    #: Whom it believes; None = everybody.
    secret: str | None = SECRET
    exists: bool = True
    #: Answer to everything, instead of its own.
    status: int | None = None
    limit_bytes: int = 2**30
    port: int = 0
    scheme: str = "http"
    #: Cleared: nothing is answered.
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    #: What was accepted: (headers, body).
    accepted: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    #: Requests of any kind, as "METHOD target".
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{PATH}"

    @property
    def records(self) -> list[Any]:
        return [json.loads(body) for _, body in self.accepted]

    async def serve(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path_qs}")
        await self.answers.wait()
        body = await request.read()
        status = self.status or self._judge(request, body)
        if request.method == "POST" and status == 204:
            self.accepted.append((request.headers, body))
        return web.Response(status=status, headers={"Location": "/elsewhere"} if 300 <= status < 400 else {})

    def _judge(self, request: web.Request, body: bytes) -> int:
        if not self.exists or request.path != PATH:
            return 404
        if self.secret and not self._believes(request.headers, body):
            return 401
        if request.method != "POST":
            return 405
        return 413 if len(body) > self.limit_bytes else 204

    def _believes(self, headers: Mapping[str, str], body: bytes) -> bool:
        assert self.secret
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(base64.b64decode(self.secret.removeprefix("whsec_")), text, hashlib.sha256).digest()
        return headers.get("webhook-signature") == f"v1,{base64.b64encode(digest).decode()}"


@asynccontextmanager
async def receiver(tls: ssl.SSLContext | None = None, **values: Any) -> AsyncIterator[Receiver]:
    """Run a receiver on a free port, or the one in `values`."""
    made = Receiver(scheme="https" if tls else "http", **values)
    made.answers.set()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", made.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", made.port, ssl_context=tls).start()
        made.port = runner.addresses[0][1]
        yield made
    finally:
        await runner.cleanup()
