"""A world for one queue engine: a queue, a function, a failure store, a memory; and what must hold in it.

The world plays runner, queue, function and store, one answer at a time and in any order, and knows the truth: which
message was really handled, stored, filtered, deleted or is still to come. Every command is checked when it is given.
The world outlives the engine: a crash throws the engine away and keeps what is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from router.core import facts as f
from router.core.message_state import MessageState, decode, encode
from router.core.model import (
    Batch,
    Cancelled,
    Chunk,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Instant,
    Outcome,
    Reason,
    Refused,
    Returned,
    TooLarge,
)
from router.core.queues import QueueEngine

GOOD = Returned(None)


@dataclass(frozen=True, slots=True)
class Row:
    """A message as one receive gave it."""

    position: int
    receipt: int


@dataclass(slots=True)
class Message:
    """What the queue holds, and what is true of it."""

    position: int
    #: Place among all that was sent.
    number: int
    key: bytes | None
    size: int
    sent_ms: int
    kept: bool
    unfit: bool
    #: Monotonic time from which it may be received.
    visible_s: float
    receives: int = 0
    #: Number of the last receive that gave it; 0 = none.
    receipt: int = 0
    #: The last one that the engine heard of.
    known_receipt: int = 0
    deleted: bool = False
    #: The engine's life in which that happened.
    deleted_life: int = 0
    #: Was a deletion answered with a failure?
    deletion_unsure: bool = False
    #: Does its lease end before or after what the engine can know?
    lease_unsure: bool = False
    #: Was it ever with the function?
    delivered: bool = False
    #: Did the function handle it, or is it durably stored as failed?
    settled: bool = False
    #: The engine's life in which that happened; None = not, or it may run again as its deletion failed.
    settled_life: int | None = None
    #: Failed tries that counted, since it last got a fresh budget.
    spent: int = 0


@dataclass(slots=True)
class Flight:
    batch: Batch
    #: None = nobody asked; else `waiting_only` of the last request to cancel it.
    cancel: bool | None = None


@dataclass(slots=True)
class Stored:
    """A failed batch in the store."""

    rows: list[Row]
    chunk: Chunk


def identify(item: object, batch: Batch) -> int | None:
    return item if isinstance(item, int) and item in batch.positions() else None


@dataclass(slots=True)
class Life:
    """What a crash takes away."""

    receives: dict[int, f.Receive] = field(default_factory=dict)
    flights: dict[str, Flight] = field(default_factory=dict)
    deletes: dict[int, f.Delete] = field(default_factory=dict)
    extends: dict[int, f.Extend] = field(default_factory=dict)
    remembers: dict[int, f.Remember] = field(default_factory=dict)
    keeps: dict[str, f.Keep] = field(default_factory=dict)
    #: Those that were not stored, and may be asked for again although time has passed.
    refused_keeps: list[f.Keep] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    replaying: set[str] = field(default_factory=set)
    #: Messages whose leases were to end at once.
    given_back: set[int] = field(default_factory=set)
    held: bool = False
    draining: bool = False
    forced_s: float = float("inf")
    finished: bool = False


class World:
    def __init__(self, mapping: EventSourceMapping, seed: int, *, lease_s: float, maximum_receives: int | None) -> None:
        self.mapping = mapping
        self.lease_s = lease_s
        self.maximum_receives = maximum_receives
        self.chance = Random(seed)
        self.mono_s = 1000.0
        self.wall_offset_s = 1_700_000_000.0
        #: In the order they were sent, without those that are deleted.
        self.queue: list[Message] = []
        self.messages: dict[int, Message] = {}
        self.moved: set[int] = set()
        self.texts: dict[int, str] = {}
        self.stored: dict[str, Stored] = {}
        self.receipts = 0
        self.lives = 0
        #: Times that attempts may have been forgotten.
        self.forgotten = 0
        self.settling = False
        #: Has a check failed? Then what follows says nothing.
        self.broken = False
        self.start_engine()

    def start_engine(self) -> None:
        seed = self.chance.randrange(2**32)
        self.lives += 1
        self.life = Life()
        self.engine = QueueEngine(self.mapping, "queue", identify, Random(seed), self.texts)
        #: Fed the same: must say the same.
        self.twin = QueueEngine(self.mapping, "queue", identify, Random(seed), self.texts)
        self.feed(f.QueueOpened())

    @property
    def now(self) -> Instant:
        return Instant(self.mono_s, self.mono_s + self.wall_offset_s)

    @property
    def fifo(self) -> bool:
        return self.mapping.polling.fifo

    @property
    def concurrency(self) -> int:
        polling = self.mapping.polling
        return min(polling.maximum_concurrency or polling.function_concurrency, polling.function_concurrency)

    @property
    def remembers(self) -> bool:
        return self.mapping.bisect or self.mapping.maximum_retry_attempts is not None

    # --- feeding, and carrying out what comes back

    def feed(self, fact: f.QueueFact) -> None:
        self.broken = True
        commands = self.engine.feed(fact, self.now)
        assert [plain(c) for c in commands] == [plain(c) for c in self.twin.feed(fact, self.now)]
        for command in commands:
            self.carry_out(command)
        self.check()
        self.broken = False

    def carry_out(self, command: f.Command) -> None:  # noqa: C901, PLR0912 - a table
        life = self.life
        assert not (life.finished and isinstance(command, f.Invoke | f.Receive))
        match command:
            case f.Receive(poll):
                self.receive_asked(command)
                life.receives[poll] = command
            case f.StopReceiving(poll):
                del life.receives[poll]
            case f.Invoke(batch):
                self.invoked(batch)
            case f.Cancel(batch_id, waiting_only):
                flight = life.flights[batch_id]
                flight.cancel = waiting_only if flight.cancel is None else flight.cancel and waiting_only
            case f.Delete(call, messages):
                self.delete_asked(messages)
                life.deletes[call] = command
            case f.Extend(call, messages, lease_s):
                assert 1 <= len(messages) <= 10
                assert 0 <= lease_s <= 43200
                self.extend_asked(messages, lease_s)
                life.extends[call] = command
            case f.Remember(call, texts):
                assert texts
                assert call not in life.remembers
                life.remembers[call] = command
            case f.Keep(failure, batch):
                assert failure.id not in life.keeps
                if command not in life.refused_keeps:
                    self.keep_asked(failure, batch)
                life.keeps[failure.id] = command
            case f.WakeAt(mono_s):
                life.wakes.append(mono_s)
            case f.Replayed(failure_id) | f.ReplayRefused(failure_id):
                life.replaying.remove(failure_id)
            case f.Finished():
                assert life.draining
                assert self.mono_s >= life.forced_s or not (life.flights or life.keeps or life.deletes or life.extends)
                life.finished = True
            case _:
                assert isinstance(command, f.Note)

    def receive_asked(self, receive: f.Receive) -> None:
        life, polling = self.life, self.mapping.polling
        assert not life.held
        assert not life.draining
        assert 1 <= receive.limit <= 10
        if polling.maximum_concurrency:
            asked = receive.limit + sum(each.limit for each in life.receives.values())
            assert asked <= (self.concurrency - len(life.flights)) * self.mapping.batch_size

    def invoked(self, batch: Batch) -> None:
        life = self.life
        positions = batch.positions()
        assert not life.draining
        assert not life.held or batch.replays
        assert batch.not_before_s <= self.mono_s
        assert batch.count == len(positions) == len(set(positions)) > 0
        assert [row.position for row in batch.rows()] == positions
        assert batch.count <= self.mapping.batch_size
        messages = [self.messages[position] for position in positions]
        assert batch.count == 1 or sum(each.size for each in messages) <= self.mapping.batch_bytes
        assert batch.id not in life.flights
        keys = {message.key for message in messages} - {None}
        for other in life.flights.values():
            theirs = [self.messages[position] for position in other.batch.positions()]
            assert not keys.intersection(message.key for message in theirs), "two deliveries of a key overlap"
            if not (batch.replays or other.batch.replays):
                assert not set(positions).intersection(other.batch.positions()), "a message runs beside itself"
        life.flights[batch.id] = Flight(batch)
        assert len(life.flights) <= self.concurrency
        if not batch.replays:
            self.check_live(batch, messages)
            self.check_remembered(batch)

    def check_live(self, batch: Batch, messages: Sequence[Message]) -> None:
        for index, message in enumerate(messages):
            assert message.kept
            assert self.settling or not message.unfit
            assert message.settled_life != self.lives, "a finished message runs again"
            assert message.visible_s > self.mono_s or message.lease_unsure, "its lease has ended"
            if self.fifo and not message.settled:
                self.check_order(message, messages[:index])
            message.delivered = True

    def check_order(self, message: Message, before: Sequence[Message]) -> None:
        """See that all earlier messages of the group are over, deleted too, or run before it in the same batch."""
        for each in self.queue:
            if each.key == message.key and each.number < message.number and each.kept and each not in before:
                assert each.settled, "out of order"
                assert each.settled_life != self.lives, "a crash now would change the order"

    def check_remembered(self, batch: Batch) -> None:
        """See that what an earlier try left is durable before the next begins."""
        limit = self.mapping.maximum_retry_attempts
        if limit is not None:
            assert batch.attempts <= limit + self.forgotten
        if batch.durable and self.remembers:
            states = [decode(self.texts.get(position, "")) for position in batch.positions()]
            assert all(states)
            assert max(state.attempts for state in states if state) == batch.attempts

    def delete_asked(self, messages: Mapping[int, Any]) -> None:
        assert 1 <= len(messages) <= 10
        under_way = {position for delete in self.life.deletes.values() for position in delete.messages}
        assert not under_way.intersection(messages)
        for position in messages:
            message = self.messages[position]
            assert message.settled or not message.kept, "deleted although it was not done"

    def extend_asked(self, messages: Mapping[int, Any], lease_s: int) -> None:
        life = self.life
        if lease_s:
            assert not life.given_back.intersection(messages), "extended although it was given back"
        else:
            assert life.draining, "given back without need"
            life.given_back.update(messages)

    def keep_asked(self, failure: Any, batch: Batch) -> None:
        limit, age_s = self.mapping.maximum_retry_attempts, self.mapping.maximum_record_age_s
        messages = [self.messages[position] for position in batch.positions()]
        assert failure.attempts >= 1
        assert failure.batch_size == batch.count
        assert (failure.first_position, failure.last_position) == (batch.first_position, batch.last_position)
        match failure.reason:
            case Reason.RETRIES:
                assert batch.replays or limit is not None
                assert limit is None or failure.attempts > limit
            case Reason.AGE:
                assert age_s is not None
                assert not batch.replays
                assert all(each.sent_ms <= (self.now.wall_s - age_s) * 1000 for each in messages)
            case Reason.UNFIT:
                assert limit is not None
                assert batch.count == 1
                assert messages[0].unfit
            case _:
                raise AssertionError(failure.reason)

    # --- what holds after each step

    def check(self) -> None:
        life = self.life
        if life.held or life.draining:
            assert not life.receives
        assert len(self.engine._agenda) < 500

    # --- the queue

    def send(self, key: bytes | None, size: int, age_s: float, *, kept: bool, unfit: bool) -> None:
        number = len(self.messages)
        position = self.chance.getrandbits(60) << 8 | number & 0xFF
        sent_ms = int((self.now.wall_s - age_s) * 1000)
        message = Message(position, number, key, size, sent_ms, kept, unfit, self.mono_s)
        self.messages[position] = message
        self.queue.append(message)

    def receivable(self) -> list[Message]:
        """Give what a receive could bring now, after redrive."""
        locked = {each.key for each in self.queue if each.receipt and each.visible_s > self.mono_s}
        found = []
        for message in list(self.queue):
            if message.visible_s > self.mono_s or (self.fifo and message.key in locked):
                continue
            if not self.settling and self.maximum_receives and message.receives >= self.maximum_receives:
                self.queue.remove(message)
                self.moved.add(message.position)
            else:
                found.append(message)
        return found

    def answer_receive(self, poll: int, most: int = 10) -> None:
        limit = min(self.life.receives.pop(poll).limit, most)
        found = self.receivable()
        if not self.fifo:
            self.chance.shuffle(found)
        chunk = self.page(found[:limit])
        for message in found[:limit]:
            message.known_receipt = message.receipt
        again = [message.position for message in found[:limit] if message.receives > 1 and self.remembers]
        recalled = {position: self.texts[position] for position in again if position in self.texts}
        self.feed(f.Received(poll, chunk, self.lease_s, recalled))

    def page(self, messages: Sequence[Message]) -> Chunk:
        rows = []
        for message in messages:
            self.receipts += 1
            message.receipt = self.receipts
            message.receives += 1
            message.visible_s = self.mono_s + self.lease_s
            message.lease_unsure = False
            rows.append(Row(message.position, message.receipt))
        kept = [index for index, message in enumerate(messages) if message.kept]
        unfit = {index: "unfit" for index in kept if messages[index].unfit and not self.settling}
        return chunk_of(rows, messages, None if len(kept) == len(messages) else kept, unfit)

    def can_be_tried_elsewhere(self) -> list[Message]:
        """Give the messages that another replica may receive, try and give back, unknown to the engine and noted."""
        written = {position for remember in self.life.remembers.values() for position in remember.texts}
        limit = self.mapping.maximum_retry_attempts
        first = {message.key: message for message in reversed(self.queue)}
        return [
            message
            for message in (self.receivable() if limit else ())
            if message.key is None
            or message is first[message.key]  # behind a new one of its group it would be new, too
            if not (message.settled or message.unfit or message.position in written)
            and self.engine._hand.get(message.position) is None
            and message.spent < (limit or 0)
        ]

    def try_elsewhere(self, message: Message) -> None:
        """Let another replica fail with a message alone."""
        message.receives += 1
        self.receipts += 1
        message.receipt = self.receipts
        message.spent += 1
        wall_s = self.now.wall_s
        state = MessageState(f"elsewhere-{self.receipts}", message.spent, wall_s, 0.0, wall_s)
        self.texts[message.position] = encode(state)

    def expose(self, message: Message) -> None:
        """Let a lease end early, as a queue does that delivers twice."""
        message.visible_s = self.mono_s
        message.lease_unsure = True

    def delete(self, row: Row) -> bool:
        """Delete by receipt; say whether the answer is that it worked, as it may be for a stale receipt too."""
        message = self.messages[row.position]
        if row.receipt == message.receipt:
            if message in self.queue:
                self.queue.remove(message)
            message.deleted, message.deleted_life = True, self.lives
        elif not message.deleted:
            if self.chance.random() < 0.5:
                return False
            if message.known_receipt != message.receipt:
                self.runs_again(row.position)
        return True

    def runs_again(self, position: int) -> None:
        """Note that a message may be run again although it is finished, with its attempts forgotten."""
        message = self.messages[position]
        message.deletion_unsure = True
        if message.settled_life is not None:
            message.settled_life = None
            self.forgotten += 1

    def answer_delete(self, call: int, *, happens: Iterable[int] | None = None, ok: bool = True) -> None:
        """Answer a delete: what it was asked for happens, or only some ordinals; not `ok`: the answer is lost."""
        delete = self.life.deletes.pop(call)
        chosen = set(range(len(delete.messages)) if happens is None else happens)
        failed = {}
        for ordinal, (position, row) in enumerate(delete.messages.items()):
            if ordinal not in chosen or not self.delete(row):
                failed[position] = "InternalError"
                self.runs_again(position)
        self.feed(f.Deleted(call, failed) if ok else f.DeleteFailed(call, "away"))

    def extend(self, position: int, row: Row, lease_s: int) -> bool:
        message = self.messages[position]
        if message.deleted or row.receipt != message.receipt or message.visible_s <= self.mono_s:
            return False
        message.visible_s = self.mono_s + lease_s
        return True

    def answer_extend(self, call: int, *, happens: bool = True, ok: bool = True) -> None:
        extend = self.life.extends.pop(call)
        failed = {}
        for position, row in extend.messages.items():
            if not happens or not self.extend(position, row, extend.lease_s):
                failed[position] = "InternalError"
            elif not ok:
                self.messages[position].lease_unsure = True
        self.feed(f.Extended(call, failed) if ok else f.ExtendFailed(call, "away"))

    # --- the function

    def end(self, batch_id: str, outcome: Outcome) -> None:
        self.broken = True
        batch = self.life.flights.pop(batch_id).batch
        handled = self.handled(batch, outcome)
        if not batch.replays:
            for position in batch.positions():
                self.ended(self.messages[position], batch, outcome, done=position in handled, any_done=bool(handled))
        self.feed(f.InvocationEnded(batch_id, outcome))

    def ended(self, message: Message, batch: Batch, outcome: Outcome, *, done: bool, any_done: bool) -> None:
        """Note what an outcome means for one message."""
        if done:
            message.settled = True
            message.settled_life = self.lives
            return
        counts = isinstance(outcome, Refused) and outcome.initialising and self.mapping.init_errors_count
        if isinstance(outcome, Cancelled) or (isinstance(outcome, Refused) and not counts):
            return
        splits = batch.count > 1 and (self.mapping.bisect or isinstance(outcome, TooLarge))
        message.spent = 0 if splits or any_done else message.spent + 1
        limit = self.mapping.maximum_retry_attempts
        # What is left of a batch of which some were too old has a fresh budget.
        if limit is not None and self.mapping.maximum_record_age_s is None:
            assert message.spent <= limit + 1 + self.forgotten

    def handled(self, batch: Batch, outcome: Outcome) -> list[int]:
        """Say which messages an outcome settles, read from the documentation and not from the code."""
        positions = batch.positions()
        if not isinstance(outcome, Returned):
            return []
        if not self.mapping.report_item_failures or outcome.body is None:
            return positions
        items = outcome.body["batchItemFailures"]  # type: ignore[index]
        if any(item and item["itemIdentifier"] not in positions for item in items):
            return []
        named = {item["itemIdentifier"] for item in items if item}
        if self.mapping.polling.hold_group:
            return [position for position in positions if not self.holds_back(positions, named, position)]
        return [position for position in positions if position not in named]

    def holds_back(self, positions: Sequence[int], named: set[int], position: int) -> bool:
        """Say whether a message is listed, or stands behind a listed one of its group."""
        key = self.messages[position].key
        before = positions[: positions.index(position)]
        return position in named or any(
            other in named and self.messages[other].key == key is not None for other in before
        )

    # --- the stores

    def answer_keep(self, failure_id: str, *, stored: bool, ok: bool = True) -> None:
        keep = self.life.keeps.pop(failure_id)
        if stored:
            self.store(keep)
        if not (stored and ok):
            self.life.refused_keeps.append(keep)
            self.feed(f.KeepFailed(failure_id, "disk full"))
            return
        if not keep.batch.replays:
            for position in keep.batch.positions():
                self.messages[position].settled_life = self.lives
        self.feed(f.Kept(failure_id))

    def store(self, keep: f.Keep) -> None:
        batch = keep.batch
        messages = [self.messages[position] for position in batch.positions()]
        if keep.failure.id in self.stored:
            assert [row.position for row in self.stored[keep.failure.id].rows] == batch.positions()
        self.stored[keep.failure.id] = Stored(batch.rows(), chunk_of(batch.rows(), messages, None, {}))
        if not batch.replays:
            for message in messages:
                message.settled = True

    def answer_remember(self, call: int, *, written: bool, ok: bool = True) -> None:
        remember = self.life.remembers.pop(call)
        if written:
            self.write(remember)
        self.feed(f.Remembered(call) if written and ok else f.RememberFailed(call, "disk full"))

    def write(self, remember: f.Remember) -> None:
        for position, text in remember.texts.items():
            if text:
                self.texts[position] = text
            else:
                self.texts.pop(position, None)

    def replay(self, failure_id: str, *, elsewhere: bool) -> None:
        self.life.replaying.add(failure_id)
        self.feed(f.ReplayRequested(failure_id, self.stored[failure_id].chunk, elsewhere))

    # --- the daemon and time

    def drain(self, within_s: float) -> None:
        self.life.draining = True
        self.life.forced_s = self.mono_s + within_s
        self.feed(f.DrainRequested(within_s))

    def crash(self) -> None:
        life = self.life
        for delete in life.deletes.values():
            for row in delete.messages.values():
                if self.chance.random() < 0.5:
                    self.delete(row)
        for keep in life.keeps.values():
            if self.chance.random() < 0.5:
                self.store(keep)
        for remember in life.remembers.values():
            if self.chance.random() < 0.5:
                self.write(remember)
        self.forgotten += 1
        self.start_engine()

    def advance(self, seconds: float) -> None:
        """Let time pass, with a Due at each time that was asked for."""
        until_s = self.mono_s + seconds
        wakes = self.life.wakes
        while wakes and min(wakes) <= until_s:
            due_s = min(wakes)
            wakes.remove(due_s)
            self.mono_s = max(self.mono_s, due_s)
            if not self.life.finished:
                self.feed(f.Due())
        self.mono_s = until_s

    # --- anything may happen

    def stumble(self, chance: Random) -> None:
        """Do one thing that may happen now."""
        life = self.life
        if life.finished:
            return
        may_fail = chance.random() < 0.2
        doings = [
            name for name in ("receives", "flights", "deletes", "extends", "remembers", "keeps") if getattr(life, name)
        ]
        doing = chance.choice([*doings, *doings, "time"])
        pending = list(getattr(life, doing, ()))
        match doing:
            case "receives":
                self.answer_receive(chance.choice(pending), chance.choice((1, 3, 10)))
            case "flights":
                batch_id = chance.choice(pending)
                self.end(batch_id, self.some_outcome(life.flights[batch_id], chance))
            case "deletes":
                some = {number for number in range(10) if chance.random() < 0.7}
                happens = some if may_fail else None
                self.answer_delete(chance.choice(pending), happens=happens, ok=chance.random() < 0.9)
            case "extends":
                self.answer_extend(chance.choice(pending), happens=not may_fail, ok=chance.random() < 0.9)
            case "remembers":
                self.answer_remember(chance.choice(pending), written=not may_fail, ok=chance.random() < 0.9)
            case "keeps":
                self.answer_keep(chance.choice(pending), stored=not may_fail, ok=chance.random() < 0.9)
            case _:
                self.advance(chance.choice((0.1, 0.1, 1.0, 10.0)))

    def some_outcome(self, flight: Flight, chance: Random) -> Outcome:
        if flight.cancel is not None and chance.random() < 0.5:
            return Cancelled()
        error = FunctionError("Boom", "boom")
        positions = flight.batch.positions()
        listed = chance.sample(positions, chance.randint(0, len(positions)))
        outcomes: tuple[Outcome, ...] = (
            GOOD,
            GOOD,
            Failed(FailureKind.RAISED, error),
            Returned({"batchItemFailures": [{"itemIdentifier": position} for position in listed]}),
            Refused(error, initialising=chance.random() < 0.3),
            TooLarge(7_000_000),
        )
        [outcome] = chance.choices(outcomes, (3, 3, 3, 6, 2, 1))
        return outcome

    # --- all turns good

    def settle(self) -> None:
        """Answer everything well until nothing is left to do; must end."""
        self.settling = True
        if self.life.held and not self.life.finished:
            self.life.held = False
            self.feed(f.Unheld())
        steps: deque[str | None] = deque(maxlen=20)
        for _ in range(2000):
            steps.append(self.step_well())
            if steps[-1] is None:
                return
        raise AssertionError(f"no end: {list(steps)}, {leftovers(self.engine)}, {self.queue}")

    def step_well(self, outcome: Outcome = GOOD) -> str | None:  # noqa: PLR0911 - a list of choices
        """Do one thing that is to be done, as well as it can end; an invocation with this outcome."""
        life = self.life
        if life.finished:
            return None
        if life.flights:
            batch_id, flight = next(iter(life.flights.items()))
            self.end(batch_id, Cancelled() if flight.cancel is False else outcome)
            return "end"
        if life.keeps:
            self.answer_keep(next(iter(life.keeps)), stored=True)
            return "keep"
        if life.remembers:
            self.answer_remember(next(iter(life.remembers)), written=True)
            return "remember"
        if life.deletes:
            self.answer_delete(next(iter(life.deletes)))
            return "delete"
        if life.extends:
            self.answer_extend(next(iter(life.extends)))
            return "extend"
        if life.receives and self.receivable():
            self.answer_receive(next(iter(life.receives)))
            return "receive"
        times = [*life.wakes, *(message.visible_s for message in self.queue if message.visible_s > self.mono_s)]
        if not times:
            return None
        self.advance(max(0.0, min(times) - self.mono_s))
        return "wait"

    def check_settled(self) -> None:
        """After `settle`: everything is finished and deleted, or the drain is over; and nothing is held any more."""
        life = self.life
        if life.draining:
            assert life.finished
            assert not life.replaying or self.mono_s >= life.forced_s
        else:
            assert not life.replaying
            assert not self.queue
            self.receive_nothing()
            assert all(
                message.settled or not message.kept
                for message in self.messages.values()
                if message.position not in self.moved
            )
            assert life.receives
            assert leftovers(self.engine) == []
            for position in self.texts.keys() - self.moved:
                message = self.messages[position]
                assert message.deleted_life < self.lives or message.deletion_unsure, "it is remembered for ever"
            assert self.engine.why_stuck() is None
            [status] = self.engine.status(self.now)
            assert (status.in_flight, status.refusals, status.oldest_ms) == (0, 0, None)

    def receive_nothing(self) -> None:
        """End all receives after their whole wait, and let what is due later be done."""
        self.advance(20.0)
        for poll, receive in list(self.life.receives.items()):
            assert receive.wait_s == 20.0
            self.answer_receive(poll)
        self.settle()


def leftovers(engine: QueueEngine) -> list[str]:
    """Name what an engine still holds on to, beside free places and receives."""
    held = {
        "messages": engine._hand,
        "bytes": engine._hand.bytes,
        "turns": engine._turns,
        "live": engine._live,
        "ready": engine._ready,
        "gated": engine._gated,
        "storing": engine._storing,
        "running": engine._running,
        "refused": engine._refused,
        "window": engine._window.count,
        "keeping": engine._keeping,
        "replays": len(engine._replays),
        "deletes": engine._deletes.left,
        "leases": engine._leases,
        "writes": engine._memory.writes,
        "agenda": engine._agenda,
    }
    return [name for name, value in held.items() if value]


def chunk_of(
    rows: Sequence[Row], messages: Sequence[Message], kept: Sequence[int] | None, unfit: Mapping[int, str]
) -> Chunk:
    return Chunk(
        "queue",
        [message.position for message in messages],
        [message.size for message in messages],
        [message.sent_ms for message in messages],
        [message.key for message in messages],
        rows,
        through=-1,
        kept=kept,
        unfit=unfit,
    )


def plain(command: f.Command) -> object:
    """Give a form that compares by value."""
    match command:
        case f.Invoke(batch):
            return ("Invoke", batch.id, batch.positions(), batch.attempts, batch.replays)
        case f.Keep(failure, batch):
            return ("Keep", failure, batch.positions())
        case _:
            return command
