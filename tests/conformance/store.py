"""What every Store does, whatever it is made of. Subclasses give the `store` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from router.core.model import FunctionError, Reason
from router.errors import StoreUnavailable
from router.ports import (
    Backlog,
    Change,
    DeleteFailure,
    DeliveryEnded,
    Erasure,
    FailureEntry,
    KeepFailure,
    PutState,
    RenameMapping,
    Selection,
    SetStatus,
    Store,
    Tally,
    Unclaim,
)
from tests.fakes.failures import EVENT, entry

ALL = Selection()


async def keep(store: Store, *entries: FailureEntry, event: bytes = EVENT) -> None:
    await store.apply([KeepFailure(each, event) for each in entries])


async def ids(store: Store, selection: Selection = ALL) -> list[str]:
    return [each.batch.id for each in await store.failures(selection)]


async def status(store: Store, failure_id: str = "f1") -> str:
    [found] = await store.failures(Selection(ids=(failure_id,)))
    return found.status


async def undelivered(store: Store, mapping: str = "orders") -> list[str]:
    return [each.batch.id for each in await store.undelivered(mapping)]


class StoreConformance:
    async def test_a_failure_comes_back_whole(self, store: Store) -> None:
        kept = entry(keys=(b"k",), first_position=2**70, parent="f0", reason=Reason.AGE)
        await keep(store, kept)
        assert await store.failures(ALL) == [replace(kept, keys=())]
        assert await store.event("f1") == EVENT

    @pytest.mark.parametrize("event", [b"{}", b'{"a":"' + b"x" * 100_000 + b'"}', bytes(range(256))])
    async def test_an_event_comes_back_byte_for_byte_with_its_size(self, store: Store, event: bytes) -> None:
        await keep(store, entry(), event=event)
        assert await store.event("f1") == event
        assert [each.event_bytes for each in await store.failures(ALL)] == [len(event)]

    async def test_a_failure_that_nobody_knows_has_no_event(self, store: Store) -> None:
        assert await store.event("f9") is None

    async def test_keeping_a_failure_twice_is_one_that_starts_again(self, store: Store) -> None:
        await keep(store, entry(keys=(b"old",)))
        await store.apply([DeliveryEnded("f1", None)])
        await keep(store, entry(keys=(b"new",), attempts=9), event=b"{}")
        [found] = await store.failures(ALL)
        assert (found.status, found.deliveries, found.batch.attempts) == ("stored", 0, 9)
        assert await store.event("f1") == b"{}"
        assert (await ids(store, Selection(key=b"old")), await ids(store, Selection(key=b"new"))) == ([], ["f1"])
        assert await undelivered(store) == ["f1"]

    async def test_failures_are_listed_oldest_first(self, store: Store) -> None:
        await keep(store, entry("b", failed_at_s=2.0), entry("c", failed_at_s=1.0), entry("a", failed_at_s=3.0))
        assert await ids(store) == ["c", "b", "a"]
        assert await ids(store, Selection(limit=2)) == ["c", "b"]

    @pytest.mark.parametrize(
        ("selection", "expected"),
        [
            (Selection(ids=("f2", "f3", "f9")), ["f2", "f3"]),
            (Selection(mapping="orders"), ["f1", "f2"]),
            (Selection(shard="orders-1"), ["f2"]),
            (Selection(key=b"k1"), ["f1", "f3"]),
            (Selection(key=b""), ["f2"]),
            (Selection(key=b"k"), []),
            (Selection(since_s=2.0), ["f2", "f3"]),
            (Selection(until_s=2.0), ["f1"]),
            (Selection(since_s=2.0, until_s=3.0), ["f2"]),
            (Selection(error="VALUEerror"), ["f1"]),
            (Selection(error="100% \u00c4rger"), ["f2"]),
            (Selection(error="100_"), []),
            (Selection(statuses=("dropped", "delivered")), ["f3"]),
            (Selection(mapping="orders", key=b"k1"), ["f1"]),
            (Selection(mapping="orders", statuses=("delivered",)), []),
        ],
    )
    async def test_a_selection_holds_in_every_field(
        self, store: Store, selection: Selection, expected: Sequence[str]
    ) -> None:
        first = entry("f1", failed_at_s=1.0, keys=(b"k1", b"k2"))
        other_error = replace(first.batch.error, error_type="IOError", message="Disk 100% \u00e4rger")  # type: ignore[type-var]
        second = entry("f2", failed_at_s=2.0, shard="orders-1", error=other_error, keys=(b"",))
        third = entry("f3", failed_at_s=3.0, mapping="invoices", shard="invoices-0", error=None, keys=(b"k1",))
        await keep(store, first, second, third)
        await store.apply([DeliveryEnded("f3", None)])
        assert await ids(store, selection) == expected
        assert await store.count(selection) == len(expected)

    @pytest.mark.parametrize("selection", [ALL, Selection(mapping="orders"), Selection(statuses=("stored", "dropped"))])
    @pytest.mark.parametrize("size", [1, 3, 7])
    async def test_pages_hold_everything_once_and_in_order(self, store: Store, selection: Selection, size: int) -> None:
        await keep(store, *(entry(f"f{number}", failed_at_s=1.0 + number // 3) for number in range(7)))
        await keep(store, entry("g", failed_at_s=2.0, mapping="invoices"))
        await store.drop(["f1", "f5"])
        await store.apply([SetStatus("f2", "replayed")])
        whole = await ids(store, selection)
        found: list[str] = []
        page = await store.failures(replace(selection, limit=size))
        while page:
            found += [each.batch.id for each in page]
            last = page[-1].batch
            page = await store.failures(replace(selection, limit=size, after=(last.failed_at_s, last.id)))
        assert found == whole
        assert await store.count(replace(selection, limit=1)) == len(whole)

    async def test_what_mappings_have_is_counted_by_status(self, store: Store) -> None:
        await keep(store, entry("f1"), entry("f2"), entry("f3"), entry("g", mapping="invoices", destination=None))
        assert await store.tallies() == [Tally("invoices", "stored", 1, 0), Tally("orders", "stored", 3, 3)]
        await store.drop(["f1"])
        await store.apply([DeliveryEnded("f2", None), DeleteFailure("g")])
        assert await store.tallies() == [
            Tally("orders", "delivered", 1, 0),
            Tally("orders", "dropped", 1, 0),
            Tally("orders", "stored", 1, 1),
        ]

    async def test_a_claim_is_won_once(self, store: Store) -> None:
        await keep(store, entry("f1"), entry("f2"))
        claims = await asyncio.gather(*(store.claim(["f1", "f2", "f9"]) for _ in range(5)))
        assert sorted(len(each) for each in claims) == [0, 0, 0, 0, 2]
        assert await status(store) == "replaying"

    @pytest.mark.parametrize("before", ["stored", "delivered", "replayed", "failed_again"])
    async def test_a_claim_that_is_taken_back_leaves_no_trace(self, store: Store, before: str) -> None:
        await keep(store, entry())
        await store.apply([SetStatus("f1", before)])
        assert await store.claim(["f1"]) == ["f1"]
        await store.apply([Unclaim("f1")])
        assert await status(store) == before
        assert await store.claim(["f1"]) == ["f1"]

    async def test_what_is_not_claimed_cannot_be_unclaimed(self, store: Store) -> None:
        await keep(store, entry())
        await store.apply([Unclaim("f1"), Unclaim("f9")])
        assert await status(store) == "stored"

    async def test_a_dropped_failure_stays_listed_without_its_event(self, store: Store) -> None:
        await keep(store, entry(keys=(b"k",)))
        assert await store.drop(["f1", "f9"]) == ["f1"]
        assert await status(store) == "dropped"
        assert await store.event("f1") is None
        assert await store.backlog("orders") == Backlog(undelivered=0, stored_bytes=0, failures=1)
        assert await store.claim(["f1"]) == []

    async def test_what_is_being_replayed_cannot_be_dropped(self, store: Store) -> None:
        await keep(store, entry())
        await store.claim(["f1"])
        assert await store.drop(["f1"]) == []
        assert await status(store) == "replaying"
        assert await store.event("f1") == EVENT

    async def test_a_key_is_taken_out_of_what_stays_and_nothing_else_is_changed(self, store: Store) -> None:
        kept = entry("f1", keys=(b"k1", b"k2"))
        await keep(store, kept, entry("f2", keys=(b"k1",)), entry("f3", keys=(b"k1",)))
        await store.apply([DeliveryEnded("f1", "away", 7.0)])
        rest = replace(kept.batch, batch_size=2, error=FunctionError("ValueError", "erased"), tries=())
        changed = replace(kept, batch=rest, batch_info={"KafkaBatchInfo": {"batchSize": 2}})
        assert await store.erase(
            [
                Erasure("f1", kept.batch.failed_at_s, b"k1", changed, b"less"),
                Erasure("f2", kept.batch.failed_at_s, b"k1", None, None),
            ]
        ) == ["f1", "f2"]
        assert await ids(store) == ["f1", "f3"]
        assert (await ids(store, Selection(key=b"k1")), await ids(store, Selection(key=b"k2"))) == (["f3"], ["f1"])
        [found] = await store.failures(Selection(ids=("f1",)))
        assert (found.batch, found.batch_info, found.event_bytes) == (rest, changed.batch_info, len(b"less"))
        assert (found.status, found.deliveries, found.delivery_error) == ("stored", 1, "away")
        assert await store.event("f1") == b"less"
        assert await ids(store, Selection(error="no total")) == ["f3"]
        assert await undelivered(store) == ["f1", "f3"]
        assert (await store.backlog("orders")).stored_bytes == len(b"less") + len(EVENT)

    async def test_a_key_is_not_taken_out_of_what_is_replayed_or_another_by_now(self, store: Store) -> None:
        first, second = entry("f1", keys=(b"k",)), entry("f2", keys=(b"k",))
        await keep(store, first, second)
        await store.claim(["f1"])
        await keep(store, replace(second, batch=replace(second.batch, failed_at_s=9.0)))
        erasures = [Erasure(each.batch.id, each.batch.failed_at_s, b"k", None, None) for each in (first, second)]
        assert await store.erase([*erasures, Erasure("f9", 1.0, b"k", None, None)]) == []
        assert await ids(store, Selection(key=b"k")) == ["f2", "f1"]

    async def test_a_key_is_taken_off_a_dropped_failure(self, store: Store) -> None:
        kept = entry("f1", keys=(b"k",))
        await keep(store, kept)
        await store.drop(["f1"])
        assert await store.erase([Erasure("f1", kept.batch.failed_at_s, b"k", kept, None)]) == ["f1"]
        assert (await ids(store, Selection(key=b"k")), await status(store)) == ([], "dropped")
        assert await store.event("f1") is None
        assert await store.scrub()

    async def test_a_deleted_failure_is_gone(self, store: Store) -> None:
        await keep(store, entry("f1", keys=(b"k",)), entry("f2"))
        await store.apply([DeleteFailure("f1"), DeleteFailure("f9")])
        assert await ids(store) == ["f2"]
        assert await store.event("f1") is None
        assert await ids(store, Selection(key=b"k")) == []

    async def test_an_accepted_delivery_moves_only_what_is_stored(self, store: Store) -> None:
        await keep(store, entry("f1"), entry("f2"), entry("f3"))
        await store.apply([SetStatus("f2", "failed_again")])
        await store.claim(["f3"])
        await store.apply([DeliveryEnded(each, None) for each in ("f1", "f2", "f3")])
        assert [each.status for each in await store.failures(ALL)] == ["delivered", "failed_again", "replaying"]
        assert await undelivered(store) == []
        await store.apply([Unclaim("f3")])
        assert await status(store, "f3") == "delivered"

    async def test_a_refused_delivery_is_remembered(self, store: Store) -> None:
        await keep(store, entry())
        await store.apply([DeliveryEnded("f1", "queue away", 12.5)])
        await store.apply([DeliveryEnded("f1", "queue gone", 14.5)])
        [found] = await store.undelivered("orders")
        assert (found.status, found.deliveries, found.delivery_error) == ("stored", 2, "queue gone")
        assert found.next_delivery_s == 14.5

    async def test_what_is_to_be_delivered(self, store: Store) -> None:
        entries = [entry(f"f{second}", failed_at_s=10.0 - second) for second in range(6)]
        await keep(store, *entries, entry("nowhere", destination=None), entry("other", mapping="invoices"))
        await store.apply([SetStatus("f1", "replayed"), SetStatus("f2", "dropped"), SetStatus("f3", "failed_again")])
        await store.claim(["f4"])
        assert await undelivered(store) == ["f5", "f4", "f0"]
        assert await undelivered(store, "invoices") == ["other"]
        backlog = await store.backlog("orders")
        assert backlog == Backlog(undelivered=3, stored_bytes=6 * len(EVENT), failures=7)
        assert await store.backlog("nothing") == Backlog()

    async def test_it_says_what_it_takes_up(self, store: Store) -> None:
        before_bytes = store.size_bytes()
        await store.apply([KeepFailure(entry("f1"), bytes(range(256)) * 4000)])
        assert store.size_bytes() > before_bytes

    async def test_a_mapping_takes_all_that_is_its_own_to_another_name(self, store: Store) -> None:
        await keep(store, entry("f1"), entry("f2", mapping="clicks"))
        await store.apply([SetStatus("f1", "replayed"), PutState("orders", "x", "1"), PutState("clicks", "x", "2")])
        await store.apply([RenameMapping("orders", "purchases")])
        assert await ids(store, Selection(mapping="purchases")) == ["f1"]
        assert await ids(store, Selection(mapping="orders")) == []
        [found] = await store.failures(Selection(ids=("f1",)))
        assert (found.batch.mapping, found.status) == ("purchases", "replayed")
        assert await store.event("f1") == EVENT
        assert [each.mapping for each in await store.tallies()] == ["clicks", "purchases"]
        assert (await store.backlog("purchases")).failures == 1
        assert [await store.states(name) for name in ("orders", "purchases", "clicks")] == [{}, {"x": "1"}, {"x": "2"}]

    async def test_states_are_kept_by_mapping_and_key(self, store: Store) -> None:
        await store.apply([PutState("a", "x", "1"), PutState("a", "y", "2"), PutState("b", "x", "3")])
        await store.apply([PutState("a", "x", "4"), PutState("a", "y", ""), PutState("a", "z", "")])
        assert await store.states("a") == {"x": "4"}
        assert await store.states("b") == {"x": "3"}
        assert await store.states("c") == {}

    async def test_some_states_of_a_mapping_are_given_by_their_keys(self, store: Store) -> None:
        await store.apply(
            [PutState("a", "x", "1"), PutState("a", "y", "2"), PutState("a", "z", "é"), PutState("b", "w", "3")]
        )
        assert await store.some_states("a", ["z", "w", "x"]) == {"x": "1", "z": "é"}
        assert await store.some_states("a", []) == await store.some_states("c", ["x"]) == {}

    async def test_changes_of_one_apply_come_in_order(self, store: Store) -> None:
        changes: list[Change] = [KeepFailure(entry(), EVENT), SetStatus("f1", "failed_again"), PutState("a", "x", "1")]
        await store.apply([*changes, PutState("a", "x", "2")])
        assert await status(store) == "failed_again"
        assert await store.states("a") == {"x": "2"}

    async def test_many_applies_at_once_all_hold(self, store: Store) -> None:
        await asyncio.gather(*(keep(store, entry(f"f{number:03}", failed_at_s=1.0)) for number in range(300)))
        assert await ids(store) == [f"f{number:03}" for number in range(300)]

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.apply([PutState("a", "x", "1")])
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.states("a")
