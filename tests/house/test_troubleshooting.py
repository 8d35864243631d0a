"""The page of errors has every error, every mistake, code and event, and nothing that is not said any more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from router.telemetry import EVENTS, REASONS
from tests.house.messages import HOLE, error_types, errors, mistakes

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
#: Not errors: what checks find in order, SQL, and what is only said inside of another message.
SAID_OTHERWISE = re.compile(
    r"^(may be invoked|takes connections|topic …: … partitions|queue …: messages waiting|…; bucket …: …|…; … makes it"
    r"|table …: …; open shards|; streams: …, each read"
    r"|; if its topic sends on|not an error object|… is no JSON value|state in …: … \(…\)"
    r"|PRAGMA|BEGIN|…: needs an object of fields|… \(see `)"
)


def texts(section: str | None = None) -> list[str]:
    """Give what stands in backticks in the first column, of one section or of all."""
    parts = dict(re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    rows = [line for name in [section] * bool(section) or parts for line in parts[name].splitlines()]
    cells = [row.split(" | ")[0] for row in rows if row.startswith("| `")]
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]


def tells(entry: str, message: str) -> bool:
    """Does an entry's text stand in a message? What differs may be anything."""
    return re.search(".*".join(re.escape(part) for part in entry.strip(f" {HOLE}").split(HOLE)), message) is not None


SAID = errors() | mistakes()
ERROR_TYPES = error_types()


def test_every_error_is_on_the_page() -> None:
    entries = texts()
    lacking = [
        f"{name}: {text}"
        for text, name in SAID.items()
        if not SAID_OTHERWISE.match(text) and not any(tells(each, text) for each in entries)
    ]
    if lacking:
        pytest.fail("\n".join([f"rows that {PAGE.name} lacks (fixed words in backticks, what to do):", *lacking]))


def test_every_code_and_every_event_that_asks_for_something_is_on_the_page() -> None:
    assert set(texts("Codes")) == set(REASONS)
    assert set(texts("Events")) == {name for name, (level, _) in EVENTS.items() if level in ("warning", "error")}


def test_every_type_of_a_functions_error_is_on_the_page() -> None:
    assert {text for text in texts("Functions") if text in ERROR_TYPES} == ERROR_TYPES


@pytest.mark.parametrize("entry", [each for each in texts() if each not in {*REASONS, *EVENTS}])
def test_no_row_is_about_what_is_not_said(entry: str) -> None:
    assert entry in ERROR_TYPES or any(tells(entry, text) for text in SAID)
