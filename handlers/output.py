"""What a worker and its children print: one pipe, read as it comes, kept up to a limit per request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from typing import Final

#: Output of one request that is kept.
LIMIT_BYTES: Final = 1024 * 1024
#: As much as a pipe holds: one read empties it, and holds up the loop for no longer.
_READ_BYTES: Final = 64 * 1024

#: Hears what workers print as it comes. Must not raise.
Heard = Callable[[bytes], None]


class Output:
    """The reading end of a worker's standard output and error.

    A handler that prints a flood is read on, so that it can end. Between invocations nobody is waited for: what prints
    beyond the limit then (a child that was left behind) has to wait.
    """

    def __init__(self, descriptor: int, heard: Heard | None) -> None:
        self._descriptor = descriptor
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()
        self._parts: list[bytes] = []
        self._kept_bytes = 0
        self._dropped_bytes = 0
        #: Does anything run whose output must flow?
        self.is_awaited = True
        #: Is it not read on? Whatever sets `is_awaited` resumes it then.
        self.is_paused = False
        os.set_blocking(descriptor, False)
        self._poll.register(descriptor, select.POLLIN)
        self._loop.add_reader(descriptor, self._read)

    def resume(self) -> None:
        """Read on."""
        self.is_paused = False
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._read)

    def take(self) -> str:
        """Give what was printed until now, as text that ends with a line, and begin anew."""
        if self._descriptor >= 0 and self._poll.poll(0):
            self._read()
        return self.take_read() if self._parts else ""

    def take_read(self) -> str:
        """Like `take`, without looking whether there is more than the event loop has seen already."""
        if not self._parts:
            return ""
        text = b"".join(self._parts).decode(errors="replace")
        if not text.endswith("\n"):
            text += "\n"
        if self._dropped_bytes:
            text += f"[{self._dropped_bytes} more bytes of output were not kept]\n"
        self._clear()
        return text

    def take_lines(self) -> str:
        """Give the whole lines that were read until now; what there is of the next one is given later."""
        if self._dropped_bytes:
            return self.take_read()
        printed = b"".join(self._parts)
        end = printed.rfind(b"\n") + 1
        self._clear()
        if end < len(printed):
            self._parts.append(printed[end:])
            self._kept_bytes = len(printed) - end
        return printed[:end].decode(errors="replace")

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _clear(self) -> None:
        self._parts = []
        self._kept_bytes = 0
        self._dropped_bytes = 0

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._descriptor, _READ_BYTES)
            if piece:
                self._keep(piece)
                if self._heard is not None:
                    self._heard(piece)
            else:
                self.close()

    def _keep(self, piece: bytes) -> None:
        room = LIMIT_BYTES - self._kept_bytes
        if room <= 0 and not self.is_awaited:
            self.is_paused = True
            self._loop.remove_reader(self._descriptor)
        if room > 0:
            self._parts.append(piece[:room])
        self._kept_bytes += min(room, len(piece))
        self._dropped_bytes += max(0, len(piece) - room)
