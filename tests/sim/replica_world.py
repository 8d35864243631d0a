"""A stream that several replicas share, over one store and one table of leases, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random

from router.core.fleet import LeaseKey
from router.core.tenant import Tenant
from router.fleet.fleet import Fleet
from router.ports import Change
from router.shard_side import plug_shards
from tests.fakes.lease_table import MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.fakes.store import MemoryStore
from tests.sim.shard_world import ShardPlan, ShardWorld
from tests.sim.stage import NAME, Daemon, Lines, Site

LEASE_S = 10.0


class ReplicaDaemon(Daemon):
    """A daemon that is a replica."""

    def __init__(self, world: ReplicaWorld, site: Site, name: str) -> None:
        self.table = world.table.of(name, lease_s=LEASE_S)
        rng = Random(world.rng.getrandbits(32))
        self.fleet = Fleet(
            name,
            lambda: Tenant(name, LEASE_S, rng),
            self.table,
            MemoryPeers(self.table),
            log=Lines(world.lines),
            rng=rng,
            spent=self._spent,
            clock=asyncio.get_running_loop().time,
        )
        super().__init__(world, site, plug=partial(plug_shards, fleet=self.fleet), beside=[self.fleet.run])

    def _spent(self) -> Mapping[LeaseKey, float]:
        runner = self.life.runner
        return {LeaseKey(NAME, shard): spent_s for shard, spent_s in runner.spent_s().items()} if runner else {}

    async def leave(self) -> None:
        await self.fleet.leave()

    async def drain(self, within_s: float) -> None:
        self.fleet.leaving()
        await super().drain(within_s)


class SlowStore(MemoryStore):
    """One to which a write takes a while, and its answer as well."""

    way_s = answer_s = 0.0

    async def apply(self, changes: Sequence[Change]) -> None:
        await asyncio.sleep(self.way_s)
        await super().apply(changes)
        await asyncio.sleep(self.answer_s)


class ReplicaWorld(ShardWorld):
    """The server side, and the ledger."""

    def __init__(self, plan: ShardPlan) -> None:
        super().__init__(plan)
        self.store = SlowStore()
        for site in self.sites:
            site.store = self.store
        self._turns = [asyncio.Lock() for _ in self.sites]
        self.table = MemoryTable(self.store)

    def make_daemon(self, site: Site) -> Daemon:
        return ReplicaDaemon(self, site, f"replica-{self._number(site)}")

    def _number(self, site: Site) -> int:
        return next(number for number, each in enumerate(self.sites) if each is site)

    @asynccontextmanager
    async def ending(self, site: Site) -> AsyncIterator[Daemon]:
        """Take the daemon of a machine, which is to end, and start another one then: one name has one process."""
        async with self._turns[self._number(site)]:
            daemon, site.daemon = site.daemon, None
            assert daemon is not None
            yield daemon
            site.daemon = self.make_daemon(site)

    def _check_order(self, name: int, before: Sequence[int]) -> Iterator[str]:
        record = self.records[name]
        yield from (
            f"{name} runs before {each} of the same key"
            for each in self.of_key[record.key][: record.number - 1]
            if not self.is_over(each) and each not in before
        )
