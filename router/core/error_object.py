"""What a function's error looks like to who invoked it: the error object of AWS.

Recorded on AWS, where two speak: the runtime of the function (its object has the request id, empty where the function
was never run, and the trace) and what is around it, about a function that could not answer for itself. Each writes JSON
in its own way; ours is read the same.
"""

from __future__ import annotations

import json
from typing import Final

from router.core.model import FunctionError

_TIMED_OUT: Final = "Sandbox.Timedout"
_EXITED: Final = "Runtime.ExitError"
#: Errors that befall a function: their objects have neither request id nor trace.
_BEFALLEN: Final = (_TIMED_OUT, _EXITED, "Function.ResponseSizeTooLarge")


def error_object(request_id: str, error: FunctionError, *, was_run: bool) -> dict[str, object]:
    """Give the error object of an invocation; `was_run`: it is not about the initialisation of the function."""
    if error.error_type in _BEFALLEN:
        return {"errorType": error.error_type, "errorMessage": _with_request(request_id, error)}
    return {
        "errorMessage": error.message,
        "errorType": error.error_type,
        "requestId": request_id if was_run else "",
        "stackTrace": list(error.trace),
    }


def error_payload(request_id: str, error: FunctionError, *, was_run: bool) -> bytes:
    """Give the error object as JSON."""
    return json.dumps(error_object(request_id, error, was_run=was_run), ensure_ascii=False).encode()


def _with_request(request_id: str, error: FunctionError) -> str:
    """Name the request of what befell its function, as AWS does, also where it befell the initialisation."""
    message = error.message if error.aws_message is None else error.aws_message
    if error.error_type not in (_TIMED_OUT, _EXITED) or message.startswith("RequestId: "):
        return message
    return f"RequestId: {request_id} Error: {message}"
