"""The rights that docs/state.md gives a user of Redis are those that are called for."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.redis.health import needed_commands

PAGE = Path(__file__).parents[2] / "docs" / "state.md"


def test_the_rights_of_the_docs_are_just_those_that_are_needed() -> None:
    [listed] = re.findall(r"ACL SETUSER headrace (.*?)```", PAGE.read_text(), re.DOTALL)
    assert re.findall(r"\+(\w+)", listed) == [each.lower() for each in needed_commands()]
