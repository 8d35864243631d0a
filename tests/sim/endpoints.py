"""A mapping over the endpoint of a stream, on the wire and on virtual time: what the endpoint does is in our hands.

The source is the real one and speaks HTTP to a server on the same loop; store and function are in memory. A server's
clock may differ from ours.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import Any

import structlog
from structlog.testing import LogCapture

from connectors.dynamodb import DynamoDbSource
from connectors.kinesis import KinesisSource
from connectors.settings import DynamoDbSettings, KinesisSettings
from router.core.model import STREAM_RULES, EventSourceMapping, FailedBatch, Outcome, Pace, Returned
from router.life import MappingLife, MappingParts
from router.ports import Source
from router.replay.replay import Replayer
from router.shard_side import plug_shards
from router.telemetry import Log, Metrics
from tests.fakes.dynamodb_server import FakeDynamoDb, position_of, serving
from tests.fakes.http_server import Answer, HttpServer, Request
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.kinesis_server import REGION, KinesisServer, kinesis_server
from tests.fakes.shard_stream import ShardStream
from tests.fakes.store import MemoryStore

BEGAN_S = 1_700_000_000.0
PATIENCE_S = 20_000.0


class Site:
    """One mapping, its stream and what outlives its daemons."""

    pace = Pace(1.0, 0.2)

    def __init__(self, *, ahead_s: float = 0.0, **rules: Any) -> None:
        """Make it; our clock is `ahead_s` ahead of the service's."""
        self.ahead_s = ahead_s
        self.store = MemoryStore()
        self.metrics = Metrics()
        self.mapping = EventSourceMapping("m", "f", STREAM_RULES, **{"pace": self.pace, "drain_s": 10.0, **rules})
        #: Answers to every request for an operation, in place of the service's.
        self.trouble: dict[str, Callable[[Request], Answer | None]] = {}
        self.takes_s = 0.01
        self.written: list[str] = []
        #: What the function was given, call by call, and how it answers.
        self.events: list[Any] = []
        self.reply: Callable[[Any], Outcome] = lambda _: Returned()
        self.given_up: list[FailedBatch] = []
        self.told = LogCapture()
        self.http: HttpServer
        self.life: MappingLife
        self._news = asyncio.Event()

    # --- clocks

    def service_s(self) -> float:
        return BEGAN_S + asyncio.get_running_loop().time()

    def wall_s(self) -> float:
        return self.service_s() + self.ahead_s

    # --- the kinds differ in these

    def source(self) -> Source:
        raise NotImplementedError

    def put(self, *values: str) -> None:
        raise NotImplementedError

    def remake(self) -> None:
        """Delete the stream and make it again under its name."""
        raise NotImplementedError

    def reshard(self) -> None:
        """Close the shard; what is put goes to others."""
        raise NotImplementedError

    def trim(self) -> None:
        """Delete all records but the last."""
        raise NotImplementedError

    def value(self, record: Any) -> str:
        raise NotImplementedError

    def _serving(self) -> Any:
        raise NotImplementedError

    # --- running

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """The endpoint is there, and what is logged is kept."""
        former = structlog.get_config()["processors"]
        structlog.configure(processors=[self.told])
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._serving())
                answer = self.http.handle
                assert answer
                self.http.handle = lambda request: self._troubled(request) or answer(request)
                yield
        finally:
            structlog.configure(processors=former)

    def _troubled(self, request: Request) -> Answer | None:
        operation = request.headers["x-amz-target"].rpartition(".")[2]
        return self.trouble[operation](request) if operation in self.trouble else None

    def break_down(self, answer: Answer, *operations: str) -> None:
        """Let these operations, or reading, be answered so until they are mended."""
        for operation in operations or ("GetRecords",):
            self.trouble[operation] = lambda _: answer

    def mend(self) -> None:
        self.trouble.clear()

    def asked(self, operation: str) -> int:
        """Count the requests for an operation so far."""
        return sum(each.headers["x-amz-target"].endswith(f".{operation}") for each in self.http.requests)

    @asynccontextmanager
    async def running(self, *, kill: bool = False) -> AsyncIterator[None]:
        """A daemon's life, which drains at its end, or is killed."""
        parts = MappingParts(
            self.mapping,
            enabled=True,
            source_name="stream",
            make_source=self.source,
            plug=plug_shards,
            invoker=MemoryInvoker(self._run, 4),
            passes=None,
            keep=self._keep,
        )
        self.life = MappingLife(
            parts,
            store=self.store,
            replays=Replayer(self.store, Log()),
            metrics=self.metrics.of("m"),
            log=Log(),
            wall=self.wall_s,
            rng=Random(1),
        )
        work = asyncio.create_task(self.life.run())
        try:
            yield
        finally:
            if kill:
                work.cancel()
            else:
                self.life.drain(10.0)
            with suppress(asyncio.CancelledError):
                await work

    def _run(self, _: str, event: bytes) -> tuple[float, Outcome]:
        found = json.loads(event)
        self.events.append(found)
        self._news.set()
        return self.takes_s, self.reply(found)

    async def _keep(self, failure: FailedBatch, event: bytes, *_: object) -> None:
        self.given_up.append(failure)
        self._news.set()

    # --- what came of it

    @property
    def seen(self) -> list[str]:
        return [self.value(record) for event in self.events for record in event["Records"]]

    @property
    def why(self) -> tuple[str, str]:
        """Code and sentence of why it does not move."""
        reason = self.life.health().reason
        assert reason, "it moves"
        return reason

    def notes(self, event: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.told.entries if entry["event"] == event]

    async def note(self, event: str) -> Mapping[str, Any]:
        """Wait until an event is logged."""
        await self.until(lambda: self.notes(event))
        return self.notes(event)[0]

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not fact():
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), 0.5)

    async def all_seen(self) -> None:
        await self.until(lambda: set(self.seen) >= set(self.written))


class KinesisSite(Site):
    """A Kinesis stream of one shard."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stream = ShardStream(1, now_s=self.service_s)
        self.server: KinesisServer

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        async with kinesis_server(self.stream) as self.server:
            self.http = self.server.http
            yield

    def source(self) -> Source:
        return KinesisSource(KinesisSettings("m", "clicks", self.http.url, REGION, deaggregate=False))

    def put(self, *values: str) -> None:
        for value in values:
            self.written.append(value)
            self.stream.put(value.encode(), b"key")

    def remake(self) -> None:
        self.stream.recreate(1)
        self.server.iterators.clear()

    def reshard(self) -> None:
        self.stream.split(*self.stream.open_shards)

    def trim(self) -> None:
        [shard] = self.stream.shards.values()
        self.stream.trim(shard.name, shard.records[-1].position)

    def value(self, record: Any) -> str:
        return base64.b64decode(record["kinesis"]["data"]).decode()


class DynamoDbSite(Site):
    """The stream of a DynamoDB table, of one shard."""

    pace = Pace(0.25, 0.25)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.service = FakeDynamoDb(now_s=self.service_s)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        self.service.create_table("orders")
        self.service.enable("orders")
        async with serving(self.service) as self.http:
            yield

    def source(self) -> Source:
        return DynamoDbSource(DynamoDbSettings("m", "orders", self.http.url, "eu-west-1"))

    def put(self, *values: str) -> None:
        stream = self.service.tables["orders"]
        assert stream
        for value in values:
            self.written.append(value)
            image = {"NewImage": {"value": {"S": value}}}
            self.service.append([*stream.shards][-1], {"id": {"S": "key"}}, dynamodb=image)

    def remake(self) -> None:
        """Its former stream stays, as AWS keeps it for 24 hours."""
        self.service.delete_table("orders")
        self.service.create_table("orders")
        self.service.enable("orders")

    def reshard(self) -> None:
        stream = self.service.tables["orders"]
        assert stream
        self.service.roll([*stream.shards][-1])

    def trim(self) -> None:
        stream = self.service.tables["orders"]
        assert stream
        [shard] = stream.shards.values()
        self.service.trim(shard.name, position_of(shard.records[-1]))

    def value(self, record: Any) -> str:
        return str(record["dynamodb"]["NewImage"]["value"]["S"])


SITES = {"kinesis": KinesisSite, "dynamodb": DynamoDbSite}
