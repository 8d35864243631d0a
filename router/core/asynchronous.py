"""Events that are invoked asynchronously: what is known of one, and how it ended. Values only.

Source of the rules: AWS Lambda developer guide, "Asynchronous invocation", and recordings of the destination records.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Condition(Enum):
    """Why an event is done with, in the words of its destination record."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"
    ZERO_RESERVED_CONCURRENCY = "ZeroReservedConcurrency"


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """What the last try of an event came to."""

    #: 200: the function was invoked; 404: it is not there; 429: throttled; 5xx: we could not.
    status: int
    executed_version: str | None = None
    #: "Unhandled" where the function failed.
    function_error: str | None = None
    #: What it returned, or its error object: JSON. None = nothing.
    payload: bytes | None = None
    #: For a dead-letter queue, and for people.
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class AsyncEvent:
    """One event on its way, without its payload."""

    #: The request id, the same in all tries: a UUID.
    id: str
    function: str
    #: Version or alias as it was invoked; None = none.
    qualifier: str | None
    #: Wall time, seconds.
    accepted_s: float
    #: Wall time of the next try, seconds.
    due_s: float
    payload_bytes: int
    #: Tries that count.
    tries: int = 0
    #: Tries in a row that did not count: throttles and our own errors.
    refusals: int = 0
    last: LastAnswer | None = None
    client_context: str | None = None
    trace_id: str | None = None
    #: The stored failure that is replayed by it; None = it is none's replay.
    replays: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """An event that is done with."""

    event: AsyncEvent
    condition: Condition
    #: approximateInvokeCount of the record.
    invoke_count: int
    #: Wall time, seconds.
    at_s: float


# --- what is kept of one


@dataclass(frozen=True, slots=True)
class PutOff:
    """An event is to be tried again: what has become of it so far."""

    event: AsyncEvent


@dataclass(frozen=True, slots=True)
class Owe:
    """An event is done with, and targets are still to be told; it stays until they have accepted."""

    settled: Settled
    #: Each by a text of its own, which says what it is and where: "on_success arn:...", "dead_letter arn:...". The
    #: first of them is told next.
    targets: tuple[str, ...]
    #: Wall time of the next delivery, seconds, and those tried so far since one was accepted.
    due_s: float
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class ForgetEvent:
    """An event is done with, and nobody is to be told."""

    id: str


#: What waits for one thing, in order of due time: ("run", function) or ("tell", target). None holds up another.
Line = tuple[Literal["run", "tell"], str]


def line_of(row: AsyncEvent | Owe) -> Line:
    """Give the line in which an event waits."""
    return ("tell", row.targets[0]) if isinstance(row, Owe) else ("run", row.function)


@dataclass(frozen=True, slots=True)
class Became:
    """What has become of an event, and the row as it was until then: it says where that is to be looked for."""

    what: PutOff | Owe | ForgetEvent
    was: AsyncEvent | Owe


def id_of(row: AsyncEvent | Owe) -> str:
    return row.settled.event.id if isinstance(row, Owe) else row.id
