"""An inbox, functions and targets around an engine of asynchronous events, with what must always hold of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from router.core import async_facts as f
from router.core.async_engine import DELIVERIES_AT_ONCE, AsyncEngine, LineFacts
from router.core.async_rules import Standing
from router.core.asynchronous import (
    AsyncEvent,
    Became,
    Condition,
    LastAnswer,
    Line,
    Owe,
    PutOff,
    Settled,
    id_of,
    line_of,
)
from router.core.facts import Due, Finished, WakeAt
from router.core.model import Instant

LATEST = "$LATEST"
SUCCESS = LastAnswer(200, LATEST, None, b"{}")
FAILURE = LastAnswer(200, LATEST, "Unhandled", b'{"errorMessage":"boom"}', "boom")
THROTTLE = LastAnswer(429)
OUTAGE = LastAnswer(503, error_message="no worker")


@dataclass
class Loading:
    """A page that was asked for; `page` is what was read, once it is."""

    asked: f.Load
    page: f.PageLoaded | None = None


@dataclass
class World:
    """Everything outside of an engine, under a clock that is moved by hand."""

    seed: int = 0
    wall_s: float = 1_000_000.0
    mono_s: float = 0.0
    #: What is on disk: rows by id.
    inbox: dict[str, f.Row] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)
    rooms: dict[str, int] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    loads: list[Loading] = field(default_factory=list)
    running: dict[str, f.InvokeEvent] = field(default_factory=dict)
    telling: dict[str, f.Deliver] = field(default_factory=dict)
    writes: dict[str, f.Finish | f.Write] = field(default_factory=dict)
    #: Of these, what is on disk while the engine has not been told.
    committed: dict[str, f.Row | None] = field(default_factory=dict)
    #: Ids of events whose payloads are in memory.
    payloads: set[str] = field(default_factory=set)
    wake_s: float | None = None
    is_draining: bool = False
    is_finished: bool = False
    #: Tries that were started, by event; those that a crash has cut off do not count.
    started: Counter[str] = field(default_factory=Counter)
    ended: dict[str, list[Settled]] = field(default_factory=dict)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    crashes: int = 0
    #: Was the clock set back? Then some tries come early, for none is to come late.
    is_set_back: bool = False

    def __post_init__(self) -> None:
        self.engine = self._new_engine()

    def _new_engine(self) -> AsyncEngine:
        return AsyncEngine(self.standing, lambda name: self.rooms.get(name, 2), Random(self.seed))

    def standing(self, function: str, qualifier: str | None) -> Standing:
        del qualifier
        return self.standings.get(function, Standing(LATEST))

    @property
    def now(self) -> Instant:
        return Instant(self.mono_s, self.wall_s)

    # --- what happens

    def accept(self, event_id: str, function: str = "f", size: int = 10) -> None:
        event = AsyncEvent(event_id, function, None, self.wall_s, self.wall_s, size)
        self.inbox[event_id] = event
        self.payloads.add(event_id)
        self.accepted.add(event_id)
        self.feed(f.EventAccepted(event))

    def put(self, *rows: f.Row) -> None:
        """Have rows on disk that an earlier process has left."""
        for row in rows:
            self.inbox[id_of(row)] = row
            self.accepted.add(id_of(row))

    def find(self) -> None:
        """Tell the engine what is on disk."""
        first: dict[Line, float] = {}
        for row in self.inbox.values():
            key = line_of(row)
            first[key] = min(first.get(key, row.due_s), row.due_s)
        self.feed(f.LinesFound(first))

    def read(self, loading: Loading) -> None:
        """Read a page from disk as it is now."""
        asked = loading.asked
        rows = [row for row in self.inbox.values() if line_of(row) == asked.line and id_of(row) not in asked.known]
        rows.sort(key=lambda row: (row.due_s, id_of(row)))
        page = [row for row in rows if row.due_s <= asked.until_s][: asked.limit]
        behind = rows[len(page) :]
        loading.page = f.PageLoaded(asked.line, page, behind[0].due_s if behind else None)

    def loaded(self, loading: Loading) -> None:
        if loading.page is None:
            self.read(loading)
        assert loading.page is not None
        self.loads.remove(loading)
        self.payloads.update(map(id_of, loading.page.rows))
        self.feed(loading.page)

    def load_failed(self, loading: Loading) -> None:
        self.loads.remove(loading)
        self.feed(f.LoadFailed(loading.asked.line))

    def tried(self, event_id: str, answer: LastAnswer | None) -> None:
        del self.running[event_id]
        if answer is None:
            self.started[event_id] -= 1
        self.feed(f.Tried(event_id, answer))

    def delivered(self, row_id: str, *, accepted: bool = True) -> None:
        owe = self.telling.pop(row_id).owe
        if accepted:
            self.told[row_id, owe.targets[0]] += 1
        self.feed(f.Delivered(row_id) if accepted else f.NotDelivered(row_id))

    def written(self, row_id: str) -> None:
        self.commit(row_id)
        del self.writes[row_id]
        self.feed(f.Written({row_id: self.committed.pop(row_id)}))

    def commit(self, row_id: str) -> None:
        """Have it on disk, where pages may show it before the engine is told."""
        if row_id in self.committed:
            return
        command = self.writes[row_id]
        row: f.Row | None = None
        if isinstance(command, f.Finish):
            settled = command.settled
            self.ended.setdefault(row_id, []).append(settled)
            row = Owe(settled, self.targets, self.wall_s) if self.targets else None
        elif isinstance(command.change.what, PutOff):
            row = command.change.what.event
        elif isinstance(command.change.what, Owe):
            row = command.change.what
        if row is None:
            self.inbox.pop(row_id, None)
        else:
            self.inbox[row_id] = row
        self.committed[row_id] = row

    def pass_time(self, seconds: float) -> None:
        self.mono_s += seconds
        self.wall_s += seconds
        if self.wake_s is not None and self.wake_s <= self.mono_s:
            self.wake_s = None
            self.feed(Due())

    def step_clock(self, seconds: float) -> None:
        self.wall_s += seconds
        self.is_set_back |= seconds < 0.0

    def drain(self) -> None:
        self.is_draining = True
        self.feed(f.Stop())

    def crash(self) -> None:
        """End the process and start another: only the disk is left."""
        self.crashes += 1
        self.started.subtract(self.running.keys())
        self.loads.clear()
        self.running.clear()
        self.telling.clear()
        self.writes.clear()
        self.committed.clear()
        self.payloads.clear()
        self.wake_s, self.is_draining, self.is_finished = None, False, False
        self.engine = self._new_engine()
        self.find()

    # --- what is asked for

    def feed(self, fact: f.AsyncFact) -> None:
        for command in self.engine.feed(fact, self.now):
            self._carry_out(command)
        self.check()

    def _carry_out(self, command: f.AsyncCommand) -> None:
        match command:
            case f.Load():
                assert not self.is_draining
                assert all(each.asked.line != command.line for each in self.loads), "one page of a line at a time"
                self.loads.append(Loading(command))
            case f.InvokeEvent(event):
                self._invoke(event, command)
            case f.Deliver(owe):
                assert not self.is_draining
                self._is_free(owe.settled.event.id)
                self.telling[owe.settled.event.id] = command
            case f.Finish(settled, was):
                assert self.inbox[settled.event.id] == was
                self._finish(settled)
                self.writes[settled.event.id] = command
            case f.Write(Became(_, was)):
                row_id = id_of(was)
                assert self.inbox[row_id] == was
                self._is_free(row_id)
                self.writes[row_id] = command
            case f.Loosen(ids):
                self.payloads.difference_update(ids)
            case WakeAt(mono_s):
                assert self.wake_s is None or mono_s < self.wake_s
                self.wake_s = mono_s
            case Finished():
                assert self.is_draining
                self.is_finished = True

    def _is_free(self, row_id: str) -> None:
        assert row_id not in self.running | self.telling | self.writes, "one thing at a time"
        assert row_id in self.payloads
        assert row_id in self.inbox

    def _invoke(self, event: AsyncEvent, command: f.InvokeEvent) -> None:
        assert not self.is_draining
        self._is_free(event.id)
        standing = self.standing(event.function, event.qualifier)
        assert standing.version == command.version
        assert not standing.is_shut
        assert self.wall_s <= event.accepted_s + standing.maximum_age_s
        assert event.due_s <= self.wall_s or self.is_set_back
        assert event.tries <= max(2, standing.maximum_retries)
        self.running[event.id] = command
        self.started[event.id] += 1

    def _finish(self, settled: Settled) -> None:
        self._is_free(settled.event.id)
        event, condition = settled.event, settled.condition
        assert settled.invoke_count == (1 if condition is Condition.SUCCESS else event.tries)
        if condition is Condition.RETRIES_EXHAUSTED:
            assert event.last is not None
            assert event.last.status in (200, 404)
        if condition is Condition.EVENT_AGE_EXCEEDED:
            assert event.last is not None

    # --- what must hold

    def check(self) -> None:
        by_function = Counter(self.inbox[each].function for each in self.running if self._runs(each))  # type: ignore[union-attr]
        for name, running in by_function.items():
            assert running <= max(1, self.rooms.get(name, 2))
        by_target = Counter(each.owe.targets[0] for each in self.telling.values())
        assert all(count <= DELIVERIES_AT_ONCE for count in by_target.values())

    def _runs(self, row_id: str) -> bool:
        return isinstance(self.inbox[row_id], AsyncEvent)

    def lines(self) -> dict[Line, LineFacts]:
        return dict(self.engine.lines())

    def busy(self) -> bool:
        return bool(self.loads or self.running or self.telling or self.writes)

    def settle(self, answer: LastAnswer = SUCCESS, rounds: int = 100_000) -> None:
        """Let everything work until the inbox is empty."""
        for _ in range(rounds):
            if not (self.inbox or self.busy()):
                return
            self.step(answer)
        raise AssertionError(f"never empty: {self.inbox} {self.lines()} wakes at {self.wake_s} of {self.mono_s}")

    def step(self, answer: LastAnswer = SUCCESS) -> None:
        """Let the next thing happen: an answer if there is one to be given, else the next time comes."""
        if self.loads:
            self.loaded(self.loads[0])
        elif self.writes:
            self.written(next(iter(self.writes)))
        elif self.running:
            self.tried(next(iter(self.running)), answer)
        elif self.telling:
            self.delivered(next(iter(self.telling)))
        else:
            assert self.wake_s is not None, "something is waited for"
            self.pass_time(max(self.wake_s - self.mono_s, 0.0))
