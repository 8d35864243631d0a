"""An event source mapping as the API answers it: the members of each kind of source, absent where AWS has them absent.

Pure. Source: recordings of AWS. Members are kept as they come back (`mapping_values`), so that this adds only what
is of the moment: its state, when it changed, and its ARNs.
"""

from __future__ import annotations

from typing import Any, Final

from router.api.mapping_kinds import QUEUES, STREAMS, kind_of
from router.api.names import Here
from router.catalogue import records

#: Members that nobody has asked to see: whoever made the change, in the words of each kind.
_REASONS: Final = {True: "User action", False: "USER_INITIATED"}


def shown(
    record: records.Mapping, here: Here, state: str, last_result: str, *, is_listed: bool = False
) -> dict[str, Any]:
    """Describe a mapping.

    Args:
        record: the mapping.
        here: what is in ARNs.
        state: in AWS's words.
        last_result: of its processing, in AWS's words; queues do not tell it.
        is_listed: is it one of a list? Then filters under a key are not shown.
    """
    kind = kind_of(record.properties)
    document: dict[str, Any] = {
        **record.properties,
        "UUID": record.uuid,
        "EventSourceMappingArn": here.mapping(record.uuid),
        "FunctionArn": here.function(record.function, record.qualifier),
        "LastModified": round(record.modified_s, 3),
        "State": state,
        "StateTransitionReason": _REASONS[kind in STREAMS],
    }
    if kind not in QUEUES:
        document["LastProcessingResult"] = last_result
    if is_listed and "KMSKeyArn" in document and "FilterCriteria" in document:
        document["FilterCriteria"] = None
    return document


def state_at_once(record: records.Mapping, verb: str, was_enabled: bool) -> str:  # noqa: FBT001 - a fact of two
    """Give the state that the answer to a change shows.

    Args:
        record: the mapping after it.
        verb: Create, Update or Delete.
        was_enabled: was it before? Of one that is new: no.
    """
    if verb == "Delete":
        return "Deleting"
    is_stream = kind_of(record.properties) in STREAMS
    if verb == "Create":
        return "Creating" if record.enabled or is_stream else "Disabled"
    if record.enabled != was_enabled:
        return "Enabling" if record.enabled else "Disabling"
    return "Updating" if record.enabled or is_stream else "Disabled"
