"""When a mapping is held for its failures, and what makes room."""

from __future__ import annotations

import pytest

from router.core.retention import Hold, Retention, room_to_give_back, surplus

LIMITS = Retention(keep_bytes=1000, undelivered_limit=100)


def hold(retention: Retention = LIMITS, destination: str | None = "sqs:dlq") -> Hold:
    return Hold("orders", destination, retention)


def test_it_is_held_at_the_limit_and_let_go_below_ninety_percent() -> None:
    held = hold()
    assert held.decide(99, 0, None) is None
    assert held.decide(100, 0, None)
    assert held.decide(90, 0, None)
    assert held.decide(89, 0, None) is None
    assert held.decide(99, 0, None) is None


def test_stored_bytes_hold_it_likewise() -> None:
    held = hold(destination=None)
    assert held.decide(0, 999, None) is None
    assert held.decide(0, 1000, None)
    assert held.decide(0, 900, None)
    assert held.decide(0, 899, None) is None


def test_the_reason_says_what_waits_why_and_what_to_do() -> None:
    assert hold().decide(100, 0, "queue dlq does not exist") == (
        "100 failures wait for sqs:dlq, which last said: queue dlq does not exist. Repair it and send them "
        "(headrace failures deliver --mapping orders), or replay or drop failures."
    )
    assert hold().decide(0, 1000, None) == (
        "Stored failures take 1000 bytes, failures.keep_bytes allows 1000. "
        "Drop failures (headrace failures drop --mapping orders), raise the limit, "
        "or set failures.when_full: drop_oldest."
    )


def test_the_reason_does_not_change_while_it_is_held() -> None:
    held = hold()
    first = held.decide(100, 0, "away")
    assert held.decide(150, 5000, "still away") == first


def test_nothing_waits_for_a_destination_that_is_gone_from_the_file() -> None:
    assert hold(destination=None).decide(500, 0, None) is None


def test_when_the_oldest_make_room_bytes_never_hold_it() -> None:
    held = hold(Retention(keep_bytes=1000, drop_oldest=True))
    assert held.decide(0, 10_000, None) is None


def test_just_enough_makes_room() -> None:
    sizes = [("a", 10), ("b", 0), ("c", 30), ("d", 5)]
    assert surplus(sizes, 0) == []
    assert surplus(sizes, 10) == ["a"]
    assert surplus(sizes, 11) == ["a", "b", "c"]
    assert surplus(sizes, 1000) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("used_mib", "free_mib", "given_back_mib"),
    [(0, 16, 0), (0, 17, 1), (100, 25, 0), (100, 30, 5), (10, 20, 4), (1000, 1000, 750), (1000, 0, 0)],
)
def test_free_room_is_given_back_beyond_a_quarter_of_what_is_used_and_16_mib(used_mib, free_mib, given_back_mib):
    assert room_to_give_back(used_mib * 2**20, free_mib * 2**20) == given_back_mib * 2**20
