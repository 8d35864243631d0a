"""How many batches of a queue may be with the function at once.

Source: AWS Lambda developer guide, "Configuring scaling behavior for SQS event source mappings": 5 batches when
messages appear, up to 300 more a minute, 1,250 at most; function errors and throttles shrink it, successes let it
grow; where the function reports its failures itself (ReportBatchItemFailures), errors do not shrink it either. AWS
publishes no rates of shrinking: a burst of errors halves it, at most once every few seconds, down to 2.

What the function can run at once is a further bound here: a batch that only waits for a worker uses up its lease.
"""

from __future__ import annotations

from typing import Final

from router.core.model import Polling

START: Final = 5
FLOOR: Final = 2
CEILING: Final = 1250
#: Batches more a second.
GROWTH: Final = 5.0
#: Errors within this time of the last cut are of the same burst.
BURST_S: Final = 5.0


class Concurrency:
    """A limit that grows steadily while it is used up, and is halved by errors."""

    def __init__(self, polling: Polling) -> None:
        self._cap = min(polling.maximum_concurrency or CEILING, max(1, polling.function_concurrency))
        self._level = float(min(START, self._cap))
        self._grown_s: float | None = None
        self._cut_s: float | None = None

    @property
    def limit(self) -> int:
        return int(self._level)

    def used_up(self, now_s: float) -> None:
        """Note that everything allowed is with the function: time passed since then lets the limit grow."""
        if self._grown_s is not None:
            self._level = min(self._cap, self._level + GROWTH * (now_s - self._grown_s))
        self._grown_s = now_s

    def spare(self) -> None:
        """Note that less than the limit is with the function."""
        self._grown_s = None

    def failed(self, now_s: float) -> None:
        """Note that the function failed, or could not be started."""
        if self._cut_s is None or now_s - self._cut_s >= BURST_S:
            self._cut_s = now_s
            self._level = max(min(FLOOR, self._cap), self._level / 2)

    def idled(self) -> None:
        """Note that the queue had nothing for a whole long poll."""
        self._level = min(self._level, float(START))


#: How much work is received ahead of the function.
AHEAD_S: Final = 0.1
_PACE_SPAN_S: Final = 0.25


class Pace:
    """How fast messages are worked off, so that just enough of them are received ahead.

    A fast function would wait for the next receive otherwise; for a slow one, what is received ahead would use up its
    lease.
    """

    def __init__(self) -> None:
        self._per_s = 0.0
        self._count = 0
        self._since_s: float | None = None
        self._duration_s: float | None = None

    def ended(self, messages: int, duration_s: float, now_s: float) -> None:
        """Note the end of an invocation."""
        known = self._duration_s
        self._duration_s = duration_s if known is None else known + (duration_s - known) / 8
        self._count += messages
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= _PACE_SPAN_S:
            self._per_s = self._count / (now_s - self._since_s)
            self._count, self._since_s = 0, now_s

    @property
    def ahead(self) -> int:
        """Messages that are worked off in AHEAD_S."""
        return int(self._per_s * AHEAD_S)

    def in_turn(self, batch_size: int) -> int:
        """Messages that one sequence of batches works off in ten times AHEAD_S; at least one batch."""
        if self._duration_s is None:
            return batch_size
        return batch_size * max(1, int(10 * AHEAD_S / max(self._duration_s, 0.001)))
