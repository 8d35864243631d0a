"""The broker away: at the start, in mid-flow, silent. Calls say why in bounded time, and coming back is enough."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from connectors.kafka import KafkaSource
from router.core.facts import Progress
from router.errors import LeaseLost, SourceUnavailable
from router.ports import Lost, Opened, Revoking
from tests.conformance.stream_source import Client, running
from tests.conftest import MakeTopic
from tests.live.kafka_proxy import KafkaProxy
from tests.live.kafka_rig import kafka_settings

#: More than any call may take until it says that the broker is away: its own bound, and one trial connection.
BOUND_S = 20


@pytest.fixture
async def wire(kafka_bootstrap: str) -> AsyncIterator[KafkaProxy]:
    proxy = KafkaProxy(kafka_bootstrap)
    await proxy.mend()
    yield proxy
    await proxy.mend()
    await proxy.cut()


def patient(wire: KafkaProxy, name: str) -> KafkaSource:
    """A source whose session is longer than the outage: the group keeps it, as it does while a broker restarts."""
    return KafkaSource(kafka_settings(wire.address, name), call_s=2.0)


async def read_until_unavailable(client: Client, shard: str, after: int) -> SourceUnavailable:
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                await client.read(shard, after)
            except SourceUnavailable as error:
                return error


async def read_through_outage(client: Client, shard: str, after: int) -> list[bytes | None]:
    """Ask again, as the engine does, until something comes."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await client.read_values(shard, after, 1)
            except SourceUnavailable:
                await asyncio.sleep(0)


async def test_a_broker_that_is_not_there_at_the_start_is_named_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        source = KafkaSource(kafka_settings(address, "orders"))
        async with asyncio.timeout(9):  # a call may take 10 s
            with pytest.raises(SourceUnavailable, match=f"{address}: connection refused; check that the broker runs"):
                await source.open()
        await source.close()


async def test_a_host_that_does_not_resolve_is_named() -> None:
    source = KafkaSource(kafka_settings("no-such-host.invalid:9092", "orders"))
    with pytest.raises(SourceUnavailable, match=r"no-such-host\.invalid:9092: the host name cannot be resolved"):
        await source.open()
    await source.close()


async def test_every_broker_of_the_list_is_named_with_its_own_reason() -> None:
    source = KafkaSource(kafka_settings("127.0.0.1:1,no-such-host.invalid:9092", "orders"))
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:1: connection refused.*; no-such-host"):
        await source.open()
    await source.close()


async def test_the_same_source_opens_once_the_broker_is_there(wire: KafkaProxy, topic: MakeTopic) -> None:
    name = await topic()
    await wire.cut()
    source = KafkaSource(kafka_settings(wire.address, name))
    with pytest.raises(SourceUnavailable):
        await source.open()
    await wire.mend()
    async with running(source, shards=1) as client:
        assert client.opened.keys() == {f"{name}-0"}


async def test_a_broker_that_goes_in_mid_flow_is_reported_and_its_return_noticed(
    wire: KafkaProxy, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic()
    shard = f"{name}-0"
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        await producer.send_and_wait(name, b"before")
        async with running(patient(wire, name), shards=1) as client:
            assert await client.read_values(shard, -1, 1) == [b"before"]
            await wire.cut()
            await producer.send_and_wait(name, b"during")
            assert "connection refused" in str(await read_until_unavailable(client, shard, 0))
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(SourceUnavailable, match="connection refused"):
                    await client.source.commit({shard: Progress(0, "")})
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(SourceUnavailable, match="connection refused"):
                    await client.source.locate(shard, lost=True)
            await wire.mend()
            assert await read_through_outage(client, shard, 0) == [b"during"]
            await client.source.commit({shard: Progress(1, "")})


async def test_a_broker_that_stays_connected_but_is_silent_is_reported_too(
    wire: KafkaProxy, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic()
    shard = f"{name}-0"
    async with running(patient(wire, name), shards=1) as client:
        await client.read(shard, -1)
        wire.stall()
        assert "no answer" in str(await read_until_unavailable(client, shard, -1))
        await wire.mend()
        async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
            await producer.send_and_wait(name, b"after")
        assert await read_through_outage(client, shard, -1) == [b"after"]


async def test_whoever_was_away_longer_than_its_session_may_not_commit_over_its_successor(
    wire: KafkaProxy, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic()
    shard = f"{name}-0"
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        for value in (b"a", b"b"):
            await producer.send_and_wait(name, value)
    elder = KafkaSource(kafka_settings(wire.address, name, session_timeout_s=3.0))
    async with running(elder, shards=1) as away:
        wire.stall()
        async with running(KafkaSource(kafka_settings(kafka_bootstrap, name)), shards=1) as successor:
            await successor.source.commit({shard: Progress(1, "theirs")})
            await wire.mend()
            with pytest.raises(LeaseLost):
                await commit_until_answered(away, shard)
            while await away.change() != Lost(shard):
                pass
            await successor.source.close()
            await away.until_given(1)
            assert away.opened[shard] == Opened(shard, name, 1, "theirs")


async def test_whoever_cannot_join_the_group_is_told_why(
    wire: KafkaProxy, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic()
    async with running(KafkaSource(kafka_settings(kafka_bootstrap, name)), shards=1) as elder:
        younger = KafkaSource(kafka_settings(wire.address, name), call_s=1.0)
        await younger.open()
        # The elder is asked for its shard, and the younger waits until it is released.
        assert await elder.change() == Revoking(f"{name}-0")
        await wire.cut()
        async with asyncio.timeout(BOUND_S):
            with pytest.raises(SourceUnavailable, match=f"Cannot join group {name} .*: connection refused"):
                await anext(younger.changes())
        await younger.close()


async def commit_until_answered(client: Client, shard: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                return await client.source.commit({shard: Progress(0, "ours")})
            except SourceUnavailable:
                await asyncio.sleep(0)
