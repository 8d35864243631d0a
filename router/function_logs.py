"""What is told of logs of functions that go elsewhere: to the log of the daemon, and to its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.telemetry import Log

#: Between two lines about what is lost for one reason.
TELL_EVERY_S: Final = 60.0


class ShippingNews:
    """Hears how the log of one function is shipped (handlers.shipping)."""

    def __init__(self, function: str, count_lost: Callable[[float], None], log: Log, mono: Callable[[], float]) -> None:
        self._function = function
        self._count_lost = count_lost
        self._log = log
        self._mono = mono
        #: By reason: what was not told of yet, and when it may be.
        self._lost: dict[str, tuple[int, float]] = {}

    def refused(self, error: str) -> None:
        self._log.write("logs.refused", function=self._function, error=error)

    def accepted(self) -> None:
        self._log.write("logs.accepted", function=self._function)

    def lost(self, count_bytes: int, reason: str) -> None:
        self._count_lost(count_bytes)
        before_bytes, tell_s = self._lost.get(reason, (0, 0.0))
        untold_bytes, now_s = before_bytes + count_bytes, self._mono()
        if now_s >= tell_s:
            self._log.write("logs.lost", function=self._function, bytes=untold_bytes, reason=reason)
            untold_bytes, tell_s = 0, now_s + TELL_EVERY_S
        self._lost[reason] = untold_bytes, tell_s
