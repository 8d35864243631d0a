"""Which asynchronous event runs next, and who is told of one next: facts in, commands out, as in queues.py.

All that waits is in the inbox, in lines: one for each function, and one for each target that is to be told. Of each
line a bounded part is in hand, and more is loaded when that is nearly used up: a million events that wait cost nothing
here. No line waits for another. While a line meets refusals it rests, longer each time, and then sends one of its rows
ahead: a function without room, or a queue that is away, costs one try a rest, however much waits for it.

Times of rows are wall times, written by whatever process; times of the engine's own are monotonic. A clock that was set
back makes rows due late by its step, unless that is noticed: no row waits longer than `LONGEST_WAIT_S` by the rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

from router.core import async_rules as rules
from router.core.agenda import Agenda, Alarm
from router.core.async_facts import (
    AsyncCommand,
    AsyncFact,
    Deliver,
    Delivered,
    EventAccepted,
    Finish,
    InvokeEvent,
    LinesFound,
    Load,
    LoadFailed,
    Loosen,
    NotDelivered,
    PageLoaded,
    Row,
    Stop,
    Tried,
    Write,
    Written,
)
from router.core.async_rules import Standing
from router.core.asynchronous import (
    AsyncEvent,
    Became,
    ForgetEvent,
    LastAnswer,
    Line,
    Owe,
    PutOff,
    Settled,
    id_of,
    line_of,
)
from router.core.facts import Due, Finished
from router.core.model import Instant

if TYPE_CHECKING:
    from random import Random

#: Rows that are loaded at once, and bytes of their payloads, at most.
PAGE_ROWS: Final = 128
PAGE_BYTES: Final = 4 * 1024 * 1024
#: With so few left to be started the next page is loaded, so that the function need not wait for it; but not while so
#: much is in hand that other lines would have to do without.
LOW_ROWS: Final = 64
LOW_BYTES: Final = 16 * 1024 * 1024
#: Rows that are loaded while a line meets refusals: one is tried, and more where that one is not to be.
PROBE_ROWS: Final = 8
#: Payloads and answers in hand, about: beyond that a line that has nothing in hand still gets one row.
HELD_BYTES: Final = 48 * 1024 * 1024
#: Rows of a line that are being written at once, at most: what has ended is not to be waited for, but a store that is
#: away must not let the function run what cannot be noted.
WRITTEN_AT_ONCE: Final = 512
#: Deliveries to one target at once.
DELIVERIES_AT_ONCE: Final = 8
#: Rests of a line: this long after the first refusal, doubled with each up to the longest, seconds. What waits for room
#: with a function is to find it soon; a target that is away is to be left alone.
FIRST_REST_S: Final = 0.1
LONGEST_REST_S: Final[Mapping[str, float]] = {"run": 5.0, "tell": 30.0}
#: Between two looks at the clock of a line whose next row is due far from now.
LOOK_S: Final = 60.0
#: A page that could not be loaded is asked for again so soon.
RELOAD_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class LineFacts:
    """How a line is, for people."""

    #: Rows with the function or target.
    busy: int
    #: Refusals in a row.
    refusals: int
    #: Wall time at which the first row is due that is not in hand; None = there is none, or it is not known yet.
    due_s: float | None


@dataclass(slots=True, eq=False)
class _Line:
    key: Line
    alarm: Alarm
    #: Wall time at which the first row is due that is not in hand; None = there is none that we know of.
    due_s: float | None = None
    #: In hand, to be started.
    held: deque[Row] = field(default_factory=deque)
    #: With the function or target.
    busy: dict[str, Row] = field(default_factory=dict)
    #: Ended, and being written.
    ended: dict[str, Row] = field(default_factory=dict)
    #: Nothing else brings rows of the line into hand meanwhile, so what comes is as it is on disk.
    is_loading: bool = False
    refusals: int = 0
    rests_until_s: float = -inf

    def note(self, due_s: float | None) -> None:
        if due_s is not None:
            self.due_s = due_s if self.due_s is None else min(self.due_s, due_s)

    @property
    def known(self) -> set[str]:
        return {*self.busy, *self.ended, *map(id_of, self.held)}

    def end(self, row: Row) -> None:
        """Have a row written that was in hand."""
        self.ended[id_of(row)] = row


class AsyncEngine:
    """The lines of one inbox."""

    def __init__(
        self,
        standing: Callable[[str, str | None], Standing],
        room: Callable[[str], int],
        rng: Random,
    ) -> None:
        """Make it, without lines.

        Args:
            standing: says how a function takes events now, by its name and what of it was invoked.
            room: says how many events of a function run at once, at most.
            rng: chance, for waits between deliveries.
        """
        self._standing = standing
        self._room = room
        self._rng = rng
        self._agenda = Agenda()
        self._lines: dict[Line, _Line] = {}
        #: Where each row in hand is.
        self._place: dict[str, _Line] = {}
        #: Rules that held when a try began hold for how it ends.
        self._standings: dict[str, Standing] = {}
        #: Payloads in hand, and those that a page under way may bring.
        self._held_bytes = 0
        self._stops = False
        self._commands: list[AsyncCommand] = []

    def feed(self, fact: AsyncFact, now: Instant) -> list[AsyncCommand]:
        """Take a fact, and give what is to be done."""
        self._take(fact, now)
        self._agenda.run_due(now)
        if self._stops and not any(line.busy or line.ended for line in self._lines.values()):
            self._commands.append(Finished())
        elif wake := self._agenda.wake():
            self._commands.append(wake)
        done, self._commands = self._commands, []
        return done

    def lines(self) -> Mapping[Line, LineFacts]:
        """Say how the lines are that have something to do."""
        return {key: LineFacts(len(line.busy), line.refusals, line.due_s) for key, line in self._lines.items()}

    def _take(self, fact: AsyncFact, now: Instant) -> None:  # noqa: C901 - one case a fact
        match fact:  # the most frequent first
            case Tried(row_id, answer):
                self._tried(row_id, answer, now)
            case Written(rows):
                self._written(rows, now)
            case LinesFound(due_s):
                for key, first_s in due_s.items():
                    self._note(key, first_s, now)
            case EventAccepted(event):
                self._accepted(event, now)
            case PageLoaded(key, rows, next_due_s):
                self._loaded(self._lines[key], rows, next_due_s, now)
            case LoadFailed(key):
                self._not_loaded(self._lines[key], now)
            case Delivered(row_id):
                self._told(row_id, now)
            case NotDelivered(row_id):
                self._not_told(row_id, now)
            case Stop():
                self._stop()
            case Due():
                self._agenda.woken()
            case _:
                assert_never(fact)

    # --- rows come into hand

    def _accepted(self, event: AsyncEvent, now: Instant) -> None:
        line = self._line(line_of(event))
        has_backlog = line.is_loading or self._is_due(line, now)
        if self._stops or has_backlog or line.rests_until_s > now.mono_s or not self._has_room_for(line, event):
            self._commands.append(Loosen([event.id]))
            self._note(line.key, event.due_s, now)
            return
        self._hold(line, event)
        self._go(line, now)

    def _has_room_for(self, line: _Line, event: AsyncEvent) -> bool:
        return len(line.held) < PAGE_ROWS and self._held_bytes + event.payload_bytes <= HELD_BYTES

    def _loaded(self, line: _Line, rows: Sequence[Row], next_due_s: float | None, now: Instant) -> None:
        self._held_bytes -= PAGE_BYTES
        line.is_loading = False
        # What is in hand already comes from another line, and is written: we hear of it soon, and look again then.
        fresh = [row for row in rows if id_of(row) not in self._place]
        if fresh or not rows:
            line.note(next_due_s)
        for row in fresh:
            self._hold(line, row)
        if self._stops:
            self._put_back(line)
        self._go(line, now)

    def _not_loaded(self, line: _Line, now: Instant) -> None:
        self._held_bytes -= PAGE_BYTES
        line.is_loading = False
        line.note(now.wall_s)
        line.rests_until_s = max(line.rests_until_s, now.mono_s + RELOAD_S)
        self._go(line, now)

    def _hold(self, line: _Line, row: Row) -> None:
        assert id_of(row) not in self._place, "in hand twice"
        line.held.append(row)
        self._place[id_of(row)] = line
        self._held_bytes += _bytes_of(row)

    def _let_go(self, row: Row) -> None:
        """Take a row out of hand."""
        del self._place[id_of(row)]
        self._held_bytes -= _bytes_of(row)

    def _put_back(self, line: _Line) -> None:
        """Let go of what was not started: it is in the inbox."""
        if line.held:
            self._commands.append(Loosen([id_of(row) for row in line.held]))
            for row in line.held:
                line.note(row.due_s)
                self._let_go(row)
            line.held.clear()

    # --- what is started

    def _go(self, line: _Line, now: Instant) -> None:
        """Start what may start now, load what may be needed next, and see to the next time of both."""
        if self._stops:
            return
        if line.rests_until_s > now.mono_s:
            self._put_back(line)
            line.alarm.by(line.rests_until_s)
            return
        room = self._room_of(line) if line.held else 0
        while line.held and len(line.busy) < room and self._may_end_more(line):
            self._start(line.held.popleft(), line, now)
            if line.rests_until_s > now.mono_s:
                self._go(line, now)
                return
        if line.due_s is not None and not line.is_loading:
            self._load_next(line, line.due_s, now)
        self._forget_if_done(line)

    def _may_end_more(self, line: _Line) -> bool:
        return not line.ended or (len(line.ended) < WRITTEN_AT_ONCE and self._held_bytes <= HELD_BYTES)

    def _room_of(self, line: _Line) -> int:
        if line.refusals:
            return 1
        kind, name = line.key
        return max(1, self._room(name)) if kind == "run" else DELIVERIES_AT_ONCE

    def _start(self, row: Row, line: _Line, now: Instant) -> None:
        if isinstance(row, Owe):
            if line.refusals and row.deliveries < len(row.targets) - 1:
                # Its target is away, and others have not been told: they do not wait for this one.
                passed_on = Owe(row.settled, rules.passed_on(row.targets), now.wall_s, row.deliveries + 1)
                line.end(row)
                self._commands.append(Write(Became(passed_on, row)))
            else:
                line.busy[id_of(row)] = row
                self._commands.append(Deliver(row))
            return
        standing = self._standing(row.function, row.qualifier)
        become = rules.before(row, standing, now.wall_s)
        if become is not None:
            line.end(row)
            if isinstance(become, AsyncEvent) and not standing.is_known:
                self._refused_or_not(line, now, is_refused=True)
            self._conclude(become, row)
            return
        line.busy[row.id] = row
        assert standing.version is not None, "the rules do not let it run"
        self._standings[row.id] = standing
        self._commands.append(InvokeEvent(row, standing.version))

    def _load_next(self, line: _Line, due_s: float, now: Instant) -> None:
        if not self._is_due(line, now):
            line.alarm.by(now.mono_s + min(max(due_s - now.wall_s, 0.0), LOOK_S))
        elif len(line.held) <= self._few(line):
            is_crowded = self._held_bytes + PAGE_BYTES > HELD_BYTES
            if is_crowded and (line.held or line.busy or line.ended):
                return  # what is in hand goes on, and asks again
            limit = 1 if is_crowded else PROBE_ROWS if line.refusals else PAGE_ROWS
            self._held_bytes += PAGE_BYTES
            line.is_loading, line.due_s = True, None
            self._commands.append(Load(line.key, max(due_s, now.wall_s), limit, PAGE_BYTES, line.known))

    def _few(self, line: _Line) -> int:
        """Say with how many left to be started the next page is loaded."""
        has_room = self._held_bytes <= LOW_BYTES and not line.refusals
        return LOW_ROWS if has_room else self._room_of(line)

    def _is_due(self, line: _Line, now: Instant) -> bool:
        wait_s = inf if line.due_s is None else line.due_s - now.wall_s
        return wait_s <= 0.0 or rules.LONGEST_WAIT_S < wait_s < inf

    # --- what ended

    def _tried(self, row_id: str, answer: LastAnswer | None, now: Instant) -> None:
        line = self._place[row_id]
        event = line.busy.pop(row_id)
        assert isinstance(event, AsyncEvent)
        standing = self._standings.pop(row_id)
        if answer is None:
            self._again(line, event, now)
            return
        become = rules.after(event, answer, standing, now.wall_s)
        answered = become.event if isinstance(become, Settled) else become
        self._held_bytes += _bytes_of(answered) - _bytes_of(event)
        line.end(answered)
        self._refused_or_not(line, now, is_refused=rules.is_refusal(answer))
        self._conclude(become, event)
        self._go(line, now)

    def _again(self, line: _Line, event: AsyncEvent, now: Instant) -> None:
        line.held.appendleft(event)
        if self._stops:
            self._put_back(line)
        self._go(line, now)

    def _conclude(self, become: Settled | AsyncEvent, was: AsyncEvent) -> None:
        if isinstance(become, Settled):
            self._commands.append(Finish(become, was))
        else:
            self._commands.append(Write(Became(PutOff(become), was)))

    def _told(self, row_id: str, now: Instant) -> None:
        line, owe = self._owed(row_id)
        self._refused_or_not(line, now, is_refused=False)
        self._commands.append(Write(Became(rules.accepted(owe, now.wall_s) or ForgetEvent(row_id), owe)))
        self._go(line, now)

    def _not_told(self, row_id: str, now: Instant) -> None:
        line, owe = self._owed(row_id)
        self._refused_or_not(line, now, is_refused=True)
        self._commands.append(Write(Became(rules.refused(owe, now.wall_s, self._rng), owe)))
        self._go(line, now)

    def _owed(self, row_id: str) -> tuple[_Line, Owe]:
        line = self._place[row_id]
        owe = line.busy.pop(row_id)
        assert isinstance(owe, Owe)
        line.end(owe)
        return line, owe

    def _refused_or_not(self, line: _Line, now: Instant, *, is_refused: bool) -> None:
        if not is_refused:
            line.refusals, line.rests_until_s = 0, -inf
            return
        if line.rests_until_s > now.mono_s:
            return  # of those that were started together one has said it already
        longest_s = LONGEST_REST_S[line.key[0]]
        line.rests_until_s = now.mono_s + min(longest_s, FIRST_REST_S * 2.0 ** min(line.refusals, 60))
        line.refusals += 1

    def _written(self, rows: Mapping[str, Row | None], now: Instant) -> None:
        lines: dict[_Line, None] = {}
        for row_id, row in rows.items():
            line = self._place[row_id]
            self._let_go(line.ended.pop(row_id))
            lines[line] = None
            if row is not None:
                other = self._line(line_of(row))
                other.note(row.due_s)
                lines[other] = None
        self._commands.append(Loosen(list(rows)))
        for line in lines:
            self._go(line, now)

    # --- lines

    def _line(self, key: Line) -> _Line:
        line = self._lines.get(key)
        if line is None:
            line = _Line(key, Alarm(self._agenda, lambda now: self._go(self._line(key), now)))
            self._lines[key] = line
        return line

    def _note(self, key: Line, due_s: float, now: Instant) -> None:
        """Know of a row in the inbox that is not in hand."""
        line = self._line(key)
        line.note(due_s)
        self._go(line, now)

    def _forget_if_done(self, line: _Line) -> None:
        if not (line.held or line.busy or line.ended or line.refusals or line.is_loading) and line.due_s is None:
            self._lines.pop(line.key, None)

    def _stop(self) -> None:
        self._stops = True
        for line in self._lines.values():
            self._put_back(line)


def _bytes_of(row: Row) -> int:
    event = row.settled.event if isinstance(row, Owe) else row
    answer = event.last.payload if event.last else None
    return event.payload_bytes + (len(answer) if answer else 0)
