"""AWS's own ways to name a source, a function and a destination: an ARN, or blocks that hold one value of ours.

Source of the shapes: AWS Lambda API reference, CreateEventSourceMapping, and AWS CloudFormation template reference,
AWS::Lambda::EventSourceMapping. The two differ in a few spellings; both are taken.
"""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from config.blocks import Block, BlockOf, ListOf, takes
from config.document import Node
from config.kinds import Choice, Text
from config.mistakes import LATER, Place, Unfit
from config.names import GROUP, LOG_GROUP, SERVERS, STREAM_ARN, TABLE_STREAM_ARN, TOPIC, VARIABLES
from config.reading import Found, Kind, Schema, schema_of_text
from config.sources import UNSUPPORTED
from config.spelling import Form, Piece, unfit


@dataclass(frozen=True, slots=True)
class Deferred:
    """A value that is read where it belongs."""

    kind: Kind[Any]

    @property
    def allowed(self) -> str:
        return self.kind.allowed

    def read(self, found: Found) -> Node:
        return found.node


@dataclass(frozen=True, slots=True)
class Inside:
    """Blocks of AWS's, one in the other, of which the last holds a value of ours."""

    block: BlockOf[Any]
    #: The keys that lead to it, by our spelling.
    way: tuple[str, ...]
    path: str
    #: What its words are in ours; empty = the same.
    words: Mapping[str, str | bool] = field(default_factory=dict)

    @property
    def allowed(self) -> str:
        return self.block.allowed

    def read(self, found: Found) -> tuple[Piece, ...]:
        block: Any = self.block.read(found)
        *outer, last = self.way
        for name in outer:
            if not block.sound(name):
                return (unfit(self.path, found.place),)
            block = getattr(block, name)
        piece = _piece(block, last, self.path, self.words, found.place)
        return (piece,) if piece else ()


@dataclass(frozen=True, slots=True)
class Several:
    """A block of AWS's that holds several values of ours."""

    block: BlockOf[Any]
    #: Key of it, by our spelling -> where its value belongs, and what its words are in ours; empty = the same.
    ways: Mapping[str, tuple[str, Mapping[str, str]]]

    @property
    def allowed(self) -> str:
        return self.block.allowed

    def read(self, found: Found) -> tuple[Piece, ...]:
        block = self.block.read(found)
        pieces = [_piece(block, key, path, words, found.place) for key, (path, words) in self.ways.items()]
        return tuple(piece for piece in pieces if piece)


def _piece(block: Any, key: str, path: str, words: Mapping[str, Any], place: Place) -> Piece | None:
    """Give the value of a key, in our words; None = it is not there."""
    if not block.sound(key):
        return unfit(path, place)
    if not block.gives(key):
        return None
    node = block.entries[key].node
    if words:
        node = replace(node, value=words[getattr(block, key)])
    return Piece(path, node, block.at(key))


@dataclass(frozen=True, slots=True)
class Single:
    """A list of exactly one value of ours."""

    kind: Kind[Any]
    path: str

    @property
    def allowed(self) -> str:
        return f"a list of one: {self.kind.allowed}"

    def read(self, found: Found) -> tuple[Piece, ...]:
        if not isinstance(found.value, tuple):
            raise found.mismatch(self.allowed)
        if len(found.value) != 1:
            raise Unfit(f"found a list of {len(found.value)}, allowed {self.allowed}")
        [item] = found.value
        return (Piece(self.path, item, found.place.item(0, item.line)),)


@dataclass(frozen=True, slots=True)
class Reference:
    """A text whose form says what it names."""

    allowed: str
    #: Form of the whole text -> where its first group belongs.
    ways: Mapping[str, str]
    #: Form of the beginning of the text -> what to say.
    refused: Mapping[str, str]

    @property
    def schema(self) -> Schema:
        return schema_of_text("|".join(self.ways))

    def read(self, found: Found) -> tuple[Piece, ...]:
        text = found.value
        if not isinstance(text, str):
            raise found.mismatch(self.allowed)
        for form, path in self.ways.items():
            if match := re.fullmatch(form, text):
                return (Piece(path, replace(found.node, value=match[1]), found.place),)
        for form, answer in self.refused.items():
            if re.match(form, text):
                raise Unfit(f"found {found.node.shown()}, {answer}")
        raise found.mismatch(self.allowed)


# --- sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints(Block):
    """Where a cluster of one's own is."""

    kafka_bootstrap_servers: Node = takes(
        Deferred(SERVERS),
        "Brokers to ask first.",
        source="AWS",
        aws=("KAFKA_BOOTSTRAP_SERVERS", "KafkaBootstrapServers"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfManagedEventSource(Block):
    """A Kafka cluster of one's own, as AWS names it."""

    endpoints: Endpoints = takes(BlockOf(Endpoints), "Where it is.", source="AWS", aws=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig(Block):
    """How a Kafka topic is read, as AWS has it."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(("schema_registry_config", "consumption_mode"), LATER)

    consumer_group_id: Node | None = takes(
        Deferred(GROUP),
        "Group that holds the offsets.",
        source="AWS",
        default=None,
        shown="the mapping's name",
        aws=True,
    )


_ASKS: Final = "names a secret that AWS keeps; write source.kafka.security with"
#: What a type of access asks for here, beside `protocol`.
_ACCESS: Final[Mapping[str, str]] = {
    "BASIC_AUTH": f"{_ASKS} mechanism PLAIN, username and password",
    "SASL_SCRAM_256_AUTH": f"{_ASKS} mechanism SCRAM-SHA-256, username and password",
    "SASL_SCRAM_512_AUTH": f"{_ASKS} mechanism SCRAM-SHA-512, username and password",
    "CLIENT_CERTIFICATE_TLS_AUTH": f"{_ASKS} certificate and key",
    "SERVER_ROOT_CA_CERTIFICATE": f"{_ASKS} ca",
}
#: Types that say where in AWS's network a function is.
NETWORK: Final = ("VPC_SUBNET", "VPC_SECURITY_GROUP")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfiguration(Block):
    """One secret, or one piece of a network, of AWS's."""

    type: str = takes(Choice((*NETWORK, *_ACCESS)), "What it is.", source="AWS", aws=True)
    uri: str = takes(Text(), "Which one.", source="AWS", aws=("URI",))


@dataclass(frozen=True, slots=True)
class AccessConfigurations:
    """Secrets and networks of AWS's: the former are asked for, the latter have no meaning here."""

    items: ListOf[AccessConfiguration] = ListOf(BlockOf(AccessConfiguration), 0, 23)

    @property
    def allowed(self) -> str:
        return self.items.allowed

    def read(self, found: Found) -> tuple[Piece, ...]:
        report = found.reader.report
        for item in self.items.read(found):
            if not item.sound("type"):
                continue
            if item.type in _ACCESS:
                report.add(item.at("type"), f"{item.type} {_ACCESS[item.type]}")
            else:
                report.note(item.at("type"), f"{item.type} has no effect: the network is this machine's")
        return ()


_ARN: Final = "arn:[a-z-]+:"
_QUEUE_ARN: Final = f"({_ARN}sqs:[a-z0-9-]+:[0-9]+:[A-Za-z0-9_-]{{1,80}}(?:\\.fifo)?)"
_FUNCTION_ARN: Final = f"({_ARN}lambda:[a-z0-9-]+:[0-9]{{12}}:function:[A-Za-z0-9_-]+(?::[A-Za-z0-9$_-]+)?)"
_FUNCTION: Final = "(?:[0-9]{12}:function:|function:)?([A-Za-z0-9_-]+)"
_TOPIC_ARN: Final = f"({_ARN}sns:[a-z0-9-]+:[0-9]+:[A-Za-z0-9_-]{{1,256}}(?:\\.fifo)?)"
_BUCKET_ARN: Final = f"{_ARN}s3:::([^/:]+)"


#: Levels of an event source mapping, and of a function's own log, in ours.
_SYSTEM_LEVELS: Final = {"DEBUG": "debug", "INFO": "info", "WARN": "warning"}
APPLICATION_LEVELS: Final = {"TRACE": "debug", **_SYSTEM_LEVELS, "ERROR": "error", "FATAL": "error"}
#: Forms of its lines, in ours.
LOG_FORMATS: Final = {"Text": "text", "JSON": "json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingLogging(Block):
    """What a mapping logs, as AWS has it."""

    system_log_level: str | None = takes(
        Choice(tuple(_SYSTEM_LEVELS)), "Least level to log.", source="AWS", default=None, shown="none", aws=True
    )


#: Of an event source mapping.
MAPPING_FORMS: Final[Mapping[str, Form]] = {
    "FunctionName": Form(
        Reference(
            "the name or ARN of a function in this file",
            {_FUNCTION_ARN: "function", rf"{_FUNCTION}(?::\$LATEST)?": "function"},
            {f"{_FUNCTION}:": "allowed a function without version or alias: a function of this file has one code"},
        ),
        "Function to invoke: name, `name:$LATEST`, `account:function:name` (the name counts) or "
        "[ARN](targets.md#by-its-arn-in-a-mapping).",
        ("function",),
    ),
    "EventSourceArn": Form(
        Reference(
            "ARN of a Kinesis stream or consumer, of a DynamoDB stream, or of an SQS queue",
            {
                f"({STREAM_ARN})": "source.kinesis.stream",
                f"({TABLE_STREAM_ARN})": "source.dynamodb.table",
                _QUEUE_ARN: "source.sqs.queue",
            },
            {
                f"{_ARN}dynamodb:[^/]*:table/[^/]*$": "allowed the ARN of the table's stream, its LatestStreamArn; or "
                "write the table's name as source.dynamodb.table",
                f"{_ARN}kafka:": "write bootstrap_servers and topic of that cluster under source.kafka",
                f"{_ARN}(?:mq|rds):": UNSUPPORTED,
            },
        ),
        "ARN of the stream, consumer or queue to read.",
        ("source.kinesis.stream", "source.dynamodb.table", "source.sqs.queue"),
        "source",
    ),
    "SelfManagedEventSource": Form(
        Inside(
            BlockOf(SelfManagedEventSource), ("endpoints", "kafka_bootstrap_servers"), "source.kafka.bootstrap_servers"
        ),
        "The Kafka cluster to read.",
        ("source.kafka.bootstrap_servers",),
    ),
    "Topics": Form(Single(TOPIC, "source.kafka.topic"), "The one topic to read.", ("source.kafka.topic",)),
    **{
        name: Form(
            Inside(BlockOf(KafkaConfig), ("consumer_group_id",), "source.kafka.consumer_group"),
            "Group that holds the offsets.",
            ("source.kafka.consumer_group",),
            always=False,
        )
        for name in ("SelfManagedKafkaEventSourceConfig", "AmazonManagedKafkaEventSourceConfig")
    },
    "SourceAccessConfigurations": Form(
        AccessConfigurations(),
        "Networks of AWS, which have no effect; its secrets are refused: `source.kafka.security` takes their place.",
        (),
    ),
    "LoggingConfig": Form(
        Inside(BlockOf(MappingLogging), ("system_log_level",), "log_level", _SYSTEM_LEVELS),
        "Least level of lines about the mapping.",
        ("log_level",),
        always=False,
    ),
}

#: Of an event source mapping: taken, and without effect here.
MAPPING_IDLE: Final[Mapping[str, str]] = {
    "Tags": "has no effect: nothing here is found by tags",
    **dict.fromkeys(("KmsKeyArn", "KMSKeyArn"), "has no effect: filters are in this file as they are"),
    "MetricsConfig": "has no effect: all metrics are always served, see listen",
}

#: Of the destination of failure records.
DESTINATION_FORMS: Final[Mapping[str, Form]] = {
    "Destination": Form(
        Reference(
            "ARN of an SQS queue, SNS topic or S3 bucket, or kafka://TOPIC",
            {
                _QUEUE_ARN: "sqs.queue",
                _TOPIC_ARN: "sns.topic",
                _BUCKET_ARN: "s3.bucket",
                "kafka://(.*)": "kafka.topic",
            },
            {},
        ),
        "ARN of an SQS queue, SNS topic or S3 bucket, or `kafka://TOPIC` of the source's cluster.",
        ("sqs.queue", "sns.topic", "s3.bucket", "kafka.topic"),
        "sqs",
    )
}


# --- functions


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Block):
    """The environment of a function, as AWS has it."""

    variables: Node | None = takes(
        Deferred(VARIABLES), "Variables of the worker.", source="AWS", default=None, shown="none", aws=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionLogging(Block):
    """What a function logs, as AWS has it."""

    IDLE: ClassVar[Mapping[str, str]] = {
        "SystemLogLevel": "has no effect: log_level of a mapping and at top level are those of the daemon's lines",
    }

    application_log_level: str | None = takes(
        Choice(tuple(APPLICATION_LEVELS)),
        "Least level of the handler's log.",
        source="AWS",
        default=None,
        shown="none",
        aws=True,
    )
    log_format: str | None = takes(
        Choice(tuple(LOG_FORMATS)), "How its lines are written.", source="AWS", default=None, shown="none", aws=True
    )
    log_group: Node | None = takes(
        Deferred(LOG_GROUP), "Log group in CloudWatch Logs.", source="AWS", default=None, shown="none", aws=True
    )


#: What SnapStart applies to, in ours: here a function has one version.
_APPLIED: Final = {"PublishedVersions": True, "None": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapStart(Block):
    """What is restored from a snapshot, as AWS has it."""

    apply_on: str = takes(Choice(tuple(_APPLIED)), "What it is for.", source="AWS", aws=True)


#: Of a function.
FUNCTION_FORMS: Final[Mapping[str, Form]] = {
    "Environment": Form(
        Inside(BlockOf(Environment), ("variables",), "environment"),
        "Variables of the worker.",
        ("environment",),
        always=False,
    ),
    "LoggingConfig": Form(
        Several(
            BlockOf(FunctionLogging),
            {
                "application_log_level": ("log_level", APPLICATION_LEVELS),
                "log_format": ("log_format", LOG_FORMATS),
                "log_group": ("log_group", {}),
            },
        ),
        "Level, form and group of the handler's log.",
        ("log_level", "log_format", "log_group"),
        always=False,
    ),
    "SnapStart": Form(
        Inside(BlockOf(SnapStart), ("apply_on",), "snap_start", _APPLIED),
        "`ApplyOn: PublishedVersions` is true.",
        ("snap_start",),
    ),
}
