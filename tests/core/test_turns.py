"""Whose turn it is, in queues for each key."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from router.core.turns import Turns

A, B, C = b"a", b"b", b"c"


def test_what_shares_no_key_does_not_wait() -> None:
    turns: Turns[str] = Turns()
    assert turns.enter("first", [A])
    assert turns.enter("second", [B])
    assert turns.enter("third", [])
    assert len(turns) == 2


def test_an_item_goes_when_it_is_the_first_for_all_of_its_keys() -> None:
    turns: Turns[str] = Turns()
    turns.enter("first", [A])
    turns.enter("second", [B])
    assert not turns.enter("third", [A, B])
    assert turns.replace("first") == []
    assert not turns.is_first("third")
    assert turns.replace("second") == ["third"]
    assert turns.is_first("third")
    assert turns.replace("third") == []
    assert len(turns) == 0


def test_followers_take_the_place_of_an_item_one_after_the_other() -> None:
    turns: Turns[str] = Turns()
    turns.enter("first", [A, B])
    turns.enter("second", [A])
    assert turns.replace("first", [("left", [A]), ("right", [A, B])]) == ["left"]
    assert turns.replace("left") == ["right"]
    assert turns.replace("right") == ["second"]


def test_a_key_that_no_follower_has_is_free() -> None:
    turns: Turns[str] = Turns()
    turns.enter("first", [A, B])
    turns.enter("second", [B])
    assert turns.replace("first", [("rest", [A])]) == ["second", "rest"]


def test_an_item_without_keys_has_followers_that_need_not_wait() -> None:
    turns: Turns[str] = Turns()
    turns.enter("first", [])
    assert turns.replace("first", [("rest", [])]) == ["rest"]


def test_what_leaves_from_the_middle_frees_nobody() -> None:
    turns: Turns[str] = Turns()
    turns.enter("first", [A])
    turns.enter("second", [A])
    turns.enter("third", [A])
    assert turns.replace("second") == []
    assert turns.replace("first") == ["third"]


def test_items_are_found_by_their_keys_each_once() -> None:
    turns: Turns[str] = Turns()
    turns.enter("first", [A, B])
    turns.enter("second", [B, C])
    assert turns.with_keys([A, B]) == ["first", "second"]
    assert turns.with_keys([C]) == ["second"]
    assert turns.with_keys([b"none"]) == []


keys = st.sets(st.sampled_from([A, B, C]), max_size=3)


@given(entering=st.lists(keys, max_size=12), data=st.data())
def test_all_go_in_order_and_none_before_its_turn(entering: list[set[bytes]], data: st.DataObject) -> None:
    """Let items enter, leave and be replaced by halves of themselves; a plain list of items says whose turn it is."""
    turns: Turns[int] = Turns()
    order: list[tuple[int, set[bytes]]] = []
    may_go: set[int] = set()
    names = iter(range(1000))

    def first() -> set[int]:
        seen: dict[bytes, bool] = defaultdict(bool)
        found = set()
        for name, mine in order:
            if not any(seen[key] for key in mine):
                found.add(name)
            seen.update(dict.fromkeys(mine, True))
        return found

    for mine in entering:
        name = next(names)
        order.append((name, mine))
        if turns.enter(name, mine):
            may_go.add(name)
        assert may_go == first()
        for _ in range(data.draw(st.integers(0, 2)) if order else 0):
            if not order:
                break
            place = data.draw(st.integers(0, len(order) - 1))
            gone, had = order[place]
            pieces = [
                (next(names), each)
                for each in data.draw(st.lists(keys, max_size=2))
                if each <= had and (each or not had)
            ]
            order[place : place + 1] = pieces
            freed = turns.replace(gone, pieces)
            assert len(freed) == len(set(freed))
            may_go.discard(gone)
            may_go.update(freed)
            assert may_go == first()
            assert all(turns.is_first(name) == (name in may_go) for name, _ in order)
    while order:
        gone, _ = order.pop(0)
        may_go.discard(gone)
        may_go.update(turns.replace(gone))
        assert may_go == first()
    assert len(turns) == 0
