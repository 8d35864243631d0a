"""Failures on their way to their destinations: how many wait, and sending them now because somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from router.ports import FailureEntry, Selection, Store
from router.replay.end import JobOver


@dataclass(frozen=True, slots=True)
class DeliveryEnd:
    """How one delivery that was asked for ended."""

    id: str
    #: delivered | not_delivered | refused (it was not sent at all)
    outcome: str
    #: What the destination said, or why it was not sent.
    reason: str | None = None
    #: Of what was delivered: `whole` or `claim check`.
    form: str | None = None
    #: Of what was not: when it is sent again, ISO 8601.
    next_try: str | None = None


#: Status of a failure that needs no delivery -> why.
_SETTLED: Final = {
    "dropped": "it was dropped",
    "replayed": "its replay succeeded",
    "failed_again": "its records are in newer failures",
}


Tell = Callable[[DeliveryEnd], None]


@dataclass(frozen=True, slots=True)
class OutboxFacts:
    """What of one mapping waits for its destination."""

    #: None = not known, as no daemon runs.
    destination: str | None
    undelivered: int
    #: When the oldest of them failed, wall time, seconds.
    oldest_s: float | None = None
    #: What the destination last refused one with; None = nothing waits, or nothing was refused since something does.
    last_error: str | None = None
    #: When one of them is sent next, wall time, seconds; None = nothing waits, or one is being sent.
    next_try_s: float | None = None


class Note(msgspec.Struct):
    """What has happened to the failures of a mapping."""

    mapping: str
    #: Failures that were kept: id, and when they failed, wall time, seconds.
    kept: list[tuple[str, float]] = []
    #: Failures that need no delivery any more.
    settled: list[str] = []


class DeliverOne(msgspec.Struct):
    """Send a failure to its destination now."""

    mapping: str
    id: str


class DeliveryEnds:
    """The ends of the deliveries that somebody asked for, as they come, for one listener; then that it is over.

    Nobody who tells waits for the listener: there are no more ends than were asked for.
    """

    def __init__(self, failure_ids: Sequence[str]) -> None:
        self._left = set(failure_ids)
        self._told: asyncio.Queue[DeliveryEnd | JobOver | None] = asyncio.Queue()
        self._over_at_last()

    def tell(self, end: DeliveryEnd) -> None:
        self._told.put_nowait(end)
        self._left.discard(end.id)
        self._over_at_last()

    def stop(self) -> None:
        """Say that nothing more comes. May come twice."""
        self._told.put_nowait(None)

    async def next(self) -> DeliveryEnd | JobOver | None:
        """Wait for the next end; None = nothing more comes."""
        return await self._told.get()

    def leave(self) -> None:
        """Listen no more; the deliveries go on."""

    def _over_at_last(self) -> None:
        if not self._left:
            self._told.put_nowait(JobOver(None))
            self.stop()


class Deliveries(Protocol):
    """The deliveries of one mapping that has a destination."""

    @property
    def is_ours(self) -> bool:
        """Is it on this replica to deliver them?"""
        ...

    def facts(self) -> OutboxFacts: ...

    def heard(self, note: Note) -> bool:
        """Hear from another replica what it has kept, or settled; say whether it is on us to deliver."""
        ...

    def deliver(self, entry: FailureEntry, tell: Tell) -> None:
        """Send an undelivered failure now, and tell once how that ended."""
        ...

    def settled(self, failure_ids: AbstractSet[str]) -> None:
        """Hear that these need no delivery any more; others may be among them."""
        ...


async def deliver(store: Store, mappings: Mapping[str, Deliveries | None], failure_ids: Sequence[str]) -> DeliveryEnds:
    """Send failures to their destinations now.

    Args:
        store: holds the failures.
        mappings: those that there are; None = it has no destination.
        failure_ids: which failures.

    Raises:
        StoreUnavailable
    """
    entries = await store.failures(Selection(ids=tuple(failure_ids))) if failure_ids else ()
    found = {entry.batch.id: entry for entry in entries}
    ends = DeliveryEnds(failure_ids)
    for failure_id in dict.fromkeys(failure_ids):
        entry = found.get(failure_id)
        deliveries = mappings.get(entry.batch.mapping) if entry else None
        if entry and deliveries and entry.awaits_delivery:
            deliveries.deliver(entry, ends.tell)
        elif entry and entry.is_accepted:
            ends.tell(DeliveryEnd(failure_id, "delivered", "its destination has it already"))
        else:
            ends.tell(DeliveryEnd(failure_id, "refused", _why_not(entry, mappings)))
    return ends


def _why_not(entry: FailureEntry | None, mappings: Mapping[str, Deliveries | None]) -> str:
    if entry is None:
        return "there is no such failure"
    if entry.destination is None:
        return "it was stored while its mapping had no destination"
    if not entry.awaits_delivery:
        return _SETTLED[entry.status]
    mapping = entry.batch.mapping
    if mapping not in mappings:
        return f"its mapping {mapping!r} is not configured; see `headrace status`"
    return f"its mapping {mapping!r} has no destination any more; see destination_config in the file"
