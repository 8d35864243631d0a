"""What the engine of asynchronous events is told, and what it asks for; as facts.py for those of mappings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from router.core.asynchronous import AsyncEvent, Became, LastAnswer, Line, Owe, Settled
from router.core.facts import Due, Finished, WakeAt

Row = AsyncEvent | Owe

# --- facts


@dataclass(frozen=True, slots=True)
class LinesFound:
    """What waits in the inbox: wall time of the first row by line. At the start, and when others' rows became ours."""

    due_s: Mapping[Line, float]


@dataclass(frozen=True, slots=True)
class EventAccepted:
    """An event is in the inbox since just now, and its payload at hand until it is `Loosened`."""

    event: AsyncEvent


@dataclass(frozen=True, slots=True)
class PageLoaded:
    """Answer to Load."""

    line: Line
    rows: Sequence[Row]
    next_due_s: float | None


@dataclass(frozen=True, slots=True)
class LoadFailed:
    line: Line


@dataclass(frozen=True, slots=True)
class Tried:
    """An invocation ended; None = it was cancelled, as if it had not been."""

    id: str
    answer: LastAnswer | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The target whose turn it was has accepted."""

    id: str


@dataclass(frozen=True, slots=True)
class NotDelivered:
    """It has not accepted, or it is not known."""

    id: str


@dataclass(frozen=True, slots=True)
class Written:
    """What has become of rows is in the inbox: by id each as it is there now; None = it is there no more."""

    rows: Mapping[str, Row | None]


@dataclass(frozen=True, slots=True)
class Stop:
    """Start nothing new; what runs may end. All that is not done with stays in the inbox. Answered by Finished."""


AsyncFact = (
    LinesFound | EventAccepted | PageLoaded | LoadFailed | Tried | Delivered | NotDelivered | Written | Stop | Due
)

# --- commands


@dataclass(frozen=True, slots=True)
class Load:
    """Give rows of a line that are due until a wall time, without those that are known."""

    line: Line
    until_s: float
    limit: int
    limit_bytes: int
    known: Collection[str]


@dataclass(frozen=True, slots=True)
class InvokeEvent:
    """Run an event in a version of its function; answered by Tried."""

    event: AsyncEvent
    version: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Keep an event that failed, find out who is to be told, and write that; answered by Written."""

    settled: Settled
    #: The event as it is in the inbox.
    was: AsyncEvent


@dataclass(frozen=True, slots=True)
class Deliver:
    """Tell the target whose turn it is; answered by Delivered or NotDelivered."""

    owe: Owe


@dataclass(frozen=True, slots=True)
class Write:
    """Write what has become of a row, until it is written; answered by Written."""

    change: Became


@dataclass(frozen=True, slots=True)
class Loosen:
    """Let go of the payloads of these: they are not in hand any more, or not to be."""

    ids: Sequence[str]


AsyncCommand = Load | InvokeEvent | Finish | Deliver | Write | Loosen | WakeAt | Finished
