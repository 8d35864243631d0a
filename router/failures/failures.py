"""The failures of one mapping: keeps them, has their records sent, and holds the mapping when there is no room.

A failure is written before anything moves past it. Its record is then sent from the store (`delivering`), at least
once, also after a restart. Sending and watching the limits are two loops, so that a destination that hangs cannot hide
that too much is waiting. Neither looks at the disk while nothing happens.

In a fleet every replica keeps what fails there and is held when too much waits, whoever has kept it; one of them at a
time delivers and lets go of what is old (`outbox_lease`). The others tell it what they have kept. Should that be lost,
it is found at a look every half minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from router.core.lane import backoff_s
from router.core.model import FailedBatch
from router.core.outbox import DELIVERY_BACKOFF
from router.core.retention import Hold, Retention
from router.errors import LeaseLost, StoreUnavailable
from router.failures.deliveries import DeliveryEnd, Note, OutboxFacts, Tell
from router.failures.delivering import Delivering
from router.failures.expiring import expire, make_room
from router.failures.outbox_lease import AlwaysOurs, OutboxLease
from router.ports import (
    Backlog,
    DeleteFailure,
    Destination,
    FailureEntry,
    Holds,
    KeepFailure,
    Store,
    WallClock,
)
from router.telemetry import Log, MappingMetrics

T = TypeVar("T")

#: Between two looks for failures that are older than the retention, or undelivered without our knowing.
TIDY_EVERY_S: Final = 600.0
#: Between two looks whether a mapping that is held can go on, beside those after each delivery and `settled`.
HELD_LOOK_S: Final = 5.0
#: In a fleet: between two looks at what others may have kept without our hearing of it.
SHARED_LOOK_S: Final = 30.0
#: What is being sent may take so long when the mapping goes for good, or another replica is to go on.
HAND_OVER_S: Final = 10.0
#: In a fleet: between two times that it is told what was kept here.
TELL_EVERY_S: Final = 0.5
#: Failures kept here of which it is told one by one; it looks for what is beyond itself.
UNTOLD_LIMIT: Final = 1000


class Failures:
    """Keeps, delivers and expires the failures of one mapping."""

    def __init__(
        self,
        mapping: str,
        *,
        store: Store,
        destination: Destination | None,
        retention: Retention,
        batch_info: Callable[[FailedBatch, bytes], Mapping[str, object]],
        hold: Callable[[str | None], None],
        metrics: MappingMetrics,
        log: Log,
        wall: WallClock,
        rng: Random,
        lease: OutboxLease | None = None,
    ) -> None:
        self._mapping = mapping
        self._store = store
        self._destination = destination
        self._retention = retention
        self._batch_info = batch_info
        self._tell_hold = hold
        self._metrics = metrics
        self._log = log
        self._wall = wall
        self._rng = rng
        self._hold = Hold(mapping, destination.name if destination else None, retention)
        self._changed = asyncio.Event()
        #: Set when one was sent, or refused.
        self._moved = asyncio.Event()
        #: Whether it is on us to deliver; None = there is nobody else.
        self._lease: OutboxLease = AlwaysOurs() if lease is None else lease
        self._delivering = self._make_delivering(destination) if destination else None
        #: When what is in the store is taken up next, and what is old deleted, loop time.
        self._tidy_at_s = 0.0
        #: What whoever delivers has not been told.
        self._untold = Note(mapping)
        self._news = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        #: As last counted.
        self.backlog = Backlog()

    def _make_delivering(self, destination: Destination) -> Delivering:
        return Delivering(
            destination,
            store=self._store,
            insist=self._insist,
            fences=self._lease.fences,
            changed=self._moved_on,
            metrics=self._metrics,
            log=self._log,
            wall=self._wall,
            rng=self._rng,
        )

    async def keep(
        self, failure: FailedBatch, event: bytes, keys: tuple[bytes, ...], fences: Sequence[Holds] = ()
    ) -> None:
        """Write a failed batch; once this returns, nothing can lose it any more.

        Raises:
            StoreUnavailable: nothing was written.
            LeaseLost: a fence does not hold, and nothing was written: the batch is another replica's to settle.
        """
        destination = self._destination.name if self._destination else None
        entry = FailureEntry(failure, "stored", destination, self._batch_info(failure, event), keys, len(event))
        await self._store.apply([*fences, KeepFailure(entry, event)])
        if self._delivering is None:
            self._metrics.dropped.inc(failure.batch_size)
        elif self._lease.is_ours:
            self._delivering.add(failure.id, failure.failed_at_s)
        elif len(self._untold.kept) < UNTOLD_LIMIT:
            self._untold.kept.append((failure.id, failure.failed_at_s))
            self._news.set()
        self._changed.set()

    def retain(self, retention: Retention) -> None:
        """Keep so much from now on."""
        self._retention = self._hold.retention = retention
        self._changed.set()

    def settled(self, failure_ids: AbstractSet[str]) -> None:
        """Hear that somebody has dropped or replayed failures: they need no delivery, and there may be room again."""
        if self._delivering and self._lease.is_ours:
            self._delivering.settled(failure_ids)
        elif len(self._untold.settled) < UNTOLD_LIMIT:
            self._untold.settled += failure_ids
            self._news.set()
        self._changed.set()

    def heard(self, note: Note) -> bool:
        """Hear from another replica what it has kept, or settled; say whether it is on us to deliver."""
        is_ours = self.is_ours
        if self._delivering and is_ours:
            for failure_id, failed_at_s in note.kept:
                self._delivering.add(failure_id, failed_at_s)
            self._delivering.settled(set(note.settled))
        self._changed.set()
        return is_ours

    @property
    def is_ours(self) -> bool:
        """Is it on this replica to deliver?"""
        return self._lease.is_ours

    def facts(self) -> OutboxFacts:
        """Say what waits for the destination, which there must be; of what another replica delivers, how much."""
        assert self._destination
        assert self._delivering
        if self._lease.is_ours:
            return self._delivering.facts()
        return OutboxFacts(self._destination.name, self.backlog.undelivered)

    def deliver(self, entry: FailureEntry, tell: Tell) -> None:
        """Send an undelivered failure now, and tell once how that ended; a sending that is under way counts."""
        assert self._delivering
        if self._tasks is None:
            tell(_stopping(entry))
        elif self._lease.is_ours:
            self._delivering.deliver(entry, tell)
        else:
            self._hand_on(entry, tell, self._tasks)

    async def run(self) -> None:
        """Deliver and watch until cancelled; what is cut off in the middle is sent again by the next start."""
        self._tidy_at_s = 0.0
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._serve())
                self._tasks.create_task(self._watch())
                if self._lease.is_shared:
                    self._tasks.create_task(self._tell())
        finally:
            self._tasks = None
            if self._delivering:
                self._delivering.end("its mapping begins anew, which sends it too")
            self._lease.leave()

    async def sent(self) -> None:
        """Wait until nothing is being sent or due, but not for long: what its destination refuses stays here."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                while self._delivering and self._lease.is_ours and self._delivering.is_busy:
                    self._moved.clear()
                    await self._moved.wait()

    def _moved_on(self) -> None:
        self._moved.set()
        self._changed.set()

    # --- whoever delivers

    async def _serve(self) -> None:
        """Deliver, whenever it is on us."""
        while True:
            await self._lease.gained()
            self._tidy_at_s = 0.0
            self._changed.set()
            if self._delivering:
                self._delivering.begin()
                await self._serve_once(self._delivering)
            else:
                await self._lease.going()
            self._lease.release()

    async def _serve_once(self, delivering: Delivering) -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_suppressed(delivering.run(stop)))
            try:
                is_awaited = await self._lease.going()
                stop.set()
                if is_awaited:
                    await asyncio.wait([sending], timeout=HAND_OVER_S)
            except asyncio.CancelledError:
                stop.set()
                if self._lease.is_shared:  # another begins with it as soon as it is cut off
                    await asyncio.wait([sending], timeout=HAND_OVER_S)
                raise
            sending.cancel()
        if self._tasks:
            for entry, tell in delivering.give_back():
                self._hand_on(entry, tell, self._tasks)

    def _hand_on(self, entry: FailureEntry, tell: Tell, tasks: asyncio.TaskGroup) -> None:
        """Have another replica send a failure; who asked is told also where the wait for that is cut off."""
        waiting = tasks.create_task(self._deliver_elsewhere(entry, tell))
        waiting.add_done_callback(lambda task: tell(_stopping(entry)) if task.cancelled() else None)

    async def _deliver_elsewhere(self, entry: FailureEntry, tell: Tell) -> None:
        end = await self._lease.deliver(entry.batch.id)
        if end is None:
            self.deliver(entry, tell)
        else:
            tell(end)
            self._changed.set()

    async def _tell(self) -> None:
        """Tell whoever delivers what has happened here."""
        while True:
            await self._news.wait()
            self._news.clear()
            note, self._untold = self._untold, Note(self._mapping)
            if not await self._is_told(note):
                self._untold.kept[:0], self._untold.settled[:0] = note.kept, note.settled
                self._news.set()
            await asyncio.sleep(TELL_EVERY_S)

    async def _is_told(self, note: Note) -> bool:
        """Tell a note; who has come to deliver since has looked at the store itself."""
        return self._lease.is_ours or await self._lease.tell(note)

    # --- watching the limits

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._insist(self._look)
            if loop.time() >= self._tidy_at_s and self._lease.is_ours:
                self._tidy_at_s = loop.time() + TIDY_EVERY_S
                with contextlib.suppress(LeaseLost):
                    await self._tidy()
                self._changed.set()
            look_s = SHARED_LOOK_S if self._lease.is_shared and self._lease.is_ours else TIDY_EVERY_S
            look_s = HELD_LOOK_S if self._hold.reason else look_s
            tidy_at_s = self._tidy_at_s if self._lease.is_ours else float("inf")
            await _set_or_due(self._changed, min(tidy_at_s, loop.time() + look_s))

    async def _tidy(self) -> None:
        if self._delivering:
            await self._insist(partial(self._delivering.take_up, self._mapping))
        await self._insist(self._expire)

    async def _look(self) -> None:
        if self._retention.drop_oldest and self._lease.is_ours:
            with contextlib.suppress(LeaseLost):
                await make_room(self._store, self._mapping, self._retention, self._delete)
        self.backlog = await self._store.backlog(self._mapping)
        before = self._hold.reason
        last_error = self._delivering.last_error if self._delivering else None
        reason = self._hold.decide(self.backlog.undelivered, self.backlog.stored_bytes, last_error)
        if reason != before:
            self._tell_hold(reason)
            if reason and self._tasks and self._lease.is_shared:
                self._tasks.create_task(self._lease.tell_all(Note(self._mapping)))
        is_serving = self._lease.is_shared and self._lease.is_ours
        if self._delivering and is_serving and self.backlog.undelivered > self._delivering.waiting:
            await self._delivering.take_up(self._mapping)  # kept by another, and we were not told

    async def _expire(self) -> None:
        await expire(self._store, self._mapping, self._retention, self._wall(), self._delete)

    async def _delete(self, failure_ids: Sequence[str], why: str) -> None:
        await self._store.apply([*self._lease.fences(), *(DeleteFailure(each) for each in failure_ids)])
        self._log.write("failure.expired", failures=len(failure_ids), reason=why)

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store until it works."""
        refusals = 0
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                self._log.write("store.failed", error=error)
                await asyncio.sleep(backoff_s(DELIVERY_BACKOFF, refusals, self._rng))
                refusals += 1


def _stopping(entry: FailureEntry) -> DeliveryEnd:
    return DeliveryEnd(entry.batch.id, "refused", "its mapping starts or stops now; ask again in a moment")


async def _suppressed(sending: Coroutine[Any, Any, None]) -> None:
    """End quietly when it is not on us any more."""
    with contextlib.suppress(LeaseLost):
        await sending


async def _set_or_due(event: asyncio.Event, due_s: float | None) -> None:
    """Wait until the event is set, or the loop's time is `due_s`; then clear it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(due_s):
            await event.wait()
    event.clear()
