"""The stream engine: ordered shards in, batches out; facts in, commands out.

One engine runs one mapping. It composes the rules of the other modules: shards route records into lanes, a lane's
window says when a batch is due, `judge` and `Planner.settle` say what follows a try, the watermark says what may be
committed. What is its own is *when*: what may be read, started, stored and committed now. What is due by time comes
from one heap.

Order of writing (design: nothing failed is lost, retry state is durable):
- A try that changes what has to be remembered is committed before the lane tries again (`gate`), so a kill forgets at
  most the attempt in flight. Successes are committed together, at most `commit_interval_s` late: a kill repeats them.
- A batch that is given up is stored (Keep) before the lane moves on; the checkpoint follows, never precedes.
- A start position is committed before the first read, so a crash before the first batch skips nothing.

Two deliveries of one key must not overlap: when a shard goes, its invocations are cancelled, and if it comes back its
lanes wait until the last of them has really ended.

Weak spot: one commit at a time covers all shards that changed; a slow one delays gated lanes of all shards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, assert_never

from router.core import facts as f
from router.core.agenda import Agenda
from router.core.commits import CommitSchedule
from router.core.describe import Repeat, ShardStatus, describe, failed_batch, repeats, tell_try
from router.core.discovery import Discovery
from router.core.keeping import Keeping
from router.core.lane import Discard, Lane, Plan, Planner, backoff_s
from router.core.model import OUTAGE_BACKOFF, Batch, Chunk, EventSourceMapping, Instant, Outcome, Part
from router.core.overlap import Overlap
from router.core.reading import Reading
from router.core.replays import Replays, left_behind, without_function
from router.core.shard import Phase, ShardState
from router.core.tumbling import TumblingWindow
from router.core.verdict import Identify, NotAccepted, PartlyFailed, Succeeded, judge

if TYPE_CHECKING:
    from random import Random

#: How long a replay waits for its shard to be ours.
REPLAY_WAIT_S = 60.0
#: How long, past the deadline of a closing shard, killed invocations and the last commit may take.
FORCE_S = 5.0


class StreamEngine:
    """Decides for one mapping over ordered shards."""

    def __init__(self, mapping: EventSourceMapping, identify: Identify, rng: Random) -> None:
        self._mapping = mapping
        self._identify = identify
        self._rng = rng
        self._planner = Planner(mapping, rng)
        self._shards: dict[str, ShardState] = {}
        #: Batches with the function, also those whose shard went meanwhile.
        self._running: dict[str, tuple[ShardState, Lane]] = {}
        self._keeping: Keeping[tuple[ShardState, Lane]] = Keeping(rng)
        #: Invocations that outlived the loss of their shard.
        self._dying: dict[str, set[str]] = {}
        #: Shards that are given back as soon as the last of them has ended.
        self._unreleased: set[str] = set()
        self._reading = Reading(mapping.memory_bytes, mapping.pace, rng)
        self._commits = CommitSchedule()
        self._committing: list[ShardState] = []
        self._replays = Replays()
        self._overlap = Overlap()
        #: Lanes that wait for keys that are with the function.
        self._blocked: dict[tuple[str, int], None] = {}
        #: Records that the function has succeeded with.
        self.records_done = 0
        self._held: str | None = None
        self._draining = False
        self._finished = False
        self._agenda = Agenda()
        self._commands: list[f.Command] = []
        #: Unused where the source assigns shards.
        self._discovery = Discovery(self._agenda, self._emit, rng)

    # --- the two ends

    def feed(self, fact: f.StreamFact, now: Instant) -> list[f.Command]:
        """Take a fact in and say what is to be done."""
        self._take(fact, now)
        if self._agenda.first_s <= now.mono_s:
            self._agenda.run_due(now)
        due_s = self._commits.due_s
        if due_s is not None and due_s <= now.mono_s:
            self._commit(now)
        if self._reading.wanted and not self._draining:
            self._commands += self._reading.reads(self._shards, now)
        if self._draining:
            self._finish_if_idle()
        self._ask_to_wake()
        commands, self._commands = self._commands, []
        return commands

    def _take(self, fact: f.StreamFact, now: Instant) -> None:  # noqa: C901, PLR0912, PLR0915 - one line a fact
        match fact:
            case f.InvocationEnded(batch_id, outcome):
                self._invocation_ended(batch_id, outcome, now)
            case f.ChunksRead():
                self._chunks_read(fact, now)
            case f.Committed():
                self._committed(now)
            case f.Due():
                self._agenda.woken()
            case f.Kept(failure_id):
                self._kept(failure_id, now)
            case f.KeepFailed(failure_id, error):
                self._keep_failed(failure_id, error, now)
            case f.CommitFailed(error):
                self._commit_failed(error, now)
            case f.ReadFailed():
                self._read_failed(fact, now)
            case f.PositionGone():
                self._position_gone(fact)
            case f.ShardOpened():
                self._shard_opened(fact, now)
            case f.StreamOpened():
                self._stream_opened(fact, now)
            case f.ShardsListed():
                self._discovery.listed(fact, now)
            case f.ShardsFinished(shards):
                self._finished_elsewhere(shards, now)
            case f.ListFailed(error):
                self._list_failed(error, now)
            case f.ShardDeleted():
                self._shard_deleted(fact, now)
            case f.ShardRevoking(shard):
                self._revoke(shard, now)
            case f.ShardLost(shard):
                self._lose(shard, now)
            case f.Located(shard, checkpoint):
                self._located(shard, checkpoint, now)
            case f.Rewound(shard):
                self._rewound(shard, now)
            case f.LocateFailed(shard, error):
                self._locate_failed(shard, error, now)
            case f.Held(reason):
                self._held = reason
            case f.Unheld():
                self._unhold(now)
            case f.ReplayRequested():
                self._replay(fact, now)
            case f.DrainRequested(within_s):
                self._drain(within_s, now)
            case _:
                assert_never(fact)

    def _ask_to_wake(self) -> None:
        wake = self._agenda.wake(self._commits.due_s if not self._committing else None)
        if wake:
            self._commands.append(wake)

    def _emit(self, command: f.Command) -> None:
        self._commands.append(command)

    def _note(self, event: str, shard: str, **fields: object) -> None:
        self._commands.append(f.Note(event, shard, fields))

    # --- shards come and go

    def _stream_opened(self, fact: f.StreamOpened, now: Instant) -> None:
        if fact.remade:
            self._note("stream.remade", "")
        self._discovery.open(fact, now)

    def _list_failed(self, error: str, now: Instant) -> None:
        wait_s = self._discovery.failed(error, now)
        self._note("source.failed", "", error=error, retry_in_s=round(wait_s, 1))

    def _shard_opened(self, fact: f.ShardOpened, now: Instant) -> None:
        if self._draining:
            self._give_back(fact.shard)
            return
        self._unreleased.discard(fact.shard)
        self._drop(fact.shard, now)
        shard = self._shards[fact.shard] = ShardState(fact.shard, fact.unit, self._mapping, now)
        self._reading.open(fact.unit)
        if fact.checkpoint is None:
            self._commands.append(f.Locate(shard.name, lost=False))
            return
        restored = shard.resume(fact.checkpoint, fact.retry_state, now)
        if fact.retry_state:
            self._note("retry_state.restored" if restored else "retry_state.voided", shard.name)
        self._open(shard, now)

    def _open(self, shard: ShardState, now: Instant) -> None:
        shard.phase = Phase.OPEN
        self._reading.starve(shard)
        self._note("shard.opened", shard.name, position=shard.checkpoint)
        self._take_up_replays(shard.name, now)
        self._advance_shard(shard, now)

    def _located(self, name: str, checkpoint: int, now: Instant) -> None:
        shard = self._shards.get(name)
        if shard is None or shard.phase is not Phase.LOCATING:
            return
        if shard.lost and checkpoint < shard.read_through:
            shard = self._forget_log(shard, now)
        if shard.lost:
            shard.skip_to(checkpoint, now)
        else:
            shard.start(checkpoint)
            self._note("position.pinned", name, position=checkpoint)
        shard.failures = 0
        self._reading.note_error(shard.unit, None)
        shard.phase = Phase.PINNING
        self._commits.changed(shard, now.mono_s)

    def _forget_log(self, shard: ShardState, now: Instant) -> ShardState:
        """Begin a shard whose log somebody began anew: what is in memory has positions that now mean other records."""
        self._drop(shard.name, now)
        anew = self._shards[shard.name] = ShardState(shard.name, shard.unit, self._mapping, now)
        return anew

    def _rewound(self, name: str, now: Instant) -> None:
        """Read a shard from the oldest record that is left; what is in memory goes on."""
        shard = self._shards.get(name)
        if shard is None or shard.phase is not Phase.LOCATING:
            return
        shard.rewound = True
        self._open(shard, now)

    def _locate_failed(self, name: str, error: str, now: Instant) -> None:
        shard = self._shards.get(name)
        if shard is None or shard.phase is not Phase.LOCATING:
            return
        wait_s = backoff_s(OUTAGE_BACKOFF, shard.failures, self._rng)
        shard.failures += 1
        self._reading.note_error(shard.unit, error)
        self._note("source.failed", name, error=error, retry_in_s=round(wait_s, 1))
        self._agenda.at(now.mono_s + wait_s, lambda _: self._locate_again(shard))

    def _locate_again(self, shard: ShardState) -> None:
        if self._is_current(shard) and shard.phase is Phase.LOCATING:
            self._commands.append(f.Locate(shard.name, lost=shard.lost))

    def _position_gone(self, fact: f.PositionGone) -> None:
        self._reading.ended(fact.unit)
        shard = self._shards.get(fact.shard)
        if shard is None or shard.phase is not Phase.OPEN:
            return
        self._note("position.lost", fact.shard, error=fact.error, position=shard.read_through)
        shard.phase = Phase.LOCATING
        shard.lost = True
        self._reading.stop(shard)
        self._commands.append(f.Locate(fact.shard, lost=True))

    def _shard_deleted(self, fact: f.ShardDeleted, now: Instant) -> None:
        """Finish what was read of a shard, behind which nothing is to be had any more."""
        self._reading.ended(fact.unit)
        shard = self._shards.get(fact.shard)
        if shard is None or shard.phase is not Phase.OPEN:
            return
        self._note("shard.trimmed", fact.shard, error=fact.error, position=shard.read_through)
        self._end(shard, now)

    def _end(self, shard: ShardState, now: Instant) -> None:
        """Note that nothing comes behind what was read of a shard."""
        shard.end(now)
        self._reading.stop(shard)
        self._advance_shard(shard, now)
        self._rehash_if_clear(shard, now)
        self._finish_if_settled(shard, now)

    def _finish_if_settled(self, shard: ShardState, now: Instant) -> None:
        """Commit the end of a shard as soon as all of it is settled."""
        if shard.is_finished and shard.phase is Phase.OPEN:
            self._commits.changed(shard, now.mono_s)

    def _finished_shard(self, shard: ShardState, now: Instant) -> None:
        """Let go of a shard whose end is committed, and go on with its children."""
        self._note("shard.finished", shard.name, position=shard.checkpoint)
        self._let_go(shard, now)
        self._commands.append(f.Release(shard.name, finished=True))
        self._discovery.finished([shard.name], now)
        self._take_up_replays(shard.name, now)

    def _finished_elsewhere(self, shards: Sequence[str], now: Instant) -> None:
        """Go on with the children of shards that others have finished."""
        self._discovery.finished(shards, now)
        for name in shards:
            self._take_up_replays(name, now)

    def _let_go(self, shard: ShardState, now: Instant) -> None:
        """Forget a shard that is over, with the unit that it was."""
        self._drop(shard.name, now)
        self._reading.retire(shard.unit)

    def _rehash_if_clear(self, shard: ShardState, now: Instant) -> None:
        """Begin with the lanes that the mapping has now, once nothing is left of what ran in those it had before."""
        if shard.is_clear and shard.phase is Phase.OPEN:
            self._note("lanes.changed", shard.name, former=len(shard.lanes), lanes=self._mapping.parallelization_factor)
            shard.rehash(now)
            self._commits.changed(shard, now.mono_s)
            self._take_up_replays(shard.name, now)
            self._advance_shard(shard, now)

    def _revoke(self, name: str, now: Instant) -> None:
        shard = self._shards.get(name)
        if shard is None:
            self._give_back(name)
            return
        self._close(shard, now.mono_s + self._mapping.drain_s, now)

    def _drain(self, within_s: float, now: Instant) -> None:
        self._draining = True
        self._commands += self._reading.quit()
        self._commands += self._replays.refuse_parked()
        deadline_s = now.mono_s + within_s
        for shard in list(self._shards.values()):
            if shard.phase is Phase.CLOSING:  # since earlier, with a deadline of its own
                self._agenda.at(deadline_s, self._close_by_force(shard))
            else:
                self._close(shard, deadline_s, now)

    def _close(self, shard: ShardState, deadline_s: float, now: Instant) -> None:
        """Start nothing more in a shard; end what is in flight by force at the deadline."""
        shard.phase = Phase.CLOSING
        self._reading.stop(shard)
        for lane in shard.lanes:
            if lane.running:
                self._commands.append(f.Cancel(lane.running.id, waiting_only=True))
        self._agenda.at(deadline_s, self._close_by_force(shard))
        self._leave_if_done(shard, now)

    def _close_by_force(self, shard: ShardState) -> Callable[[Instant], None]:
        def force(now: Instant) -> None:
            if self._is_current(shard):
                self._commands += [f.Cancel(lane.running.id) for lane in shard.lanes if lane.running]
                self._agenda.at(now.mono_s + FORCE_S, lambda later: self._leave(shard, later))

        return force

    def _leave_if_done(self, shard: ShardState, now: Instant) -> None:
        if shard.phase is not Phase.CLOSING or shard.busy:
            return
        if shard.dirty:
            self._commits.hurry(now.mono_s)
        else:
            self._leave(shard, now)

    def _leave(self, shard: ShardState, now: Instant) -> None:
        if self._is_current(shard):
            self._drop(shard.name, now)
            if shard.dirty:
                self._note("shard.abandoned", shard.name, position=shard.checkpoint, committed=shard.committed_through)
            else:
                self._note("shard.released", shard.name, position=shard.checkpoint)
            self._give_back(shard.name)

    def _give_back(self, name: str) -> None:
        """Release a shard as soon as nothing of it is with the function: its next owner must not run beside it."""
        if name in self._dying:
            self._unreleased.add(name)
        else:
            self._commands.append(f.Release(name, leaving=self._draining))

    def _lose(self, name: str, now: Instant) -> None:
        self._unreleased.discard(name)
        if name in self._shards:
            self._note("shard.lost", name)
            self._drop(name, now)

    def _drop(self, name: str, now: Instant) -> None:
        """Forget a shard. What it has with the function is killed, and its lanes stay blocked until that has ended."""
        shard = self._shards.pop(name, None)
        if shard is None:
            return
        self._reading.forget(shard)
        self._commits.forget(shard)
        self._keeping.abandon(lambda owner: owner[0] is shard)
        self._reading.changed(-shard.buffered_bytes, self._shards.values())
        for lane in shard.lanes:
            if lane.running:
                self._dying.setdefault(name, set()).add(lane.running.id)
                self._commands.append(f.Cancel(lane.running.id))
            for request in self._replays.abandon([batch.replays for batch in lane.replays if batch.replays]):
                self._park(request, now)
        self._give_back_replays(name)

    def _is_current(self, shard: ShardState) -> bool:
        return self._shards.get(shard.name) is shard

    def _finish_if_idle(self) -> None:
        if not (self._finished or self._shards or self._running):
            self._finished = True
            self._commands.append(f.Finished())

    # --- reading

    def _chunks_read(self, fact: f.ChunksRead, now: Instant) -> None:
        self._reading.ended(fact.unit)
        more = any(chunk.more or chunk.positions for chunk in fact.chunks)
        read_bytes = sum(chunk.read_bytes for chunk in fact.chunks)
        again_s = self._reading.succeeded(fact.unit, now, more=more, read_bytes=read_bytes)
        if again_s is not None:
            self._want_at(fact.unit, again_s)
        for chunk in fact.chunks:
            shard = self._shards.get(chunk.shard)
            # A page for an earlier life of the shard, or read behind another position, is not ours to take.
            if shard is None or shard.phase is not Phase.OPEN or chunk.before != shard.read_behind:
                continue
            if chunk.through != shard.read_behind:
                if shard.rewound and not shard.goes_on(chunk):
                    shard = self._forget_log(shard, now)
                    self._open(shard, now)
                self._take_page(shard, chunk, now)
            if not (chunk.positions or chunk.more):
                self._found_nothing(shard, now)
            if chunk.ended:
                self._end(shard, now)

    def _found_nothing(self, shard: ShardState, now: Instant) -> None:
        """End tumbling windows that have waited long enough for a record, and the wait for records that are gone."""
        if shard.rewound and shard.miss(now):
            self._commits.changed(shard, now.mono_s + self._mapping.commit_interval_s)
            self._advance_shard(shard, now)
            self._rehash_if_clear(shard, now)
        for lane in shard.lanes:
            if lane.tumbling and lane.tumbling.is_open:
                lane.tumbling.found_nothing(now.wall_s)
                self._advance(shard, lane, now)

    def _take_page(self, shard: ShardState, chunk: Chunk, now: Instant) -> None:
        before_bytes = shard.buffered_bytes
        shard.add(chunk, now)
        self._reading.changed(shard.buffered_bytes - before_bytes, ())
        self._commits.changed(shard, now.mono_s + self._mapping.commit_interval_s)
        self._advance_shard(shard, now)
        self._rehash_if_clear(shard, now)

    def _read_failed(self, fact: f.ReadFailed, now: Instant) -> None:
        self._reading.ended(fact.unit)
        wait_s = self._reading.failed(fact.unit, fact.error, now, throttled=fact.throttled)
        event = "source.throttled" if fact.throttled else "source.failed"
        self._note(event, "", error=fact.error, retry_in_s=round(wait_s, 1))
        self._want_at(fact.unit, now.mono_s + wait_s)

    def _want_at(self, unit: Hashable, mono_s: float) -> None:
        self._agenda.at(mono_s, lambda _: self._reading.want(unit))

    # --- running

    def _advance_all(self, now: Instant) -> None:
        for shard in self._shards.values():
            self._advance_shard(shard, now)

    def _advance_shard(self, shard: ShardState, now: Instant) -> None:
        for lane in shard.lanes:
            self._advance(shard, lane, now)

    def _advance(self, shard: ShardState, lane: Lane, now: Instant) -> None:
        """Start the lane's next batch if one may start."""
        if lane.busy or shard.phase not in (Phase.OPEN, Phase.OVER) or shard.name in self._dying:
            return
        # What holds a mapping is too many failures: replaying them is a way out.
        live = self._held is None
        if live:
            self._fill(shard, lane, now)
        if shard.rehashing and not lane.pieces:
            return
        batch = lane.take(now.mono_s, live=live)
        if batch is None:
            self._wake_lane(shard, lane)
            return
        tumbling = None if batch.replays or batch.is_final else lane.tumbling
        if tumbling:
            batch.window = tumbling.call(batch)
        expired = self._planner.expire(batch, now)
        if expired:
            self._follow(shard, lane, batch, expired, now)
            return
        if (self._overlap.replayed or shard.phase is Phase.OVER) and self._must_wait(shard, batch):
            self._blocked[shard.name, lane.number] = None
            return
        if tumbling:
            tumbling.started(batch)
        lane.running = batch
        self._running[batch.id] = (shard, lane)
        self._commands.append(f.Invoke(batch))

    def _fill(self, shard: ShardState, lane: Lane, now: Instant) -> None:
        """Let a lane have what comes next: the final call of a window that is over, or a batch that is due."""
        call = None
        if lane.tumbling:
            call = lane.tumbling.end(settled=not lane.pieces, shard_ended=shard.ended, leaving=shard.rehashing)
        if lane.tumbling and call:
            lane.pieces.appendleft(shard.final_call(lane, lane.tumbling, call))
            if call.early:
                self._note("window.ended_early", shard.name, window_start=call.start_s, state_bytes=len(call.state))
        elif not (lane.pieces or shard.rehashing) and self._is_due(shard, lane, now):
            lane.pieces.append(self._cut(shard, lane))

    def _must_wait(self, shard: ShardState, batch: Batch) -> bool:
        """Say whether a key of the batch is with the function in a shard where it may not be known to be the same."""
        if shard.phase is not Phase.OVER:
            return self._overlap.blocks_live(batch)
        running = [other.running for _, other in self._running.values() if other.running]
        return not self._overlap.begin(batch, running)

    def _unblock(self, now: Instant) -> None:
        """Look again at lanes that wait for keys; first at those, so that a busy key cannot keep a replay waiting."""
        blocked, self._blocked = self._blocked, {}
        for name, number in blocked:
            shard = self._shards.get(name)
            if shard and number < len(shard.lanes):
                self._advance(shard, shard.lanes[number], now)

    def _is_due(self, shard: ShardState, lane: Lane, now: Instant) -> bool:
        """Say whether the window is to be cut; where nothing more can be read, waiting would fill no batch."""
        window = lane.window
        return window.count > 0 and (window.trigger(now.mono_s) is not None or not self._reading.room(shard))

    def _wake_lane(self, shard: ShardState, lane: Lane) -> None:
        due_s = lane.due_at(live=self._held is None)
        if due_s is None or (lane.wake_s is not None and lane.wake_s <= due_s):
            return
        lane.wake_s = due_s

        def wake(now: Instant) -> None:
            if lane.wake_s == due_s:
                lane.wake_s = None
            if self._is_current(shard):
                self._advance(shard, lane, now)

        self._agenda.at(due_s, wake)

    def _cut(self, shard: ShardState, lane: Lane) -> Batch:
        before_bytes = shard.buffered_bytes
        parts, records = shard.cut(lane)
        self._reading.changed(shard.buffered_bytes - before_bytes, self._shards.values())
        self._reading.fed(shard)
        return Batch(self._planner.new_id(), shard.name, lane.number, parts, records)

    def _invocation_ended(self, batch_id: str, outcome: Outcome, now: Instant) -> None:
        shard, lane = self._running.pop(batch_id)
        batch, lane.running = lane.running, None
        self._overlap.end(batch_id)
        if self._blocked:
            self._unblock(now)
        if batch is None or not self._is_current(shard):
            self._died(shard.name, batch_id, now)
            return
        verdict = judge(outcome, batch, self._mapping, self._identify)
        if isinstance(verdict, Succeeded | PartlyFailed) and verdict.state and lane.tumbling and not batch.replays:
            lane.tumbling.returned(verdict.state)
        if isinstance(verdict, Succeeded):
            self._succeeded(shard, lane, batch, now)
            return
        plan = self._planner.settle(batch, verdict, now)
        self.records_done += batch.count - plan.left
        if batch.replays and isinstance(verdict, NotAccepted) and verdict.is_gone:
            # Live records have to wait for it; a replay is asked for by somebody, who can ask again.
            self._replays.refuse(without_function(batch.replays, verdict.error))
            plan = Plan()
        note = tell_try(batch, verdict, plan)
        if note:
            self._commands.append(note)
        self._follow(shard, lane, batch, plan, now)

    def _succeeded(self, shard: ShardState, lane: Lane, batch: Batch, now: Instant) -> None:
        self.records_done += batch.count
        lane.replace(batch, ())
        if batch.replays:
            self._replay_moved(batch.replays, 0)
        elif lane.tumbling and batch.is_final:
            self._close_window(shard, lane.tumbling, now)
        else:
            lane.window.completed(now.mono_s)
            self._commits.changed(shard, now.mono_s + self._mapping.commit_interval_s)
        self._go_on(shard, lane, now)

    def _close_window(self, shard: ShardState, tumbling: TumblingWindow, now: Instant) -> None:
        """Let a window be over, and soon so for good: a kill before that repeats its final call."""
        tumbling.close()
        self._commits.changed(shard, now.mono_s)

    def _died(self, name: str, batch_id: str, now: Instant) -> None:
        dying = self._dying[name]
        dying.discard(batch_id)
        if not dying:
            del self._dying[name]
            if name in self._unreleased:
                self._unreleased.discard(name)
                self._commands.append(f.Release(name, leaving=self._draining))
            if name in self._shards:
                self._advance_shard(self._shards[name], now)
            self._give_back_replays(name)

    def _follow(self, shard: ShardState, lane: Lane, batch: Batch, plan: Plan, now: Instant) -> None:
        """Put the plan's pieces in the place of the batch, and go on when what must be remembered is."""
        if plan.discard:
            self._follow_discard(shard, lane, batch, plan, plan.discard, now)
            return
        lane.replace(batch, plan.again)
        if batch.replays:
            self._replay_moved(batch.replays, len(plan.again))
        elif plan.durable:
            self._commits.changed(shard, now.mono_s)
            lane.gate = shard.version
            shard.gated.append(lane)
        self._go_on(shard, lane, now)

    def _go_on(self, shard: ShardState, lane: Lane, now: Instant) -> None:
        if shard.phase is Phase.CLOSING:
            self._leave_if_done(shard, now)
        elif shard.phase is Phase.OVER and not any(lane.busy or lane.replays for lane in shard.lanes):
            self._let_go(shard, now)
        else:
            self._advance(shard, lane, now)
            if shard.rehashing:
                self._rehash_if_clear(shard, now)
            if shard.ended:
                self._finish_if_settled(shard, now)

    # --- giving up

    def _follow_discard(
        self, shard: ShardState, lane: Lane, batch: Batch, plan: Plan, discard: Discard, now: Instant
    ) -> None:
        lane.replace(batch, (discard.batch, *plan.again))
        if batch.replays:
            self._replay_moved(batch.replays, 1 + len(plan.again))
        lane.keeping = discard
        failure = failed_batch(self._mapping, discard, now)
        keep = f.Keep(failure, discard.batch)
        self._keeping.begin(keep, (shard, lane))
        self._commands.append(keep)

    def _kept(self, failure_id: str, now: Instant) -> None:
        entry = self._keeping.kept(failure_id)
        if entry is None:
            return
        keep, (shard, lane) = entry
        lane.keeping = None
        lane.replace(keep.batch, ())
        if keep.batch.replays:
            self._replay_moved(keep.batch.replays, 0, failure_id)
        elif lane.tumbling and keep.batch.is_final:
            self._close_window(shard, lane.tumbling, now)
        else:
            lane.window.completed(now.mono_s)
            self._commits.changed(shard, now.mono_s)
        self._go_on(shard, lane, now)

    def _keep_failed(self, failure_id: str, error: str, now: Instant) -> None:
        failed = self._keeping.failed(failure_id, error)
        if failed is None:
            return
        wait_s, keep = failed
        self._note("failure.not_stored", "", failure=failure_id, error=error, retry_in_s=round(wait_s, 1))

        def again(_: Instant) -> None:
            if self._keeping.waits(keep):
                self._commands.append(keep)

        self._agenda.at(now.mono_s + wait_s, again)

    def _unhold(self, now: Instant) -> None:
        self._held = None
        self._advance_all(now)

    # --- committing

    def _commit(self, now: Instant) -> None:
        shards = self._commits.begin(now.mono_s)
        if not shards:
            return
        self._committing = shards
        progress = {shard.name: shard.progress(now) for shard in shards}
        news = {shard.name: progress[shard.name] for shard in shards if shard.is_news(progress[shard.name])}
        if news:
            self._commands.append(f.Commit(news))
        else:
            self._committed(now)

    def _committed(self, now: Instant) -> None:
        shards, self._committing = self._committing, []
        self._commits.succeeded()
        for shard in shards:
            shard.committed_version = shard.summed_version
            shard.committed = shard.summed
            if not self._is_current(shard):
                continue
            if shard.phase is Phase.PINNING:
                self._open(shard, now)
            # A replay may have begun since it was summed up.
            if shard.phase is Phase.OPEN and shard.committed is not None and shard.committed.ended and not shard.busy:
                self._finished_shard(shard, now)
                continue
            passed = [lane for lane in shard.gated if lane.gate <= shard.committed_version]
            shard.gated = [lane for lane in shard.gated if lane.gate > shard.committed_version]
            for lane in passed:
                lane.gate = 0
                self._advance(shard, lane, now)
            self._rehash_if_clear(shard, now)
            self._leave_if_done(shard, now)

    def _commit_failed(self, error: str, now: Instant) -> None:
        wait_s = backoff_s(OUTAGE_BACKOFF, self._commits.failures, self._rng)
        shards, self._committing = self._committing, []
        current = [shard for shard in shards if self._is_current(shard)]
        self._commits.failed(current, error, now.mono_s + wait_s)
        self._note("commit.failed", "", error=error, retry_in_s=round(wait_s, 1))

    # --- replaying

    def _replay(self, request: f.ReplayRequested, now: Instant) -> None:
        chunk = request.chunk
        if request.failure_id in self._replays:
            return
        shard = self._shards.get(chunk.shard) or self._open_again(chunk.shard, now)
        if shard is None or shard.phase not in (Phase.OPEN, Phase.OVER) or shard.rehashing:
            self._park(request, now)
            self._give_back_replays(chunk.shard)
            return
        lanes = [(lane, mine) for lane, mine in zip(shard.lanes, shard.by_lane(chunk), strict=True) if mine]
        # The final call of a window has no records, and goes to any lane.
        lanes = lanes or [(shard.lanes[0], ())]
        self._replays.begin(request, len(lanes))
        for lane, mine in lanes:
            parts = [Part(chunk, mine)] if mine else []
            batch = Batch(self._planner.new_id(), shard.name, lane.number, parts, len(mine), window=chunk.window)
            batch.replays = request.failure_id
            lane.replays.append(batch)
            self._advance(shard, lane, now)

    def _open_again(self, name: str, now: Instant) -> ShardState | None:
        """Take up a shard that is over, for replays; None when it is not."""
        if self._draining or not self._discovery.is_over(name):
            return None
        shard = self._shards[name] = ShardState(name, name, self._mapping, now)
        shard.phase = Phase.OVER
        self._reading.open(name)
        return shard

    def _take_up_replays(self, shard: str, now: Instant) -> None:
        for request in self._replays.unpark(shard):
            self._replay(request, now)

    def _park(self, request: f.ReplayRequested, now: Instant) -> None:
        if self._draining:
            self._commands.append(left_behind(request))
            return
        self._replays.park(request, now.mono_s + REPLAY_WAIT_S)
        self._agenda.at(now.mono_s + REPLAY_WAIT_S, self._expire_replays)

    def _give_back_replays(self, shard: str) -> None:
        """Give back what need not wait for a shard that we have not, once nothing of it is with the function."""
        if shard not in self._shards and shard not in self._dying:
            self._commands += self._replays.refuse_astray(shard)

    def _expire_replays(self, now: Instant) -> None:
        self._commands += self._replays.expired(now.mono_s)

    def _replay_moved(self, failure_id: str, pieces: int, new_failure: str | None = None) -> None:
        over = self._replays.replaced(failure_id, pieces, new_failure)
        if over:
            self._commands.append(over)

    # --- telling

    def why_stuck(self) -> tuple[str, str] | None:
        """Say in a code and a sentence why nothing moves, as far as the engine knows; None when it can move."""
        if self._keeping and self._keeping.error:
            return "FailureStoreUnavailable", f"A failed batch cannot be stored: {self._keeping.error}"
        if self._held:
            return "FailureBacklogFull", self._held
        if self._commits.error:
            return "CommitFailed", f"Progress cannot be committed: {self._commits.error}"
        if self._discovery.error:
            return "SourceUnavailable", self._discovery.error
        for shard in self._shards.values():
            error = self._reading.error_of(shard.unit)
            if error:
                return "SourceUnavailable", error
        return None

    def in_flight(self) -> list[Batch]:
        """Give the batches that are with the function."""
        return [lane.running for shard in self._shards.values() for lane in shard.lanes if lane.running]

    def repeats(self) -> list[Repeat]:
        """Say what the function would see again if the daemon were killed now."""
        return [each for shard in self._shards.values() for each in repeats(shard)]

    def waiting(self) -> dict[str, list[str]]:
        """Give the shards that wait for their parents, and for which."""
        return self._discovery.waiting()

    def status(self, now: Instant) -> Iterable[ShardStatus]:
        """Describe every shard."""
        return [describe(shard, now) for shard in self._shards.values() if shard.phase is not Phase.OVER]
