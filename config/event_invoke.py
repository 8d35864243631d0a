"""The keys of a function about events that are invoked asynchronously: how often and how long, and who is told.

Source of the keys and bounds: AWS Lambda API reference, PutFunctionEventInvokeConfig and DeadLetterConfig. All are
named by what AWS knows them by, an ARN, which is made of a name where the file has one: with the region and account of
the `aws` block, by whoever knows those.
"""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from config.aws_forms import Reference
from config.blocks import Block, BlockOf, takes
from config.kinds import Number, Text
from config.names import BUCKET
from config.settings import EventInvokeSettings
from config.spelling import Form

_ARN: Final = "arn:[a-z-]+:"
_QUEUE: Final = rf"{_ARN}sqs:[a-z0-9-]+:[0-9]{{12}}:[A-Za-z0-9_-]{{1,80}}"
_TOPIC: Final = rf"{_ARN}sns:[a-z0-9-]+:[0-9]{{12}}:[A-Za-z0-9_-]{{1,256}}"
_FUNCTION: Final = rf"{_ARN}lambda:[a-z0-9-]+:[0-9]{{12}}:function:[A-Za-z0-9_-]{{1,64}}(?::[A-Za-z0-9$_-]{{1,128}})?"
_BUS: Final = rf"{_ARN}events:[a-z0-9-]+:[0-9]{{12}}:event-bus/[A-Za-z0-9/._-]{{1,256}}"
_FIFO: Final = {rf"{_ARN}(?:sqs|sns):.*\.fifo$": "allowed a standard queue or topic, as on AWS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToQueue(Block):
    """A standard SQS queue."""

    queue: str = takes(
        Text("name or ARN of a standard queue", re.compile(rf"[A-Za-z0-9_-]{{1,80}}|{_QUEUE}")),
        "The queue; a FIFO queue is refused.",
        source="AWS",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToTopic(Block):
    """A standard SNS topic."""

    topic: str = takes(
        Text("name or ARN of a standard topic", re.compile(rf"[A-Za-z0-9_-]{{1,256}}|{_TOPIC}")),
        "The topic; a FIFO topic is refused.",
        source="AWS",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToBus(Block):
    """An event bus of EventBridge."""

    bus: str = takes(
        Text("name or ARN of an event bus", re.compile(rf"[A-Za-z0-9/._-]{{1,256}}|{_BUS}")), "The event bus."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToBucket(Block):
    """An S3 bucket; one object for each event."""

    bucket: str = takes(BUCKET, "The bucket.", source="S3")


_TO_FUNCTION: Final = Text(
    "name of a function, which a version or alias may follow, or its ARN",
    re.compile(rf"[A-Za-z0-9_-]{{1,64}}(?::[A-Za-z0-9$_-]{{1,128}})?|{_FUNCTION}"),
)
_WAYS: Final = {
    f"({_QUEUE})": "sqs.queue",
    f"({_TOPIC})": "sns.topic",
    f"({_FUNCTION})": "function",
    f"({_BUS})": "eventbridge.bus",
}
_BUCKET_WAY: Final = {rf"{_ARN}s3:::([^/:]+)": "s3.bucket"}


def _destination(allowed: str, ways: Mapping[str, str]) -> Mapping[str, Form]:
    paths = tuple(ways.values())
    return {"Destination": Form(Reference(allowed, ways, _FIFO), f"{allowed[0].upper()}{allowed[1:]}.", paths, "sqs")}


@dataclass(frozen=True, slots=True, kw_only=True)
class _EventPlace(Block):
    """Where records of events go: exactly one key."""

    ONE: ClassVar[bool] = True

    sqs: ToQueue | None = takes(BlockOf(ToQueue), "An SQS queue.", default=None)
    sns: ToTopic | None = takes(BlockOf(ToTopic), "An SNS topic.", default=None)
    function: str | None = takes(_TO_FUNCTION, "Another function, of this file or any.", default=None)
    eventbridge: ToBus | None = takes(BlockOf(ToBus), "An event bus.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSuccess(_EventPlace):
    """Where records of events go that have succeeded: exactly one key."""

    REFUSED: ClassVar[Mapping[str, str]] = {"s3": "AWS has buckets for failures only"}
    FORMS: ClassVar[Mapping[str, Form]] = _destination("ARN of an SQS queue, SNS topic, function or event bus", _WAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFailure(_EventPlace):
    """Where records of events go that have failed for good: exactly one key."""

    FORMS: ClassVar[Mapping[str, Form]] = _destination(
        "ARN of an SQS queue, SNS topic, function, event bus or S3 bucket", _WAYS | _BUCKET_WAY
    )

    s3: ToBucket | None = takes(BlockOf(ToBucket), "An S3 bucket.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDestinations(Block):
    """Who is told how events have ended."""

    on_success: EventSuccess | None = takes(
        BlockOf(EventSuccess), "Destination of events that have succeeded.", default=None, shown="none", aws=True
    )
    on_failure: EventFailure | None = takes(
        BlockOf(EventFailure), "Destination of events that have failed for good.", default=None, shown="none", aws=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventInvokeConfig(Block):
    """How events of a function are treated that are invoked asynchronously."""

    maximum_retry_attempts: int | None = takes(
        Number(0, 2), "Retries of a failed event.", source="AWS", default=None, shown="2", aws=True
    )
    maximum_event_age_in_seconds: int | None = takes(
        Number(60, 21600),
        "Events that would be older at their next try are given up.",
        source="AWS",
        default=None,
        shown="21600",
        aws=True,
    )
    destination_config: EventDestinations | None = takes(
        BlockOf(EventDestinations), "Who is told how they have ended.", default=None, shown="nobody", aws=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterConfig(Block):
    """Where events themselves go that have failed for good."""

    target_arn: str = takes(
        Text("ARN of a standard SQS queue or SNS topic", re.compile(f"{_QUEUE}|{_TOPIC}")),
        "The queue or topic; FIFO ones are refused.",
        source="AWS",
        aws=True,
    )


def event_settings(config: EventInvokeConfig | None, dead_letter: DeadLetterConfig | None) -> EventInvokeSettings:
    """Give what a function's blocks say, in which no mistake was found."""
    places = config.destination_config if config else None
    return EventInvokeSettings(
        maximum_retry_attempts=config.maximum_retry_attempts if config else None,
        maximum_event_age_s=config.maximum_event_age_in_seconds if config else None,
        on_success=_named(places.on_success) if places and places.on_success else None,
        on_failure=_named(places.on_failure) if places and places.on_failure else None,
        dead_letter=dead_letter.target_arn if dead_letter else None,
    )


def _named(place: EventSuccess | EventFailure) -> str:
    """Name a destination, of which exactly one is there."""
    bucket = place.s3.bucket if isinstance(place, EventFailure) and place.s3 else None
    named = {
        "sqs:": place.sqs and place.sqs.queue,
        "sns:": place.sns and place.sns.topic,
        "lambda:function:": place.function,
        "events:event-bus/": place.eventbridge and place.eventbridge.bus,
        "s3:": bucket,
    }
    [(kind, name)] = [(kind, name) for kind, name in named.items() if name]
    return name if name.startswith("arn:") else f"{kind}{name}"
