"""What a try of an asynchronous event came to, as its record tells it: outcomes as answers. Pure.

An initialisation that fails is an answer of the function's, as on AWS, and spends a try. A function that is found but
cannot be run yet, for its code is still fetched or cannot be, is no fault of its own, nor is an error of the server
behind which it runs; one that is gone is seen before it is tried (`async_rules.before`).
"""

from __future__ import annotations

from typing import Final

from router import functions
from router.core.async_rules import SUCCEEDED, THROTTLED, UNAVAILABLE
from router.core.asynchronous import LastAnswer
from router.core.error_object import error_payload
from router.core.model import NOT_ACCEPTED, Cancelled, Failed, FunctionError, Outcome, Refused, Returned, TooLarge

_UNHANDLED: Final = "Unhandled"
_NO_CODE: Final = "its code is not here yet, or it has just been deleted; see `function.code_missing` in the log"


def answer_of(outcome: Outcome, request_id: str, version: str) -> LastAnswer | None:
    """Give the answer; None = as if it had not been tried."""
    match outcome:
        case Returned(body=body):
            return LastAnswer(SUCCEEDED, version, None, body if isinstance(body, bytes) else None)
        case Failed(error=error):
            return _failed(error, request_id, version, was_run=True)
        case Refused(error, initialising):
            is_its_own = initialising and error.error_type != NOT_ACCEPTED
            return _failed(error, request_id, version, was_run=False) if is_its_own else _refused(error)
        case TooLarge(size_bytes):
            error = FunctionError("RequestEntityTooLargeException", f"the event is too large: {size_bytes} bytes")
            return _failed(error, request_id, version, was_run=False)
        case Cancelled():
            return None


def _failed(error: FunctionError, request_id: str, version: str, *, was_run: bool) -> LastAnswer:
    payload = error_payload(request_id, error, was_run=was_run)
    return LastAnswer(SUCCEEDED, version, _UNHANDLED, payload, error.message)


def _refused(error: FunctionError) -> LastAnswer:
    if error.error_type == functions.NOT_FOUND:
        return LastAnswer(UNAVAILABLE, error_message=_NO_CODE)
    if error.error_type == functions.THROTTLED:
        return LastAnswer(THROTTLED)
    return LastAnswer(UNAVAILABLE, error_message=error.message)
