"""The shapes of requests about event source mappings, held against AWS's model as the installed client has it.

The client may be older than what AWS takes now: then ours know more members and words, and allow more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape

from router.api.constraints import Flag, Listed, Map, Number, Structure, Text
from router.api.mapping_members import CREATE, UPDATE

_KINDS: dict[str, type] = {
    "boolean": Flag,
    "integer": Number,
    "list": Listed,
    "map": Map,
    "string": Text,
    "structure": Structure,
    "timestamp": Number,
}


def differences(theirs: Shape, ours: Any, path: str = "") -> Iterator[str]:
    """Say where ours know less than theirs, or begin elsewhere."""
    if not isinstance(ours, _KINDS[theirs.type_name]):
        yield f"{path}: no {theirs.type_name}"
    elif isinstance(ours, Structure):
        for name, shape in theirs.members.items():
            yield from differences(shape, ours.members.get(name), f"{path}.{name}")
    elif isinstance(ours, Listed):
        yield from _bounds(theirs, ours, path)
        yield from differences(theirs.member, ours.member, f"{path}[]")
    elif isinstance(ours, Map):
        yield from differences(theirs.key, ours.key, f"{path}.key")
        yield from differences(theirs.value, ours.value, f"{path}.value")
    elif isinstance(ours, Text) and (words := getattr(theirs, "enum", None)):
        yield from (f"{path}: {word}" for word in words if word not in ours.words)
    elif isinstance(ours, Number | Text):
        yield from _bounds(theirs, ours, path)


def _bounds(theirs: Shape, ours: Any, path: str) -> Iterator[str]:
    low, high = (theirs.metadata.get(name) for name in ("min", "max"))
    if low is not None and ours.low != low:
        yield f"{path}: least {ours.low}, not {low}"
    if high is not None and (ours.high is None or ours.high < high):
        yield f"{path}: most {ours.high}, not {high}"


@pytest.mark.parametrize(
    ("operation", "shape", "apart"),
    # What is changed is named by the path.
    [("CreateEventSourceMapping", CREATE, []), ("UpdateEventSourceMapping", UPDATE, [".UUID: no string"])],
)
def test_ours_know_all_that_clients_can_ask_for(operation: str, shape: Structure, apart: list[str]) -> None:
    model = botocore.session.get_session().get_service_model("lambda").operation_model(operation)
    assert list(differences(model.input_shape, shape)) == apart
