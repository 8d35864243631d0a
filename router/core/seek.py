"""Where a mapping goes on when somebody seeks: what becomes of each shard. Pure.

The place of a shard is what its last commit wrote. Whoever seeks names where to, the source says what there is of each
shard, and a move is what follows for one of them. Retries and windows belong to the place that they were written with,
so a shard that is moved begins without any, also where it is moved to where it is.

Some streams know the positions of a shard's first and last record (Kafka); others only find a record by reading. There
a target stays what it is, the beginning or a time, and means something when the shard is read.

Shards wait for their parents as ever: a shard that is read again holds its children back until it is at its end again,
and those go on where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from router.core.facts import Progress
from router.core.model import TRIM_HORIZON, at_time


class Extent(NamedTuple):
    """What there is of a shard, and where it is."""

    shard: str
    #: None = it has not begun.
    place: Progress | None = None
    #: Position of the oldest record that is still there, and the next that will be written; None = only reading tells.
    first: int | None = None
    end: int | None = None
    #: Position of the first record at or after the time that is sought; None = there is none, or only reading tells.
    since: int | None = None
    #: Will nothing more be written to it?
    closed: bool = False
    #: Checkpoint before the position that is sought; None = the number before it is one.
    preceding: int | None = None


class Edge(Enum):
    """An end of the stream."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"


@dataclass(frozen=True, slots=True)
class AtTime:
    """The first record that arrived at or after a time comes next."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class AtPosition:
    """The record at a position comes next, or the first one behind it where there is none."""

    position: int


SeekTo: TypeAlias = Edge | AtTime | AtPosition


class Direction(Enum):
    """What a move means for the records between both places."""

    BACK = "back"
    FORWARD = "forward"
    STAY = "stay"
    #: The shard had no place.
    BEGIN = "begin"


class Move(NamedTuple):
    """What becomes of one shard."""

    shard: str
    before: Progress | None
    after: Progress


class NotThere(Exception):
    """The target means nothing in this stream; the message says why."""


def plan(extents: Sequence[Extent], target: SeekTo, shard: str | None, now_ms: int) -> list[Move]:
    """Say what becomes of each shard that is moved, in the order in which they are listed.

    Args:
        extents: all shards that the stream has.
        target: where to go on.
        shard: the only one to move; None = all.
        now_ms: the source's own time, epoch milliseconds: where LATEST is, if no position says it.

    Raises:
        NotThere
    """
    moved = [each for each in extents if shard in (None, each.shard)]
    if not moved:
        raise NotThere(f"there is no shard {shard}; there are: {', '.join(each.shard for each in extents)}")
    if isinstance(target, AtPosition) and len(moved) > 1:
        raise NotThere(f"a position is one of a shard, and there are {len(moved)}; name one with --shard")
    return [Move(each.shard, each.place, _destination(each, target, now_ms)) for each in moved]


def _destination(extent: Extent, target: SeekTo, now_ms: int) -> Progress:
    match target:
        case Edge.TRIM_HORIZON:
            return Progress(TRIM_HORIZON if extent.first is None else extent.first - 1, "")
        case Edge.LATEST:
            if extent.closed:
                return Progress(extent.place.checkpoint if extent.place else TRIM_HORIZON, "", ended=True)
            return Progress(at_time(now_ms) if extent.end is None else extent.end - 1, "")
        case AtTime(time_ms):
            if extent.end is None:
                return Progress(at_time(time_ms), "")
            return Progress((extent.end if extent.since is None else extent.since) - 1, "")
        case _:
            position = target.position
            if extent.first is not None and extent.end is not None and not extent.first <= position <= extent.end:
                raise NotThere(
                    f"position {position} of {extent.shard} is not in the log, "
                    f"which holds {extent.first} up to {extent.end} (excluded)"
                )
            return Progress(position - 1 if extent.preceding is None else extent.preceding, "")


def direction(before: int | None, after: int) -> Direction:
    """Say which way a move goes, by the positions that come next on both sides; None = there was no place."""
    if before is None:
        return Direction.BEGIN
    if before == after:
        return Direction.STAY
    return Direction.BACK if after < before else Direction.FORWARD
