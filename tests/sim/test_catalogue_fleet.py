"""What was made through the API on one replica of a fleet, as the others know it; on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from router.catalogue.catalogue import Catalogue
from router.catalogue.fleet import EARLY_LOOKS, LOOK_EVERY_S, CatalogueSharing
from router.catalogue.records import FUNCTIONS, MAPPINGS, Code, Function, Version
from router.catalogue.records import Mapping as MappingRecord
from router.errors import DecisionNeeded, InUse, StoreUnavailable
from router.identity import forget
from router.ports import PutState
from router.telemetry import Log
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import in_virtual_time

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Wire:
    """All replicas, by name; those that are cut off hear nothing."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.cut_off: set[str] = set()

    def of(self, name: str) -> End:
        return End(self, name)


class End:
    """What one replica knows of the others."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._name = name

    def serve(self, what: str, answer: Answer) -> None:
        assert what == "catalogue.changed"
        self._wire.answers[self._name] = answer

    async def ask(self, what: str, body: Mapping[str, Any], within_s: float) -> dict[str, dict[str, Any] | None]:
        assert what == "catalogue.changed"
        given: dict[str, dict[str, Any] | None] = {}
        for name, answer in self._wire.answers.items():
            if name != self._name:
                given[name] = None
                if name in self._wire.cut_off:
                    await asyncio.sleep(within_s)
                else:
                    given[name] = await answer(dict(body))
        return given


class Archives:
    """The code of one replica, as far as it drops it."""

    def __init__(self, dropped: list[str]) -> None:
        self._dropped = dropped

    async def keep_only(self, hashes: Collection[str]) -> None:
        raise NotImplementedError

    async def put(self, sha256: str, archive: bytes) -> None:
        raise NotImplementedError

    async def path(self, sha256: str) -> Path:
        raise NotImplementedError

    async def drop(self, sha256: str) -> None:
        self._dropped.append(sha256)


class Replica:
    def __init__(self, wire: Wire, store: MemoryStore, name: str) -> None:
        self.store = store.of(name)
        self.catalogue = Catalogue(self.store, is_shared=True)
        self.followed = 0
        self.catalogue.follow = self.follow
        #: Code that it has dropped.
        self.dropped: list[str] = []
        self.sharing = CatalogueSharing(self.catalogue, wire.of(name), Archives(self.dropped), Log("error"))

    async def follow(self) -> None:
        self.followed += 1

    def timeouts(self) -> dict[str, int]:
        return {name: each.latest.timeout_s for name, each in self.catalogue.functions.items()}


def function(name: str, timeout_s: int = 3) -> Function:
    latest = Version(runtime="python3.12", handler="a.b", role="r", code=Code(sha256="ab"), timeout_s=timeout_s)
    return Function(name=name, latest=latest)


async def two() -> tuple[Wire, Replica, Replica]:
    wire, store = Wire(), MemoryStore()
    a, b = Replica(wire, store, "a"), Replica(wire, store, "b")
    for each in (a, b):
        await each.sharing.look()
        each.catalogue.check()
    return wire, a, b


@in_virtual_time
async def test_what_is_written_on_one_is_known_to_the_other_when_the_write_returns() -> None:
    _, a, b = await two()
    await a.catalogue.put_function(function("orders"))
    assert (b.timeouts(), b.followed) == ({"orders": 3}, 2)
    await b.catalogue.put_function(function("orders", 7))
    assert a.timeouts() == {"orders": 7}
    await a.catalogue.drop_function("orders")
    assert b.timeouts() == {}


class NotTwice(Exception):
    """There is such a mapping."""


async def make(replica: Replica, name: str) -> None:
    """Make a mapping of a name that no other is to have."""

    def refuse(others: Iterable[MappingRecord]) -> None:
        if any(each.name == name for each in others):
            raise NotTwice

    made = MappingRecord(uuid=f"u-{name}-{replica.store.reads}", function="f", properties={}, name=name)
    await replica.catalogue.put_unlike(made, refuse)


@in_virtual_time
async def test_what_one_makes_time_after_time_is_not_read_anew_each_time() -> None:
    _, a, b = await two()
    await make(a, "m0")
    before = a.store.reads
    for number in range(1, 6):
        await make(a, f"m{number}")
    assert a.store.reads - before == 5, "each asks whether others have made some"
    with pytest.raises(NotTwice):
        await make(a, "m3")
    await make(b, "m6")
    with pytest.raises(NotTwice):
        await make(a, "m6")


@in_virtual_time
async def test_what_another_has_deleted_is_in_the_way_of_nobody_who_has_not_heard_of_it() -> None:
    wire, a, b = await two()
    await make(a, "m0")
    [uuid] = b.catalogue.mappings
    wire.cut_off.add("a")
    await b.catalogue.drop_mapping(uuid)
    await make(a, "m0")
    assert len(await a.store.states(MAPPINGS)) == 1


@in_virtual_time
async def test_what_was_made_in_a_store_with_older_data_is_seen() -> None:
    _, a, b = await two()
    await make(a, "m0")
    older = dict(a.store.texts)
    for name in ("m1", "m2"):
        await make(a, name)
    a.store.texts = older
    for name in ("m3", "m4"):  # as many as were lost
        await make(b, name)
    with pytest.raises(NotTwice):
        await make(a, "m3")


@in_virtual_time
async def test_code_that_nothing_uses_any_more_goes_on_all_replicas() -> None:
    _, a, b = await two()
    for name in ("orders", "returns"):
        await a.catalogue.put_function(function(name))
    await a.catalogue.drop_function("orders")
    assert b.dropped == [], "the other function has the same code"
    await a.catalogue.drop_function("returns")
    assert b.dropped == ["ab"]


@in_virtual_time
async def test_who_has_not_heard_of_a_change_overwrites_nothing_and_knows_it_then() -> None:
    wire, a, b = await two()
    await a.catalogue.put_function(function("orders"))
    wire.cut_off.add("b")
    await a.catalogue.put_function(function("orders", 7))
    with pytest.raises(StoreUnavailable, match="another replica has changed function orders"):
        await b.catalogue.put_function(function("orders", 9))
    assert (a.timeouts(), b.timeouts()) == ({"orders": 7}, {"orders": 7})
    await b.catalogue.put_function(function("orders", 9))
    assert a.timeouts() == {"orders": 9}


@in_virtual_time
async def test_of_two_changes_at_once_one_is_refused_and_neither_is_lost_silently() -> None:
    _, a, b = await two()
    await a.catalogue.put_function(function("orders"))

    async def change(replica: Replica, timeout_s: int) -> bool:
        async with replica.catalogue.changing("orders"):
            found = replica.catalogue.function("orders")
            assert found is not None
            await asyncio.sleep(0.01)
            try:
                await replica.catalogue.put_function(function("orders", timeout_s))
            except StoreUnavailable:
                return False
            return True

    done = await asyncio.gather(change(a, 5), change(b, 6))
    assert sorted(done) == [False, True]
    expected = {"orders": 5 if done[0] else 6}
    assert (a.timeouts(), b.timeouts()) == (expected, expected)


@in_virtual_time
async def test_a_change_that_reads_before_another_replica_writes_does_not_write_over_it() -> None:
    """However it comes to know of that: by being told, or by its own look."""
    _, a, b = await two()
    await a.catalogue.put_function(function("orders"))
    async with b.catalogue.changing("orders"):
        await b.sharing.look()
        told = asyncio.create_task(a.catalogue.put_function(function("orders", 7)))
        await asyncio.sleep(0.5)
        await b.sharing.look()
        with pytest.raises(StoreUnavailable):
            await b.catalogue.put_function(function("orders", 9))
    await told
    assert (a.timeouts(), b.timeouts()) == ({"orders": 7}, {"orders": 7})


@in_virtual_time
async def test_a_write_does_not_wait_for_a_replica_that_changes_the_same_and_that_has_it_then() -> None:
    _, a, b = await two()
    looking = asyncio.create_task(b.sharing.run())
    await asyncio.sleep(0.1)
    began_s = asyncio.get_running_loop().time()
    async with b.catalogue.changing("orders"):
        await a.catalogue.put_function(function("orders"))
        assert asyncio.get_running_loop().time() == began_s
        assert b.timeouts() == {}
    await asyncio.sleep(0.1)
    assert b.timeouts() == {"orders": 3}
    looking.cancel()
    await asyncio.wait([looking])


@in_virtual_time
async def test_who_was_cut_off_finds_what_it_missed_by_itself() -> None:
    wire, a, b = await two()
    wire.cut_off.add("b")
    await a.catalogue.put_function(function("orders"))
    assert b.timeouts() == {}
    looking = asyncio.create_task(b.sharing.run())
    await asyncio.sleep(1)
    assert b.timeouts() == {"orders": 3}, "who has just joined looks often"
    await asyncio.sleep(EARLY_LOOKS)
    await a.catalogue.put_function(function("orders", 7))
    assert b.timeouts() == {"orders": 3}
    await asyncio.sleep(LOOK_EVERY_S + 1)
    assert b.timeouts() == {"orders": 7}
    before = b.followed
    await asyncio.sleep(3 * LOOK_EVERY_S)
    assert b.followed == before + 3, "what could not be followed is tried again"
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking


@in_virtual_time
async def test_while_the_store_cannot_be_read_nothing_is_known_and_that_is_said() -> None:
    wire, store = Wire(), MemoryStore()
    a = Replica(wire, store, "a")
    with pytest.raises(StoreUnavailable, match="has not been read yet"):
        a.catalogue.check()
    a.store.read_fault = "it cannot be reached"
    await a.sharing.look()
    with pytest.raises(StoreUnavailable, match="could not be read yet: it cannot be reached"):
        a.catalogue.check()
    a.store.read_fault = None
    await a.sharing.look()
    a.catalogue.check()
    a.store.read_fault = "it is away"
    await a.sharing.look()
    a.catalogue.check()  # what was read is known


@in_virtual_time
async def test_what_is_gone_from_the_store_is_not_taken_for_nothing() -> None:
    _, a, b = await two()
    await a.catalogue.put_function(function("orders"))
    for each in (a, b):
        each.store.gone.add(FUNCTIONS)
    await a.sharing.look()
    with pytest.raises(StoreUnavailable, match=r"headrace mapping accept '\$functions'"):
        a.catalogue.check()
    assert a.timeouts() == {"orders": 3}
    with pytest.raises(DecisionNeeded):
        await a.catalogue.load()
    await a.store.accept_loss(FUNCTIONS)
    await a.sharing.look()
    a.catalogue.check()


@in_virtual_time
async def test_what_was_made_through_the_api_is_not_forgotten_like_a_mapping() -> None:
    store = MemoryStore()
    await store.apply([PutState(FUNCTIONS, "orders", "{}")])
    with pytest.raises(InUse, match="deleted through the API"):
        await forget(store, FUNCTIONS, {})
    assert await store.states(FUNCTIONS) == {"orders": "{}"}
