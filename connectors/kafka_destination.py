"""A Kafka topic as the place where failure records go: one message a record, under the record's own key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from connectors.kafka_client import client_options, diagnose
from connectors.settings import KafkaDestination
from router.errors import DestinationUnavailable, SourceUnavailable
from router.failure_record import encode, function_arn, kafka_topic_records
from router.ports import FailureMessage

#: Largest message the client lets through; the broker's own limit decides.
_MESSAGE_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Longest time all messages of one failure may take.
_SEND_S: Final = 20.0
_REQUEST_MS: Final = 10_000
#: Longest time a client may take to close: what it has not sent expires before.
_CLOSE_S: Final = _REQUEST_MS / 1000 + 2.0

_MEANINGS: Final[dict[type[BaseException], str]] = {
    MessageSizeTooLargeError: "a record is larger than the broker takes; raise max.message.bytes of the topic",
    TopicAuthorizationFailedError: "this user may not write to it; give it the permission",
    UnknownTopicOrPartitionError: "it does not exist any more; create it",
}


class KafkaSender:
    """Sends failure records to a topic, with the record as payload; accepted by all replicas in sync."""

    def __init__(self, settings: KafkaDestination, region: str | None = None) -> None:
        """Make it without any I/O; `region` is the one in function ARNs."""
        self._settings = settings
        self._function_region = region
        self.name = f"kafka:{settings.topic}"
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def send(self, message: FailureMessage) -> None:
        arn = function_arn(message.entry.batch.function, self._function_region)
        records = kafka_topic_records(message.entry, function_arn=arn, event=message.event)
        async with self._errors():
            async with self._connecting:
                producer = self._producer or await self._connect()
            sent = [await producer.send(self._settings.topic, encode(record), key) for key, record in records]
            await asyncio.gather(*sent)

    async def check(self) -> None:
        async with self._errors():
            await self._find_topic(self._options())

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer:
            await _stop(producer)

    async def _connect(self) -> AIOKafkaProducer:
        options = self._options()
        await self._find_topic(options)
        producer = AIOKafkaProducer(
            **options,
            acks="all",
            # Not idempotent: such a producer never gives a message up, so it cannot be closed while brokers are away.
            max_request_size=_MESSAGE_LIMIT_BYTES,
            request_timeout_ms=_REQUEST_MS,
        )
        self._producer = producer
        await producer.start()
        return producer

    async def _find_topic(self, options: dict[str, Any]) -> None:
        """Make sure that the topic is there, without creating it: a request for all topics never does."""
        admin = AIOKafkaAdminClient(**options, request_timeout_ms=_REQUEST_MS)
        try:
            await admin.start()
            topics = await admin.list_topics()
        finally:
            await admin.close()
        if self._settings.topic not in topics:
            raise DestinationUnavailable(f"{self._where()}: there is no such topic that we may see; create it")

    @contextlib.asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Turn errors of Kafka into ours; after one the next call makes a new connection."""
        try:
            async with asyncio.timeout(_SEND_S):
                yield
        except DestinationUnavailable:
            await self.close()
            raise
        except SourceUnavailable as error:
            raise DestinationUnavailable(f"{self._where()}: {error}") from error
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise DestinationUnavailable(f"{self._where()}: {await self._reason(error)}") from error

    async def _reason(self, error: BaseException) -> str:
        if type(error) in _MEANINGS:
            return _MEANINGS[type(error)]
        if isinstance(error, TimeoutError):
            cause = f"no answer within {_SEND_S:.0f} s; look at the brokers"
        else:
            cause = str(error) or type(error).__name__
        return await diagnose(self._options()) or cause

    def _options(self) -> dict[str, Any]:
        return client_options(self._settings.bootstrap_servers, self._settings.security, "headrace")

    def _where(self) -> str:
        return f"Kafka topic {self._settings.topic} at {','.join(self._settings.bootstrap_servers)}"


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await producer.stop()
    except TimeoutError:
        await producer.client.close()
