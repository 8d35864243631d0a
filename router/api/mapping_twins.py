"""Mappings that would do the same twice: which of those there are another one must not be made beside.

Pure. Source: recordings of AWS. Identity is a source with a function in its qualification: unqualified, by an alias and
by a version are three. On Kafka a topic has one mapping of a function, and a consumer group one mapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router.api.errors import ApiError, conflict
from router.api.mapping_kinds import KAFKAS, QUEUES, Kind, Properties, group_of, kind_of, servers_of
from router.api.mapping_pages import is_of
from router.api.names import Here, Reference
from router.catalogue import records


def find_twin(
    members: Properties, function: Reference, others: Iterable[records.Mapping], here: Here
) -> ApiError | None:
    """Give the refusal of a mapping beside others; None = none of them is in its way."""
    kind = kind_of(members)
    group = group_of(members)
    for other in others:
        if not _same_source(members, other.properties, kind):
            continue
        if is_of(other, function) and members.get("Topics") == other.properties.get("Topics"):
            return _refusal(members, function, other, kind, here)
        if kind in KAFKAS and group is not None and group_of(other.properties) == group:
            return conflict(
                f'An event source mapping with event source ("{_source(members)}"), consumer group ("{group}") already '
                f"exists. {_advice(other)}"
            )
    return None


def _same_source(members: Properties, other: Mapping[str, Any], kind: Kind | None) -> bool:
    if kind is not Kind.KAFKA:
        return members.get("EventSourceArn") == other.get("EventSourceArn")
    return "EventSourceArn" not in other and not set(servers_of(members)).isdisjoint(servers_of(other))


def _refusal(
    members: Properties, function: Reference, other: records.Mapping, kind: Kind | None, here: Here
) -> ApiError:
    name = f"{function.name}:{function.qualifier}" if function.qualifier else function.name
    if kind in KAFKAS:
        arn, topic = here.function(function.name, function.qualifier), members["Topics"][0]
        said = f'An event source mapping with event source ("{_source(members)}"), function ("{arn}"), topics'
        return conflict(f'{said} ("{topic}") already exists. {_advice(other)}')
    if kind in QUEUES:
        said = (
            f'An event source mapping with SQS arn (" {_source(members)} ") and function (" {name} ") already exists.'
        )
        return conflict(f"{said} {_advice(other)}")
    return conflict(
        f'The event source arn (" {_source(members)} ") and function (" {name} ") provided mapping already exists. '
        f"{_advice(other)}"
    )


def _source(members: Properties) -> str:
    return members.get("EventSourceArn") or ",".join(servers_of(members))


def _advice(other: records.Mapping) -> str:
    return f"Please update or delete the existing mapping with UUID {other.uuid}"
