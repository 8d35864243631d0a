"""Modelled constraints of event source mappings, as the service's model has them.

Source: AWS Lambda API reference, CreateEventSourceMapping and UpdateEventSourceMapping. Ranges hold for every source;
what holds for some of them only is in mapping_rules.
"""

from __future__ import annotations

from typing import Final

from router.api.constraints import Flag, Listed, Map, Number, Shape, Structure, Text
from router.api.function_requests import TAGS

_ANY_ARN: Final = r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()"
_SOURCE_ARN: Final = r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}(-gov)?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
_DESTINATION: Final = (
    r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:"
    r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)
_FUNCTION_NAME: Final = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
    r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
#: Kinds of access that a mapping may name, with what each is of.
ACCESS_TYPES: Final = (
    "BASIC_AUTH",
    "VPC_SUBNET",
    "VPC_SECURITY_GROUP",
    "SASL_SCRAM_512_AUTH",
    "SASL_SCRAM_256_AUTH",
    "VIRTUAL_HOST",
    "CLIENT_CERTIFICATE_TLS_AUTH",
    "SERVER_ROOT_CA_CERTIFICATE",
    "OAUTHBEARER_AUTH",
    "OAUTHBEARER_SCOPE",
    "OAUTHBEARER_AUDIENCE",
    "OAUTHBEARER_LOGICAL_CLUSTER",
    "OAUTHBEARER_IDENTITY_POOL",
    "IAM_AUTH",
    "IAM_OAUTHBEARER_AUTH",
)

_TARGET: Final = Structure({"Destination": Text(0, 350, _DESTINATION)})
_REGISTRY: Final = Structure(
    {
        "SchemaRegistryURI": Text(1, 10000, r"[a-zA-Z0-9-\/*:_+=.@-]*"),
        "EventRecordFormat": Text(words=("JSON", "SOURCE")),
        "AccessConfigs": Listed(
            Structure(
                {
                    "Type": Text(
                        words=(
                            "BASIC_AUTH",
                            "CLIENT_CERTIFICATE_TLS_AUTH",
                            "SERVER_ROOT_CA_CERTIFICATE",
                            "OAUTHBEARER_AUTH",
                        )
                    ),
                    "URI": Text(1, 10000),
                }
            )
        ),
        "SchemaValidationConfigs": Listed(Structure({"Attribute": Text(words=("KEY", "VALUE"))}), 0, 2),
    }
)
_GROUP: Final = Text(1, 200, r"[a-zA-Z0-9-\/*:_+=.@-]*")

#: Members that Create and Update have in common.
_SHARED: Final[dict[str, Shape]] = {
    "Enabled": Flag(),
    "BatchSize": Number(1, 10000),
    "FilterCriteria": Structure({"Filters": Listed(Structure({"Pattern": Text(0, 4096)}))}),
    "MaximumBatchingWindowInSeconds": Number(0, 300),
    "ParallelizationFactor": Number(1, 10),
    "DestinationConfig": Structure({"OnSuccess": _TARGET, "OnFailure": _TARGET}),
    "MaximumRecordAgeInSeconds": Number(-1, 604800),
    "BisectBatchOnFunctionError": Flag(),
    "MaximumRetryAttempts": Number(-1, 10000),
    "TumblingWindowInSeconds": Number(0, 900),
    "SourceAccessConfigurations": Listed(
        Structure({"Type": Text(words=ACCESS_TYPES), "URI": Text(1, 200, r"[ a-zA-Z0-9-\/*:_+=.@-]*")}), 0, 23
    ),
    "FunctionResponseTypes": Listed(Text(words=("ReportBatchItemFailures",)), 0, 1),
    "ScalingConfig": Structure({"MaximumConcurrency": Number(2, 1000)}),
    "AmazonManagedKafkaEventSourceConfig": Structure({"ConsumerGroupId": _GROUP, "SchemaRegistryConfig": _REGISTRY}),
    "SelfManagedKafkaEventSourceConfig": Structure(
        {
            "ConsumerGroupId": _GROUP,
            "SchemaRegistryConfig": _REGISTRY,
            "ConsumptionMode": Text(words=("Stream", "Queue")),
        }
    ),
    "DocumentDBEventSourceConfig": Structure(
        {
            "DatabaseName": Text(1, 63, r"[^ /\.$\x22]*"),
            "CollectionName": Text(1, 57, r"(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)"),
            "FullDocument": Text(words=("UpdateLookup", "Default")),
        }
    ),
    "KMSKeyArn": Text(0, 10000, _ANY_ARN),
    "MetricsConfig": Structure({"Metrics": Listed(Text(words=("EventCount", "ErrorCount", "KafkaMetrics")), 0, 3)}),
    "LoggingConfig": Structure({"SystemLogLevel": Text(words=("DEBUG", "INFO", "WARN"))}),
    "ProvisionedPollerConfig": Structure(
        {
            "MinimumPollers": Number(1, 200),
            "MaximumPollers": Number(1, 10000),
            "PollerGroupName": Text(0, 128, r"[a-zA-Z0-9-_]*"),
        }
    ),
}
_FUNCTION: Final = Text(1, 256, _FUNCTION_NAME)

CREATE: Final = Structure(
    {
        "EventSourceArn": Text(0, 10000, _SOURCE_ARN),
        "FunctionName": _FUNCTION,
        **_SHARED,
        "StartingPosition": Text(words=("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")),
        "StartingPositionTimestamp": Number(is_float=True),
        "Topics": Listed(Text(1, 249, r"[^.]([a-zA-Z0-9\-_.]+)"), 1, 1),
        "Queues": Listed(Text(1, 1000, r"[\s\S]*"), 1, 1),
        # The form of an address is looked at later than what else is missing (`mapping_rules`).
        "SelfManagedEventSource": Structure(
            {"Endpoints": Map(Text(words=("KAFKA_BOOTSTRAP_SERVERS",)), Listed(Text(1, 300), 1, 10), 1, 2)}
        ),
        "Tags": TAGS,
    },
    required=("FunctionName",),
)
UPDATE: Final = Structure({"FunctionName": _FUNCTION, **_SHARED})
