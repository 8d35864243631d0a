"""What destinations and dead-letter queues are told of an asynchronous event: pure, shaped as AWS Lambda shapes it.

Members, their order and which of them are absent are those recorded on AWS. Everything comes from how the event has
ended, also the time, so that a record that is sent twice is the same text twice; and payloads stand in it as they came,
byte for byte.

Where AWS leaves no trace of its choice: a result that is no JSON is left out, and `deliveryError` says so at the end of
the record; an error without text has no ErrorMessage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from router.catalogue.records import LATEST
from router.core.asynchronous import Condition, LastAnswer, Settled
from router.core.literal import refuse_constant
from router.event_ports import TargetMessage
from router.failures.record import iso_ms

#: Longest ErrorMessage, bytes.
ERROR_MESSAGE_BYTES: Final = 1024
#: What the handler of an invocation without a payload is given.
_NO_PAYLOAD: Final = b"{}"
_NOT_FOUND: Final = 404
_THROTTLED: Final = 429
#: AWS's own words, as they are.
_ZERO_CONCURRENCY: Final = "Function not invoked. Function isconfigured with zero reserved concurrent executions"
_RATE_EXCEEDED: Final = "Rate Exceeded."
_NOT_JSON: Final = {"statusCode": 400, "errorCode": "InvalidRequestContentException"}


def invoked_arn(function_arn: str, qualifier: str | None) -> str:
    """Give the ARN of a function as records name it: always with what was invoked of it."""
    return f"{function_arn}:{qualifier or LATEST}"


def destination_message(settled: Settled, payload: bytes, function_arn: str) -> TargetMessage:
    """Make what a destination is given.

    Args:
        settled: the event, and how it ended.
        payload: the event itself; JSON, or empty.
        function_arn: of its function, without qualifier.
    """
    arn = invoked_arn(function_arn, settled.event.qualifier)
    envelope = _envelope(settled, arn)
    return TargetMessage(
        settled.event.id,
        _encode({**envelope, **_request(payload), **_context(settled), **_response(settled)}),
        small=_encode({**envelope, **_context(settled)}),
        detail_type=f"Lambda Function Invocation Result - {'Success' if _is_success(settled) else 'Failure'}",
        function_arn=arn,
        function=settled.event.function,
        at_s=settled.at_s,
    )


def dead_letter_message(settled: Settled, payload: bytes, function_arn: str) -> TargetMessage:
    """Make what a dead-letter queue is given: the event itself, and why it is there. There is no smaller form."""
    arn = invoked_arn(function_arn, settled.event.qualifier)
    return TargetMessage(
        settled.event.id,
        payload or _NO_PAYLOAD,
        attributes=_dead_letter_attributes(settled, arn),
        function_arn=arn,
        function=settled.event.function,
        at_s=settled.at_s,
    )


def error_text(settled: Settled, arn: str) -> str:
    """Say in AWS's words why an event has failed; empty = nothing is known.

    Args:
        settled: the event.
        arn: the function as it was invoked, with its qualifier.
    """
    if settled.condition is Condition.ZERO_RESERVED_CONCURRENCY:
        return _ZERO_CONCURRENCY
    last = settled.event.last
    if last is None:
        return ""
    if last.status == _THROTTLED:
        return _RATE_EXCEEDED
    return f"Function not found: {arn}" if last.status == _NOT_FOUND else last.error_message or ""


def _dead_letter_attributes(settled: Settled, arn: str) -> Mapping[str, tuple[str, str]]:
    last = settled.event.last
    has_code = last and settled.condition is not Condition.ZERO_RESERVED_CONCURRENCY
    text = _cut(error_text(settled, arn))
    return {
        "RequestID": ("String", settled.event.id),
        **({"ErrorCode": ("Number", str(last.status))} if last and has_code else {}),
        **({"ErrorMessage": ("String", text)} if text else {}),
    }


def _cut(text: str) -> str:
    """Give the first bytes of a text; what is left of a character that was cut is replaced."""
    return text.encode(errors="replace")[:ERROR_MESSAGE_BYTES].decode(errors="replace")


def _is_success(settled: Settled) -> bool:
    return settled.condition is Condition.SUCCESS


def _envelope(settled: Settled, arn: str) -> dict[str, Any]:
    return {
        "version": "1.0",
        "timestamp": iso_ms(settled.at_s),
        "requestContext": {
            "requestId": settled.event.id,
            "functionArn": arn,
            "condition": settled.condition.value,
            "approximateInvokeCount": settled.invoke_count,
        },
    }


def _request(payload: bytes) -> dict[str, Any]:
    return {"requestPayload": msgspec.Raw(payload or _NO_PAYLOAD)}


def _context(settled: Settled) -> dict[str, Any]:
    """Say what the last try came to; an event that was never tried, and never to be, has nothing to say."""
    last = _answer(settled)
    if last is None:
        return {}
    context: dict[str, Any] = {"statusCode": last.status}
    if last.executed_version is not None:
        context["executedVersion"] = last.executed_version
    if last.function_error is not None:
        context["functionError"] = last.function_error
    return {"responseContext": context}


def _response(settled: Settled) -> dict[str, Any]:
    last = _answer(settled)
    if last is None or not last.payload:
        return {}
    if not is_json(last.payload):
        return {"deliveryError": _NOT_JSON}
    return {"responsePayload": msgspec.Raw(last.payload)}


def _answer(settled: Settled) -> LastAnswer | None:
    return None if settled.condition is Condition.ZERO_RESERVED_CONCURRENCY else settled.event.last


def is_json(text: bytes) -> bool:
    """Say whether something can stand in a record; what is nested too deep for its readers cannot."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
        text.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _is_json_to_others(text)
    return True


def _is_json_to_others(text: bytes) -> bool:
    """Ask the standard library, which lets half a character stand as an escape, as JSON does."""
    try:
        json.loads(text.decode(), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


_encode: Final = msgspec.json.encode
