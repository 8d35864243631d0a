"""Finished messages on their way out of their queue: deleted in tens, tried again for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

from router.core.facts import Delete
from router.core.hand import CALL_LIMIT, Deletion, Hand
from router.core.lane import backoff_s
from router.core.model import OUTAGE_BACKOFF, Instant

if TYPE_CHECKING:
    from random import Random

#: Deletes under way at once.
AT_ONCE: Final = 16


class Deletes:
    """What is to be deleted, what is being deleted, and how that goes."""

    def __init__(self, hand: Hand, rng: Random) -> None:
        self._hand = hand
        self._rng = rng
        self._waiting: deque[int] = deque()
        self._calls = count(1)
        #: Rows by position of each call under way.
        self._asked: dict[int, Mapping[int, object]] = {}
        self._failures = 0
        #: Monotonic time of the next try after the last failure.
        self._next_s = -inf
        #: Monotonic time since which calls are answered; infinite while they are not.
        self._answered_s = -inf
        #: Messages that are only to be deleted.
        self.left = 0
        #: Why the last call failed; None when it did not.
        self.error: str | None = None

    def add(self, positions: Sequence[int]) -> Deletion:
        """Note that messages, all in hand, are finished."""
        deletion = Deletion(len(positions))
        for position in positions:
            self._hand.expect(position).deletion = deletion
        self.left += len(positions)
        self._waiting.extend(positions)
        return deletion

    def again(self, positions: Sequence[int]) -> None:
        """Ask once more for what was not deleted."""
        self._waiting.extend(positions)

    def wanted(self) -> list[Delete]:
        """Ask for what is to be deleted: what is finished while a call is under way shares the next one."""
        deletes: list[Delete] = []
        while self._waiting and len(self._asked) < (AT_ONCE if len(self._waiting) >= CALL_LIMIT else 1):
            rows = self._hand.rows([self._waiting.popleft() for _ in range(min(CALL_LIMIT, len(self._waiting)))])
            deletes.append(Delete(next(self._calls), rows))
            self._asked[deletes[-1].call] = rows
        return deletes

    def ended(self, call: int, failed: Mapping[int, str], now: Instant) -> list[int]:
        """Note what a call deleted, and give it; what has come again meanwhile is deleted by its new receipt."""
        self.error = None
        self._answered_s = min(self._answered_s, now.mono_s)
        if not failed:
            self._failures = 0
        gone: list[int] = []
        for position, row in self._asked.pop(call).items():
            if position not in failed:
                is_same = self._hand.expect(position).row is row
                (gone if is_same else self._waiting).append(position)
        return gone

    def failed(self, call: int, error: str) -> Mapping[int, str]:
        """Note that a call failed as a whole, and give the reason for each of its messages."""
        self.error = error
        self._answered_s = inf
        return dict.fromkeys(self._asked.pop(call), error)

    def retry(self, positions: Sequence[int], lease_s: float, now: Instant) -> tuple[float, list[int], list[int]]:
        """Give a wait, what to ask for again after it, and what is given up.

        A message whose lease has ended comes again, and is deleted by its new receipt then. One that has not come for
        a lease's time since it could not be deleted first, although the queue answers, is another reader's.
        """
        # Calls that fail together are one failure.
        if now.mono_s >= self._next_s:
            self._next_s = now.mono_s + backoff_s(OUTAGE_BACKOFF, self._failures, self._rng)
            self._failures += 1
        wait_s = self._next_s - now.mono_s
        if lease_s:
            wait_s = min(wait_s, lease_s / 2)
        again: list[int] = []
        given_up: list[int] = []
        for position in positions:
            message = self._hand.expect(position)
            message.undeleted_s = min(message.undeleted_s, now.mono_s)
            since_s = max(message.lease_end_s, message.undeleted_s, self._answered_s)
            (again if now.mono_s < since_s + lease_s else given_up).append(position)
        return wait_s, again, given_up

    def forget(self, position: int) -> Deletion | None:
        """Let a message go that is deleted or given up; give its Deletion when it was the last of it."""
        deletion = self._hand.expect(position).deletion
        assert deletion is not None, "only finished messages are deleted"
        self._hand.let_go([position])
        self.left -= 1
        deletion.left -= 1
        return None if deletion.left else deletion


class Departed:
    """Messages that were deleted while receives were under way that may still bring them."""

    def __init__(self) -> None:
        self._positions: set[int] = set()
        #: The newest receive that had been asked when they were deleted, oldest first.
        self._until: deque[tuple[int, Sequence[int]]] = deque()

    def __contains__(self, position: int) -> bool:
        return position in self._positions

    def add(self, positions: Sequence[int], newest: int) -> None:
        """Note messages that are deleted, and the newest receive so far."""
        self._positions.update(positions)
        self._until.append((newest, positions))

    def forget(self, oldest: int) -> None:
        """Forget what no receive can bring any more, as the oldest that is under way was asked later."""
        while self._until and self._until[0][0] < oldest:
            self._positions.difference_update(self._until.popleft()[1])
