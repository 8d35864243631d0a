"""The keys of `source`: where records come from.

Ranges and defaults marked "AWS" are those of the AWS Lambda API reference (CreateEventSourceMapping); those marked
"Kafka" are of Apache Kafka's clients and brokers, those marked "S3" of Amazon S3's event notifications.
"""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from config.blocks import EMPTY, Block, BlockOf, ListOf, takes
from config.kinds import Choice, Duration, EventType, Flag, SecretText, Text
from config.locations import ReadableFile
from config.mistakes import LATER, listed
from config.names import BUCKET, CONSUMER, GROUP, QUEUE, REGION, SERVERS, STREAM, TABLE, TOPIC, URL
from connectors.settings import Secret


class Defaults(NamedTuple):
    """What depends on the source where the file says nothing."""

    #: Records.
    batch_size: int
    window_s: float


#: AWS Lambda API reference, CreateEventSourceMapping; S3 gives a function one event at a time.
DEFAULTS: Final[Mapping[str, Defaults]] = {
    "kafka": Defaults(100, 0.5),
    "kinesis": Defaults(100, 0.0),
    "dynamodb": Defaults(100, 0.0),
    "sqs": Defaults(10, 0.0),
    "s3": Defaults(1, 0.0),
}
#: Said of sources that AWS has.
UNSUPPORTED: Final = f"not supported, only {listed(tuple(DEFAULTS))} sources are"
#: Sources that are streams of shards whose checkpoints we keep, and all that are streams.
SHARDED: Final = ("kinesis", "dynamodb")
STREAMS: Final = ("kafka", *SHARDED)
#: Sources that are queues of messages.
QUEUES: Final = ("sqs", "s3")
#: Reads of a shard in a row, from the start of one to that of the next: a Kinesis shard takes five reads a second
#: (Amazon Kinesis API reference, GetRecords), and AWS Lambda reads a shard of a table four times a second.
KINESIS_PACE_S: Final = 0.2
DYNAMODB_PACE_S: Final = 0.25
#: What a Kinesis shard gives in a second; what is read at once, up to 10 MB, counts for the seconds that follow.
KINESIS_BYTES_PER_S: Final = 2_000_000
#: Most records of one read of a Kinesis shard.
KINESIS_READ_COUNT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Security(Block):
    """How to log in to a Kafka cluster and how to trust it."""

    protocol: str = takes(
        Choice(("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")), "Protocol.", source="Kafka", default="PLAINTEXT"
    )
    mechanism: str | None = takes(
        Choice(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
        "How to log in; with SASL only.",
        source="Kafka",
        default=None,
    )
    username: str | None = takes(Text(), "With SASL only.", source="Kafka", default=None)
    password: Secret | None = takes(SecretText(), "With SASL only.", source="Kafka", default=None)
    ca: Path | None = takes(
        ReadableFile(), "Authorities to trust; with SSL only.", source="Kafka", default=None, shown="the system's"
    )
    certificate: Path | None = takes(
        ReadableFile(), "Our own certificate, for mutual TLS; with SSL only.", source="Kafka", default=None
    )
    key_password: Secret | None = takes(SecretText(), "Opens the key.", source="Kafka", default=None)
    key: Path | None = takes(ReadableFile(), "Key of the certificate.", source="Kafka", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka(Block):
    """A topic, read by a consumer group."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(("schema_registry_config", "consumption_mode"), LATER)

    bootstrap_servers: tuple[str, ...] = takes(SERVERS, "Brokers to ask first.", source="AWS")
    topic: str = takes(TOPIC, "The one topic to read.", source="Kafka")
    consumer_group: str | None = takes(
        GROUP, "Group that holds the offsets.", source="AWS", default=None, shown="the mapping's name"
    )
    security: Security = takes(BlockOf(Security), "How to log in.", default=EMPTY, shown="PLAINTEXT")
    isolation_level: str = takes(
        Choice(("read_uncommitted", "read_committed")),
        "Are records of open and aborted transactions read?",
        source="Kafka",
        default="read_uncommitted",
    )
    client_id: str = takes(
        Text("1 to 200 printable characters", re.compile(r"[!-~]{1,200}")),
        "Name in the broker's logs and quotas.",
        default="headrace",
    )
    group_instance_id: str | None = takes(
        Text(
            "1 to 249 letters, digits, ., - and _, and {replica} in them",
            re.compile(r"(?=.{1,249}$)[A-Za-z0-9._-]*(\{replica\}[A-Za-z0-9._-]*)?"),
        ),
        "Static membership: a restart within the session timeout moves no partition. One daemon at a time may use it: "
        "replicas that share their state put `{replica}` where their name is to stand.",
        source="Kafka",
        default=None,
        shown="dynamic membership",
    )
    session_timeout: float = takes(
        Duration(6.0, 1800.0),
        "A daemon that is silent this long loses its partitions. The range is a broker's default.",
        source="Kafka",
        default=10.0,
        shown="10s",
    )
    event_source: str = takes(
        Choice(("SelfManagedKafka", "aws:SelfManagedKafka", "aws:kafka")),
        "`eventSource` in the event, for handlers that look at it.",
        source="AWS",
        default="SelfManagedKafka",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinesis(Block):
    """A Kinesis stream, or a consumer that is registered with it (enhanced fan-out)."""

    stream: str = takes(STREAM, "The stream, or the consumer to which it pushes records.", source="AWS")
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(REGION, "AWS region.", default=None, shown="that of an ARN, else `aws.region`")
    deaggregate: bool = takes(
        Flag(),
        "Take records apart that the Kinesis Producer Library has put together. From a consumer they come apart in any "
        "case, as on AWS.",
        default=False,
    )
    poll_interval: float = takes(
        Duration(KINESIS_PACE_S, 60.0),
        "How often a shard is read that has nothing new; not with a consumer. One that has is read five times a "
        "second, which is all that a shard takes from all its readers together.",
        default=1.0,
        shown="1s",
    )

    @property
    def is_consumer(self) -> bool:
        return CONSUMER in self.stream


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamoDb(Block):
    """The stream of a DynamoDB table."""

    table: str = takes(TABLE, "The table, or its stream.", source="AWS")
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(REGION, "AWS region.", default=None, shown="that of an ARN, else `aws.region`")
    poll_interval: float = takes(
        Duration(0.1, 60.0),
        "How often a shard is read that has nothing new; one that has, at least every 250ms.",
        default=DYNAMODB_PACE_S,
        shown="250ms",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier(Block):
    """A queue whose messages are leased: what a queue of messages and one of notifications have in common."""

    queue: str = takes(QUEUE, "The queue; one whose name ends in `.fifo` is a FIFO queue.", source="AWS")
    endpoint_url: str | None = takes(URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(
        REGION, "AWS region.", default=None, shown="that of an ARN or of a URL at AWS, else `aws.region`"
    )
    visibility_heartbeat: bool = takes(
        Flag(),
        "Extend the visibility timeout of messages in hand while they wait or run. Without it, as on AWS, a message "
        "comes again when its visibility timeout ends.",
        default=False,
    )
    retry_throttled: str = takes(
        Choice(("within_visibility", "covers_timeout")),
        "How long a batch that found no worker is tried again: while its visibility timeout lasts, or only while what "
        "is left of it covers the function's timeout.",
        default="within_visibility",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sqs(Carrier):
    """An SQS queue, standard or FIFO."""

    hold_message_group: bool = takes(
        Flag(),
        "FIFO only: a message that the function reports as failed takes the later ones of its group in the batch with "
        "it, so that the group stays in order whatever the function does. AWS deletes them.",
        default=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter(Block):
    """Which objects; compared with the decoded key."""

    prefix: str = takes(
        Text("1 to 1024 characters", re.compile(r"[\s\S]{1,1024}")),
        "Beginning of the key.",
        source="S3",
        default="",
        shown="any",
    )
    suffix: str = takes(
        Text("1 to 1024 characters", re.compile(r"[\s\S]{1,1024}")),
        "End of the key.",
        source="S3",
        default="",
        shown="any",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class S3(Carrier):
    """Notifications of a bucket, which come through a standard queue."""

    queue: str = takes(QUEUE, "The queue that the bucket notifies; a FIFO queue is refused.", source="AWS")
    bucket: str = takes(BUCKET, "The bucket.", source="S3")
    events: tuple[str, ...] = takes(
        ListOf(EventType(), 1, 30), "Event types.", source="S3", default=("s3:ObjectCreated:*",)
    )
    filter: KeyFilter = takes(BlockOf(KeyFilter), "Which objects.", source="S3", default=EMPTY, shown="all")
    order: str = takes(
        Choice(("none", "sequencer")),
        "`sequencer`: events of one key run one after the other, in the order in which S3 numbered them, as far as "
        "they are in hand together. S3 promises no order.",
        default="none",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Block):
    """Where records come from: exactly one key."""

    ONE: ClassVar[bool] = True
    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("http", "schedule", "sns", "eventbridge"), f"{LATER}, only {listed(tuple(DEFAULTS))} are"
    )

    kafka: Kafka | None = takes(BlockOf(Kafka), "A Kafka topic.", default=None)
    kinesis: Kinesis | None = takes(BlockOf(Kinesis), "A Kinesis stream.", default=None)
    dynamodb: DynamoDb | None = takes(BlockOf(DynamoDb), "The stream of a DynamoDB table.", default=None)
    sqs: Sqs | None = takes(BlockOf(Sqs), "An SQS queue.", default=None)
    s3: S3 | None = takes(BlockOf(S3), "Notifications of an S3 bucket.", default=None)

    @property
    def kind(self) -> str | None:
        """The one key that is there; None = none or several are."""
        kinds = [name for name in self.declared() if self.gives(name)]
        return kinds[0] if len(kinds) == 1 else None

    @property
    def carrier(self) -> Sqs | S3 | None:
        """The queue that is polled, if one is."""
        return self.sqs or self.s3
