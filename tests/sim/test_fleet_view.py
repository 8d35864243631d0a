"""What replicas of a fleet see of each other, on virtual time: whether all run the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any, cast

from structlog.testing import capture_logs

from router.board import Board
from router.core.tenant import Tenant
from router.fleet.fleet import Fleet
from router.fleet.together import Together
from router.fleet.view import FleetView
from router.telemetry import Log, Metrics
from tests.fakes.lease_table import MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import in_virtual_time

LEASE_S = 10.0


class Seer:
    """One replica, as far as it looks at the others."""

    def __init__(self, store: MemoryStore, table: MemoryTable, name: str) -> None:
        loop, rng = asyncio.get_running_loop(), Random(name)
        self.table = table.of(name, lease_s=LEASE_S)
        self.file = "one"
        fleet = Fleet(
            name,
            lambda: Tenant(name, LEASE_S, rng),
            self.table,
            MemoryPeers(self.table),
            log=Log(),
            rng=rng,
            clock=loop.time,
        )
        together = Together(fleet, store, {})
        self.metrics = Metrics().of_fleet()
        view = FleetView(
            "clicks",
            fleet,
            together,
            cast("Board", None),
            version="1.0",
            state_dir="/x",
            digests=self._digests,
            assigned=dict,
            findings=list,
            metrics=self.metrics,
            log=Log(),
        )
        self._tasks = [asyncio.ensure_future(work) for work in (fleet.run(), together.run(), view.run())]

    def _digests(self) -> tuple[str, Mapping[str, str]]:
        return self.file, {}

    @property
    def sees_differences(self) -> bool:
        return bool(self.metrics.mixed._value.get())

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)


@in_virtual_time
async def test_every_replica_sees_that_a_file_was_changed_somewhere_and_that_all_are_the_same_again() -> None:
    store = MemoryStore()
    table = MemoryTable(store)
    a, b, c = seers = [Seer(store, table, name) for name in "abc"]
    await asyncio.sleep(10.0)
    assert not any(each.sees_differences for each in seers)
    with capture_logs() as lines:
        a.file = "two"
        c.table.fault = "it is away when that is told"
        await asyncio.sleep(3.0)
        c.table.fault = None
        await asyncio.sleep(7.0)
        assert all(each.sees_differences for each in seers)
        b.file = c.file = "two"
        await asyncio.sleep(10.0)
        assert not any(each.sees_differences for each in seers)
    told: list[Mapping[str, Any]] = [each for each in lines if each["event"] in ("fleet.mixed", "fleet.alike")]
    assert [each["event"] for each in told[-3:]] == ["fleet.alike"] * 3
    for each in seers:
        await each.end()
