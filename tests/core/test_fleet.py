"""One replica over a table in memory: what it tells its tenures, what others may ask of it, how it comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest

from router.core.fleet import LeaseKey
from router.core.tenant import Tenant
from router.errors import PeerGone
from router.fleet.fleet import Fleet
from router.fleet.tenure import Granted, LeaseChange, Lost, Tenure
from router.telemetry import Log
from tests.fakes.lease_table import MemoryLeaseTable, MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.sim.virtual_time import in_virtual_time

LEASE_S = 10.0
KEY = LeaseKey("orders", "one")


class Lines(Log):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def write(self, event: str, **fields: object) -> None:
        self.events.append(event)


class Replica:
    def __init__(self, table: MemoryLeaseTable) -> None:
        self.table = table
        self.log = Lines()
        self.peers = MemoryPeers(table)
        rng = Random(table.name)
        self.fleet = Fleet(
            table.name,
            lambda: Tenant(table.name, LEASE_S, rng),
            table,
            self.peers,
            log=self.log,
            rng=rng,
            clock=asyncio.get_running_loop().time,
        )
        self.told: list[LeaseChange] = []

    def wish(self, shard: str = "one") -> Tenure:
        tenure = self.fleet.tenure("orders")
        tenure.attend(self.told.append)
        tenure.wish(shard)
        return tenure

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        task = asyncio.create_task(self.fleet.run())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@in_virtual_time
async def test_it_waits_for_the_table_and_takes_what_was_wished_for_meanwhile() -> None:
    table = MemoryTable()
    a = Replica(table.of("a"))
    table.fault = "no route"
    async with a.running():
        a.wish()
        await asyncio.sleep(3)
        assert (a.told, a.fleet.joined.is_set()) == ([], False)
        table.fault = None
        await asyncio.sleep(60)
        assert [type(each) for each in a.told] == [Granted]
        assert a.log.events.count("fleet.joined") == 1
        assert "fleet.waiting" in a.log.events


@in_virtual_time
async def test_who_has_nothing_because_the_table_is_away_says_so() -> None:
    table = MemoryTable()
    a = Replica(table.of("a"))
    table.fault = "no route"
    async with a.running():
        tenure = a.wish()
        await asyncio.sleep(3)
        assert tenure.why_stuck() == ("StateUnavailable", "No lease can be taken, and none is held: no route")
        table.fault = None
        await asyncio.sleep(60)
        assert tenure.why_stuck() is None
        table.fault = "no way"
        await asyncio.sleep(LEASE_S / 2)
        assert (tenure.has("one"), tenure.why_stuck()) == (True, None)
        await asyncio.sleep(LEASE_S)
        assert tenure.why_stuck() == ("StateUnavailable", "No lease can be taken, and none is held: no way")
        table.fault = None
        await asyncio.sleep(60)
        assert (tenure.has("one"), tenure.why_stuck()) == (True, None)


@in_virtual_time
async def test_what_another_asks_is_answered_and_what_nobody_knows_is_answered_with_nothing() -> None:
    table = MemoryTable()
    a, b = Replica(table.of("a")), Replica(table.of("b"))

    async def echo(replica: str, body: bytes) -> bytes:
        return replica.encode() + body

    async def broken(replica: str, body: bytes) -> bytes:
        raise RuntimeError("a bug")

    a.fleet.serve("echo", echo)
    a.fleet.serve("broken", broken)
    async with a.running(), b.running():
        await asyncio.sleep(1)
        assert await b.peers.ask("a", "echo", b"!", 5) == b"b!"
        assert await b.peers.ask("a", "of a later version", b"", 5) == b""
        with pytest.raises(TimeoutError):
            await b.peers.ask("a", "broken", b"", 5)
        assert await b.peers.ask("a", "echo", b"?", 5) == b"b?"
        assert a.log.events.count("peer.not_answered") == 1


@in_virtual_time
async def test_who_leaves_gives_what_is_released_to_another_and_is_out_of_the_table() -> None:
    table = MemoryTable()
    a, b = Replica(table.of("a")), Replica(table.of("b"))
    async with a.running():
        a.wish()
        await asyncio.sleep(1)
        async with b.running():
            b.wish()
            await asyncio.sleep(5)
            a.fleet.leaving()
            for tenure in list(a.fleet._of_mapping["orders"]):
                tenure.release("one")
            await asyncio.sleep(0.1)
            assert table.leases[KEY].owner == "b"
            await a.fleet.leave()
            assert list(table.rows) == ["b"]
            with pytest.raises(PeerGone):
                await b.peers.ask("a", "anything", b"", 5)


@in_virtual_time
async def test_a_replica_whose_name_another_process_has_loses_all_and_says_so() -> None:
    table = MemoryTable()
    a = Replica(table.of("a"))
    why: list[str] = []
    a.fleet.on_ousted.append(why.append)
    async with a.running():
        a.wish()
        await asyncio.sleep(1)
        await table.of("a").join()  # from the same folder, as a restart does
        await asyncio.sleep(2)
        assert a.told[-1] == Lost("one")
        assert why == ["another process is replica a of this fleet now: give each replica its own name"]


@in_virtual_time
async def test_of_two_folders_with_one_name_the_second_is_refused_while_the_first_lives() -> None:
    table = MemoryTable()
    a, other = Replica(table.of("a")), Replica(table.of("a", home="elsewhere"))
    why: list[str] = []
    other.fleet.on_ousted.append(why.append)
    async with a.running(), other.running():
        a.wish()
        await asyncio.sleep(2 * LEASE_S)
        assert len(why) == 1
        assert [type(each) for each in a.told] == [Granted]


@in_virtual_time
async def test_it_begins_anew_with_nothing_after_a_bug() -> None:
    table = MemoryTable()
    a = Replica(table.of("a"))

    def bug() -> None:
        raise RuntimeError("a bug")

    async with a.running():
        a.wish()
        await asyncio.sleep(1)
    a.fleet.on_heard.append(bug)
    with pytest.raises(ExceptionGroup):
        await a.fleet.run()
    a.fleet.on_heard.remove(bug)
    async with a.running():
        await asyncio.sleep(1)
    assert [type(each) for each in a.told] == [Granted, Lost, Granted]


@in_virtual_time
async def test_what_a_lease_costs_is_measured_and_told_to_all() -> None:
    table = MemoryTable()
    a = Replica(table.of("a"))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    a.fleet.spent = lambda: {KEY: (loop.time() - began_s) / 2}
    async with a.running():
        a.wish()
        await asyncio.sleep(120)
        assert table.leases[KEY].load == pytest.approx(0.5, rel=0.3)
