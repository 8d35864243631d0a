"""What is due by time: actions in a heap, and the one wake-up that is asked of the runner."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import inf

from router.core.facts import WakeAt
from router.core.model import Instant


class Agenda:
    """Actions by the monotonic time at which they are due; those of one time run in the order they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[Instant], None]]] = []
        self._order = count()
        self._asked_s: float | None = None

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first_s(self) -> float:
        """Time of the first action; infinite when there is none."""
        return self._heap[0][0] if self._heap else inf

    def at(self, mono_s: float, action: Callable[[Instant], None]) -> None:
        heapq.heappush(self._heap, (mono_s, next(self._order), action))

    def run_due(self, now: Instant) -> None:
        while self._heap and self._heap[0][0] <= now.mono_s:
            heapq.heappop(self._heap)[2](now)

    def woken(self) -> None:
        """Note that the wake-up that was asked for has come."""
        self._asked_s = None

    def wake(self, also_s: float | None = None) -> WakeAt | None:
        """Ask for a wake-up at the first action, or at `also_s`, unless one that early is asked for already."""
        due_s = also_s
        if self._heap and (due_s is None or self._heap[0][0] < due_s):
            due_s = self._heap[0][0]
        if due_s is None or (self._asked_s is not None and self._asked_s <= due_s):
            return None
        self._asked_s = due_s
        return WakeAt(due_s)


class Alarm:
    """One action that runs once, at the earliest of the times it was asked for since it ran last."""

    def __init__(self, agenda: Agenda, action: Callable[[Instant], None]) -> None:
        self._agenda = agenda
        self._action = action
        self._due_s = inf

    def by(self, mono_s: float) -> None:
        if mono_s < self._due_s:
            self._due_s = mono_s
            self._agenda.at(mono_s, self._ring)

    def _ring(self, now: Instant) -> None:
        # Later times that it was asked for before are still in the agenda, and come to nothing.
        if now.mono_s >= self._due_s:
            self._due_s = inf
            self._action(now)
