"""What is done about asynchronous events that have failed: they are replayed, told of at once, and let go of when old.

A replay is another event with a request id of its own, which names the failure that it replays. It runs by the rules of
any other, with its own retries and its own end at the destinations. It goes on over a restart of the daemon, and
whoever ends it writes how; who waits for it here is told then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final

from router.asynchronous.delivery import AsyncDelivery
from router.asynchronous.failure import MAPPING, function_of, origin_of
from router.catalogue.catalogue import Catalogue
from router.core.retention import Retention
from router.errors import StoreUnavailable
from router.event_ports import Accepts
from router.failures.deliveries import Deliveries, DeliveryEnd, Note, OutboxFacts, Tell
from router.failures.expiring import expire, make_room
from router.ports import DeleteFailure, FailureEntry, Selection, Store, WallClock
from router.replay.end import ReplayEnd
from router.telemetry import Log

#: Between two looks for failures that are older than the retention.
TIDY_EVERY_S: Final = 600.0
#: Between two looks whether what is being replayed is still ours: a replica that was taken for dead hears no ends.
LOOK_EVERY_S: Final = 30.0
_TAKEN_OVER: Final = "another replica has taken its replay over, and writes how it ends"


class AsyncFailures:
    """The failed events of all functions."""

    def __init__(
        self,
        delivery: AsyncDelivery,
        catalogue: Catalogue,
        store: Store,
        *,
        accepts: Accepts,
        new_id: Callable[[], str],
        retention: Callable[[], Retention],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        wall: WallClock,
        log: Log,
    ) -> None:
        """Make it.

        Args:
            delivery: tells targets, and hears how replays end.
            catalogue: has the functions.
            store: has the failures.
            accepts: takes replays in.
            new_id: gives another random UUID each time.
            retention: says how much is kept now.
            spawn: lets work go on beside others.
            wall: the time.
            log: takes what is said of it.
        """
        self._delivery = delivery
        self._catalogue = catalogue
        self._store = store
        self._accepts = accepts
        self._new_id = new_id
        self._retention = retention
        self._spawn = spawn
        self._wall = wall
        self._log = log
        #: Replays that somebody waits for, by the failure.
        self._replays: dict[str, asyncio.Future[ReplayEnd]] = {}
        delivery.replay_ended = self._ended

    # --- replays

    async def replay(self, entry: FailureEntry) -> ReplayEnd:
        """Run a claimed failure again as another event; return when that is done with, and how is written."""
        failure, function = entry.batch.id, entry.batch.function
        if self._catalogue.function(function) is None:
            return _refused(failure, f"there is no function {function} any more")
        try:
            payload = await self._store.event(failure)
            if payload is None:
                return _refused(failure, "its event is gone")
            ended: asyncio.Future[ReplayEnd] = asyncio.get_running_loop().create_future()
            self._replays[failure] = ended
            origin = origin_of(entry)
            await self._accepts.accept(
                function,
                origin.qualifier,
                payload,
                request_id=self._new_id(),
                client_context=origin.client_context,
                trace_id=origin.trace_id,
                replays=failure,
            )
            while not (await asyncio.wait([ended], timeout=LOOK_EVERY_S))[0]:
                if end := await self._end_elsewhere(failure):
                    return end
            return ended.result()
        except StoreUnavailable as error:
            return _refused(failure, str(error))
        finally:
            self._replays.pop(failure, None)

    async def _end_elsewhere(self, failure: str) -> ReplayEnd | None:
        """Say how a replay has ended that another replica has taken over; None = it is ours, as far as we know."""
        try:
            found = await self._store.failures(Selection(ids=(failure,)))
        except StoreUnavailable:
            return None
        status = found[0].status if found else "gone"
        if status in ("replayed", "failed_again"):
            return ReplayEnd(failure, status)
        return None if status == "replaying" else _refused(failure, _TAKEN_OVER)

    def _ended(self, failure: str, new_failure: str | None) -> None:
        waiting = self._replays.get(failure)
        if waiting and not waiting.done():
            outcome = "failed_again" if new_failure else "replayed"
            waiting.set_result(ReplayEnd(failure, outcome, (new_failure,) if new_failure else ()))

    # --- deliveries

    def deliveries(self) -> Mapping[str, Deliveries]:
        """Give the deliveries of all functions, by the mapping that stands for each."""
        return {f"{MAPPING}{name}": _Deliveries(self._delivery, self._spawn) for name in self._catalogue.functions}

    # --- letting go

    async def run(self) -> None:
        """Let go of what is old, until cancelled."""
        while True:
            try:
                await self.tidy()
            except StoreUnavailable as error:
                self._log.write("store.failed", error=error)
            await asyncio.sleep(TIDY_EVERY_S)

    async def tidy(self) -> None:
        """Let go of what is old, or too much. Raises StoreUnavailable."""
        retention = self._retention()
        mappings = {each.mapping for each in await self._store.tallies() if function_of(each.mapping)}
        for mapping in sorted(mappings):
            delete = partial(self._delete, mapping)
            await expire(self._store, mapping, retention, self._wall(), delete)
            if retention.drop_oldest:
                await make_room(self._store, mapping, retention, delete)

    async def _delete(self, mapping: str, failures: Sequence[str], why: str) -> None:
        await self._store.apply([DeleteFailure(each) for each in failures])
        self._log.write("failure.expired", mapping=mapping, failures=len(failures), reason=why)


class _Deliveries:
    """What is told of the failed events of one function, for whoever asks that it be told at once."""

    is_ours = True

    def __init__(self, delivery: AsyncDelivery, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._delivery = delivery
        self._spawn = spawn

    def facts(self) -> OutboxFacts:
        return OutboxFacts(None, 0)

    def heard(self, note: Note) -> bool:
        del note
        return self.is_ours

    def deliver(self, entry: FailureEntry, tell: Tell) -> None:
        self._spawn(self._deliver(entry, tell))

    def settled(self, failure_ids: AbstractSet[str]) -> None:
        """Nothing: whether a failure is still to be told of is looked up each time."""

    async def _deliver(self, entry: FailureEntry, tell: Tell) -> None:
        try:
            tell(await self._delivery.tell_now(entry))
        except StoreUnavailable as error:
            tell(DeliveryEnd(entry.batch.id, "refused", str(error)))


def _refused(failure: str, reason: str) -> ReplayEnd:
    return ReplayEnd(failure, "refused", reason=reason)
