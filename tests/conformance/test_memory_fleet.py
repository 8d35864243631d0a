"""The table of leases and the peers in memory against the suites."""

from __future__ import annotations

import pytest

from router.core.fleet import Said
from router.errors import StoreUnavailable
from router.ports import LeaseTable, Peers, Store
from tests.conformance.lease_table import FIRST, LeaseTableConformance, TableBench, enter
from tests.conformance.peers import PeersBench, PeersConformance
from tests.fakes.lease_table import MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.sim.virtual_time import all_in_virtual_time, in_virtual_time


class MemoryFleet:
    lease_s = 30.0

    def __init__(self) -> None:
        self.shared = MemoryTable()

    def table(self, name: str, home: str | None = None) -> LeaseTable:
        return self.shared.of(name, home=home, lease_s=self.lease_s)

    def member(self, name: str) -> tuple[LeaseTable, Peers]:
        table = self.shared.of(name, lease_s=self.lease_s)
        return table, MemoryPeers(table)

    async def store(self) -> Store:
        return self.shared.store

    async def forget_changes(self) -> None:
        self.shared.forget_changes()


@all_in_virtual_time
class TestMemoryTable(LeaseTableConformance):
    @pytest.fixture
    def bench(self) -> TableBench:
        return MemoryFleet()


@all_in_virtual_time
class TestMemoryPeers(PeersConformance):
    @pytest.fixture
    def bench(self) -> PeersBench:
        return MemoryFleet()


@in_virtual_time
async def test_an_answer_can_be_lost_after_it_was_applied() -> None:
    fleet = MemoryFleet()
    [a] = await enter(fleet, "a")
    a.table.answers_to_lose = 1
    with pytest.raises(StoreUnavailable):
        await a.take(FIRST)
    assert await a.take(FIRST) > 0


@in_virtual_time
async def test_one_replica_alone_can_be_cut_off() -> None:
    fleet = MemoryFleet()
    a, b = await enter(fleet, "a", "b")
    a.table.fault = "cut off"
    with pytest.raises(StoreUnavailable, match="cut off"):
        await a.table.exchange(Said(1, 0.0, False, None, 0))
    await b.say()
    a.table.fault = None
    await a.say()
