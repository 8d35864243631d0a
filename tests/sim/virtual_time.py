"""An event loop whose clock jumps to the next timer when nothing is ready.

`select` advances `time()` by the timeout it is given instead of waiting. Nothing ready and no timer is a deadlock and
raises, so a test that waits for something that never comes fails at once.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Deadlock(Exception):
    """Everything waits and no timer is set."""


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Deadlock
        self.now_s += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs hours in milliseconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # The default resolution is finer than a float near large times: timers would spin without ever being due.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._jumping.now_s

    def wall(self) -> float:
        """Give a wall clock that goes with the loop."""
        return 1_700_000_000.0 + self._jumping.now_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an ordinary test of a coroutine function; its fixtures must be ordinary ones too."""

    @functools.wraps(test)
    def in_loop(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return in_loop


def all_in_virtual_time(suite: type[T]) -> type[T]:
    """Do that with all tests that a class has and inherits."""
    for name in dir(suite):
        if name.startswith("test_"):
            setattr(suite, name, in_virtual_time(getattr(suite, name)))
    return suite
