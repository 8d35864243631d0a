"""What may be run again when a run of all tests failed, and what that has to show."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.again import TIMES, judge, refusal

LIVE = "tests/live/test_demo.py::test_it_runs"
WORKER = "tests/handlers/test_worker.py::test_it_starts[fork]"


@pytest.mark.parametrize("failed", [[LIVE], [LIVE, WORKER], ["tests/conformance/test_source.py::test_it_reads"]])
def test_few_tests_among_processes_are_judged_anew(failed: list[str]) -> None:
    assert refusal(failed) is None


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        ([], "did not end"),
        ([LIVE, WORKER, LIVE + "[2]"], "3 tests failed"),
        (["tests/core/test_bisect.py::test_halves"], "a second run would change nothing"),
        ([LIVE, "tests/sim/test_runner.py::test_order"], "tests/sim/test_runner.py::test_order depends on no server"),
    ],
)
def test_others_are_not(failed: list[str], reason: str) -> None:
    assert reason in str(refusal(failed))


@pytest.mark.parametrize(("statuses", "end"), [([0] * TIMES, 0), ([1], 1), ([0, 2], 2), ([0] * (TIMES - 1) + [1], 1)])
def test_each_of_them_has_to_pass_each_time(statuses: list[int], end: int) -> None:
    left = list(statuses)

    def run(failed: Sequence[str]) -> int:
        assert failed == [LIVE]
        return left.pop(0)

    assert judge([LIVE], run) == end
    assert not left
