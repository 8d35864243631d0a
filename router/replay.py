"""Replaying stored failures through their own mappings.

A failure is claimed in the store before it runs, so it never runs twice at once, and it stays claimed until its end is
written, so a killed daemon takes it up again at its next start. A replay runs in the lanes of its keys, by the
mapping's own rules except record age: what expired once would expire again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from router.errors import StoreUnavailable
from router.ports import Selection, SetStatus, Store, Unclaim
from router.runner import Runner
from router.supervisor import MappingLife
from router.telemetry import Log

T = TypeVar("T")

#: Longest wait before the store is asked again.
STORE_RETRY_CAP_S = 60.0
#: Replays that are with the mappings at once; later ones wait here, in order.
REPLAYS_AT_ONCE = 64
#: How long a replay that somebody asks for waits for its mapping to run.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class ReplayEnd:
    """How one replay ended."""

    id: str
    #: replayed | failed_again | refused
    outcome: str
    new_failures: Sequence[str] = ()
    #: Why it was refused.
    reason: str | None = None


class Replayer:
    """Hands claimed failures to the mappings and writes down how they end. Is the runners' ReplayListener."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        #: Set before `run`.
        self.lives: Mapping[str, MappingLife] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._ends: dict[str, asyncio.Future[ReplayEnd]] = {}

    async def run(self) -> None:
        """Take up what a former daemon left claimed, and carry jobs until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            left = await self._insist(partial(self._store.failures, Selection(statuses=("replaying",))))
            for mapping in {entry.batch.mapping for entry in left}:
                mine = [entry.batch.id for entry in left if entry.batch.mapping == mapping]
                self._tasks.create_task(self._work(mine, 0.0, asyncio.Queue(), claimed=True))
            await asyncio.get_running_loop().create_future()

    def start(self, failure_ids: Sequence[str], interval_s: float) -> asyncio.Queue[ReplayEnd | None]:
        """Begin a job that replays failures in this order, one every `interval_s` seconds at most.

        It goes on when nobody listens. Its queue gives the ends as they come, then None.
        """
        assert self._tasks is not None, "jobs come only while the replayer runs"
        ends: asyncio.Queue[ReplayEnd | None] = asyncio.Queue()
        self._tasks.create_task(self._work(failure_ids, interval_s, ends))
        return ends

    # --- what runners say

    def replayed(self, failure_id: str, new_failures: tuple[str, ...]) -> None:
        self._end(ReplayEnd(failure_id, "failed_again" if new_failures else "replayed", new_failures))

    def refused(self, failure_id: str, reason: str, *, failed: bool = False) -> None:
        self._end(ReplayEnd(failure_id, "failed_again" if failed else "refused", reason=reason))

    def _end(self, end: ReplayEnd) -> None:
        waiting = self._ends.get(end.id)
        if waiting and not waiting.done():
            waiting.set_result(end)

    # --- one job

    async def _work(
        self,
        failure_ids: Sequence[str],
        interval_s: float,
        ends: asyncio.Queue[ReplayEnd | None],
        *,
        claimed: bool = False,
    ) -> None:
        running: set[asyncio.Task[ReplayEnd]] = set()
        for failure_id in failure_ids:
            why_not = None if claimed else await self._claim(failure_id)
            if why_not:
                ends.put_nowait(ReplayEnd(failure_id, "refused", reason=why_not))
            else:
                running.add(await self._start(failure_id, None if claimed else PATIENCE_S))
            at_once = REPLAYS_AT_ONCE if failure_id != failure_ids[-1] else 1
            while len(running) >= at_once:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    ends.put_nowait(task.result())
            await asyncio.sleep(interval_s)
        ends.put_nowait(None)

    async def _claim(self, failure_id: str) -> str | None:
        """Make a failure ours to replay; else say why it is not."""
        try:
            won = await self._store.claim([failure_id])
        except StoreUnavailable as error:
            return str(error)
        return None if won else "it is being replayed already, or was dropped"

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store until it works: what is claimed is not left half-way."""
        refusals = 0
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                self._log.write("store.failed", error=str(error))
                await asyncio.sleep(min(2.0**refusals, STORE_RETRY_CAP_S))
                refusals = min(refusals + 1, 16)

    async def _start(self, failure_id: str, patience_s: float | None) -> asyncio.Task[ReplayEnd]:
        """Begin a claimed failure, and give the task that has its end; it waits so long for its mapping to run."""
        assert self._tasks is not None
        found = await self._insist(partial(self._store.failures, Selection(ids=(failure_id,))))
        event = await self._insist(partial(self._store.event, failure_id))
        name = found[0].batch.mapping if found else ""
        life = self.lives.get(name)
        if event is None or life is None or life.is_down:
            absent = f"its mapping {name!r} is not configured, disabled, or has failed; see `headrace status`"
            reason = absent if found and event else "its records are gone"
            return self._tasks.create_task(self._settle(ReplayEnd(failure_id, "refused", reason=reason)))
        return self._tasks.create_task(self._carry(failure_id, event, life, patience_s))

    async def _carry(self, failure_id: str, event: bytes, life: MappingLife, patience_s: float | None) -> ReplayEnd:
        """Have a mapping run a failure, again by its next runner when one ends early, and write down the end."""
        end = self._ends[failure_id] = asyncio.get_running_loop().create_future()
        while not end.done():
            try:
                runner = await self._hand_over(failure_id, event, life, patience_s)
            except TimeoutError:
                self.refused(failure_id, f"its mapping {life.name} does not run; see `headrace status`")
            except ValueError as error:
                self.refused(failure_id, f"its stored event cannot be read: {error}")
            else:
                ended = asyncio.ensure_future(runner.ended.wait())
                either: list[asyncio.Future[Any]] = [ended, end]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
        del self._ends[failure_id]
        return await self._settle(end.result())

    async def _hand_over(self, failure_id: str, event: bytes, life: MappingLife, patience_s: float | None) -> Runner:
        runner = life.runner
        async with asyncio.timeout(patience_s):
            while runner is None or runner.ended.is_set():
                await life.running.wait()
                await asyncio.sleep(0)  # a run that has ended is still being put away
                runner = life.runner
        runner.replay(failure_id, event)
        return runner

    async def _settle(self, end: ReplayEnd) -> ReplayEnd:
        """Write down how a replay ended."""
        change = Unclaim(end.id) if end.outcome == "refused" else SetStatus(end.id, end.outcome)
        await self._insist(partial(self._store.apply, [change]))
        if end.outcome == "refused":
            self._log.write("failure.replay_refused", failure=end.id, reason=end.reason)
        else:
            self._log.write("failure.replayed", failure=end.id, outcome=end.outcome)
        return end
