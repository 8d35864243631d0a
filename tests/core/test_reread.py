"""Reading a range again: records that are taken apart, pages that are lost in between, ranges that are too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from connectors.kinesis_codec import KinesisCodec
from router.core.model import Chunk
from router.errors import PositionLost
from router.failures.reading import FailedRange
from router.replay.reread import HELD_BYTES, NotTheRange, Reread, of_one_lane, reread, told

PLACE_BITS = 24
END = (1 << PLACE_BITS) - 1


class Apart:
    """Pages of a stream whose aggregates are taken apart; rows are their positions."""

    def __init__(self, positions: Sequence[int], *, size: int = 100, page: int = 2, oldest: int = 0) -> None:
        self.codec: Any = KinesisCodec(deaggregate=True)
        self.positions = positions
        self.size = size
        self.limit = page
        #: What is before is trimmed; and what is from when the second page is asked for.
        self.oldest = oldest
        self.then_oldest = oldest

    async def open(self) -> None:
        """It is."""

    async def page(self, shard: str, first: int, limit: int = 0) -> Chunk:
        if 0 < first < self.oldest:
            raise PositionLost(shard, "trimmed")
        left = [each for each in self.positions if each >= max(first, self.oldest)]
        self.oldest = max(self.oldest, self.then_oldest)
        rows = left[: self.limit]
        through = rows[-1] if rows else first - 1
        columns: list[Any] = [rows, [self.size] * len(rows), [-1] * len(rows), [None] * len(rows), rows]
        return Chunk(shard, *columns, through, more=len(left) > len(rows))

    async def close(self) -> None:
        """Nothing is held."""


def place(number: int, piece: int = END) -> int:
    return number << PLACE_BITS | piece


#: An aggregate of three between two records of their own.
POSITIONS = [place(4), place(7, 0), place(7, 1), place(7, 2), place(9)]


async def test_a_range_begins_with_the_first_piece_of_an_aggregate_and_ends_with_its_last() -> None:
    found = await reread(Apart(POSITIONS), FailedRange("s", 7, 7), None, 3)
    assert found.rows == POSITIONS[1:4]
    assert (found.is_whole, told(found, 3, FailedRange("s", 7, 7), 3)) == (True, (0, None))
    assert (await reread(Apart(POSITIONS), FailedRange("s", 4, 9), None, None)).rows == POSITIONS
    assert (await reread(Apart(POSITIONS), FailedRange("s", 0, 4), None, 1)).rows == POSITIONS[:1]


async def test_what_is_trimmed_while_it_is_read_is_passed_over() -> None:
    pages = Apart(POSITIONS)
    pages.then_oldest = place(9)
    found = await reread(pages, FailedRange("s", 4, 9), None, 5)
    assert found.rows == [*POSITIONS[:2], place(9)]
    gone, said = told(found, 3, FailedRange("s", 4, 9), 5)
    assert (gone, said) == (
        0,
        "s from 4 to 9 held 5 failed records, and now 3 that pass the mapping's filters: all of them ran",
    )


async def test_what_was_trimmed_before_is_gone() -> None:
    found = await reread(Apart(POSITIONS, oldest=place(9)), FailedRange("s", 4, 9), None, 5)
    assert (found.rows, found.is_whole, found.first) == ([place(9)], False, 9)
    assert told(found, 1, FailedRange("s", 4, 9), 5)[0] == 4
    gone, said = told(found, 1, FailedRange("s", 4, 9), None)
    assert (gone, said) == (1, "records of s from 4 to 9 are gone: the stream still holds only what begins at 9")


async def test_a_range_that_holds_more_than_any_batch_is_not_held() -> None:
    large = Apart([place(number) for number in range(100)], size=HELD_BYTES // 10)
    with pytest.raises(NotTheRange, match="far more than one batch"):
        await reread(large, FailedRange("s", 0, 99), None, 1)


async def test_a_lane_is_told_only_where_there_are_lanes_and_all_of_the_range() -> None:
    found = await reread(Apart(POSITIONS), FailedRange("s", 4, 9), None, None)
    for count, factor in ((1, 1), (None, 4), (5, 4)):
        assert of_one_lane(found, count, factor) == POSITIONS


def test_numbers_are_told_as_the_record_has_them() -> None:
    found = Reread(first=12)
    gone, said = told(found, 1, FailedRange("s", 7, 13, digits=4), 3)
    assert (gone, said) == (
        2,
        "2 of 3 records of s from 0007 to 0013 are gone: the stream still holds only what begins at 0012",
    )
