"""The keys of `headrace.yaml`: what each takes, its default, what it means and whose rule that is.

Ranges and defaults marked "AWS" are those of the AWS Lambda API reference (CreateEventSourceMapping, CreateFunction)
for a self-managed Kafka source; those marked "Kafka" are of Apache Kafka's clients and brokers. What AWS offers in
provisioned mode only is always offered here. Contradictions between keys are found in `contradictions`.
"""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from config.blocks import EMPTY, REQUIRED, Block, BlockOf, ListOf, MapOf, Names, nested, takes
from config.kinds import (
    Choice,
    Code,
    Duration,
    FilePath,
    Flag,
    Interpreter,
    Listen,
    Moment,
    Number,
    Pattern,
    ReadableFile,
    SecretText,
    Server,
    Size,
    Text,
    VariableText,
)
from connectors.settings import Secret
from router.core.filter import MAX_PATTERNS

#: Longest timeout of a function that reads Kafka (AWS Lambda developer guide: 14 minutes).
KAFKA_TIMEOUT_S: Final = 840.0
#: Names and values of a function's variables together (AWS Lambda quotas).
ENVIRONMENT_BYTES: Final = 4096

_DAY_S: Final = 86400.0
_LATER: Final = "not supported yet"

_NAME: Final = Names("1 to 64 letters, digits, - and _", re.compile(r"[A-Za-z0-9_-]{1,64}"))
_HANDLER: Final = Text("module.attribute", re.compile(r"[^\s./]+(?:[./][^\s./]+)*\.[^\W\d]\w*"))
_TOPIC: Final = Text(
    "a topic name of 1 to 249 letters, digits, ., - and _", re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")
)
_GROUP: Final = Text("1 to 200 letters, digits and -/*:_+=.@", re.compile(r"[A-Za-z0-9/*:_+=.@-]{1,200}"))
_URL: Final = Text("http(s)://host[:port] without credentials", re.compile(r"https?://[^\s/@?#]+(?:/[^\s@?#]*)?"))
_REGION: Final = Text("name of a region", re.compile(r"[a-z0-9-]{1,32}"))
_QUEUE: Final = Text(
    "name, URL or ARN of a queue",
    re.compile(r"(?:https?://[^\s@]+/|arn:[a-z-]+:sqs:[a-z0-9-]+:[0-9]+:)?[A-Za-z0-9_-]{1,80}(?:\.fifo)?"),
)
_SERVERS: Final = ListOf(Server(), 1, 10, commas=True)

#: Variables that the runtime sets itself (AWS Lambda developer guide, "Defined runtime environment variables"). PATH,
#: PYTHONPATH, LD_LIBRARY_PATH, LANG and TZ are the user's to set, as there.
_RESERVED: Final = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
    }
)


def _refuse_reserved(name: str) -> str | None:
    return "set by the runtime, allowed any other variable" if name in _RESERVED else None


_VARIABLE: Final = Names(
    "letters, digits and _, not beginning with a digit", re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), _refuse_reserved
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aws(Block):
    """How to reach AWS or what stands in for it, where something needs it."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("profile", "access_key_id", "secret_access_key", "session_token"),
        f"{_LATER}; the usual AWS environment and profile are used (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...)",
    )

    endpoint_url: str | None = takes(
        _URL, "Endpoint in place of AWS's own.", default=None, shown="the usual AWS environment's"
    )
    region: str | None = takes(_REGION, "AWS region.", default=None, shown="the usual AWS environment's")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures(Block):
    """How long failed batches are kept."""

    keep_for: float = takes(
        Duration(60.0, 3650 * _DAY_S), "Settled failures older than this are removed.", default=30 * _DAY_S, shown="30d"
    )
    keep_bytes: int = takes(
        Size(1024**2, "at least 1MiB: bytes as a number, or 500MB, 1GiB"),
        "Stored failures of one mapping together are at most this large.",
        default=1024**3,
        shown="1GiB",
    )
    when_full: str = takes(
        Choice(("hold", "drop_oldest")),
        "At the limit: hold the mapping that fails, and say so; or remove the oldest failures.",
        default="hold",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Function(Block):
    """One handler and how it is run."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("arn", "url"), f"{_LATER}, only functions with handler and code are"),
        **dict.fromkeys(("concurrency_per_worker", "snap_start", "log_level"), _LATER),
    }

    handler: str = takes(
        _HANDLER, "What to call; packages may be written as `pkg/module.attribute`. Sync or async.", source="AWS"
    )
    code: Path = takes(Code(), "Where the handler's module is.")
    python: str | None = takes(
        Interpreter(), "Interpreter or virtual environment of the function.", default=None, shown="Headrace's own"
    )
    timeout: float = takes(
        Duration(1.0, 900.0),
        "Longest invocation; its worker is killed then. At most 14m where a mapping reads Kafka.",
        source="AWS",
        default=3.0,
        shown="3s",
    )
    memory_size: int = takes(Number(128, 10240), "MB that a worker may use.", source="AWS", default=128)
    reserved_concurrency: int | None = takes(
        Number(1, 1000),
        "Workers at most.",
        default=None,
        shown="as many as its mappings can use, at most 2 for each CPU",
    )
    environment: dict[str, Secret] = takes(
        MapOf(_VARIABLE, VariableText(), "a block of variables"),
        f"Variables of the worker: texts, numbers and flags, {ENVIRONMENT_BYTES} bytes together. "
        "Those that the runtime sets are refused.",
        source="AWS",
        default={},
        shown="none",
    )
    logs: str = takes(Choice(("on", "off")), "Keep what the handler prints.", default="on")


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

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(("schema_registry_config", "consumption_mode"), _LATER)

    bootstrap_servers: tuple[str, ...] = takes(_SERVERS, "Brokers to ask first.", source="AWS")
    topic: str = takes(_TOPIC, "The one topic to read.", source="Kafka")
    consumer_group: str | None = takes(
        _GROUP, "Group that holds the offsets.", source="AWS", default=None, shown="the mapping's name"
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
        Text("1 to 249 letters, digits, ., - and _", re.compile(r"[A-Za-z0-9._-]{1,249}")),
        "Static membership: a restart within the session timeout moves no partition. One daemon at a time may use it.",
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
class Source(Block):
    """Where records come from: exactly one key."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sqs", "kinesis", "dynamodb", "s3", "http", "schedule", "sns", "eventbridge"), f"{_LATER}, only kafka is"
    )

    kafka: Kafka | None = takes(BlockOf(Kafka), "A Kafka topic.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Block):
    """One filter."""

    pattern: str = takes(
        Pattern(),
        "What a record must be like, in the grammar of AWS event filtering. `${env:}` is not taken.",
        source="AWS",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterCriteria(Block):
    """Which records go to the function: those that fit any of the patterns; without patterns, all."""

    filters: tuple[Filter, ...] = takes(
        ListOf(BlockOf(Filter), 0, MAX_PATTERNS), "Patterns.", source="AWS", default=(), shown="none"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSqs(Block):
    """A standard SQS queue."""

    queue: str = takes(_QUEUE, "The queue; a FIFO queue is refused.", source="AWS")
    endpoint_url: str | None = takes(_URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`")
    region: str | None = takes(_REGION, "AWS region.", default=None, shown="that of an ARN, else `aws.region`")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToKafka(Block):
    """A Kafka topic; one message for each record of the failed batch."""

    topic: str = takes(_TOPIC, "The topic, which must exist and not be the one that is read.", source="Kafka")
    bootstrap_servers: tuple[str, ...] | None = takes(
        _SERVERS, "Brokers of another cluster.", default=None, shown="the source's cluster"
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

    REFUSED: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("sns", "s3", "http"), f"{_LATER}, only sqs, kafka and file are"),
        "destination": "AWS spellings are not supported yet, write sqs, kafka or file",
    }

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
        BlockOf(OnFailure), "Destination of failure records.", default=None, shown="none"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBackoff(Block):
    """Wait before retry k (0, 1, ...): base x 2^k, at most cap, varied by a fifth."""

    base: float = takes(Duration(0.001, 3600.0), "Wait before the first retry.", default=0.2, shown="200ms")
    cap: float = takes(Duration(0.001, 3600.0), "Longest wait.", default=60.0, shown="1m")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource(Block):
    """One event source mapping: a source, a function, and the rules between them."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            "tumbling_window_in_seconds",
            "renamed_from",
            "scaling_config",
            "provisioned_poller_config",
            "kms_key_arn",
            "metrics_config",
            "logging_config",
            "tags",
        ),
        _LATER,
    )

    function: str = takes(Text("the name of a function in this file"), "Function to invoke.", source="AWS")
    source: Source = takes(BlockOf(Source), "Where records come from.")
    enabled: bool = takes(Flag(), "A mapping that is not enabled is checked, and not run.", source="AWS", default=True)
    starting_position: str = takes(
        Choice(("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")),
        "Where a partition without committed offset starts.",
        source="AWS",
        default="TRIM_HORIZON",
    )
    starting_position_timestamp: float | None = takes(
        Moment(), "With `AT_TIMESTAMP` only.", source="AWS", default=None, shown="none"
    )
    batch_size: int = takes(Number(1, 10000), "Records of one invocation at most.", source="AWS", default=100)
    maximum_batching_window_in_seconds: float = takes(
        Number(0, 300, fractions=True),
        "How long a batch waits for more, from its first record on. Fractions are ours.",
        source="AWS",
        default=0.5,
    )
    parallelization_factor: int = takes(
        Number(1, 10), "Batches of one partition in flight at once, in order for each key.", default=1
    )
    maximum_retry_attempts: int = takes(
        Number(0, 10000, unlimited=True),
        "Retries after the first attempt; -1 = without limit, which with a destination means 10.",
        source="AWS",
        default=-1,
    )
    maximum_record_age_in_seconds: int = takes(
        Number(60, 604800, unlimited=True), "Older records are given up; -1 = never.", source="AWS", default=-1
    )
    bisect_batch_on_function_error: bool = takes(
        Flag(), "Split a failed batch in two and retry the halves.", source="AWS", default=False
    )
    function_response_types: tuple[str, ...] = takes(
        ListOf(Choice(("ReportBatchItemFailures",)), 0, 1),
        "Does the function report which records failed?",
        source="AWS",
        default=(),
        shown="none",
    )
    filter_criteria: FilterCriteria = takes(
        BlockOf(FilterCriteria), "Which records go to the function.", source="AWS", default=EMPTY, shown="all"
    )
    destination_config: DestinationConfig = takes(
        BlockOf(DestinationConfig),
        "Who is told of batches that were given up.",
        source="AWS",
        default=EMPTY,
        shown="none",
    )
    init_errors_count: bool = takes(
        Flag(), "Does a function that cannot initialise spend attempts, as on AWS?", default=False
    )
    commit_interval: float = takes(
        Duration(0.01, 60.0), "Finished batches are committed at least this often.", default=1.0, shown="1s"
    )
    retry_backoff: RetryBackoff = takes(BlockOf(RetryBackoff), "Waits between attempts.", default=EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Root(Block):
    """The whole file."""

    REFUSED: ClassVar[Mapping[str, str]] = {"lease": f"{_LATER}, there is one daemon to a state directory"}

    functions: dict[str, Function] = takes(
        MapOf(_NAME, BlockOf(Function), "a block with at least one function", low=1), "Functions by name."
    )
    event_source_mappings: dict[str, EventSource] = takes(
        MapOf(_NAME, BlockOf(EventSource), "a block with at least one mapping", low=1),
        "Mappings by name; state and failures belong to the name.",
    )
    state: Path = takes(
        FilePath("a directory"), "Directory of the embedded store.", default=Path(".headrace"), shown="./.headrace"
    )
    listen: tuple[str, int] = takes(
        Listen(),
        "Where metrics and health are served; port 0 = any.",
        default=("127.0.0.1", 9301),
        shown="127.0.0.1:9301",
    )
    aws: Aws = takes(BlockOf(Aws), "How to reach AWS.", default=EMPTY)
    drain_timeout: float = takes(
        Duration(0.0, 3600.0), "How long a stop waits for what is in flight.", default=30.0, shown="30s"
    )
    failures: Failures = takes(BlockOf(Failures), "How long failed batches are kept.", default=EMPTY)
    log_level: str = takes(Choice(("debug", "info", "warning", "error")), "Least level to log.", default="info")


def reference() -> str:
    """Print all keys as Markdown, for `docs/configuration.md`."""
    return "\n".join(_section(path, block) for path, block in _blocks(Root, ""))


def _blocks(block: type[Block], path: str) -> Iterator[tuple[str, type[Block]]]:
    yield path, block
    for name, declared in block.keys().items():
        for inside, other in nested(declared.kind, f"{path}.{name}".lstrip(".")):
            yield from _blocks(other, inside)


def _section(path: str, block: type[Block]) -> str:
    lines = [f"## {f'`{path}`' if path else 'Top level'}", "", block.__doc__ or "", ""]
    lines += ["| key | takes | default | meaning | rule of |", "|---|---|---|---|---|"]
    for name, declared in block.keys().items():
        default = declared.shown or _default(declared.default)
        cells = (f"`{name}`", declared.kind.allowed, default, declared.meaning, declared.source)
        lines.append(f"| {' | '.join(cells)} |")
    if block.REFUSED:
        lines += ["", f"Refused: {', '.join(f'`{name}`' for name in block.REFUSED)}."]
    return "\n".join([*lines, ""])


def _default(value: object) -> str:
    if value is REQUIRED:
        return "**required**"
    if value is None or value is EMPTY:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
