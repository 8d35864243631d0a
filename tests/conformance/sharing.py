"""What a Store does that several replicas share: claims are one process's of one replica, and are taken over once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

import pytest

from router.catalogue.catalogue import Catalogue
from router.catalogue.records import MAPPINGS, Mapping
from router.errors import Overtaken
from router.ports import (
    DeliveryEnded,
    KeepFailure,
    PutState,
    Selection,
    SetStatus,
    Store,
    Unchanged,
    Unclaim,
    digest_of,
)
from tests.fakes.failures import entry

#: Opens the store as a new process of this replica.
Open: TypeAlias = Callable[[str], Awaitable[Store]]


async def keep(store: Store, *failure_ids: str) -> None:
    """Keep failures, the first one the oldest."""
    await store.apply([KeepFailure(entry(each, failed_at_s=float(at)), b"e") for at, each in enumerate(failure_ids)])


class SharingConformance:
    """Subclasses give the fixture `replica`, an Open."""

    async def test_claims_of_a_dead_replica_are_taken_over_once_and_nobody_elses(self, replica: Open) -> None:
        first, second, third = await replica("r1"), await replica("r10"), await replica("r3")
        await keep(first, "f0", "f1", "f2", "f3")
        await first.claim(["f1", "f0"])
        await second.claim(["f2"])
        taken = await third.adopt("r1")
        assert [(each.batch.id, each.status) for each in taken] == [("f0", "replaying"), ("f1", "replaying")]
        assert list(await second.adopt("r1")) == []
        await third.apply([Unclaim("f0")])
        assert list(await second.claim(["f0", "f1"])) == ["f0"]

    async def test_a_new_process_takes_up_what_its_former_one_had_claimed_but_not_its_own(self, replica: Open) -> None:
        former, other = await replica("r1"), await replica("r2")
        await keep(former, "f0", "f1", "f2")
        await former.claim(["f0"])
        await other.claim(["f1"])
        again = await replica("r1")
        await again.claim(["f2"])
        assert [each.batch.id for each in await again.adopt(None)] == ["f0"]
        assert list(await again.adopt(None)) == []

    async def test_a_claim_that_another_has_adopted_is_not_taken_back(self, replica: Open) -> None:
        first, second = await replica("r1"), await replica("r2")
        await keep(first, "f1")
        await first.claim(["f1"])
        await second.adopt("r1")
        await first.apply([Unclaim("f1")])
        assert [each.status for each in await second.failures(Selection())] == ["replaying"]
        await second.apply([Unclaim("f1")])
        assert [each.status for each in await second.failures(Selection())] == ["stored"]

    async def test_what_was_delivered_meanwhile_is_taken_over_too_and_what_has_ended_is_not(
        self, replica: Open
    ) -> None:
        first, second = await replica("r1"), await replica("r2")
        await keep(first, "f0", "f1")
        await first.claim(["f0", "f1"])
        await second.apply([DeliveryEnded("f0", None), SetStatus("f1", "replayed")])
        assert [each.batch.id for each in await second.adopt("r1")] == ["f0"]
        await second.apply([Unclaim("f0")])
        assert [each.status for each in await first.failures(Selection())] == ["delivered", "replayed"]

    async def test_a_text_that_another_has_changed_is_not_overwritten(self, replica: Open) -> None:
        first, second = await replica("r1"), await replica("r2")
        await first.apply([PutState("$functions", "é", "1"), Unchanged("$functions", "é", "")])
        await second.apply([PutState("$functions", "é", "2"), Unchanged("$functions", "é", digest_of("1"))])
        for digest in ("", digest_of("1")):
            with pytest.raises(Overtaken, match="é"):
                await first.apply([PutState("$functions", "é", "3"), Unchanged("$functions", "é", digest)])
        assert dict(await first.states("$functions")) == {"é": "2"}

    async def test_with_one_that_was_changed_nothing_else_is_written(self, replica: Open) -> None:
        store = await replica("r1")
        await store.apply([PutState("$mappings", "a", "1")])
        unchanged = [Unchanged("$mappings", "a", digest_of("1")), Unchanged("$mappings", "b", digest_of("1"))]
        with pytest.raises(Overtaken):
            await store.apply([PutState("$mappings", "a", "2"), *unchanged, KeepFailure(entry(), b"e")])
        assert (dict(await store.states("$mappings")), await store.failures(Selection())) == ({"a": "1"}, [])

    async def test_of_mappings_that_are_not_to_be_the_same_one_is_made(self, replica: Open) -> None:
        def refuse(others: Iterable[Mapping]) -> None:
            if any(each.function == "orders" for each in others):
                raise NotTwice

        catalogues = [Catalogue(await replica(f"r{number}"), is_shared=True) for number in range(4)]
        for each in catalogues:
            await each.load()
        makings = [
            each.put_unlike(Mapping(uuid=f"u{n}", function="orders", properties={}, name=f"u{n}"), refuse)
            for n, each in enumerate(catalogues)
        ]
        ends = await asyncio.gather(*makings, return_exceptions=True)
        assert [type(end) for end in ends if end] == [NotTwice] * 3
        assert len(await (await replica("r5")).states(MAPPINGS)) == 1


class NotTwice(Exception):
    """There is such a mapping."""
