"""One function that runs elsewhere: so many calls at once, and a target that refuses is left alone for a while.

Invocations wait in the order they came. A call that was not accepted ends as Refused, which spends no attempt; then
nothing is called for a while that grows with every refusal (or for as long as the target asks), and after it one call
at a time until one is accepted, so that a target that is away or overrun is not hammered by all that waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import Final

from handlers import results
from handlers.logs import LogSink
from handlers.pool import PoolStatus
from router.core.model import EVENT_LIMIT_BYTES, Cancelled, FunctionError, Outcome, Refused, Returned, TooLarge
from router.ports import Answered, Invocation, Target

_PAUSE_BASE_S: Final = 0.1
_PAUSE_CAP_S: Final = 5.0
#: Longest pause that a target may ask for.
_ASKED_CAP_S: Final = 60.0


class Remote:
    """An Invoker (router.ports) over a target."""

    def __init__(self, target: Target, *, concurrency: int, sink: LogSink | None = None) -> None:
        """Make it on the event loop's thread, without I/O; `concurrency` is the most calls at once."""
        self._target = target
        self._concurrency = concurrency
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Invocation] = deque()
        self._calls: dict[Invocation, asyncio.Task[Answered]] = {}
        self._pause: asyncio.TimerHandle | None = None
        #: Refusals since something was accepted, those of one pause counted once.
        self._refusals = 0
        self._error: FunctionError | None = None
        self._is_closed = False

    # --- what the port asks for

    def invoke(self, invocation: Invocation) -> None:
        if self._is_closed:
            self._end(invocation, Cancelled())
            return
        self._waiting.append(invocation)
        self._assign()

    def cancel(self, request_id: str, *, waiting_only: bool) -> None:
        for invocation in self._waiting:
            if invocation.request_id == request_id:
                self._waiting.remove(invocation)
                self._end(invocation, Cancelled())
                return
        if not waiting_only:
            for invocation, call in self._calls.items():
                if invocation.request_id == request_id:
                    call.cancel()

    def hurry(self) -> None:
        """A target that is away, or overrun, is not to be hurried."""

    async def close(self) -> None:
        """End all calls and connections; what waits or runs ends as Cancelled. May come twice."""
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        while self._waiting:
            self._end(self._waiting.popleft(), Cancelled())
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)
        await self._target.close()

    @property
    def status(self) -> PoolStatus:
        return PoolStatus(0, len(self._calls), len(self._waiting), self._error)

    # --- calls

    def _assign(self) -> None:
        """Call for what waits, as far as there is room."""
        room = 1 if self._refusals else self._concurrency
        while self._waiting and self._pause is None and len(self._calls) < room and not self._is_closed:
            self._start(self._waiting.popleft())

    def _start(self, invocation: Invocation) -> None:
        try:
            event = invocation.event()
        except Exception:  # noqa: BLE001  a batch that cannot be encoded is split, like one that is too large
            self._end(invocation, TooLarge(0))
            return
        if len(event) > EVENT_LIMIT_BYTES:
            self._end(invocation, TooLarge(len(event)))
            return
        call = self._loop.create_task(self._target.call(invocation.request_id, event))
        self._calls[invocation] = call
        call.add_done_callback(partial(self._ended, invocation, time.monotonic()))

    def _ended(self, invocation: Invocation, began_s: float, call: asyncio.Task[Answered]) -> None:
        del self._calls[invocation]
        outcome: Outcome = Cancelled()
        if not call.cancelled():
            bug = call.exception()
            # Whatever breaks: an invocation that never ends would hold its lane for ever.
            answered = call.result() if bug is None else Answered(Refused(FunctionError(type(bug).__name__, str(bug))))
            self._note(answered)
            self._log(invocation, answered.log)
            outcome = _timed(answered.outcome, invocation, (time.monotonic() - began_s) * 1000)
        self._assign()
        invocation.done(outcome)

    def _end(self, invocation: Invocation, outcome: Outcome) -> None:
        """End an invocation that was not called for, not from inside the call that brought it."""
        self._loop.call_soon(invocation.done, outcome)

    def _log(self, invocation: Invocation, text: str) -> None:
        if self._sink is not None and text:
            self._sink.write(invocation.request_id, text)
        if invocation.log is not None:
            invocation.log(text)

    # --- refusals

    def _note(self, answered: Answered) -> None:
        """Learn from an answer whether the target takes calls."""
        if not isinstance(answered.outcome, Refused):
            self._refusals, self._error = 0, None
            return
        self._error = answered.outcome.error
        asked_s = min(answered.wait_s, _ASKED_CAP_S)
        if self._pause is None:
            self._wait(max(asked_s, min(_PAUSE_BASE_S * 2**self._refusals, _PAUSE_CAP_S)))
            self._refusals = min(self._refusals + 1, 16)
        elif self._pause.when() < self._loop.time() + asked_s:
            self._pause.cancel()
            self._wait(asked_s)

    def _wait(self, pause_s: float) -> None:
        if not self._is_closed:
            self._pause = self._loop.call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._assign()


def _timed(outcome: Outcome, invocation: Invocation, duration_ms: float) -> Outcome:
    """Put in how long it took, and the result as it is wanted."""
    match outcome:
        case Returned(bytes() as result):
            return Returned(results.read(invocation, result), duration_ms)
        case Refused() | TooLarge() | Cancelled():
            return outcome
        case _:
            return replace(outcome, duration_ms=duration_ms)
