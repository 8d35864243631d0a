"""What a function that runs elsewhere answers, as an outcome: pure, no I/O.

Sources: AWS Lambda API reference, Invoke, and error objects recorded on AWS.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from router.core.model import NOT_ACCEPTED, Failed, FailureKind, FunctionError, Refused, Returned

#: Largest result (the number in Lambda's own message), and largest answer that is read: chunks bring some of their own.
RESULT_LIMIT_BYTES: Final = 6291556
READ_LIMIT_BYTES: Final = 8 * 1024 * 1024

#: Error type of an answer that is none.
BAD_ANSWER: Final = "Headrace.BadAnswer"
TIMED_OUT: Final = "Sandbox.Timedout"

#: Parts of an error that are kept: a function may say anything.
_MESSAGE_CHARS: Final = 32 * 1024
_TRACE_LINES: Final = 200
_TRACE_LINE_CHARS: Final = 2000
_WORDS_CHARS: Final = 300
#: Far more than that, so that no secret is cut in two before it is hidden.
_WORDS_LOOKED_AT_BYTES: Final = 64 * 1024

#: Error types of the platform that are no exception of the function.
_KINDS: Final = {
    TIMED_OUT: FailureKind.TIMED_OUT,
    "Runtime.ExitError": FailureKind.CRASHED,
    "Runtime.MarshalError": FailureKind.BAD_RESPONSE,
    "Function.ResponseSizeTooLarge": FailureKind.BAD_RESPONSE,
}
#: An older form of a timeout, without a type.
_TIMED_OUT_TEXT: Final = re.compile(r"Task timed out after \d+\.\d\d seconds")


def result(body: bytes) -> Returned | Failed:
    """Take a body for the result, unless it is too large for one."""
    return Returned(body) if len(body) <= RESULT_LIMIT_BYTES else too_large()


def too_large() -> Failed:
    message = f"Response payload size exceeded maximum allowed payload size ({RESULT_LIMIT_BYTES} bytes)."
    return Failed(FailureKind.BAD_RESPONSE, FunctionError("Function.ResponseSizeTooLarge", message))


def failed(body: bytes, otherwise: FunctionError) -> Failed | Refused:
    """Read an error object; a body that is none is the `otherwise`.

    A function that could not initialise was not run: Lambda gives its error an empty request id.
    """
    described = _object(body)
    if described is None or "errorMessage" not in described:
        return _failed(otherwise)
    message = str(described["errorMessage"])[:_MESSAGE_CHARS]
    untyped = TIMED_OUT if _TIMED_OUT_TEXT.search(message) else otherwise.error_type
    error = FunctionError(str(described.get("errorType") or untyped)[:_WORDS_CHARS], message, _trace(described))
    return Refused(error, initialising=True) if described.get("requestId") == "" else _failed(error)


def emulated_error(body: bytes) -> Failed | Refused | None:
    """Find the error in what Lambda's interface emulator answers like a result; None = it is a result.

    It has no header for errors, and gives the error object, or the text of a timeout, with status 200.
    """
    described = _object(body)
    if described is not None and {"errorMessage", "errorType"} <= described.keys() <= _ERROR_MEMBERS:
        return failed(body, FunctionError("Unhandled", ""))
    text = words(body)
    return _failed(FunctionError(TIMED_OUT, text)) if _TIMED_OUT_TEXT.fullmatch(text) else None


_ERROR_MEMBERS: Final = {"errorMessage", "errorType", "requestId", "stackTrace", "trace", "cause"}


def timed_out(request_id: str, timeout_s: float) -> Failed:
    message = f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds"
    return _failed(FunctionError(TIMED_OUT, f"{message}: it did not answer, and may still run"))


def refused(message: str, error_type: str = NOT_ACCEPTED, *, initialising: bool = False) -> Refused:
    return Refused(FunctionError(error_type, message), initialising=initialising)


def bad_answer(message: str) -> Failed:
    return Failed(FailureKind.BAD_RESPONSE, FunctionError(BAD_ANSWER, message))


def log_tail(header: str) -> str:
    """Read the end of a log as Lambda gives it; nothing where it is none."""
    try:
        text = base64.b64decode(header, validate=True).decode(errors="replace")
    except binascii.Error:
        return ""
    return text if text.endswith("\n") or not text else f"{text}\n"


def retry_after_s(text: str, now_s: float) -> float:
    """Read a Retry-After: seconds, or a date (RFC 9110, 10.2.3); 0 where it is none. `now_s` is the wall time."""
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0


def words(body: bytes, hidden: Iterable[str] = ()) -> str:
    """Give the beginning of what somebody says, on one line, without what is hidden: it may repeat what it was sent."""
    text = body[:_WORDS_LOOKED_AT_BYTES].decode(errors="replace")
    for secret in hidden:
        text = text.replace(secret, "***")
    return " ".join(text.split())[:_WORDS_CHARS]


def _failed(error: FunctionError) -> Failed:
    return Failed(_KINDS.get(error.error_type, FailureKind.RAISED), error)


def _object(body: bytes) -> dict[str, Any] | None:
    if body.lstrip()[:1] != b"{":
        return None
    try:
        described = orjson.loads(body)
    except ValueError:
        return None
    return described if isinstance(described, dict) else None


def _trace(described: dict[str, Any]) -> tuple[str, ...]:
    """Give the trace as lines: a list of texts, of Python and Java, and as `trace` of Node."""
    lines = described.get("stackTrace") or described.get("trace") or ()
    if not isinstance(lines, Sequence) or isinstance(lines, str):
        return ()
    return tuple(str(line)[:_TRACE_LINE_CHARS] for line in lines[:_TRACE_LINES])
