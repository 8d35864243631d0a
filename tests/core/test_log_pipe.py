"""Log lines on a pipe that nobody reads: who writes never waits, and what is missing is told."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.log_pipe import LogPipe

LINE = "x" * 999 + "\n"
#: Most of the tests must never wait; where one does, it is for a thread.
PATIENCE_S = 20.0


@contextmanager
def piped(limit_bytes=100_000):
    """A LogPipe, and the end that somebody may read."""
    reading, writing = os.pipe()
    pipe = LogPipe(writing, lambda lines: pipe.write(f"{lines} lines are missing\n"), limit_bytes)
    try:
        yield pipe, reading
    finally:
        os.close(reading)
        pipe.finish(PATIENCE_S)
        os.close(writing)


def read_until(reading, end):
    """Give the lines up to one that ends so."""
    text = b""
    while end not in text:
        text += os.read(reading, 1_000_000)
    return text.decode().splitlines()


def read_all(pipe, reading):
    """Give the lines up to the end of what was written; there must be room for one more."""
    pipe.write("the end\n")
    return read_until(reading, b"the end\n")


def test_lines_come_whole_and_in_order():
    with piped() as (pipe, reading):
        for number in range(1000):
            pipe.write(f"{number}\n")
        assert read_all(pipe, reading) == [*map(str, range(1000)), "the end"]
        assert pipe.dropped_lines == 0


def test_who_writes_goes_on_though_nobody_reads_and_what_is_missing_is_told_at_its_place():
    with piped() as (pipe, reading):
        for number in range(1000):
            pipe.write(f"{number:03}{LINE}")
        assert pipe.dropped_lines > 500
        number = 0
        with os.fdopen(os.dup(reading)) as lines:
            while number < 1000:
                line = lines.readline()
                if line.endswith(" lines are missing\n"):
                    number += int(line.split()[0])
                else:
                    assert int(line[:3]) == number
                    number += 1
        assert read_all(pipe, reading) == ["the end"]


def test_what_waits_is_bounded():
    with piped(limit_bytes=10_000) as (pipe, _):
        for _ in range(1000):
            pipe.write(LINE)
        # one buffer that is being written, one that waits, and what the pipe itself holds
        assert 1000 - pipe.dropped_lines <= (2 * 10_000 + 65_536) / len(LINE) + 1


def test_the_end_waits_for_what_was_written():
    with piped() as (pipe, reading):
        pipe.write("last words\n")
        pipe.finish(PATIENCE_S)
        os.set_blocking(reading, False)
        assert os.read(reading, 1000) == b"last words\n"


def test_the_end_does_not_wait_for_who_never_reads():
    with piped() as (pipe, _):
        for _ in range(90):
            pipe.write(LINE)
        pipe.finish(0.01)


def test_lines_that_nobody_can_read_any_more_are_counted():
    with piped() as (pipe, reading):
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), reading)  # the reader has gone
        for number in (1, 2, 3):
            pipe.write("a line\n")
            pipe.finish(PATIENCE_S)
            assert pipe.dropped_lines == number


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for():
    with piped(limit_bytes=1_000_000) as (pipe, reading):
        os.set_blocking(pipe.fileno(), False)
        for number in range(500):
            pipe.write(f"{number:03}{LINE}")
        assert [line[:3] for line in read_all(pipe, reading)] == [*(f"{number:03}" for number in range(500)), "the"]


@pytest.mark.parametrize("text", ["\ud800", "\N{SNOWMAN}"])
def test_any_text_can_be_written(text):
    with piped() as (pipe, reading):
        assert pipe.write(text) == 1
        assert len(read_all(pipe, reading)) == 1
