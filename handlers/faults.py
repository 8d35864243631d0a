"""The errors that the platform reports when a function could not answer for itself, in Lambda's own words.

Recorded on AWS; the names of signals are those of the Go runtime, which Lambda's own supervisor prints.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Final

import orjson

from router.core.model import FunctionError

TIMED_OUT: Final = "Sandbox.Timedout"
EXITED: Final = "Runtime.ExitError"
NOT_STARTED: Final = "Runtime.StartError"


def timed_out(request_id: str, timeout_s: float) -> FunctionError:
    return FunctionError(TIMED_OUT, f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds")


def blocked(timeout_s: float) -> FunctionError:
    """Describe a timeout for which nobody can be blamed."""
    return FunctionError(TIMED_OUT, f"Task timed out after {timeout_s:.2f} seconds: something blocked the event loop")


def init_timed_out(limit_s: float, *, is_restored: bool = False) -> FunctionError:
    """Describe an import, or the hooks of a worker that was forked after it, that do not end."""
    what = "an after-restore hook hangs" if is_restored else "importing the module hangs"
    return FunctionError(TIMED_OUT, f"Initialisation timed out after {limit_s:.2f} seconds: {what}")


def not_set_up(function: str, error: OSError) -> FunctionError:
    return FunctionError(NOT_STARTED, f"cannot set up a worker of function {function}: {error}")


def not_forking(limit_s: float) -> FunctionError:
    return FunctionError(NOT_STARTED, f"The process that forks workers did not answer for {limit_s:.2f} seconds")


def exited(request_id: str, status: int | None, note: str = "") -> FunctionError:
    """Describe the end of a worker process by its return code (negative: a signal; None: not known).

    An empty request id here and below: there is none, or several and nobody knows which is to blame.
    """
    if status is None or status == 0:
        reason = "Runtime exited without providing a reason"
    elif status < 0:
        name = signal.strsignal(-status) or f"signal {-status}"
        reason = f"Runtime exited with error: signal: {name.lower()}"
    else:
        reason = f"Runtime exited with error: exit status {status}"
    prefix = f"RequestId: {request_id} Error: " if request_id else ""
    return FunctionError(EXITED, f"{prefix}{reason}{note}", aws_message=f"{prefix}{reason}" if note else None)


def over_memory(request_id: str, limit_bytes: int, used_bytes: int | None) -> FunctionError:
    limit_mb = limit_bytes // (1024 * 1024)
    used = f", used {used_bytes // (1024 * 1024)} MB" if used_bytes else ""
    note = f" (memory limit exceeded: memory_size is {limit_mb} MB{used})"
    return exited(request_id, -signal.SIGKILL, note)


def unreadable(request_id: str) -> FunctionError:
    prefix = f"RequestId: {request_id} Error: " if request_id else ""
    return FunctionError(EXITED, f"{prefix}Runtime sent an answer that cannot be read")


def reported(body: bytes) -> FunctionError:
    """Read the error object that a worker sent.

    Raises:
        ValueError: it is none.
    """
    try:
        error = orjson.loads(body)
        return FunctionError(error["errorType"], error["errorMessage"], tuple(error["stackTrace"]))
    except (KeyError, TypeError) as missing:
        raise ValueError("not an error object") from missing


def with_last_line(error: FunctionError, printed: str) -> FunctionError:
    """Add the last line that a process printed before it ended without a word to us."""
    last = printed.rstrip().rpartition("\n")[2][:300]
    if not last:
        return error
    aws_message = error.message if error.aws_message is None else error.aws_message
    return replace(error, message=f"{error.message} (last output: {last})", aws_message=aws_message)
