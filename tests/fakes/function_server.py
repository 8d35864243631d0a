"""A real HTTP server behind which a function is: at a URL of its own, and as AWS Lambda's Invoke has it.

Source of the latter: AWS Lambda API reference, Invoke and GetFunctionConfiguration, and answers recorded on AWS.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TRACE = ['  File "/var/task/app.py", line 2, in handle\n    raise KeyError("total")\n']


@dataclass(frozen=True)
class Asked:
    path: str
    query: Mapping[str, str]
    #: By names in any letters.
    headers: Mapping[str, str]
    body: bytes


@dataclass
class FunctionServer:
    """The function, and how the service in front of it is."""

    url: str = ""
    #: Gives the result for an event; None = it raised an error.
    function: Callable[[Any], Awaitable[bytes | None]] | None = None
    #: Answers every call in place of the function, if there is one: (status, headers, body).
    instead: tuple[int, Mapping[str, str], bytes] | None = None
    #: Answers GetFunctionConfiguration: the function's timeout, or the status that is given in place of it.
    timeout_s: int = 3
    configuration_status: int = 200
    log: str = "START RequestId: r Version: $LATEST\nprinted\nEND RequestId: r\n"
    asked: list[Asked] = field(default_factory=list)
    #: Calls that wait, in all, and now.
    begun: int = 0
    waiting: int = 0
    #: Events that it has in hand, and the most that there were at once.
    running: int = 0
    most: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def began(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.begun >= count)

    async def left(self) -> None:
        """Wait until nobody waits for an answer any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.waiting == 0)

    # --- the function

    async def _run(self, event: Any) -> bytes | None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await (self.function or self.do)(event)
        finally:
            self.running -= 1

    async def do(self, event: dict[str, Any]) -> bytes | None:
        """Do what an event says."""
        match event.get("do"):
            case "raise":
                return None
            case "nonsense":
                return b"<p>nonsense"
            case "large":
                return b'"' + b"x" * event["size"] + b'"'
            case "wait":
                await self.wait()
        return json.dumps(event).encode()

    async def wait(self) -> None:
        """Wait until the client goes."""
        await self.count(1)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.count(-1)

    async def count(self, change: int) -> None:
        """Note that a call waits (1), or waits no more (-1)."""
        async with self._changed:
            self.begun += max(change, 0)
            self.waiting += change
            self._changed.notify_all()

    # --- in front of it

    async def _note(self, request: web.Request) -> bytes:
        body = await request.read()
        self.asked.append(Asked(request.path, dict(request.query), request.headers, body))
        return body

    async def post(self, request: web.Request) -> web.Response:
        """Answer as a service of one's own might."""
        body = await self._note(request)
        if self.instead:
            status, headers, text = self.instead
            return web.Response(status=status, headers=headers, body=text)
        result = await self._run(json.loads(body))
        if result is None:
            error = {"errorType": "KeyError", "errorMessage": "'total'", "stackTrace": TRACE}
            return web.json_response(error, status=422)
        return web.Response(body=result, content_type="application/json")

    async def invoke(self, request: web.Request) -> web.Response:
        """Answer as Lambda's Invoke does."""
        body = await self._note(request)
        headers = {"x-amzn-RequestId": str(uuid.uuid4())}
        if self.instead:
            status, more, text = self.instead
            return web.Response(status=status, headers={**headers, **more}, body=text)
        if request.headers.get("X-Amz-Invocation-Type") == "DryRun":
            return web.Response(status=204, headers=headers)
        headers["X-Amz-Executed-Version"] = "$LATEST"
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(self.log.encode()).decode()
        result = await self._run(json.loads(body))
        if result is None:
            headers["X-Amz-Function-Error"] = "Unhandled"
            error = {"errorMessage": "'total'", "errorType": "KeyError", "requestId": "r", "stackTrace": TRACE}
            result = json.dumps(error).encode()
        return web.Response(body=result, headers=headers, content_type="application/json")

    async def configuration(self, request: web.Request) -> web.Response:
        await self._note(request)
        if self.configuration_status != 200:
            return lambda_refusal(self.configuration_status, "AccessDeniedException", "it said no")
        return web.json_response({"FunctionName": "priced", "Timeout": self.timeout_s})


def lambda_refusal(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"Message": message, "Type": "User"}, status=status, headers={"x-amzn-ErrorType": code})


def refusal(status: int, code: str, message: str = "it said no", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Give an error as Lambda's API words it, for `instead`."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return status, {"x-amzn-ErrorType": code, **named}, json.dumps({"Message": message, "Type": "User"}).encode()


@asynccontextmanager
async def function_server(port: int = 0) -> AsyncIterator[FunctionServer]:
    server = FunctionServer()
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/fn", server.post)
    application.router.add_post("/2015-03-31/functions/{name}/invocations", server.invoke)
    application.router.add_get("/2015-03-31/functions/{name}/configuration", server.configuration)
    # A handler ends when its client goes.
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
