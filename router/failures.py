"""The failures of one mapping: keeps them, sends their records from the store, and holds the mapping when it is full.

A failure is written before anything moves past it. Its record is then sent from the store, at least once, again and
again until the destination accepts, also after a restart. Two loops share the work: one sends, one watches the limits,
so that a destination that hangs cannot hide that too much is waiting. Neither looks at the disk while nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from random import Random
from typing import Final, TypeVar

from router.core.lane import backoff_s
from router.core.model import FailedBatch
from router.core.outbox import DELIVERY_BACKOFF, Outbox
from router.core.retention import EXPENDABLE, RELEASE_SHARE, Hold, Retention, surplus
from router.deliveries import DeliveryEnd, OutboxFacts, Tell
from router.errors import DestinationUnavailable, StoreUnavailable
from router.failure_record import iso_ms
from router.ports import (
    Backlog,
    DeleteFailure,
    DeliveryEnded,
    Destination,
    FailureEntry,
    FailureMessage,
    KeepFailure,
    Selection,
    Store,
    WallClock,
)
from router.telemetry import Log, MappingMetrics

T = TypeVar("T")

#: Between two looks for failures that are older than the retention, or undelivered without our knowing.
TIDY_EVERY_S: Final = 600.0
#: Between two looks whether a mapping that is held can go on, beside those after each delivery and `settled`.
HELD_LOOK_S: Final = 5.0
#: Why a failure that was asked for is not sent after all.
NOT_NEEDED: Final = "it needs no delivery any more"
#: Failures deleted in one step.
DELETE_AT_ONCE: Final = 100


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
        self._outbox = Outbox(rng)
        self._kept = asyncio.Event()
        self._changed = asyncio.Event()
        self._last_error: str | None = None
        #: Who asked for the delivery of a failure, by its id.
        self._asked: dict[str, list[Tell]] = {}
        #: As last counted.
        self.backlog = Backlog()

    async def keep(self, failure: FailedBatch, event: bytes, keys: tuple[bytes, ...]) -> None:
        """Write a failed batch; once this returns, nothing can lose it any more.

        Raises:
            StoreUnavailable: nothing was written.
        """
        destination = self._destination.name if self._destination else None
        entry = FailureEntry(failure, "stored", destination, self._batch_info(failure, event), keys, len(event))
        await self._store.apply([KeepFailure(entry, event)])
        if self._destination:
            self._outbox.add(failure.id, failure.failed_at_s, _mono_s())
            self._kept.set()
        else:
            self._metrics.dropped.inc(failure.batch_size)
        self._changed.set()

    def retain(self, retention: Retention) -> None:
        """Keep so much from now on."""
        self._retention = self._hold.retention = retention
        self._changed.set()

    def settled(self, failure_ids: AbstractSet[str]) -> None:
        """Hear that somebody has dropped or replayed failures: they need no delivery, and there may be room again."""
        for failure_id in self._outbox.among(failure_ids):
            self._done(DeliveryEnd(failure_id, "refused", NOT_NEEDED))
        self._changed.set()

    def facts(self) -> OutboxFacts:
        """Say what waits for the destination, which there must be."""
        assert self._destination
        due_s = self._outbox.next_due_s()
        return OutboxFacts(
            self._destination.name,
            len(self._outbox),
            self._outbox.oldest_s(),
            self._last_error,
            None if due_s is None else self._wall() + max(due_s - _mono_s(), 0.0),
        )

    def deliver(self, entry: FailureEntry, tell: Tell) -> None:
        """Send an undelivered failure now, and tell once how that ended; a sending that is under way counts."""
        self._asked.setdefault(entry.batch.id, []).append(tell)
        self._outbox.add(entry.batch.id, entry.batch.failed_at_s, _mono_s(), refusals=entry.deliveries)
        self._outbox.hurry(entry.batch.id, _mono_s())
        self._kept.set()

    async def run(self) -> None:
        """Deliver and watch until cancelled; what is cut off in the middle is sent again by the next start."""
        self._outbox = Outbox(self._rng)
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._destination:
                    tasks.create_task(self._deliver(self._destination))
                tasks.create_task(self._watch())
        finally:
            for failure_id in list(self._asked):
                self._end(DeliveryEnd(failure_id, "refused", "its mapping begins anew, which sends it too"))

    # --- delivering

    async def _deliver(self, destination: Destination) -> None:
        while True:
            failure_id = self._outbox.take(_mono_s())
            if failure_id is None:
                await _set_or_due(self._kept, self._outbox.next_due_s())
            else:
                found = await self._insist(partial(self._find, failure_id))
                if isinstance(found, FailureMessage):
                    await self._send(destination, found)
                else:
                    self._done(found)
                    self._changed.set()

    async def _take_up(self) -> None:
        """Take up what is undelivered and not known here: of a former daemon, or of a `keep` that was cut off."""
        for entry in await self._store.undelivered(self._mapping):
            wait_s = entry.next_delivery_s - self._wall()
            batch = entry.batch
            self._outbox.add(batch.id, batch.failed_at_s, _mono_s(), refusals=entry.deliveries, wait_s=wait_s)
            self._last_error = self._last_error or entry.delivery_error
        self._kept.set()

    async def _find(self, failure_id: str) -> FailureMessage | DeliveryEnd:
        """Read what is to be sent; where there is nothing to send any more, how that ends."""
        event = await self._store.event(failure_id)
        for entry in await self._store.failures(Selection(ids=(failure_id,))):
            if entry.is_accepted:
                return DeliveryEnd(failure_id, "delivered", "its destination has it already")
            if entry.awaits_delivery and event is not None:
                return FailureMessage(entry, event)
        return DeliveryEnd(failure_id, "refused", NOT_NEEDED)

    async def _send(self, destination: Destination, message: FailureMessage) -> None:
        failure_id, batch_size = message.entry.batch.id, message.entry.batch.batch_size
        try:
            sent = await destination.send(message)
        except DestinationUnavailable as error:
            self._last_error = str(error)
            wait_s = self._outbox.refused(failure_id, _mono_s())
            next_try_s = self._wall() + wait_s
            ended = DeliveryEnded(failure_id, str(error), next_try_s)
            told = DeliveryEnd(failure_id, "not_delivered", str(error), next_try=iso_ms(next_try_s))
            self._metrics.delivery_errors.inc()
            self._log.write(
                "failure.not_delivered", failure=failure_id, destination=destination.name, error=error, wait_s=wait_s
            )
        else:
            ended = DeliveryEnded(failure_id, None)
            told = DeliveryEnd(failure_id, "delivered", form=sent.value)
            self._metrics.delivered.inc(batch_size)
            self._log.write("failure.delivered", failure=failure_id, destination=destination.name, form=sent.value)
        # Not given up before it is written: sending again what was accepted would be worse than waiting.
        await self._insist(partial(self._store.apply, [ended]))
        if ended.error is None:
            self._done(told)
        else:
            self._end(told)
        self._changed.set()

    def _done(self, end: DeliveryEnd) -> None:
        """Let go of a failure that is not sent any more."""
        self._outbox.done(end.id)
        if not self._outbox:
            self._last_error = None
        self._end(end)

    def _end(self, end: DeliveryEnd) -> None:
        """Tell those who asked for a delivery."""
        for tell in self._asked.pop(end.id, ()):
            tell(end)

    # --- watching the limits

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        tidy_at_s = loop.time()
        while True:
            await self._insist(self._look)
            if loop.time() >= tidy_at_s:
                if self._destination:
                    await self._insist(self._take_up)
                await self._insist(self._expire)
                self._changed.set()
                tidy_at_s = loop.time() + TIDY_EVERY_S
            look_s = HELD_LOOK_S if self._hold.reason else TIDY_EVERY_S
            await _set_or_due(self._changed, min(tidy_at_s, loop.time() + look_s))

    async def _look(self) -> None:
        if self._retention.drop_oldest:
            await self._make_room()
        self.backlog = await self._store.backlog(self._mapping)
        before = self._hold.reason
        reason = self._hold.decide(self.backlog.undelivered, self.backlog.stored_bytes, self._last_error)
        if reason != before:
            self._tell_hold(reason)

    async def _expire(self) -> None:
        """Delete what is settled and older than the retention."""
        until_s = self._wall() - self._retention.keep_for_s
        old = Selection(mapping=self._mapping, statuses=EXPENDABLE, until_s=until_s, limit=DELETE_AT_ONCE)
        while found := await self._store.failures(old):
            await self._delete([entry.batch.id for entry in found], "older than keep_for")

    async def _make_room(self) -> None:
        """Delete the oldest failures, settled ones first, when they take more than they may."""
        excess_bytes = (await self._store.backlog(self._mapping)).stored_bytes - self._retention.keep_bytes
        if excess_bytes < 0:
            return
        excess_bytes += int(self._retention.keep_bytes * (1 - RELEASE_SHARE))
        for statuses in (EXPENDABLE, ("stored",)):
            while excess_bytes > 0:
                oldest = Selection(mapping=self._mapping, statuses=statuses, limit=DELETE_AT_ONCE)
                sizes = {entry.batch.id: entry.event_bytes for entry in await self._store.failures(oldest)}
                chosen = surplus(sizes.items(), excess_bytes)
                if not chosen:
                    break
                await self._delete(chosen, "keep_bytes is reached")
                excess_bytes -= sum(sizes[each] for each in chosen)

    async def _delete(self, failure_ids: Sequence[str], why: str) -> None:
        await self._store.apply([DeleteFailure(each) for each in failure_ids])
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


def _mono_s() -> float:
    return asyncio.get_running_loop().time()


async def _set_or_due(event: asyncio.Event, due_s: float | None) -> None:
    """Wait until the event is set, or the loop's time is `due_s`; then clear it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(due_s):
            await event.wait()
    event.clear()
