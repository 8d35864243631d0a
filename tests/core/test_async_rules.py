"""What becomes of an asynchronous event before and after each try, as AWS was seen to do it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import async_rules as rules
from router.core.async_rules import Standing, after, before
from router.core.asynchronous import AsyncEvent, Condition, LastAnswer, Owe, Settled

EVENT = AsyncEvent("e1", "orders", None, 1000.0, 1000.0, 10)
OK = LastAnswer(200, "$LATEST", None, b"{}")
BOOM = LastAnswer(200, "$LATEST", "Unhandled", b'{"errorMessage":"boom"}', "boom")
THROTTLE = LastAnswer(429)
OUTAGE = LastAnswer(503)
NORMAL = Standing("$LATEST")


def settled(become: Settled | AsyncEvent | None) -> Settled:
    assert isinstance(become, Settled)
    return become


def put_off(become: Settled | AsyncEvent | None) -> AsyncEvent:
    assert isinstance(become, AsyncEvent)
    return become


def test_function_errors_are_tried_again_after_one_and_two_minutes_and_then_no_more() -> None:
    second = put_off(after(EVENT, BOOM, NORMAL, 1001.0))
    assert (second.due_s, second.tries, second.last) == (1061.0, 1, BOOM)
    third = put_off(after(second, BOOM, NORMAL, 1062.0))
    assert (third.due_s, third.tries) == (1182.0, 2)
    end = settled(after(third, BOOM, NORMAL, 1183.0))
    assert (end.condition, end.invoke_count, end.event.last) == (Condition.RETRIES_EXHAUSTED, 3, BOOM)


@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("answer", [BOOM, LastAnswer(404)])
def test_tries_are_the_first_and_the_retries(retries: int, tries: int, answer: LastAnswer) -> None:
    become: Settled | AsyncEvent = EVENT
    count = 0
    while isinstance(become, AsyncEvent):
        become = after(become, answer, Standing("$LATEST", retries), become.due_s)
        count += 1
    assert (count, become.invoke_count, become.condition) == (tries, tries, Condition.RETRIES_EXHAUSTED)


def test_success_after_failed_tries_reports_one_invocation() -> None:
    end = settled(after(replace(EVENT, tries=2, last=BOOM), OK, NORMAL, 1200.0))
    assert (end.condition, end.invoke_count, end.event.last) == (Condition.SUCCESS, 1, OK)


@pytest.mark.parametrize("answer", [THROTTLE, OUTAGE])
def test_refusals_spend_no_try_and_wait_from_one_second_up_to_five_minutes(answer: LastAnswer) -> None:
    event, now_s, waits = EVENT, 1000.0, []
    for _ in range(12):
        event = put_off(after(event, answer, NORMAL, now_s))
        waits.append(event.due_s - now_s)
        now_s = event.due_s
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert event.tries == 0


def test_the_waits_of_refusals_begin_anew_after_a_real_try() -> None:
    refused = put_off(after(replace(EVENT, refusals=7), BOOM, NORMAL, 1000.0))
    assert put_off(after(refused, THROTTLE, NORMAL, 1061.0)).due_s == 1062.0


def test_a_throttle_takes_the_place_of_a_real_answer() -> None:
    tried = put_off(after(EVENT, BOOM, NORMAL, 1000.0))
    assert put_off(after(tried, THROTTLE, NORMAL, 1060.0)).last == THROTTLE


def test_a_target_that_is_gone_takes_the_place_of_a_real_answer() -> None:
    tried = put_off(after(EVENT, BOOM, NORMAL, 1000.0))
    gone = put_off(before(tried, Standing(None), 1060.0))
    assert (gone.last, gone.tries) == (LastAnswer(404), 2)


def test_an_event_whose_next_try_would_come_too_late_is_done_with_at_once() -> None:
    end = settled(after(EVENT, BOOM, Standing("$LATEST", maximum_age_s=60.0), 1000.1))
    assert (end.condition, end.invoke_count, end.at_s) == (Condition.EVENT_AGE_EXCEEDED, 1, 1000.1)
    assert end.event.last == BOOM
    second = put_off(after(EVENT, BOOM, Standing("$LATEST", maximum_age_s=150.0), 1000.1))
    end = settled(after(second, BOOM, Standing("$LATEST", maximum_age_s=150.0), 1060.2))
    assert (end.condition, end.invoke_count) == (Condition.EVENT_AGE_EXCEEDED, 2)


def test_an_event_that_was_throttled_to_the_end_was_never_invoked() -> None:
    become: Settled | AsyncEvent = EVENT
    while isinstance(become, AsyncEvent):
        become = after(become, THROTTLE, Standing("$LATEST", maximum_age_s=60.0), become.due_s)
    assert (become.condition, become.invoke_count) == (Condition.EVENT_AGE_EXCEEDED, 0)
    assert become.event.last == THROTTLE
    assert become.at_s == 1031.0, "1, 2, 4, 8 and 16 s; 32 more would be too many"


def test_an_event_that_waited_for_room_until_it_was_too_old_was_throttled() -> None:
    end = settled(before(EVENT, NORMAL, 1000.0 + 21_601.0))
    assert (end.condition, end.invoke_count, end.event.last) == (Condition.EVENT_AGE_EXCEEDED, 0, THROTTLE)


def test_an_event_in_time_is_run() -> None:
    assert before(EVENT, NORMAL, 1000.0 + 21_600.0) is None


def test_the_last_try_may_begin_at_the_age_limit_itself() -> None:
    assert put_off(after(EVENT, BOOM, Standing("$LATEST", maximum_age_s=60.0), 1000.0)).due_s == 1060.0


def test_before_its_function_is_known_an_event_is_not_done_with_however_old_it_is() -> None:
    unknown = Standing(None, maximum_age_s=60.0, is_known=False)
    waits = put_off(before(replace(EVENT, refusals=20), unknown, 1000.0 + 86_400.0))
    assert (waits.due_s, waits.tries) == (1000.0 + 86_400.0 + 300.0, 0)


def test_a_function_without_any_concurrency_is_not_tried() -> None:
    shut = Standing("$LATEST", is_shut=True)
    end = settled(before(replace(EVENT, refusals=3, last=THROTTLE), shut, 1001.0))
    assert (end.condition, end.invoke_count, end.event.last) == (Condition.ZERO_RESERVED_CONCURRENCY, 0, None)
    end = settled(before(replace(EVENT, tries=1, last=BOOM), shut, 1060.0))
    assert (end.condition, end.invoke_count, end.event.last) == (Condition.ZERO_RESERVED_CONCURRENCY, 1, BOOM)


@given(
    answers=st.lists(st.sampled_from([BOOM, THROTTLE, OUTAGE, LastAnswer(404)])),
    delays=st.lists(st.floats(0.0, 30.0), min_size=1),
    retries=st.integers(0, 2),
    age_s=st.floats(60.0, 21_600.0),
)
def test_whatever_happens_tries_and_age_are_bounded(
    answers: list[LastAnswer], delays: list[float], retries: int, age_s: float
) -> None:
    standing, event = Standing("$LATEST", retries, age_s), EVENT
    for number, answer in enumerate(answers):
        now_s = event.due_s + delays[number % len(delays)]
        become = before(event, standing, now_s) or after(event, answer, standing, now_s)
        if isinstance(become, Settled):
            assert become.invoke_count <= retries + 1
            return
        assert become.tries <= retries
        assert now_s < become.due_s <= event.accepted_s + age_s
        event = become


# --- deliveries

END = Settled(EVENT, Condition.RETRIES_EXHAUSTED, 3, 1183.0)


def test_targets_are_told_one_after_the_other() -> None:
    owe = Owe(END, ("a", "b"), 1183.0)
    left = rules.accepted(owe, 1184.0)
    assert left == Owe(END, ("b",), 1184.0)
    assert rules.accepted(left, 1185.0) is None


def test_a_target_that_refuses_lets_the_others_pass_and_comes_again_after_growing_waits() -> None:
    owe, now_s, seen = Owe(END, ("a", "b"), 0.0), 0.0, []
    for _ in range(7):
        owe = rules.refused(owe, now_s, Random(1))
        seen.append((owe.targets[0], round(owe.due_s - now_s)))
        now_s = owe.due_s
    assert [name for name, _ in seen] == ["b", "a", "b", "a", "b", "a", "b"]
    assert seen[0][1] == 0
    assert [wait_s for _, wait_s in seen[1:]] == sorted(wait_s for _, wait_s in seen[1:])


def test_waits_between_deliveries_are_bounded_and_never_end() -> None:
    owe = Owe(END, ("a",), 0.0, deliveries=10_000)
    assert 240.0 <= rules.refused(owe, 0.0, Random(1)).due_s <= 360.0
