"""An Invoker without processes: outcomes and durations come from a function of the event."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from router.core.model import Cancelled, Outcome
from router.ports import Invocation

#: (request id, event) -> seconds it takes, and how it ends.
Script = Callable[[str, bytes], tuple[float, Outcome]]


class MemoryInvoker:
    """Runs up to `concurrency` invocations at once on the loop's own time."""

    def __init__(self, script: Script, concurrency: int = 100) -> None:
        self._script = script
        self._free = concurrency
        self._waiting: deque[Invocation] = deque()
        self._running: dict[str, tuple[Invocation, asyncio.TimerHandle]] = {}
        self._is_closed = False

    def invoke(self, invocation: Invocation) -> None:
        if self._is_closed:
            asyncio.get_running_loop().call_soon(invocation.done, Cancelled())
            return
        self._waiting.append(invocation)
        self._assign()

    def cancel(self, request_id: str, *, waiting_only: bool) -> None:
        for invocation in self._waiting:
            if invocation.request_id == request_id:
                self._waiting.remove(invocation)
                asyncio.get_running_loop().call_soon(invocation.done, Cancelled())
                return
        if not waiting_only and request_id in self._running:
            _, timer = self._running[request_id]
            timer.cancel()
            asyncio.get_running_loop().call_soon(self._end, request_id, Cancelled())

    async def close(self) -> None:
        self._is_closed = True
        for request_id in [*self._running, *(waiting.request_id for waiting in self._waiting)]:
            self.cancel(request_id, waiting_only=False)

    def _assign(self) -> None:
        while self._waiting and self._free:
            self._free -= 1
            invocation = self._waiting.popleft()
            duration_s, outcome = self._script(invocation.request_id, invocation.event())
            timer = asyncio.get_running_loop().call_later(duration_s, self._end, invocation.request_id, outcome)
            self._running[invocation.request_id] = (invocation, timer)

    def _end(self, request_id: str, outcome: Outcome) -> None:
        invocation, _ = self._running.pop(request_id)
        self._free += 1
        self._assign()
        invocation.done(outcome)
