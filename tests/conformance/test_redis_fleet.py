"""The table of leases and the peers in Redis against the suites, also where Redis is a node of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from connectors.redis.lease_table import RedisLeaseTable
from connectors.redis.peers import RedisPeers
from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from router.ports import LeaseTable, Peers, Store
from tests.conformance.lease_table import LeaseTableConformance, TableBench
from tests.conformance.peers import PeersBench, PeersConformance
from tests.live.own_redis import CLUSTER, OwnRedis


class RedisFleet:
    lease_s = 4.5

    def __init__(self, store: RedisStore) -> None:
        self.shared = store
        self.link = store.link

    def table(self, name: str, home: str | None = None) -> LeaseTable:
        return RedisLeaseTable(self.link, name, home or name, self.lease_s)

    def member(self, name: str) -> tuple[LeaseTable, Peers]:
        table = RedisLeaseTable(self.link, name, name, self.lease_s)
        return table, RedisPeers(self.link, table)

    async def store(self) -> Store:
        return self.shared

    async def forget_changes(self) -> None:
        await self.link.command("ZREMRANGEBYRANK", self.link.key("versions"), 0, -2)


async def linked(settings: RedisSettings, fleet: str) -> AsyncIterator[RedisFleet]:
    store = await RedisStore.open(settings, fleet, replica="a", folder=None)
    yield RedisFleet(store)
    await store.close()


class TestRedisTable(LeaseTableConformance):
    @pytest.fixture
    async def bench(self, redis_settings: RedisSettings, fleet_name: str) -> AsyncIterator[TableBench]:
        async for fleet in linked(redis_settings, fleet_name):
            yield fleet


class TestRedisPeers(PeersConformance):
    @pytest.fixture
    async def bench(self, redis_settings: RedisSettings, fleet_name: str) -> AsyncIterator[PeersBench]:
        async for fleet in linked(redis_settings, fleet_name):
            yield fleet


@pytest.fixture(scope="module")
def cluster(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    """A cluster of one node, which has all slots."""
    with OwnRedis(tmp_path_factory.mktemp("cluster"), *CLUSTER) as server:
        server.become_cluster()
        yield server.settings


class TestClusterTable(LeaseTableConformance):
    @pytest.fixture
    async def bench(self, cluster: RedisSettings, fleet_name: str) -> AsyncIterator[TableBench]:
        async for fleet in linked(cluster, fleet_name):
            yield fleet


class TestClusterPeers(PeersConformance):
    @pytest.fixture
    async def bench(self, cluster: RedisSettings, fleet_name: str) -> AsyncIterator[PeersBench]:
        async for fleet in linked(cluster, fleet_name):
            yield fleet
