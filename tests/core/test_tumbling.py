"""Which window a record is of, what its calls are told, and when a window is over."""

from __future__ import annotations

import pytest

from router.core.model import UNKNOWN_TIME_MS, Batch, Part, WindowCall, WindowStart
from router.core.retry_state import FailedCall, SavedWindow
from router.core.tumbling import CALM_S, GRACE_S, STATE_LIMIT_BYTES, Span, TumblingWindow, span_of
from router.core.window import Trigger
from tests.core.columns import batch_of, chunk_of

LARGEST = b'{"x":"' + b"x" * (STATE_LIMIT_BYTES - 8) + b'"}'
LARGE = LARGEST + b" "


class Lane:
    """Records by arrival, in seconds; a window has 10."""

    def __init__(self, *times_s: float, size: int = 100, limit_bytes: int = 10_000) -> None:
        self.window = TumblingWindow(10, size, limit_bytes, 5.0, WindowStart.PREVIOUS_COMPLETION)
        self.window.completed(0.0)
        self.first = 0
        self.add(*times_s)

    def add(self, *times_s: float) -> None:
        if times_s:
            positions = range(self.first, self.first + len(times_s))
            chunk = chunk_of(positions, times_ms=[round(each * 1000) for each in times_s])
            self.window.add(Part(chunk, range(len(times_s))), 0.0)
            self.first += len(times_s)

    def cut(self) -> list[int]:
        parts, count = self.window.cut()
        positions = [chunk.positions[index] for chunk, indexes in parts for index in indexes]
        assert count == len(positions)
        return positions

    def run(self, state: bytes = b'{"n":1}') -> WindowCall:
        """Let the next batch succeed; gives what it was told."""
        batch = self.batch()
        call = self.window.call(batch)
        self.window.started(batch)
        self.window.returned(state)
        return call

    def batch(self) -> Batch:
        return Batch("id", "s", 0, *self.window.cut())

    def end(self, *, settled: bool = True, shard_ended: bool = False, leaving: bool = False) -> WindowCall | None:
        return self.window.end(settled=settled, shard_ended=shard_ended, leaving=leaving)


@pytest.mark.parametrize(
    ("time_ms", "length_s", "span"),
    [
        (0, 10, (0, 10)),
        (9_999, 10, (0, 10)),
        (10_000, 10, (10, 20)),
        (1_767_225_600_987, 120, (1_767_225_600, 1_767_225_720)),
        (1_767_225_600_987, 900, (1_767_225_600, 1_767_226_500)),
        (1_767_225_600_987, 11, (1_767_225_592, 1_767_225_603)),
        (UNKNOWN_TIME_MS, 10, (0, 10)),
    ],
)
def test_bounds_are_multiples_of_the_length_since_the_epoch(time_ms, length_s, span):
    assert span_of(time_ms, length_s) == Span(*span)


def test_a_batch_ends_where_its_window_does():
    lane = Lane(1, 9.999, 10, 19, 41)
    assert [lane.cut(), lane.cut(), lane.cut()] == [[0, 1], [2, 3], [4]]


def test_a_page_does_not_end_a_window():
    lane = Lane(1, 2)
    lane.add(3, 12)
    assert [lane.cut(), lane.cut()] == [[0, 1, 2], [3]]


def test_a_batch_is_no_larger_than_without_windows():
    lane = Lane(1, 2, 3, 12, size=2)
    assert [lane.cut(), lane.cut(), lane.cut()] == [[0, 1], [2], [3]]


def test_records_that_arrived_before_the_newest_window_are_of_it():
    lane = Lane(12, 9, UNKNOWN_TIME_MS / 1000, 13, 31, 25)
    assert [lane.cut(), lane.cut()] == [[0, 1, 2, 3], [4, 5]]
    lane.add(5)
    assert lane.run().start_s == 30


def test_what_has_no_time_is_of_the_first_window_there_is():
    assert Lane(UNKNOWN_TIME_MS / 1000).run() == WindowCall(0, 10)


def test_a_batch_that_cannot_grow_is_due_at_once():
    assert Lane(1, 2).window.trigger(4.9) is None
    assert Lane(1, 2).window.trigger(5.0) is Trigger.AGE
    assert Lane(1, 12).window.trigger(0.0) is Trigger.BOUNDARY


def test_each_call_is_told_what_the_one_before_returned():
    lane = Lane(1, 2, 12, size=1)
    assert lane.run(b'{"n":1}') == WindowCall(0, 10, b"{}")
    assert lane.run(b'{"n":2}') == WindowCall(0, 10, b'{"n":1}')
    assert lane.end() == WindowCall(0, 10, b'{"n":2}', final=True)
    lane.window.close()
    assert lane.run() == WindowCall(10, 20, b"{}")


def test_a_try_that_failed_leaves_the_state_as_it_was():
    lane = Lane(1, 2, size=1)
    lane.run()
    batch = lane.batch()
    assert [lane.window.call(batch) for _ in range(2)] == [WindowCall(0, 10, b'{"n":1}')] * 2


def test_a_window_of_which_nothing_was_started_has_no_final_call():
    lane = Lane(1, 12)
    assert lane.window.call(lane.batch()) == WindowCall(0, 10, b"{}")
    assert not lane.window.is_open
    assert lane.end() is None


def test_a_window_is_over_when_a_later_record_waits_and_all_of_it_is_settled():
    lane = Lane(1, 12)
    assert lane.end() is None
    lane.run()
    assert lane.end(settled=False) is None
    assert lane.end() == WindowCall(0, 10, b'{"n":1}', final=True)


def test_the_final_call_comes_once():
    lane = Lane(1, 12)
    lane.run()
    assert lane.end()
    assert lane.end() is None
    assert lane.window.is_open
    lane.window.close()
    assert lane.end() is None
    assert not lane.window.is_open


def test_a_window_is_open_while_records_of_it_wait():
    lane = Lane(1, 2, size=1)
    lane.run()
    lane.window.found_nothing(1e9)
    assert lane.end(shard_ended=True) is None


def test_the_end_of_the_shard_is_that_of_its_window():
    lane = Lane(1)
    lane.run()
    assert lane.end() is None
    assert lane.end(shard_ended=True) == WindowCall(0, 10, b'{"n":1}', final=True)


def test_a_window_ends_when_the_source_still_has_nothing_more_long_after_it():
    lane = Lane(1)
    lane.run()
    lane.window.found_nothing(11)
    lane.window.found_nothing(10 + GRACE_S - 0.1)
    assert lane.end() is None
    lane.window.found_nothing(10 + GRACE_S)
    assert lane.end() == WindowCall(0, 10, b'{"n":1}', final=True)


def test_one_page_without_records_is_not_the_end_of_what_there_is():
    lane = Lane(1)
    lane.run()
    for wall_s in (1000.0, 1000.0 + CALM_S - 0.1):
        lane.window.found_nothing(wall_s)
        assert lane.end() is None
    lane.window.found_nothing(1000.0 + CALM_S)
    assert lane.end()


def test_what_came_since_may_be_followed_by_more():
    lane = Lane(1)
    lane.window.found_nothing(1000.0)
    lane.add(2)
    lane.run()
    assert lane.end() is None


def test_records_of_a_closed_window_open_it_again():
    lane = Lane(1)
    lane.run()
    first = lane.window.mark
    lane.end(shard_ended=True)
    lane.add(2)
    lane.window.close()
    assert lane.run() == WindowCall(0, 10, b"{}")
    assert lane.window.mark != first


def test_a_state_that_is_too_large_ends_its_window_at_once():
    lane = Lane(1, 2)
    lane.run(LARGEST)
    assert lane.end(settled=False) is None
    lane.window.returned(LARGE)
    assert lane.end(settled=False) == WindowCall(0, 10, LARGE, final=True, early=True)


def test_the_state_takes_its_part_of_the_event():
    lane = Lane(1, 2, 3, 4, 5, limit_bytes=40)
    lane.run(b'{"n":12345}')
    assert lane.window.trigger(0.0) is None
    lane.add(6, 7)
    assert lane.window.trigger(0.0) is Trigger.BYTES
    assert lane.cut() == [4, 5]
    lane.window.close()
    assert lane.window.trigger(0.0) is None


def test_nothing_is_saved_before_the_first_window():
    assert Lane(1).window.saved() is None


def test_an_open_window_is_taken_up_where_it_was():
    lane = Lane(1, 2, size=1)
    lane.run()
    saved = lane.window.saved()
    assert saved == SavedWindow(0, 10, 0, b'{"n":1}')
    again = Lane()
    assert again.window.restore(saved) is None
    assert again.window.mark == lane.window.mark
    again.add(2, 9, 12)
    assert again.window.reserved_bytes == 7
    assert again.run() == WindowCall(0, 10, b'{"n":1}')
    assert again.end() is not None


def test_a_closed_window_is_remembered_so_that_none_goes_back():
    lane = Lane(12)
    lane.run()
    lane.end(shard_ended=True)
    lane.window.close()
    saved = lane.window.saved()
    assert saved == SavedWindow(10, 20, 0, None)
    again = Lane()
    assert again.window.restore(saved) is None
    again.add(8)
    assert again.run() == WindowCall(10, 20, b"{}")


@pytest.mark.parametrize(("state", "early"), [(b'{"n":1}', False), (LARGE, True)])
def test_a_final_call_that_had_failed_is_made_again(state, early):
    lane = Lane()
    call = lane.window.restore(SavedWindow(0, 10, 0, state, FailedCall(2, 1000.0, 0.4)))
    assert call == WindowCall(0, 10, state, final=True, early=early)
    assert lane.end(shard_ended=True) is None


def test_a_batch_from_before_there_were_windows_is_of_that_of_its_first_record():
    lane = Lane()
    batch = batch_of([1, 2], times_ms=[12_000, 25_000])
    assert lane.window.call(batch) == WindowCall(10, 20)
    lane.window.started(batch)
    assert lane.end(leaving=True) == WindowCall(10, 20, final=True)


def test_an_open_window_keeps_its_bounds_when_the_length_changes():
    window = TumblingWindow(60, 100, 10_000, 5.0, WindowStart.PREVIOUS_COMPLETION)
    window.restore(SavedWindow(0, 10, 0, b'{"n":1}'))
    chunk = chunk_of([1, 2], times_ms=[9_000, 15_000])
    window.add(Part(chunk, range(2)), 0.0)
    batch = Batch("id", "s", 0, *window.cut())
    assert (batch.count, window.call(batch)) == (1, WindowCall(0, 10, b'{"n":1}'))
    assert window.end(settled=True, shard_ended=False)
    window.close()
    batch = Batch("id", "s", 0, *window.cut())
    assert window.call(batch) == WindowCall(0, 60, b"{}")
