"""Kinesis as a ShardSource: one stream, polled shard by shard, or pushed to one of its registered consumers."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from connectors.aws_service import AwsService
from connectors.kinesis_client import SERVICE, TARGET, VERSION, KinesisClient, Stream
from connectors.kinesis_codec import KinesisCodec
from connectors.kinesis_reading import Poller
from connectors.settings import KinesisSettings
from router.core.facts import Demand
from router.core.model import Chunk, ShardInfo
from router.errors import SourceUnavailable
from router.ports import PAGE_COUNT, ShardCodec

if TYPE_CHECKING:
    from connectors.kinesis_fanout import Subscriber

#: What our own clock may be ahead of the service's, where that does not tell its time.
_CLOCK_MARGIN_S: Final = 300.0


def describe(settings: KinesisSettings) -> str:
    """Name the stream in errors."""
    return f"Kinesis {'consumer' if settings.is_consumer else 'stream'} {settings.stream}"


def stream_of(settings: KinesisSettings) -> str:
    """Give the stream's name or ARN."""
    return settings.stream.partition("/consumer/")[0] if settings.is_consumer else settings.stream


def _service(settings: KinesisSettings, *, call_s: float) -> AwsService:
    stream, region = settings.stream, settings.region
    if region is None and stream.startswith("arn:"):
        region = stream.split(":")[3]
    return AwsService(
        SERVICE,
        signs_as=SERVICE,
        target=TARGET,
        version=VERSION,
        what=describe(settings),
        endpoint_url=settings.endpoint_url,
        region=region,
        call_s=call_s,
    )


async def find_stream(settings: KinesisSettings, *, call_s: float = 10.0) -> None:
    """Look whether a stream is there, and the consumer if it is one's; nothing is read. Raises SourceUnavailable."""
    service = _service(settings, call_s=call_s)
    client = KinesisClient(service, describe(settings))
    try:
        await client.find(stream_of(settings))
        if settings.is_consumer:
            await client.find_consumer(settings.stream)
    finally:
        await service.close()


class KinesisSource:
    """One stream. A closed source stays closed: make another."""

    pinned = False

    def __init__(self, settings: KinesisSettings, *, call_s: float = 10.0, wait_s: float = 5.0) -> None:
        """Prepare without I/O.

        Args:
            settings: which stream.
            call_s: longest time a call may take.
            wait_s: longest wait of a consumer's read for something to be pushed; something comes about every 5 s.
        """
        deaggregate = settings.deaggregate or settings.is_consumer
        self._codec = KinesisCodec(deaggregate=deaggregate)
        self.codec: ShardCodec = self._codec
        #: The stream's ARN, or the consumer's, once it is open.
        self.identity = ""
        self.handicap: str | None = None
        self.server_time_s = 0.0
        self.incarnation = ""
        self._settings = settings
        self._what = describe(settings)
        self._call_s = call_s
        self._wait_s = wait_s
        self._service = _service(settings, call_s=call_s)
        self._client = KinesisClient(self._service, self._what)
        #: None until it is open.
        self._poller: Poller | None = None
        self._subscriber: Subscriber | None = None

    async def open(self) -> None:
        """Find the stream, and the consumer if it is one's."""
        stream = await self._client.find(stream_of(self._settings))
        self.server_time_s = self._service.server_time_s or time.time() - _CLOCK_MARGIN_S
        poller = Poller(self._client, stream.arn, self._codec)
        if self._settings.is_consumer:
            await self._open_consumer(stream, poller)
        self.identity = self._codec.arn = self._settings.stream if self._settings.is_consumer else stream.arn
        self._learn(stream)
        self._poller = poller

    async def _open_consumer(self, stream: Stream, poller: Poller) -> None:
        """Find the consumer, and out whether anything is pushed to it."""
        # It loads a client for answers that go on, which nobody else needs.
        from connectors.kinesis_fanout import Subscriber  # noqa: PLC0415

        arn = self._settings.stream
        await self._client.find_consumer(arn)
        subscriber = Subscriber(
            self._service,
            await self._service.access(),
            arn,
            self._what,
            poller,
            self._codec,
            call_s=self._call_s,
            wait_s=self._wait_s,
        )
        try:
            shards = await self._client.shards(stream.arn)
            self.handicap = await subscriber.serves(shards[0].name) if shards else None
        except BaseException:
            await subscriber.close()
            raise
        self._subscriber = subscriber

    async def shards(self) -> Sequence[ShardInfo]:
        """List all shards; which of the streams of this name it is, is looked at as well."""
        self._opened()
        stream = await self._client.find(stream_of(self._settings))
        self._learn(stream)
        return await self._client.shards(stream.arn)

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:  # noqa: ARG002 - the shard
        ((shard, wish),) = demand.items()
        poller = self._opened()
        with self._failing():
            if self._subscriber is None:
                return [await poller.read(shard, wish)]
            read = self._subscriber.poll if self.handicap else self._subscriber.read
            return [await read(shard, wish)]

    async def page(self, shard: str, first: int, limit: int = PAGE_COUNT) -> Chunk:
        poller = self._opened()
        with self._failing():
            return await poller.page(shard, first, limit)

    def behind_ms(self, shard: str) -> int | None:
        return self._poller.behind_ms.get(shard) if self._poller else None

    async def close(self) -> None:
        if self._subscriber is not None:
            await self._subscriber.close()
        await self._service.close()

    def _learn(self, stream: Stream) -> None:
        self.incarnation = f"{stream.created_s:.3f}"

    def _opened(self) -> Poller:
        if self._poller is None:
            raise SourceUnavailable(f"{self._what}: it is not open yet")
        return self._poller

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise SourceUnavailable(
                f"{self._what}: what answers is not the service ({error}); check endpoint_url"
            ) from error
