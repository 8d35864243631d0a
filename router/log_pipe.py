"""Log lines on their way to standard error, which somebody may have stopped reading.

A pipe that is full makes who writes wait, and a daemon that waits there carries nothing. Only a thread waits here: it
takes the lines from a buffer of bounded size, and what does not fit is dropped, counted, and told of in one line as
soon as lines flow again.
"""

from __future__ import annotations

import io
import os
import select
import threading
from collections.abc import Callable
from typing import Final

#: What may wait for a reader, bytes.
LIMIT_BYTES: Final = 1024 * 1024
#: How long the end of the process waits for who reads the last lines, seconds.
LAST_WORDS_S: Final = 2.0
#: What one call writes at most, bytes: as much as a pipe holds.
_PIECE_BYTES: Final = 64 * 1024


class LogPipe(io.TextIOBase):
    """A text stream whose writer never waits; in order, whole lines or none of them."""

    def __init__(self, descriptor: int, tell_dropped: Callable[[int], None], limit_bytes: int = LIMIT_BYTES) -> None:
        """Make it.

        Args:
            descriptor: Where the lines go.
            tell_dropped: Writes to this stream how many lines are missing at that place. Called in the stream's thread.
            limit_bytes: What may wait at most, beside what is being written.
        """
        self._descriptor = descriptor
        self._tell_dropped = tell_dropped
        self._limit_bytes = limit_bytes
        #: Guards what follows, and announces its changes; the thread writes a line of its own while it holds it.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._untold = 0
        #: Did the last write fail? Then it is not the time to tell.
        self._is_failing = False
        self._is_idle = True
        #: Lines dropped since the start.
        self.dropped_lines = 0
        threading.Thread(target=self._run, name="headrace-log", daemon=True).start()

    def write(self, text: str) -> int:
        data = text.encode(errors="backslashreplace")
        with self._changed:
            if self._waiting_bytes + len(data) > self._limit_bytes:
                self._drop(data)
            else:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
                self._changed.notify_all()
        return len(text)

    def finish(self, within_s: float = LAST_WORDS_S) -> None:
        """Wait until all is written, so long at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_idle and not self._waiting, within_s)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def _drop(self, data: bytes | memoryview) -> None:
        lines = bytes(data).count(b"\n")
        self._untold += lines
        self.dropped_lines += lines

    def _run(self) -> None:
        while True:
            self._write(self._take())

    def _take(self) -> bytes:
        """Wait for lines, and take all there are; what was dropped, was dropped behind them."""
        with self._changed:
            self._is_idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or (self._untold and not self._is_failing))
            self._is_idle = False
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if self._untold and not self._is_failing:
                untold, self._untold = self._untold, 0
                self._tell_dropped(untold)
            return data

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left[:_PIECE_BYTES]) :]
            except BlockingIOError:  # another process that has the same descriptor made it so
                select.select((), (self._descriptor,), ())
            except OSError:  # nobody will read it, or the disk is full
                with self._changed:
                    self._drop(left)
                self._is_failing = True
                return
        self._is_failing = False
