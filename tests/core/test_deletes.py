"""Deleting when it fails: how long it is tried again, and what becomes of a message that is not deleted."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from router.core import facts as f
from router.core.deletes import Deletes
from router.core.hand import Hand
from router.core.message_state import decode
from router.core.model import Instant, Polling
from tests.core.columns import RAISED
from tests.core.queue_play import WALL_S, Play, deleted, invoked, page

LEASE_S = 30.0
AWAY = "the queue cannot be reached"
EXPIRED = "InvalidParameterValue: the receipt handle has expired"
#: A lease after the first failure, and until the next try behind that: half a lease at most.
GIVEN_UP_S = 2.5 * LEASE_S + 1


def instant(mono_s: float) -> Instant:
    return Instant(mono_s, WALL_S + mono_s)


# --- one by one


def deletes(*positions: int, lease_end_s: float = LEASE_S) -> tuple[Deletes, Hand]:
    """Messages in hand, all of which are to be deleted."""
    hand = Hand()
    hand.take(page(positions), lease_end_s)
    made = Deletes(hand, Random(1))
    made.add(list(positions))
    return made, hand


def test_calls_that_fail_together_are_one_failure() -> None:
    made, _ = deletes(*range(100))
    calls = made.wanted()
    assert len(calls) == 10
    waits = [made.retry(list(made.failed(each.call, AWAY)), LEASE_S, instant(1.0))[0] for each in calls]
    assert waits[0] == pytest.approx(0.5, rel=0.2)
    assert set(waits) == {waits[0]}
    made.again(range(10))
    [call] = made.wanted()
    again_s, _, _ = made.retry(list(made.failed(call.call, AWAY)), LEASE_S, instant(1.0 + waits[0]))
    assert again_s == pytest.approx(1.0, rel=0.2)


def test_a_wait_is_no_longer_than_half_a_lease() -> None:
    made, _ = deletes(1)
    now_s = 0.0
    for _ in range(12):
        [call] = made.wanted()
        wait_s, [position], given_up = made.retry(list(made.failed(call.call, AWAY)), 5.0, instant(now_s))
        assert given_up == []
        assert wait_s <= 2.5
        now_s += wait_s
        made.again([position])


def test_without_a_visibility_timeout_it_is_tried_for_ever() -> None:
    made, _ = deletes(1, lease_end_s=inf)
    now_s = wait_s = 0.0
    for _ in range(12):
        [call] = made.wanted()
        assert made.ended(call.call, {1: EXPIRED}, instant(now_s)) == []
        wait_s, [position], given_up = made.retry([1], 0.0, instant(now_s))
        assert given_up == []
        now_s += wait_s
        made.again([position])
    assert wait_s >= 24.0, "as seldom as in an outage"


def test_nothing_is_given_up_while_the_queue_does_not_answer_nor_for_a_lease_after() -> None:
    made, _ = deletes(1, 2)
    for now_s in (1000.0, 1100.0):
        [call] = made.wanted()
        _, again, given_up = made.retry(list(made.failed(call.call, AWAY)), LEASE_S, instant(now_s))
        assert (again, given_up) == ([1, 2], [])
        made.again(again)
    [call] = made.wanted()
    assert made.ended(call.call, {2: EXPIRED}, instant(1110.0)) == [1]
    _, again, given_up = made.retry([2], LEASE_S, instant(1110.0))
    assert (again, given_up) == ([2], [])
    made.again(again)
    [call] = made.wanted()
    assert made.ended(call.call, {2: EXPIRED}, instant(1140.0)) == []
    _, again, given_up = made.retry([2], LEASE_S, instant(1140.0))
    assert (again, given_up) == ([], [2])


def test_what_ran_for_longer_than_its_lease_has_time_to_come_again() -> None:
    made, hand = deletes(1)
    [call] = made.wanted()
    now_s = 5 * LEASE_S
    assert made.ended(call.call, {1: EXPIRED}, instant(now_s)) == []
    wait_s, again, given_up = made.retry([1], LEASE_S, instant(now_s))
    assert (again, given_up) == ([1], [])
    hand.take(page([1], receive=2), now_s + LEASE_S)
    made.again(again)
    [call] = made.wanted()
    assert call.messages == {1: (1, 2)}
    assert made.ended(call.call, {}, instant(now_s + wait_s)) == [1]


def test_what_has_come_again_meanwhile_is_deleted_by_its_new_receipt() -> None:
    made, hand = deletes(1)
    [call] = made.wanted()
    hand.take(page([1], receive=2), 60.0)
    assert made.ended(call.call, {}, instant(1.0)) == []
    [call] = made.wanted()
    assert call.messages == {1: (1, 2)}


# --- in the engine


def refuse_until(
    play: Play, commands: list[f.Command], mono_s: float, *, expired: frozenset[int] = frozenset()
) -> list[f.Command]:
    """Let every deletion fail until some time, while the queue does all else but extend what has expired.

    Gives all that was asked for.
    """
    asked: list[f.Command] = []
    while commands or play.now_s < mono_s:
        asked += commands
        answers: list[f.Command] = []
        for each in commands:
            if isinstance(each, f.Delete):
                answers += play.feed(f.Deleted(each.call, dict.fromkeys(each.messages, EXPIRED)))
            elif isinstance(each, f.Extend):
                answers += play.feed(f.Extended(each.call, dict.fromkeys(expired.intersection(each.messages), EXPIRED)))
        commands = answers or (play.wait_until(min([mono_s, *play.wakes])) if play.now_s < mono_s else [])
    return asked


def test_the_next_of_a_group_does_not_run_while_the_one_before_it_is_not_deleted() -> None:
    play = Play(batch_size=1, polling=Polling(fifo=True, heartbeat=True, function_concurrency=4))
    assert invoked(play.receive(page([1, 2], keys=[b"a", b"a"]))) == [[1]]
    asked = refuse_until(play, play.end(), GIVEN_UP_S, expired=frozenset([1]))
    assert [each for each in asked if isinstance(each, f.Extend)], "the second one's lease was made longer"
    assert invoked(asked) == []
    assert invoked(play.receive(page([1, 2], keys=[b"a", b"a"], receive=2))) == [[1]], "both are the queue's again"


def test_the_leases_of_a_group_end_together_while_one_of_it_is_not_deleted() -> None:
    play = Play(batch_size=1, polling=Polling(fifo=True, heartbeat=True, function_concurrency=4))
    play.receive(page([1, 2], keys=[b"a", b"a"]))
    asked = refuse_until(play, play.end(), 10 * LEASE_S)
    extends = [each for each in asked if isinstance(each, f.Extend)]
    assert len(extends) > 10
    assert {tuple(each.messages) for each in extends} == {(1, 2)}
    assert invoked(asked) == [], "it is not given up while its receipt is good"
    assert set(deleted(asked)) == {1}


def test_what_was_stored_as_failed_but_not_deleted_has_no_fresh_budget() -> None:
    play = Play(polling=Polling(function_concurrency=1), maximum_retry_attempts=1)
    play.receive(page([1]))
    play.end(RAISED)
    remember = play.only(f.Remember)
    state = decode(remember.texts[1])
    assert state is not None
    assert state.attempts == 1
    play.feed(f.Remembered(remember.call))
    play.wait_until(2.0)
    play.end(RAISED)
    asked = refuse_until(play, play.feed(f.Kept(play.only(f.Keep).failure.id)), GIVEN_UP_S)
    assert deleted(asked)
    assert not [each for each in asked if isinstance(each, f.Remember)], "it is not forgotten"
    play.receive(page([1], receive=2))
    [batch] = play.running.values()
    assert batch.attempts == 1
    assert [each for each in play.end(RAISED) if isinstance(each, f.Keep)]
