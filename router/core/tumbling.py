"""The tumbling windows of one lane: which window a record is of, and what its calls are given and have returned.

A window is a stretch of time of fixed length whose bounds are multiples of it since the epoch. The records of a window
are handed to the function with the state that the calls before have returned for it; once the window is over, a final
call without records gets the last state. Sources: AWS Lambda developer guide ('Tumbling windows'), and behaviour
recorded on AWS for the order of calls, the empty `Records` of a final call, and states that are too large.

What a record is of goes by its arrival at the source, in the order of the shard. Decision: windows of a shard only go
forward. Arrival times are approximate and may step back a little; a record that is from before the newest window seen
is of that window. So nothing is lost, no window is closed twice by turns, and which window a record is of depends on
the shard alone, not on when it was read: a restart comes to the same.

A window is over when everything of it is settled and
- a record of a later window waits, or
- the shard has ended, or
- the source has had nothing more for `CALM_S`, at least `GRACE_S` after the window's end. Decision: the clock alone
  does not end it, because who is behind, or cannot reach the source, has not seen all of it yet.
A window whose state is over `STATE_LIMIT_BYTES` is closed at once, before what is left of a batch that succeeded in
part. Records of a closed window that come later open it again, with an empty state.

What a window waits for is in memory; its state and bounds are saved with the checkpoint, in one commit.

Weak spot: a source whose clock jumps far ahead and back leaves all that comes meanwhile in one window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from router.core.model import Batch, Part, WindowCall, WindowStart
from router.core.retry_state import SavedWindow
from router.core.window import BatchWindow, Trigger

#: How long after a window's end records of it may still come to be seen (AWS documents up to two minutes).
GRACE_S: Final = 120
#: How long the source must have had nothing more: DynamoDB's pages may be empty although records are behind them.
CALM_S: Final = 10
#: A state of more bytes, as JSON, ends its window.
STATE_LIMIT_BYTES: Final = 1024 * 1024
#: State of a window in which nothing has returned yet.
EMPTY: Final = b"{}"


class Span(NamedTuple):
    """A window: start inclusive, end exclusive, seconds since the epoch."""

    start_s: int
    end_s: int


def span_of(time_ms: int, length_s: int) -> Span:
    """Give the window that a time is in; what has no time is in the first."""
    start_s = max(time_ms, 0) // (length_s * 1000) * length_s
    return Span(start_s, start_s + length_s)


@dataclass(slots=True)
class _Run:
    """Neighbouring records of one window that wait."""

    span: Span
    count: int


class TumblingWindow(BatchWindow):
    """Records that wait for a batch, oldest first, none of which spans two windows; and the newest window."""

    __slots__ = ("_calm_since_s", "_idle_s", "_is_ending", "_length_s", "_runs", "_since", "_span", "_state")

    def __init__(self, length_s: int, size: int, limit_bytes: int, window_s: float, start: WindowStart) -> None:
        super().__init__(size, limit_bytes, window_s, start)
        self._length_s = length_s
        self._runs: deque[_Run] = deque()
        #: The newest window of which a batch was cut; before the first, one that is over.
        self._span = Span(-length_s, -1)
        #: What its calls have returned; None = it is closed, its final call is done.
        self._state: bytes | None = None
        #: First position in it, since it was opened last.
        self._since = -1
        #: Is its final call made, and not done?
        self._is_ending = False
        #: Wall time at which the source was found to have nothing more; infinitely long ago = it was not, or did since.
        self._idle_s = -inf
        #: The same, when it was found so first since something came.
        self._calm_since_s = inf

    @property
    def is_open(self) -> bool:
        """Is there a window whose final call is not done?"""
        return self._state is not None

    # --- what waits

    def add(self, part: Part, now_s: float) -> None:
        """Append records (never empty) that arrived now."""
        self._idle_s, self._calm_since_s = -inf, inf
        for span, indexes in self._by_window(part):
            super().add(Part(part.chunk, indexes), now_s)
            if self._runs and self._runs[-1].span == span:
                self._runs[-1].count += len(indexes)
            else:
                self._runs.append(_Run(span, len(indexes)))

    def _by_window(self, part: Part) -> Iterator[tuple[Span, Sequence[int]]]:
        (chunk, indexes), start = part, 0
        span = self._runs[-1].span if self._runs else self._span
        for place, index in enumerate(indexes):
            if chunk.times_ms[index] >= span.end_s * 1000:
                if place > start:
                    yield span, indexes[start:place]
                span, start = span_of(chunk.times_ms[index], self._length_s), place
        yield span, indexes[start:]

    def found_nothing(self, wall_s: float) -> None:
        """Note that the source has nothing more at this wall time."""
        self._idle_s = wall_s
        self._calm_since_s = min(self._calm_since_s, wall_s)

    def trigger(self, now_s: float) -> Trigger | None:
        """Say what makes a batch due now; None when nothing does."""
        return Trigger.BOUNDARY if len(self._runs) > 1 else super().trigger(now_s)

    def cut(self) -> tuple[list[Part], int]:
        """Take the next batch, and how many records it has; the window before it must be closed."""
        run = self._runs[0]
        parts, count = self._take(min(self._size, run.count))
        run.count -= count
        if not run.count:
            self._runs.popleft()
        self._span = run.span
        return parts, count

    # --- calls

    def call(self, batch: Batch) -> WindowCall:
        """Say what a batch of the newest window is told of it now."""
        if self._span.start_s < 0:
            # It was begun while there were no windows, and is of that of its first record.
            chunk, index = batch.first
            self._span = span_of(chunk.times_ms[index], self._length_s)
        return WindowCall(*self._span, EMPTY if self._state is None else self._state)

    def started(self, batch: Batch) -> None:
        """Note that a batch of the newest window starts: a closed one opens, and will have a final call."""
        if self._state is None:
            self._state = EMPTY
            self._since = batch.first_position

    def end(self, *, settled: bool, shard_ended: bool, leaving: bool = False) -> WindowCall | None:
        """Give the final call of the newest window if it is due, once.

        Args:
            settled: Is everything done that was cut?
            shard_ended: Will nothing come behind what waits?
            leaving: Is no more cut here, whatever waits?
        """
        if self._state is None or self._is_ending:
            return None
        early = len(self._state) > STATE_LIMIT_BYTES
        if not (early or (settled and (leaving or self._is_over(shard_ended=shard_ended)))):
            return None
        self._is_ending = True
        return WindowCall(*self._span, self._state, final=True, early=early)

    def _is_over(self, *, shard_ended: bool) -> bool:
        if self._runs:
            return self._runs[0].span != self._span
        idle_s = max(self._span.end_s + GRACE_S, self._calm_since_s + CALM_S)
        return shard_ended or self._idle_s >= idle_s

    @property
    def mark(self) -> str:
        """What tells this opening of a window from all others of its shard."""
        return f"{self._span.start_s},{self._span.end_s},{self._since}"

    def returned(self, state: bytes) -> None:
        """Take the state that a call of the window has returned."""
        self._state = state
        self.reserved_bytes = len(state)

    def close(self) -> None:
        """Note that the final call is done, or given up."""
        self._state = None
        self._is_ending = False
        self.reserved_bytes = 0

    # --- over restarts

    def saved(self) -> SavedWindow | None:
        """Say what is to be remembered with the checkpoint; None = no window was seen yet."""
        return SavedWindow(*self._span, self._since, self._state) if self._span.start_s >= 0 else None

    def restore(self, saved: SavedWindow) -> WindowCall | None:
        """Take up what was saved, before anything is added; gives the final call if it had failed."""
        self._span = Span(saved.start_s, saved.end_s)
        self._since = saved.since
        if saved.state is None:
            return None
        self.returned(saved.state)
        if saved.final is None:
            return None
        self._is_ending = True
        return WindowCall(*self._span, saved.state, final=True, early=len(saved.state) > STATE_LIMIT_BYTES)
