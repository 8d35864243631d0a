"""The batching window of one lane: gathers records, says when a batch is due, cuts it.

A batch is due at the first of: `batch_size` records, so many bytes that the next record might not fit into an event,
or the age of the window (AWS Lambda developer guide, 'Batching behavior'). What starts the age differs: for Kafka the
arrival of the first record, for streams and queues the end of the previous invocation. There is no timer in here:
`due_at` says when to ask again.

Sizes are upper bounds made by the codec, so a batch may be cut a few bytes early, never late; the first record is
always taken, however large, because only the encoded event can tell that it is too large. Accounting is by whole
slices: only a slice that crosses the byte limit is looked at record by record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from itertools import accumulate, takewhile
from math import inf
from typing import NamedTuple

from router.core.model import Chunk, Part, WindowStart


class Trigger(Enum):
    """What made a batch due."""

    COUNT = "count"
    BYTES = "bytes"
    AGE = "age"
    #: What waits next is of a later tumbling window.
    BOUNDARY = "boundary"


def part_bytes(chunk: Chunk, indexes: Sequence[int]) -> int:
    if isinstance(indexes, range):
        return sum(chunk.sizes[indexes.start : indexes.stop])
    return sum(map(chunk.sizes.__getitem__, indexes))


class _Waiting(NamedTuple):
    part: Part
    arrived_s: float
    bytes: int


class BatchWindow:
    """Records that wait for a batch, oldest first."""

    __slots__ = (
        "_completed_s",
        "_from_first",
        "_limit_bytes",
        "_size",
        "_waiting",
        "_window_s",
        "bytes",
        "count",
        "reserved_bytes",
    )

    def __init__(self, size: int, limit_bytes: int, window_s: float, start: WindowStart) -> None:
        self._size = size
        self._limit_bytes = limit_bytes
        self._window_s = window_s
        self._from_first = start is WindowStart.FIRST_RECORD
        self._completed_s = -inf
        self._waiting: deque[_Waiting] = deque()
        self.count = 0
        self.bytes = 0
        #: Bytes of the next event that are not for its records.
        self.reserved_bytes = 0

    def add(self, part: Part, now_s: float) -> None:
        """Append records (never empty) that arrived now."""
        size = part_bytes(part.chunk, part.indexes)
        self._waiting.append(_Waiting(part, now_s, size))
        self.count += len(part.indexes)
        self.bytes += size

    def completed(self, now_s: float) -> None:
        """Note that the lane's invocation is over, or that the lane starts to exist."""
        self._completed_s = now_s

    def trigger(self, now_s: float) -> Trigger | None:
        """Say what makes a batch due now; None when nothing does."""
        if self.count >= self._size:
            return Trigger.COUNT
        if self.bytes >= self._limit_bytes - self.reserved_bytes:
            return Trigger.BYTES
        return Trigger.AGE if self.count and now_s >= self._ends_s() else None

    def due_at(self) -> float | None:
        """Give the monotonic time at which a batch is due by age; None when nothing waits."""
        return self._ends_s() if self.count else None

    def _ends_s(self) -> float:
        return (self._waiting[0].arrived_s if self._from_first else self._completed_s) + self._window_s

    def head(self) -> tuple[Chunk, int] | None:
        """Give the oldest waiting record."""
        if not self._waiting:
            return None
        chunk, indexes = self._waiting[0].part
        return chunk, indexes[0]

    def cut(self) -> tuple[list[Part], int]:
        """Take the next batch, and how many records it has: at least one of those that wait."""
        return self._take(self._size)

    def _take(self, most: int) -> tuple[list[Part], int]:
        parts: list[Part] = []
        count = total = 0
        limit_bytes = self._limit_bytes - self.reserved_bytes
        while self._waiting and count < most:
            part, _, size = self._waiting[0]
            if count + len(part.indexes) <= most and total + size <= limit_bytes:
                self._waiting.popleft()
            else:
                part, size = self._split(most - count, limit_bytes - total, first=not count)
                if not part.indexes:
                    break
            parts.append(part)
            count += len(part.indexes)
            total += size
        self.count -= count
        self.bytes -= total
        return parts, count

    def drain(self) -> list[Part]:
        """Take everything that waits, in order."""
        parts = [waiting.part for waiting in self._waiting]
        self._waiting.clear()
        self.count = self.bytes = 0
        return parts

    def _split(self, most: int, room_bytes: int, *, first: bool) -> tuple[Part, int]:
        """Take what fits of the oldest part, and its bytes; no records when not even one does."""
        (chunk, indexes), arrived_s, whole_bytes = self._waiting.popleft()
        taken = indexes[:most]
        size = part_bytes(chunk, taken)
        if size > room_bytes:
            taken = taken[: _fitting(chunk, taken, room_bytes) or int(first)]
            size = part_bytes(chunk, taken)
        if len(taken) < len(indexes):
            left = Part(chunk, indexes[len(taken) :])
            self._waiting.appendleft(_Waiting(left, arrived_s, whole_bytes - size))
        return Part(chunk, taken), size


def _fitting(chunk: Chunk, indexes: Sequence[int], room_bytes: int) -> int:
    """Count how many of these records, too large together, fit one after the other."""
    totals = accumulate(chunk.sizes[index] for index in indexes)
    return sum(1 for _ in takewhile(lambda total: total <= room_bytes, totals))
