"""Events of a log stream: lines, cut and put together as CloudWatch Logs takes them."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.log_batches import (
    BATCH_BYTES,
    BATCH_LINES,
    LINE_BYTES,
    OVERHEAD_BYTES,
    SPAN_MS,
    Printed,
    take_batch,
    utf8_bytes,
)
from router.ports import LogLine

PIECE = st.one_of(
    st.text(st.sampled_from("a\né漢🎉\t"), min_size=1, max_size=60),
    st.builds(lambda text, count: text * count, st.sampled_from(["x", "é", "漢", "🎉"]), st.integers(1, 300_000)),
    st.builds(lambda text, count: text * count, st.sampled_from(["\n", "ab\n", "é\n"]), st.integers(1, 12_000)),
)
TIME = st.integers(0, 3 * SPAN_MS)


def take_all(printed: list[Printed]) -> list[list[LogLine]]:
    waiting, batches = deque(printed), []
    while waiting:
        batches.append(take_batch(waiting))
    return batches


@settings(max_examples=60)
@given(st.lists(st.tuples(TIME, PIECE), max_size=6))
def test_batches_hold_all_that_was_printed_within_what_one_call_may_hold(printed: list[Printed]) -> None:
    batches = take_all(printed)
    for lines in batches:
        assert 0 < len(lines) <= BATCH_LINES
        assert sum(utf8_bytes(line.text) + OVERHEAD_BYTES for line in lines) <= BATCH_BYTES
        assert all(0 < utf8_bytes(line.text) <= LINE_BYTES for line in lines)
        assert all("\n" not in line.text[:-1] for line in lines), "one line is one event"
        times = [line.at_ms for line in lines]
        assert times == sorted(times)
        assert times[-1] - times[0] <= SPAN_MS
    for at_ms in {at_ms for at_ms, _ in printed}:
        shipped = "".join(line.text for lines in batches for line in lines if line.at_ms == at_ms)
        assert shipped == "".join(text for each_ms, text in printed if each_ms == at_ms)


def test_lines_keep_their_ends_and_empty_ones_are_lines() -> None:
    assert take_all([(5, "START\n\nlast")]) == [[LogLine(5, "START\n"), LogLine(5, "\n"), LogLine(5, "last")]]


def test_a_clock_that_is_set_back_is_no_reason_to_split() -> None:
    assert take_all([(9, "b\n"), (7, "a\n")]) == [[LogLine(7, "a\n"), LogLine(9, "b\n")]]


def test_a_line_that_is_too_long_is_cut_between_characters() -> None:
    [[first, second]] = take_all([(1, "x" + "é" * (LINE_BYTES // 2) + "\n")])
    assert utf8_bytes(first.text) == LINE_BYTES - 1
    assert second.text == "é\n"


def test_nothing_gives_nothing() -> None:
    assert take_batch(deque()) == []


@pytest.mark.parametrize(("line", "count"), [("\n", 40_000), ("x" * 100 + "\n", 30_000), ("x" * 300_000 + "\n", 10)])
def test_the_limits_are_those_of_the_service(line: str, count: int) -> None:
    waiting = deque([(0, line * count)])
    largest = most = longest = 0
    while waiting:
        batch = [each.text for each in take_batch(waiting)]
        largest = max(largest, sum(len(text) + 26 for text in batch))
        most = max(most, len(batch))
        longest = max(longest, *map(len, batch))
    assert largest <= 1_048_576
    assert most <= 10_000
    assert longest + 26 <= 262_144
    assert largest > 700_000 or most == 10_000, "no more calls than are needed"
