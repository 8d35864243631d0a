"""The last result of a mapping, in AWS's words: what the function has answered, whatever it reported of records."""

from __future__ import annotations

from typing import Any

import pytest

from router.core.model import Failed, FailureKind, FunctionError, Outcome, Returned
from tests.sim.test_seeking_shards import Machine
from tests.sim.virtual_time import in_virtual_time

ALL_FAILED = {"batchItemFailures": [{"itemIdentifier": ""}]}


class Answering(Machine):
    """A machine whose function answers all calls alike."""

    def __init__(self, outcome: Outcome, **rules: Any) -> None:
        super().__init__(**rules)
        self.outcome = outcome

    def _run(self, _: str, event: bytes) -> tuple[float, Outcome]:
        super()._run(_, event)
        return self.takes_s, self.outcome


@pytest.mark.parametrize(
    ("outcome", "last_result"),
    [
        (Returned(), "OK"),
        (Returned(ALL_FAILED), "OK"),
        (Failed(FailureKind.RAISED, FunctionError("ValueError", "poison")), "PROBLEM: Function call failed"),
    ],
)
@in_virtual_time
async def test_it_is_ok_when_the_function_has_returned(outcome: Outcome, last_result: str) -> None:
    machine = Answering(outcome, report_item_failures=True)
    async with machine.running():
        await machine.until(lambda: machine.life.runner)
        assert machine.life.runner is not None
        assert machine.life.runner.last_result == "No records processed"
        machine.put(1)
        await machine.until(lambda: len(machine.seen) > 1 or (machine.seen and outcome == Returned()))
        await machine.until(lambda: machine.life.runner and machine.life.runner.last_result == last_result)
