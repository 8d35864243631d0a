"""Asynchronous events that have failed for good, as failed batches: so all that is there for those is there for them.

Each is a batch of one, of the mapping `async:FUNCTION` (no mapping of a file or of the API can have that name) and the
shard that was invoked: a version, an alias or `$LATEST`. Its id follows from the event's, so that what is kept twice is
one entry. Pure.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from router.asynchronous.record import error_text
from router.catalogue.records import LATEST
from router.core.asynchronous import Condition, LastAnswer, Settled
from router.core.model import FailedBatch, FunctionError, Reason, Try
from router.ports import FailureEntry

#: What the name of a function's mapping begins with.
MAPPING: Final = "async:"
#: The part of an entry that is of asynchronous events alone.
INFO: Final = "AsyncEventInfo"
#: Status of a failure that needs no delivery any more.
SETTLED: Final = ("dropped", "replayed", "failed_again")

_REASONS: Final = {
    Condition.RETRIES_EXHAUSTED: Reason.RETRIES,
    Condition.EVENT_AGE_EXCEEDED: Reason.EVENT_AGE,
    Condition.ZERO_RESERVED_CONCURRENCY: Reason.ZERO_CONCURRENCY,
}
#: Status of what never ran -> type of its error, as Lambda's API has it.
_TYPES: Final = {404: "ResourceNotFoundException", 429: "TooManyRequestsException"}
_RAN: Final = 200


class _ErrorObject(msgspec.Struct, rename="camel"):
    error_type: str = "Unhandled"
    error_message: str = ""
    stack_trace: list[Any] = []


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What else an event was invoked with, so that it can be again."""

    qualifier: str | None = None
    client_context: str | None = None
    trace_id: str | None = None


def failure_id(settled: Settled) -> str:
    """Give the id under which a failed event is kept."""
    identity = f"{MAPPING}{settled.event.function}\0{settled.event.id}"
    return hashlib.sha256(identity.encode()).hexdigest()[:20]


def function_of(mapping: str) -> str | None:
    """Name the function whose failed events a mapping is; None = it is a mapping of records."""
    return mapping.removeprefix(MAPPING) if mapping.startswith(MAPPING) else None


def failed_event(settled: Settled, arn: str) -> FailedBatch:
    """Make the failed batch of an event that did not succeed; `arn` is what was invoked, with its qualifier."""
    event = settled.event
    error = _error(settled, arn)
    ran = event.last is not None and event.last.status == _RAN
    accepted_ms = round(event.accepted_s * 1000)
    return FailedBatch(
        id=failure_id(settled),
        mapping=f"{MAPPING}{event.function}",
        function=event.function,
        shard=event.qualifier or LATEST,
        reason=_REASONS[settled.condition],
        first_position=0,
        last_position=0,
        batch_size=1,
        attempts=settled.invoke_count,
        request_id=event.id,
        error=error,
        responded=ran,
        function_error=event.last.function_error if event.last else None,
        first_time_ms=accepted_ms,
        last_time_ms=accepted_ms,
        failed_at_s=settled.at_s,
        tries=(Try(settled.at_s, event.id, 1, error),),
        parent=event.replays,
    )


def entry_of(settled: Settled, arn: str, destination: str | None, event_bytes: int) -> FailureEntry:
    """Make the entry of an event that did not succeed; `destination` says for people where it goes."""
    event = settled.event
    origin = Origin(event.qualifier, event.client_context, event.trace_id)
    info = {"firstMessageId": event.id, "lastMessageId": event.id, **msgspec.to_builtins(origin)}
    return FailureEntry(failed_event(settled, arn), "stored", destination, {INFO: info}, (), event_bytes)


def origin_of(entry: FailureEntry) -> Origin:
    """Say what a failed event was invoked with."""
    return msgspec.convert(entry.batch_info.get(INFO, {}), Origin)


def _error(settled: Settled, arn: str) -> FunctionError:
    last = settled.event.last
    text = error_text(settled, arn)
    if last is None or settled.condition is Condition.ZERO_RESERVED_CONCURRENCY:
        return FunctionError(settled.condition.value, text or "it was not tried before it was too old")
    if last.status != _RAN:
        return FunctionError(_TYPES.get(last.status, "ServiceException"), text)
    return _of_function(last)


def _of_function(last: LastAnswer) -> FunctionError:
    try:
        read = msgspec.json.decode(last.payload or b"", type=_ErrorObject)
    except (msgspec.DecodeError, RecursionError):
        return FunctionError(last.function_error or "Unhandled", last.error_message or "")
    return FunctionError(read.error_type, read.error_message, tuple(map(str, read.stack_trace)))
