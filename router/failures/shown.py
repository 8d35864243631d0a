"""How people's tools see a stored failure: the members that the command line and the API print. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from router.core.model import FunctionError, Try
from router.failures.record import iso_ms
from router.ports import FailureEntry

#: Integers beyond this are texts, because most readers of JSON would round them.
EXACT_INTEGER: Final = 2**53


#: Where records have no positions, they go by these members of the source's part of the failure record.
_NAMES: Final = (
    ("firstMessageId", "lastMessageId"),
    ("firstObjectKey", "lastObjectKey"),
    ("startSequenceNumber", "endSequenceNumber"),
)


def to_json(entry: FailureEntry) -> dict[str, Any]:
    """Give the members of one line of `failures list`."""
    batch = entry.batch
    first, last = _positions(entry)
    return {
        "id": batch.id,
        "mapping": batch.mapping,
        "function": batch.function,
        "shard": batch.shard,
        "reason": batch.reason.value,
        "first_position": first,
        "last_position": last,
        "batch_size": batch.batch_size,
        "attempts": batch.attempts,
        "error_type": batch.error.error_type if batch.error else None,
        "error_message": batch.error.message if batch.error else None,
        "failed_at": iso_ms(batch.failed_at_s),
        "status": entry.status,
        "destination": entry.destination,
        "parent": batch.parent,
        "delivery": _delivery(entry),
    }


def _delivery(entry: FailureEntry) -> dict[str, Any] | None:
    """Say how far a failure is on its way to its destination; None = it has none."""
    if entry.destination is None:
        return None
    waits = entry.awaits_delivery
    return {
        "state": "accepted" if entry.is_accepted else "waiting" if waits else "not_needed",
        "tries": entry.deliveries,
        "last_error": entry.delivery_error,
        "next_try": iso_ms(entry.next_delivery_s) if waits and entry.deliveries else None,
    }


def to_json_whole(entry: FailureEntry, event: bytes | None) -> dict[str, Any]:
    """Give what `failures show` prints: also the event (null once dropped) and every try."""
    return {
        **to_json(entry),
        "event": None if event is None else msgspec.json.decode(event),
        "tries": [_try(each) for each in entry.batch.tries],
    }


def _try(tried: Try) -> dict[str, Any]:
    return {
        "when": iso_ms(tried.at_s),
        "request_id": tried.request_id,
        "records": tried.records,
        "error": _error(tried.error),
    }


def _error(error: FunctionError) -> dict[str, Any]:
    return {"type": error.error_type, "message": error.message, "trace": list(error.trace)}


def _positions(entry: FailureEntry) -> tuple[int | str | None, int | str | None]:
    if entry.batch.window and entry.batch.window.final:
        return None, None  # it has no records
    for info in entry.batch_info.values():
        for first, last in _NAMES:
            if isinstance(info, Mapping) and first in info and last in info:
                return str(info[first]), str(info[last])
    return shown_position(entry.batch.first_position), shown_position(entry.batch.last_position)


def shown_position(position: int) -> int | str:
    """Give a position as it is shown where nobody knows better: a text where most readers of JSON would round it."""
    return position if abs(position) <= EXACT_INTEGER else str(position)
