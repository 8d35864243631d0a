"""Takes asynchronous events in, and sees to it that they run: at once, after a restart, or for a dead replica.

An event is in the inbox before it is accepted, and stays there until it is done with and all its targets have accepted.
What happens in between is written when it changes, so a restart or a kill goes on from there: at worst an event runs
once more. One process runs what it has accepted; in a fleet also what a dead replica has left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from router.asynchronous.life import InboxLife, Outside
from router.core.async_engine import LineFacts
from router.core.asynchronous import AsyncEvent, Line
from router.core.model import Outcome
from router.errors import StoreUnavailable
from router.event_ports import AcceptEvent, Waiting
from router.ports import Invocation, Told

#: Between two looks at how much waits, for people.
LOOK_EVERY_S: Final = 2.0
#: Between two looks whether what is in the inbox is ours, while it is not.
TENURE_EVERY_S: Final = 0.2
#: In a fleet: between two looks for what replicas have left that stopped. Who is started again soon finds its own.
OWNERS_EVERY_S: Final = 30.0
#: What the handler of an event without a payload is given.
NO_PAYLOAD: Final = b"{}"


class AsyncEvents:
    """The asynchronous events of a daemon. Is the Accepts of what takes them in."""

    def __init__(self, out: Outside) -> None:
        """Make it; nothing runs before `run`, but events may be accepted."""
        self._out = out
        self._life: InboxLife | None = None
        #: Events that are being written: what a page has of them is not for its reader yet.
        self._accepting: set[str] = set()
        #: Invocations that have not ended, whichever life has begun them.
        self._flying = 0
        self._landed = asyncio.Event()
        self._is_stopping = False
        #: Dead replicas whose events fall to us.
        self._orphaned: set[str] = set()
        #: Replicas that had something at the last look and were not there, and when the next look is, loop time.
        self._absent: set[str] = set()
        self._owners_at_s = 0.0
        #: How much waited when that was looked at last, by line.
        self.waiting: Mapping[Line, Waiting] = {}

    async def accept(
        self,
        function: str,
        qualifier: str | None,
        payload: bytes,
        *,
        request_id: str,
        client_context: str | None = None,
        trace_id: str | None = None,
        replays: str | None = None,
        is_new: bool = True,
    ) -> None:
        now_s = self._out.wall()
        event = AsyncEvent(
            request_id,
            function,
            qualifier,
            now_s,
            now_s,
            len(payload),
            client_context=client_context,
            trace_id=trace_id,
            replays=replays,
        )
        self._accepting.add(request_id)
        try:
            await self._out.inbox.apply([AcceptEvent(event, payload, is_new)])
        except BaseException:
            self._accepting.discard(request_id)
            if self._life:
                self._life.perhaps_accepted(event)
            raise
        self._accepting.discard(request_id)
        self._out.metrics.accepted.labels(function).inc()
        if self._life and is_new:
            self._life.accepted(event, payload)
        elif self._life:
            self._life.perhaps_accepted(event)

    async def run(self) -> None:
        """Run what is in the inbox until cancelled."""
        while True:
            while not (tenure := self._out.tenure()):  # noqa: ASYNC110 - the table of a fleet has no event for it
                await asyncio.sleep(TENURE_EVERY_S)
            while self._flying:  # what a former life has begun must not run beside itself
                self._landed.clear()
                await self._landed.wait()
            await self._live(tenure)

    async def _live(self, tenure: str) -> None:
        """Run what is in the inbox while it is ours as it was."""
        async with asyncio.TaskGroup() as tasks:
            self._life = life = InboxLife(self._out, self._invoke, self._accepting, tasks)
            try:
                await life.begin()
                for dead in self._orphaned:
                    life.spawn(self._adopt(life, dead))
                if self._is_stopping:
                    life.stop()
                while self._out.tenure() == tenure and not life.broken.done():
                    await self._look()
                    life.look(self.waiting)
                    await asyncio.wait([life.broken], timeout=LOOK_EVERY_S)
                if life.broken.done():
                    life.broken.result()
            finally:
                self._life = None
                life.end()

    async def _look(self) -> None:
        """See how much waits; and now and then, in a fleet, whether somebody has left who had something."""
        with contextlib.suppress(StoreUnavailable):
            self.waiting = await self._out.inbox.lines()
            now_s = asyncio.get_running_loop().time()
            if self._out.living and now_s >= self._owners_at_s:
                self._owners_at_s = now_s + OWNERS_EVERY_S
                absent = set(await self._out.inbox.owners()).difference(self._out.living())
                for left in absent & self._absent:  # not back since the last look
                    self.orphaned(left)
                self._absent = absent

    def stop(self) -> None:
        """Start nothing new. What runs goes on until `settle` has waited for it."""
        self._is_stopping = True
        if self._life:
            self._life.stop()

    async def settle(self, within_s: float) -> None:
        """Wait until what runs has ended and is written, so long; what takes longer runs again at the next start."""
        if self._life:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._life.finished.wait()

    def orphaned(self, dead: str) -> None:
        """Take over what a dead replica has left."""
        self._orphaned.add(dead)
        if self._life:
            self._life.spawn(self._adopt(self._life, dead))

    def lines(self) -> Mapping[Line, LineFacts]:
        """Say how the lines are that have something to do."""
        return self._life.engine.lines() if self._life else {}

    def trouble(self, line: Line) -> str | None:
        """Say what the last refusal of a line was; None = the last try was none."""
        return self._life.troubles.get(line) if self._life else None

    async def _adopt(self, life: InboxLife, dead: str) -> None:
        count = 0
        while await self._out.insist(partial(self._take_some, dead)):
            count += 1
            await life.find()
        self._orphaned.discard(dead)
        if count:
            self._out.log.write("events.adopted", replica=dead)

    async def _take_some(self, dead: str) -> bool:
        """Take over some of what a dead replica has left; one that lives again keeps it. Raises StoreUnavailable."""
        if self._out.living and dead in self._out.living():
            return False
        return await self._out.inbox.adopt(dead)

    def _invoke(self, event: AsyncEvent, version: str, payload: bytes, done: Callable[[Outcome], None]) -> None:
        def ended(outcome: Outcome) -> None:
            self._flying -= 1
            self._landed.set()
            done(outcome)

        self._out.metrics.age.labels(event.function).observe(max(0.0, self._out.wall() - event.accepted_s))
        arn = self._out.standings.arn(event.function, event.qualifier)
        is_told = arn or event.client_context or event.trace_id
        told = Told(arn, event.client_context, event.trace_id) if is_told else None
        invocation = Invocation(
            event.id, lambda: payload or NO_PAYLOAD, wants_body=True, done=ended, wants_raw=True, told=told
        )
        self._out.functions.invoke(event.function, version, invocation)
        self._flying += 1
