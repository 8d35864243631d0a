"""Replaying stored failures through their own mappings, and dead-letter queues through mappings that read queues.

A failure is claimed in the store before it runs, so it never runs twice at once, and it stays claimed until its end is
written, so a killed daemon takes it up again at its next start. A replay runs in the lanes of its keys, by the
mapping's own rules except record age: what expired once would expire again. A queue's messages stay in their queue
until they have succeeded (`queue_replay`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from router.errors import NotFound, StoreUnavailable
from router.failure_replay import Claim, FailureReplay, RunOne
from router.life import MappingLife, paused
from router.ports import FailureEntry, QueueSource, Selection, SetStatus, Store, Unclaim
from router.queue_replay import QueueLook, QueueReplay, look
from router.record_replay import RecordReplays
from router.replay_end import Ends, JobOver, ReplayEnd
from router.runner import Runner
from router.stored import pages
from router.telemetry import Log

T = TypeVar("T")

#: Makes a source over a queue that reads it as a mapping reads its own: (mapping, queue). Raises NotFound.
MakeQueue = Callable[[str, str], QueueSource]

#: Longest wait before the store is asked again.
STORE_RETRY_CAP_S = 60.0
#: Replays that are with the mappings at once; later ones wait here, in order.
REPLAYS_AT_ONCE = 64
#: How long a replay that somebody asks for waits for its mapping to run.
PATIENCE_S = 60.0


class Replayer:
    """Hands failures and messages to the mappings and settles how they end. Is the runners' ReplayListener."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        #: Set before `run`.
        self.lives: Mapping[str, MappingLife] = {}
        #: Set before `run`.
        self.make_queue: MakeQueue
        #: Set before `run`: jobs over failure records.
        self.records: RecordReplays
        self._tasks: asyncio.TaskGroup | None = None
        self._ends: dict[str, asyncio.Future[ReplayEnd]] = {}
        #: Failures that a job has claimed, or is about to, until their end is written.
        self._claimed: set[str] = set()
        #: What runners have ended, until it is written down.
        self._unsettled: set[str] = set()
        self._noted = asyncio.Event()

    async def run(self) -> None:
        """Take up what a former daemon left claimed, and carry jobs until cancelled."""
        self._claimed.clear()
        self._unsettled.clear()
        async with asyncio.TaskGroup() as self._tasks:
            found = await self._found(Selection(statuses=("replaying",)))
            left = [entry for entry in found if entry.batch.id not in self._claimed]
            self._claimed.update(entry.batch.id for entry in left)
            for mapping in {entry.batch.mapping for entry in left}:
                self._tasks.create_task(self._go_on([entry for entry in left if entry.batch.mapping == mapping]))
            await asyncio.get_running_loop().create_future()

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

        What is cut off would run once more.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._unsettled:
                    self._noted.clear()
                    await self._noted.wait()

    # --- what jobs over failure records need

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on until the daemon ends."""
        assert self._tasks is not None, "jobs come only while the replayer runs"
        self._tasks.create_task(work)

    async def carry(self, replay_id: str, event: bytes, mapping: str, shard: str) -> ReplayEnd:
        """Run an event through a mapping, its records in the lanes of this shard ("" = the event says of which)."""
        if replay_id in self._ends:
            return ReplayEnd(replay_id, "refused", reason="it is being replayed already")
        return await self._carry(replay_id, event, mapping, PATIENCE_S, shard=shard)

    def written(self, end: ReplayEnd) -> None:
        """Learn that an end is noted wherever it has to be, with those of its pieces."""
        self._unsettled -= {each for each in self._unsettled if each.startswith(f"{end.id}.")}
        self._note(end)

    async def insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store until it works: what is begun is not left half-way."""
        refusals = 0
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                self._log.write("store.failed", error=str(error))
                await asyncio.sleep(min(2.0**refusals, STORE_RETRY_CAP_S))
                refusals = min(refusals + 1, 16)

    # --- what runners say

    def replayed(self, failure_id: str, new_failures: tuple[str, ...]) -> None:
        self._end(ReplayEnd(failure_id, "failed_again" if new_failures else "replayed", new_failures))

    def refused(self, failure_id: str, reason: str, *, failed: bool = False) -> None:
        self._end(ReplayEnd(failure_id, "failed_again" if failed else "refused", reason=reason))

    def _end(self, end: ReplayEnd) -> None:
        waiting = self._ends.get(end.id)
        if waiting and not waiting.done():
            waiting.set_result(end)
            self._unsettled.add(end.id)

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
        if message_id in self._ends:
            return ReplayEnd(message_id, "refused", reason="it is being replayed already")
        return await self._carry(message_id, event, mapping, PATIENCE_S, elsewhere=True)

    # --- a job over stored failures

    async def _work(self, selection: Selection, interval_s: float, ends: Ends) -> None:
        run_one = partial(self._replay_stored, patience_s=PATIENCE_S)
        try:
            await self._job(self._claim, run_one, ends, interval_s).run(pages(self._found, selection))
            await ends.tell(JobOver(None))
        finally:
            ends.stop()

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
        # Perhaps the records of some failed again meanwhile and were stored anew, under the same id.
        why_not = {each: "it is being replayed already" for each in failure_ids if each in self._claimed}
        wanted = [each for each in failure_ids if each not in why_not]
        self._claimed.update(wanted)
        won: Sequence[str] = ()
        reason = "it is being replayed already, or was dropped"
        try:
            won = await self._store.claim(wanted)
        except StoreUnavailable as error:
            reason = str(error)
        lost = set(wanted).difference(won)
        self._claimed -= lost
        return why_not | dict.fromkeys(lost, reason)

    async def _replay_stored(self, entry: FailureEntry, patience_s: float | None) -> ReplayEnd:
        """Run a claimed failure and write its end; it waits so long for its mapping to run."""
        failure_id, name = entry.batch.id, entry.batch.mapping
        event = await self.insist(partial(self._store.event, failure_id))
        life = self.lives.get(name)
        if event is None:
            return await self._give_back(failure_id, "its records are gone")
        if life is None or life.is_down:
            absent = f"its mapping {name!r} is not configured, disabled, or has failed; see `headrace status`"
            return await self._give_back(failure_id, absent)
        end = await self._settle(await self._carry(failure_id, event, name, patience_s, shard=entry.batch.shard))
        life = self.lives.get(name)
        if life and life.parts.deliveries and end.outcome != "refused":
            life.parts.deliveries.settled({failure_id})
        return end

    async def _give_back(self, failure_id: str, reason: str) -> ReplayEnd:
        return await self._settle(ReplayEnd(failure_id, "refused", reason=reason))

    async def _carry(
        self,
        failure_id: str,
        event: bytes,
        mapping: str,
        patience_s: float | None,
        *,
        elsewhere: bool = False,
        shard: str = "",
    ) -> ReplayEnd:
        """Have a mapping run a failure or message, again by its next runner when one ends early."""
        end: asyncio.Future[ReplayEnd] = asyncio.get_running_loop().create_future()
        self._ends[failure_id] = end
        try:
            while not end.done():
                await self._hand_over(failure_id, event, mapping, patience_s, elsewhere=elsewhere, shard=shard)
        finally:
            del self._ends[failure_id]
        return end.result()

    async def _hand_over(
        self, failure_id: str, event: bytes, mapping: str, patience_s: float | None, *, elsewhere: bool, shard: str
    ) -> None:
        """Give a replay to the mapping's runner, and wait for the end of either.

        What was begun before the daemon was restarted waits for a paused mapping; anything else is refused.
        """
        life = self.lives.get(mapping)
        if life is not None and life.is_paused and patience_s is not None:
            self.refused(failure_id, paused(mapping))
            return
        try:
            runner = await self._running(mapping, patience_s)
            runner.replay(failure_id, event, elsewhere=elsewhere, shard=shard)
        except TimeoutError:
            self.refused(failure_id, f"its mapping {mapping} does not run; see `headrace status`")
        except ValueError as error:
            self.refused(failure_id, f"its event cannot be read: {error}")
        else:
            ended = asyncio.ensure_future(runner.ended.wait())
            await _first_of(ended, self._ends[failure_id])
            ended.cancel()

    async def _running(self, mapping: str, patience_s: float | None) -> Runner:
        """Wait for a mapping to run, also for the life that follows one that is leaving.

        Raises:
            TimeoutError: it does not, or is there no more.
        """
        async with asyncio.timeout(patience_s):
            while (life := self.lives.get(mapping)) is not None and not life.gone.is_set():
                if life.runner is not None and not life.runner.ended.is_set():
                    return life.runner
                waits = [asyncio.ensure_future(each.wait()) for each in (life.running, life.gone)]
                await _first_of(*waits)
                for wait in waits:
                    wait.cancel()
                await asyncio.sleep(0)  # a run that has ended is still being put away
        raise TimeoutError

    async def _settle(self, end: ReplayEnd) -> ReplayEnd:
        """Write down how a replay ended."""
        change = Unclaim(end.id) if end.outcome == "refused" else SetStatus(end.id, end.outcome)
        await self.insist(partial(self._store.apply, [change]))
        self._claimed.discard(end.id)
        self._note(end)
        return end

    def _note(self, end: ReplayEnd) -> None:
        self._unsettled.discard(end.id)
        self._noted.set()
        if end.outcome == "refused":
            self._log.write("failure.replay_refused", failure=end.id, reason=end.reason)
        else:
            self._log.write("failure.replayed", failure=end.id, outcome=end.outcome, reason=end.reason)


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
