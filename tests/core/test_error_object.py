"""The error object of an invocation, as recorded on AWS."""

from __future__ import annotations

import json
import signal

import pytest

from handlers import faults
from router.core.error_object import error_object, error_payload
from router.core.model import FunctionError

ID = "52fdfc07-2182-454f-963f-5f0f9a621d72"


def test_an_exception_has_its_request_and_its_trace() -> None:
    error = FunctionError("ValueError", "“no”", ('  File "/var/task/app.py", line 2, in handle\n    raise\n',))
    assert json.loads(error_payload(ID, error, was_run=True)) == {
        "errorMessage": "“no”",
        "errorType": "ValueError",
        "requestId": ID,
        "stackTrace": ['  File "/var/task/app.py", line 2, in handle\n    raise\n'],
    }


def test_an_error_of_the_initialisation_has_no_request() -> None:
    error = FunctionError("Runtime.ImportModuleError", "Unable to import module 'app': No module named 'app'")
    described = error_object(ID, error, was_run=False)
    assert (described["requestId"], described["stackTrace"]) == ("", [])


@pytest.mark.parametrize(
    ("error", "was_run", "message"),
    [
        (faults.timed_out(ID, 1.0), True, f"RequestId: {ID} Error: Task timed out after 1.00 seconds"),
        (faults.exited(ID, 0), True, f"RequestId: {ID} Error: Runtime exited without providing a reason"),
        (faults.exited(ID, 127), True, f"RequestId: {ID} Error: Runtime exited with error: exit status 127"),
        (
            faults.exited(ID, -signal.SIGSEGV),
            True,
            f"RequestId: {ID} Error: Runtime exited with error: signal: segmentation fault",
        ),
        (
            faults.over_memory(ID, 128 << 20, 200 << 20),
            True,
            f"RequestId: {ID} Error: Runtime exited with error: signal: killed",
        ),
        (
            faults.with_last_line(faults.exited("", 1), "why\n"),
            False,
            f"RequestId: {ID} Error: Runtime exited with error: exit status 1",
        ),
        (
            FunctionError(
                "Function.ResponseSizeTooLarge",
                "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
            ),
            True,
            "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        ),
    ],
)
def test_what_befalls_a_function_has_type_and_message_alone(
    error: FunctionError, was_run: object, message: str
) -> None:
    assert error_object(ID, error, was_run=bool(was_run)) == {"errorType": error.error_type, "errorMessage": message}
