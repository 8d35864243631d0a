"""The outside world as the API and asynchronous events see it: functions by name, their code, the inbox, targets.

As in router.ports: one call at a time, no loop, sleep, retry or batching behind these methods.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from router.core.asynchronous import AsyncEvent, Became, Line, Owe, Settled
from router.ports import Invocation, Sent

# --- functions


class CodeStore(Protocol):
    """Archives of functions' code that came through the API, by the hash of their content."""

    async def keep_only(self, hashes: Collection[str]) -> None:
        """Forget all archives but these, and what a crash left half written. Raises StoreUnavailable."""
        ...

    async def put(self, sha256: str, archive: bytes) -> None:
        """Keep an archive, durably. Raises StoreUnavailable."""
        ...

    async def path(self, sha256: str) -> Path:
        """Give a file of this machine that has it.

        Raises:
            StoreUnavailable
            NotFound: nobody has kept it.
        """
        ...

    async def drop(self, sha256: str) -> None:
        """Forget an archive that nothing uses. Raises StoreUnavailable."""
        ...


class CodeObjects(Protocol):
    """Objects of S3 that functions' code is taken from."""

    async def fetch(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        """Give the content of an object; `version` is None for the present one.

        Raises:
            CodeRefused: there is no such object, it is larger than that, or we may not have it.
            SourceUnavailable: S3 is not reached.
        """
        ...


class CheckArchive(Protocol):
    """Looks at an archive of code as it comes; takes long enough to be called from a thread of its own."""

    def __call__(self, archive: bytes) -> None:
        """Return if it can be unpacked safely. Raises CodeRefused: it cannot; the text is for who sent it."""
        ...


class Functions(Protocol):
    """All functions of a daemon, as those see them who invoke one by its name."""

    def throttle(self, function: str, version: str) -> str | None:
        """Say whether an invocation would find no room: the reason, in words of TooManyRequestsException; None = room.

        Only reserved concurrency refuses at once; else an invocation waits for a worker, of a bounded number of others.
        """
        ...

    def invoke(self, function: str, version: str, invocation: Invocation) -> None:
        """Run a function in one version, `$LATEST` or a number, of the file's or the catalogue's.

        Where there is no such function it ends as Refused with the error type `ResourceNotFoundException`, and without
        room as Refused with `TooManyRequestsException`.
        """
        ...


# --- asynchronous events


@dataclass(frozen=True, slots=True)
class AcceptEvent:
    """Take an event in."""

    event: AsyncEvent
    payload: bytes
    #: Is nothing in the inbox under this id? Else it is that, and nothing is written.
    is_new: bool = True


InboxChange = AcceptEvent | Became


def grows(change: InboxChange) -> bool:
    """Say whether a change makes the inbox larger, by an event or an answer; others make room, or are small."""
    return isinstance(change, AcceptEvent) or (isinstance(change.what, Owe) and isinstance(change.was, AsyncEvent))


class Waiting(NamedTuple):
    """What waits in a line."""

    rows: int
    #: Wall time at which the first of them is due, seconds.
    due_s: float


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Some of what waits in a line, soonest first."""

    #: Each with its payload.
    rows: Sequence[tuple[AsyncEvent | Owe, bytes]] = ()
    #: Wall time at which the next row of the line is due that is neither here nor known, seconds; None = there is none.
    next_due_s: float | None = None


class Inbox(Protocol):
    """Events that were accepted and are not done with; lives where the Store does. All may raise StoreUnavailable.

    Where replicas share the store: those that this one has accepted or adopted.
    """

    async def apply(self, changes: Sequence[InboxChange]) -> None:
        """Write all of them or none, durably; what is accepted survives a loss of power, whatever else does.

        Changes of what is not there, or not ours any more, change nothing.
        """
        ...

    async def page(self, line: Line, until_s: float, limit: int, limit_bytes: int, known: Collection[str]) -> InboxPage:
        """Give rows of a line that are due, in the order of due time and id; costs the same however many there are.

        Args:
            line: of which.
            until_s: wall time until which they are due, seconds.
            limit: rows, at most.
            limit_bytes: of payloads, at most; but one row in any case.
            known: ids of rows that are not wanted.
        """
        ...

    async def lines(self) -> Mapping[Line, Waiting]:
        """Say what waits in each line that has rows; costs the same however many there are."""
        ...

    async def owners(self) -> Collection[str]:
        """Name the replicas, ours too, that have something in it; none where nobody shares the store."""
        ...

    async def adopt(self, dead: str) -> bool:
        """Make some of what a dead replica has left ours; False = there is nothing left of it. Call it again."""
        ...

    async def close(self) -> None:
        """Let go of it, before the Store is closed. May come twice."""
        ...


class Accepts(Protocol):
    """Takes events in that are to be invoked asynchronously."""

    async def accept(
        self,
        function: str,
        qualifier: str | None,
        payload: bytes,
        *,
        request_id: str,
        client_context: str | None = None,
        trace_id: str | None = None,
        replays: str | None = None,
        is_new: bool = True,
    ) -> None:
        """Return once the event is in the inbox, durably; whoever is there to take it later.

        Args:
            function: its bare name.
            qualifier: version or alias as it was named; None = none.
            payload: JSON.
            request_id: a UUID; the same in all tries.
            client_context: JSON text.
            trace_id: the tracing header.
            replays: the stored failure that is replayed by it; None = it is none's replay.
            is_new: was nothing accepted under this id before? Else it is that, as far as it is still there.

        Raises:
            StoreUnavailable: it is not accepted, nor any part of it.
        """
        ...


# --- destinations of events


class EventDeliveries(Protocol):
    """Tells of events that are done with; when each is told, and how often, is for whoever runs the inbox.

    The order is: `keep`, then `Owe` or `ForgetEvent`, then each target, and what has become of that, with a `note`.
    """

    def targets(self, settled: Settled) -> tuple[str, ...]:
        """Name who is to be told, by what is configured now; as in `Owe`. None = nobody."""
        ...

    async def keep(self, settled: Settled, payload: bytes, targets: Sequence[str]) -> None:
        """Keep an event that has failed where failures are, and write how a replay has ended; twice is as once.

        One that succeeds may have failed and been kept before a kill, and then run once more: that failure is settled.

        Raises:
            LeaseLost: another replica has taken the event over, and nothing was written.
            StoreUnavailable
        """
        ...

    async def outlived(self, succeeded: Sequence[Settled]) -> Collection[str]:
        """Give the ids of those events of which a failure is kept that `keep` would settle.

        Raises:
            StoreUnavailable
        """
        ...

    async def deliver(self, target: str, settled: Settled, payload: bytes) -> None:
        """Tell one target; return once it has accepted.

        Raises:
            DestinationUnavailable: tell it again later. Nothing is ever given up.
        """
        ...

    async def note(self, settled: Settled, error: str | None, next_s: float = 0.0) -> None:
        """Write, for people, how far a failed event is on its way.

        Args:
            settled: the event.
            error: what a target has refused it with; None = all targets have accepted it.
            next_s: wall time of the next delivery, seconds.

        Raises:
            StoreUnavailable
        """
        ...


@dataclass(frozen=True, slots=True)
class TargetMessage:
    """What a target of asynchronous events is given."""

    #: The request id of the event.
    id: str
    #: UTF-8; the record of the event, or the event itself for a dead-letter queue.
    body: bytes
    #: The same without payloads, for a target that does not take so much; None = there is no smaller one.
    small: bytes | None = None
    #: Of a dead-letter queue: name -> (type, value).
    attributes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    #: Of an event bus: its detail-type and the function's ARN with qualifier.
    detail_type: str = ""
    function_arn: str = ""
    #: Of a bucket: name of the function, and wall time of the record, seconds.
    function: str = ""
    at_s: float = 0.0


class EventTarget(Protocol):
    """A destination or dead-letter queue of asynchronous events."""

    #: Its ARN.
    name: str

    async def send(self, message: TargetMessage) -> Sent:
        """Return once it has accepted the message, in the largest form that it takes.

        Raises:
            DestinationUnavailable: not accepted, or not known; it will be sent again.
        """
        ...

    async def check(self) -> None:
        """Reach it without sending anything. Raises DestinationUnavailable."""
        ...

    async def close(self) -> None: ...


# --- sources of mappings


class NoSource(Enum):
    """Why a source cannot be read, by what AWS says of it."""

    ABSENT = "absent"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A source as it was found."""

    #: Of a queue: how long a message that was received stays hidden.
    visibility_s: int | None = None


class Sources(Protocol):
    """Queues, streams and streams of tables, before a mapping of one is made."""

    async def find(self, arn: str) -> FoundSource | NoSource:
        """Look a source up without reading it.

        Raises:
            SourceUnavailable: its service cannot be asked; the message says why.
        """
        ...
