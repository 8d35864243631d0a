"""What the end of an invocation means for its batch.

Sources: AWS Lambda developer guide ('Reporting batch item failures' for Kinesis, DynamoDB, SQS and Kafka) and
behaviour recorded on AWS for what the guide leaves out (empty and malformed responses). The differences between
sources are data (`SourceRules`); the reading is one. A malformed report fails the whole batch: running records twice
loses nothing, taking a report for a success would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

from router.core.model import (
    NOT_JSON,
    NOT_READ,
    Batch,
    Cancelled,
    EventSourceMapping,
    Failed,
    FunctionError,
    Outcome,
    Reason,
    Refused,
    ReportStyle,
    Returned,
    SourceRules,
    TooLarge,
)

#: Error type of an invocation of a function that is not there.
NO_FUNCTION: Final = "ResourceNotFoundException"
#: Which position of the batch does an itemIdentifier name? None = none of it.
Identify = Callable[[object, Batch], int | None]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """All records are done."""

    #: The state of its tumbling window that the function returned, a JSON object; None = there are no such windows.
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class PartlyFailed:
    """Some records are done; those with these ordinals (ascending, never all of the batch) run again at once."""

    again: Sequence[int]
    #: As in `Succeeded`.
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class FailedWhole:
    """No record is done; an attempt is spent."""

    error: FunctionError
    #: `functionError` of the failure record; None when the function itself reported the failure.
    function_error: str | None
    #: Did the function answer?
    responded: bool = True
    #: Halve it whatever the mapping says: whole it can never be delivered.
    must_split: bool = False
    #: Give it up at once for this reason.
    final: Reason | None = None


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """The function never ran; no attempt is spent and nothing is split."""

    error: FunctionError

    @property
    def is_gone(self) -> bool:
        """Is there no such function?"""
        return self.error.error_type == NO_FUNCTION


@dataclass(frozen=True, slots=True)
class Stopped:
    """We ended it ourselves; as if it had not been tried."""


Verdict = Succeeded | PartlyFailed | FailedWhole | NotAccepted | Stopped

SUCCEEDED: Final = Succeeded()
STOPPED: Final = Stopped()
_MALFORMED: Final = FailedWhole(
    FunctionError("Headrace.BadBatchResponse", "The function's batchItemFailures report is malformed."), None
)
_REPORTED: Final = FailedWhole(
    FunctionError("Headrace.BatchItemFailures", "The function reported the whole batch as failed."), None
)
_NO_STATE: Final = FailedWhole(
    FunctionError(
        "Headrace.BadWindowState",
        "In a tumbling window a function returns an object whose member `state` is an object; it did not.",
    ),
    None,
)


def judge(outcome: Outcome, batch: Batch, mapping: EventSourceMapping, identify: Identify) -> Verdict:
    """Say what an outcome means for the batch."""
    match outcome:
        case Returned(body):
            return _judge_result(body, batch, mapping, identify)
        case Failed(_, error):
            return FailedWhole(error, "Unhandled")
        case Refused(error, initialising):
            counts = initialising and mapping.init_errors_count
            return FailedWhole(error, "Unhandled") if counts else NotAccepted(error)
        case TooLarge(size_bytes):
            return _judge_too_large(size_bytes, batch, mapping.rules)
        case Cancelled():
            return STOPPED
        case _:
            assert_never(outcome)


def _judge_result(body: object, batch: Batch, mapping: EventSourceMapping, identify: Identify) -> Verdict:
    if batch.window is None:
        return _judge_report(body, batch, mapping, identify)
    if batch.window.final:
        return SUCCEEDED  # whatever it returns: nothing comes after it
    state = _state_in(body)
    if state is None:
        return _NO_STATE
    verdict = _judge_report(body, batch, mapping, identify)
    return replace(verdict, state=state) if isinstance(verdict, Succeeded | PartlyFailed) else verdict


def _state_in(body: object) -> bytes | None:
    """Give the state of a tumbling window that a function returned, as compact JSON; None = none that can be kept."""
    state = body.get("state") if isinstance(body, dict) else None
    if not isinstance(state, dict):
        return None
    try:
        return json.dumps(state, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):  # no number, half a character, or nested too deeply to be read again
        return None


def _judge_too_large(size_bytes: int, batch: Batch, rules: SourceRules) -> FailedWhole:
    error = FunctionError(
        "RequestTooLargeException", f"The event has {size_bytes} bytes, more than a function may be given."
    )
    if batch.count > 1:
        return FailedWhole(error, None, responded=False, must_split=True)
    return FailedWhole(error, None, responded=False, final=Reason.SIZE if rules.too_large_is_final else None)


def _judge_report(body: object, batch: Batch, mapping: EventSourceMapping, identify: Identify) -> Verdict:
    rules = mapping.rules
    if not mapping.report_item_failures or body is NOT_READ or body is None or body in rules.empty_responses:
        return SUCCEEDED
    if body is NOT_JSON or not isinstance(body, dict):
        return _MALFORMED
    items = body.get("batchItemFailures")
    if items is None:
        return SUCCEEDED
    if not isinstance(items, list):
        return _MALFORMED
    named = _named_positions(items, batch, rules, identify)
    if named is None:
        return _MALFORMED
    return _judge_named(named, batch, rules)


def _named_positions(items: list[object], batch: Batch, rules: SourceRules, identify: Identify) -> set[int] | None:
    """Give the positions a report names; None when one entry is malformed."""
    named: set[int] = set()
    for item in items:
        if item == {} and rules.empty_item_succeeds:
            continue
        if not isinstance(item, dict) or "itemIdentifier" not in item:
            return None
        position = identify(item["itemIdentifier"], batch)
        if position is None:
            return None
        named.add(position)
    return named


def _judge_named(named: set[int], batch: Batch, rules: SourceRules) -> Verdict:
    if not named:
        return SUCCEEDED
    positions = batch.positions()
    if rules.report_style is ReportStyle.LOWEST:
        again: Sequence[int] = range(positions.index(min(named)), batch.count)
    else:
        again = [ordinal for ordinal, position in enumerate(positions) if position in named]
    return reported(again, batch)


def reported(again: Sequence[int], batch: Batch) -> Verdict:
    """Say what it means that the function reports these ordinals, at least one, as failed."""
    return _REPORTED if len(again) == batch.count else PartlyFailed(again)
