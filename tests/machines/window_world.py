"""A world for an engine with tumbling windows: one shard, a function that counts, a store; and what must hold in it.

The function's state lists the positions of all records it has counted in the window. The world knows by itself what
that must be: what succeeded since the window was opened, by the committed progress that this life went on from. So each
call is checked against the state lineage that its checkpoint implies. A crash throws the engine away and keeps what is
durable; the truth goes back to what was committed.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from router.core import facts as f
from router.core import retry_state
from router.core.model import (
    Batch,
    Cancelled,
    Chunk,
    EventSourceMapping,
    Failed,
    Instant,
    Outcome,
    Reason,
    Returned,
    ShardInfo,
    TooLarge,
    WindowCall,
)
from router.core.streams import StreamEngine
from router.core.tumbling import GRACE_S, STATE_LIMIT_BYTES
from tests.machines.stream_world import identify, plain

SHARD = "s"
PAD = "x" * STATE_LIMIT_BYTES
Span = tuple[int, int]


@dataclass(frozen=True)
class Row:
    position: int
    time_ms: int
    #: The window it belongs to.
    span: Span


@dataclass(frozen=True)
class Opening:
    """A window from its first record to its final call."""

    span: Span
    #: Its first position.
    since: int
    #: What succeeded in it.
    counted: tuple[int, ...] = ()
    large: bool = False
    #: Attempts of its final call that have failed.
    attempts: int = 0


@dataclass(frozen=True)
class Truth:
    """What is true of the records once a progress is committed."""

    settled: frozenset[int] = frozenset()
    opening: Opening | None = None
    #: Openings whose final call succeeded, or was given up.
    closed: tuple[Opening, ...] = ()


@dataclass(slots=True)
class Flight:
    batch: Batch
    cancel: bool | None = None


@dataclass(slots=True)
class Stored:
    failure: Any
    rows: list[Row]
    window: WindowCall | None


@dataclass(slots=True)
class Life:
    """What a crash takes away."""

    truth: Truth
    read: f.Read | None = None
    flight: Flight | None = None
    keeps: list[f.Keep] = field(default_factory=list)
    #: Progress that is being committed, and what is true with it.
    commit: tuple[f.Progress, Truth] | None = None
    wakes: list[float] = field(default_factory=list)
    #: What is to be told at once.
    facts: deque[f.Fact] = field(default_factory=deque)
    replaying: set[str] = field(default_factory=set)
    held: bool = False
    draining: bool = False
    finished: bool = False
    #: Position up to which records were read.
    read_through: int = -1


class World:
    def __init__(self, mapping: EventSourceMapping, seed: int) -> None:
        self.mapping = mapping
        self.length_s = mapping.tumbling_window_s
        self.chance = Random(seed)
        self.mono_s = 1000.0
        self.wall_offset_s = 1_700_000_000.0
        self.rows: list[Row] = []
        self.ended = False
        self.committed: tuple[f.Progress, Truth] = (f.Progress(-1, ""), Truth())
        self.stored: dict[str, Stored] = {}
        #: Failure ids of final calls by opening.
        self.failed_finals: dict[tuple[Span, int], str] = {}
        #: Request ids of final calls by opening.
        self.final_ids: dict[tuple[Span, int], str] = {}
        self.start_engine()

    def start_engine(self) -> None:
        seed = self.chance.randrange(2**32)
        self.engine = StreamEngine(self.mapping, identify, Random(seed))
        #: Fed the same: must say the same.
        self.twin = StreamEngine(self.mapping, identify, Random(seed))
        progress, truth = self.committed
        self.life = Life(truth, read_through=progress.checkpoint)
        self.feed(f.StreamOpened(frozenset({SHARD}), frozenset({SHARD} if progress.ended else ())))

    @property
    def now(self) -> Instant:
        return Instant(self.mono_s, self.mono_s + self.wall_offset_s)

    @property
    def truth(self) -> Truth:
        return self.life.truth

    def append(self, gap: int, age_s: float) -> None:
        """Let a record arrive; times may step back."""
        time_ms = int((self.now.wall_s - age_s) * 1000)
        span = self.rows[-1].span if self.rows else (0, 0)
        if time_ms >= span[1] * 1000:
            start_s = time_ms // 1000 // self.length_s * self.length_s
            span = (start_s, start_s + self.length_s)
        position = (self.rows[-1].position if self.rows else -1) + gap
        self.rows.append(Row(position, time_ms, span))

    # --- feeding, and carrying out what comes back

    def feed(self, fact: f.Fact) -> None:
        self.life.facts.append(fact)
        while self.life.facts:
            told = self.life.facts.popleft()
            commands = self.engine.feed(told, self.now)
            assert [plain(c) for c in commands] == [plain(c) for c in self.twin.feed(told, self.now)]
            for command in commands:
                self.carry_out(command)
        self.check()

    def carry_out(self, command: f.Command) -> None:  # noqa: C901 - a table
        life = self.life
        match command:
            case f.Read(demand=demand):
                life.read = command if demand else None
            case f.Invoke(batch):
                self.invoked(batch)
            case f.List():
                life.facts.append(f.ShardsListed([ShardInfo(SHARD)]))
            case f.Open():
                progress = self.committed[0]
                life.facts.append(f.ShardOpened(SHARD, SHARD, progress.checkpoint, progress.retry_state))
            case f.Cancel(_, waiting_only):
                assert life.flight
                life.flight.cancel = waiting_only
            case f.Keep():
                self.keep_asked(command)
            case f.Commit(done):
                assert life.commit is None
                self.check_progress(done[SHARD])
                life.commit = (done[SHARD], life.truth)
            case f.WakeAt(mono_s):
                life.wakes.append(mono_s)
            case f.Replayed(failure_id) | f.ReplayRefused(failure_id):
                life.replaying.remove(failure_id)
            case f.Finished():
                life.finished = True
            case f.Note() | f.Release():
                pass
            case _:
                raise AssertionError(command)

    def invoked(self, batch: Batch) -> None:
        life = self.life
        assert life.flight is None, "two invocations in one lane"
        assert not life.draining
        assert batch.window
        assert batch.count == len(batch.positions())
        life.flight = Flight(batch)
        if batch.replays:
            self.check_replay(batch)
            return
        assert not life.held
        span = (batch.window.start_s, batch.window.end_s)
        opening = self.truth.opening
        state = opening or Opening(span, batch.first_position)
        assert span == state.span, "the next window starts before the final call of the one before"
        assert json.loads(batch.window.state).get("counted", []) == list(state.counted), "another state"
        if batch.window.final:
            assert opening
            self.check_final(batch, opening)
        else:
            assert {row.span for row in batch.rows()} == {span}, "a batch spans windows"
            assert not self.truth.settled.intersection(batch.positions()), "a finished record runs again"
            assert not any(row.position < batch.first_position for row in self.unsettled())
            assert not state.large, "a state that is too large is handed on"
            if opening is None:
                life.truth = replace(self.truth, opening=state)

    def check_final(self, batch: Batch, opening: Opening) -> None:
        assert batch.window
        assert batch.count == 0
        assert batch.window.early is opening.large
        assert opening not in self.truth.closed
        assert batch.attempts == opening.attempts
        waiting = [row for row in self.unsettled() if row.position <= self.life.read_through]
        if not opening.large:
            assert not waiting or waiting[0].span > opening.span, "closed before all of it is settled"
            nothing_more = self.ended or self.now.wall_s >= opening.span[1] + GRACE_S
            assert waiting or nothing_more or opening.attempts, "closed too early"
        key = (opening.span, opening.since)
        assert self.final_ids.setdefault(key, batch.id) == batch.id, "another request id"
        assert list(self.final_ids.values()).count(batch.id) == 1

    def check_replay(self, batch: Batch) -> None:
        stored = self.stored[batch.replays or ""]
        assert batch.window == stored.window
        assert set(batch.positions()) <= {row.position for row in stored.rows}

    def unsettled(self) -> list[Row]:
        return [row for row in self.rows if row.position not in self.truth.settled]

    def keep_asked(self, command: f.Keep) -> None:
        failure, batch = command.failure, command.batch
        limit, age_s = self.mapping.maximum_retry_attempts, self.mapping.maximum_record_age_s
        assert batch.window
        assert failure.window == replace(batch.window, state=b"")
        assert failure.batch_size == batch.count
        match failure.reason:
            case Reason.RETRIES:
                assert limit is not None
                assert failure.attempts > limit
            case _:
                assert age_s is not None
                oldest_ms = (self.now.wall_s - age_s) * 1000
                assert all(row.time_ms <= oldest_ms for row in batch.rows())
                assert batch.count or batch.window.end_s * 1000 <= oldest_ms
        if batch.count:
            assert (failure.first_position, failure.last_position) == (batch.first_position, batch.last_position)
        else:
            assert (failure.first_position, failure.last_position) == (-1, -1)
        self.life.keeps.append(command)

    def check_progress(self, progress: f.Progress) -> None:
        """See that state and checkpoint belong together: nothing is passed that is neither counted nor given up."""
        checkpoint, text, ended = progress
        truth = self.truth
        assert not ended or (self.ended and not self.unsettled() and truth.opening is None), "finished too early"
        assert checkpoint >= self.committed[0].checkpoint
        assert all(row.position in truth.settled for row in self.rows if row.position <= checkpoint)
        lanes = retry_state.decode(text, checkpoint, 1) if text else {}
        assert lanes is not None
        work = lanes.get(0, retry_state.Pending(checkpoint, []))
        for row in self.rows:
            if checkpoint < row.position <= work.taken_through:
                held = any(piece.holds(row.position) for piece in work.pieces)
                assert held or row.position in truth.settled
        self.check_saved(work.window, checkpoint)

    def check_saved(self, window: retry_state.SavedWindow | None, checkpoint: int) -> None:
        opening = self.truth.opening
        if opening is None:
            assert window is None or window.state is None
            return
        assert window
        assert ((window.start_s, window.end_s), window.since) == (opening.span, opening.since)
        assert window.state
        assert json.loads(window.state).get("counted", []) == list(opening.counted)
        assert all(position <= checkpoint for position in opening.counted)
        assert (window.final.attempts if window.final else 0) == opening.attempts

    # --- what holds after each step

    def check(self) -> None:
        life = self.life
        assert len(self.engine._agenda) < 100
        spans = [opening.span for opening in self.truth.closed]
        assert spans == sorted(spans), "windows go back"
        busy = life.flight or life.keeps or life.commit or life.held or life.draining
        if not (busy or life.wakes or life.read or self.committed[0].ended):
            raise AssertionError("nothing will ever happen again")

    # --- answers

    def answer_read(self, share: float = 1.0) -> None:
        assert self.life.read
        [wanted] = self.life.read.demand.values()
        self.life.read = None
        behind = [row for row in self.rows if row.position > wanted.after]
        rows = behind[: max(1, int(min(len(behind), wanted.limit) * share))]
        through = rows[-1].position if rows else wanted.after
        chunk = Chunk(
            SHARD,
            [row.position for row in rows],
            [20] * len(rows),
            [row.time_ms for row in rows],
            [],
            rows,
            through,
            before=wanted.after,
            more=len(rows) < len(behind),
            ended=self.ended and len(rows) == len(behind),
        )
        self.life.read_through = through
        self.feed(f.ChunksRead(SHARD, [chunk]))

    def reply(self, batch: Batch, *, large: bool = False, failed: int | None = None) -> Returned:
        """What the counting function returns; `failed` = it reports that record and those behind it as failed."""
        assert batch.window
        if batch.is_final:
            return Returned({})
        state = json.loads(batch.window.state)
        counted = batch.positions()[:failed]
        body: dict[str, Any] = {"state": {"counted": [*state.get("counted", []), *counted]}}
        if large:
            body["state"]["pad"] = PAD
        if failed is not None:
            body["batchItemFailures"] = [{"itemIdentifier": batch.positions()[failed]}]
        return Returned(body)

    def end(self, outcome: Outcome) -> None:
        flight = self.life.flight
        assert flight
        self.life.flight = None
        if not flight.batch.replays:
            self.note(flight.batch, outcome)
        self.feed(f.InvocationEnded(flight.batch.id, outcome))

    def note(self, batch: Batch, outcome: Outcome) -> None:
        """Note what an outcome means, read from the documentation and not from the code."""
        opening = self.truth.opening
        assert opening
        if batch.is_final:
            if isinstance(outcome, Returned):
                self.close(opening)
            elif isinstance(outcome, Failed | TooLarge):
                self.life.truth = replace(self.truth, opening=replace(opening, attempts=opening.attempts + 1))
            return
        if not (isinstance(outcome, Returned) and isinstance(outcome.body, dict)):
            return
        state = outcome.body.get("state")
        if not isinstance(state, dict):
            return
        items = outcome.body.get("batchItemFailures", [])
        failed = min((item["itemIdentifier"] for item in items), default=None)
        done = [position for position in batch.positions() if failed is None or position < failed]
        if done:
            self.life.truth = Truth(
                self.truth.settled.union(done),
                replace(opening, counted=tuple(state["counted"]), large="pad" in state),
                self.truth.closed,
            )

    def close(self, opening: Opening) -> None:
        self.life.truth = Truth(self.truth.settled, None, (*self.truth.closed, opening))

    def store(self, keep: f.Keep) -> None:
        failure, batch = keep.failure, keep.batch
        if batch.is_final and not batch.replays:
            assert self.truth.opening
            key = (self.truth.opening.span, self.truth.opening.since)
            assert self.failed_finals.setdefault(key, failure.id) == failure.id
            assert list(self.failed_finals.values()).count(failure.id) == 1
        known = self.stored.setdefault(failure.id, Stored(failure, batch.rows(), batch.window))
        assert (known.rows, known.failure.window) == (batch.rows(), failure.window)
        known.window = batch.window

    def answer_keep(self, *, stored: bool) -> None:
        keep = self.life.keeps.pop(0)
        if not stored:
            self.feed(f.KeepFailed(keep.failure.id, "disk full"))
            return
        self.store(keep)
        if not keep.batch.replays:
            if keep.batch.is_final:
                assert self.truth.opening
                self.close(self.truth.opening)
            else:
                self.life.truth = replace(self.truth, settled=self.truth.settled.union(keep.batch.positions()))
        self.feed(f.Kept(keep.failure.id))

    def answer_commit(self, *, remembered: bool, ok: bool = True) -> None:
        assert self.life.commit
        if remembered:
            self.committed = self.life.commit
        self.life.commit = None
        self.feed(f.Committed() if ok else f.CommitFailed("away"))

    def crash(self) -> None:
        if self.life.commit and self.chance.random() < 0.5:
            self.committed = self.life.commit
        for keep in self.life.keeps:
            if self.chance.random() < 0.5:
                self.store(keep)
        self.start_engine()

    def replay(self, failure_id: str) -> None:
        stored = self.stored[failure_id]
        self.life.replaying.add(failure_id)
        rows = stored.rows
        chunk = Chunk(
            SHARD,
            [row.position for row in rows],
            [20] * len(rows),
            [row.time_ms for row in rows],
            [],
            rows,
            rows[-1].position if rows else -1,
            window=stored.window,
        )
        self.feed(f.ReplayRequested(failure_id, chunk))

    def advance(self, seconds: float) -> None:
        """Let time pass, with a Due at each time that was asked for."""
        until_s = self.mono_s + seconds
        while self.life.wakes and min(self.life.wakes) <= until_s:
            due_s = min(self.life.wakes)
            self.life.wakes.remove(due_s)
            self.mono_s = max(self.mono_s, due_s)
            self.feed(f.Due())
        self.mono_s = until_s

    # --- all turns good

    def settle(self) -> None:
        """Answer everything well until every window is closed; must end."""
        if self.life.draining:
            while self.step_well():
                pass
            assert self.life.finished
            self.start_engine()
        if self.life.held:
            self.life.held = False
            self.feed(f.Unheld())
        steps: deque[str] = deque(maxlen=20)
        for _ in range(3000):
            steps.append(self.step_well() or "time")
            if steps[-1] == "time":
                self.advance(30.0)
                if self.is_settled():
                    return
                if self.life.read:
                    self.answer_read()
        raise AssertionError(f"no end: {list(steps)}")

    def step_well(self) -> str | None:
        """Do one thing that is to be done, as well as it can end."""
        life = self.life
        if life.flight:
            batch = life.flight.batch
            self.end(Cancelled() if life.flight.cancel is False else self.reply(batch))
            return "end"
        if life.keeps:
            self.answer_keep(stored=True)
            return "keep"
        if life.commit:
            self.answer_commit(remembered=True)
            return "commit"
        if life.read and any(row.position > life.read_through for row in self.rows):
            self.answer_read()
            return "read"
        return None

    def stumble(self, failing: Outcome) -> None:
        """Do one thing, mostly as well as it can end."""
        life, chance = self.life, self.chance.random()
        if chance < 0.02 and not life.draining:
            self.crash()
        elif chance < 0.2 and not self.ended:
            self.append(1, self.chance.choice((0, 0, 1, 20)))
        elif chance < 0.3:
            self.advance(self.chance.choice((0.3, 0.3, 5.0, 150.0)))
        elif life.flight and chance < 0.8:
            self.end(Cancelled() if life.flight.cancel is False else self.some_outcome(life.flight.batch, failing))
        elif self.step_well() is None and life.read:
            self.answer_read()

    def some_outcome(self, batch: Batch, failing: Outcome) -> Outcome:
        chance = self.chance.random()
        if chance < 0.3:
            return failing
        failed = None
        if chance < 0.6 and batch.count and self.mapping.report_item_failures:
            failed = self.chance.randrange(batch.count)
        return self.reply(batch, large=self.chance.random() < 0.1, failed=failed)

    def is_settled(self) -> bool:
        life = self.life
        busy = life.flight or life.keeps or life.commit or life.replaying
        return not busy and not self.unsettled() and self.truth.opening is None and self.committed[1] == self.truth

    def check_settled(self) -> None:
        """After `settle`: each record is counted in one window, the right one, or given up."""
        spans = {row.position: row.span for row in self.rows}
        counted = [position for opening in self.truth.closed for position in opening.counted]
        assert len(counted) == len(set(counted)), "counted twice"
        for opening in self.truth.closed:
            assert {spans[position] for position in opening.counted} <= {opening.span}
            assert all(position >= opening.since for position in opening.counted)
        given_up = {row.position for stored in self.stored.values() for row in stored.rows}
        assert set(counted) <= set(spans)
        assert set(spans) - set(counted) <= given_up
        assert len(self.truth.closed) == len({opening.since for opening in self.truth.closed}), "closed twice"
