"""A group of several members: who keeps what when one comes, goes, returns, or is taken for another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import NewPartitions
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from connectors.kafka import KafkaSource
from connectors.settings import KafkaSettings
from router.core.facts import Progress
from router.errors import DecisionNeeded, LeaseLost, RouterError
from router.ports import Lost, Opened, Revoking
from tests.conftest import MakeTopic
from tests.live.daemon import cluster
from tests.live.kafka_proxy import KafkaProxy
from tests.live.kafka_rig import kafka_settings

PATIENCE_S = 30.0


class Reader:
    """A member that gives back at once what is asked of it."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.shards: dict[str, Opened] = {}
        #: How often a shard was asked back, or taken.
        self.revoked = 0
        self.lost = 0
        self.error: RouterError | None = None
        self._news = asyncio.Condition()

    async def follow(self) -> None:
        try:
            async for change in self.source.changes():
                match change:
                    case Opened(shard):
                        self.shards[shard] = change
                    case Revoking(shard):
                        del self.shards[shard]
                        self.revoked += 1
                        await self.source.release(shard)
                    case Lost(shard):
                        self.shards.pop(shard, None)
                        self.lost += 1
                await self._tell()
        except RouterError as error:
            self.error = error
            await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, fact: Callable[[Reader], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: fact(self))

    async def until_given(self, count: int) -> None:
        await self.until(lambda reader: len(reader.shards) == count)


@asynccontextmanager
async def reading(settings: KafkaSettings, *, leaves: bool = True) -> AsyncIterator[Reader]:
    source = KafkaSource(settings, call_s=3.0, metadata_max_age_s=0.5, leaves=lambda: leaves)
    await source.open()
    reader = Reader(source)
    following = asyncio.create_task(reader.follow())
    try:
        yield reader
    finally:
        await source.close()
        await following


def static(bootstrap: str, topic: str, instance: str, **changes: object) -> KafkaSettings:
    return kafka_settings(bootstrap, topic, group_instance_id=instance, **changes)


async def test_a_static_member_that_returns_in_time_moves_nothing_of_the_others(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(4)
    async with reading(static(kafka_bootstrap, name, "two")) as other:
        async with reading(static(kafka_bootstrap, name, "one"), leaves=False) as one:
            await one.until_given(2)
            await other.until_given(2)
            had, revoked = set(one.shards), other.revoked
        async with reading(static(kafka_bootstrap, name, "one"), leaves=False) as one:
            await one.until_given(2)
            assert set(one.shards) == had
            await one.source.commit({shard: Progress(-1, "") for shard in had})
        assert (other.revoked, other.lost, len(other.shards)) == (revoked, 0, 2)


async def test_a_static_member_that_leaves_for_good_is_not_waited_for(kafka_bootstrap: str, topic: MakeTopic) -> None:
    name = await topic(4)
    async with reading(static(kafka_bootstrap, name, "two")) as other:
        async with reading(static(kafka_bootstrap, name, "one")) as one:
            await one.until_given(2)
            await other.until_given(2)
        began_s = time.monotonic()
        await other.until_given(4)
        assert time.monotonic() - began_s < 20, "its session would have been 30 s"


async def test_of_two_processes_with_one_instance_id_the_newer_reads_and_the_older_says_why_it_does_not(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(2)
    settings = static(kafka_bootstrap, name, "one")
    async with reading(settings) as older:
        await older.until_given(2)
        async with reading(settings) as newer:
            await newer.until_given(2)
            await older.until(lambda reader: reader.error is not None)
            assert isinstance(older.error, DecisionNeeded)
            assert older.error.code == "InstanceTaken"
            assert f"joined group {name} as one" in str(older.error)
            assert not older.shards
            with pytest.raises(LeaseLost):
                await older.source.commit({f"{name}-0": Progress(7, "")})
            await older.source.close()
            await newer.source.commit({f"{name}-{number}": Progress(0, "") for number in range(2)})
            assert (newer.error, newer.lost, len(newer.shards)) == (None, 0, 2)


async def test_a_member_that_cannot_reach_the_group_stops_before_the_group_gives_its_shards_to_others(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(2)
    wire = KafkaProxy(kafka_bootstrap)
    await wire.mend()
    settings = kafka_settings(wire.address, name, session_timeout_s=6.0)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(wire.cut)
        cut_off = await stack.enter_async_context(reading(settings))
        await cut_off.until_given(2)
        other = await stack.enter_async_context(reading(kafka_settings(kafka_bootstrap, name, session_timeout_s=6.0)))
        await cut_off.until(lambda reader: reader.revoked >= 2 and len(reader.shards) == 1)
        await other.until_given(1)
        [shard] = cut_off.shards
        wire.stall()
        await cut_off.until(lambda reader: not reader.shards)
        assert cut_off.lost == 1
        assert shard not in other.shards
        await other.until_given(2)


async def test_members_of_a_former_version_that_know_turns_only_are_assigned_beside_us(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(6)
    former = AIOKafkaConsumer(
        name,
        bootstrap_servers=kafka_bootstrap,
        group_id=name,
        partition_assignment_strategy=(RoundRobinPartitionAssignor,),
        heartbeat_interval_ms=500,
    )
    await former.start()
    try:
        settings = kafka_settings(kafka_bootstrap, name)
        async with reading(settings) as one:
            await one.until_given(3)
            assert await protocol(kafka_bootstrap, name) == "roundrobin"
            async with reading(settings) as two:
                await one.until_given(2)
                await two.until_given(2)
                async with asyncio.timeout(PATIENCE_S):
                    while len(former.assignment()) != 2:  # noqa: ASYNC110 - it may learn of it last, and tells nobody
                        await asyncio.sleep(0.02)
                kept = dict(two.shards)
                await former.stop()
                await one.until_given(3)
                await two.until_given(3)
                assert await protocol(kafka_bootstrap, name) == "sticky"
                assert kept.keys() <= two.shards.keys()
    finally:
        await former.stop()


async def protocol(bootstrap: str, group: str) -> str:
    """Give how the group assigns."""
    async with cluster(bootstrap) as admin:
        [answer] = await admin.describe_consumer_groups([group])
    [(_, _, _, _, chosen, *_)] = answer.groups
    return str(chosen)


async def test_a_rebalance_is_one_round(kafka_bootstrap: str, topic: MakeTopic) -> None:
    name = await topic(4)
    settings = kafka_settings(kafka_bootstrap, name)
    async with reading(settings) as one:
        await one.until_given(4)
        async with reading(settings) as two:
            await two.until_given(2)
            await one.until_given(2)
            before: Mapping[str, Opened] = one.shards
            assert (one.revoked, two.revoked) == (4, 0)
            assert before.keys().isdisjoint(two.shards)


async def test_partitions_added_after_the_return_of_a_static_leader_are_read(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(2)
    settings = static(kafka_bootstrap, name, "one")
    async with reading(settings, leaves=False) as one:
        await one.until_given(2)
    async with reading(settings) as one:
        await one.until_given(2)
        async with cluster(kafka_bootstrap) as admin:
            await admin.create_partitions({name: NewPartitions(3)})
        await one.until_given(3)


async def test_a_member_that_reaches_the_group_again_before_it_is_given_up_begins_anew(
    kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(2)
    wire = KafkaProxy(kafka_bootstrap)
    await wire.mend()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(wire.cut)
        one = await stack.enter_async_context(reading(kafka_settings(wire.address, name, session_timeout_s=6.0)))
        await one.until_given(2)
        wire.stall()
        await one.until(lambda reader: reader.lost == 2)
        await wire.mend()
        await one.until_given(2)
        await one.source.commit({f"{name}-{number}": Progress(-1, "") for number in range(2)})
        assert one.error is None
