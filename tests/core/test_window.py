"""When a batch is due, and what is in it."""

from __future__ import annotations

import pytest

from router.core.model import Part, WindowStart
from router.core.window import BatchWindow, Trigger
from tests.core.columns import chunk_of


def window_of(
    *sizes: int, count: int = 3, limit: int = 100, window_s: float = 5.0, start: WindowStart = WindowStart.FIRST_RECORD
) -> BatchWindow:
    window = BatchWindow(count, limit, window_s, start)
    if sizes:
        chunk = chunk_of(range(len(sizes)), sizes=sizes)
        window.add(Part(chunk, range(len(sizes))), 10.0)
    return window


def positions(parts: list[Part]) -> list[int]:
    return [chunk.positions[index] for chunk, indexes in parts for index in indexes]


@pytest.mark.parametrize(
    ("sizes", "now_s", "due"),
    [
        ([], 99.0, None),
        ([1, 1], 10.0, None),
        ([1, 1, 1], 10.0, Trigger.COUNT),
        ([60, 40], 10.0, Trigger.BYTES),
        ([60, 39], 10.0, None),
        ([150], 10.0, Trigger.BYTES),
        ([1], 14.9, None),
        ([1], 15.0, Trigger.AGE),
    ],
)
def test_a_batch_is_due_by_count_bytes_or_age(sizes, now_s, due):
    assert window_of(*sizes).trigger(now_s) is due


def test_without_a_window_one_record_is_due_at_once():
    assert window_of(1, window_s=0.0).trigger(10.0) is Trigger.AGE


def test_for_kafka_the_age_starts_with_the_first_record():
    window = window_of(1)
    window.completed(12.0)
    window.add(Part(chunk_of([7]), range(1)), 13.0)
    assert window.due_at() == 15.0


def test_what_is_left_after_a_cut_keeps_its_arrival():
    window = window_of(1, 1, 1, 1)
    window.cut()
    assert window.due_at() == 15.0
    assert window.head()[1] == 3


def test_for_streams_the_age_starts_with_the_previous_completion():
    window = window_of(1, start=WindowStart.PREVIOUS_COMPLETION)
    window.completed(12.0)
    assert window.due_at() == 17.0
    window.completed(20.0)
    assert window.due_at() == 25.0


def test_nothing_waits_in_an_empty_window():
    window = window_of()
    assert window.due_at() is None
    assert window.head() is None
    assert window.cut() == ([], 0)


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([1, 1, 1, 1], [[0, 1, 2], [3]]),
        ([60, 40, 1], [[0, 1], [2]]),
        ([60, 41, 1], [[0], [1, 2]]),
        ([150, 1], [[0], [1]]),
        ([1, 150, 1], [[0], [1], [2]]),
        ([100, 100, 100], [[0], [1], [2]]),
    ],
)
def test_a_cut_takes_what_fits(sizes, batches):
    window = window_of(*sizes)
    taken = []
    while window.count:
        parts, count = window.cut()
        taken.append(positions(parts))
        assert count == len(taken[-1])
    assert taken == batches
    assert window.bytes == 0


def test_a_batch_may_span_pages_and_skip_records():
    window = window_of()
    window.add(Part(chunk_of([1, 2, 3], sizes=[10, 99, 20]), [0, 2]), 0.0)
    window.add(Part(chunk_of([4, 5], sizes=[30, 40]), range(2)), 1.0)
    assert (window.count, window.bytes) == (4, 100)
    parts, count = window.cut()
    assert (positions(parts), count) == ([1, 3, 4], 3)
    assert (window.count, window.bytes) == (1, 40)


def test_bytes_cut_across_pages():
    window = window_of(count=10)
    window.add(Part(chunk_of([1, 2], sizes=[30, 30]), range(2)), 0.0)
    window.add(Part(chunk_of([3, 4], sizes=[30, 30]), [0, 1]), 0.0)
    assert positions(window.cut()[0]) == [1, 2, 3]
    assert window.bytes == 30


def test_a_page_that_does_not_fit_at_all_waits_for_the_next_batch():
    window = window_of(count=10)
    window.add(Part(chunk_of([1], sizes=[60]), range(1)), 0.0)
    window.add(Part(chunk_of([2], sizes=[60]), range(1)), 0.0)
    assert [positions(window.cut()[0]), positions(window.cut()[0])] == [[1], [2]]
