"""Queues of a real server, and an endpoint that may stand between them and a daemon, and errs."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aioboto3
import aiohttp
from aiohttp import web

from tests.live.daemon import PATIENCE_S, Daemon

REGION = "us-east-1"
_TYPE = "application/x-amz-json-1.0"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def add_mapping(daemon: Daemon, name: str, source: Mapping[str, Any], function: str = "orders", **more: Any) -> None:
    """Add a mapping over any source to a daemon's file."""
    daemon.document["event_source_mappings"][name] = {"function": function, "source": dict(source), **more}


# --- queues


class Queues:
    """Makes queues under names of their own, and removes them."""

    def __init__(self, endpoint_url: str, client: Any) -> None:
        self.endpoint_url = endpoint_url
        #: A client of SQS.
        self.client = client
        self._names: set[str] = set()

    async def make(self, *, fifo: bool = False, **attributes: object) -> Queue:
        """Make a queue with attributes as SQS names them."""
        name = f"headrace-test-{uuid.uuid4().hex[:12]}" + (".fifo" if fifo else "")
        self._names.add(name)
        return await self.make_again(name, **attributes)

    async def make_again(self, name: str, **attributes: object) -> Queue:
        """Make a queue of a name that was given out before."""
        given = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if name.endswith(".fifo") else {}
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()}
        made = await self.client.create_queue(QueueName=name, Attributes={**given, **texts})
        return Queue(self, name, made["QueueUrl"])

    async def close(self) -> None:
        for name in self._names:
            for url in (await self.client.list_queues(QueueNamePrefix=name)).get("QueueUrls", ()):
                await self.client.delete_queue(QueueUrl=url)


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue, beside whatever reads it."""

    queues: Queues
    name: str
    url: str

    def source(self, endpoint_url: str | None = None, **more: object) -> dict[str, Any]:
        """Give the source block of a mapping, past another endpoint if one is given."""
        place = {"queue": self.name, "endpoint_url": endpoint_url or self.queues.endpoint_url, "region": REGION}
        return {"sqs": {**place, **more}}

    async def send(self, *bodies: object, group: str | None = None) -> list[str]:
        """Send bodies, as JSON if they are no texts; gives their ids."""
        more = {"MessageGroupId": group} if group else {}
        texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        sent = [await self.queues.client.send_message(QueueUrl=self.url, MessageBody=text, **more) for text in texts]
        return [each["MessageId"] for each in sent]

    async def arn(self) -> str:
        return (await self._attributes("QueueArn"))["QueueArn"]

    async def counts(self) -> tuple[int, int]:
        """Count messages that are visible, and in flight."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = await self._attributes(*names)
        visible, hidden = (int(found[name]) for name in names)
        return visible, hidden

    async def until(self, counts: tuple[int, int]) -> None:
        """Wait until so many messages are visible, and in flight, at two looks in a row.

        LocalStack counts a message that it is just handing out as neither.
        """
        before = found = (-1, -1)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not before == found == counts:
                    before, found = found, await self.counts()
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise AssertionError(f"not in {PATIENCE_S:.0f} s: {counts} in {self.name}, but {found}") from error

    async def delete(self) -> None:
        await self.queues.client.delete_queue(QueueUrl=self.url)

    async def _attributes(self, *names: str) -> dict[str, str]:
        answer = await self.queues.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names))
        return dict(answer["Attributes"])


@asynccontextmanager
async def open_queues(endpoint_url: str) -> AsyncIterator[Queues]:
    async with aioboto3.Session().client("sqs", endpoint_url=endpoint_url, region_name=REGION) as client:
        queues = Queues(endpoint_url, client)
        try:
            yield queues
        finally:
            await queues.close()


# --- an endpoint that errs


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client."""

    operation: str
    body: bytes
    #: Gives status and body of the real answer.
    forward: Callable[[bytes], Awaitable[tuple[int, bytes]]]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


#: Answers a call in place of the server.
Fault = Callable[[web.Request, Call], Awaitable[web.StreamResponse]]


def refusal(status: int, code: str, message: str = "it said no") -> Fault:
    """Answer with an error of AWS's JSON protocol."""

    async def fault(_request: web.Request, _call: Call) -> web.StreamResponse:
        return _said(status, json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message}).encode())

    return fault


def page(status: int, text: str) -> Fault:
    """Answer as a server in front of the service does."""

    async def fault(_request: web.Request, _call: Call) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type="text/html")

    return fault


async def half_an_answer(request: web.Request, call: Call) -> web.StreamResponse:
    """Do what was asked, send half of the answer, and hang up."""
    status, body = await call.forward(call.body)
    answer = web.StreamResponse(status=status, headers={"content-type": _TYPE, "content-length": str(len(body))})
    await answer.prepare(request)
    await answer.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return answer


def late(seconds: float) -> Fault:
    """Do what was asked, and answer after some time."""

    async def fault(_request: web.Request, call: Call) -> web.StreamResponse:
        status, body = await call.forward(call.body)
        await asyncio.sleep(seconds)
        return _said(status, body)

    return fault


async def without_waiting(_request: web.Request, call: Call) -> web.StreamResponse:
    """Receive at once: a server that does not see that its client has gone would receive for it all the same."""
    return _said(*await call.forward(json.dumps({**call.json, "WaitTimeSeconds": 0}).encode()))


def partly(fails: Callable[[Mapping[str, Any]], bool], code: str = "InternalError") -> Fault:
    """Do what was asked but for some entries of a batch, and say so."""

    async def fault(_request: web.Request, call: Call) -> web.StreamResponse:
        asked = call.json
        bad = [entry for entry in asked["Entries"] if fails(entry)]
        good = [entry for entry in asked["Entries"] if entry not in bad]
        answer: dict[str, Any] = {}
        if good:
            _, body = await call.forward(json.dumps({**asked, "Entries": good}).encode())
            answer = json.loads(body)
        failed = [{"Id": entry["Id"], "SenderFault": False, "Code": code, "Message": "try again"} for entry in bad]
        answer["Failed"] = [*answer.get("Failed", ()), *failed]
        return _said(200, json.dumps(answer).encode())

    return fault


def _said(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, headers={"content-type": _TYPE})


class FaultyEndpoint:
    """Passes calls on to a server, but for operations that have a fault; on a port that stays the same.

    Without `waits` receives are answered at once, so that what changes is met at once.
    """

    def __init__(self, endpoint_url: str, *, waits: bool = True) -> None:
        self._endpoint_url = endpoint_url
        self._port = free_port()
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._usual: dict[str, Fault] = {} if waits else {"ReceiveMessage": without_waiting}
        #: By operation, in force until mended.
        self.faults = dict(self._usual)
        #: All that were made, in order.
        self.calls: list[Call] = []
        #: Bodies of the messages that the server has handed out, each time.
        self.received: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def made(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    def mend(self) -> None:
        """Take all faults away."""
        self.faults = dict(self._usual)

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go()
        assert self._http is not None
        await self._http.close()

    async def come(self) -> None:
        """Listen."""
        application = web.Application(client_max_size=2**24)
        application.router.add_post("/{path:.*}", self._serve)
        # A client that goes away ends its call at the server too.
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def go(self) -> None:
        """End all connections, and refuse new ones."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
        call = Call(operation, await request.read(), lambda body: self._forward(request, operation, body))
        self.calls.append(call)
        fault = self.faults.get(operation)
        if fault:
            return await fault(request, call)
        return _said(*await call.forward(call.body))

    async def _forward(self, request: web.Request, operation: str, body: bytes) -> tuple[int, bytes]:
        assert self._http is not None
        kept = ("x-amz-target", "content-type", "authorization", "x-amz-date")
        headers = {name: request.headers[name] for name in kept if name in request.headers}
        async with self._http.post(f"{self._endpoint_url}{request.path}", data=body, headers=headers) as answer:
            said = await answer.read()
        if operation == "ReceiveMessage" and answer.status == 200:
            self.received += [message["Body"] for message in json.loads(said).get("Messages", ())]
        return answer.status, said
