"""The keys of `destination_config`: who is told of batches that were given up."""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from config.aws_forms import DESTINATION_FORMS
from config.blocks import Block, BlockOf, takes
from config.locations import FilePath
from config.mistakes import LATER
from config.names import QUEUE, REGION, SERVERS, TOPIC, URL
from config.sources import Security
from config.spelling import Form


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSqs(Block):
    """A standard SQS queue."""

    queue: str = takes(QUEUE, "The queue; a FIFO queue is refused.", source="AWS")
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(
        REGION, "AWS region.", default=None, shown="that of an ARN or of a URL at AWS, else `aws.region`"
    )


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
    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sns", "s3", "http"), f"{LATER}, only sqs, kafka and file are"
    )
    FORMS: ClassVar[Mapping[str, Form]] = DESTINATION_FORMS

    sqs: ToSqs | None = takes(BlockOf(ToSqs), "An SQS queue.", default=None)
    kafka: ToKafka | None = takes(BlockOf(ToKafka), "A Kafka topic.", default=None)
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
