"""Settings of sources and destinations: plain frozen values that need no client library to be made or read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias


class Secret:
    """A text that never shows: not in `repr`, `str`, f-strings, log lines or error messages."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """Give the text itself, for whom it was meant."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """How to reach AWS or what stands in for it; None = what the usual AWS environment and profile say."""

    endpoint_url: str | None = None
    region: str | None = None
    #: Twelve digits, which ARNs of ours have.
    account_id: str = "000000000000"


@dataclass(frozen=True, slots=True)
class KeptSecrets:
    """Secrets that open a Kafka cluster, each by its name or ARN in AWS Secrets Manager or what stands in for it."""

    endpoint_url: str | None
    region: str | None
    #: User name and password; None = nobody logs in.
    login: str | None = None
    #: Our own certificate and its key.
    certificate: str | None = None
    #: The authorities to trust; None = the system's.
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Pems:
    """Texts of PEM files that are nowhere on disk."""

    authority: str | None = None
    certificate: str | None = None
    key: Secret | None = None


@dataclass(frozen=True, slots=True)
class Security:
    """How to log in to a Kafka cluster and how to trust it."""

    #: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    protocol: str = "PLAINTEXT"
    #: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; set exactly when the protocol has SASL.
    mechanism: str | None = None
    username: str | None = field(default=None, repr=False)
    password: Secret | None = None
    #: PEM file of the authorities to trust; None = the system's.
    ca: Path | None = None
    #: PEM files of our own certificate and its key; both or neither.
    certificate: Path | None = None
    key: Path | None = None
    key_password: Secret | None = None
    #: In place of the files; read out of what is kept elsewhere.
    pems: Pems | None = None
    #: Where the rest is kept, which is read anew for each connection; None = it is all here.
    kept: KeptSecrets | None = None


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """One topic read by one consumer group."""

    #: Name of the event source mapping.
    mapping: str
    #: `host:port`, at least one.
    bootstrap_servers: tuple[str, ...]
    topic: str
    consumer_group: str
    #: TRIM_HORIZON, LATEST or AT_TIMESTAMP: where a partition without a committed offset starts.
    starting_position: str
    #: Epoch seconds; set exactly with AT_TIMESTAMP.
    starting_timestamp_s: float | None
    #: Longest time an in-flight batch may take when a partition is revoked.
    drain_s: float
    security: Security
    #: read_uncommitted or read_committed.
    isolation_level: str
    client_id: str
    #: Static membership; None = dynamic.
    group_instance_id: str | None
    session_timeout_s: float
    #: `eventSource` of the event.
    event_source: str
    #: `eventSourceArn` of it; None = it has none, as of a cluster of one's own.
    event_source_arn: str | None = None


def queue_name(queue: str) -> str:
    """Give the name of a queue that is given by name, URL or ARN."""
    return queue.rpartition("/" if "/" in queue else ":")[2]


@dataclass(frozen=True, slots=True)
class SqsSettings:
    """One queue, standard or FIFO (its name ends in .fifo)."""

    #: Name of the event source mapping.
    mapping: str
    #: Name, URL or ARN.
    queue: str
    endpoint_url: str | None
    region: str | None
    #: Is there a batching window? AWS's events differ in one member by it.
    windowed: bool


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The notifications of one bucket, which come through a standard queue."""

    #: The queue.
    sqs: SqsSettings
    bucket: str
    #: Event types as S3 names them, such as `s3:ObjectCreated:*`; at least one.
    events: tuple[str, ...]
    #: Beginning and end of the keys that are wanted, decoded; empty = all.
    prefix: str
    suffix: str
    #: Are events of one key run one after the other, by their sequencer where they are in hand together?
    by_sequencer: bool


def _named(text: str) -> str:
    """Give the name of a stream or table out of itself, or out of an ARN that begins with it."""
    return text.split("/")[1] if "/" in text else text


@dataclass(frozen=True, slots=True)
class KinesisSettings:
    """One Kinesis stream, or one registered consumer of it (enhanced fan-out)."""

    #: Name of the event source mapping.
    mapping: str
    #: Name or ARN of the stream, or ARN of a consumer.
    stream: str
    endpoint_url: str | None
    region: str | None
    #: Are records that the Kinesis Producer Library has put together taken apart, also where AWS does not?
    deaggregate: bool = False

    @property
    def name(self) -> str:
        """Name of the stream."""
        return _named(self.stream)

    @property
    def is_consumer(self) -> bool:
        return ":stream/" in self.stream and "/consumer/" in self.stream


@dataclass(frozen=True, slots=True)
class DynamoDbSettings:
    """The stream of one table."""

    #: Name of the event source mapping.
    mapping: str
    #: Name of the table, or ARN of one of its streams.
    table: str
    endpoint_url: str | None
    region: str | None

    @property
    def name(self) -> str:
        """Name of the table."""
        return _named(self.table)


@dataclass(frozen=True, slots=True)
class LambdaFunction:
    """A function deployed on AWS Lambda, or on what stands in for it."""

    #: Name in the file.
    name: str
    #: Without version or alias.
    arn: str
    #: Version or alias; None = what the ARN alone means.
    qualifier: str | None
    endpoint_url: str | None
    region: str | None
    #: Longest wait for an answer.
    timeout_s: float
    #: Calls at once, at most.
    concurrency: int
    #: Is the end of its log asked for?
    logs: bool

    @property
    def invoked_arn(self) -> str:
        return f"{self.arn}:{self.qualifier}" if self.qualifier else self.arn


@dataclass(frozen=True, slots=True)
class UrlFunction:
    """A function behind a URL, which takes events as POST."""

    #: Name in the file.
    name: str
    #: It may hold a key.
    url: Secret
    #: More headers of every request, by name.
    headers: Mapping[str, Secret]
    #: PEM file of the authorities to trust; None = the system's.
    ca: Path | None
    #: Longest wait for an answer, from when the event is sent.
    timeout_s: float
    #: Calls at once, at most.
    concurrency: int
    #: Is the end of its log asked for?
    logs: bool


@dataclass(frozen=True, slots=True)
class SqsDestination:
    """A standard SQS queue that takes failure records."""

    #: Name, URL or ARN.
    queue: str
    endpoint_url: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class SnsDestination:
    """A standard SNS topic that is told of failure records."""

    #: Name or ARN.
    topic: str
    endpoint_url: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class S3Destination:
    """A bucket that takes failure records, an object each."""

    bucket: str
    #: What stands before AWS's own keys; empty = nothing.
    prefix: str
    endpoint_url: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class HttpDestination:
    """An endpoint that is posted failure records."""

    #: http or https; path and query may be secret.
    url: Secret
    #: Signs what is posted; None = it is not signed.
    secret: Secret | None
    #: More headers of every request.
    headers: Mapping[str, Secret]
    #: PEM file of the authorities to trust; None = the system's.
    ca: Path | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class KafkaDestination:
    """A Kafka topic that takes failure records."""

    topic: str
    bootstrap_servers: tuple[str, ...]
    security: Security


@dataclass(frozen=True, slots=True)
class FileDestination:
    """A file to which failure records are appended, one JSON line each."""

    path: Path


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """The Redis that the replicas of a fleet share, and what of it is theirs."""

    #: `redis` or `rediss`.
    tls: bool
    host: str
    port: int
    database: int
    username: str | None = field(default=None, repr=False)
    password: Secret | None = None
    #: PEM file of the authorities to trust; None = the system's.
    ca: Path | None = None
    #: PEM files of our own certificate and its key; both or neither.
    certificate: Path | None = None
    key: Path | None = None
    #: Events of failures over so many bytes are put elsewhere, and their place into Redis; None = never.
    payloads_over_bytes: int | None = None
    #: Where: a bucket, or a folder that all replicas share. Set exactly with the limit.
    payloads: S3Destination | Path | None = None

    @property
    def shown(self) -> str:
        """The address for people: no user, no password."""
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"


TargetSettings: TypeAlias = LambdaFunction | UrlFunction
SourceSettings: TypeAlias = KafkaSettings | KinesisSettings | DynamoDbSettings | SqsSettings | S3Settings
DestinationSettings: TypeAlias = (
    SqsDestination | SnsDestination | S3Destination | HttpDestination | KafkaDestination | FileDestination
)
