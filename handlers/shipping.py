"""A LogSink that ships what functions print to the streams of a log group elsewhere, line by line, while they run.

Nothing that is invoked waits for it: what is written is only noted, up to a limit of bytes for each function, and one
task ships it, all streams at once and each in order. While nothing is accepted, tries are spaced out; what finds no
room meanwhile is lost, which is counted, told to the operator, and said in the stream where it is missing.

Weak spot: what waits is in memory only. A daemon that is killed loses it; one that stops ships it within a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

from handlers.log_batches import Printed, take_batch, utf8_bytes
from router.errors import DestinationUnavailable
from router.ports import LogLine, LogStreams, WallClock

#: What of one function waits, at most.
WAITING_BYTES: Final = 8 * 1024 * 1024
#: What comes within this time is shipped together.
GATHER_S: Final = 0.3
RETRY_BASE_S: Final = 0.5
RETRY_CAP_S: Final = 30.0
#: Time that a function that ends has to ship what waits.
CLOSE_S: Final = 3.0
#: Why lines are lost.
NO_ROOM: Final = "more was printed than was accepted"
NO_TIME: Final = "they were not accepted before the function ended"
REFUSED_TIMES: Final = "their times were refused; set this machine's clock"
#: Bytes from which waiting for more makes no sense.
_PLENTY_BYTES: Final = 512 * 1024


class Listener(Protocol):
    """Who wants to know how shipping goes."""

    def refused(self, error: str) -> None:
        """Learn that nothing is accepted, for the first time since something was."""
        ...

    def accepted(self) -> None:
        """Learn that lines are accepted again."""
        ...

    def lost(self, count_bytes: int, reason: str) -> None:
        """Learn that so much is lost."""
        ...


@dataclass(slots=True)
class _Stream:
    """What waits for one stream."""

    waiting: deque[Printed] = field(default_factory=deque)
    #: Taken off already, and not accepted yet.
    batch: list[LogLine] = field(default_factory=list)
    #: What is missing behind all that waits.
    lost_bytes: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.waiting or self.batch or self.lost_bytes)


class Shipper:
    """Ships the log of one function. To be made and used on the event loop's thread."""

    #: Takes the log of an invocation in pieces, while it runs.
    is_live = True

    def __init__(self, group: str, streams: LogStreams, listener: Listener, wall: WallClock) -> None:
        self._group = group
        self._streams = streams
        self._listener = listener
        self._wall = wall
        self._waiting: dict[str, _Stream] = {}
        self._waiting_bytes = 0
        self._shipping: asyncio.Task[None] | None = None
        #: Set where there is no time to wait for more.
        self._hurry = asyncio.Event()
        self._is_closing = False
        self._refusals = 0

    def write(self, request_id: str, text: str, stream: str = "") -> None:  # noqa: ARG002 - START says whose the lines are
        if not text:
            return
        text = text if text.isascii() else text.encode(errors="replace").decode()
        size = utf8_bytes(text)
        into = self._waiting.setdefault(stream, _Stream())
        if self._is_closing or self._waiting_bytes + size > WAITING_BYTES:
            into.lost_bytes += size
            self._listener.lost(size, NO_ROOM)
        else:
            self._say_what_is_missing(into)
            into.waiting.append((self._now_ms(), text))
            self._waiting_bytes += size
        if self._waiting_bytes >= _PLENTY_BYTES and not self._refusals:
            self._hurry.set()
        if self._shipping is None and not self._is_closing:
            self._shipping = asyncio.get_running_loop().create_task(self._ship())

    async def close(self) -> None:
        """Ship what waits, within a bound, and end. May come twice."""
        self._is_closing = True
        self._hurry.set()
        shipping = self._shipping
        if shipping is not None:
            await asyncio.wait((shipping,), timeout=CLOSE_S)
            shipping.cancel()
            await asyncio.wait((shipping,))
        if self._waiting_bytes:
            self._listener.lost(self._waiting_bytes, NO_TIME)
            self._waiting_bytes = 0
        self._waiting.clear()
        await self._streams.close()

    def _say_what_is_missing(self, stream: _Stream) -> None:
        """Let a line stand where others are missing."""
        if stream.lost_bytes:
            text = f"[{stream.lost_bytes} bytes of log were lost: {NO_ROOM}]\n"
            stream.waiting.append((self._now_ms(), text))
            self._waiting_bytes += len(text)
            stream.lost_bytes = 0

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    # --- the task

    async def _ship(self) -> None:
        """Ship until nothing waits."""
        try:
            await self._pause(GATHER_S)
            while self._waiting:
                errors = await asyncio.gather(*map(self._ship_some, list(self._waiting)))
                refusal = next(filter(None, errors), None)
                self._note(refusal, is_total=all(errors))
                await self._pause(GATHER_S if refusal is None else self._retry_s())
        finally:
            self._shipping = None

    async def _ship_some(self, name: str) -> str | None:
        """Ship what one call may hold of a stream, and say why it was not accepted."""
        stream = self._waiting[name]
        if not stream.batch:
            if not stream.waiting:
                self._say_what_is_missing(stream)
            stream.batch = take_batch(stream.waiting)
        try:
            rejected = await self._streams.put(self._group, name, stream.batch)
        except DestinationUnavailable as error:
            return str(error)
        size = sum(utf8_bytes(line.text) for line in stream.batch)
        self._waiting_bytes -= size
        if rejected:
            self._listener.lost(size * rejected // len(stream.batch), REFUSED_TIMES)
        stream.batch = []
        if stream.is_empty:
            del self._waiting[name]
        return None

    def _note(self, refusal: str | None, *, is_total: bool) -> None:
        """Learn how one round went; where some streams are refused, the others go on."""
        if refusal is None:
            if self._refusals:
                self._listener.accepted()
            self._refusals = 0
            return
        if not self._refusals:
            self._listener.refused(refusal)
        self._refusals = self._refusals + 1 if is_total else 1

    def _retry_s(self) -> float:
        wait_s = min(RETRY_CAP_S, RETRY_BASE_S * 2.0 ** min(self._refusals - 1, 16))
        return wait_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads what many functions ask for at once

    async def _pause(self, wait_s: float) -> None:
        """Wait for more, or for a better time, unless there is a hurry."""
        if self._is_closing:
            wait_s = min(wait_s, GATHER_S) if self._refusals else 0.0
            await asyncio.sleep(wait_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._hurry.wait()
        self._hurry.clear()
