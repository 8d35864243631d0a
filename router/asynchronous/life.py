"""Carries out what the engine of asynchronous events commands, and tells it what happened. No decisions.

Facts are taken one at a time in the order they come. What is to be written goes in one step with whatever else is, and
is written whatever it takes: what became of an event is known nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from math import inf
from random import Random
from typing import Any, Final, Protocol

from router.asynchronous.answers import answer_of
from router.core import async_facts as f
from router.core.async_engine import AsyncEngine
from router.core.async_rules import Standing, is_refusal
from router.core.asynchronous import (
    AsyncEvent,
    Became,
    Condition,
    ForgetEvent,
    Line,
    Owe,
    PutOff,
    Settled,
    id_of,
    line_of,
)
from router.core.facts import Due, Finished, WakeAt
from router.core.model import Instant, Outcome
from router.errors import DestinationUnavailable, LeaseLost, StoreUnavailable
from router.event_ports import EventDeliveries, Functions, Inbox, Waiting, grows
from router.ports import WallClock
from router.stored import Insist
from router.supervisor import tell_bug
from router.telemetry import AsyncMetrics, Log

#: What has ended waits so long for more that is written with it, unless there is enough of that: each step costs a wait
#: for the disk, and pages of it.
LINGER_S: Final = 0.05
ENOUGH: Final = 256
#: Changes that are written in one step, at most.
WRITE_AT_ONCE: Final = 500

#: Runs an event of this payload in a version, and tells how that ended.
Invoke = Callable[[AsyncEvent, str, bytes, Callable[[Outcome], None]], None]


class Standings(Protocol):
    """How functions take events now."""

    def of(self, name: str, qualifier: str | None) -> Standing:
        """Say it of what is invoked under a version, an alias, or neither."""
        ...

    def room(self, name: str) -> int:
        """Say how many events of a function run at once, at most."""
        ...

    def arn(self, name: str, qualifier: str | None) -> str | None:
        """Give the ARN that a function is told; None = the one that it knows."""
        ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What asynchronous events have to do with."""

    inbox: Inbox
    functions: Functions
    deliveries: EventDeliveries
    standings: Standings
    insist: Insist
    metrics: AsyncMetrics
    log: Log
    wall: WallClock
    #: Chance, for waits.
    rng: Random
    #: As whom we have what is in the inbox: another text, and others may have taken it over; empty = not yet.
    tenure: Callable[[], str] = lambda: "alone"
    #: The replicas that live, ourselves too; None = we are alone.
    living: Callable[[], Collection[str]] | None = None


#: A change, the id of its row, and the row as it is then.
_Change = tuple[Became, str, f.Row | None]


@dataclass(frozen=True, slots=True)
class _Changes:
    """Changes that wait to be written; of each row there is one at most."""

    waiting: deque[_Change] = field(default_factory=deque)
    is_there: asyncio.Event = field(default_factory=asyncio.Event)
    is_enough: asyncio.Event = field(default_factory=asyncio.Event)


class InboxLife:
    """One run over the inbox, with its engine."""

    def __init__(self, out: Outside, invoke: Invoke, accepting: AbstractSet[str], tasks: asyncio.TaskGroup) -> None:
        """Make it.

        Args:
            out: everything else.
            invoke: runs an event, and tells how that ended.
            accepting: ids of events that are being written: `accepted` follows.
            tasks: what goes on beside.
        """
        self._out = out
        self._accepting = accepting
        self._invoke = invoke
        self._tasks = tasks
        #: Of these, what is ours.
        self._works: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.engine = AsyncEngine(out.standings.of, out.standings.room, out.rng)
        self.finished = asyncio.Event()
        #: Has the bug that has ended it.
        self.broken: asyncio.Future[None] = self._loop.create_future()
        #: What was said last where a function or a target did not take what was given to it.
        self.troubles: dict[Line, str] = {}
        self._facts: deque[f.AsyncFact] = deque()
        self._is_feeding = False
        self._is_over = False
        self._payloads: dict[str, bytes] = {}
        self._wake: asyncio.TimerHandle | None = None
        #: What is to be written, each with its id and what is in the inbox then.
        self._changes = _Changes()
        #: Of these, what makes the inbox larger: without room for that, what makes room is not to wait for it.
        self._growth = _Changes()
        #: Events that are done with and not counted yet, by function and condition: what counts is too slow for each.
        self._finished: Counter[tuple[str, str]] = Counter()
        #: What targets have answered to rows that are about to be written.
        self._refusals: dict[str, str] = {}
        #: Wall time until which others may have been cut off between keeping an event that failed and writing that.
        self._cut_off_s = inf
        #: Of those, successes that are about to be written; of hardly any a failure is kept.
        self._doubtful: dict[str, Settled] = {}

    async def begin(self) -> None:
        self.spawn(self._write(self._changes))
        self.spawn(self._write(self._growth))
        await self.find()

    async def find(self) -> None:
        """Look what is in the inbox, from before us or from a replica that is dead."""
        self._cut_off_s = self._out.wall()
        lines: Mapping[Line, Waiting] = await self._out.insist(self._out.inbox.lines)
        self._post(f.LinesFound({line: waiting.due_s for line, waiting in lines.items()}))

    def accepted(self, event: AsyncEvent, payload: bytes) -> None:
        self._payloads[event.id] = payload
        self._post(f.EventAccepted(event))

    def perhaps_accepted(self, event: AsyncEvent) -> None:
        """Look for an event that may have been written, though whoever brought it was not told so."""
        self._post(f.LinesFound({line_of(event): event.due_s}))

    def look(self, waiting: Mapping[Line, Waiting]) -> None:
        """Look for what waits in lines that seem to be empty: a store may write late what it seemed not to have."""
        known = self.engine.lines()
        idle = {line for line, facts in known.items() if facts.due_s is None and not facts.busy}
        strays = {line: rows.due_s for line, rows in waiting.items() if line not in known or line in idle}
        if strays:
            self._post(f.LinesFound(strays))

    def stop(self) -> None:
        self._post(f.Stop())

    def end(self) -> None:
        """Hear of nothing any more, and write nothing: what is in the inbox may be in others' hands."""
        self._is_over = True
        if self._wake:
            self._wake.cancel()
        for work in self._works:
            work.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    # --- the engine

    def _post(self, fact: f.AsyncFact) -> None:
        self._facts.append(fact)
        if self._is_feeding or self._is_over:
            return
        self._is_feeding = True
        try:
            while self._facts:
                now = Instant(self._loop.time(), self._out.wall())
                for command in self.engine.feed(self._facts.popleft(), now):
                    self._do(command)
        except Exception as bug:  # noqa: BLE001 - whoever tells a fact cannot help it; `run` ends with it
            self.end()
            self.broken.set_exception(bug)
        finally:
            self._is_feeding = False

    def _do(self, command: f.AsyncCommand) -> None:  # noqa: C901 - one case a command
        match command:
            case f.InvokeEvent(event, version):
                self._invoke(event, version, self._payloads[event.id], partial(self._ended, event, version))
            case f.Finish(settled, was):
                self._finish(settled, was)
            case f.Load():
                self.spawn(self._load(command))
            case f.Write(change):
                self._put(change)
            case f.Deliver(owe):
                self.spawn(self._deliver(owe))
            case f.Loosen(ids):
                for each in ids:
                    self._payloads.pop(each, None)
            case WakeAt(mono_s):
                if self._wake:
                    self._wake.cancel()
                self._wake = self._loop.call_at(mono_s, self._post, Due())
            case Finished():
                self.finished.set()

    # --- pages

    async def _load(self, wanted: f.Load) -> None:
        try:
            page = await self._out.inbox.page(
                wanted.line, wanted.until_s, wanted.limit, wanted.limit_bytes, wanted.known
            )
        except StoreUnavailable as error:
            self._out.log.write("store.failed", error=error)
            self._post(f.LoadFailed(wanted.line))
            return
        rows = [(row, payload) for row, payload in page.rows if id_of(row) not in self._accepting]
        self._payloads.update((id_of(row), payload) for row, payload in rows)
        self._post(f.PageLoaded(wanted.line, [row for row, _ in rows], page.next_due_s))

    # --- tries

    def _ended(self, event: AsyncEvent, version: str, outcome: Outcome) -> None:
        answer = answer_of(outcome, event.id, version)
        line: Line = ("run", event.function)
        if answer is None or not is_refusal(answer):
            self.troubles.pop(line, None)
        else:
            self.troubles[line] = answer.error_message or "no room: it is throttled"
        self._post(f.Tried(event.id, answer))

    def _finish(self, settled: Settled, was: AsyncEvent) -> None:
        event = settled.event
        self._finished[event.function, settled.condition.value] += 1
        if settled.condition is Condition.SUCCESS and event.replays is None:
            if event.accepted_s <= self._cut_off_s:
                self._doubtful[event.id] = settled
            self._owe(settled, self._out.deliveries.targets(settled), was)
        else:
            self.spawn(self._keep(settled, self._payloads[event.id], was))

    async def _keep(self, settled: Settled, payload: bytes, was: AsyncEvent) -> None:
        deliveries = self._out.deliveries
        targets = deliveries.targets(settled)
        line: Line = ("run", settled.event.function)

        async def keep() -> None:
            try:
                await deliveries.keep(settled, payload, targets)
            except StoreUnavailable as error:
                self.troubles[line] = str(error)
                raise

        try:
            await self._out.insist(keep)
        except LeaseLost:  # another replica has taken it over while we were cut off, and keeps how it ends there
            targets = ()
        self.troubles.pop(line, None)
        self._owe(settled, targets, was)

    def _owe(self, settled: Settled, targets: tuple[str, ...], was: AsyncEvent) -> None:
        owe = Owe(settled, targets, settled.at_s) if targets else ForgetEvent(settled.event.id)
        self._put(Became(owe, was))

    # --- deliveries

    async def _deliver(self, owe: Owe) -> None:
        settled, target = owe.settled, owe.targets[0]
        payload = self._payloads[settled.event.id]
        try:
            await self._out.deliveries.deliver(target, settled, payload)
        except DestinationUnavailable as error:
            self._not_told(owe, str(error))
            return
        except Exception as bug:  # noqa: BLE001 - it is logged with its trace, and that target alone waits
            tell_bug(self._out.log, bug)
            self._not_told(owe, f"a bug, see `background.crashed` in the log: {bug!r}")
            return
        self.troubles.pop(("tell", target), None)
        if len(owe.targets) == 1:
            await self._out.insist(partial(self._out.deliveries.note, settled, None))
        self._post(f.Delivered(settled.event.id))

    def _not_told(self, owe: Owe, why: str) -> None:
        self.troubles["tell", owe.targets[0]] = why
        self._refusals[owe.settled.event.id] = why
        self._post(f.NotDelivered(owe.settled.event.id))

    async def _note(self, owe: Owe, error: str) -> None:
        with contextlib.suppress(StoreUnavailable):  # it is told to people only
            await self._out.deliveries.note(owe.settled, error, owe.due_s)

    # --- writing

    def _put(self, change: Became) -> None:
        """Have a change written, whatever it takes."""
        row_id = id_of(change.was)
        row: f.Row | None = None
        match change.what:
            case PutOff(event):
                self._out.metrics.retried.labels(event.function).inc()
                row = event
            case Owe() as owe:
                row = owe
                if error := self._refusals.pop(row_id, None):
                    self.spawn(self._note(owe, error))
            case ForgetEvent():
                pass
        to = self._growth if grows(change) else self._changes
        to.waiting.append((change, row_id, row))
        to.is_there.set()
        if len(to.waiting) >= ENOUGH:
            to.is_enough.set()

    async def _write(self, changes: _Changes) -> None:
        waiting = changes.waiting
        while True:
            await changes.is_there.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await changes.is_enough.wait()
            some = [waiting.popleft() for _ in range(min(WRITE_AT_ONCE, len(waiting)))]
            if not waiting:
                changes.is_there.clear()
            if len(waiting) < ENOUGH:
                changes.is_enough.clear()
            self._count_finished()
            sure = await self._sort_out(some)
            await self._out.insist(partial(self._out.inbox.apply, [change for change, _, _ in sure]))
            self._post(f.Written({row_id: row for _, row_id, row in sure}))

    async def _sort_out(self, some: Sequence[_Change]) -> Sequence[_Change]:
        """Give what may be written; of a success of which a failure is kept that is to be settled first."""
        doubtful = {row_id: settled for _, row_id, _ in some if (settled := self._doubtful.pop(row_id, None))}
        if not doubtful:
            return some
        kept = await self._out.insist(partial(self._out.deliveries.outlived, list(doubtful.values())))
        for change, row_id, _ in some:
            if row_id in kept:
                assert isinstance(change.was, AsyncEvent), "it has succeeded just now"
                self.spawn(self._keep(doubtful[row_id], self._payloads[row_id], change.was))
        return [each for each in some if each[1] not in kept]

    def _count_finished(self) -> None:
        for (function, condition), count in self._finished.items():
            self._out.metrics.finished.labels(function, condition).inc(count)
        self._finished.clear()
