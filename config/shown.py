"""The mappings of a file in AWS's names, as the API shows them beside its own. The way back of `made`. Pure.

What AWS has no word for is told by what comes nearest: a destination that is no ARN by its address, a table that is
named without its stream by all of its streams.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from config.names import parse_queue
from config.settings import Configuration, MappingSettings
from config.sources import DEFAULTS
from connectors.settings import (
    DestinationSettings,
    DynamoDbSettings,
    FileDestination,
    HttpDestination,
    KafkaDestination,
    KafkaSettings,
    KinesisSettings,
    S3Destination,
    S3Settings,
    SnsDestination,
    SqsDestination,
    SqsSettings,
)
from router.core.model import partition_of

#: Where a stand-in is when nothing says otherwise.
_REGION: Final = "us-east-1"


class Shown(NamedTuple):
    """One mapping."""

    name: str
    function: str
    enabled: bool
    #: Members of CreateEventSourceMapping.
    members: dict[str, Any]


def shown_mappings(file: Configuration) -> Iterator[Shown]:
    """Give the mappings of a file."""
    place = _Place(file.aws.region or _REGION, file.aws.account_id)
    for each in file.mappings:
        yield Shown(each.mapping.name, each.mapping.function, each.enabled, _members(each, place))


class _Place(NamedTuple):
    """Where resources are that say it not."""

    region: str
    account: str

    def arn(self, service: str, resource: str, region: str | None = None, account: str | None = None) -> str:
        region = region or self.region
        return f"arn:{partition_of(region)}:{service}:{region}:{account or self.account}:{resource}"

    def queue(self, text: str, region: str | None) -> str:
        found = parse_queue(text)
        return text if text.startswith("arn:") else self.arn("sqs", found.name, found.region or region, found.account)

    def stream(self, text: str, region: str | None) -> str:
        return text if text.startswith("arn:") else self.arn("kinesis", f"stream/{text}", region)

    def table(self, text: str, region: str | None) -> str:
        return text if text.startswith("arn:") else self.arn("dynamodb", f"table/{text}/stream/*", region)


def _members(settings: MappingSettings, place: _Place) -> dict[str, Any]:
    behaviour = settings.mapping
    members: dict[str, Any] = {
        **_source(settings, place),
        "BatchSize": behaviour.batch_size,
        "FunctionResponseTypes": ["ReportBatchItemFailures"] if behaviour.report_item_failures else [],
    }
    if not isinstance(settings.source, KafkaSettings) or behaviour.window_s != DEFAULTS["kafka"].window_s:
        members["MaximumBatchingWindowInSeconds"] = math.ceil(behaviour.window_s)
    if settings.filters:
        members["FilterCriteria"] = {"Filters": [{"Pattern": text} for text in settings.filters]}
    if isinstance(settings.source, SqsSettings | S3Settings):
        most = behaviour.polling.maximum_concurrency
        return {**members, "ScalingConfig": {"MaximumConcurrency": most}} if most else members
    return {**members, **_failing(settings, place)}


def _source(settings: MappingSettings, place: _Place) -> dict[str, Any]:
    match settings.source:
        case S3Settings(sqs=sqs) | (SqsSettings() as sqs):
            return {"EventSourceArn": place.queue(sqs.queue, sqs.region)}
        case KinesisSettings(stream=stream, region=region):
            return {"EventSourceArn": place.stream(stream, region), **_position(settings)}
        case DynamoDbSettings(table=table, region=region):
            return {"EventSourceArn": place.table(table, region), **_position(settings)}
        case KafkaSettings() as kafka:
            group = {"ConsumerGroupId": kafka.consumer_group}
            members: dict[str, Any] = {
                "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": list(kafka.bootstrap_servers)}},
                "Topics": [kafka.topic],
                "SelfManagedKafkaEventSourceConfig": group,
                "StartingPosition": kafka.starting_position,
            }
            if kafka.starting_timestamp_s is not None:
                members["StartingPositionTimestamp"] = kafka.starting_timestamp_s
            return members


def _position(settings: MappingSettings) -> dict[str, Any]:
    behaviour = settings.mapping
    members: dict[str, Any] = {
        "StartingPosition": behaviour.starting_position,
        "ParallelizationFactor": behaviour.parallelization_factor,
        "TumblingWindowInSeconds": behaviour.tumbling_window_s,
    }
    if behaviour.starting_time_ms is not None:
        members["StartingPositionTimestamp"] = behaviour.starting_time_ms / 1000
    return members


def _failing(settings: MappingSettings, place: _Place) -> dict[str, Any]:
    """Say what becomes of what fails."""
    behaviour, destination = settings.mapping, settings.destination
    retries, age_s = behaviour.maximum_retry_attempts, behaviour.maximum_record_age_s
    return {
        "MaximumRetryAttempts": -1 if retries is None else retries,
        "MaximumRecordAgeInSeconds": -1 if age_s is None else math.ceil(age_s),
        "BisectBatchOnFunctionError": behaviour.bisect,
        "DestinationConfig": {"OnFailure": {"Destination": _destination(destination, place)} if destination else {}},
    }


def _destination(destination: DestinationSettings, place: _Place) -> str:
    match destination:
        case SqsDestination(queue=queue, region=region):
            return place.queue(queue, region)
        case SnsDestination(topic=topic, region=region):
            return topic if topic.startswith("arn:") else place.arn("sns", topic, region)
        case S3Destination(bucket=bucket):
            return f"arn:{partition_of(place.region)}:s3:::{bucket}"
        case KafkaDestination(topic=topic):
            return f"kafka://{topic}"
        case FileDestination(path=path):
            return f"file://{path}"
        case HttpDestination(url=url):
            # What follows the host may be a key.
            parts = urlsplit(url.reveal())
            return f"{parts.scheme}://{parts.netloc}"
