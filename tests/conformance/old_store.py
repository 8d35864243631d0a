"""A store that an earlier version of this program has written, and what is in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from connectors.store.sqlite import SqliteStore
from router.ports import Selection, Tally

#: Written by the code of store version 1: 12 failures of `orders`, one of `invoices`, three texts.
#: That of version 2 was made of it.
VECTORS = Path(__file__).parents[1] / "vectors"
VERSION_1 = VECTORS / "store-version-1.db"
IDS = ["g00", *(f"f{number:02}" for number in range(12))]
STATUSES = ["stored", *2 * ["stored", "delivered", "replaying", "replayed", "failed_again", "dropped"]]


def put_old_store(directory: Path, version: int = 1) -> Path:
    """Put the old store, as of a version, into a state directory; gives its file."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "headrace.db"
    shutil.copyfile(VECTORS / f"store-version-{version}.db", path)
    return path


async def assert_upgraded(directory: Path) -> None:
    """Look whether everything is there that was in the old store, as the newest code sees it."""
    store = await SqliteStore.open(directory)
    found = await store.failures(Selection())
    assert [each.batch.id for each in found] == IDS
    assert [each.status for each in found] == STATUSES
    assert await store.event("g00") == b"\xff\x00not json"
    assert b'"offset":12' in (await store.event("f01") or b"")
    assert await store.event("f05") is None
    by_key = await store.failures(Selection(key=b"customer-3", statuses=("stored",)))
    assert [each.batch.id for each in by_key] == ["f06"]
    assert [each.batch.id for each in await store.undelivered("orders")] == ["f00", "f02"]
    [first] = await store.failures(Selection(ids=("f00",)))
    assert (first.deliveries, first.delivery_error, first.next_delivery_s) == (1, "queue away", 1767225999.0)
    assert await store.states("orders") == {"begun": "kafka:orders", "retry:orders-0:ab": "{}"}
    assert await store.states("invoices") == {"message:7": "[]"}
    assert await store.tallies() == [
        Tally("invoices", "stored", 1, 0),
        Tally("orders", "delivered", 2, 0),
        Tally("orders", "dropped", 2, 0),
        Tally("orders", "failed_again", 2, 0),
        Tally("orders", "replayed", 2, 0),
        Tally("orders", "replaying", 2, 1),
        Tally("orders", "stored", 2, 1),
    ]
    backlog = await store.backlog("orders")
    assert (backlog.failures, backlog.undelivered) == (12, 2)
    inbox = await store.open_inbox()
    assert await inbox.lines() == {}
    await inbox.close()
    assert backlog.stored_bytes == sum(each.event_bytes for each in found) - len(b"\xff\x00not json")
    await store.close()
