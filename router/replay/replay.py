"""Replaying stored failures through their own mappings, and dead-letter queues through mappings that read queues.

A failure is claimed in the store before it runs, so it never runs twice at once, and it stays claimed until its end is
written, so a killed daemon takes it up again at its next start; in a fleet another replica takes it up when it is known
to be dead. A replay runs in the lanes of its keys, in a fleet on the replica that has its shard (`carrying`), by the
mapping's own rules except record age: what expired once would expire again. A queue's messages stay in their queue
until they have succeeded (`queue_job`), and run where they are asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from router.asynchronous.failure import function_of
from router.errors import NotFound, StoreUnavailable
from router.life import MappingLife, paused
from router.ports import FailureEntry, QueueSource, Selection, Store, Unclaim
from router.replay.carrying import Carrying, Owners, Replay
from router.replay.end import Ends, JobOver, ReplayEnd
from router.replay.failure_job import Claim, FailureReplay, RunOne
from router.replay.queue_job import QueueLook, QueueReplay, look
from router.replay.record_job import RecordReplays
from router.stored import pages
from router.telemetry import Log

#: Makes a source over a queue that reads it as a mapping reads its own: (mapping, queue). Raises NotFound.
MakeQueue = Callable[[str, str], QueueSource]

#: Replays that are with the mappings at once; later ones wait here, in order.
REPLAYS_AT_ONCE = 64
#: How long a replay that somebody asks for waits for its mapping to run.
PATIENCE_S = 60.0
#: Why nothing is claimed any more.
ENDING = "the daemon is stopping"


class Replayer:
    """Hands failures and messages to the mappings and settles how they end. Is the runners' ReplayListener."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        self._carrying = Carrying(store, log)
        #: Hears how replays end, from the runners.
        self.replayed, self.refused = self._carrying.replayed, self._carrying.refused
        #: Runs what another replica asks for, and does something with the store until it works.
        self.serve, self.insist = self._carrying.serve, self._carrying.insist
        #: Set before `run`.
        self.make_queue: MakeQueue
        #: Runs a failed event again, as another one. Set before `run` where there are such.
        self.replay_event: RunOne = _no_events
        #: Set before `run`: jobs over failure records.
        self.records: RecordReplays
        self._tasks: asyncio.TaskGroup | None = None
        #: Failures that a job has claimed, or is about to, until their end is written.
        self._claimed: set[str] = set()
        #: Replicas that are dead, whose claims nobody has taken up yet.
        self._orphaned: set[str] = set()
        #: Set when the daemon ends. What is claimed then would stay so: nobody looks for claims of who has left.
        self._ending = asyncio.Event()
        self._noted = asyncio.Event()

    @property
    def lives(self) -> Mapping[str, MappingLife]:
        """The mappings; set before `run`."""
        return self._carrying.lives

    @lives.setter
    def lives(self, lives: Mapping[str, MappingLife]) -> None:
        self._carrying.lives = lives

    def join(self, owners: Owners) -> None:
        """Hand replays to the other replicas of a fleet too, by what they have."""
        self._carrying.owners = owners

    async def run(self) -> None:
        """Take up what a former daemon left claimed, and carry jobs until cancelled."""
        cut_off, self._claimed = tuple(self._claimed), set()
        self._carrying.unsettled.clear()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._carrying.tasks = self._tasks
                for dead in (None, *self._orphaned):
                    self._tasks.create_task(self._take_up(dead))
                if cut_off:  # by a bug, in this process
                    self._tasks.create_task(self._take_up_again(cut_off))
                await asyncio.get_running_loop().create_future()
        finally:
            self._carrying.tasks = None

    def orphaned(self, dead: str) -> None:
        """Take up what a replica was replaying that is dead: it falls to us."""
        self._orphaned.add(dead)
        if self._carrying.tasks is not None:
            self.spawn(self._take_up(dead))

    def start(self, selection: Selection, interval_s: float) -> Ends:
        """Begin a job that replays failures, oldest first, one every `interval_s` seconds at most.

        It goes on when nobody listens. Its ends come as they are, then JobOver.
        """
        assert self._tasks is not None, "jobs come only while the replayer runs"
        ends = Ends()
        self._tasks.create_task(self._work(selection, interval_s, ends))
        return ends

    async def look(self, mapping: str, queue: str, messages: int) -> QueueLook:
        """Say what waits in a dead-letter queue, and show so many of its messages, at most 10.

        Raises:
            NotFound: there is no such mapping, or it reads no queue.
            SourceUnavailable: the queue cannot be reached.
        """
        source = await self._open(mapping, queue)
        try:
            return await look(source, self.lives[mapping].parts.passes, messages)
        finally:
            await source.close()

    async def start_queue(self, mapping: str, queue: str, interval_s: float) -> Ends:
        """Begin a job that replays a dead-letter queue until it is empty, one message every `interval_s` at most.

        It goes on when nobody listens. Its ends come as they are, then JobOver.

        Raises:
            NotFound: as in `look`, or the mapping does not run.
            SourceUnavailable: the queue cannot be reached.
        """
        assert self._tasks is not None, "jobs come only while the replayer runs"
        life = self.lives.get(mapping)
        if life and life.is_down:
            raise NotFound(f"mapping {mapping} is disabled or has failed, so it runs nothing; see `headrace status`")
        if life and life.is_paused:
            raise NotFound(paused(mapping))
        source = await self._open(mapping, queue)
        ends = Ends()
        self._tasks.create_task(self._work_queue(source, self.lives[mapping], interval_s, ends))
        return ends

    async def settle(self, within_s: float) -> None:
        """Wait until what has ended is written down or deleted, so long: at a shutdown, when no mapping runs any more.

        What is cut off would run once more. What is with other replicas is given back; they write how it ends. Jobs
        claim nothing more.
        """
        self._ending.set()
        abroad = [each.id for each in self._carrying.wandering.values() if each.event is None]
        with contextlib.suppress(TimeoutError, StoreUnavailable):
            async with asyncio.timeout(within_s):
                if abroad:
                    await self._store.apply([Unclaim(each) for each in abroad])
                while self._carrying.unsettled:
                    self._noted.clear()
                    await self._noted.wait()

    # --- what jobs over failure records need

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on until the daemon ends."""
        assert self._tasks is not None, "jobs come only while the replayer runs"
        self._tasks.create_task(work)

    async def carry(self, replay_id: str, event: bytes, mapping: str, shard: str) -> ReplayEnd:
        """Run an event through a mapping, its records in the lanes of this shard ("" = the event says of which)."""
        return await self._carry_alone(Replay(replay_id, mapping, shard, event))

    def written(self, end: ReplayEnd) -> None:
        """Learn that an end is noted wherever it has to be, with those of its pieces."""
        unsettled = self._carrying.unsettled
        unsettled.difference_update([each for each in unsettled if each.startswith(f"{end.id}.")])
        self._note(end)

    async def _carry_alone(self, replay: Replay) -> ReplayEnd:
        if replay.id in self._carrying:
            return ReplayEnd(replay.id, "refused", reason="it is being replayed already")
        return await self._carrying.carry(replay, PATIENCE_S)

    # --- a job over a queue

    async def _open(self, mapping: str, queue: str) -> QueueSource:
        source = self.make_queue(mapping, queue)
        try:
            await source.open()
        except BaseException:
            await source.close()
            raise
        return source

    async def _work_queue(self, source: QueueSource, life: MappingLife, interval_s: float, ends: Ends) -> None:
        counts: Counter[str] = Counter()

        async def tell(end: ReplayEnd) -> None:
            counts[end.outcome] += 1
            self._note(end)
            await ends.tell(end)

        run_one = partial(self._run_message, life.name)
        try:
            job = QueueReplay(source, life.parts.passes, run_one, tell, interval_s=interval_s, at_once=REPLAYS_AT_ONCE)
            stopped = await job.run()
            self._log.write("queue.replayed", mapping=life.name, queue=source.name, error=stopped, **counts)
            await ends.tell(JobOver(stopped))
        finally:
            ends.stop()
            await source.close()

    async def _run_message(self, mapping: str, message_id: str, event: bytes) -> ReplayEnd:
        return await self._carry_alone(Replay(message_id, mapping, event=event, elsewhere=True))

    # --- a job over stored failures

    async def _work(self, selection: Selection, interval_s: float, ends: Ends) -> None:
        run_one = partial(self._replay_stored, patience_s=PATIENCE_S)
        try:
            await self._job(self._claim, run_one, ends, interval_s).run(pages(self._found, selection))
            await ends.tell(JobOver(None))
        finally:
            ends.stop()

    async def _take_up(self, dead: str | None) -> None:
        """Go on with what a dead replica was replaying; None = a former process of our own."""
        found = await self.insist(partial(self._adopt, dead))
        self._orphaned.discard(dead or "")
        self._go_on_with(found, dead)

    async def _adopt(self, dead: str | None) -> Sequence[FailureEntry]:
        owners = self._carrying.owners
        if owners is not None and dead in owners.others:
            return ()  # started again meanwhile, it takes up its claims itself, and has new ones
        return await self._store.adopt(dead)

    async def _take_up_again(self, failure_ids: Sequence[str]) -> None:
        self._go_on_with(await self._found(Selection(ids=tuple(failure_ids), statuses=("replaying",))), None)

    def _go_on_with(self, found: Sequence[FailureEntry], dead: str | None) -> None:
        left = [entry for entry in found if entry.batch.id not in self._claimed]
        self._claimed.update(entry.batch.id for entry in left)
        if left and dead is not None:
            self._log.write("failure.adopted", replica=dead, failures=len(left))
        for mapping in {entry.batch.mapping for entry in left}:
            self.spawn(self._go_on([entry for entry in left if entry.batch.mapping == mapping]))

    async def _go_on(self, entries: Sequence[FailureEntry]) -> None:
        """Replay what is claimed already."""

        async def are_claimed(_: Sequence[str]) -> Mapping[str, str]:
            return {}

        async def one_page() -> AsyncIterator[Sequence[FailureEntry]]:
            yield entries

        ends = Ends()
        ends.leave()
        await self._job(are_claimed, partial(self._replay_stored, patience_s=None), ends, 0.0).run(one_page())

    def _job(self, claim: Claim, run_one: RunOne, ends: Ends, interval_s: float) -> FailureReplay:
        return FailureReplay(
            claim,
            run_one,
            self._give_back,
            ends,
            interval_s=interval_s,
            at_once=REPLAYS_AT_ONCE,
            in_vain_s=PATIENCE_S,
        )

    async def _found(self, selection: Selection) -> Sequence[FailureEntry]:
        return await self.insist(partial(self._store.failures, selection))

    async def _claim(self, failure_ids: Sequence[str]) -> Mapping[str, str]:
        """Make failures ours to replay; say of the others why they are not."""
        if self._ending.is_set():
            return dict.fromkeys(failure_ids, ENDING)
        # Perhaps the records of some failed again meanwhile and were stored anew, under the same id.
        why_not = {each: "it is being replayed already" for each in failure_ids if each in self._claimed}
        wanted = [each for each in failure_ids if each not in why_not]
        self._claimed.update(wanted)
        won: Sequence[str] = ()
        reason = "it is being replayed already, or was dropped"
        try:
            won = await self._store.claim(wanted)
            if self._ending.is_set():
                await self._store.apply([Unclaim(each) for each in won])
                won, reason = (), ENDING
        except StoreUnavailable as error:
            reason = str(error)
        lost = set(wanted).difference(won)
        self._claimed -= lost
        return why_not | dict.fromkeys(lost, reason)

    async def _replay_stored(self, entry: FailureEntry, patience_s: float | None) -> ReplayEnd:
        """Run a claimed failure to its written end; it waits so long for its mapping to run."""
        failure_id, name = entry.batch.id, entry.batch.mapping
        if function_of(name):
            return await self._replay_event(entry, is_begun=patience_s is None)
        life = self.lives.get(name)
        if life is None or life.is_down:
            absent = f"its mapping {name!r} is not configured, disabled, or has failed; see `headrace status`"
            return await self._give_back(failure_id, absent)
        end = await self._carrying.carry(Replay(failure_id, name, entry.batch.shard), patience_s)
        if end.outcome == "refused":
            return await self._give_back(failure_id, end.reason or "it was not run")
        self._claimed.discard(failure_id)
        self._note(end)
        life = self.lives.get(name)
        if life and life.parts.deliveries:
            life.parts.deliveries.settled({failure_id})
        return end

    async def _replay_event(self, entry: FailureEntry, *, is_begun: bool) -> ReplayEnd:
        """Have a failed event run again; one that a former daemon has begun goes on in the inbox by itself."""
        failure_id = entry.batch.id
        if is_begun:
            return await self._give_back(failure_id, "its replay goes on as an event, and writes how it ends")
        end = await self.replay_event(entry)
        if end.outcome == "refused":
            return await self._give_back(failure_id, end.reason or "it was not run")
        self._claimed.discard(failure_id)
        self._note(end)
        return end

    async def _give_back(self, failure_id: str, reason: str) -> ReplayEnd:
        """Let a failure be as it was before it was claimed."""
        end = ReplayEnd(failure_id, "refused", reason=reason)
        await self.insist(partial(self._store.apply, [Unclaim(failure_id)]))
        self._claimed.discard(failure_id)
        self._note(end)
        return end

    def _note(self, end: ReplayEnd) -> None:
        self._carrying.unsettled.discard(end.id)
        self._noted.set()
        if end.outcome == "refused":
            self._log.write("failure.replay_refused", failure=end.id, reason=end.reason)
        else:
            self._log.write("failure.replayed", failure=end.id, outcome=end.outcome, reason=end.reason)


async def _no_events(entry: FailureEntry) -> ReplayEnd:
    return ReplayEnd(entry.batch.id, "refused", reason="asynchronous events are not served here")
