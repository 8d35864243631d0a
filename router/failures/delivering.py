"""Sends the failures of one mapping from the store to its destination, again and again until it accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from random import Random
from typing import Final

from router.core.outbox import Outbox
from router.errors import DestinationUnavailable
from router.failures.deliveries import DeliveryEnd, OutboxFacts, Tell
from router.failures.record import iso_ms
from router.ports import (
    DeliveryEnded,
    Destination,
    FailureEntry,
    FailureMessage,
    Holds,
    Selection,
    Store,
    WallClock,
)
from router.stored import Insist
from router.telemetry import Log, MappingMetrics

#: Why a failure that was asked for is not sent after all.
NOT_NEEDED: Final = "it needs no delivery any more"


class Delivering:
    """The outbox of one mapping, while it is on us to empty it."""

    def __init__(
        self,
        destination: Destination,
        *,
        store: Store,
        insist: Insist,
        fences: Callable[[], Sequence[Holds]],
        changed: Callable[[], None],
        metrics: MappingMetrics,
        log: Log,
        wall: WallClock,
        rng: Random,
    ) -> None:
        """Make it.

        Args:
            destination: Where it sends to.
            store: Has what is sent.
            insist: Does something with the store until it works.
            fences: Gives what the writes must name. Raises LeaseLost.
            changed: Is called when something was sent, or needs to be sent no more.
            metrics: Of the mapping.
            log: Of the mapping.
            wall: The time.
            rng: Chance, for waits.
        """
        self._destination = destination
        self._store = store
        self._insist = insist
        self._fences = fences
        self._tell_changed = changed
        self._metrics = metrics
        self._log = log
        self._wall = wall
        self._rng = rng
        self._outbox = Outbox(rng)
        self._more = asyncio.Event()
        self.last_error: str | None = None
        #: Who asked for the delivery of a failure, by its id.
        self._asked: dict[str, list[tuple[FailureEntry, Tell]]] = {}

    @property
    def waiting(self) -> int:
        """How many wait to be sent, as far as it is known here."""
        return len(self._outbox)

    @property
    def is_busy(self) -> bool:
        """Is something being sent, or due?"""
        return self._outbox.is_busy(_mono_s())

    def facts(self) -> OutboxFacts:
        """Say what waits for the destination."""
        due_s = self._outbox.next_due_s()
        return OutboxFacts(
            self._destination.name,
            len(self._outbox),
            self._outbox.oldest_s(),
            self.last_error,
            None if due_s is None else self._wall() + max(due_s - _mono_s(), 0.0),
        )

    def add(self, failure_id: str, failed_at_s: float) -> None:
        """Send a failure that was kept just now."""
        self._outbox.add(failure_id, failed_at_s, _mono_s())
        self._more.set()

    def deliver(self, entry: FailureEntry, tell: Tell) -> None:
        """Send a failure now, and tell once how that ended; a sending that is under way counts."""
        batch = entry.batch
        self._asked.setdefault(batch.id, []).append((entry, tell))
        self._outbox.add(batch.id, batch.failed_at_s, _mono_s(), refusals=entry.deliveries)
        self._outbox.hurry(batch.id, _mono_s())
        self._more.set()

    def settled(self, failure_ids: AbstractSet[str]) -> None:
        """Hear that these need no delivery any more; others may be among them."""
        for failure_id in self._outbox.among(failure_ids):
            self._done(DeliveryEnd(failure_id, "refused", NOT_NEEDED))

    async def take_up(self, mapping: str) -> None:
        """Take up what is undelivered and not known here: of a former daemon, or of a `keep` that was cut off."""
        for entry in await self._store.undelivered(mapping):
            wait_s = entry.next_delivery_s - self._wall()
            batch = entry.batch
            self._outbox.add(batch.id, batch.failed_at_s, _mono_s(), refusals=entry.deliveries, wait_s=wait_s)
            self.last_error = self.last_error or entry.delivery_error
        self._more.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop, or cancelled. What is cut off in the middle is sent again by whoever is next.

        Raises:
            LeaseLost: it is not on us any more; what is being sent is given up, and its end is not written.
        """
        while not stop.is_set():
            failure_id = self._outbox.take(_mono_s())
            if failure_id is None:
                await self._until_due(stop)
                continue
            found = await self._insist(partial(self._find, failure_id))
            self._fences()
            if isinstance(found, FailureMessage):
                await self._send(found)
            else:
                self._done(found)
                self._tell_changed()

    def begin(self) -> None:
        """Know of nothing that waits, and of no error."""
        self._outbox = Outbox(self._rng)

    def end(self, why: str) -> None:
        """Tell those who asked for deliveries that they do not hear of them."""
        for failure_id in list(self._asked):
            self._end(DeliveryEnd(failure_id, "refused", why))

    def give_back(self) -> Sequence[tuple[FailureEntry, Tell]]:
        """Forget the deliveries that somebody asked for, and give them."""
        asked, self._asked = self._asked, {}
        return [each for of_one in asked.values() for each in of_one]

    async def _until_due(self, stop: asyncio.Event) -> None:
        """Wait until there is more to send, or one is due; or to be stopped."""
        waits = [asyncio.ensure_future(each.wait()) for each in (self._more, stop)]
        due_s = self._outbox.next_due_s()
        try:
            timeout_s = None if due_s is None else max(0.0, due_s - _mono_s())
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._more.clear()

    async def _find(self, failure_id: str) -> FailureMessage | DeliveryEnd:
        """Read what is to be sent; where there is nothing to send any more, how that ends."""
        event = await self._store.event(failure_id)
        for entry in await self._store.failures(Selection(ids=(failure_id,))):
            if entry.is_accepted:
                return DeliveryEnd(failure_id, "delivered", "its destination has it already")
            if entry.awaits_delivery and event is not None:
                return FailureMessage(entry, event)
        return DeliveryEnd(failure_id, "refused", NOT_NEEDED)

    async def _send(self, message: FailureMessage) -> None:
        failure_id, batch_size = message.entry.batch.id, message.entry.batch.batch_size
        destination = self._destination
        try:
            sent = await destination.send(message)
        except DestinationUnavailable as error:
            self.last_error = str(error)
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
        await self._insist(partial(self._write, ended))
        if ended.error is None:
            self._done(told)
        else:
            self._end(told)
        self._tell_changed()

    async def _write(self, ended: DeliveryEnded) -> None:
        await self._store.apply([*self._fences(), ended])

    def _done(self, end: DeliveryEnd) -> None:
        """Let go of a failure that is not sent any more."""
        self._outbox.done(end.id)
        if not self._outbox:
            self.last_error = None
        self._end(end)

    def _end(self, end: DeliveryEnd) -> None:
        """Tell those who asked for a delivery."""
        for _, tell in self._asked.pop(end.id, ()):
            tell(end)


def _mono_s() -> float:
    return asyncio.get_running_loop().time()
