"""Receives from a queue: how many at once, for how many messages, and when.

Source: AWS Lambda developer guide, SQS scaling: 5 pollers, fewer (down to 2) on an idle queue unless a maximum
concurrency is set; and long polls of 20 s. A receive brings 10 messages at most (Amazon SQS quotas). Full answers mean
that there is more: one receive more at once, up to what there is room for. A queue that answers with nothing new at
once, although it was asked to wait, is asked less and less often, up to once a second for each receive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.core.facts import Receive, StopReceiving
from router.core.lane import backoff_s
from router.core.model import OUTAGE_BACKOFF, Backoff, Polling

if TYPE_CHECKING:
    from random import Random

#: Messages that one receive brings at most.
RECEIVE_LIMIT: Final = 10
#: How long a receive waits for messages.
WAIT_S: Final = 20.0
START: Final = 5
FLOOR: Final = 2
#: Receives under way at once, at most: each takes a connection.
MOST: Final = 64
#: An empty answer that came sooner was not waited for.
_HASTE_S: Final = 1.0
_HASTE_BACKOFF: Final = Backoff(base_s=0.05, cap_s=1.0, jitter=0.0)


class Polls:
    """The receives that are under way."""

    def __init__(self, polling: Polling, rng: Random) -> None:
        self._rng = rng
        self._floor = START if polling.maximum_concurrency else FLOOR
        self._level = START
        self._newest = 0
        #: Limit and start of each receive.
        self._asked: dict[int, tuple[int, float]] = {}
        self._hasty = 0
        self._failures = 0
        #: Why the last receive failed; None when it did not.
        self.error: str | None = None
        #: Monotonic time before which nothing is asked.
        self.not_before_s = 0.0

    @property
    def asked(self) -> int:
        """Messages that may come."""
        return sum(limit for limit, _ in self._asked.values())

    @property
    def newest(self) -> int:
        """The number of the last receive; 0 = there was none."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The number of the first receive that is under way, or that the next one will have."""
        return min(self._asked, default=self._newest + 1)

    def wanted(self, room: int, most: int, now_s: float, *, patient: bool) -> list[Receive]:
        """Ask for as many messages as there is room for beside those already asked for, at most `most` each.

        Who is patient, because nothing would run sooner, waits until there is room for `most`: a call for one message
        costs as much as one for ten.
        """
        receives: list[Receive] = []
        if now_s < self.not_before_s:
            return receives
        room -= self.asked
        least = most if patient else 1
        while room >= least and len(self._asked) < self._level:
            self._newest += 1
            receive = Receive(self._newest, min(room, most), WAIT_S)
            self._asked[receive.poll] = receive.limit, now_s
            room -= receive.limit
            receives.append(receive)
        return receives

    def received(self, poll: int, messages: int, now_s: float) -> bool:
        """Note the end of a receive, and how many new messages it brought; say whether it waited in vain."""
        limit, asked_s = self._asked.pop(poll)
        self._failures = 0
        self.error = None
        if messages:
            self._hasty = 0
            if messages >= limit:
                self._level = min(max(self._level, len(self._asked) + 2), MOST)
            return False
        self._level = max(self._floor, min(self._level, len(self._asked) + 1) - 1)
        if now_s - asked_s >= _HASTE_S:
            self._hasty = 0
            return True
        self.not_before_s = now_s + backoff_s(_HASTE_BACKOFF, self._hasty, self._rng)
        self._hasty += 1
        return False

    def failed(self, poll: int, error: str, now_s: float) -> float:
        """Note that a receive failed, and give the wait before the next."""
        del self._asked[poll]
        self.error = error
        wait_s = backoff_s(OUTAGE_BACKOFF, self._failures, self._rng)
        # Receives that fail together are one failure.
        if now_s >= self.not_before_s:
            self._failures += 1
            self.not_before_s = now_s + wait_s
        return self.not_before_s - now_s

    def stop(self) -> list[StopReceiving]:
        """End all receives."""
        asked, self._asked = self._asked, {}
        return [StopReceiving(poll) for poll in asked]
