"""Which stored failure is sent to its destination next, and when.

Each failure has its own backoff, so that one that the destination will never take (a record beyond its limit) holds up
no other; among those that are due the oldest goes first. Nothing is ever given up: what is refused waits and is sent
again. Times are monotonic; the store remembers wall times, which count at most as one backoff, so that a stepped clock
stalls nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from router.core.lane import backoff_s
from router.core.model import Backoff

if TYPE_CHECKING:
    from random import Random

#: 1 s, doubled up to 5 min.
DELIVERY_BACKOFF: Final = Backoff(base_s=1.0, cap_s=300.0, jitter=0.2)


@dataclass(slots=True)
class _Pending:
    failed_at_s: float
    #: Times in a row it was refused.
    refusals: int


class Outbox:
    """The undelivered failures of one mapping."""

    def __init__(self, rng: Random, backoff: Backoff = DELIVERY_BACKOFF) -> None:
        self._rng = rng
        self._backoff = backoff
        self._pending: dict[str, _Pending] = {}
        #: (due_s, id), for those that wait.
        self._waiting: list[tuple[float, str]] = []
        #: (failed_at_s, id), for those that are due.
        self._ready: list[tuple[float, str]] = []

    def add(self, failure_id: str, failed_at_s: float, now_s: float, *, refusals: int = 0, wait_s: float = 0.0) -> None:
        """Take up a failure that is to be sent after `wait_s`; one that is here already keeps its turn."""
        if failure_id not in self._pending:
            self._pending[failure_id] = _Pending(failed_at_s, refusals)
            longest_s = self._backoff.cap_s * (1 + self._backoff.jitter)
            heappush(self._waiting, (now_s + min(max(wait_s, 0.0), longest_s), failure_id))

    def take(self, now_s: float) -> str | None:
        """Give the oldest failure that is due; `refused` or `done` must follow."""
        while self._waiting and self._waiting[0][0] <= now_s:
            _, failure_id = heappop(self._waiting)
            heappush(self._ready, (self._pending[failure_id].failed_at_s, failure_id))
        return heappop(self._ready)[1] if self._ready else None

    def refused(self, failure_id: str, now_s: float) -> float:
        """Put a failure that was taken back, and give the wait before it is sent again, seconds."""
        pending = self._pending[failure_id]
        wait_s = backoff_s(self._backoff, pending.refusals, self._rng)
        pending.refusals += 1
        heappush(self._waiting, (now_s + wait_s, failure_id))
        return wait_s

    def done(self, failure_id: str) -> None:
        """Forget a failure that was taken."""
        del self._pending[failure_id]

    def next_due_s(self) -> float | None:
        """Say when `take` will give something if nothing is added; None = never."""
        return self._waiting[0][0] if self._waiting else None
