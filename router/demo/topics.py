"""The Kafka of the demo that has one: a server, and topics of the demo's own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from router.demo.stage import ROOT, DemoFailed

SERVICES: Final = ROOT / "tests" / "services" / "services"

PARTITIONS: Final = 4
Client = TypeVar("Client", AIOKafkaProducer, AIOKafkaConsumer)

#: Longest wait for one answer of Kafka.
KAFKA_S: Final = 20.0


@asynccontextmanager
async def kafka_server(say: Callable[[str], None], *, keep: bool) -> AsyncIterator[str]:
    """Give `host:port` of a Kafka: the one that is named, or one that is started here.

    Raises:
        DemoFailed: there is none.
    """
    named = os.environ.get("HEADRACE_DEMO_KAFKA")
    if named:
        yield named
        return
    if not SERVICES.exists():
        raise DemoFailed(
            "the demo needs a Kafka: set HEADRACE_DEMO_KAFKA=host:port, or run it in a checkout of headrace"
        )
    ran_before = await _services("status", lambda _: None) == 0
    try:
        if await _services("start", say):
            raise DemoFailed("Kafka did not start (see above); or set HEADRACE_DEMO_KAFKA=host:port of one that runs")
        lines: list[str] = []
        await _services("env", lines.append)
        exports = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        yield exports["HEADRACE_TEST_KAFKA"]
    finally:
        if keep:
            say(f"Kafka stays up; to stop it: {SERVICES} stop kafka")
        elif not ran_before:
            await _services("stop", say)


async def _services(action: str, say: Callable[[str], None]) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SERVICES, action, "kafka", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None, "asked for above"
    try:
        async for line in process.stdout:
            say(line.decode(errors="replace").rstrip())
        return await process.wait()
    finally:
        if process.returncode is None:  # interrupted
            process.terminate()
            await process.wait()


class Topics:
    """The topic of the orders and the one of the dead letters."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.orders = f"headrace-demo-{uuid.uuid4().hex[:8]}"
        self.dead_letters = f"{self.orders}-dead-letters"

    @classmethod
    @asynccontextmanager
    async def made(cls, kafka: str, *, keep: bool) -> AsyncIterator[Topics]:
        """Create both; delete them in the end.

        Raises:
            DemoFailed: Kafka does not answer or refuses.
        """
        topics = cls(kafka)
        try:
            async with asyncio.timeout(KAFKA_S):
                await topics._create()
        except (KafkaError, OSError) as error:
            raise DemoFailed(f"Kafka at {kafka} cannot be used: {type(error).__name__}: {error}") from error
        try:
            yield topics
        finally:
            if not keep:
                with suppress(KafkaError, OSError):
                    async with asyncio.timeout(KAFKA_S), topics._admin() as admin:
                        await admin.delete_topics([topics.orders, topics.dead_letters])

    async def _create(self) -> None:
        async with self._admin() as admin:
            wanted = [NewTopic(self.orders, PARTITIONS, 1), NewTopic(self.dead_letters, 1, 1)]
            await admin.create_topics(wanted)
            while not await self._are_led(admin):  # noqa: ASYNC110 - Kafka does not tell when leaders are elected
                await asyncio.sleep(0.1)

    async def _are_led(self, admin: AIOKafkaAdminClient) -> bool:
        described = await admin.describe_topics([self.orders, self.dead_letters])
        partitions = [partition for topic in described for partition in topic["partitions"]]
        return len(partitions) == PARTITIONS + 1 and all(partition["leader"] >= 0 for partition in partitions)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    async def send(self, orders: Iterable[dict[str, Any]]) -> None:
        """Produce orders under their customers' keys; returns when Kafka has them."""
        async with _started(AIOKafkaProducer(bootstrap_servers=self.kafka)) as producer:
            sent = [
                await producer.send(self.orders, json.dumps(order).encode(), order["customer"].encode())
                for order in orders
            ]
            await asyncio.gather(*sent)

    async def dead_letter(self) -> dict[str, Any]:
        """Read the first failure record back. Raises DemoFailed."""
        partition = TopicPartition(self.dead_letters, 0)
        reader = AIOKafkaConsumer(bootstrap_servers=self.kafka, auto_offset_reset="earliest")
        async with _started(reader) as consumer:
            consumer.assign([partition])
            try:
                async with asyncio.timeout(KAFKA_S):
                    message = await consumer.getone()
            except TimeoutError:
                raise DemoFailed(f"nothing arrived in the dead-letter topic within {KAFKA_S:.0f} s") from None
        record: dict[str, Any] = json.loads(message.value)
        return record


@asynccontextmanager
async def _started(client: Client) -> AsyncIterator[Client]:
    """Run a client; unlike its own context, this also ends one that is interrupted while it starts."""
    try:
        await client.start()
        yield client
    finally:
        await client.stop()
