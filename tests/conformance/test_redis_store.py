"""The store of a fleet on a real Redis, against the suite and the model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from connectors.redis.link import RedisLink
from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from router.ports import Selection, Store
from tests.conformance.store import StoreConformance
from tests.conformance.test_sqlite_store import anything
from tests.fakes.store import MemoryStore

pytestmark = pytest.mark.live


async def delete_fleet(settings: RedisSettings, fleet: str) -> None:
    """Leave nothing behind in a Redis that others use."""
    link = await RedisLink.open(settings, fleet)
    cursor = b"0"
    while True:
        cursor, keys = await link.command("SCAN", cursor, "MATCH", link.key("*"), "COUNT", 1000)
        if keys:
            await link.command("UNLINK", *keys)
        if int(cursor) == 0:
            break
    await link.close()


@pytest.fixture
async def redis_store(redis_settings: RedisSettings, fleet_name: str, tmp_path: Path) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(redis_settings, fleet_name, replica="r1", folder=tmp_path)
    yield store
    await store.close()
    await delete_fleet(redis_settings, fleet_name)


class TestRedisStore(StoreConformance):
    @pytest.fixture
    def store(self, redis_store: RedisStore) -> Store:
        return redis_store


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_done_it_holds_and_counts_what_the_model_does(redis_store: RedisStore, seed: int) -> None:
    chance = Random(seed)
    model = MemoryStore()
    for _ in range(150):
        work = anything(chance)
        assert await work(redis_store) == await work(model)
    assert await redis_store.failures(Selection()) == await model.failures(Selection())
    assert await redis_store.tallies() == await model.tallies()
    for mapping in ("orders", "invoices"):
        assert await redis_store.backlog(mapping) == await model.backlog(mapping)
        assert await redis_store.undelivered(mapping) == await model.undelivered(mapping)
