"""A world for one stream engine: logs, a function, a failure store, committed progress; and what must hold in it.

The world plays runner, source, function and store, one answer at a time and in any order, and knows the truth: which
record was really handled, stored, filtered or is still to come. Every command is checked when it is given. The world
outlives the engine: a crash throws the engine away and keeps what is durable.
"""

from __future__ import annotations

from collections import Counter, deque
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
    Refused,
    ReportStyle,
    Returned,
    ShardInfo,
    TooLarge,
    WindowStart,
)
from router.core.shard import Phase, lane_of
from router.core.streams import StreamEngine

GOOD = Returned(None)


@dataclass(frozen=True, slots=True)
class Row:
    position: int
    key: bytes | None
    size: int
    time_ms: int
    kept: bool


@dataclass(slots=True)
class Log:
    """One shard of the source, and what is true of its records."""

    rows: list[Row] = field(default_factory=list)
    #: Position of the end, also where nothing for us is there.
    end: int = -1
    #: Reading starts behind this position; what is before it was never ours, or is gone.
    start: int = -1
    unit: str = ""
    #: Positions that the function has handled, or that are stored as failed.
    settled: set[int] = field(default_factory=set)
    delivered: set[int] = field(default_factory=set)
    committed: f.Progress | None = None
    assigned: bool = False
    revoking: bool = False
    #: Will nothing more be written to it; and is its end committed, so that nobody reads it any more?
    closed: bool = False
    over: bool = False
    #: Lanes that it is run in now.
    factor: int = 1
    #: Times it was taken away, by a crash too.
    losses: int = 0
    #: Per key, and per lane of so many, the highest position that was ever delivered.
    highest: dict[object, int] = field(default_factory=dict)
    # What is known in this life of the shard, from one opening to the next:
    life: int = 0
    life_settled: set[int] = field(default_factory=set)
    life_delivered: set[int] = field(default_factory=set)
    life_highest: dict[object, int] = field(default_factory=dict)
    resumed: dict[str, set[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Flight:
    batch: Batch
    log: Log
    life: int
    #: None = nobody asked; else `waiting_only` of the last request to cancel it.
    cancel: bool | None = None


@dataclass(slots=True)
class Keeping:
    command: f.Keep
    log: Log
    life: int


def identify(item: object, batch: Batch) -> int | None:
    return item if isinstance(item, int) and item in batch.positions() else None


class World:
    def __init__(self, mapping: EventSourceMapping, units: dict[str, str], seed: int) -> None:
        self.mapping = mapping
        self.logs = {shard: Log(unit=unit) for shard, unit in units.items()}
        #: Is it a stream whose shards the engine finds, and which may end? Then each is a unit.
        self.found = all(shard == unit for shard, unit in units.items())
        self.chance = Random(seed)
        self.mono_s = 1000.0
        self.wall_offset_s = 1_700_000_000.0
        #: Failure id -> shard and rows of what is durably stored.
        self.stored: dict[str, tuple[str, list[Row]]] = {}
        self.first_seen: dict[str, tuple[str, list[int], int]] = {}
        self.spent: Counter[str] = Counter()
        self.lane_ended_s: dict[tuple[str, int], float] = {}
        #: Per lane, what live records were tried last, in which life and under which request id.
        self.tried: dict[tuple[str, int], tuple[int, list[int], str]] = {}
        self.start_engine()

    def start_engine(self) -> None:
        seed = self.chance.randrange(2**32)
        self.engine = StreamEngine(self.mapping, identify, Random(seed))
        #: Fed the same: must say the same.
        self.twin = StreamEngine(self.mapping, identify, Random(seed))
        self.reads: dict[str, dict[str, f.Demand]] = {}
        self.flights: dict[str, Flight] = {}
        self.keeps: list[Keeping] = []
        self.commit: dict[str, f.Progress] | None = None
        self.locates: dict[str, bool] = {}
        self.wakes: list[float] = []
        self.fed_s: dict[int, tuple[Chunk, float]] = {}
        self.replaying: set[str] = set()
        self.held = False
        self.draining = False
        self.finished = False
        self.listing = False
        for log in self.logs.values():
            log.over = log.committed is not None and log.committed.ended
        if self.found:
            begun = {shard for shard, log in self.logs.items() if log.committed is not None}
            self.feed(f.StreamOpened(frozenset(begun), frozenset(s for s in begun if self.logs[s].over)))
            self.answer_listing()

    @property
    def now(self) -> Instant:
        return Instant(self.mono_s, self.mono_s + self.wall_offset_s)

    @property
    def wall_ms(self) -> int:
        return int(self.now.wall_s * 1000)

    @staticmethod
    def lane_of(row: Row, factor: int) -> int:
        return row.position % factor if row.key is None else lane_of(row.key, factor)

    def relevant(self, shard: str) -> list[Row]:
        log = self.logs[shard]
        return [row for row in log.rows if row.kept and row.position > log.start]

    # --- feeding, and carrying out what comes back

    def feed(self, fact: f.Fact) -> None:
        commands = self.engine.feed(fact, self.now)
        assert [plain(c) for c in commands] == [plain(c) for c in self.twin.feed(fact, self.now)]
        for command in commands:
            self.carry_out(command)
        self.check()

    def carry_out(self, command: f.Command) -> None:  # noqa: C901, PLR0912 - a table
        match command:
            case f.Read(unit, demand):
                self.read_asked(unit, demand)
            case f.Invoke(batch):
                self.invoked(batch)
            case f.Cancel(batch_id, waiting_only):
                flight = self.flights[batch_id]
                flight.cancel = waiting_only if flight.cancel is None else flight.cancel and waiting_only
            case f.Keep(failure, batch):
                self.keep_asked(command)
                assert failure.batch_size == batch.count
            case f.Commit(done):
                assert self.commit is None, "one commit at a time"
                self.commit = dict(done)
                for shard, progress in done.items():
                    self.check_progress(shard, progress)
            case f.Locate(shard, lost):
                self.locates[shard] = lost
            case f.List():
                assert not self.listing, "one listing at a time"
                self.listing = True
            case f.Open(shard):
                assert not self.logs[shard].over
            case f.Note("shard.finished", shard):
                self.shard_finished(shard)
            case f.Note("lanes.changed", shard):
                self.lanes_changed(shard)
            case f.Release(shard, finished):
                self.released(shard, finished=finished)
            case f.WakeAt(mono_s):
                self.wakes.append(mono_s)
            case f.Replayed(failure_id) | f.ReplayRefused(failure_id):
                self.replaying.remove(failure_id)
            case f.Finished():
                assert self.draining
                assert not self.finished
                assert not self.flights
                self.finished = True
            case f.Note():
                pass

    def read_asked(self, unit: Any, demand: Any) -> None:
        if not demand:
            assert self.draining
            del self.reads[unit]
            return
        assert not self.draining
        for shard, wanted in demand.items():
            assert self.logs[shard].assigned
            assert wanted.limit >= 1
        self.reads[unit] = dict(demand)

    def invoked(self, batch: Batch) -> None:
        log = self.logs[batch.shard]
        rows = batch.rows()
        positions = batch.positions()
        assert log.assigned or (log.over and batch.replays)
        assert not self.draining
        assert not self.held or batch.replays
        assert batch.not_before_s <= self.mono_s
        assert [row.position for row in rows] == positions == sorted(positions)
        assert batch.count == len(positions) > 0
        factor = self.mapping.parallelization_factor if log.over else log.factor
        assert {self.lane_of(row, factor) for row in rows} == {batch.lane}
        assert batch.id not in self.flights
        for other in self.flights.values():
            assert (other.batch.shard, other.batch.lane) != (batch.shard, batch.lane), "two invocations in one lane"
        assert batch.count <= self.mapping.batch_size
        assert batch.count == 1 or sum(row.size for row in rows) <= self.mapping.batch_bytes
        self.check_identity(log, batch, positions)
        if not batch.replays:
            life, last, request_id = self.tried.get((batch.shard, batch.lane), (0, [], ""))
            assert (life, last) != (log.life, positions) or batch.id == request_id
        if not batch.replays:
            self.check_order(log, batch, rows)
            self.check_remembered(log, batch)
        self.flights[batch.id] = Flight(batch, log, log.life)

    def check_identity(self, log: Log, batch: Batch, positions: list[int]) -> None:
        """Look at request ids: one batch keeps its own, in all attempts and over restarts."""
        shard, before, losses = self.first_seen.setdefault(batch.id, (batch.shard, positions, log.losses))
        assert shard == batch.shard
        assert [p for p in before if p > log.start or p in positions] == positions
        limit = self.mapping.maximum_retry_attempts
        if limit is not None:
            assert self.spent[batch.id] <= limit + log.losses - losses
            assert batch.attempts <= limit + log.losses - losses
        if batch.replays:
            return
        for request_id, wanted in list(log.resumed.items()):
            left = {p for p in wanted if p > log.start}
            if left.intersection(positions):
                assert batch.id == request_id or self.mapping.maximum_record_age_s is not None
                del log.resumed[request_id]

    def check_remembered(self, log: Log, batch: Batch) -> None:
        """See that what an earlier try left is committed before the next begins."""
        if not batch.durable or self.mapping.maximum_record_age_s is not None:
            return
        assert log.committed is not None
        factor, lanes = self.lanes_of(log.committed)
        assert factor == log.factor
        pieces = lanes[batch.lane].pieces
        assert (batch.id, batch.attempts) in [(piece.request_id, piece.attempts) for piece in pieces]

    def check_order(self, log: Log, batch: Batch, rows: list[Row]) -> None:
        for row in rows:
            position = row.position
            assert row.kept
            assert position not in log.life_settled, "a finished record runs again"
            lines: list[object] = [(log.factor, batch.lane), *([row.key] if row.key else [])]
            for delivered, highest in ((log.delivered, log.highest), (log.life_delivered, log.life_highest)):
                if position not in delivered:
                    for line in lines:
                        assert position > highest.get(line, -1), "first deliveries out of order"
                        highest[line] = position
                    delivered.add(position)

    def keep_asked(self, command: f.Keep) -> None:
        failure, batch = command.failure, command.batch
        limit, age_s = self.mapping.maximum_retry_attempts, self.mapping.maximum_record_age_s
        assert failure.attempts >= 1
        assert (failure.first_position, failure.last_position) == (batch.first_position, batch.last_position)
        match failure.reason:
            case Reason.RETRIES:
                assert limit is not None
                assert failure.attempts > limit
            case Reason.AGE:
                assert age_s is not None
                assert all(row.time_ms <= (self.now.wall_s - age_s) * 1000 for row in batch.rows())
            case Reason.SIZE:
                assert batch.count == 1
        log = self.logs[batch.shard]
        self.keeps.append(Keeping(command, log, log.life))

    def check_progress(self, shard: str, progress: f.Progress) -> None:
        """Nothing that is not settled may be passed, by the checkpoint or by what the retry state calls done."""
        log = self.logs[shard]
        assert log.committed is None or progress.checkpoint >= log.committed.checkpoint
        claimed = self.claimed_done(shard, progress)
        unsettled = [p for p in claimed if p not in log.settled]
        assert not unsettled, f"{progress} passes {unsettled}"
        if progress.ended:
            assert log.closed
            assert log.settled.issuperset(row.position for row in self.relevant(shard))

    def claimed_done(self, shard: str, progress: f.Progress) -> set[int]:
        factor, lanes = self.lanes_of(progress)
        done = set()
        for row in self.relevant(shard):
            if row.position <= progress.checkpoint:
                done.add(row.position)
            elif work := lanes.get(self.lane_of(row, factor)):
                held = any(piece.holds(row.position) for piece in work.pieces)
                if row.position <= work.taken_through and not held:
                    done.add(row.position)
        return done

    def lanes_of(self, progress: f.Progress) -> tuple[int, dict[int, retry_state.Pending]]:
        """Give what is written of unfinished work, and in how many lanes it is."""
        factor = retry_state.lanes_of(progress.retry_state)
        if not factor:
            assert not progress.retry_state
            return self.mapping.parallelization_factor, {}
        lanes = retry_state.decode(progress.retry_state, progress.checkpoint, factor)
        assert lanes is not None
        return factor, lanes

    # --- what holds after each step

    def check(self) -> None:
        engine, mapping = self.engine, self.mapping
        assert engine._reading.buffered_bytes == sum(shard.buffered_bytes for shard in engine._shards.values())
        assert len(engine._agenda) < 100
        size = max(1000, 2 * mapping.batch_size * mapping.parallelization_factor)
        size = mapping.buffer_count or size
        for shard in engine._shards.values():
            log = self.logs[shard.name]
            assert shard.buffered <= size * (1 + log.losses)
            if shard.phase is not Phase.OPEN or shard.name in engine._dying:
                continue
            assert not shard.is_clear
            for lane in shard.lanes:
                # What was begun in the lanes of another factor is finished before anything else.
                if lane.busy or (shard.rehashing and not lane.pieces):
                    continue
                if (shard.name, lane.number) not in engine._blocked:
                    self.check_idle(shard.name, lane)

    def check_idle(self, shard: str, lane: Any) -> None:
        """See that an idle lane lets nothing wait that may run; while held, only replays may."""
        head = lane.window.head()
        if self.held:
            due_s = None
        elif head is None or lane.pieces:
            due_s = lane.pieces[0].not_before_s if lane.pieces else None
        else:
            due_s = self.fed_s[id(head[0])][1] + self.mapping.window_s
            if self.mapping.rules.window_start is WindowStart.PREVIOUS_COMPLETION:
                ended_s = self.lane_ended_s.get((shard, lane.number), 0.0)
                due_s = max(due_s, ended_s + self.mapping.window_s)
            assert lane.window.count < self.mapping.batch_size
        for waiting_s in (due_s, lane.replays[0].not_before_s if lane.replays else None):
            if waiting_s is not None:
                assert waiting_s > self.mono_s
                assert min(self.wakes) <= waiting_s

    # --- answers

    def open(self, shard: str) -> None:
        log = self.logs[shard]
        log.assigned, log.revoking = True, False
        log.life += 1
        log.life_delivered, log.life_highest, log.resumed = set(), {}, {}
        progress = log.committed
        log.factor = self.mapping.parallelization_factor if progress is None else self.lanes_of(progress)[0]
        log.life_settled = set() if progress is None else self.claimed_done(shard, progress)
        if progress is not None:
            self.expect_pieces(shard, progress)
        self.locates.pop(shard, None)
        self.feed(
            f.ShardOpened(shard, log.unit, None)
            if progress is None
            else f.ShardOpened(shard, log.unit, progress.checkpoint, progress.retry_state)
        )

    def expect_pieces(self, shard: str, progress: f.Progress) -> None:
        log = self.logs[shard]
        rows = self.relevant(shard)
        factor, lanes = self.lanes_of(progress)
        for number, work in lanes.items():
            for piece in work.pieces:
                mine = {r.position for r in rows if self.lane_of(r, factor) == number and piece.holds(r.position)}
                log.resumed[piece.request_id] = mine

    def unassign(self, shard: str) -> None:
        log = self.logs[shard]
        log.assigned = log.revoking = False
        log.losses += 1
        self.locates.pop(shard, None)
        if self.commit and shard in self.commit:
            progress = self.commit.pop(shard)
            if self.chance.random() < 0.5:
                log.committed = progress

    def released(self, shard: str, *, finished: bool) -> None:
        """See that a shard is given back only when asked for or at the end, and that nothing of it runs."""
        log = self.logs[shard]
        assert log.over if finished else log.revoking or self.draining
        assert not any(flight.log is log for flight in self.flights.values())
        if not finished:
            self.unassign(shard)

    def shard_finished(self, shard: str) -> None:
        log = self.logs[shard]
        assert log.committed is not None
        assert log.committed.ended
        log.assigned, log.over = False, True

    def finish_elsewhere(self, shard: str) -> None:
        """Let another replica read a shard to its end, and tell so."""
        log = self.logs[shard]
        log.closed = log.over = True
        log.settled.update(row.position for row in log.rows)
        log.committed = f.Progress(max(log.end, log.start), "", ended=True)
        self.feed(f.ShardsFinished([shard]))

    def lanes_changed(self, shard: str) -> None:
        """See that a shard goes over to the lanes of its mapping only when nothing is left of what was begun before."""
        log = self.logs[shard]
        assert log.factor != self.mapping.parallelization_factor
        assert not any(flight.log is log and flight.life == log.life for flight in self.flights.values())
        log.factor = self.mapping.parallelization_factor
        self.fed_s.update({key: (chunk, self.mono_s) for key, (chunk, _) in self.fed_s.items() if chunk.shard == shard})
        self.lane_ended_s.update({(shard, lane): self.mono_s for lane in range(log.factor)})

    def answer_listing(self) -> None:
        if self.listing:
            self.listing = False
            self.feed(f.ShardsListed([ShardInfo(shard, (), log.closed) for shard, log in self.logs.items()]))

    def crash(self, factor: int | None = None) -> None:
        """Start anew, perhaps with another parallelization factor."""
        if factor:
            self.mapping = replace(self.mapping, parallelization_factor=factor)
        if self.commit and self.chance.random() < 0.5:
            for shard, progress in self.commit.items():
                self.logs[shard].committed = progress
        for keeping in self.keeps:
            if self.chance.random() < 0.5:
                self.store(keeping)
        self.commit = None
        for shard, log in self.logs.items():
            if log.assigned:
                self.unassign(shard)
        self.lane_ended_s.clear()
        self.tried.clear()
        self.start_engine()

    def store(self, keeping: Keeping) -> None:
        failure, batch = keeping.command.failure, keeping.command.batch
        self.stored.setdefault(failure.id, (batch.shard, batch.rows()))
        assert self.stored[failure.id] == (batch.shard, batch.rows())
        if not batch.replays:
            keeping.log.settled.update(batch.positions())

    def answer_read(self, unit: str, share: float = 1.0) -> None:
        chunks = [
            self.page(shard, wanted, max(1, int(wanted.limit * share)))
            for shard, wanted in self.reads.pop(unit).items()
            if self.logs[shard].assigned
        ]
        self.feed(f.ChunksRead(unit, chunks))

    def page(self, shard: str, wanted: f.Demand, limit: int) -> Chunk:
        log = self.logs[shard]
        behind = [row for row in log.rows if row.position > wanted.after]
        rows = behind[:limit]
        if self.found:  # such a source says nothing of positions without records
            through = rows[-1].position if rows else wanted.after
        else:
            through = rows[-1].position if len(rows) < len(behind) else max(log.end, wanted.after)
        chunk = Chunk(
            shard,
            [row.position for row in rows],
            [row.size for row in rows],
            [row.time_ms for row in rows],
            [row.key for row in rows],
            rows,
            through,
            None if all(row.kept for row in rows) else [index for index, row in enumerate(rows) if row.kept],
            wanted.after,
            ended=log.closed and len(rows) == len(behind),
        )
        self.fed_s[id(chunk)] = (chunk, self.mono_s)
        return chunk

    def end(self, batch_id: str, outcome: Outcome) -> None:
        flight = self.flights.pop(batch_id)
        batch = flight.batch
        log = flight.log
        handled = self.handled(batch, outcome)
        spends = (
            isinstance(outcome, Failed)
            or (isinstance(outcome, TooLarge) and batch.count == 1)
            or (isinstance(outcome, Refused) and outcome.initialising and self.mapping.init_errors_count)
            or (isinstance(outcome, Returned) and not handled)
        )
        self.spent[batch_id] += spends
        if not batch.replays:
            log.settled.update(handled)
            if flight.life == log.life:
                log.life_settled.update(handled)
        self.lane_ended_s[batch.shard, batch.lane] = self.mono_s
        if not batch.replays:
            self.tried[batch.shard, batch.lane] = (flight.life, batch.positions(), batch_id)
        self.feed(f.InvocationEnded(batch_id, outcome))

    def handled(self, batch: Batch, outcome: Outcome) -> list[int]:
        """Say which records an outcome settles, read from the documentation and not from the code."""
        positions = batch.positions()
        if not isinstance(outcome, Returned):
            return []
        if not self.mapping.report_item_failures or outcome.body is None:
            return positions
        items = outcome.body["batchItemFailures"]  # type: ignore[index]
        named = [item.get("itemIdentifier") for item in items]
        if not named:
            return positions
        if not all(name in positions for name in named):
            return []
        if self.mapping.rules.report_style is ReportStyle.LOWEST:
            return [position for position in positions if position < min(named)]
        return [position for position in positions if position not in named]

    def answer_keep(self, keeping: Keeping, *, stored: bool) -> None:
        self.keeps.remove(keeping)
        failure, batch, log = keeping.command.failure, keeping.command.batch, keeping.log
        if not stored:
            self.feed(f.KeepFailed(failure.id, "disk full"))
            return
        self.store(keeping)
        if not batch.replays and keeping.life == log.life:
            log.life_settled.update(batch.positions())
        self.lane_ended_s[batch.shard, batch.lane] = self.mono_s
        self.feed(f.Kept(failure.id))

    def answer_commit(self, *, remembered: bool, ok: bool = True) -> None:
        done, self.commit = self.commit or {}, None
        if remembered:
            for shard, progress in done.items():
                self.logs[shard].committed = progress
        self.feed(f.Committed() if ok else f.CommitFailed("away"))

    def answer_locate(self, shard: str, *, latest: bool) -> None:
        log = self.logs[shard]
        lost = self.locates.pop(shard)
        if lost and self.found:
            self.feed(f.Rewound(shard))
            return
        if not lost:
            log.start = log.end if latest else log.start
        self.feed(f.Located(shard, log.start))

    def trim(self, unit: str, shard: str, upto: int) -> None:
        """Let the source lose what is up to a position behind the one that is read."""
        log = self.logs[shard]
        self.reads.pop(unit)
        log.start = max(log.start, min(upto, log.end) if self.found else upto)
        log.end = max(log.end, log.start)
        log.rows = [row for row in log.rows if row.position > log.start]
        self.feed(f.PositionGone(unit, shard, "out of range"))

    def delete(self, unit: str, shard: str) -> None:
        """Let the source lose a closed shard, and what is not read of it."""
        log = self.logs[shard]
        self.reads.pop(unit)
        through = self.engine._shards[shard].read_through
        log.rows = [row for row in log.rows if row.position <= through]
        log.end = through
        self.feed(f.ShardDeleted(unit, shard, "no such shard"))

    def begin_anew(self, unit: str, shard: str) -> None:
        """Let somebody delete and make the log again: old positions mean nothing any more."""
        old = self.logs[shard]
        self.reads.pop(unit)
        self.logs[shard] = Log(
            unit=unit,
            assigned=True,
            losses=old.losses + 1,
            life=old.life + 1,
            revoking=old.revoking,
            factor=self.mapping.parallelization_factor,
        )
        self.feed(f.PositionGone(unit, shard, "out of range"))
        if self.commit:
            self.commit.pop(shard, None)
        self.answer_locate(shard, latest=False)

    def replay(self, failure_id: str) -> None:
        shard, rows = self.stored[failure_id]
        self.replaying.add(failure_id)
        chunk = Chunk(
            shard,
            [row.position for row in rows],
            [row.size for row in rows],
            [row.time_ms for row in rows],
            [row.key for row in rows],
            rows,
            rows[-1].position,
        )
        self.feed(f.ReplayRequested(failure_id, chunk))

    def advance(self, seconds: float) -> None:
        """Let time pass, with a Due at each time that was asked for."""
        until_s = self.mono_s + seconds
        while self.wakes and min(self.wakes) <= until_s:
            due_s = min(self.wakes)
            self.wakes.remove(due_s)
            self.mono_s = max(self.mono_s, due_s)
            self.feed(f.Due())
        self.mono_s = until_s

    # --- all turns good

    def settle(self) -> None:
        """Answer everything well until nothing is left to do; must end."""
        if self.held:
            self.held = False
            self.feed(f.Unheld())
        for shard, log in self.logs.items():
            if not (log.assigned or log.over or self.draining):
                self.open(shard)
        steps = deque(maxlen=20)
        for _ in range(3000):
            steps.append(self.step_well())
            if steps[-1] is None:
                return
        raise AssertionError(f"no end: {list(steps)}")

    def step_well(self, outcome: Outcome = GOOD) -> str | None:  # noqa: PLR0911 - a list of choices
        """Do one thing that is to be done, as well as it can end; an invocation with this outcome."""
        if self.flights:
            batch_id, flight = next(iter(self.flights.items()))
            self.end(batch_id, Cancelled() if flight.cancel is False else outcome)
            return "end"
        if self.keeps:
            self.answer_keep(self.keeps[0], stored=True)
            return "keep"
        if self.commit is not None:
            self.answer_commit(remembered=True)
            return "commit"
        if self.locates:
            self.answer_locate(next(iter(self.locates)), latest=False)
            return "locate"
        for unit, demand in self.reads.items():
            if any(self.has_more(shard, wanted.after) for shard, wanted in demand.items()):
                self.answer_read(unit)
                return "read"
        for shard, log in self.logs.items():
            if not (log.assigned or log.over or self.draining):
                self.open(shard)
                return "open"
        if not self.wakes:
            return None
        self.advance(max(0.0, min(self.wakes) - self.mono_s))
        return "wait"

    def has_more(self, shard: str, after: int) -> bool:
        log = self.logs[shard]
        if not self.found:
            return log.assigned and log.end > after
        return log.assigned and (log.closed or any(row.position > after for row in log.rows))

    def check_settled(self) -> None:
        """After `settle`: everything is finished and committed, or the drain is over."""
        assert not self.replaying
        if self.draining:
            assert self.finished
            return
        for shard, log in self.logs.items():
            assert {row.position for row in self.relevant(shard)} <= log.settled
            assert log.committed is not None or (self.found and not log.rows)
            assert log.over == log.closed
            if log.over:
                assert log.committed
                assert log.committed.ended
            elif not self.found:
                assert log.committed == f.Progress(max(log.end, log.start), "")
            elif log.rows:
                assert log.committed == f.Progress(log.rows[-1].position, "")


def plain(command: f.Command) -> object:
    """Give a form that compares by value."""
    match command:
        case f.Invoke(batch):
            return ("Invoke", batch.id, batch.shard, batch.lane, batch.positions(), batch.attempts, batch.replays)
        case f.Keep(failure, batch):
            return ("Keep", failure, batch.positions())
        case _:
            return command
