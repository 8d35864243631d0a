"""What one replica says to the table, and what it does when the table answers."""

from __future__ import annotations

from random import Random

import pytest

from router.core import fleet as f
from router.core.fleet import OUTBOX, Heard, LeaseKey
from router.core.tenant import Tenant
from tests.core.fleet_site import FIRST, LEASE_S, SECOND, Site

ORDERS = frozenset({"m"})


def keys(number):
    return [LeaseKey("m", f"{each:04}") for each in range(number)]


def sharing(*names, number=8):
    """Give replicas that share some shards."""
    site = Site(*names)
    for name in names:
        site.wish(name, *keys(number))
    site.run(40)
    return site


def test_what_nobody_has_is_taken_and_granted_with_what_is_kept_of_it():
    site = Site("a")
    site.table.texts[FIRST] = "checkpoint"
    site.wish("a", FIRST)
    site.run(0.1)
    [grant] = site.said("a", f.Grant)
    assert (grant.key, grant.taken.text) == (FIRST, "checkpoint")
    assert site.tenants["a"].held() == {FIRST: grant.taken.token}


def test_replicas_share_what_there_is():
    keys = [LeaseKey("m", str(number)) for number in range(8)]
    site = Site("a", "b")
    for name in ("a", "b"):
        site.wish(name, *keys)
    site.run(30)
    assert site.counts() == {"a": 4, "b": 4}


def test_one_that_joins_gets_its_share_and_then_nothing_moves():
    keys = [LeaseKey("m", str(number)) for number in range(9)]
    site = Site("a", "b")
    for name in ("a", "b"):
        site.wish(name, *keys)
    site.run(10)
    site.join("c", *keys)
    site.run(60)
    assert site.counts() == {"a": 3, "b": 3, "c": 3}
    taken = site.table.takes
    site.run(600)
    assert site.table.takes == taken


def test_what_a_dead_one_had_is_taken_by_the_others_within_a_lease_and_two_seconds():
    keys = [LeaseKey("m", str(number)) for number in range(8)]
    site = Site("a", "b", "c")
    for name in site.tenants:
        site.wish(name, *keys)
    site.run(30)
    site.kill("b")
    site.run(LEASE_S + 2)
    assert site.counts() == {"a": 4, "c": 4}
    assert site.said("a", f.Orphaned) + site.said("c", f.Orphaned) in (
        [f.Orphaned("b", ours=True), f.Orphaned("b", ours=False)],
        [f.Orphaned("b", ours=False), f.Orphaned("b", ours=True)],
    )


def test_one_that_joins_after_a_death_does_not_hold_up_who_follows():
    site = sharing("a", "b", "c", number=9)
    site.kill("b")
    site.run(4)
    site.join("d", *keys(9))
    site.run(LEASE_S - 2)
    assert len(site.owners()) == 9


def test_one_that_is_cut_off_loses_all_before_others_take_it():
    site = Site("a", "b")
    site.wish("a", FIRST, SECOND)
    site.run(1)
    site.wish("b", FIRST, SECOND)
    site.run(30)
    site.cut.add("a")
    site.run(LEASE_S - 1.9)
    assert len(site.said("a", f.Lose)) == 1
    assert site.counts() == {"a": 0, "b": 1}
    site.run(4)
    assert site.counts() == {"a": 0, "b": 2}


def test_one_that_leaves_gives_all_it_has_to_the_others():
    keys = [LeaseKey("m", str(number)) for number in range(9)]
    site = Site("a", "b", "c")
    for name in site.tenants:
        site.wish(name, *keys)
    site.run(60)
    site.feed("c", f.Leaving())
    for key in site.tenants["c"].held():
        site.feed("c", f.Released(key))
    site.run(0.1)
    assert sorted(site.counts().values()) == [0, 4, 5]


# --- exchanges


def test_exchanges_come_ten_times_a_lease_and_one_at_a_time():
    site = Site("a")
    site.run(10)
    assert 10 <= len(site.said("a", f.Exchange)) <= 13
    site.feed("a", f.Nudged())
    site.now_s += 5
    site.feed("a", f.Nudged())
    assert "a" in site.exchanges
    before = len(site.said("a", f.Exchange))
    site.feed("a", f.Due())
    assert len(site.said("a", f.Exchange)) == before


@pytest.mark.parametrize(("lease_s", "tick_s"), [(3.0, 0.3), (1.0, 0.2), (30.0, 1.0), (300.0, 1.0)])
def test_how_often_depends_on_the_lease_within_bounds(lease_s, tick_s):
    assert Tenant("a", lease_s, Random(1)).tick_s == pytest.approx(tick_s)


def test_nudges_are_answered_at_once_and_not_more_often_than_every_20_ms():
    site = Site("a")
    site.run(1)
    before = len(site.said("a", f.Exchange))
    for _ in range(100):
        site.feed("a", f.Nudged())
        site.run(0.001)
    assert 4 <= len(site.said("a", f.Exchange)) - before <= 6


def test_what_happens_while_an_exchange_is_under_way_is_said_by_the_next_at_once():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(5)
    site.feed("a", f.Nudged())
    site.now_s += 0.3
    site.feed("a", f.Released(FIRST))
    assert not site.exchanges["a"][1].gives
    site.answer("a")
    assert [give.key for give in site.exchanges["a"][1].gives] == [FIRST]


def test_what_it_runs_is_said_once():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(5)
    said = [command.said.runs for command in site.said("a", f.Exchange)]
    assert said.count(ORDERS) == 1
    assert set(said[-3:]) == {None}


def test_a_table_that_does_not_answer_is_asked_again_at_its_pace():
    site = Site("a")
    site.run(1)
    site.cut.add("a")
    site.run(10)
    site.feed("a", f.Released(FIRST))
    for _ in range(100):
        site.feed("a", f.Nudged())
    assert len(site.said("a", f.Exchange)) < 16
    site.cut.clear()
    site.run(2)
    assert [note.event for note in site.said("a", f.Note)] == ["fleet.unheard", "fleet.heard"]


# --- what is ours, and what is not any more


def test_a_take_whose_answer_was_lost_is_found_out_and_made_anew():
    site = Site("a")
    site.wish("a", FIRST)
    while not site.exchanges["a"][1].takes:
        site.answer("a")
        site.now_s += 0.05
        site.feed("a", f.Due())
    _, said = site.exchanges.pop("a")
    site.table.exchange("a", site.incarnations["a"], said)
    site.feed("a", f.Unanswered("lost on the way back"))
    assert not site.tenants["a"].held()
    site.run(3)
    held = site.tenants["a"].held()
    assert held[said.takes[0].key] == site.table.leases[said.takes[0].key].token


def test_an_answer_that_comes_too_late_gives_nothing_and_ends_all():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(3)
    site.feed("a", f.Nudged())
    site.now_s += LEASE_S
    site.wakes["a"] = float("inf")
    heard = site.table.exchange("a", site.incarnations["a"], site.exchanges["a"][1])
    sent_s, _ = site.exchanges.pop("a")
    site.feed("a", f.Answered(sent_s, heard))
    assert [lose.why for lose in site.said("a", f.Lose)] == ["the table has taken 10.0 s to answer"]
    site.run(2)
    assert set(site.tenants["a"].held()) == {FIRST}
    assert len(site.said("a", f.Grant)) == 2


def test_all_is_lost_by_its_own_clock_a_margin_before_others_may_take_it():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(3)
    tenant = site.tenants["a"]
    sent_s = site.said("a", f.Exchange) and tenant.expires_s - (LEASE_S - 2)
    site.cut.add("a")
    assert site.now_s - 1 <= sent_s <= site.now_s
    site.run(tenant.expires_s - site.now_s - 0.01)
    assert tenant.held()
    site.run(0.02)
    assert not tenant.held()
    assert tenant.token(FIRST) is None
    assert tenant.expires_s == float("inf")
    [lose] = site.said("a", f.Lose)
    assert lose.why == "the table has not answered for 8.0 s"
    site.cut.clear()
    site.run(2)
    assert len(site.said("a", f.Grant)) == 2, "it is taken anew, nobody having done so"


def test_what_is_anothers_in_the_table_is_lost_at_once():
    site = Site("a")
    site.wish("a", FIRST, SECOND)
    site.run(3)
    site.table.join("b")
    lease = site.table.leases[FIRST]
    site.table._put(FIRST, lease._replace(owner="b", token=lease.token + 100))
    site.run(1.1)
    assert site.said("a", f.Lose) == [f.Lose(FIRST, "b has it now")]


def test_a_table_that_comes_back_empty_has_nothing_of_ours():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(3)
    site.table.leases.clear()
    site.table._numbers = 0
    site.run(2.1)
    assert site.said("a", f.Lose) == [f.Lose(FIRST, "the table does not have it any more")]
    assert set(site.tenants["a"].held()) == {FIRST}


def test_one_whose_name_another_process_has_ends():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(3)
    site.table.join("a")
    site.run(1.1)
    assert site.did[-2:] == [("a", f.Lose(FIRST, "another process has our name")), ("a", f.Ousted())]
    assert site.tenants["a"].feed(f.Due(), site.now_s) == []


def test_what_a_former_process_had_is_taken_anew_at_once():
    site = Site("a", "b")
    site.wish("a", FIRST)
    site.run(3)
    site.wish("b", FIRST)
    site.kill("a")
    token = site.table.leases[FIRST].token
    site.join("a", FIRST)
    site.run(0.1)
    assert site.tenants["a"].held()[FIRST] > token


def test_what_a_former_process_had_and_nobody_wishes_for_is_given_away_after_a_lease():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(3)
    site.kill("a")
    site.join("a", SECOND)
    site.run(LEASE_S - 1)
    assert site.table.leases[FIRST].owner == "a"
    site.run(3)
    assert site.table.leases[FIRST].owner == ""


def test_what_a_former_process_had_is_given_away_at_once_by_one_that_stops():
    site = Site("a", "b")
    site.wish("a", FIRST)
    site.run(3)
    site.kill("a")
    site.join("a")
    site.wish("b", FIRST)
    site.feed("a", f.Leaving())
    site.run(1)
    assert site.owners() == {FIRST: "b"}


def test_what_is_not_wished_for_any_more_when_it_is_taken_is_given_back():
    site = Site("a")
    site.wish("a", FIRST)
    while not site.exchanges["a"][1].takes:
        site.answer("a")
        site.now_s += 0.05
        site.feed("a", f.Due())
    site.feed("a", f.Unwished(FIRST))
    site.run(1)
    assert not site.said("a", f.Grant)
    assert site.table.leases[FIRST].owner == ""


def test_what_is_released_twice_or_was_never_ours_changes_nothing():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(3)
    site.feed("a", f.Released(SECOND))
    site.feed("a", f.Released(FIRST))
    site.feed("a", f.Released(FIRST))
    assert not site.tenants["a"].held()


# --- who takes what


def test_the_heir_takes_what_was_given_to_it_and_the_others_wait():
    site = Site("a", "b", "c")
    for name in site.tenants:
        site.wish(name, FIRST)
    site.run(5)
    [owner] = site.owners().values()
    others = sorted({"a", "b", "c"} - {owner})
    site.feed(owner, f.Leaving())
    site.cut.update(others)
    site.feed(owner, f.Released(FIRST))
    site.run(0.5)
    heir = site.table.leases[FIRST].heir
    assert heir in others
    [other] = set(others) - {heir}
    site.cut.remove(other)
    site.run(2)
    assert site.owners() == {}
    site.run(4)
    assert site.owners() == {FIRST: other}


def test_who_is_to_take_something_and_does_not_is_followed_by_the_next():
    site = Site("a", "b")
    site.feed("b", f.Runs(ORDERS))
    site.run(5)
    site.wish("a", *keys(6))
    site.run(8)
    assert site.counts() == {"a": 6, "b": 0}


def test_a_gift_that_is_not_taken_is_not_made_again_for_a_while():
    site = Site("a", "b")
    site.wish("a", *keys(2))
    site.run(3)
    site.feed("b", f.Runs(ORDERS))
    site.run(4 * LEASE_S)
    assert site.counts() == {"a": 2, "b": 0}
    assert len(site.said("a", f.Revoke)) == 1
    site.wish("b", *keys(2))
    site.run(4 * LEASE_S)
    assert site.counts() == {"a": 1, "b": 1}


def test_what_nobody_takes_for_a_lease_holds_up_nothing_else():
    site = Site("a", "b")
    for name in ("a", "b"):
        site.wish(name, *keys(8))
    site.run(40)
    for name in ("a", "b"):
        site.feed(name, f.Unwished(keys(1)[0]))
    site.kill("b")
    site.run(2 * LEASE_S)
    site.join("b", *keys(8)[1:])
    site.run(3 * LEASE_S)
    assert sorted(site.counts().values()) == [3, 4]


def test_a_gift_that_nobody_wants_weighs_on_nobody():
    site = Site("a", "b")
    for name in ("a", "b"):
        site.wish(name, *keys(4))
    site.run(40)
    for key in list(site.tenants["b"].held()):
        for name in ("a", "b"):
            site.feed(name, f.Unwished(key))
    assert site.counts() == {"a": 2, "b": 0}
    site.run(3 * LEASE_S)
    assert [lease.heir for lease in site.table.leases.values() if not lease.owner] == ["a", "a"]
    assert site.counts() == {"a": 1, "b": 1}


def test_one_that_refused_a_gift_may_go():
    site = Site("a", "b")
    site.wish("a", *keys(2))
    site.feed("b", f.Runs(ORDERS))
    site.run(2 * LEASE_S)
    site.kill("b")
    site.run(3 * LEASE_S)
    assert site.counts() == {"a": 2}


def test_one_that_has_just_joined_gets_nothing_before_it_has_lived_for_some_ticks():
    site = Site("a")
    site.wish("a", *keys(4))
    site.run(3)
    site.join("b", *keys(4))
    site.run(2.5)
    assert not site.said("a", f.Revoke)
    site.run(3)
    assert len(site.said("a", f.Revoke)) == 2


def test_only_a_few_leases_are_on_their_way_at_once():
    site = Site("a", "b")
    site.slow.add("a")
    site.wish("a", *keys(100))
    site.run(3)
    site.wish("b", *keys(100))
    site.run(20)
    revoked = site.said("a", f.Revoke)
    assert len(revoked) == 5
    for revoke in revoked[:2]:  # of what is left, less is moved at once
        site.feed("a", f.Released(revoke.key))
    site.run(1.5)
    assert len(site.said("a", f.Revoke)) == 6


def test_what_has_moved_rests_for_a_lease():
    site = sharing("a", "b", number=4)
    site.kill("b")
    site.run(LEASE_S + 3)
    site.join("b", *keys(4))
    site.run(6)
    moved = [revoke.key for revoke in site.said("a", f.Revoke)][-2:]
    site.join("c", *keys(4))
    site.feed("a", f.Measured(dict.fromkeys(site.tenants["a"].held(), 0.0)))
    site.feed("b", f.Measured(dict.fromkeys(moved, 3.0)))
    site.run(LEASE_S - 3)
    assert not site.said("b", f.Revoke)
    site.run(LEASE_S)
    assert site.said("b", f.Revoke)


def test_a_fleet_that_starts_is_not_taken_by_its_first_replica():
    site = Site("a")
    site.wish("a", *keys(1000))
    site.run(0.9)
    assert site.counts() == {"a": 256}
    site.run(4)
    assert site.counts() == {"a": 1000}


def test_many_that_are_given_back_are_given_in_turns():
    site = Site("a")
    site.wish("a", *keys(600))
    site.run(5)
    for key in keys(600):
        site.feed("a", f.Unwished(key))
    site.run(1)
    assert {lease.owner for lease in site.table.leases.values()} == {""}
    assert max(len(each.said.gives) for each in site.said("a", f.Exchange)) <= 256


# --- who lives


def test_one_that_comes_back_before_it_is_followed_is_not_robbed():
    site = sharing("a", "b")
    before = site.owners()
    site.cut.add("a")
    site.run(LEASE_S - 2.5)
    site.cut.clear()
    site.run(10)
    assert site.owners() == before


def test_after_an_outage_of_the_table_nobody_is_followed_who_comes_back_within_a_lease():
    site = sharing("a", "b", "c")
    before = site.owners()
    site.cut.update("abc")
    site.run(3 * LEASE_S)
    assert site.owners() == {}
    site.cut.discard("a")
    site.run(LEASE_S / 2)
    assert set(site.owners().values()) == {"a"}
    site.cut.clear()
    site.run(5)
    assert site.owners() == before
    assert not any(site.said(name, f.Orphaned) for name in "abc")


def test_one_that_was_stopped_does_not_take_the_others_for_dead():
    site = sharing("a", "b")
    site.wakes["a"] += 3 * LEASE_S
    site.run(3 * LEASE_S + 1)
    assert not site.said("a", f.Orphaned)
    assert site.said("b", f.Orphaned) == [f.Orphaned("a", ours=True)]
    site.run(4 * LEASE_S)
    assert sorted(site.counts().values()) == [4, 4]


def test_what_a_dead_one_had_begun_falls_to_another_when_that_one_dies_too():
    site = sharing("a", "b", "c", "d")
    site.kill("d")
    site.run(LEASE_S + 2)
    [adopter] = [name for name in "abc" if f.Orphaned("d", ours=True) in site.said(name, f.Orphaned)]
    site.kill(adopter)
    site.run(LEASE_S + 2)
    left = sorted(set("abc") - {adopter})
    assert [f.Orphaned("d", ours=True) in site.said(name, f.Orphaned) for name in left].count(True) == 1
    assert [f.Orphaned(adopter, ours=True) in site.said(name, f.Orphaned) for name in left].count(True) == 1


def test_one_that_is_silent_is_given_nothing_and_keeps_what_it_has():
    site = sharing("a", "b", "c", number=9)
    site.cut.add("c")
    site.run(5)
    site.feed("b", f.Leaving())
    for key in site.tenants["b"].held():
        site.feed("b", f.Released(key))
    site.run(0.5)
    assert site.counts() == {"a": 6, "b": 0, "c": 3}
    site.cut.clear()
    site.run(20)
    assert site.counts()["b"] == 0
    assert site.counts()["c"] >= 4


def test_nothing_is_taken_from_one_that_keeps_it_longer_by_its_own_file():
    site = Site("a")
    site.join("b", *keys(4), lease_s=3 * LEASE_S)
    site.run(1)
    site.wish("a", *keys(4))
    site.run(20)
    site.cut.add("b")
    site.run(3 * LEASE_S - 2.1)
    assert site.counts() == {"a": 2, "b": 2}
    assert not site.said("b", f.Lose)
    liveness = site.tenants["a"].liveness
    assert liveness.ends_s("b") - liveness.still_s("b") == 3 * LEASE_S
    assert site.now_s - liveness.still_s("b") == pytest.approx(3 * LEASE_S - 2.1, abs=1.1)
    site.run(4.1)
    assert site.counts() == {"a": 4, "b": 0}


def test_it_is_known_when_a_silent_one_will_be_dead():
    site = sharing("a", "b")
    site.kill("b")
    site.run(5)
    left_s = site.tenants["a"].liveness.ends_s("b") - site.now_s
    assert left_s == pytest.approx(5, abs=1.1)
    site.run(left_s - 0.01)
    assert "b" in site.tenants["a"].liveness.living
    site.run(0.02)
    assert "b" in site.tenants["a"].liveness.dead


def test_the_dead_are_buried_when_nobody_waits_for_them_any_more():
    site = sharing("a", "b")
    site.kill("b")
    site.run(9 * LEASE_S)
    assert set(site.table.replicas) == {"a", "b"}
    site.run(3 * LEASE_S)
    assert set(site.table.replicas) == {"a"}


def test_one_that_comes_back_from_the_dead_is_given_its_share_again():
    site = sharing("a", "b")
    site.cut.add("b")
    site.run(2 * LEASE_S)
    assert site.counts() == {"a": 8, "b": 0}
    site.cut.clear()
    site.run(2 * LEASE_S)
    assert site.counts() == {"a": 4, "b": 4}


# --- what there is beside shards


def test_finished_shards_are_told_to_all_who_wish_for_something_of_the_mapping():
    site = Site("a", "b", "c")
    for name in ("a", "b"):
        site.wish(name, FIRST, SECOND)
    site.run(20)
    owner = site.owners()[FIRST]
    [other] = {"a", "b"} - {owner}
    site.feed(owner, f.Released(FIRST, finished=True))
    site.run(2)
    assert site.said(other, f.Finished) == [f.Finished("m", ["1"])]
    assert not site.said(owner, f.Finished), "it knows"
    assert not site.said("c", f.Finished)
    site.wish("c", SECOND)
    assert site.said("c", f.Finished) == [f.Finished("m", ["1"])]
    assert FIRST not in site.owners()
    site.feed(other, f.Forgotten([FIRST]))
    site.run(2)
    assert FIRST not in site.table.leases
    site.run(2)
    assert not any(command.said.forgets for command in site.said(other, f.Exchange)[-1:])


def test_of_what_is_to_be_forgotten_it_is_not_told_that_it_is_finished():
    site = Site("a", "b", "c")
    site.wish("a", FIRST)
    site.run(2)
    site.feed("a", f.Released(FIRST, finished=True))
    site.feed("a", f.Unwished(FIRST))
    site.run(2)
    site.feed("b", f.Forgotten([FIRST]))
    site.wish("b", SECOND)
    assert not site.said("b", f.Finished)
    assert FIRST in site.table.leases
    site.run(2)
    assert FIRST not in site.table.leases
    # It is finished anew while somebody has it forgotten who knows only of its former end.
    site.cut.add("c")
    site.wish("c", SECOND)
    site.feed("a", f.Wished(FIRST))
    site.run(2)
    site.feed("a", f.Released(FIRST, finished=True))
    site.feed("a", f.Unwished(FIRST))
    site.run(2)
    site.feed("c", f.Forgotten([FIRST]))
    site.cut.clear()
    site.run(2)
    assert f.Finished("m", ["1"]) not in site.said("c", f.Finished)
    assert FIRST not in site.table.leases


def test_something_steered_is_looked_at_once():
    site = Site("a")
    site.run(1)
    site.table.steered += 1
    site.run(5)
    assert len(site.said("a", f.Steered)) == 1


def test_deliveries_are_shared_among_those_who_deliver():
    outboxes = [LeaseKey(f"m{number}", OUTBOX) for number in range(10)]
    site = Site("a", "b")
    for name in ("a", "b"):
        site.wish(name, *outboxes)
    site.run(40)
    assert sorted(site.counts().values()) == [5, 5]


def test_loads_are_told_when_they_are_other_than_known_and_not_when_they_wobble():
    site = Site("a")
    site.wish("a", *keys(20))
    site.run(3)

    def told(load):
        before = len(site.said("a", f.Exchange))
        site.feed("a", f.Measured(dict.fromkeys(site.tenants["a"].held(), load)))
        site.run(1.1)
        return sum(len(each.said.marks) for each in site.said("a", f.Exchange)[before:])

    assert told(1.0) == 20
    assert site.table.leases[keys(1)[0]].load == 1.0
    assert told(1.05) == 0
    assert told(0.95) == 0
    assert told(1.2) > 0, "all of them together"
    assert told(3.0) == 20
    site.feed("a", f.Measured({SECOND: 9.0}))
    site.run(1.1)
    assert SECOND not in site.table.leases


def test_a_load_that_is_to_be_told_of_a_lease_that_is_gone_is_forgotten():
    site = Site("a")
    site.wish("a", FIRST)
    site.run(3)
    site.feed("a", f.Measured({FIRST: 5.0}))
    site.feed("a", f.Unwished(FIRST))
    site.run(1.1)
    assert not any(each.said.marks for each in site.said("a", f.Exchange))


def test_a_lease_that_the_table_says_is_taken_and_is_anothers_is_not_held():
    tenant = Tenant("a", LEASE_S, Random(1))
    tenant.feed(f.Wished(FIRST), 0.0)
    lease = f.Lease(7, "b", "", 0.0, 0)
    heard = Heard(9, True, {FIRST: f.Taken(5, "")}, {FIRST: lease}, {})
    assert not any(isinstance(each, f.Grant) for each in tenant.feed(f.Answered(0.0, heard), 0.1))
    assert not tenant.held()


def test_equal_facts_give_equal_commands():
    def commands():
        site = Site("a", "b")
        for name in ("a", "b"):
            site.wish(name, *keys(9))
        site.run(20)
        return site.did

    assert commands() == commands()
