"""Which failures are sent when somebody asks, and what is said of the others."""

from __future__ import annotations

import pytest

from router.errors import StoreUnavailable
from router.failures.deliveries import Deliveries, DeliveryEnd, OutboxFacts, deliver
from router.ports import DeliveryEnded, KeepFailure, SetStatus
from router.replay.end import JobOver
from tests.fakes.failures import EVENT, entry
from tests.fakes.store import MemoryStore


class Instant:
    """Delivers whatever it is asked to."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def facts(self) -> OutboxFacts:
        return OutboxFacts("memory:failed", 0)

    def deliver(self, entry, tell) -> None:
        self.asked.append(entry.batch.id)
        tell(DeliveryEnd(entry.batch.id, "delivered", form="whole"))

    def settled(self, failure_ids) -> None:
        raise AssertionError("nothing is settled here")


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    kept = [entry(f"f{number}") for number in range(5)]
    others = [
        entry("without", destination=None),
        entry("gone", mapping="gone"),
        entry("bare", mapping="bare"),
    ]
    await made.apply([KeepFailure(each, EVENT) for each in (*kept, *others)])
    await made.apply([DeliveryEnded("f1", None), SetStatus("f2", "replayed"), SetStatus("f3", "failed_again")])
    await made.drop(["f4"])
    return made


async def asked(store: MemoryStore, mappings: dict[str, Deliveries | None], *ids: str) -> dict[str, DeliveryEnd]:
    ends = await deliver(store, mappings, ids)
    found: dict[str, DeliveryEnd] = {}
    while isinstance(end := await ends.next(), DeliveryEnd):
        found[end.id] = end
    assert end == JobOver(None)
    return found


async def test_what_waits_is_sent_and_of_the_rest_is_said_why_not(store: MemoryStore) -> None:
    orders = Instant()
    ids = ("f0", "f1", "f2", "f3", "f4", "without", "gone", "bare", "f9")
    found = await asked(store, {"orders": orders, "bare": None}, *ids)
    assert orders.asked == ["f0"]
    assert found["f0"] == DeliveryEnd("f0", "delivered", form="whole")
    assert found["f1"] == DeliveryEnd("f1", "delivered", "its destination has it already")
    assert {each.id: each.reason for each in found.values() if each.outcome == "refused"} == {
        "f2": "its replay succeeded",
        "f3": "its records are in newer failures",
        "f4": "it was dropped",
        "without": "it was stored while its mapping had no destination",
        "gone": "its mapping 'gone' is not configured; see `headrace status`",
        "bare": "its mapping 'bare' has no destination any more; see destination_config in the file",
        "f9": "there is no such failure",
    }


async def test_one_that_is_named_twice_is_sent_once_and_nothing_at_all_ends_at_once(store: MemoryStore) -> None:
    orders = Instant()
    assert list(await asked(store, {"orders": orders}, "f0", "f0")) == ["f0"]
    assert orders.asked == ["f0"]
    assert await asked(store, {"orders": orders}) == {}


async def test_a_store_that_cannot_be_read_is_said(store: MemoryStore) -> None:
    store.read_fault = "disk away"
    with pytest.raises(StoreUnavailable, match="disk away"):
        await deliver(store, {}, ["f0"])
