"""A full disk while something is noted of failures: it is said, nothing is half done, and it works later."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from connectors.store.reader import SqliteReader
from connectors.store.sqlite import SqliteStore
from router.errors import StoreUnavailable
from router.ports import DeliveryEnded, Erasure, PutState, Selection, SetStatus
from tests.conformance.store import ids, keep
from tests.fakes.failures import entry

FIRST = entry("f1", keys=(b"k",))
WORKS = {
    "delivered": lambda store: store.apply([DeliveryEnded("f1", None)]),
    "replayed": lambda store: store.apply([SetStatus("f1", "replayed")]),
    "claimed": lambda store: store.claim(["f1"]),
    "dropped": lambda store: store.drop(["f1"]),
    "retry state": lambda store: store.apply([PutState("orders", "x", "y" * 5000)]),
    "erased": lambda store: store.erase([Erasure("f1", FIRST.batch.failed_at_s, b"k", None, None)]),
}


async def fill(store: SqliteStore, disk: Path) -> None:
    """Leave room for nothing, neither on the disk nor in the log."""
    number = 0
    with suppress(StoreUnavailable):
        while True:
            await keep(store, entry(f"filler-{number:04}"), event=os.urandom(16 * 1024))
            number += 1
    with suppress(OSError), (disk / "ballast").open("ab", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 512)


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
async def test_what_cannot_be_noted_is_said_and_can_be_done_later(
    small_disk: Path, work: Callable[[SqliteStore], Awaitable[object]]
) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 300 * 1024)
    store = await SqliteStore.open(small_disk / "state")
    await keep(store, FIRST, event=os.urandom(16 * 1024))
    await fill(store, small_disk)
    before = await store.failures(Selection(ids=("f1",)))
    with suppress(StoreUnavailable):  # a change that is small enough may still fit into the last page of the log
        while True:
            await store.apply([PutState("orders", "filler", os.urandom(2000).hex())])
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await work(store)
    assert await store.failures(Selection(ids=("f1",))) == before
    (small_disk / "ballast").unlink()
    await work(store)
    assert "f1" not in await ids(store, Selection(statuses=("stored",))) or "x" in await store.states("orders")
    await store.close()


async def test_a_store_that_was_closed_is_still_read(small_disk: Path) -> None:
    store = await SqliteStore.open(small_disk / "state")
    await keep(store, FIRST)
    await store.close()
    (small_disk / "ballast").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await SqliteStore.open(small_disk / "state")
    reader = await SqliteReader.open_read_only(small_disk / "state")
    assert [each.batch.id for each in await reader.failures(Selection())] == ["f1"]
    await reader.close()
    (small_disk / "ballast").unlink()
    again = await SqliteStore.open(small_disk / "state")
    assert await ids(again) == ["f1"]
    await again.close()
