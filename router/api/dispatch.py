"""Which operation a request means: by its method and path, as AWS's own clients write them. Pure.

Segments are told apart before they are decoded, so that an ARN with `%2F` stays one. What no operation has, be it path
or method, is an unknown operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

from router.api.operations import OPERATIONS, Operation

#: Query parameters of one request, at most.
_QUERY_COUNT: Final = 256


@dataclass(slots=True)
class _Branch:
    """What may follow behind some segments."""

    #: By a segment as it is.
    fixed: dict[str, _Branch] = field(default_factory=dict)
    #: Behind a segment of any text, or all that is left; with the name that it has.
    named: tuple[str, _Branch] | None = None
    rest: tuple[str, _Branch] | None = None
    #: What ends here, by method.
    ends: dict[str, Operation] = field(default_factory=dict)


def find(method: str, path: str) -> tuple[Operation, Mapping[str, str]] | None:
    """Give the operation and the decoded parts of the path by their names; None = there is no such."""
    segments = path.removesuffix("/").split("/")[1:]
    parts: dict[str, str] = {}
    branch = _TREE
    for number, segment in enumerate(segments):
        if (fixed := branch.fixed.get(segment)) is not None:
            branch = fixed
            continue
        following = branch.rest or branch.named
        if following is None or not segment:
            return None
        text = "/".join(segments[number:]) if branch.rest else segment
        try:
            parts[following[0]] = unquote(text, errors="strict") if "%" in text else text
        except UnicodeDecodeError:
            return None
        branch, is_at_end = following[1], bool(branch.rest)
        if is_at_end:
            break
    operation = branch.ends.get(method)
    return (operation, parts) if operation else None


def query(text: str) -> Mapping[str, Sequence[str]]:
    """Decode a query. Raises ValueError."""
    if not text:
        return {}
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_QUERY_COUNT):
        values.setdefault(name, []).append(value)
    return values


def _plant(operations: Sequence[Operation]) -> _Branch:
    root = _Branch()
    for operation in operations:
        branch = root
        for segment in operation.path.split("/")[1:]:
            branch = _follow(branch, segment)
        branch.ends[operation.method] = operation
    return root


def _follow(branch: _Branch, segment: str) -> _Branch:
    if not segment.startswith("{"):
        return branch.fixed.setdefault(segment, _Branch())
    if segment.endswith("+}"):
        branch.rest = branch.rest or (segment[1:-2], _Branch())
        return branch.rest[1]
    branch.named = branch.named or (segment[1:-1], _Branch())
    return branch.named[1]


_TREE: Final = _plant(OPERATIONS)
