"""What a function's log looks like where it is written as JSON: a line of `logging` is an object, and so is an error.

bootstrap.py loads this file where `AWS_LAMBDA_LOG_FORMAT` says so. Like it, this one runs in the user's interpreter and
needs CPython 3.9 or newer and the standard library. Members are those of the AWS Lambda Python runtime (the open-source
awslambdaric): absent where there is nothing to say, those of `extra` among them, and what is no JSON as its text.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from typing import TYPE_CHECKING, Any, Dict

if TYPE_CHECKING:
    from handlers import bootstrap
else:
    import __main__ as bootstrap  # the worker's main program

#: Attributes of a record that are no members.
_KNOWN = (frozenset(vars(logging.makeLogRecord({}))) | {"aws_request_id"}) - {"taskName"}
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class Form(logging.Formatter):
    """The form of a line."""

    def format(self, record: logging.LogRecord) -> str:
        level = min(50, max(0, record.levelno)) // 10 * 10
        is_object = isinstance(record.msg, dict) and not record.args
        said: Dict[str, Any] = {
            "timestamp": self.formatTime(record, _TIME),
            "level": logging.getLevelName(level),
            "message": record.msg if is_object else record.getMessage(),
            "logger": record.name,
            **_error(record),
            "requestId": getattr(record, "aws_request_id", None),
            "location": _place(record) if record.exc_info else None,
        }
        said.update((key, value) for key, value in vars(record).items() if key not in _KNOWN and key not in said)
        return _encode({key: value for key, value in said.items() if value is not None}) + "\n"


def _error(record: logging.LogRecord) -> Dict[str, Any]:
    if not record.exc_info:
        return {}
    kind, error, trace = record.exc_info
    name = None if kind is None else kind.__name__
    return {
        "stackTrace": bootstrap.format_frames(traceback.extract_tb(trace)),
        "errorType": name,
        "errorMessage": str(error),
    }


def _place(record: logging.LogRecord) -> str:
    return "{}:{}:{}".format(bootstrap.shown(record.pathname), record.funcName, record.lineno)


def error_line(described: Dict[str, Any]) -> str:
    """Give the line that tells of the error of an invocation or initialisation."""
    return _encode({"timestamp": time.strftime(_TIME, time.gmtime()), "level": "ERROR", **described})
