"""The keys of `destination_config`: who is told of batches that were given up."""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from config.aws_forms import DESTINATION_FORMS
from config.blocks import Block, BlockOf, takes
from config.kinds import Duration, SigningSecret
from config.locations import FilePath, ReadableFile, Url
from config.names import BUCKET, HEADERS, OBJECT_PREFIX, QUEUE, REGION, SERVERS, SNS_TOPIC, TOPIC, URL
from config.sources import Security
from config.spelling import Form
from connectors.settings import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSqs(Block):
    """A standard SQS queue."""

    queue: str = takes(QUEUE, "The queue; a FIFO queue is refused.", source="AWS")
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(
        REGION, "AWS region.", default=None, shown="that of an ARN or of a URL at AWS, else `aws.region`"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSns(Block):
    """A standard SNS topic."""

    topic: str = takes(SNS_TOPIC, "The topic; a FIFO topic is refused.", source="AWS")
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(REGION, "AWS region.", default=None, shown="that of an ARN, else `aws.region`")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToS3(Block):
    """An S3 bucket; one object for each failed batch, with its event."""

    bucket: str = takes(BUCKET, "The bucket.", source="S3")
    prefix: str = takes(
        OBJECT_PREFIX,
        "What stands before AWS's keys, such as `failed/`.",
        default="",
        shown="nothing",
    )
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(REGION, "AWS region of the bucket.", default=None, shown="`aws.region`")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToHttp(Block):
    """An HTTP endpoint; one POST for each failed batch, with its event."""

    url: Secret = takes(Url(), "Where to; messages show no more of it than the host.")
    secret: Secret | None = takes(
        SigningSecret(), "Shared with the receiver; signs what is posted.", default=None, shown="no signature"
    )
    headers: Mapping[str, Secret] = takes(
        HEADERS, "More headers of every request; their values are never shown.", default={}, shown="none"
    )
    ca: Path | None = takes(ReadableFile(), "PEM file of the authorities to trust.", default=None, shown="the system's")
    timeout: float = takes(Duration(0.1, 300.0), "Longest time that an answer may take.", default=10.0, shown="10s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToKafka(Block):
    """A Kafka topic; one message for each record of the failed batch."""

    topic: str = takes(TOPIC, "The topic, which must exist and not be the one that is read.", source="Kafka")
    bootstrap_servers: tuple[str, ...] | None = takes(
        SERVERS, "Brokers of another cluster.", default=None, shown="the source's cluster, if it is Kafka"
    )
    security: Security | None = takes(
        BlockOf(Security),
        "How to log in to the other cluster; with `bootstrap_servers` only.",
        default=None,
        shown="PLAINTEXT, or the source's in its cluster",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToFile(Block):
    """A file to which one JSON line a failure is appended."""

    path: Path = takes(FilePath("a path"), "The file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnFailure(Block):
    """Where failure records go, beside the failure store: exactly one key."""

    ONE: ClassVar[bool] = True
    FORMS: ClassVar[Mapping[str, Form]] = DESTINATION_FORMS

    sqs: ToSqs | None = takes(BlockOf(ToSqs), "An SQS queue.", default=None)
    sns: ToSns | None = takes(BlockOf(ToSns), "An SNS topic.", default=None)
    s3: ToS3 | None = takes(BlockOf(ToS3), "An S3 bucket.", default=None)
    kafka: ToKafka | None = takes(BlockOf(ToKafka), "A Kafka topic.", default=None)
    http: ToHttp | None = takes(BlockOf(ToHttp), "An HTTP endpoint.", default=None)
    file: ToFile | None = takes(BlockOf(ToFile), "A file.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationConfig(Block):
    """Who is told of batches that were given up."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "on_success": "event source mappings have no such destination, on AWS neither"
    }

    on_failure: OnFailure | None = takes(
        BlockOf(OnFailure), "Destination of failure records.", default=None, shown="none", aws=True
    )
