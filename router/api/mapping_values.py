"""The members of an event source mapping as they hold: as asked for, by default, after an update.

Pure. An update leaves what it omits, and clears by empty values. Source: AWS Lambda API reference, and recordings of
the members that come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from router.api.constraints import Listed, Map, Shape, Structure
from router.api.mapping_kinds import GROUP_CONFIG, KAFKAS, QUEUES, Kind, Properties, is_provisioned

#: Members that a record has elsewhere.
_APART: Final = ("FunctionName", "Enabled", "Tags")
_NO_DESTINATION: Final[Mapping[str, Any]] = {"OnFailure": {}}

_QUEUE_DEFAULTS: Final[Properties] = {
    "BatchSize": 10,
    "MaximumBatchingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
}
#: What Kafka has in provisioned mode only.
_FAILURE_DEFAULTS: Final[Properties] = {
    "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
}
_STREAM_DEFAULTS: Final[Properties] = {
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    **_FAILURE_DEFAULTS,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "DestinationConfig": _NO_DESTINATION,
}
#: Its window is half a second until it is said, and then told.
_KAFKA_DEFAULTS: Final[Properties] = {
    "BatchSize": 100,
    "StartingPosition": "TRIM_HORIZON",
    "FunctionResponseTypes": [],
}
#: Of pollers: least, by whether they read a queue; and most.
_MINIMUM_POLLERS: Final = {True: 2, False: 1}
_MAXIMUM_POLLERS: Final = 200
#: Members that are cleared by an empty value.
_CLEARED: Final = (
    "FilterCriteria",
    "ScalingConfig",
    "ProvisionedPollerConfig",
    "KMSKeyArn",
    "LoggingConfig",
    "MetricsConfig",
)
#: Those of them that hold nothing but a list, and say nothing when that is empty.
_LISTS: Final = {"FilterCriteria": "Filters", "MetricsConfig": "Metrics"}


def given(shape: Structure, document: Mapping[str, Any]) -> dict[str, Any]:
    """Give the members of a request that its operation knows, at whatever depth; null is as if it were absent."""
    return {name: value for name, value in _known(shape, document).items() if name not in _APART}


def _known(shape: Shape, value: Any) -> Any:
    match shape:
        case Structure():
            members = shape.members.items()
            return {name: _known(each, value[name]) for name, each in members if value.get(name) is not None}
        case Listed(Structure() as member):
            return [_known(member, each or {}) for each in value]
        case Map():
            return {name: each for name, each in value.items() if each is not None}
    return value


def changed(members: Properties, changes: Properties) -> dict[str, Any]:
    """Give the members after an update: what it omits stays, and empty values clear."""
    after = {**members, **changes}
    pollers = changes.get("ProvisionedPollerConfig")
    if pollers:
        after["ProvisionedPollerConfig"] = {**members.get("ProvisionedPollerConfig", {}), **pollers}
    for name in GROUP_CONFIG.values():
        if name in members and name in changes:
            # How it reads its topic was settled when it was made.
            kept = {key: value for key, value in members[name].items() if key in ("ConsumerGroupId", "ConsumptionMode")}
            after[name] = {**changes[name], **kept}
    return cleared(after)


def cleared(members: Properties) -> dict[str, Any]:
    """Take out what an empty value clears, and have an empty destination be none."""
    left = {name: value for name, value in members.items() if name not in _CLEARED or _says(name, value)}
    if "DestinationConfig" in left and not left["DestinationConfig"].get("OnSuccess"):
        destination = left["DestinationConfig"].get("OnFailure", {}).get("Destination")
        left["DestinationConfig"] = {"OnFailure": {"Destination": destination} if destination else {}}
    group = left.get("ProvisionedPollerConfig", {})
    if group.get("PollerGroupName") == "":
        left["ProvisionedPollerConfig"] = {key: value for key, value in group.items() if key != "PollerGroupName"}
    return left


def _says(name: str, value: Any) -> bool:
    return bool(value.get(_LISTS[name]) if name in _LISTS else value)


def completed(members: Properties, kind: Kind, uuid: str) -> dict[str, Any]:
    """Put the defaults of a source into members that go together."""
    defaults = _QUEUE_DEFAULTS if kind in QUEUES else _KAFKA_DEFAULTS if kind in KAFKAS else _STREAM_DEFAULTS
    whole = {**defaults, **members}
    if kind in KAFKAS:
        name = GROUP_CONFIG[kind]
        whole[name] = {"ConsumerGroupId": uuid, **whole.get(name, {})}
        whole = _kafka(whole)
    if is_provisioned(whole):
        pollers = whole["ProvisionedPollerConfig"]
        least = {"MinimumPollers": _MINIMUM_POLLERS[kind in QUEUES]}
        most = {"MaximumPollers": max(_MAXIMUM_POLLERS, pollers.get("MinimumPollers", 0))}
        whole["ProvisionedPollerConfig"] = {**least, **most, **pollers}
    return whole


def _kafka(members: dict[str, Any]) -> dict[str, Any]:
    """Show the members of provisioned mode where they have a meaning."""
    if is_provisioned(members):
        return {**_FAILURE_DEFAULTS, **members}
    if members.get("DestinationConfig") == _NO_DESTINATION:
        del members["DestinationConfig"]
    idle = _FAILURE_DEFAULTS.items()
    return {name: value for name, value in members.items() if (name, value) not in idle}
