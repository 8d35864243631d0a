"""Reading a range of a stream once more: what of it is still there, and whose records it holds.

A failure record names the first and the last record of a batch. Between them the shard also has what the mapping's
filters dropped, and with a parallelization factor the records of other lanes. The filters are applied as they were;
other lanes' records are told by their keys, where what is left is then as many as have failed.

Records that are gone are gone from the front: the first record of the range was one of those that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from router.core.model import EVENT_LIMIT_BYTES, UNKNOWN_TIME_MS, Chunk
from router.core.shard import LaneTable
from router.errors import PositionLost
from router.failures.reading import FailedRange
from router.failures.record import iso_ms
from router.ports import PageSource
from router.runner import Passes

#: More of one range is not held: a batch has an event's bytes and 10,000 records at most, its neighbours in other
#: lanes between them.
HELD_BYTES: Final = 4 * EVENT_LIMIT_BYTES
HELD_COUNT: Final = 100_000


#: Records of the first page where it is not known how many failed, and of each further one.
_FIRST_COUNT: Final = 100
_MORE_COUNT: Final = 1000
#: How far the time of a record may be off from what its failure record says: DynamoDB's say the second.
TIME_MS: Final = 1000


class NotTheRange(ValueError):
    """What is there cannot be what failed; the message says why."""


@dataclass(slots=True)
class Reread:
    """What a range still holds of the records that passed the filters."""

    #: Records for the codec, in order.
    rows: list[Any] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    #: Bytes each takes in an event.
    sizes: list[int] = field(default_factory=list)
    size_bytes: int = 0
    #: Is the first record of the range still there?
    is_whole: bool = False
    #: Number of the first record that is there, whether it passed or not; None = there is none.
    first: int | None = None


async def reread(pages: PageSource, wanted: FailedRange, passes: Passes | None, count: int | None) -> Reread:
    """Read a range in which so many records had failed (None = that is not known): no more, if that is enough.

    Raises:
        SourceUnavailable, ShardGone
        NotTheRange
    """
    found = Reread()
    codec = pages.codec
    # Behind the record before it: where records are taken apart, a number alone names the last of its pieces.
    first = codec.read_position(str(wanted.first - 1)) + 1 if wanted.first else 0
    chunk = await _page(pages, wanted.shard, first, count or _FIRST_COUNT)
    while not _take(found, chunk, wanted, pages, passes) and (chunk.more or chunk.rows) and not chunk.ended:
        chunk = await _page(pages, wanted.shard, chunk.through + 1, _MORE_COUNT)
    found.is_whole = found.first == wanted.first
    return found


async def _page(pages: PageSource, shard: str, first: int, limit: int) -> Chunk:
    """Give what is left from a position on, though it may be gone itself."""
    try:
        return await pages.page(shard, first, limit)
    except PositionLost:
        return await pages.page(shard, 0, limit)


def _take(found: Reread, chunk: Chunk, wanted: FailedRange, pages: PageSource, passes: Passes | None) -> bool:
    """Take of a page what is in the range; says whether it reaches beyond the range."""
    codec = pages.codec
    for index, position in enumerate(chunk.positions):
        number = int(codec.write_position(position).partition(".")[0])
        if number < wanted.first:
            continue
        if number > wanted.last:
            return True
        if found.first is None:
            found.first = number
            _check_time(wanted, number, chunk.times_ms[index])
        row = chunk.rows[index]
        if passes is None or passes(*codec.view(row)):
            found.rows.append(row)
            found.positions.append(position)
            found.keys.append(chunk.keys[index] if chunk.keys else None)
            found.sizes.append(chunk.sizes[index])
            found.size_bytes += chunk.sizes[index]
            if found.size_bytes > HELD_BYTES or len(found.rows) > HELD_COUNT:
                raise NotTheRange("its range holds far more than one batch can have had: is it as it was written?")
    return chunk.through >= codec.read_position(str(wanted.last))


def _check_time(wanted: FailedRange, number: int, time_ms: int) -> None:
    """Tell a record from one that had its number in a stream that was deleted and made again."""
    if number != wanted.first or wanted.first_time_ms is None or time_ms == UNKNOWN_TIME_MS:
        return
    if abs(time_ms - wanted.first_time_ms) > TIME_MS:
        raise NotTheRange(
            f"record {number} of {wanted.shard} is another one: it arrived at {iso_ms(time_ms / 1000)}, and what "
            f"failed at {iso_ms(wanted.first_time_ms / 1000)}; the stream was deleted and made again"
        )


def of_one_lane(found: Reread, count: int | None, factor: int) -> Sequence[Any]:
    """Give the rows that were one batch: those of the lane of the first and the last, if they are as many as failed."""
    rows = found.rows
    if factor == 1 or count is None or len(rows) <= count or not found.is_whole:
        return rows
    table = LaneTable(factor)
    lanes = [
        position % factor if key is None else table[key]
        for position, key in zip(found.positions, found.keys, strict=True)
    ]
    mine = [row for row, lane in zip(rows, lanes, strict=True) if lane == lanes[0]]
    return mine if lanes[0] == lanes[-1] and len(mine) == count else rows


def told(found: Reread, ran: int, wanted: FailedRange, count: int | None) -> tuple[int, str | None]:
    """Say how many of the records that failed are gone, at least, and in words what differs; None = nothing does.

    Args:
        found: what is there.
        ran: how many of it are to run.
        wanted: the range.
        count: how many had failed in it; None = that is not known.
    """
    where = f"{wanted.shard} from {wanted.shown(wanted.first)} to {wanted.shown(wanted.last)}"
    if not found.is_whole:
        gone = max(1, (count or 0) - ran)
        number = f"{gone} of {count} records" if count is not None else "records"
        left = "nothing" if found.first is None else f"only what begins at {wanted.shown(found.first)}"
        return gone, f"{number} of {where} are gone: the stream still holds {left}"
    if count is not None and ran != count:
        return 0, f"{where} held {count} failed records, and now {ran} that pass the mapping's filters: all of them ran"
    return 0, None
