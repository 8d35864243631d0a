"""The queue engine: leased messages in, batches out; facts in, commands out.

One engine runs one mapping over one queue. A message is received under a lease (the queue's visibility timeout) and is
settled alone: deleted when it is done, else the queue shows it again. Batches are cut, judged and split by the same
rules as those of streams (`window`, `verdict`, `Planner.settle`); there is no position to commit.

What becomes of a failed batch (AWS Lambda developer guide, "Using Lambda with Amazon SQS", and behaviour recorded on
AWS): without a limit of retries it is left to the queue. Nothing of it is deleted, its leases run, the queue's own
redrive policy counts. With a limit, which AWS does not offer here, it is tried again by the mapping's backoff as long
as its leases last; a later try is left to the queue, with the attempts remembered. Halves of a bisected batch run at
once. A batch that the function never saw (throttled, no worker) is kept, and its place with it, and is tried again
while its leases last: receiving more would only use up their receives.

Order. Messages with ordering keys (FIFO groups) take turns (`turns`): a batch goes when everything before it that
shares a key is over, deletions included, so that a crash can repeat but not reorder. When a batch is left to the
queue, what is in hand behind it goes back too.

A message may come again while it is in hand (its lease ended too early, or the queue delivers twice): then only its
lease and receipt are renewed. It never runs beside itself. A receive that was asked before a message was deleted may
still bring it, if the queue showed it again just before and that answer came last: then it is deleted once more.

Order of writing: what a message has been through is remembered before its next try; what is given up is stored before
it is deleted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

from router.core import facts as f
from router.core.agenda import Agenda, Alarm
from router.core.deletes import Deletes, Departed
from router.core.describe import Repeat, ShardStatus, failed_batch, repeat_of, tell_try
from router.core.hand import Deletion, Hand
from router.core.keeping import Keeping
from router.core.lane import Discard, Plan, Planner, as_uuid
from router.core.leases import Leases
from router.core.memory import Memory
from router.core.model import (
    UNKNOWN_TIME_MS,
    Batch,
    Chunk,
    EventSourceMapping,
    FunctionError,
    Instant,
    Outcome,
    Part,
    Reason,
)
from router.core.polls import RECEIVE_LIMIT, Polls
from router.core.replays import Replays, stopping, without_function
from router.core.scaling import Concurrency, Pace
from router.core.turns import Turns
from router.core.verdict import (
    FailedWhole,
    Identify,
    NotAccepted,
    PartlyFailed,
    Stopped,
    Succeeded,
    Verdict,
    judge,
    reported,
)
from router.core.window import BatchWindow

if TYPE_CHECKING:
    from random import Random

#: Failed batches that wait in memory for their next try; more are left to the queue until then.
HELD_BATCHES: Final = 200
#: Messages in hand at least, before receiving stops for what waits behind its key.
HAND_LIMIT: Final = 1000
#: How long, past the deadline of a drain, killed invocations and the last calls may take.
FORCE_S: Final = 5.0
#: Batches whose leases end while they wait for a worker are looked for at most this often.
LAPSE_S: Final = 1.0
#: A lease ends at the queue before it does by our clock, by what the answer to its receive took: no more than this.
UNSURE_S: Final = 10.0
#: What is remembered of finished messages is forgotten together, this often.
FORGET_S: Final = 1.0


class QueueEngine:
    """Decides for one mapping over one queue."""

    def __init__(
        self, mapping: EventSourceMapping, queue: str, identify: Identify, rng: Random, remembered: Mapping[int, str]
    ) -> None:
        """Make it; `remembered` are the texts that earlier lives of it asked to remember, by position."""
        self._mapping = mapping
        self._polling = mapping.polling
        #: A lease that is extended covers whatever is needed of it.
        self._needed_lease_s = 0.0 if mapping.polling.heartbeat else mapping.polling.needed_lease_s
        self._queue = queue
        self._identify = identify
        self._rng = rng
        self._planner = Planner(mapping, rng)
        self._window = BatchWindow(
            mapping.batch_size, mapping.batch_bytes, mapping.window_s, mapping.rules.window_start
        )
        self._polls = Polls(mapping.polling, rng)
        self._concurrency = Concurrency(mapping.polling)
        #: Has the window got messages with ranks since it was sorted?
        self._is_unsorted = False
        self._pace = Pace()
        self._hand = Hand()
        self._lease_s = 0.0
        self._turns: Turns[Batch | Deletion] = Turns()
        #: Batches that are not over, by request id: running, refused, waiting for a time, a turn, a store.
        self._live: dict[str, Batch] = {}
        #: Batches that may start as soon as there is room.
        self._ready: deque[Batch] = deque()
        #: Batches that may not start although it is their turn, as what they have been through is being written.
        self._gated: set[Batch] = set()
        #: Batches that are given up, and being stored.
        self._storing: set[Batch] = set()
        #: Batches with the function, and since when (monotonic).
        self._running: dict[str, tuple[Batch, float]] = {}
        #: Batches that the function did not take; they keep their place among those with the function.
        self._refused: dict[str, Batch] = {}
        #: Since when each place that is free has been free, longest first: the batching window runs from there.
        self._free_since: deque[float] = deque()
        self._keeping: Keeping[Batch] = Keeping(rng)
        self._replays = Replays()
        self._deletes = Deletes(self._hand, rng)
        self._departed = Departed()
        self._leases = Leases(self._hand)
        self._memory = Memory(remembered, rng)
        #: Failures in a row that were left to the queue, and the last one, with its monotonic time.
        self._failed_in_a_row = 0
        self._failed_s = 0.0
        self._last_error: str | None = None
        #: Records that the function has succeeded with.
        self.records_done = 0
        self._open = False
        self._held: str | None = None
        self._draining = False
        self._forced = False
        self._finished = False
        self._agenda = Agenda()
        self._flushes = Alarm(self._agenda, self._flush)
        self._beats = Alarm(self._agenda, self._beat)
        self._lapses = Alarm(self._agenda, self._take_back)
        self._commands: list[f.Command] = []

    # --- the two ends

    def feed(self, fact: f.QueueFact, now: Instant) -> list[f.Command]:
        """Take a fact in and say what is to be done."""
        self._take(fact, now)
        self._agenda.run_due(now)
        self._start(now)
        self._commands += self._deletes.wanted()
        self._commands += self._leases.wanted(now)
        if self._draining:
            self._finish_if_idle()
        elif self._open and self._held is None:
            patient = not (self._free_since or self._polling.maximum_concurrency)
            self._commands += self._polls.wanted(self._room(), self._most(), now.mono_s, patient=patient)
        window_s = self._window.due_at() if self._free_since and self._held is None else None
        wake = self._agenda.wake(window_s)
        if wake:
            self._commands.append(wake)
        commands, self._commands = self._commands, []
        return commands

    def _take(self, fact: f.QueueFact, now: Instant) -> None:  # noqa: C901, PLR0912 - one line a fact
        match fact:
            case f.InvocationEnded(batch_id, outcome):
                self._invocation_ended(batch_id, outcome, now)
            case f.Received():
                self._received(fact, now)
            case f.Deleted(call, failed):
                self._deleted(call, failed, now)
            case f.DeleteFailed(call, error):
                self._not_deleted(self._deletes.failed(call, error), now)
            case f.Due():
                self._agenda.woken()
            case f.ReceiveFailed(poll, error):
                self._receive_failed(poll, error, now)
            case f.Extended(call, failed):
                self._leases.ended(call, failed)
                if failed:
                    self._not_extended(len(failed), next(iter(failed.values())))
            case f.ExtendFailed(call, error):
                self._not_extended(self._leases.failed(call), error)
            case f.Remembered(call):
                self._written(call, now)
            case f.RememberFailed(call, error):
                self._not_written(call, error, now)
            case f.Kept(failure_id):
                self._kept(failure_id, now)
            case f.KeepFailed(failure_id, error):
                self._keep_failed(failure_id, error, now)
            case f.QueueOpened():
                self._open = True
                self._note("queue.opened")
                self._flushes.by(now.mono_s + FORGET_S)
            case f.Held(reason):
                self._held = reason
                self._commands += self._polls.stop()
            case f.Unheld():
                self._held = None
            case f.ReplayRequested():
                self._replay(fact, now)
            case f.DrainRequested(within_s):
                self._drain(within_s, now)
            case _:
                assert_never(fact)

    def _note(self, event: str, **fields: object) -> None:
        self._commands.append(f.Note(event, self._queue, fields))

    # --- receiving

    def _room(self) -> int:
        """Count the messages that may be asked for, or are asked for already."""
        size = self._mapping.batch_size
        if self._hand.bytes >= self._mapping.memory_bytes:
            return 0
        most_ahead = 0 if self._polling.maximum_concurrency else max(self._concurrency.limit * size, 2 * RECEIVE_LIMIT)
        ahead = min(self._pace.ahead, most_ahead)
        waiting = self._window.count + sum(batch.count for batch in self._ready)
        most = max(HAND_LIMIT, 2 * self._concurrency.limit * max(size, RECEIVE_LIMIT))
        return min(len(self._free_since) * size + ahead - waiting, most - len(self._hand))

    def _most(self) -> int:
        """Count the messages that one receive may bring; of one FIFO group all but the first batch has to wait."""
        if not self._polling.fifo:
            return RECEIVE_LIMIT
        return min(RECEIVE_LIMIT, self._pace.in_turn(self._mapping.batch_size))

    def _received(self, fact: f.Received, now: Instant) -> None:
        chunk = fact.chunk
        if self._memory.purge(now):
            self._flushes.by(now.mono_s + FORGET_S)
        self._lease_s = fact.lease_s
        # A queue without visibility timeout has no leases to keep.
        fresh = self._hand.take(chunk, now.mono_s + fact.lease_s if fact.lease_s else inf)
        late = [position for index in fresh if (position := chunk.positions[index]) in self._departed]
        if late:
            self._deletes.add(late)
            fresh = [index for index in fresh if chunk.positions[index] not in self._departed]
        known = [position for index in fresh if (position := chunk.positions[index]) in fact.recalled]
        self._memory.recall({position: fact.recalled[position] for position in known})
        if self._polls.received(fact.poll, len(fresh), now.mono_s):
            self._concurrency.idled()
            if now.mono_s >= self._failed_s + fact.lease_s:  # it has not come again: the queue has moved it away
                self._failed_in_a_row = 0
        self._departed.forget(self._polls.oldest)
        if self._polls.not_before_s > now.mono_s:
            self._agenda.at(self._polls.not_before_s, _nothing)
        if chunk.kept is not None:
            wanted = set(chunk.kept)
            unwanted = [chunk.positions[index] for index in fresh if index not in wanted]
            fresh = [index for index in fresh if index in wanted]
            if unwanted:
                self._deletes.add(unwanted)
        self._admit(chunk, self._sort_out(chunk, fresh, now) if chunk.unfit else fresh, now)
        self._beat_later(now)

    def _admit(self, chunk: Chunk, indexes: Sequence[int], now: Instant) -> None:
        """Take new messages in: those that have failed before in their pieces, the others for the next batches."""
        new: list[int] = []
        new_keys: set[bytes | None] = set()
        pieces: dict[str, list[int]] = {}
        for index in indexes:
            state = self._memory.get(chunk.positions[index])
            key = chunk.keys[index] if chunk.keys else None
            if state is None or key in new_keys:
                new.append(index)
                new_keys.update(() if key is None else (key,))
            else:
                pieces.setdefault(state.piece, []).append(index)
        restored: list[Batch] = []
        size = self._mapping.batch_size
        cut = [(piece, mine[at : at + size]) for piece, mine in pieces.items() for at in range(0, len(mine), size)]
        for piece, mine in cut:
            restored.append(self._restored(piece, chunk, mine, now))
            if self._memory.gates(restored[-1]):
                self._gated.add(restored[-1])
            self._enter(restored[-1], now)
        if new:
            self._window.add(Part(chunk, new), now.mono_s)
            self._is_unsorted = self._is_unsorted or bool(chunk.ranks)
        for batch in restored:  # only now: what came behind it goes back too
            self._leave_until_next_try(batch, now)

    def _restored(self, piece: str, chunk: Chunk, indexes: Sequence[int], now: Instant) -> Batch:
        states = [state for index in indexes if (state := self._memory.get(chunk.positions[index]))]
        batch_id = self._planner.new_id() if piece in self._live else piece
        batch = Batch(batch_id, self._queue, 0, [Part(chunk, indexes)], len(indexes), durable=True)
        batch.attempts = max(state.attempts for state in states)
        batch.not_before_s = max(self._memory.next_try_s(chunk.positions[index], now) for index in indexes)
        batch.backoff_s = max(0.0, batch.not_before_s - now.mono_s)
        return batch

    def _sort_window(self, now: Instant) -> None:
        """Let the waiting messages of each key change places so that they stand in the order of their ranks."""
        waiting = [(part.chunk, index) for part in self._window.drain() for index in part.indexes]
        places: dict[bytes | None, list[int]] = {}
        for place, (chunk, index) in enumerate(waiting):
            places.setdefault(chunk.keys[index], []).append(place)
        ordered = list(waiting)
        for mine in places.values():
            ranked = sorted((waiting[place] for place in mine), key=lambda each: each[0].ranks[each[1]])
            for place, message in zip(mine, ranked, strict=True):
                ordered[place] = message
        for chunk, index in ordered:
            self._window.add(Part(chunk, [index]), now.mono_s)

    def _sort_out(self, chunk: Chunk, indexes: Sequence[int], now: Instant) -> list[int]:
        """Give the messages that an event can be made of.

        The others are left to the queue, and what is behind them in their groups with them; or given up at once, when
        the mapping gives up at all.
        """
        fit: list[int] = []
        left: list[int] = []
        left_keys: set[bytes | None] = set()
        for index in indexes:
            key = chunk.keys[index] if chunk.keys else None
            if index not in chunk.unfit:
                (left if key in left_keys else fit).append(index)
                continue
            self._note("message.unfit", message=as_uuid(chunk.positions[index]), error=chunk.unfit[index])
            if self._mapping.maximum_retry_attempts is None:
                left.append(index)
                left_keys.update(() if key is None else (key,))
            else:
                self._give_up_unfit(chunk, index, now)
        self._hand.let_go(chunk.positions[index] for index in left)
        return fit

    def _give_up_unfit(self, chunk: Chunk, index: int, now: Instant) -> None:
        batch = Batch(self._planner.new_id(), self._queue, 0, [Part(chunk, [index])], 1)
        self._live[batch.id] = batch
        self._turns.enter(batch, _keys(batch))
        error = FunctionError("Headrace.RecordUnfit", chunk.unfit[index])
        self._keep(Discard(batch, Reason.UNFIT, error, responded=False, function_error=None), now)

    def _receive_failed(self, poll: int, error: str, now: Instant) -> None:
        wait_s = self._polls.failed(poll, error, now.mono_s)
        self._note("source.failed", error=error, retry_in_s=round(wait_s, 1))
        self._agenda.at(now.mono_s + wait_s, _nothing)

    # --- running

    def _start(self, now: Instant) -> None:
        """Start what may start."""
        if self._draining:
            return
        self._balance(now)
        while self._free_since:
            batch = self._next(now)
            if batch is None:
                self._concurrency.spare()
                return
            self._free_since.popleft()
            self._running[batch.id] = batch, now.mono_s
            self._commands.append(f.Invoke(batch))
            if not self._free_since:
                self._concurrency.used_up(now.mono_s)
                self._balance(now)

    def _balance(self, now: Instant) -> None:
        """Have as many free places as the limit leaves; those that were used last go first."""
        free = self._concurrency.limit - len(self._running) - len(self._refused)
        if len(self._free_since) == free:
            return
        while len(self._free_since) > max(0, free):
            self._free_since.pop()
        while len(self._free_since) < free:
            self._free_since.append(now.mono_s)

    def _next(self, now: Instant) -> Batch | None:
        while True:
            batch = self._pop_ready() or self._cut(now)
            if batch is None:
                return None
            if not self._turns.is_first(batch) or not self._has_leases(batch, now):
                continue
            expired = self._planner.expire(batch, now)
            if expired is None:
                return batch
            self._follow(batch, expired, now)

    def _pop_ready(self) -> Batch | None:
        """Give the first batch that is still to run; while held, only replays: they are a way out."""
        for _ in range(len(self._ready)):
            batch = self._ready.popleft()
            if self._live.get(batch.id) is not batch:
                continue
            if batch.replays or self._held is None:
                return batch
            self._ready.append(batch)
        return None

    def _cut(self, now: Instant) -> Batch | None:
        """Cut the next batch from what has gathered, when it is due; it may have to wait for its turn."""
        if self._held is not None or not self._window.count:
            return None
        self._window.completed(self._free_since[0])
        if self._window.trigger(now.mono_s) is None:
            return None
        if self._is_unsorted:
            self._is_unsorted = False
            self._sort_window(now)
        parts, records = self._window.cut()
        batch = Batch(self._planner.new_id(), self._queue, 0, parts, records)
        self._live[batch.id] = batch
        self._turns.enter(batch, _keys(batch))
        return batch

    def _has_leases(self, batch: Batch, now: Instant) -> bool:
        """Leave messages to the queue whose leases have ended before they could run; say whether some are left."""
        if batch.replays:
            return True
        end_s = self._hand.lease_end_s(batch)
        if end_s > now.mono_s:
            self._lapses.by(max(end_s, now.mono_s + LAPSE_S))
            return True
        lapsed = self._hand.lapsed(batch, now.mono_s)
        if len(lapsed) == batch.count or _keys(batch):
            self._leave([batch], now)
            return False
        positions = batch.positions()
        self._hand.let_go(positions[ordinal] for ordinal in lapsed)
        alive = sorted(set(range(batch.count)).difference(lapsed))
        batch.parts, batch.count = batch.select(alive), len(alive)
        return True

    def _take_back(self, now: Instant) -> None:
        """Take batches back whose leases end while they still wait for a worker: the queue gives them to others."""
        ends_s = {
            batch_id: self._hand.lease_end_s(batch)
            for batch_id, (batch, _) in self._running.items()
            if not batch.replays
        }
        self._commands += [f.Cancel(each, waiting_only=True) for each, end_s in ends_s.items() if end_s <= now.mono_s]
        next_s = min((end_s for end_s in ends_s.values() if end_s > now.mono_s), default=inf)
        self._lapses.by(max(next_s, now.mono_s + LAPSE_S))

    def _enter(self, batch: Batch, now: Instant) -> None:
        self._live[batch.id] = batch
        if self._turns.enter(batch, _keys(batch)):
            self._offer(batch, now)

    def _offer(self, item: Batch | Deletion, now: Instant) -> None:
        """Let an item go whose turn it is: at once, or when its time has come."""
        if isinstance(item, Deletion) or self._live.get(item.id) is not item:
            return
        if item in self._gated or item in self._storing:
            return
        if item.not_before_s > now.mono_s:
            self._agenda.at(item.not_before_s, lambda later: self._offer(item, later))
        else:
            self._ready.append(item)

    def _invocation_ended(self, batch_id: str, outcome: Outcome, now: Instant) -> None:
        batch, began_s = self._running.pop(batch_id)
        self._free_since.append(now.mono_s)
        verdict = judge(outcome, batch, self._mapping, self._identify)
        if self._polling.hold_group and isinstance(verdict, PartlyFailed):
            verdict = reported(_with_rest_of_groups(batch, verdict.again), batch)
        self._pace.ended(batch.count, now.mono_s - began_s, now.mono_s)
        plan = self._planner.settle(batch, verdict, now)
        self.records_done += batch.count - plan.left
        reports = self._mapping.report_item_failures
        if isinstance(verdict, NotAccepted) or (isinstance(verdict, FailedWhole) and not reports):
            self._concurrency.failed(now.mono_s)
        if batch.replays:
            self._settle_replay(batch, batch.replays, verdict, plan, now)
        else:
            self._settle(batch, verdict, plan, now)
        if isinstance(verdict, NotAccepted) and verdict.is_gone:
            # Messages have to wait for it; a replay is asked for by somebody, who can ask again.
            self._refuse_waiting(lambda failure_id: without_function(failure_id, verdict.error), now)

    def _settle(self, batch: Batch, verdict: Verdict, plan: Plan, now: Instant) -> None:
        returns = self._returns(verdict, plan)
        self._tell(batch, verdict, plan, returns=returns)
        match verdict:
            case Succeeded():
                self._failed_in_a_row = 0
                if not batch.parts[0].chunk.keys:  # the common way: nobody waits for its turn behind it
                    self._deletes.add(batch.positions())
                    del self._live[batch.id]
                    return
            case FailedWhole(error) if returns:
                self._failed_in_a_row += 1
                self._failed_s = now.mono_s
                self._last_error = error.message
            case NotAccepted() if not self._draining:
                self._refused[batch.id] = batch
                self._await_refused(batch, now)
                return
            case NotAccepted() | Stopped():
                self._stopped(batch, now)
                return
        self._follow(batch, plan, now, returns=returns)

    def _returns(self, verdict: Verdict, plan: Plan) -> bool:
        """Say whether what failed goes back to the queue: without a limit of retries, unless it was split."""
        return (
            self._mapping.maximum_retry_attempts is None
            and isinstance(verdict, FailedWhole | PartlyFailed)
            and len(plan.again) == 1
        )

    def _tell(self, batch: Batch, verdict: Verdict, plan: Plan, *, returns: bool) -> None:
        note = tell_try(batch, verdict, plan)
        if note:
            fields = {**note.fields, "first_position": None, "first_message": as_uuid(batch.first_position)}
            if returns:
                fields |= {"returned_to_queue": True, "retry_in_s": None}
            self._commands.append(f.Note(note.event, note.shard, fields))

    def _follow(self, batch: Batch, plan: Plan, now: Instant, *, returns: bool = False) -> None:
        """Put what is left of a batch in its place: deletions, what is being stored, pieces that run again."""
        left = {position for piece in plan.again for position in piece.positions()}
        followers: list[Batch | Deletion] = []
        if plan.discard:
            left.update(plan.discard.batch.positions())
        done = [position for position in batch.positions() if position not in left]
        if done:
            followers.append(self._deletes.add(done))
        if plan.discard:
            followers.append(plan.discard.batch)
        again = plan.again
        if returns:
            again = ()
            for piece in plan.again:  # the queue says when it comes again
                piece.not_before_s, piece.backoff_s = now.mono_s, 0.0
        followers += again
        if plan.again and plan.durable and self._mapping.remembers_messages:
            self._gated.update(again)
            self._commands.append(self._memory.note(plan.again, again, now))
        if plan.discard:
            self._keep(plan.discard, now)
        self._succeed(batch, followers, now)
        if returns:
            self._leave_messages(plan.again, now)
        for piece in again:
            self._leave_until_next_try(piece, now)

    def _succeed(self, batch: Batch, followers: Sequence[Batch | Deletion], now: Instant) -> None:
        """Let followers take the place of a batch."""
        if batch in followers:
            self._offer(batch, now)
            return
        self._live.pop(batch.id, None)
        self._live.update((each.id, each) for each in followers if isinstance(each, Batch))
        keyed = [(each, _keys(batch if isinstance(each, Deletion) else each)) for each in followers]
        for item in self._turns.replace(batch, keyed):
            self._offer(item, now)

    def _stopped(self, batch: Batch, now: Instant) -> None:
        """Follow an invocation that was ended from outside, or refused at the end: as if it had not been tried."""
        if not self._draining:
            self._offer(batch, now)
            return
        if not self._forced:
            self._leases.give_back(batch.positions())
        self._leave([batch], now)

    # --- batches that were refused

    def _await_refused(self, batch: Batch, now: Instant) -> None:
        """Wait for the next try of a refused batch, or for the end of its lease."""
        end_s = inf if batch.replays else self._hand.lease_end_s(batch)
        next_s = max(now.mono_s, batch.not_before_s)
        in_time = next_s < end_s and end_s - next_s >= self._needed_lease_s
        self._agenda.at(next_s if in_time else end_s, self._refused_again(batch))

    def _refused_again(self, batch: Batch) -> Callable[[Instant], None]:
        def again(now: Instant) -> None:
            if self._refused.get(batch.id) is not batch:
                return
            end_s = inf if batch.replays else self._hand.lease_end_s(batch)
            if end_s <= now.mono_s:
                del self._refused[batch.id]
                self._leave([batch], now)
            elif now.mono_s >= batch.not_before_s and end_s - now.mono_s >= self._needed_lease_s:
                del self._refused[batch.id]
                self._ready.appendleft(batch)
            else:
                self._await_refused(batch, now)

        return again

    # --- leaving messages to the queue

    def _leave_messages(self, pieces: Iterable[Batch], now: Instant) -> None:
        """Leave messages to the queue that are no batch's any more, and all that is behind them."""
        keys: set[bytes] = set()
        for piece in pieces:
            self._hand.let_go(piece.positions())
            keys.update(_keys(piece))
        self._leave_keys(keys, now)

    def _leave(self, batches: Sequence[Batch], now: Instant) -> None:
        """Leave unstarted batches to the queue, and all that is behind them: running that would change the order."""
        for batch in batches:
            self._hand.let_go(batch.positions())
            self._live.pop(batch.id, None)
            self._refused.pop(batch.id, None)
            self._gated.discard(batch)
            for item in self._turns.replace(batch):
                self._offer(item, now)
        self._leave_keys({key for batch in batches for key in _keys(batch)}, now)

    def _leave_keys(self, keys: Collection[bytes], now: Instant) -> None:
        if not keys:
            return
        gone: set[bytes] = set(keys)
        for part in self._window.drain():
            stays = [index for index in part.indexes if part.chunk.keys[index] not in gone]
            leaves = [index for index in part.indexes if part.chunk.keys[index] in gone]
            self._hand.let_go(part.chunk.positions[index] for index in leaves)
            if stays:
                self._window.add(Part(part.chunk, stays), now.mono_s)
        behind = [item for item in self._turns.with_keys(keys) if isinstance(item, Batch) and self._is_unstarted(item)]
        if behind:
            self._leave(behind, now)

    def _is_unstarted(self, batch: Batch) -> bool:
        return self._waits(batch) and not batch.replays

    def _waits(self, batch: Batch) -> bool:
        return batch.id not in self._running and batch not in self._storing

    def _leave_until_next_try(self, batch: Batch, now: Instant) -> None:
        """Let the queue hold a batch whose next try is too far away to wait for it here."""
        wait_s = batch.not_before_s - now.mono_s
        if wait_s <= 0 or batch.id not in self._live:
            return
        lapses = not self._polling.heartbeat and batch.not_before_s >= self._hand.lease_end_s(batch)
        if lapses or len(self._live) - len(self._running) > HELD_BATCHES:
            self._leases.extend(batch.positions(), wait_s)
            self._leave([batch], now)

    def _not_extended(self, messages: int, error: str) -> None:
        self._note("lease.not_extended", messages=messages, error=error)

    def _beat_later(self, now: Instant) -> None:
        if self._polling.heartbeat and len(self._hand) and self._lease_s:
            self._beats.by(now.mono_s + self._lease_s / 3)

    def _beat(self, now: Instant) -> None:
        self._leases.beat(self._lease_s, now)
        self._beat_later(now)

    # --- deleting

    def _deleted(self, call: int, failed: Mapping[int, str], now: Instant) -> None:
        gone = self._deletes.ended(call, failed, now)
        shown = [position for position in gone if self._hand.expect(position).lease_end_s < now.mono_s + UNSURE_S]
        if shown:
            self._departed.add(shown, self._polls.newest)
        for position in gone:
            if self._memory.forget(position):
                self._flushes.by(now.mono_s + FORGET_S)
        self._end_deletions(gone, now)
        if failed:
            self._not_deleted(failed, now)

    def _not_deleted(self, failed: Mapping[int, str], now: Instant) -> None:
        """Try again for a while; what is given up then runs again if it comes again."""
        self._note("message.not_deleted", messages=len(failed), error=next(iter(failed.values())))
        wait_s, again, given_up = self._deletes.retry(list(failed), self._lease_s, now)
        self._agenda.at(now.mono_s + wait_s, lambda _: self._deletes.again(again))
        # What is behind it in hand may have leases that are longer, and would run before it.
        messages = [self._hand.expect(position) for position in given_up]
        self._leave_keys({key for each in messages if (key := each.key) is not None}, now)
        self._end_deletions(given_up, now)

    def _end_deletions(self, positions: Sequence[int], now: Instant) -> None:
        """Let messages go that are deleted or given up: what waited for that may go."""
        for position in positions:
            deletion = self._deletes.forget(position)
            for item in self._turns.replace(deletion) if deletion else ():
                self._offer(item, now)

    # --- remembering

    def _written(self, call: int, now: Instant) -> None:
        for batch in self._memory.written(call):
            self._gated.discard(batch)
            if self._turns.is_first(batch):
                self._offer(batch, now)

    def _not_written(self, call: int, error: str, now: Instant) -> None:
        wait_s = self._memory.failed(error)
        self._note("store.failed", error=error)
        self._agenda.at(now.mono_s + wait_s, lambda _: self._commands.append(self._memory.again(call)))

    def _flush(self, _: Instant) -> None:
        write = self._memory.flush()
        if write:
            self._commands.append(write)

    # --- giving up

    def _keep(self, discard: Discard, now: Instant) -> None:
        failure = failed_batch(self._mapping, discard, now)
        keep = f.Keep(failure, discard.batch)
        self._storing.add(discard.batch)
        self._keeping.begin(keep, discard.batch)
        self._commands.append(keep)

    def _kept(self, failure_id: str, now: Instant) -> None:
        entry = self._keeping.kept(failure_id)
        if entry is None:
            return
        _, batch = entry
        self._storing.discard(batch)
        if batch.replays:
            self._succeed(batch, (), now)
            self._replay_moved(batch.replays, 0, failure_id)
        else:
            self._succeed(batch, [self._deletes.add(batch.positions())], now)

    def _keep_failed(self, failure_id: str, error: str, now: Instant) -> None:
        failed = self._keeping.failed(failure_id, error)
        if failed is None:
            return
        wait_s, keep = failed
        self._note("failure.not_stored", failure=failure_id, error=error, retry_in_s=round(wait_s, 1))
        self._agenda.at(now.mono_s + wait_s, lambda _: self._commands.append(keep))

    # --- replaying

    def _replay(self, request: f.ReplayRequested, now: Instant) -> None:
        failure_id, chunk = request.failure_id, request.chunk
        if failure_id in self._replays:
            return
        if self._draining:
            self._commands.append(stopping(failure_id))
            return
        self._replays.begin(request, 1)
        indexes = range(len(chunk.positions))
        batch = Batch(self._planner.new_id(), self._queue, 0, [Part(chunk, indexes)], len(indexes))
        batch.replays = failure_id
        self._enter(batch, now)

    def _settle_replay(self, batch: Batch, failure_id: str, verdict: Verdict, plan: Plan, now: Instant) -> None:
        """Follow a try of a stored failure, which has no queue to go back to."""
        self._tell(batch, verdict, plan, returns=False)
        if self._replays.is_refused(failure_id):
            self._drop_replay(failure_id, now)
        elif isinstance(verdict, FailedWhole) and len(plan.again) < 2 and self._replays.has_place(failure_id):
            reason = f"{verdict.error.error_type}: {verdict.error.message}"
            self._refuse_replay(f.ReplayRefused(failure_id, reason, failed=True), now)
        elif isinstance(verdict, FailedWhole) and self._returns(verdict, plan):
            discard = Discard(batch, Reason.RETRIES, verdict.error, verdict.responded, verdict.function_error)
            self._keep(discard, now)
        elif plan.discard:
            self._keep(plan.discard, now)
        elif plan.again and self._draining:
            self._refuse_replay(stopping(failure_id), now)
        elif isinstance(verdict, NotAccepted):
            self._refused[batch.id] = batch
            self._await_refused(batch, now)
        else:
            self._succeed(batch, plan.again, now)
            self._replay_moved(failure_id, len(plan.again))

    def _replay_moved(self, failure_id: str, pieces: int, new_failure: str | None = None) -> None:
        over = self._replays.replaced(failure_id, pieces, new_failure)
        if over:
            self._commands.append(over)

    def _refuse_replay(self, refused: f.ReplayRefused, now: Instant) -> None:
        """End a replay: now, or with those of its batches that are with the function or being stored."""
        self._replays.refuse(refused)
        self._drop_replay(refused.failure_id, now)

    def _refuse_waiting(self, refused: Callable[[str], f.ReplayRefused], now: Instant) -> None:
        """End the replays of which something waits to run."""
        waiting = [batch.replays for batch in self._live.values() if batch.replays and self._waits(batch)]
        for failure_id in dict.fromkeys(waiting):
            self._refuse_replay(refused(failure_id), now)

    def _drop_replay(self, failure_id: str, now: Instant) -> None:
        for batch in [each for each in self._live.values() if each.replays == failure_id]:
            if self._waits(batch):
                self._refused.pop(batch.id, None)
                self._succeed(batch, (), now)
                self._replay_moved(failure_id, 0)

    # --- stopping

    def _drain(self, within_s: float, now: Instant) -> None:
        self._agenda.at(now.mono_s + within_s, self._force)
        if self._draining:
            return
        self._draining = True
        self._commands += self._polls.stop()
        waiting = [part.chunk.positions[index] for part in self._window.drain() for index in part.indexes]
        self._leases.give_back(waiting)
        self._hand.let_go(waiting)
        unstarted = [batch for batch in self._live.values() if self._is_unstarted(batch)]
        for batch in unstarted:
            if not batch.durable:
                self._leases.give_back(batch.positions())
        self._leave(unstarted, now)
        self._refuse_waiting(stopping, now)
        self._commands += [f.Cancel(batch_id, waiting_only=True) for batch_id in self._running]

    def _force(self, now: Instant) -> None:
        self._forced = True
        self._commands += [f.Cancel(batch_id) for batch_id in self._running]
        self._agenda.at(now.mono_s + FORCE_S, self._finish_by_force)

    def _finish_by_force(self, _: Instant) -> None:
        if not self._finished:
            self._finished = True
            self._note("queue.abandoned", messages=len(self._hand))
            self._commands.append(f.Finished())

    def _finish_if_idle(self) -> None:
        busy = self._running or self._keeping or self._deletes.left or self._leases or self._memory.writes
        if not (self._finished or busy):
            self._finished = True
            self._note("queue.left")
            self._commands.append(f.Finished())

    # --- telling

    def waiting(self) -> dict[str, list[str]]:
        """Give the shards that wait for others: a queue has none."""
        return {}

    def why_stuck(self) -> tuple[str, str] | None:
        """Say in a code and a sentence why nothing moves, as far as the engine knows; None when it can move."""
        if self._keeping and self._keeping.error:
            return "FailureStoreUnavailable", f"A failed batch cannot be stored: {self._keeping.error}"
        if self._held:
            return "FailureBacklogFull", self._held
        if self._memory.error:
            return "StateUnavailable", f"Attempts cannot be remembered: {self._memory.error}"
        error = self._polls.error or self._deletes.error
        return ("SourceUnavailable", error) if error else None

    def in_flight(self) -> list[Batch]:
        """Give the batches that are with the function."""
        return [batch for batch, _ in self._running.values()]

    def repeats(self) -> list[Repeat]:
        """Say what the function would see again if the daemon were killed now: what runs, and what is not deleted."""
        again = [repeat_of(batch) for batch in self.in_flight()]
        return [*again, Repeat(self._queue, records=self._deletes.left)] if self._deletes.left else again

    def status(self, now: Instant) -> Iterable[ShardStatus]:
        """Describe the queue, as the one shard there is."""
        waiting = [batch for batch in self._live.values() if batch.id not in self._running]
        stuck = max(waiting, key=lambda batch: (batch.attempts, batch.refusals), default=None)
        if stuck and not (stuck.attempts or stuck.refusals):
            stuck = None
        times = [each.chunk.times_ms[each.index] for _, each in self._hand if each.deletion is None]
        status = ShardStatus(
            shard=self._queue,
            phase="closing" if self._draining else "open",
            checkpoint=-1,
            in_flight=sum(batch.count for batch, _ in self._running.values()),
            attempts=max(stuck.attempts if stuck else 0, self._failed_in_a_row),
            refusals=stuck.refusals if stuck else 0,
            next_try_s=now.wall_s + max(0.0, stuck.not_before_s - now.mono_s) if stuck else None,
            last_error=stuck.tries[-1].error.message if stuck and stuck.tries else self._last_error,
            oldest_ms=min((time_ms for time_ms in times if time_ms != UNKNOWN_TIME_MS), default=None),
        )
        return [status]


def _nothing(_: Instant) -> None:
    """Be awake: what may go on now does so by itself."""


def _keys(batch: Batch) -> frozenset[bytes]:
    """Give the ordering keys in a batch; none where the queue has no order."""
    if not batch.parts[0].chunk.keys:
        return frozenset()
    return frozenset(key for chunk, index in batch.each() if (key := chunk.keys[index]) is not None)


def _with_rest_of_groups(batch: Batch, listed: Sequence[int]) -> list[int]:
    """Add to the listed ordinals those behind them that are of the same groups."""
    named, held = set(listed), set()
    again: list[int] = []
    for ordinal, (chunk, index) in enumerate(batch.each()):
        key = chunk.keys[index] if chunk.keys else None
        if ordinal in named or (key is not None and key in held):
            again.append(ordinal)
            held.add(key)
    return again
