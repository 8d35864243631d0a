"""Keeps the daemon's workers on their leash: tells it again and again until when they may live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from handlers import leash

#: What the leash may take to end with us.
END_S: Final = 2.0
#: Pause before another one is started in the place of one that has ended.
AGAIN_S: Final = 1.0


class Leash:
    """The process, started again whenever it ends."""

    def __init__(
        self, registry: Path, until: Callable[[], float], *, every_s: float, ended: Callable[[int | None], None]
    ) -> None:
        """Make it.

        Args:
            registry: folder with one file for each worker.
            until: says until when the workers may live if nothing is said from now on, on the clock of `fleet.boot_s`.
            every_s: how often it is told.
            ended: called with its status when it has ended, and is to be started again.
        """
        self._registry = registry
        self._until = until
        self._every_s = every_s
        self._ended = ended

    async def run(self) -> None:
        """Hold the workers until cancelled."""
        while True:
            process = subprocess.Popen(  # noqa: ASYNC220 - as workers are started; it takes a millisecond
                [sys.executable, "-I", "-S", leash.__file__, str(self._registry)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert process.stdin is not None
            os.set_blocking(process.stdin.fileno(), False)
            try:
                await self._tell(process, process.stdin.fileno())
            finally:
                await _end(process)
            self._ended(process.returncode)
            await asyncio.sleep(AGAIN_S)

    async def _tell(self, process: subprocess.Popen[bytes], pipe: int) -> None:
        """Tell it until it has ended."""
        while process.poll() is None:
            with contextlib.suppress(BlockingIOError):  # it is stopped, and has much to read when it goes on
                try:
                    os.write(pipe, leash.WORD.pack(self._until()))
                except BrokenPipeError:
                    return
            await asyncio.sleep(self._every_s)


async def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            while process.poll() is None:  # noqa: ASYNC110 - no event tells of it where no loop watches children
                await asyncio.sleep(0.01)
    if process.poll() is None:
        process.kill()
        process.wait()
