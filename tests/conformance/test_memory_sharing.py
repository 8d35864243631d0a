"""The store in memory, shared among replicas, against the suite."""

from __future__ import annotations

import pytest

from router.ports import Store
from tests.conformance.sharing import Open, SharingConformance
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import all_in_virtual_time


@all_in_virtual_time
class TestMemorySharing(SharingConformance):
    @pytest.fixture
    def replica(self) -> Open:
        whole = MemoryStore()

        async def open_one(name: str) -> Store:
            return whole.of(name)

        return open_one
