"""The world: one file per source, the destinations, the stores. What nobody configured is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from connectors.settings import (
    DynamoDbSettings,
    FileDestination,
    HttpDestination,
    KafkaDestination,
    KafkaSettings,
    KinesisSettings,
    LambdaFunction,
    S3Destination,
    S3Settings,
    SnsDestination,
    SqsDestination,
    SqsSettings,
    UrlFunction,
)

#: Settings of a `source` block -> the class that reads it.
SOURCES: Final[Mapping[type, str]] = {
    DynamoDbSettings: "connectors.dynamodb:DynamoDbSource",
    KafkaSettings: "connectors.kafka:KafkaSource",
    KinesisSettings: "connectors.kinesis:KinesisSource",
    S3Settings: "connectors.s3:S3Source",
    SqsSettings: "connectors.sqs:SqsSource",
}

#: Settings of a `source` block that names a stream -> the class that reads it by pages, beside the mapping.
PAGES: Final[Mapping[type, str]] = {
    DynamoDbSettings: "connectors.dynamodb:DynamoDbSource",
    KafkaSettings: "connectors.kafka_pages:KafkaPages",
    KinesisSettings: "connectors.kinesis:KinesisSource",
}

#: Reads the objects of a bucket.
OBJECTS: Final = "connectors.s3_objects:S3Objects"

#: Finds what a mapping of the API is to read.
SOURCE_LOOKUP: Final = "connectors.source_lookup:SourceLookup"

#: Fetches code of functions.
CODE_OBJECTS: Final = "connectors.s3_code:S3Code"

#: Takes logs of functions.
LOG_STREAMS: Final = "connectors.cloudwatch_logs:CloudWatchLogs"

#: Knows where a consumer group is in a topic.
KAFKA_PLACES: Final = "connectors.kafka_places:KafkaPlaces"

#: Settings of a `source` block -> `check(settings, function_timeout_s)`, which reaches it and says what it found.
CHECKS: Final[Mapping[type, str]] = {
    DynamoDbSettings: "connectors.dynamodb_check:check_dynamodb",
    KafkaSettings: "connectors.kafka_check:check_kafka",
    KinesisSettings: "connectors.kinesis_check:check_kinesis",
    S3Settings: "connectors.s3_check:check_s3",
    SqsSettings: "connectors.sqs_check:check_sqs",
}

#: Settings of a `source` block -> `set_up(settings, function_timeout_s)`, which makes what the source lacks and says
#: what it did.
SETUPS: Final[Mapping[type, str]] = {
    S3Settings: "connectors.s3_setup:set_up_s3",
}

#: Settings of a destination block -> the class that sends to it.
DESTINATIONS: Final[Mapping[type, str]] = {
    FileDestination: "connectors.file_destination:FileSender",
    HttpDestination: "connectors.http_destination:HttpSender",
    KafkaDestination: "connectors.kafka_destination:KafkaSender",
    S3Destination: "connectors.s3_destination:S3Sender",
    SnsDestination: "connectors.sns_destination:SnsSender",
    SqsDestination: "connectors.sqs_destination:SqsSender",
}

#: Service in the ARN of a target of asynchronous events -> the class that sends to it: `(arn, aws)`.
EVENT_TARGETS: Final[Mapping[str, str]] = {
    "events": "connectors.event_targets:BusTarget",
    "lambda": "connectors.event_target_lambda:LambdaEventTarget",
    "s3": "connectors.event_targets:BucketTarget",
    "sns": "connectors.event_targets:TopicTarget",
    "sqs": "connectors.event_targets:QueueTarget",
}

#: Settings of a function that runs elsewhere -> the class that calls it.
TARGETS: Final[Mapping[type, str]] = {
    LambdaFunction: "connectors.lambda_target:LambdaTarget",
    UrlFunction: "connectors.url_target:UrlTarget",
}


def load(path: str) -> Any:
    """Import what an entry of these tables names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
