"""Error objects, logs and waits as others word them."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.function_answer import emulated_error, failed, log_tail, result, retry_after_s
from router.core.model import Failed, FailureKind, FunctionError, Refused, Returned

OTHERWISE = FunctionError("Unhandled", "what came")
PYTHON = {
    "errorMessage": "'total'",
    "errorType": "KeyError",
    "requestId": "r",
    "stackTrace": ['  File "a.py", line 1, in h\n'],
}
NODE = {"errorType": "TypeError", "errorMessage": "x is not a function", "trace": ["TypeError: x", "    at h"]}


@pytest.mark.parametrize(
    ("described", "kind", "error"),
    [
        (PYTHON, FailureKind.RAISED, FunctionError("KeyError", "'total'", ('  File "a.py", line 1, in h\n',))),
        (
            NODE,
            FailureKind.RAISED,
            FunctionError("TypeError", "x is not a function", ("TypeError: x", "    at h")),
        ),
        (
            {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: r Error: Task timed out after 1.00 seconds"},
            FailureKind.TIMED_OUT,
            FunctionError("Sandbox.Timedout", "RequestId: r Error: Task timed out after 1.00 seconds"),
        ),
        (
            {"errorMessage": "2024-05-01T00:00:00Z r Task timed out after 3.00 seconds"},
            FailureKind.TIMED_OUT,
            FunctionError("Sandbox.Timedout", "2024-05-01T00:00:00Z r Task timed out after 3.00 seconds"),
        ),
        (
            {"errorType": "Runtime.ExitError", "errorMessage": "RequestId: r Error: Runtime exited"},
            FailureKind.CRASHED,
            FunctionError("Runtime.ExitError", "RequestId: r Error: Runtime exited"),
        ),
        ({"errorMessage": None}, FailureKind.RAISED, FunctionError("Unhandled", "None")),
        ({"errorMessage": "m", "stackTrace": "text"}, FailureKind.RAISED, FunctionError("Unhandled", "m")),
        ({"message": "no error object"}, FailureKind.RAISED, OTHERWISE),
        ([], FailureKind.RAISED, OTHERWISE),
    ],
)
def test_an_error_object_is_read_as_each_runtime_writes_it(described, kind, error) -> None:
    assert failed(json.dumps(described).encode(), OTHERWISE) == Failed(kind, error)


def test_a_function_that_could_not_initialise_was_not_run() -> None:
    described = {**PYTHON, "errorType": "Runtime.ImportModuleError", "requestId": ""}
    outcome = failed(json.dumps(described).encode(), OTHERWISE)
    assert isinstance(outcome, Refused)
    assert (outcome.initialising, outcome.error.error_type) == (True, "Runtime.ImportModuleError")


def test_what_an_error_says_is_kept_within_bounds() -> None:
    described = {"errorMessage": "x" * 10**6, "errorType": "E" * 10**4, "stackTrace": ["y" * 10**5] * 1000}
    outcome = failed(json.dumps(described).encode(), OTHERWISE)
    assert isinstance(outcome, Failed)
    kept = outcome.error
    assert (len(kept.message), len(kept.error_type), len(kept.trace), len(kept.trace[0])) == (32768, 300, 200, 2000)


@given(st.binary(max_size=200))
def test_garbage_is_no_error_object(body: bytes) -> None:
    assert isinstance(failed(body, OTHERWISE), Failed | Refused)
    assert emulated_error(body) is None or b"rror" in body
    assert result(body) == Returned(body)


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (json.dumps(PYTHON), "KeyError"),
        (json.dumps(NODE), "TypeError"),
        ("Task timed out after 3.00 seconds", "Sandbox.Timedout"),
        (json.dumps({**PYTHON, "batchItemFailures": []}), None),
        (json.dumps({"errorMessage": "of a record"}), None),
        ('"Task timed out after 3.00 seconds"', None),
        ("null", None),
    ],
)
def test_an_error_that_looks_like_a_result_is_told_from_one(body, error_type) -> None:
    outcome = emulated_error(body.encode())
    assert (outcome and outcome.error.error_type) == error_type


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("9" * 400, 999999999.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 99 Foo 1970 00:00:00 GMT", 0.0),
    ],
)
def test_a_wait_is_seconds_or_a_date(text, wait_s) -> None:
    assert retry_after_s(text, 1000.0) == wait_s


@given(st.text(max_size=40))
def test_a_wait_that_makes_no_sense_is_none(text: str) -> None:
    assert retry_after_s(text, 1000.0) >= 0.0


def test_the_end_of_a_log_ends_with_a_line_and_garbage_is_none() -> None:
    assert log_tail(base64.b64encode("é".encode()).decode()) == "é\n"
    assert log_tail(base64.b64encode(b"a\xff\n").decode()) == "a\ufffd\n"
    assert [log_tail(garbage) for garbage in ("", "no base64!", "YQ")] == ["", "", ""]
