"""The stores that we have, against the suite. What only the embedded one promises is in test_sqlite_promises.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from connectors.store.sqlite import SqliteStore
from router.ports import (
    Change,
    DeleteFailure,
    DeliveryEnded,
    KeepFailure,
    Selection,
    SetStatus,
    Store,
    Unclaim,
)
from tests.conformance.store import StoreConformance
from tests.fakes.failures import entry
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


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_done_it_holds_and_counts_what_the_model_does(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    model, store = MemoryStore(), await SqliteStore.open(tmp_path)
    for _ in range(150):
        work = anything(chance)
        assert await work(store) == await work(model)
    assert await store.failures(Selection()) == await model.failures(Selection())
    assert await store.tallies() == await model.tallies()
    for mapping in ("orders", "invoices"):
        assert await store.backlog(mapping) == await model.backlog(mapping)
        assert await store.undelivered(mapping) == await model.undelivered(mapping)
    await store.close()


def anything(chance: Random) -> Callable[[Store], Awaitable[object]]:
    """Choose something to do to a few failures."""
    failure_id = f"f{chance.randrange(12)}"
    kept = entry(
        failure_id,
        mapping=chance.choice(["orders", "invoices"]),
        destination=chance.choice([None, "sqs:dlq"]),
        failed_at_s=float(chance.randrange(5)),
        event=b"x" * chance.randrange(300),
    )
    changes: list[Change] = [
        KeepFailure(kept, b"x" * kept.event_bytes),
        KeepFailure(kept, b"x" * kept.event_bytes),
        SetStatus(failure_id, chance.choice(["replayed", "failed_again"])),
        Unclaim(failure_id),
        DeleteFailure(failure_id),
        DeliveryEnded(failure_id, chance.choice([None, "away"]), 5.0),
    ]
    return chance.choice(
        [
            *(lambda store, change=change: store.apply([change]) for change in changes),
            lambda store: store.claim([failure_id]),
            lambda store: store.drop([failure_id]),
        ]
    )
