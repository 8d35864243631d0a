"""A Kafka topic as the place where failure records go: one message a record, under the record's own key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from connectors.fitting import TooLarge, send_fitting
from connectors.kafka_client import client_options, diagnose
from connectors.settings import KafkaDestination
from router.errors import DestinationUnavailable, SourceUnavailable
from router.failures.record import ArnOf, Form, encode, forms, function_arn, kafka_topic_records
from router.ports import FailureEntry, FailureMessage, Sent

#: Largest message the client lets through; the broker's own limit decides.
_MESSAGE_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Longest time all messages of one failure may take.
_SEND_S: Final = 20.0
_REQUEST_MS: Final = 10_000
#: Longest time a client may take to close: what it has not sent expires before.
_CLOSE_S: Final = _REQUEST_MS / 1000 + 2.0

_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_MEANINGS: Final[dict[type[BaseException], str]] = {
    NotLeaderForPartitionError: "its partitions have moved, or it does not exist any more; if so, create it",
    TopicAuthorizationFailedError: "this user may not write to it; give it the permission",
    UnknownTopicOrPartitionError: "it does not exist any more; create it",
}


class KafkaSender:
    """Sends failure records to a topic, with the record as payload; accepted by all replicas in sync."""

    def __init__(self, settings: KafkaDestination, arn_of: ArnOf = function_arn) -> None:
        """Make it without any I/O; `arn_of` gives the ARN of a function by its name."""
        self._settings = settings
        self._arn_of = arn_of
        self.name = f"kafka:{settings.topic}"
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def send(self, message: FailureMessage) -> Sent:
        entry = message.entry
        arn = self._arn_of(entry.batch.function)
        records = list(kafka_topic_records(entry, function_arn=arn, event=message.event))
        async with self._errors():
            producer = await self._connected()
            sent = [await producer.send(self._settings.topic, encode(record), key) for key, record in records]
            ends = await asyncio.gather(*sent, return_exceptions=True)
            for end in ends:
                if isinstance(end, BaseException) and not isinstance(end, _TOO_LARGE):
                    raise end
        # Messages travel together, and what is too large takes along what is not: each is sent once more, alone.
        refused = [record for record, end in zip(records, ends, strict=True) if isinstance(end, _TOO_LARGE)]
        alone = [await self._send_alone(entry, key, record) for key, record in refused]
        return Sent.CLAIM_CHECK if Sent.CLAIM_CHECK in alone else Sent.WHOLE

    async def _send_alone(self, entry: FailureEntry, key: bytes | None, record: Mapping[str, Any]) -> Sent:
        async def send(form: Form) -> None:
            async with self._errors():
                producer = await self._connected()
                # The key may be what is too large.
                await producer.send_and_wait(self._settings.topic, form.body, None if form.is_bare else key)

        return await send_fitting(forms(entry, record), send)

    async def check(self) -> None:
        async with self._errors():
            await self._find_topic(await self._options())

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer:
            await _stop(producer)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            return self._producer or await self._connect()

    async def _connect(self) -> AIOKafkaProducer:
        options = await self._options()
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
        except _TOO_LARGE as error:
            raise TooLarge(
                f"{self._where()}: a record is larger than the broker takes; raise max.message.bytes of the topic"
            ) from error
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
        try:
            return await diagnose(await self._options()) or cause
        except SourceUnavailable as unavailable:
            return str(unavailable)

    async def _options(self) -> dict[str, Any]:
        return await client_options(self._settings.bootstrap_servers, self._settings.security, "headrace")

    def _where(self) -> str:
        return f"Kafka topic {self._settings.topic} at {','.join(self._settings.bootstrap_servers)}"


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await producer.stop()
    except TimeoutError:
        await producer.client.close()
