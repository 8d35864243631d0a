"""`headrace` with a clock in its event loop: `python -m bench.ticking FILE run headrace.yaml`.

Every millisecond a timer fires and notes when, by the clock that all processes share, how late it is, and how much CPU
the loop's thread has used since the last one. FILE gets that at the end, a line each.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import uvloop

from router import cli

_TICK_S = 0.001


class Clock:
    def __init__(self) -> None:
        self.ticks: list[tuple[float, float, float]] = []
        self._cpu_s = 0.0
        self._due_s = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._cpu_s = time.thread_time()
        self._due_s = time.monotonic() + _TICK_S
        loop.call_later(_TICK_S, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = time.monotonic()
        self.ticks.append((now_s, now_s - self._due_s, time.thread_time() - self._cpu_s))
        self.start(loop)


def main() -> int:
    clock = Clock()
    make = uvloop.new_event_loop

    def ticking() -> uvloop.Loop:
        loop = make()
        loop.call_soon(clock.start, loop)
        return loop

    uvloop.new_event_loop = ticking
    status = cli.main(sys.argv[2:])
    Path(sys.argv[1]).write_text("".join(f"{at_s} {late_s} {cpu_s}\n" for at_s, late_s, cpu_s in clock.ticks))
    return status


if __name__ == "__main__":
    sys.exit(main())
