"""Handing replays to the mappings: here, or in a fleet to the replica that has their shard.

A replay runs in the lanes of its keys, so it runs where its shard is read, and nowhere else. Which replica that is may
change at any time: whoever is asked and has not the shard gives the replay back as astray, and it is asked for anew
where the shard is then.

It never runs twice at once. Here, because a replay that is asked for again while it runs is the one that runs. In two
replicas, because what has run of it in one has ended before another may read the shard: a shard is given on when
nothing of it is with the function any more, and taken from a replica only once that has lost it by its own clock and
its workers are dead, with their daemon or by its leash. So a replica that is gone may be passed over for the next owner
of the shard. A shard that its stream has finished belongs to nobody; it is replayed wherever that is asked.

The end of a stored failure is written by who ran it, before it is told: who asked may be gone by then, and whoever
takes up what it had claimed finds it ended.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final, Protocol, TypeVar

import msgspec

from router.errors import PeerGone, StoreUnavailable
from router.life import MappingLife, paused
from router.ports import SetStatus, Store
from router.replay.end import ASTRAY, ReplayEnd
from router.runner import Runner
from router.telemetry import Log

T = TypeVar("T")

#: Longest wait before the store is asked again.
STORE_RETRY_CAP_S: Final = 60.0
#: Between two looks for who has a shard.
LOOK_AGAIN_S: Final = 0.5
#: An owner that has not answered in this time is asked again, and goes on with what it runs.
ANSWER_S: Final = 60.0
#: How long it is remembered how a replay ended that another replica asked for, should the answer be lost.
REMEMBERED_S: Final = 60.0
#: What a replica asks of the owner of a shard.
REPLAY: Final = "replay"


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay, as it is handed on."""

    id: str
    mapping: str
    #: Of which its records are; empty = the event says it.
    shard: str = ""
    #: None = the store has it under this id, and is told how it ends.
    event: bytes | None = None
    #: Have its records a place of their own? Then it is tried once.
    elsewhere: bool = False


class Asked(msgspec.Struct):
    """A replay as one replica asks it of another."""

    #: Names this asking of it, however often it is repeated.
    run: str
    id: str
    mapping: str
    shard: str
    event: bytes | None


class Told(msgspec.Struct):
    """The answer."""

    outcome: str
    new_failures: list[str]
    reason: str | None


class Owners(Protocol):
    """The other replicas of a fleet, by what they have."""

    async def owner(self, mapping: str, shard: str) -> str | None:
        """Name the other replica that has a shard; None = none that we know of. Raises StoreUnavailable."""
        ...

    @property
    def others(self) -> Sequence[str]:
        """The other replicas that live."""
        ...

    async def ask(self, replica: str, what: str, body: bytes, within_s: float) -> bytes:
        """Ask it, as `Peers.ask` does."""
        ...


class Carrying:
    """Carries replays to their ends. Is the runners' ReplayListener."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        self.lives: Mapping[str, MappingLife] = {}
        #: None = there are no other replicas.
        self.owners: Owners | None = None
        #: Set while something may run.
        self.tasks: asyncio.TaskGroup | None = None
        self._ends: dict[str, asyncio.Future[ReplayEnd]] = {}
        #: What runs here, by id.
        self._running: dict[str, asyncio.Task[ReplayEnd]] = {}
        #: What other replicas have asked for, by the name of the asking; and what they were told of late.
        self._asked: dict[str, asyncio.Task[ReplayEnd]] = {}
        self._told: dict[str, bytes] = {}
        #: Replays that go from owner to owner.
        self.wandering: dict[str, Replay] = {}
        #: What runners have ended, until it is written down.
        self.unsettled: set[str] = set()
        self._us = secrets.token_hex(8)
        self._runs = count()

    def __contains__(self, replay_id: str) -> bool:
        """Is it being replayed?"""
        return replay_id in self._running or replay_id in self.wandering

    async def carry(self, replay: Replay, patience_s: float | None) -> ReplayEnd:
        """Run a replay to its end, which is written where the store has its event, unless it is refused.

        It waits so long for its mapping to run, and for its shard to be with a replica.
        """
        if self.owners is None or replay.elsewhere:
            return await self._here(replay, patience_s, waits=True)
        self.wandering[replay.id] = replay
        try:
            return await self._wherever(replay, self.owners, patience_s)
        finally:
            del self.wandering[replay.id]

    async def serve(self, body: bytes) -> bytes:
        """Run what another replica asks for, if its shard is ours, and give how that ended."""
        asked = msgspec.msgpack.decode(body, type=Asked)
        if asked.run in self._told:
            return self._told[asked.run]
        task = self._asked.get(asked.run)
        if task is None and self.tasks is not None:
            replay = Replay(asked.id, asked.mapping, asked.shard, asked.event)
            task = self._asked[asked.run] = self.tasks.create_task(self._here(replay, None, waits=False))
        end = await _outcome(task, asked.id)
        self._asked.pop(asked.run, None)
        self.unsettled.discard(end.id)
        answer = msgspec.msgpack.encode(Told(end.outcome, list(end.new_failures), end.reason))
        if end.outcome != ASTRAY:
            self._told[asked.run] = answer
            asyncio.get_running_loop().call_later(REMEMBERED_S, self._told.pop, asked.run, None)
        return answer

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

    def refused(self, failure_id: str, reason: str, *, failed: bool = False, astray: bool = False) -> None:
        outcome = ASTRAY if astray else "failed_again" if failed else "refused"
        self._end(ReplayEnd(failure_id, outcome, reason=reason))

    def _end(self, end: ReplayEnd) -> None:
        waiting = self._ends.get(end.id)
        if waiting and not waiting.done():
            waiting.set_result(end)
            if end.outcome != ASTRAY:
                self.unsettled.add(end.id)

    # --- wherever its shard is

    async def _wherever(self, replay: Replay, owners: Owners, patience_s: float | None) -> ReplayEnd:
        loop = asyncio.get_running_loop()
        shard = replay.shard or self._shard_of(replay)
        run = f"{self._us}.{next(self._runs)}"
        body = msgspec.msgpack.encode(Asked(run, replay.id, replay.mapping, replay.shard, replay.event))
        began_s = loop.time()
        while True:
            end: ReplayEnd | None = None
            life = self.lives.get(replay.mapping)
            if life is not None and life.is_paused and patience_s is not None:
                return ReplayEnd(replay.id, "refused", reason=paused(replay.mapping))
            try:
                owner = await owners.owner(replay.mapping, shard)
                if owner is None:
                    end = await self._here(replay, patience_s, waits=False)
                else:
                    end = _read(replay.id, await owners.ask(owner, REPLAY, body, ANSWER_S))
            except (PeerGone, TimeoutError):
                began_s = loop.time()  # it was with somebody until now
            except StoreUnavailable as error:
                self._log.write("store.failed", error=str(error))
            if end is not None and end.outcome != ASTRAY:
                return end
            life = self.lives.get(replay.mapping)
            if life is None or life.leaving.is_set():
                return ReplayEnd(replay.id, "refused", reason="the mapping is stopping")
            if patience_s is not None and loop.time() - began_s >= patience_s:
                return ReplayEnd(replay.id, "refused", reason=_nobody(replay.mapping, shard))
            await asyncio.sleep(LOOK_AGAIN_S)

    def _shard_of(self, replay: Replay) -> str:
        """Say of which shard an event is, as far as it does."""
        life = self.lives.get(replay.mapping)
        try:
            return life.parts.make_source().codec.parse(replay.event or b"").shard if life else ""
        except ValueError:
            return ""  # whoever runs it says so

    # --- here

    async def _here(self, replay: Replay, patience_s: float | None, *, waits: bool) -> ReplayEnd:
        """Run a replay in this process; one that runs already is that one."""
        assert self.tasks is not None, "replays come only while the replayer runs"
        task = self._running.get(replay.id)
        if task is None:
            task = self.tasks.create_task(self._run(replay, patience_s, waits=waits))
            self._running[replay.id] = task
            task.add_done_callback(lambda _: self._running.pop(replay.id))
        return await _outcome(task, replay.id)

    async def _run(self, replay: Replay, patience_s: float | None, *, waits: bool) -> ReplayEnd:
        event = replay.event
        if event is None:
            event = await self.insist(partial(self._store.event, replay.id))
        if event is None:
            return ReplayEnd(replay.id, "refused", reason="its records are gone")
        ended: asyncio.Future[ReplayEnd] = asyncio.get_running_loop().create_future()
        self._ends[replay.id] = ended
        try:
            while not ended.done():
                await self._hand_over(replay, event, patience_s, waits=waits)
        finally:
            del self._ends[replay.id]
        end = ended.result()
        if replay.event is None and end.outcome in ("replayed", "failed_again"):
            await self.insist(partial(self._store.apply, [SetStatus(end.id, end.outcome)]))
        return end

    async def _hand_over(self, replay: Replay, event: bytes, patience_s: float | None, *, waits: bool) -> None:
        """Give a replay to the mapping's runner, and wait for the end of either.

        What was begun before the daemon was restarted waits for a paused mapping; anything else is refused.
        """
        life = self.lives.get(replay.mapping)
        if life is not None and life.is_paused and patience_s is not None:
            self.refused(replay.id, paused(replay.mapping))
            return
        try:
            runner = await self._running_one(replay.mapping, patience_s if waits else 0.0)
            runner.replay(replay.id, event, elsewhere=replay.elsewhere, shard=replay.shard, waits=waits)
        except TimeoutError:
            self.refused(
                replay.id, f"its mapping {replay.mapping} does not run; see `headrace status`", astray=not waits
            )
        except ValueError as error:
            self.refused(replay.id, f"its event cannot be read: {error}")
        else:
            ended = asyncio.ensure_future(runner.ended.wait())
            try:
                await _first_of(ended, self._ends[replay.id])
            finally:
                ended.cancel()

    async def _running_one(self, mapping: str, patience_s: float | None) -> Runner:
        """Wait for a mapping to run, also for the life that follows one that is leaving.

        Raises:
            TimeoutError: it does not, or is there no more.
        """
        async with asyncio.timeout(patience_s):
            while (life := self.lives.get(mapping)) is not None and not life.gone.is_set():
                if life.runner is not None and not life.runner.ended.is_set():
                    return life.runner
                waits = [asyncio.ensure_future(each.wait()) for each in (life.running, life.gone)]
                try:
                    await _first_of(*waits)
                finally:
                    for wait in waits:
                        wait.cancel()
                await asyncio.sleep(0)  # a run that has ended is still being put away
        raise TimeoutError


async def _outcome(task: asyncio.Task[ReplayEnd] | None, replay_id: str) -> ReplayEnd:
    """Wait for a task that others may wait for too; one that does not come to its end has run nothing."""
    if task is not None:
        await asyncio.wait([task])
        if not task.cancelled():
            return task.result()
    return ReplayEnd(replay_id, ASTRAY)


def _read(replay_id: str, answer: bytes) -> ReplayEnd:
    if not answer:  # a replica of another version, which knows of no replays
        return ReplayEnd(replay_id, ASTRAY)
    told = msgspec.msgpack.decode(answer, type=Told)
    return ReplayEnd(replay_id, told.outcome, tuple(told.new_failures), told.reason)


def _nobody(mapping: str, shard: str) -> str:
    return f"shard {shard} of mapping {mapping} is with no replica now; see `headrace status`"


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
