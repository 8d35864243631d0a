"""The stores that we have, against the suite. What only the embedded one promises is in test_sqlite_promises.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.store.sqlite import SqliteStore
from router.ports import Store
from tests.conformance.store import StoreConformance
from tests.fakes.store import MemoryStore


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        opened = await SqliteStore.open(tmp_path / "state")
        yield opened
        await opened.close()
