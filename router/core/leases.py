"""Leases that are made longer, or given up, on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from math import ceil, inf
from typing import Final

from router.core.facts import Extend
from router.core.hand import CALL_LIMIT, Hand
from router.core.model import Instant

#: Longest lease (Amazon SQS quotas: 12 hours).
LONGEST_S: Final = 43200
#: What has used up this share of its lease is extended.
_USED_UP: Final = 1 / 3


class Leases:
    """Calls that change leases."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._calls = count(1)
        #: Rows by position of each call under way, and when (monotonic) the leases end if it succeeds.
        self._asked: dict[int, tuple[Mapping[int, object], float]] = {}

    def __bool__(self) -> bool:
        return bool(self._asked)

    def extend(self, positions: Sequence[int], lease_s: float, now: Instant) -> list[Extend]:
        """Let the leases of messages in hand end this long from now."""
        whole_s = min(ceil(lease_s), LONGEST_S)
        return self._call(positions, whole_s, now.mono_s + whole_s)

    def give_back(self, positions: Sequence[int]) -> list[Extend]:
        """Let the queue show messages again at once."""
        return self._call(positions, 0, -inf)

    def beat(self, lease_s: float, now: Instant) -> list[Extend]:
        """Extend what waits or runs, as far as it has used up a third of its lease."""
        old_s = now.mono_s + lease_s * (1 - _USED_UP)
        due = [position for position, each in self._hand if each.deletion is None and each.lease_end_s <= old_s]
        return self.extend(due, lease_s, now)

    def _call(self, positions: Sequence[int], lease_s: int, until_s: float) -> list[Extend]:
        extends: list[Extend] = []
        for at in range(0, len(positions), CALL_LIMIT):
            rows = self._hand.rows(positions[at : at + CALL_LIMIT])
            extends.append(Extend(next(self._calls), rows, lease_s))
            self._asked[extends[-1].call] = rows, until_s
        return extends

    def ended(self, call: int, failed: Mapping[int, str]) -> None:
        """Note what a call has extended, as far as it is still in hand by that receipt."""
        rows, until_s = self._asked.pop(call)
        for position, row in rows.items():
            message = self._hand.get(position)
            if message and message.row is row and position not in failed:
                message.lease_end_s = until_s

    def failed(self, call: int) -> int:
        """Note that a call failed as a whole, and count its messages."""
        rows, _ = self._asked.pop(call)
        return len(rows)
