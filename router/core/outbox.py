"""Which stored failure is sent to its destination next, and when.

Each failure has its own backoff, so that one that the destination will never take holds up no other; among those that
are due the oldest goes first. Nothing is ever given up: what is refused waits and is sent again. Times are monotonic;
the store remembers wall times, which count at most as one backoff, so that a stepped clock stalls nothing.

A failure moves among the heaps without being looked for there: each time it gets a new turn, and entries of an older
turn mean nothing.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from router.core.lane import backoff_s
from router.core.model import Backoff

if TYPE_CHECKING:
    from random import Random

#: 1 s, doubled up to 5 min.
DELIVERY_BACKOFF: Final = Backoff(base_s=1.0, cap_s=300.0, jitter=0.2)

#: Turn of a failure that was taken.
_TAKEN: Final = 0


@dataclass(slots=True)
class _Pending:
    failed_at_s: float
    #: Times in a row it was refused.
    refusals: int
    turn: int = _TAKEN


class Outbox:
    """The undelivered failures of one mapping."""

    def __init__(self, rng: Random, backoff: Backoff = DELIVERY_BACKOFF) -> None:
        self._rng = rng
        self._backoff = backoff
        self._pending: dict[str, _Pending] = {}
        self._turns = count(_TAKEN + 1)
        #: (due_s, id, turn), for those that wait.
        self._waiting: list[tuple[float, str, int]] = []
        #: (failed_at_s, id, turn), for those that are due.
        self._ready: list[tuple[float, str, int]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def among(self, failure_ids: AbstractSet[str]) -> AbstractSet[str]:
        """Give those of these that are here."""
        return self._pending.keys() & failure_ids

    def add(self, failure_id: str, failed_at_s: float, now_s: float, *, refusals: int = 0, wait_s: float = 0.0) -> None:
        """Take up a failure that is to be sent after `wait_s`; one that is here already keeps its turn."""
        if failure_id not in self._pending:
            self._pending[failure_id] = _Pending(failed_at_s, refusals)
            longest_s = self._backoff.cap_s * (1 + self._backoff.jitter)
            self._wait(failure_id, now_s + min(max(wait_s, 0.0), longest_s))

    def take(self, now_s: float) -> str | None:
        """Give the oldest failure that is due; `refused` or `done` must follow."""
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            _, failure_id, turn = heappop(self._waiting)
            heappush(self._ready, (self._pending[failure_id].failed_at_s, failure_id, turn))
        while self._ready:
            _, failure_id, turn = heappop(self._ready)
            if self._is_turn(failure_id, turn):
                self._pending[failure_id].turn = _TAKEN
                return failure_id
        return None

    def hurry(self, failure_id: str, now_s: float) -> None:
        """Make a failure due now; one that was taken is on its way already, and one that is not here stays away."""
        pending = self._pending.get(failure_id)
        if pending and pending.turn != _TAKEN:
            self._wait(failure_id, now_s)

    def refused(self, failure_id: str, now_s: float) -> float:
        """Put a failure that was taken back, unless it is done; give the wait before it is sent again, seconds."""
        pending = self._pending.get(failure_id)
        if pending is None:
            return 0.0
        wait_s = backoff_s(self._backoff, pending.refusals, self._rng)
        pending.refusals += 1
        self._wait(failure_id, now_s + wait_s)
        return wait_s

    def is_busy(self, now_s: float) -> bool:
        """Is one of them being sent, or due? The others were refused, and wait."""
        due_s = self.next_due_s()
        is_due = due_s is not None and due_s <= now_s
        is_ready = any(self._is_turn(failure_id, turn) for _, failure_id, turn in self._ready)
        return is_due or is_ready or any(each.turn == _TAKEN for each in self._pending.values())

    def done(self, failure_id: str) -> None:
        """Forget a failure, wherever it is."""
        self._pending.pop(failure_id, None)

    def next_due_s(self) -> float | None:
        """Say when `take` will give something if nothing is added; None = never, or at once as it gave something."""
        while self._waiting:
            due_s, failure_id, turn = self._waiting[0]
            if self._is_turn(failure_id, turn):
                return due_s
            heappop(self._waiting)
        return None

    def oldest_s(self) -> float | None:
        """Say when the oldest one failed; None = there is none."""
        return min((pending.failed_at_s for pending in self._pending.values()), default=None)

    def _wait(self, failure_id: str, due_s: float) -> None:
        turn = next(self._turns)
        self._pending[failure_id].turn = turn
        heappush(self._waiting, (due_s, failure_id, turn))

    def _is_turn(self, failure_id: str, turn: int) -> bool:
        pending = self._pending.get(failure_id)
        return pending is not None and pending.turn == turn
