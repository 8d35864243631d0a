"""Leases that are made longer, or given up, on purpose: a few calls at once, however many messages are in hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from math import ceil, inf
from typing import Final

from router.core.facts import Extend
from router.core.hand import CALL_LIMIT, Hand
from router.core.model import Instant

#: Longest lease (Amazon SQS quotas: 12 hours).
LONGEST_S: Final = 43200
#: Calls under way at once: each takes a connection.
AT_ONCE: Final = 16
#: What has used up this share of its lease is extended: half of the time between two beats, so that each message has
#: two chances.
_USED_UP: Final = 1 / 6


class Leases:
    """Calls that change leases."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._calls = count(1)
        #: Rows by position that wait for their call, and how long their leases are to be.
        self._waiting: deque[tuple[Mapping[int, object], int]] = deque()
        #: Rows by position of each call under way, and when (monotonic) the leases end if it succeeds.
        self._asked: dict[int, tuple[Mapping[int, object], float]] = {}
        #: What waits or is under way.
        self._positions: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._asked or self._waiting)

    def extend(self, positions: Sequence[int], lease_s: float) -> None:
        """Let the leases of messages in hand, which may be let go then, end this long from when it is asked for."""
        whole_s = min(ceil(lease_s), LONGEST_S)
        for at in range(0, len(positions), CALL_LIMIT):
            self._waiting.append((self._hand.rows(positions[at : at + CALL_LIMIT]), whole_s))
        self._positions.update(positions)

    def give_back(self, positions: Sequence[int]) -> None:
        """Let the queue show messages again at once."""
        self.extend(positions, 0)

    def beat(self, lease_s: float, now: Instant) -> None:
        """Extend what waits or runs, as far as it has used up some of its lease and is not being extended.

        Also what could not be deleted yet: its receipt must not end, and a FIFO queue hides a whole group
        until the last lease in it ends.
        """
        old_s = now.mono_s + lease_s * (1 - _USED_UP)
        due = [
            position
            for position, each in self._hand
            if each.lease_end_s <= old_s and (each.deletion is None or each.undeleted_s < inf)
        ]
        self.extend([position for position in due if position not in self._positions], lease_s)

    def wanted(self, now: Instant) -> list[Extend]:
        """Ask for what waits, as far as calls may be under way."""
        extends: list[Extend] = []
        while self._waiting and len(self._asked) < AT_ONCE:
            rows, lease_s = self._waiting.popleft()
            extends.append(Extend(next(self._calls), rows, lease_s))
            self._asked[extends[-1].call] = rows, now.mono_s + lease_s if lease_s else -inf
        return extends

    def ended(self, call: int, failed: Mapping[int, str]) -> None:
        """Note what a call has extended, as far as it is still in hand by that receipt."""
        rows, until_s = self._end(call)
        for position, row in rows.items():
            message = self._hand.get(position)
            if message and message.row is row and position not in failed:
                message.lease_end_s = until_s

    def failed(self, call: int) -> int:
        """Note that a call failed as a whole, and count its messages."""
        rows, _ = self._end(call)
        return len(rows)

    def _end(self, call: int) -> tuple[Mapping[int, object], float]:
        rows, until_s = self._asked.pop(call)
        self._positions.difference_update(rows)
        return rows, until_s
