"""What several replicas do with one store: leases that fence, claims that are one replica's, loads that are shared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from connectors.redis import rows
from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from router.core.fleet import Lease, LeaseKey
from router.errors import LeaseLost
from router.ports import Holds, KeepFailure, PutState, Selection
from tests.conformance.sharing import SharingConformance
from tests.conformance.test_redis_store import delete_fleet
from tests.fakes.failures import entry

pytestmark = pytest.mark.live

Open: TypeAlias = Callable[..., Awaitable[RedisStore]]
KEY = LeaseKey("orders", "shard-0")


@pytest.fixture
async def replica(redis_settings: RedisSettings, fleet_name: str, tmp_path: Path) -> AsyncIterator[Open]:
    opened: list[RedisStore] = []

    async def open_one(name: str, settings: RedisSettings = redis_settings) -> RedisStore:
        opened.append(await RedisStore.open(settings, fleet_name, replica=name, folder=tmp_path / name))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()
    await delete_fleet(redis_settings, fleet_name)


async def lend(store: RedisStore, token: int, owner: str = "r1") -> None:
    row = rows.lease_value(Lease(token, owner, "", 0.5, 1767225600015))
    await store.link.command("HSET", store.link.key(rows.LEASES), rows.lease_field(KEY), row)


async def test_what_is_written_under_a_lease_is_written_while_it_holds(replica: Open) -> None:
    store = await replica("r1")
    token = 2**52 + 7  # as large as they become
    await lend(store, token)
    await store.apply([PutState("orders", "shard:shard-0", "1"), Holds(*KEY, token), KeepFailure(entry(), b"event")])
    assert (await store.states("orders"), await store.event("f1")) == ({"shard:shard-0": "1"}, b"event")


@pytest.mark.parametrize("token", [2**52 + 6, 2**52 + 8, 1])
async def test_nothing_is_written_under_a_lease_that_is_anothers(replica: Open, token: int) -> None:
    store = await replica("r1")
    await lend(store, 2**52 + 7)
    with pytest.raises(LeaseLost, match="shard-0 of mapping orders"):
        await store.apply([PutState("orders", "a", "1"), KeepFailure(entry(), b"event"), Holds(*KEY, token)])
    assert (await store.states("orders"), await store.failures(Selection())) == ({}, [])


async def test_nothing_is_written_under_a_lease_that_nobody_knows_or_when_one_of_two_is_lost(replica: Open) -> None:
    store = await replica("r1")
    await lend(store, 5)
    for holds in ([Holds("orders", "shard-1", 5)], [Holds(*KEY, 5), Holds("orders", "shard-1", 6)]):
        with pytest.raises(LeaseLost, match="shard-1"):
            await store.apply([*holds, PutState("orders", "a", "1")])
    assert await store.states("orders") == {}


class TestRedisSharing(SharingConformance):
    """The suite, with the fixture above."""


async def test_two_fleets_in_one_database_know_nothing_of_each_other(
    redis_settings: RedisSettings, replica: Open, tmp_path: Path
) -> None:
    ours = await replica("r1")
    theirs = await RedisStore.open(redis_settings, f"{ours.link.fleet}-2", replica="r1", folder=tmp_path / "other")
    await ours.apply([PutState("orders", "x", "1"), KeepFailure(entry(), b"event")])
    assert (await theirs.states("orders"), await theirs.failures(Selection())) == ({}, [])
    await theirs.apply([KeepFailure(entry(), b"other")])
    assert await ours.event("f1") == b"event"
    await theirs.close()
    await delete_fleet(redis_settings, theirs.link.fleet)


async def test_many_writers_at_once_are_each_answered_for_themselves(replica: Open) -> None:
    store = await replica("r1")
    await lend(store, 5)
    writes = [store.apply([Holds(*KEY, 5 + number % 2), PutState("orders", f"{number}", "1")]) for number in range(600)]
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(end, LeaseLost) for end in ends] == [bool(number % 2) for number in range(600)]
    assert len(await store.states("orders")) == 300
