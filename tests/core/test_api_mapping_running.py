"""The state that is told of a mapping, by what was asked for last and how far what runs is."""

import pytest

from router.api.mapping_running import NO_RECORDS, Stage, state
from router.catalogue.records import Mapping


@pytest.mark.parametrize(
    ("enabled", "passing", "stage", "told"),
    [
        (True, "Creating", Stage.GONE, "Creating"),
        (True, "Creating", Stage.OPENING, "Creating"),
        (True, "Creating", Stage.OPEN, "Enabled"),
        (True, "Updating", Stage.LEAVING, "Updating"),
        # Nothing was asked for since it had settled, or since this daemon began.
        (True, None, Stage.OPENING, "Enabled"),
        (True, None, Stage.GONE, "Enabled"),
        (False, "Disabling", Stage.LEAVING, "Disabling"),
        (False, "Updating", Stage.LEAVING, "Updating"),
        (False, None, Stage.LEAVING, "Disabling"),
        (False, "Disabling", Stage.GONE, "Disabled"),
        (False, None, Stage.GONE, "Disabled"),
    ],
)
def test_a_state_passes_until_what_runs_has_come_there(
    enabled: bool,  # noqa: FBT001 - a fact of the table
    passing: str | None,
    stage: Stage,
    told: str,
) -> None:
    record = Mapping(uuid="u", function="f", properties={}, name="u", enabled=enabled)
    assert state(record, passing, stage) == told


@pytest.mark.parametrize("stage", Stage)
def test_one_that_was_told_to_leave_is_being_deleted(stage: Stage) -> None:
    record = Mapping(uuid="u", function="f", properties={}, name="u", is_leaving=True)
    assert state(record, "Updating", stage) == "Deleting"


def test_one_that_has_read_nothing_says_so_in_the_words_of_aws() -> None:
    assert NO_RECORDS == "No records processed"
