"""What must hold between the members of an event source mapping: AWS's refusals, in the order in which it makes them.

Pure. Texts are as recorded on AWS; where none is known, ours follow the nearest. What only AWS's product cannot do is
refused while the API is strict (`Asked.is_strict`): such rules say so. Modelled constraints come before all of these,
the function, the source and other mappings behind them (`mappings`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from router.api.constraints import broke, detected, lower_first
from router.api.errors import ApiError, invalid, violated
from router.api.mapping_kinds import (
    BELONGS,
    GROUP_CONFIG,
    KAFKAS,
    NOT_HERE,
    QUEUES,
    STREAMS,
    Kind,
    Properties,
    is_provisioned,
    kind_of,
    servers_of,
)
from router.core.filter import DYNAMODB, KAFKA, KINESIS, MAX_PATTERNS, SQS, compile_filters

#: Messages of one receive, and so of a batch without a window.
_RECEIVED_COUNT: Final = 10
#: Filters of a mapping that every account may have; some are given as many as MAX_PATTERNS (AWS Lambda quotas).
_FILTERS_COUNT: Final = 5
#: Longest timeout of a function that reads Kafka (AWS Lambda developer guide: 14 minutes).
KAFKA_TIMEOUT_S: Final = 840
_LEAST_AGE_S: Final = 60

_SERVER: Final = (
    r"^(([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])\.)*"
    r"([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9\-]*[A-Za-z0-9]):[0-9]{1,5}"
)
_DESTINATIONS: Final = re.compile(r"arn:[^:]*:(?:(?:sqs|sns):[^:]*:[^:]*:[^:/]+|s3:::[^/:]+)")
_TOPIC: Final = "kafka://"
#: How filters see the records of each kind.
_FORMATS: Final = {
    **dict.fromkeys(QUEUES, SQS),
    **dict.fromkeys(KAFKAS, KAFKA),
    Kind.KINESIS: KINESIS,
    Kind.DYNAMODB: DYNAMODB,
}
#: Ranges of pollers: least minimum, most minimum, most maximum.
_POLLERS: Final = {kind: (2, 200, 10000) if kind in QUEUES else (1, 200, 2000) for kind in QUEUES | KAFKAS}
#: How Kafka clusters are logged in to and trusted here; and parts of a network, which have no effect.
_LOGINS: Final = frozenset(("BASIC_AUTH", "SASL_SCRAM_256_AUTH", "SASL_SCRAM_512_AUTH"))
_ACCESS: Final = _LOGINS | {
    "CLIENT_CERTIFICATE_TLS_AUTH",
    "SERVER_ROOT_CA_CERTIFICATE",
    "VPC_SUBNET",
    "VPC_SECURITY_GROUP",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A mapping as somebody wants it."""

    #: As they would hold; what is absent has its default.
    members: Properties
    kind: Kind
    is_strict: bool
    #: Wall time, seconds.
    now_s: float

    def __getitem__(self, name: str) -> Any:
        """Give a member; None = it is absent."""
        return self.members.get(name)

    @property
    def topic(self) -> str | None:
        topics = self["Topics"]
        return topics[0] if topics else None


Rule: TypeAlias = Callable[[Asked], ApiError | None]


def refuse_members(members: Properties, *, is_strict: bool, now_s: float) -> Kind:
    """Refuse members that do not go together; gives the kind of their source.

    Raises:
        ApiError: the first of AWS's refusals.
    """
    kind = kind_of(members)
    if kind is None:
        raise invalid("Unrecognized event source.")
    asked = Asked(members, kind, is_strict, now_s)
    for rule in RULES:
        refusal = rule(asked)
        if refusal:
            raise refusal
    return kind


def refuse_strange(changes: Properties, members: Properties) -> None:
    """Refuse changes of members that the source of a mapping does not have, be they empty. Raises ApiError."""
    kind = kind_of(members)
    assert kind is not None, "it was looked at when the mapping was made"
    asked = Asked(changes, kind, is_strict=False, now_s=0.0)
    refusal = _destination_kind(asked) or _belonging(asked)
    if refusal:
        raise refusal


def unsupported(name: str, kind: Kind) -> ApiError:
    """Refuse a member that a kind of source does not have."""
    shown = name if kind in QUEUES | STREAMS else f"'{lower_first(name)}'"
    return invalid(f"Unsupported {shown} parameter for given event source mapping type.")


# --- whatever the source


def _destination_kind(asked: Asked) -> ApiError | None:
    if asked["DestinationConfig"] is None:
        return None
    if asked.kind not in BELONGS["DestinationConfig"]:
        return unsupported("DestinationConfig", asked.kind)
    if asked["DestinationConfig"].get("OnSuccess"):
        return invalid("OnSuccess configuration is not supported for event source mappings.")
    return None


def _belonging(asked: Asked) -> ApiError | None:
    strange = [name for name, kinds in BELONGS.items() if asked[name] is not None and asked.kind not in kinds]
    if not strange:
        return None
    if asked.kind is Kind.DOCUMENT_DB:
        return invalid(f"Invalid parameters: {', '.join(map(lower_first, strange))}")
    return unsupported(strange[0], asked.kind)


def _read_here(asked: Asked) -> ApiError | None:
    """Refuse what AWS reads and we do not."""
    if asked.kind not in NOT_HERE:
        return None
    return invalid(f"Event source not supported here: {asked.kind.value}. See what is served, in the documentation.")


def _record_age(asked: Asked) -> ApiError | None:
    age_s = asked["MaximumRecordAgeInSeconds"]
    if age_s is None or not 0 <= age_s < _LEAST_AGE_S:
        return None
    return invalid("MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)")


def _filters(asked: Asked) -> ApiError | None:
    filters = (asked["FilterCriteria"] or {}).get("Filters", [])
    # Lifted: what AWS gives to those who ask for it.
    most = _FILTERS_COUNT if asked.is_strict else MAX_PATTERNS
    if len(filters) > most:
        return invalid(f"FilterCriteria has {len(filters)} filters, and at most {most} are allowed.")
    try:
        compile_filters([(each or {}).get("Pattern") or "null" for each in filters], _FORMATS[asked.kind])
    except ValueError:
        return invalid("Invalid filter pattern definition.")
    return None


def _metrics(asked: Asked) -> ApiError | None:
    metrics = (asked["MetricsConfig"] or {}).get("Metrics", [])
    if asked.kind in KAFKAS or set(metrics) <= {"EventCount"}:
        return None
    return unsupported("MetricsConfig", asked.kind)


# --- where reading begins


def _position(asked: Asked) -> ApiError | None:
    if asked.kind in STREAMS and asked["StartingPosition"] is None:
        return invalid(f"{detected([broke(None, 'startingPosition', 'Member must not be null')])}.")
    # Lifted: records of a table have times, too.
    if asked.kind is Kind.DYNAMODB and asked["StartingPosition"] == "AT_TIMESTAMP" and asked.is_strict:
        return invalid(f"Unsupported starting position for arn type: {asked['EventSourceArn']}")
    return None


def _position_time(asked: Asked) -> ApiError | None:
    time_s, is_timed = asked["StartingPositionTimestamp"], asked["StartingPosition"] == "AT_TIMESTAMP"
    if is_timed and time_s is None:
        return invalid("When the starting position is 'AT_TIMESTAMP', a starting position timestamp must be provided.")
    if time_s is None:
        return None
    if not is_timed:
        return invalid("Timestamp only valid with StartingPosition AT_TIMESTAMP")
    if not 0 <= time_s <= asked.now_s:
        return invalid("StartingPositionTimestamp must be a time that has passed")
    return None


# --- streams


def _window(asked: Asked) -> ApiError | None:
    if not asked["TumblingWindowInSeconds"]:
        return None
    if (asked["ParallelizationFactor"] or 1) > 1:
        return invalid("Parallelization factor must be equal to 1 when tumbling window period is configured")
    if (asked["FilterCriteria"] or {}).get("Filters"):
        return invalid("Filter criteria must be empty when tumbling window period is configured")
    return None


# --- queues


def _batch(asked: Asked) -> ApiError | None:
    window_s = asked["MaximumBatchingWindowInSeconds"] or 0
    if asked.kind not in QUEUES:
        return None
    if (asked["BatchSize"] or 0) > _RECEIVED_COUNT and not window_s:
        return invalid(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
    # A FIFO queue can so have no larger batches either.
    if asked.kind is Kind.FIFO and window_s:
        return invalid("Batching window is not supported for FIFO queues")
    return None


def _concurrency(asked: Asked) -> ApiError | None:
    if is_provisioned(asked.members) and (asked["ScalingConfig"] or {}).get("MaximumConcurrency"):
        return invalid(
            "Provisioned mode for SQS ESM does not support maximum concurrency feature. Use MaximumPollers as the "
            "control mechanism and remove maximum concurrency."
        )
    return None


# --- provisioned mode


def _pollers(asked: Asked) -> ApiError | None:
    config = asked["ProvisionedPollerConfig"]
    if config is None:
        return None
    if "PollerGroupName" in config and asked.kind in QUEUES:
        return unsupported("PollerGroupName", asked.kind)
    if not config.keys() & {"MinimumPollers", "MaximumPollers"}:
        return invalid("Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided.")
    least, most, most_at_most = _POLLERS[asked.kind]
    minimum = config.get("MinimumPollers", least)
    if least <= minimum <= most and minimum <= config.get("MaximumPollers", most) <= most_at_most:
        return None
    return invalid(
        f"MinimumPollers should be between [{least}, {most}] and MaximumPollers should be between "
        f"[MinimumPollers, {most_at_most}]"
    )


def _only_provisioned(asked: Asked) -> ApiError | None:
    """Refuse what AWS has for Kafka in provisioned mode only. Lifted: there are no pollers here to provide."""
    if asked.kind not in KAFKAS or is_provisioned(asked.members) or not asked.is_strict:
        return None
    return next((_provisioned_only(name) for name in _provisioned_features(asked)), None)


def _provisioned_features(asked: Asked) -> Iterator[str]:
    if (asked["MetricsConfig"] or {}).get("Metrics"):
        yield "MetricsConfig"
    for name in ("MaximumRetryAttempts", "MaximumRecordAgeInSeconds"):
        if asked[name] not in (None, -1):
            yield name
    for name in ("BisectBatchOnFunctionError", "FunctionResponseTypes"):
        if asked[name]:
            yield name
    if _destination_of(asked).startswith(_TOPIC):
        yield "DestinationConfig"
    if (asked[GROUP_CONFIG[asked.kind]] or {}).get("SchemaRegistryConfig"):
        yield "SchemaRegistryConfig"


def _provisioned_only(name: str) -> ApiError:
    return invalid(
        f"{name} is only available for Provisioned Mode. To configure {name}, please enable Provisioned Mode by "
        "specifying MinimumPollers in ProvisionedPollerConfig."
    )


# --- Kafka


def _topics(asked: Asked) -> ApiError | None:
    return _missing("topics") if asked.kind in KAFKAS and asked.topic is None else None


def _access(asked: Asked) -> ApiError | None:
    """Demand a way in. Lifted: a cluster of one's own may let everybody in."""
    if asked.kind is Kind.KAFKA and not asked["SourceAccessConfigurations"] and asked.is_strict:
        return _missing("sourceAccessConfigurations")
    return None


def _missing(name: str) -> ApiError:
    return invalid(f"Required '{name}' parameter is missing.")


def _access_types(asked: Asked) -> ApiError | None:
    """Refuse ways in that we do not know, or that cannot both hold."""
    accesses = [each or {} for each in asked["SourceAccessConfigurations"] or ()]
    types = [each.get("Type") for each in accesses]
    strange = [each for each in types if each not in _ACCESS]
    if asked.kind not in KAFKAS:
        return None
    if not all(each.get("Type") and each.get("URI") for each in accesses):
        return invalid("Each of SourceAccessConfigurations needs a Type and a URI.")
    if strange:
        return invalid(f"SourceAccessConfigurations of type {strange[0]} are not supported here for this event source.")
    if len([each for each in types if each in _LOGINS]) > 1:
        return invalid("SourceAccessConfigurations has more than one type to log in with, and one is allowed.")
    return None


def _servers(asked: Asked) -> ApiError | None:
    servers = list(servers_of(asked.members))
    if asked.kind is not Kind.KAFKA:
        return None
    if not servers:
        return _missing("selfManagedEventSource.endpoints")
    if all(re.fullmatch(_SERVER, each) for each in servers):
        return None
    pattern = f"Member must satisfy regular expression pattern: {_SERVER}"
    where = "selfManagedEventSource.endpoints.KAFKA_BOOTSTRAP_SERVERS"
    return violated(detected([broke(servers, where, f"Member must satisfy constraint: [{pattern}]")]))


def _consumption(asked: Asked) -> ApiError | None:
    """Refuse what of Kafka on AWS we do not have."""
    config = asked[GROUP_CONFIG[asked.kind]] if asked.kind in KAFKAS else None
    if config and config.get("ConsumptionMode") == "Queue":
        return invalid("ConsumptionMode Queue is not supported here: topics are read as streams.")
    if config and config.get("SchemaRegistryConfig"):
        return invalid("SchemaRegistryConfig is not supported here: records come to the function as they are.")
    return None


# --- destinations


def _destination_of(asked: Asked) -> str:
    destination: str = (asked["DestinationConfig"] or {}).get("OnFailure", {}).get("Destination", "")
    return destination


def _destination(asked: Asked) -> ApiError | None:
    arn = _destination_of(asked)
    if not arn:
        return None
    if arn.startswith(_TOPIC):
        fits = asked.kind in KAFKAS and arn.removeprefix(_TOPIC) not in ("", asked.topic)
    else:
        fits = _DESTINATIONS.fullmatch(arn) is not None and not arn.endswith(".fifo")
    return None if fits else invalid(f"The provided destination {arn} is not allowed for this event source mapping.")


#: In AWS's order as far as it was recorded.
RULES: Final[tuple[Rule, ...]] = (
    _destination_kind,
    _belonging,
    _read_here,
    _topics,
    _access,
    _position,
    _position_time,
    _servers,
    _access_types,
    _record_age,
    _batch,
    _pollers,
    _concurrency,
    _window,
    _metrics,
    _only_provisioned,
    _consumption,
    _destination,
    _filters,
)


# --- what needs more than the members


def refuse_timeout(kind: Kind, timeout_s: int, visibility_s: int | None) -> None:
    """Refuse a function that runs longer than its source allows. Raises ApiError."""
    if visibility_s is not None and visibility_s < timeout_s:
        raise invalid(
            f"Queue visibility timeout: {visibility_s} seconds is less than Function timeout: {timeout_s} seconds"
        )
    if kind in KAFKAS and timeout_s > KAFKA_TIMEOUT_S:
        raise invalid(
            f"Function timeout: {timeout_s} seconds is more than {KAFKA_TIMEOUT_S} seconds, the most for this event "
            "source"
        )
