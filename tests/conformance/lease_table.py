"""What every LeaseTable does, whatever it lives in. Subclasses give the `bench` fixture."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Protocol

import pytest

from router.core.fleet import OUTBOX, Bury, Give, Heard, Lease, LeaseKey, Mark, Said, Take
from router.errors import InUse, LeaseLost, StoreUnavailable
from router.ports import Holds, LeaseTable, PutState, Store

FIRST, SECOND = LeaseKey("orders", "shard-1"), LeaseKey("orders", "shard/2 \u00e4")
ORDERS = frozenset({"orders"})


class TableBench(Protocol):
    """A fleet without replicas yet."""

    #: The lease of its replicas.
    lease_s: float

    def table(self, name: str, home: str | None = None) -> LeaseTable:
        """Give the table to a process of this replica; its home is the name unless said otherwise."""
        ...

    async def store(self) -> Store:
        """Give the store that lives where the table does."""
        ...

    async def forget_changes(self) -> None:
        """Let the table have no memory of what was changed when."""
        ...


class Talker:
    """A replica that beats as it talks, and remembers what it heard last."""

    def __init__(self, table: LeaseTable) -> None:
        self.table = table
        self.beat = 0
        self.known = 0
        self.leases: dict[LeaseKey, Lease] = {}
        self.heard: Heard | None = None

    async def say(
        self,
        *,
        takes: Iterable[Take] = (),
        gives: Iterable[Give] = (),
        marks: Iterable[Mark] = (),
        buries: Iterable[Bury] = (),
        forgets: Iterable[LeaseKey] = (),
        load: float = 0.5,
        draining: bool = False,
        runs: frozenset[str] | None = None,
        known: int | None = None,
    ) -> Heard:
        self.beat += 1
        said = Said(
            self.beat,
            load,
            draining,
            runs,
            self.known if known is None else known,
            tuple(takes),
            tuple(gives),
            tuple(marks),
            tuple(buries),
            tuple(forgets),
        )
        self.heard = heard = await self.table.exchange(said)
        if not heard.replaced:
            self.known = heard.version
            self.leases = {} if heard.whole else self.leases
            for key, lease in heard.leases.items():
                if lease is None:
                    self.leases.pop(key, None)
                else:
                    self.leases[key] = lease
        return heard

    async def take(self, key: LeaseKey) -> int:
        """Take a lease that is free or our own, and give its token."""
        await self.say()
        token = self.leases[key].token if key in self.leases else 0
        return (await self.say(takes=[Take(key, token)])).taken[key].token


async def enter(bench: TableBench, *names: str) -> list[Talker]:
    talkers = [Talker(bench.table(name)) for name in names]
    for talker in talkers:
        await talker.table.join()
        await talker.say(runs=ORDERS)
    return talkers


class LeaseTableConformance:
    async def test_replicas_see_each_other(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        await b.say(load=2.25, draining=True, runs=frozenset({"orders", "clicks"}))
        replicas = (await a.say()).replicas
        assert set(replicas) == {"a", "b"}
        other = replicas["b"]
        assert (other.name, other.load, other.draining, other.runs) == ("b", 2.25, True, {"orders", "clicks"})
        assert other.lease_s == bench.lease_s
        await b.say(load=2.25)
        again = (await a.say()).replicas["b"]
        assert again.beat > other.beat
        assert (again.incarnation, again.draining, again.runs) == (other.incarnation, False, {"orders", "clicks"})
        assert replicas["a"].incarnation != other.incarnation
        assert replicas["a"].runs == {"orders"}

    async def test_one_of_two_takes_a_new_lease(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        one, two = await asyncio.gather(a.say(takes=[Take(FIRST, 0)]), b.say(takes=[Take(FIRST, 0)]))
        assert len(one.taken) + len(two.taken) == 1
        owner = "a" if one.taken else "b"
        await asyncio.gather(a.say(), b.say())
        assert a.leases == b.leases
        lease = a.leases[FIRST]
        assert (lease.owner, lease.heir, lease.finished) == (owner, "", False)
        assert lease.token == (one.taken or two.taken)[FIRST].token > 0
        assert lease.since_ms > 0

    async def test_only_what_has_changed_is_told(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        await a.take(FIRST)
        heard = await b.say(known=0)
        assert (heard.whole, set(heard.leases)) == (True, {FIRST})
        heard = await b.say()
        assert (heard.whole, heard.leases) == (False, {})
        heard = await b.say(takes=[Take(SECOND, 0)])
        assert (heard.whole, set(heard.leases)) == (False, {SECOND})
        heard = await a.say()
        assert (heard.whole, set(heard.leases)) == (False, {SECOND})
        assert (await a.say()).version == heard.version

    async def test_who_knows_something_too_old_is_told_all(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        await a.take(SECOND)
        await b.say()
        heard = await a.say(gives=[Give(FIRST, token, "", 0.0)])
        await a.say(forgets=[FIRST])
        assert heard.leases[FIRST] is not None
        await bench.forget_changes()
        heard = await b.say()
        assert (heard.whole, set(heard.leases)) == (True, {SECOND})
        assert not (await b.say()).whole
        assert (await b.say(known=2**52)).whole

    async def test_what_is_given_is_taken_by_another_with_a_larger_token(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        heard = await a.say(gives=[Give(FIRST, token, "b", 0.75)])
        given = heard.leases[FIRST]
        assert given is not None
        assert (given.owner, given.heir, given.load) == ("", "b", 0.75)
        assert given.token > token
        await b.say()
        taken = (await b.say(takes=[Take(FIRST, given.token)])).taken[FIRST]
        assert taken.token > given.token
        await a.say()
        assert a.leases[FIRST][:4] == (taken.token, "b", "", 0.75)

    async def test_what_is_not_ours_any_more_is_neither_given_nor_marked(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        old = await a.take(FIRST)
        token = await a.take(FIRST)
        assert token > old
        await a.say(gives=[Give(FIRST, old, "", 1.0)], marks=[Mark(FIRST, old, "b", 1.0)])
        await b.say(gives=[Give(FIRST, token, "", 1.0), Give(SECOND, 0, "", 1.0)], marks=[Mark(FIRST, token, "b", 1.0)])
        await a.say()
        assert a.leases[FIRST][:4] == (token, "a", "", 0.0)
        assert SECOND not in a.leases

    async def test_a_mark_says_who_is_to_have_it_and_can_be_taken_back(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        await a.say(marks=[Mark(FIRST, token, "b", 0.125)])
        await b.say()
        assert b.leases[FIRST][:4] == (token, "a", "b", 0.125)
        await a.say(marks=[Mark(FIRST, token, "", 0.25)])
        await b.say()
        assert b.leases[FIRST][:4] == (token, "a", "", 0.25)

    async def test_our_own_is_taken_again_with_another_token_since_the_same_time(self, bench: TableBench) -> None:
        [a] = await enter(bench, "a")
        token = await a.take(FIRST)
        since_ms = a.leases[FIRST].since_ms
        heard = await a.say(takes=[Take(FIRST, token)])
        assert heard.taken[FIRST].token > token
        assert a.leases[FIRST].since_ms == since_ms
        assert not (await a.say(takes=[Take(FIRST, token), Take(FIRST, 0)])).taken

    async def test_one_that_lives_is_not_robbed(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        seen = (await b.say()).replicas["a"].beat
        await a.say()
        for beat in (None, seen, seen + 2):
            assert not (await b.say(takes=[Take(FIRST, token, beat)])).taken
        heard = await b.say(buries=[Bury("a", seen)])
        assert (set(heard.replicas), b.leases[FIRST].owner) == ({"a", "b"}, "a")

    async def test_a_dead_one_is_followed_and_then_buried(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        first, second = await a.take(FIRST), await a.take(SECOND)
        beat = (await b.say()).replicas["a"].beat
        heard = await b.say(takes=[Take(FIRST, first, beat)], buries=[Bury("a", beat), Bury("b", b.beat)])
        assert heard.taken[FIRST].token > second
        assert set(heard.replicas) == {"b"}
        assert (b.leases[FIRST].owner, b.leases[SECOND].owner) == ("b", "")
        assert b.leases[SECOND].token > second
        assert not (await b.say(takes=[Take(SECOND, second, beat)])).taken

    async def test_one_that_was_buried_alive_comes_back_with_nothing(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        await b.say(buries=[Bury("a", (await b.say()).replicas["a"].beat)])
        heard = await a.say(gives=[Give(FIRST, token, "", 1.0)])
        assert not heard.replaced
        assert a.leases[FIRST].owner == ""
        await a.say()
        assert (await b.say()).replicas["a"].runs == ORDERS

    async def test_an_exchange_that_a_later_one_overtook_changes_nothing(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        before = (await b.say()).replicas["a"]
        a.beat -= 2
        with pytest.raises(StoreUnavailable):
            await a.say(takes=[Take(SECOND, 0)], marks=[Mark(FIRST, token, "b", 1.0)])
        heard = await b.say()
        assert (heard.replicas["a"], heard.leases) == (before, {})

    async def test_what_is_finished_is_taken_by_nobody(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        await a.say(gives=[Give(FIRST, token, "", 0.0, finished=True)])
        await b.say()
        lease = b.leases[FIRST]
        assert (lease.owner, lease.finished) == ("", True)
        assert not (await b.say(takes=[Take(FIRST, lease.token)])).taken
        assert not (await a.say(takes=[Take(FIRST, lease.token)])).taken

    async def test_what_nobody_owns_can_be_forgotten_and_begins_anew(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        await b.say()
        await b.say(forgets=[FIRST, SECOND])
        assert b.leases[FIRST].owner == "a"
        await a.say(gives=[Give(FIRST, token, "", 0.0, finished=True)])
        heard = await a.say(forgets=[FIRST])
        assert heard.leases == {FIRST: None}
        assert (await b.say()).leases == {FIRST: None}
        again = (await b.say(takes=[Take(FIRST, 0)])).taken[FIRST]
        assert again.token > token
        await a.say()
        assert a.leases[FIRST].owner == "b"

    async def test_what_is_kept_of_a_shard_comes_with_it(self, bench: TableBench) -> None:
        [a] = await enter(bench, "a")
        text = '{"v":1,"checkpoint":"\u00e4"}'
        store = await bench.store()
        await store.apply([PutState("orders", f"shard:{FIRST.shard}", text), PutState("orders", "paused", "x")])
        heard = await a.say(takes=[Take(FIRST, 0), Take(SECOND, 0), Take(LeaseKey("orders", OUTBOX), 0)])
        assert {key: taken.text for key, taken in heard.taken.items()} == {
            FIRST: text,
            SECOND: "",
            LeaseKey("orders", OUTBOX): "",
        }

    async def test_who_lost_a_lease_writes_nothing(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        store = await bench.store()
        token = await a.take(FIRST)
        await store.apply([Holds(*FIRST, token), PutState("orders", "x", "1")])
        await a.say(gives=[Give(FIRST, token, "b", 0.0)])
        with pytest.raises(LeaseLost, match="orders"):
            await store.apply([Holds(*FIRST, token), PutState("orders", "x", "2")])
        await b.say()
        newer = await b.take(FIRST)
        with pytest.raises(LeaseLost, match="orders"):
            await store.apply([PutState("orders", "x", "3"), Holds(*FIRST, token)])
        assert await store.states("orders") == {"x": "1"}
        await store.apply([Holds(*FIRST, newer), PutState("orders", "x", "4")])
        assert await store.states("orders") == {"x": "4"}

    async def test_a_process_with_our_home_follows_its_former_one_at_once(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        before = (await b.say()).replicas["a"]
        again = Talker(bench.table("a"))
        await again.table.join()
        after = (await b.say()).replicas["a"]
        assert after.incarnation != before.incarnation
        assert after.beat > before.beat
        heard = await again.say(runs=ORDERS)
        assert (heard.whole, again.leases[FIRST].owner, again.leases[FIRST].token) == (True, "a", token)
        assert not (await b.say(takes=[Take(FIRST, token, before.beat)])).taken
        assert (await a.say()).replaced
        heard = await a.say(gives=[Give(FIRST, token, "", 0.0)])
        assert (heard.replaced, heard.taken) == (True, {})
        assert await again.take(FIRST) > token

    async def test_a_process_with_another_home_does_not_take_the_name_of_one_that_lives(
        self, bench: TableBench
    ) -> None:
        [a] = await enter(bench, "a")
        joining = asyncio.create_task(bench.table("a", home="elsewhere").join())
        while not joining.done():
            await a.say()
            await asyncio.wait({joining}, timeout=bench.lease_s / 20)
        with pytest.raises(InUse, match=r"replica a .*lives"):
            joining.result()
        assert not (await a.say()).replaced

    async def test_a_process_with_another_home_takes_the_name_of_a_dead_one(self, bench: TableBench) -> None:
        [a] = await enter(bench, "a")
        await a.take(FIRST)
        other = Talker(bench.table("a", home="elsewhere"))
        started_s = asyncio.get_running_loop().time()
        await other.table.join()
        assert asyncio.get_running_loop().time() - started_s < 3 * bench.lease_s
        assert (await a.say()).replaced
        await other.say(runs=ORDERS)
        assert other.leases[FIRST].owner == "a"

    async def test_what_we_own_is_free_when_we_leave(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        token = await a.take(FIRST)
        await a.table.describe("{}")
        await a.table.leave()
        heard = await b.say()
        assert set(heard.replicas) == {"b"}
        assert b.leases[FIRST].owner == ""
        assert b.leases[FIRST].token > token
        assert await b.table.abouts() == {}
        await b.take(FIRST)

    async def test_one_that_was_replaced_leaves_what_is_its_followers(self, bench: TableBench) -> None:
        [a] = await enter(bench, "a")
        await a.take(FIRST)
        [again] = await enter(bench, "a")
        await a.table.leave()
        heard = await again.say()
        assert ("a" in heard.replicas, again.leases[FIRST].owner) == (True, "a")

    async def test_texts_about_replicas_stay_until_they_are_buried(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        await a.table.describe('{"host":"\u00e4"}')
        await b.table.describe('{"host":"old"}')
        await b.table.describe('{"host":"b"}')
        assert await a.table.abouts() == {"a": '{"host":"\u00e4"}', "b": '{"host":"b"}'}
        await b.say(buries=[Bury("a", (await b.say()).replicas["a"].beat)])
        assert await b.table.abouts() == {"b": '{"host":"b"}'}

    async def test_who_is_not_in_it_may_look_at_all_of_it(self, bench: TableBench) -> None:
        [a] = await enter(bench, "a")
        await a.take(FIRST)
        heard = await bench.table("looker").look()
        assert (heard.whole, set(heard.replicas), heard.leases[FIRST]) == (True, {"a"}, a.leases[FIRST])
        assert set((await a.say()).replicas) == {"a"}

    async def test_all_hear_that_something_was_steered(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        before = (await a.say()).steered
        await b.table.steered()
        assert (await a.say()).steered == (await b.say()).steered > before

    async def test_tokens_rise_over_all_leases(self, bench: TableBench) -> None:
        a, b = await enter(bench, "a", "b")
        keys = [LeaseKey("orders", f"shard-{number}") for number in range(20)]
        tokens = [await talker.take(key) for key, talker in zip(keys, itertools.cycle([a, b]), strict=False)]
        assert tokens == sorted(set(tokens))

    async def test_many_are_taken_and_given_at_once(self, bench: TableBench) -> None:
        [a] = await enter(bench, "a")
        keys = [LeaseKey("orders", f"shard-{number}") for number in range(2000)]
        heard = await a.say(takes=[Take(key, 0) for key in keys])
        assert set(heard.taken) == set(heard.leases) == set(keys)
        heard = await a.say(gives=[Give(key, taken.token, "", 1.0) for key, taken in heard.taken.items()])
        assert {lease and lease.owner for lease in heard.leases.values()} == {""}
        heard = await a.say(forgets=keys)
        assert heard.leases == dict.fromkeys(keys)
