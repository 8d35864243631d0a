"""Which failure is sent next, and when."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.model import Backoff
from router.core.outbox import DELIVERY_BACKOFF, Outbox


def outbox(*, jitter: float = 0.0) -> Outbox:
    return Outbox(Random(1), Backoff(base_s=1.0, cap_s=300.0, jitter=jitter))


def test_the_oldest_that_is_due_goes_first() -> None:
    box = outbox()
    for name, failed_at_s in (("b", 2.0), ("c", 3.0), ("a", 1.0)):
        box.add(name, failed_at_s, now_s=10.0)
    assert [box.take(10.0) for _ in range(4)] == ["a", "b", "c", None]


def test_an_empty_outbox_is_never_due() -> None:
    assert outbox().next_due_s() is None
    assert outbox().take(1e9) is None


def test_the_wait_doubles_up_to_five_minutes_and_never_ends() -> None:
    box = outbox()
    box.add("a", 1.0, now_s=0.0)
    now_s, waits = 0.0, []
    for _ in range(12):
        assert box.take(now_s) == "a"
        waits.append(box.refused("a", now_s))
        assert box.take(now_s + waits[-1] - 0.001) is None
        now_s += waits[-1]
        assert box.next_due_s() == now_s
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_waits_vary_by_a_fifth() -> None:
    waits = set()
    for seed in range(50):
        box = Outbox(Random(seed))
        box.add("a", 1.0, now_s=0.0)
        box.take(0.0)
        waits.add(box.refused("a", 0.0))
    assert len(waits) > 40
    assert 0.8 <= min(waits) < 0.9
    assert 1.1 < max(waits) <= 1.2


def test_one_that_is_always_refused_holds_up_no_other() -> None:
    box = outbox()
    box.add("poison", 1.0, now_s=0.0)
    box.add("good", 2.0, now_s=0.0)
    assert box.take(0.0) == "poison"
    box.refused("poison", 0.0)
    assert box.take(0.0) == "good"


def test_one_that_is_kept_twice_is_sent_once() -> None:
    box = outbox()
    box.add("a", 1.0, now_s=0.0)
    box.add("a", 1.0, now_s=0.0)
    assert [box.take(0.0), box.take(0.0)] == ["a", None]
    box.done("a")
    box.add("a", 1.0, now_s=0.0)
    assert box.take(0.0) == "a"


@pytest.mark.parametrize(
    ("wait_s", "due_s"),
    [(5.0, 105.0), (-86_400.0, 100.0), (86_400.0, 100.0 + DELIVERY_BACKOFF.cap_s * (1 + DELIVERY_BACKOFF.jitter))],
)
def test_a_remembered_wait_is_capped_so_that_a_stepped_clock_stalls_nothing(wait_s: float, due_s: float) -> None:
    box = Outbox(Random(1))
    box.add("a", 1.0, now_s=100.0, refusals=3, wait_s=wait_s)
    assert box.next_due_s() == due_s


def test_remembered_refusals_go_on_counting() -> None:
    box = outbox()
    box.add("a", 1.0, now_s=0.0, refusals=4)
    box.take(0.0)
    assert box.refused("a", 0.0) == 16.0


def test_one_that_is_hurried_is_due_at_once_and_once() -> None:
    box = outbox()
    box.add("a", 1.0, now_s=0.0, wait_s=200.0)
    box.add("b", 2.0, now_s=0.0, wait_s=100.0)
    box.hurry("a", 5.0)
    assert box.next_due_s() == 5.0
    assert [box.take(5.0), box.take(5.0)] == ["a", None]
    assert box.next_due_s() == 100.0
    box.refused("a", 5.0)
    assert [box.take(6.0), box.take(6.0)] == ["a", None]


def test_hurrying_what_is_on_its_way_or_is_not_here_changes_nothing() -> None:
    box = outbox()
    box.add("a", 1.0, now_s=0.0)
    assert box.take(0.0) == "a"
    box.hurry("a", 0.0)
    box.hurry("z", 0.0)
    assert (box.take(0.0), box.next_due_s(), len(box)) == (None, None, 1)


def test_what_is_done_is_gone_wherever_it_was() -> None:
    box = outbox()
    for name in ("taken", "ready", "waiting"):
        box.add(name, 1.0, now_s=0.0, wait_s=5.0 if name == "waiting" else 0.0)
    taken = box.take(0.0)
    assert taken
    for name in ("taken", "ready", "waiting"):
        box.done(name)
    assert box.refused(taken, 1.0) == 0.0
    assert (len(box), box.take(100.0), box.next_due_s(), box.oldest_s()) == (0, None, None, None)


def test_it_says_how_many_wait_and_since_when() -> None:
    box = outbox()
    box.add("b", 2.0, now_s=0.0)
    box.add("a", 1.0, now_s=0.0)
    box.take(0.0)
    assert (len(box), box.oldest_s()) == (2, 1.0)
    assert box.among({"a", "z"}) == {"a"}


NAMES = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NAMES, st.integers(0, 9)),
        st.tuples(st.sampled_from(("hurry", "done")), NAMES, st.just(0)),
        st.tuples(st.just("pass"), st.just(""), st.integers(1, 9)),
        st.tuples(st.just("take"), st.just(""), st.just(0)),
        st.tuples(st.just("refuse"), NAMES, st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_against_a_plain_list(steps: list[tuple[str, str, int]]) -> None:
    """`due` has when each is due; None while it is taken."""
    box = Outbox(Random(1), Backoff(base_s=4.0, cap_s=4.0, jitter=0.0))
    due: dict[str, float | None] = {}
    now_s = 0.0
    for step, name, number in steps:
        if step == "add":
            box.add(name, float(ord(name)), now_s, wait_s=float(min(number, 4)))
            due.setdefault(name, now_s + min(number, 4))
        elif step == "hurry":
            box.hurry(name, now_s)
            if due.get(name) is not None:
                due[name] = now_s
        elif step == "done":
            box.done(name)
            due.pop(name, None)
        elif step == "pass":
            now_s += number
        elif step == "refuse" and name in due and due[name] is None:
            assert box.refused(name, now_s) == 4.0
            due[name] = now_s + 4.0
        elif step == "take":
            ripe = sorted(each for each, due_s in due.items() if due_s is not None and due_s <= now_s)
            taken = box.take(now_s)
            assert taken == (ripe[0] if ripe else None)
            if taken:
                due[taken] = None
        assert len(box) == len(due)
