"""Where shards go on: every target on every kind of shard, by example and by property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.facts import Progress
from router.core.model import TRIM_HORIZON, at_time, time_of
from router.core.seek import (
    AtPosition,
    AtTime,
    Direction,
    Edge,
    Extent,
    Move,
    NotThere,
    SeekTo,
    direction,
    plan,
)

NOW_MS = 1_700_000_000_000

#: A log whose ends are known, as Kafka's: 10 to 19 are there, 15 are done, and one is being retried.
LOG = Extent("orders-0", Progress(14, "retried"), first=10, end=20)
#: A shard of which only reading tells what is there, as Kinesis'.
OPEN = Extent("s-1", Progress(14, ""))
CLOSED = Extent("s-0", Progress(9, ""), closed=True)
ENDED = Extent("s-0", Progress(9, "", ended=True), closed=True)
NEW = Extent("s-2")


@pytest.mark.parametrize(
    ("extent", "target", "after"),
    [
        (LOG, Edge.TRIM_HORIZON, Progress(9, "")),
        (LOG, Edge.LATEST, Progress(19, "")),
        (LOG, AtPosition(10), Progress(9, "")),
        (LOG, AtPosition(15), Progress(14, "")),
        (LOG, AtPosition(20), Progress(19, "")),
        (LOG._replace(since=17), AtTime(5), Progress(16, "")),
        (LOG, AtTime(5), Progress(19, "")),
        (OPEN, Edge.TRIM_HORIZON, Progress(TRIM_HORIZON, "")),
        (OPEN, Edge.LATEST, Progress(at_time(NOW_MS), "")),
        (OPEN, AtTime(5), Progress(at_time(5), "")),
        (OPEN, AtPosition(0), Progress(TRIM_HORIZON, "")),
        (OPEN, AtPosition(2**90), Progress(2**90 - 1, "")),
        (OPEN._replace(preceding=7), AtPosition(2**90), Progress(7, "")),
        (CLOSED, Edge.LATEST, Progress(9, "", ended=True)),
        (CLOSED, AtTime(5), Progress(at_time(5), "")),
        (ENDED, Edge.TRIM_HORIZON, Progress(TRIM_HORIZON, "")),
        (ENDED, Edge.LATEST, Progress(9, "", ended=True)),
        (ENDED, AtTime(5), Progress(at_time(5), "")),
        (ENDED, AtPosition(4), Progress(3, "")),
        (NEW, Edge.LATEST, Progress(at_time(NOW_MS), "")),
        (NEW._replace(closed=True), Edge.LATEST, Progress(TRIM_HORIZON, "", ended=True)),
    ],
)
def test_a_target_is_a_place(extent: Extent, target: SeekTo, after: Progress) -> None:
    assert plan([extent], target, None, NOW_MS) == [Move(extent.shard, extent.place, after)]


@pytest.mark.parametrize("position", [0, 9, 21, 2**80])
def test_a_position_outside_of_the_log_is_refused(position: int) -> None:
    with pytest.raises(NotThere, match=r"is not in the log, which holds 10 up to 20 \(excluded\)"):
        plan([LOG], AtPosition(position), None, NOW_MS)


def test_a_position_is_one_of_a_shard() -> None:
    with pytest.raises(NotThere, match="there are 2; name one with --shard"):
        plan([CLOSED, OPEN], AtPosition(3), None, NOW_MS)
    assert plan([CLOSED, OPEN], AtPosition(3), "s-1", NOW_MS) == [Move("s-1", Progress(14, ""), Progress(2, ""))]


def test_who_names_a_shard_that_is_not_there_hears_which_are() -> None:
    with pytest.raises(NotThere, match="there is no shard s-9; there are: s-0, s-1"):
        plan([CLOSED, OPEN], Edge.LATEST, "s-9", NOW_MS)


@pytest.mark.parametrize(
    ("before", "after", "way"),
    [
        (None, 5, Direction.BEGIN),
        (5, 5, Direction.STAY),
        (5, 4, Direction.BACK),
        (5, 6, Direction.FORWARD),
    ],
)
def test_the_way_of_a_move(before: int | None, after: int, way: Direction) -> None:
    assert direction(before, after) is way


places = st.builds(Progress, st.integers(-(10**13), 10**30), st.text(max_size=3), st.booleans())


@st.composite
def streams(draw: st.DrawFn) -> list[Extent]:
    names = draw(st.lists(st.integers(0, 50).map("s-{}".format), min_size=1, max_size=8, unique=True))
    extents = []
    for name in names:
        place = draw(st.none() | places)
        if draw(st.booleans()):
            first = draw(st.integers(0, 10**6))
            end = first + draw(st.integers(0, 10**6))
            extents.append(Extent(name, place, first, end, draw(st.none() | st.integers(first, end))))
        else:
            extents.append(Extent(name, place, closed=draw(st.booleans())))
    return extents


targets = st.sampled_from(Edge) | st.builds(AtTime, st.integers(0, NOW_MS))


@given(streams(), targets)
def test_all_shards_move_once_and_leave_their_retries(extents: list[Extent], target: SeekTo) -> None:
    moves = plan(extents, target, None, NOW_MS)
    assert [(move.shard, move.before) for move in moves] == [(each.shard, each.place) for each in extents]
    assert all(move.after.retry_state == "" for move in moves)


@given(streams(), targets)
def test_a_shard_counts_as_finished_only_where_nothing_more_comes_and_nothing_of_it_is_wanted(
    extents: list[Extent], target: SeekTo
) -> None:
    for extent, move in zip(extents, plan(extents, target, None, NOW_MS), strict=True):
        assert move.after.ended == (extent.closed and target is Edge.LATEST)


@given(streams(), targets)
def test_where_the_log_is_known_the_place_is_in_it_and_else_it_says_what_is_meant(
    extents: list[Extent], target: SeekTo
) -> None:
    for extent, move in zip(extents, plan(extents, target, None, NOW_MS), strict=True):
        following = move.after.checkpoint + 1
        if extent.first is not None and extent.end is not None:
            assert extent.first <= following <= extent.end
        elif isinstance(target, AtTime):
            assert time_of(move.after.checkpoint) == target.time_ms
        elif target is Edge.TRIM_HORIZON:
            assert move.after.checkpoint == TRIM_HORIZON
        elif not extent.closed:
            assert time_of(move.after.checkpoint) == NOW_MS


@given(streams(), targets)
def test_moving_twice_is_moving_once(extents: list[Extent], target: SeekTo) -> None:
    once = plan(extents, target, None, NOW_MS)
    moved = [extent._replace(place=move.after) for extent, move in zip(extents, once, strict=True)]
    assert [move.after for move in plan(moved, target, None, NOW_MS)] == [move.after for move in once]
