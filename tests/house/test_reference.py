"""What is listed in telemetry is what there is, and what the docs list."""

import pytest

from router.api.carried import carried
from router.api.operations import OPERATIONS
from router.core.model import Reason
from router.telemetry import DISCARDS, METRICS, Metrics
from tests.fakes.api import ApiSite
from tests.house.regenerate import DOCS, GENERATED


@pytest.mark.parametrize("page", GENERATED)
def test_the_docs_say_what_the_code_says(page):
    """If this fails: `make reference`."""
    heading, make = GENERATED[page]
    text = (DOCS / page).read_text()
    assert text[text.index(heading) :] == make()


def test_the_operations_that_are_listed_are_carried_out():
    assert carried(ApiSite().parts).keys() == {each.name for each in OPERATIONS}


def test_what_is_listed_is_what_is_collected():
    collected = {family.name: (family.type, family.documentation) for family in Metrics().registry.collect()}
    assert collected.keys() == METRICS.keys()
    for name, measure in METRICS.items():
        assert collected[name][0] == measure.kind
        assert collected[name][1] == measure.text or name.startswith("process_")


def test_every_reason_of_giving_up_is_listed():
    assert DISCARDS.keys() == {reason.value for reason in Reason}
