"""Tells destinations and dead-letter queues of asynchronous events, and keeps those that have failed with the failures.

When each is told, and how often, is for whoever runs the inbox (`event_ports.EventDeliveries`): here one is told once.
A target that refuses is told again until it accepts; only a failure that was dropped, or replayed since, is not told of
any more. `headrace failures deliver` tells at once what is known here to wait; what was accepted so is not sent again
when its turn comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from router.api.names import Here
from router.asynchronous.failure import SETTLED, entry_of, failure_id
from router.asynchronous.record import dead_letter_message, destination_message, invoked_arn
from router.asynchronous.targets import DEAD_LETTER, read_target, shown, targets_of
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST
from router.core.asynchronous import Condition, Settled
from router.core.retention import Retention
from router.errors import DestinationUnavailable, StoreUnavailable
from router.event_ports import EventTarget
from router.failures.deliveries import DeliveryEnd
from router.failures.record import iso_ms
from router.ports import (
    Change,
    DeliveryEnded,
    FailureEntry,
    KeepFailure,
    OwnsEvent,
    Selection,
    Sent,
    SetStatus,
    Store,
)
from router.telemetry import Log, Metrics

#: Makes what sends to a target, by its ARN. Raises DestinationUnavailable: it is none that may be told.
MakeTarget = Callable[[str], EventTarget]
#: Is told how the replay of a failure has ended, and under which id it was kept if it failed again.
ReplayEnded = Callable[[str, str | None], None]

#: Why a failure that nobody has asked to be replayed was.
_RAN_AGAIN: Final = "a kill came before it was noted that the event had failed; it ran once more, and succeeded"
#: What a failure is while nobody has begun to settle it.
_NOT_SETTLED: Final = ("stored", "delivered")
#: Between the targets of a failure.
_AND: Final = ", "
#: Failed events that are known to wait for a target, and acceptances that their turn has not come for, at most.
KNOWN: Final = 1000
#: Targets whose connections are kept.
OPEN: Final = 64


class AsyncDelivery:
    """Is the EventDeliveries of a daemon."""

    def __init__(
        self,
        catalogue: Catalogue,
        where: Callable[[], Here],
        store: Store,
        make_target: MakeTarget,
        *,
        retention: Callable[[], Retention],
        metrics: Metrics,
        log: Log,
        is_shared: bool = False,
    ) -> None:
        """Make it; nothing is connected to before something is told.

        Args:
            catalogue: has the functions with their configs.
            where: gives what their ARNs are made of; may change with the file.
            store: keeps failures.
            make_target: makes what sends to a target.
            retention: says how much is kept now.
            metrics: counts what was not accepted.
            log: takes what is said of it.
            is_shared: do replicas share the store? Then one that was cut off keeps nothing of what another took over.
        """
        self._catalogue = catalogue
        self._where = where
        self._store = store
        self._make_target = make_target
        self._retention = retention
        self._metrics = metrics
        self._log = log
        self._is_shared = is_shared
        self._targets: OrderedDict[str, EventTarget] = OrderedDict()
        #: Those that are not to be used any more.
        self._stale: list[EventTarget] = []
        #: Failed events with the targets that have refused them.
        self._refused: OrderedDict[str, tuple[Settled, set[str]]] = OrderedDict()
        #: What was accepted because somebody asked, until its turn comes: id of the event, and target.
        self._accepted: OrderedDict[tuple[str, str], None] = OrderedDict()
        #: Hears how replays end.
        self.replay_ended: ReplayEnded = _nobody_hears

    def targets(self, settled: Settled) -> tuple[str, ...]:
        function = self._catalogue.last_known(settled.event.function, settled.event.qualifier or LATEST)
        return targets_of(settled, function) if function else ()

    async def keep(self, settled: Settled, payload: bytes, targets: Sequence[str]) -> None:
        event, changes = settled.event, list[Change]()
        new_failure = outlived = None
        if settled.condition is not Condition.SUCCESS:
            entry = entry_of(settled, self._arn(settled), shown(tuple(targets)), len(payload))
            new_failure = entry.batch.id
            await self._check_room(entry)
            changes.append(KeepFailure(entry, payload))
        elif await self.outlived([settled]):
            outlived = failure_id(settled)
            changes.append(SetStatus(outlived, "replayed"))
        if event.replays:
            changes.append(SetStatus(event.replays, "failed_again" if new_failure else "replayed"))
        if changes:
            await self._store.apply([OwnsEvent(event.id), *changes] if self._is_shared else changes)
        if new_failure:
            self._log.write(
                "event.given_up",
                function=event.function,
                request_id=event.id,
                failure=new_failure,
                reason=settled.condition.value,
                tries=settled.invoke_count,
            )
        if outlived:
            self._log.write("failure.replayed", failure=outlived, outcome="replayed", reason=_RAN_AGAIN)
        if event.replays:
            self.replay_ended(event.replays, new_failure)

    async def outlived(self, succeeded: Sequence[Settled]) -> Collection[str]:
        events = {failure_id(settled): settled.event.id for settled in succeeded}
        found = await self._store.failures(Selection(ids=tuple(events), statuses=_NOT_SETTLED))
        return {events[entry.batch.id] for entry in found}

    async def deliver(self, target: str, settled: Settled, payload: bytes) -> None:
        event = settled.event
        if (event.id, target) in self._accepted:
            del self._accepted[event.id, target]
            return
        if settled.condition is not Condition.SUCCESS and await self._needs_none(failure_id(settled)):
            return
        await self._tell(target, settled, payload)

    async def note(self, settled: Settled, error: str | None, next_s: float = 0.0) -> None:
        if settled.condition is Condition.SUCCESS:
            return
        if error is None:
            self._refused.pop(failure_id(settled), None)
        await self._store.apply([DeliveryEnded(failure_id(settled), error, next_s)])

    def renew(self) -> None:
        """Reach all targets anew: how they are reached has changed."""
        self._stale += self._targets.values()
        self._targets.clear()

    async def close(self) -> None:
        """Let go of all targets."""
        self.renew()
        await self._let_go()

    async def _check_room(self, entry: FailureEntry) -> None:
        """Raise StoreUnavailable where failures of the function are at their limit, and none may make room."""
        retention, mapping = self._retention(), entry.batch.mapping
        stored_bytes = (await self._store.backlog(mapping)).stored_bytes
        if stored_bytes >= retention.keep_bytes and not retention.drop_oldest:
            raise StoreUnavailable(
                f"an event of function {entry.batch.function} has failed and waits to be kept: those that are take "
                f"{stored_bytes} bytes, failures.keep_bytes allows {retention.keep_bytes}; replay or drop some, see "
                f"`headrace failures list --mapping {mapping}`"
            )

    # --- telling

    async def _tell(self, target: str, settled: Settled, payload: bytes) -> Sent:
        kind, arn = read_target(target)
        event = settled.event
        make = dead_letter_message if kind == DEAD_LETTER else destination_message
        message = make(settled, payload, self._where().function(event.function))
        about = {"function": event.function, "request_id": event.id, "target": target}
        try:
            sent = await (await self._opened(arn)).send(message)
        except DestinationUnavailable as error:
            metrics = self._metrics.of_function(event.function)
            (metrics.dead_letter_errors if kind == DEAD_LETTER else metrics.destination_failures).inc()
            self._log.write("event.not_told", **about, error=error)
            self._note_refused(target, settled)
            raise
        self._log.write("event.told", **about, form=sent.value)
        return sent

    async def _opened(self, arn: str) -> EventTarget:
        """Give what sends to a target; those that were not used for longest are let go of beyond a number."""
        target = self._targets.get(arn)
        if target is None:
            target = self._targets[arn] = self._make_target(arn)
        self._targets.move_to_end(arn)
        if len(self._targets) > OPEN:
            self._stale.append(self._targets.popitem(last=False)[1])
        await self._let_go()
        return target

    async def _let_go(self) -> None:
        while self._stale:
            await self._stale.pop().close()

    async def _needs_none(self, failure: str) -> bool:
        """Was a failure dropped, or replayed since? One that cannot be looked up is told of."""
        try:
            found = await self._store.failures(Selection(ids=(failure,)))
        except StoreUnavailable:
            return False
        return any(entry.status in SETTLED for entry in found)

    def _note_refused(self, target: str, settled: Settled) -> None:
        if settled.condition is not Condition.SUCCESS:
            _, targets = self._refused.setdefault(failure_id(settled), (settled, set()))
            targets.add(target)
            _bound(self._refused)

    def _arn(self, settled: Settled) -> str:
        return invoked_arn(self._where().function(settled.event.function), settled.event.qualifier)

    # --- telling because somebody asks

    async def tell_now(self, entry: FailureEntry) -> DeliveryEnd:
        """Tell the targets of a failed event that are known to have refused it."""
        failure = entry.batch.id
        settled, targets = self._refused.get(failure, (None, set[str]()))
        payload = await self._store.event(failure)
        if settled is None or payload is None:
            return DeliveryEnd(failure, "refused", "it is on its way, and told again by itself; see next_try")
        forms = set[str]()
        for target in sorted(targets):
            try:
                sent = await self._tell(target, settled, payload)
            except DestinationUnavailable as error:
                next_try = iso_ms(entry.next_delivery_s)
                return DeliveryEnd(failure, "not_delivered", str(error), next_try=next_try)
            self._accepted[settled.event.id, target] = None
            _bound(self._accepted)
            targets.discard(target)
            forms.add(sent.value)
        if entry.destination and _AND not in entry.destination:
            await self._store.apply([DeliveryEnded(failure, None)])
        return DeliveryEnd(failure, "delivered", form=", ".join(sorted(forms)))


def _nobody_hears(failure: str, new_failure: str | None) -> None:
    """Nobody waits for replays yet."""


def _bound(known: OrderedDict[Any, Any]) -> None:
    while len(known) > KNOWN:
        known.popitem(last=False)
