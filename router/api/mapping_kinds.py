"""Which kind of source a mapping reads, by its members, and what of the members belongs to each.

Source: AWS Lambda API reference and recordings of defaults; a member that a kind does not have is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

#: Members of a mapping by their names in the API.
Properties: TypeAlias = Mapping[str, Any]


class Kind(Enum):
    """A kind of source, as rules tell them apart."""

    SQS = "SQS queue"
    FIFO = "SQS FIFO queue"
    KINESIS = "Kinesis stream"
    DYNAMODB = "DynamoDB stream"
    MSK = "Amazon MSK cluster"
    KAFKA = "Kafka cluster"
    MQ = "Amazon MQ broker"
    DOCUMENT_DB = "DocumentDB cluster"


QUEUES: Final = frozenset((Kind.SQS, Kind.FIFO))
STREAMS: Final = frozenset((Kind.KINESIS, Kind.DYNAMODB))
KAFKAS: Final = frozenset((Kind.MSK, Kind.KAFKA))
_OTHERS: Final = frozenset((Kind.MQ, Kind.DOCUMENT_DB))
#: Kinds that AWS has and that are not read here.
NOT_HERE: Final = _OTHERS

#: Where the ARN of a source begins -> its kind.
_ARNS: Final = (
    (re.compile(r"arn:[^:]*:sqs:[^:]*:[^:]*:[^:/]+\.fifo"), Kind.FIFO),
    (re.compile(r"arn:[^:]*:sqs:[^:]*:[^:]*:[^:/]+"), Kind.SQS),
    (re.compile(r"arn:[^:]*:kinesis:[^:]*:[^:]*:stream/[^/:]+(/consumer/[^/:]+:\d+)?"), Kind.KINESIS),
    (re.compile(r"arn:[^:]*:dynamodb:[^:]*:[^:]*:table/[^/:]+/stream/.+"), Kind.DYNAMODB),
    (re.compile(r"arn:[^:]*:kafka:[^:]*:[^:]*:(cluster|vpc-connection)/.+"), Kind.MSK),
    (re.compile(r"arn:[^:]*:mq:[^:]*:[^:]*:broker:.+"), Kind.MQ),
    (re.compile(r"arn:[^:]*:rds:[^:]*:[^:]*:cluster:.+"), Kind.DOCUMENT_DB),
)

_EVERY: Final = frozenset(Kind)
#: Members that are of some kinds only.
BELONGS: Final[Mapping[str, frozenset[Kind]]] = {
    "SelfManagedEventSource": frozenset((Kind.KAFKA,)),
    "StartingPosition": STREAMS | KAFKAS | {Kind.DOCUMENT_DB},
    "StartingPositionTimestamp": STREAMS | KAFKAS | {Kind.DOCUMENT_DB},
    "ParallelizationFactor": STREAMS,
    "MaximumRetryAttempts": STREAMS | KAFKAS,
    "MaximumRecordAgeInSeconds": STREAMS | KAFKAS,
    "BisectBatchOnFunctionError": STREAMS | KAFKAS,
    "TumblingWindowInSeconds": STREAMS,
    "FunctionResponseTypes": _EVERY - _OTHERS,
    "FilterCriteria": _EVERY - {Kind.DOCUMENT_DB},
    "DestinationConfig": STREAMS | KAFKAS,
    "ScalingConfig": QUEUES,
    "ProvisionedPollerConfig": QUEUES | KAFKAS,
    "MetricsConfig": _EVERY - _OTHERS,
    "LoggingConfig": KAFKAS,
    "Topics": KAFKAS,
    "Queues": frozenset((Kind.MQ,)),
    "SourceAccessConfigurations": KAFKAS | _OTHERS,
    "AmazonManagedKafkaEventSourceConfig": frozenset((Kind.MSK,)),
    "SelfManagedKafkaEventSourceConfig": frozenset((Kind.KAFKA,)),
    "DocumentDBEventSourceConfig": frozenset((Kind.DOCUMENT_DB,)),
}
#: The member in which a Kafka source has its consumer group.
GROUP_CONFIG: Final = {Kind.MSK: "AmazonManagedKafkaEventSourceConfig", Kind.KAFKA: "SelfManagedKafkaEventSourceConfig"}


def kind_of(properties: Properties) -> Kind | None:
    """Give the kind of source that members name; None = they name none that there is."""
    arn = properties.get("EventSourceArn")
    if arn is None:
        return Kind.KAFKA if "SelfManagedEventSource" in properties else None
    return next((kind for form, kind in _ARNS if form.fullmatch(arn)), None)


def servers_of(properties: Properties) -> tuple[str, ...]:
    """Give the servers of a cluster of one's own."""
    endpoints: Mapping[str, Any] = properties.get("SelfManagedEventSource", {}).get("Endpoints", {})
    return tuple(endpoints.get("KAFKA_BOOTSTRAP_SERVERS", ()))


def group_of(properties: Properties) -> str | None:
    """Give the consumer group of a Kafka source; None = none is said."""
    for name in GROUP_CONFIG.values():
        if name in properties:
            group: str | None = properties[name].get("ConsumerGroupId")
            return group
    return None


def is_provisioned(properties: Properties) -> bool:
    """Is it in AWS's provisioned mode?"""
    return bool(properties.get("ProvisionedPollerConfig"))
