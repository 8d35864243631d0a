"""AWS's model of the Lambda API, as botocore has it: what documents are held against."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session
from botocore.model import Shape

_KINDS = {
    "structure": dict,
    "list": list,
    "map": dict,
    "string": str,
    "integer": int,
    "long": int,
    "double": float,
    "float": float,
    "boolean": bool,
}


@cache
def _model():
    return botocore.session.get_session().get_service_model("lambda")


def statuses(operation: str) -> tuple[int, ...]:
    """Give the statuses by which an operation answers that it was done."""
    if operation == "Invoke":
        return 200, 202, 204
    known = operation in _model().operation_names
    return (_model().operation_model(operation).http.get("responseCode", 200) if known else 200,)


def unknown_members(operation: str, document: Any) -> list[str]:
    """Name the members of an answer that AWS's clients would not see, or see as another type."""
    shape = _model().operation_model(operation).output_shape
    return list(_unknown(shape, document, operation)) if shape else [operation] * bool(document)


def _unknown(shape: Shape, value: Any, path: str):
    if shape.type_name in _KINDS and not isinstance(value, _KINDS[shape.type_name]):
        yield path
    elif shape.type_name == "structure":
        yield from (f"{path}.{name}" for name in value if name not in shape.members)
        for name in value.keys() & shape.members.keys():
            yield from _unknown(shape.members[name], value[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for number, each in enumerate(value):
            yield from _unknown(shape.member, each, f"{path}[{number}]")
    elif shape.type_name == "map":
        for name, each in value.items():
            yield from _unknown(shape.value, each, f"{path}.{name}")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path}={value}"
