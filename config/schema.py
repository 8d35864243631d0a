"""The keys of `headrace.yaml`: what each takes, its default, what it means and whose rule that is.

Ranges and defaults marked "AWS" are those of the AWS Lambda API reference (CreateEventSourceMapping, CreateFunction).
What AWS offers for some sources or in provisioned mode only is offered for all and always, unless `only` says
otherwise. Contradictions between keys are found in `contradictions`.
"""
# ruff: noqa: RUF009 - `takes` gives a dataclass field

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from config.api import Api
from config.aws_forms import FUNCTION_FORMS, MAPPING_FORMS, MAPPING_IDLE
from config.blocks import EMPTY, Block, BlockOf, ListOf, MapOf, Names, Only, TextOrBlock, takes
from config.destinations import DestinationConfig
from config.event_invoke import DeadLetterConfig, EventInvokeConfig
from config.fleet import LEASE_S, NAME, NAME_ALLOWED, Directory, State, Stated
from config.kinds import (
    Choice,
    Digits,
    Duration,
    Flag,
    Moment,
    Number,
    Pattern,
    Size,
    Text,
)
from config.locations import Code, FilePath, Interpreter, Listen, ReadableFile, Url
from config.mistakes import LATER
from config.names import FUNCTION_ARN, HEADERS, LOG_GROUP, REGION, URL, VARIABLES
from config.sources import DEFAULTS, QUEUES, SHARDED, STREAMS, UNSUPPORTED, Defaults, Source
from config.spelling import Form
from connectors.settings import Secret
from router.core.filter import MAX_PATTERNS

#: Longest timeout of a function that reads Kafka (AWS Lambda developer guide: 14 minutes).
KAFKA_TIMEOUT_S: Final = 840.0
#: Retries where a mapping reads Kafka, asks for none and has a destination (AWS Lambda developer guide).
KAFKA_RETRIES_WITH_DESTINATION: Final = 10
#: Messages that one receive gives at most, and so a batch without a window (AWS Lambda API reference).
RECEIVED_COUNT: Final = 10
#: Names and values of a function's variables together (AWS Lambda quotas).
ENVIRONMENT_BYTES: Final = 4096

_DAY_S: Final = 86400.0

LEVEL: Final = Choice(("debug", "info", "warning", "error"))
_NAME: Final = Names("1 to 64 letters, digits, - and _", re.compile(r"[A-Za-z0-9_-]{1,64}"))
_FORMER_NAME: Final = Text("the name that the mapping had: 1 to 64 letters, digits, - and _", _NAME.form)
#: Keys at top level that mean something among replicas only.
SHARED: Final = ("fleet", "lease", "local")
#: What a function's block may name it by.
KINDS: Final = ("handler", "arn", "url")
#: Timeouts where the file says nothing: that of AWS, and one that covers a cold start elsewhere.
TIMEOUT_S: Final = 3.0
ELSEWHERE_TIMEOUT_S: Final = 60.0
#: Invocations at once where the file says nothing: Lambda starts as many as it takes, a service may not.
ARN_CONCURRENCY: Final = 100
URL_CONCURRENCY: Final = 10

#: What becomes of what a function prints.
LOGS: Final = Choice(("on", "off", "cloudwatch"))

_WORKERS: Final = Only(("handler",), "it is of workers, and this function runs elsewhere", within="")
_ON_LAMBDA: Final = Only(("arn",), "it is of AWS Lambda", within="")
_BY_URL: Final = Only(("url",), "it is of HTTP requests", within="")
_HANDLER: Final = Text("module.attribute", re.compile(r"[^\s./]+(?:[./][^\s./]+)*\.[^\W\d]\w*"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Aws(Block):
    """How to reach AWS or what stands in for it, where something needs it."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("profile", "access_key_id", "secret_access_key", "session_token"),
        f"{LATER}; the usual AWS environment and profile are used (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...)",
    )

    endpoint_url: str | None = takes(
        URL, "Endpoint in place of AWS's own.", default=None, shown="the usual AWS environment's"
    )
    region: str | None = takes(REGION, "AWS region.", default=None, shown="the usual AWS environment's")
    account_id: str = takes(
        Digits("the 12 digits of an account", re.compile(r"[0-9]{12}")),
        "The account that ARNs of functions and mappings here name.",
        default="000000000000",
    )


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
    """One function: a handler and how it is run, or where one runs that is deployed elsewhere (`arn`, `url`)."""

    FORMS: ClassVar[Mapping[str, Form]] = FUNCTION_FORMS

    handler: str | None = takes(
        _HANDLER,
        "What to call; packages may be written as `pkg/module.attribute`. Sync or async.",
        source="AWS",
        default=None,
        shown="one of `handler`, `arn` and `url` is **required**",
        aws=True,
    )
    arn: str | None = takes(
        FUNCTION_ARN, "A function on AWS Lambda that is invoked; its version or alias may follow.", default=None
    )
    url: Secret | None = takes(Url(), "Where a function takes events as HTTP POST.", default=None)
    code: Path | None = takes(
        Code(), "Where the handler's module is.", default=None, shown="**required** with `handler`", only=_WORKERS
    )
    python: str | None = takes(
        Interpreter(),
        "Interpreter or virtual environment of the function.",
        default=None,
        shown="Headrace's own",
        only=_WORKERS,
    )
    timeout: float | None = takes(
        Duration(1.0, 900.0),
        "Longest invocation; its worker is killed then, or nobody waits for its answer any more. At most 14m where a "
        "mapping reads Kafka.",
        source="AWS",
        default=None,
        shown=f"{TIMEOUT_S:g}s, with `arn` or `url` {ELSEWHERE_TIMEOUT_S:g}s",
        aws=True,
    )
    memory_size: int = takes(
        Number(128, 10240), "MB that a worker may use.", source="AWS", default=128, only=_WORKERS, aws=True
    )
    reserved_concurrency: int | None = takes(
        Number(1, 1000),
        "Workers at most, or invocations at once with `arn` and `url`.",
        default=None,
        shown="as many as its mappings can use, at most 2 for each CPU, "
        f"{ARN_CONCURRENCY} (`arn`), {URL_CONCURRENCY} (`url`)",
        aws=("ReservedConcurrentExecutions",),
    )
    concurrency_per_worker: int = takes(
        Number(1, 1000),
        "Invocations that one worker runs at once; more than 1 for `async def` handlers only.",
        default=1,
        only=_WORKERS,
    )
    snap_start: bool = takes(
        Flag(),
        "Fork workers from a process that has loaded the function, so that one more is there in milliseconds.",
        default=False,
        only=_WORKERS,
    )
    environment: dict[str, Secret] = takes(
        VARIABLES,
        f"Variables of the worker: texts, numbers and flags, {ENVIRONMENT_BYTES} bytes together. "
        "Those that the runtime sets are refused.",
        source="AWS",
        default={},
        shown="none",
        only=_WORKERS,
    )
    endpoint_url: str | None = takes(
        URL, "Endpoint in place of AWS's own.", default=None, shown="`aws.endpoint_url`", only=_ON_LAMBDA
    )
    region: str | None = takes(REGION, "AWS region.", default=None, shown="that of the ARN", only=_ON_LAMBDA)
    headers: dict[str, Secret] = takes(
        HEADERS, "More headers of every request; their values are never shown.", default={}, shown="none", only=_BY_URL
    )
    ca: Path | None = takes(ReadableFile(), "Authorities to trust.", default=None, shown="the system's", only=_BY_URL)
    logs: str | None = takes(
        LOGS,
        "Keep what the function prints, as far as it is told: in the state directory, not at all, or (with `handler` "
        "only) in [CloudWatch Logs](handlers.md#in-cloudwatch-logs).",
        default=None,
        shown="that of the file",
    )
    log_group: str | None = takes(
        LOG_GROUP,
        "Log group that handlers are told of, and where their lines go with `logs: cloudwatch`.",
        source="AWS",
        default=None,
        shown="/aws/lambda/NAME",
        only=_WORKERS,
    )
    log_format: str = takes(
        Choice(("text", "json")),
        "How `logging` and errors are written, and the lines around them: as text, or each as an object of JSON.",
        source="AWS",
        default="text",
        only=_WORKERS,
    )
    log_level: str | None = takes(
        LEVEL,
        "Least level that the handler's `logging` writes.",
        default=None,
        shown="the handler's own, `warning` in Python",
        only=_WORKERS,
    )

    event_invoke_config: EventInvokeConfig | None = takes(
        BlockOf(EventInvokeConfig),
        "How events are treated that are [invoked asynchronously](async-destinations.md).",
        default=None,
        shown="AWS's defaults",
        aws=("EventInvokeConfig",),
    )
    dead_letter_config: DeadLetterConfig | None = takes(
        BlockOf(DeadLetterConfig),
        "Where events themselves go that were invoked asynchronously and have failed for good.",
        default=None,
        shown="nowhere",
        aws=True,
    )

    @property
    def kind(self) -> str | None:
        """Which of `handler`, `arn` and `url` is there; None = none or several are."""
        kinds = [name for name in KINDS if self.gives(name)]
        return kinds[0] if len(kinds) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Block):
    """One filter."""

    pattern: str = takes(
        Pattern(),
        "What a record must be like, in the grammar of AWS event filtering. `${env:}` is not taken.",
        source="AWS",
        aws=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterCriteria(Block):
    """Which records go to the function: those that fit any of the patterns; without patterns, all."""

    filters: tuple[Filter, ...] = takes(
        ListOf(BlockOf(Filter), 0, MAX_PATTERNS), "Patterns.", source="AWS", default=(), shown="none", aws=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBackoff(Block):
    """Wait before retry k (0, 1, ...): base x 2^k, at most cap, varied by a fifth."""

    base: float = takes(Duration(0.001, 3600.0), "Wait before the first retry.", default=0.2, shown="200ms")
    cap: float = takes(Duration(0.001, 3600.0), "Longest wait.", default=60.0, shown="1m")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingConfig(Block):
    """How much of a queue runs at once."""

    maximum_concurrency: int | None = takes(
        Number(2, 1000),
        "Batches with the function at once, at most. Nothing is received beyond what can run.",
        source="AWS",
        default=None,
        shown="what the function takes",
        aws=True,
    )


_NO_POSITION: Final = Only(STREAMS, "a queue has no positions: every message in it is due")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource(Block):
    """One event source mapping: a source, a function, and the rules between them."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("queues", "document_db_event_source_config"), UNSUPPORTED),
        "provisioned_poller_config": (
            "there are no pollers to provide: they come and go with what there is to read; "
            "scaling_config.maximum_concurrency bounds the invocations of a queue"
        ),
    }

    FORMS: ClassVar[Mapping[str, Form]] = MAPPING_FORMS
    IDLE: ClassVar[Mapping[str, str]] = MAPPING_IDLE

    function: str = takes(Text("the name of a function in this file"), "Function to invoke.", source="AWS")
    source: Source = takes(BlockOf(Source), "Where records come from.")
    enabled: bool = takes(
        Flag(), "A mapping that is not enabled is checked, and not run.", source="AWS", default=True, aws=True
    )
    starting_position: str = takes(
        Choice(("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")),
        "Where a partition without committed offset starts, or a stream without checkpoints. AWS demands it for "
        "Kinesis and DynamoDB, and has no `AT_TIMESTAMP` for DynamoDB.",
        source="AWS",
        default="TRIM_HORIZON",
        only=_NO_POSITION,
        aws=True,
    )
    starting_position_timestamp: float | None = takes(
        Moment(), "With `AT_TIMESTAMP` only.", source="AWS", default=None, shown="none", only=_NO_POSITION, aws=True
    )
    batch_size: int | None = takes(
        Number(1, 10000),
        "Records of one invocation at most. FIFO queues: at most 10; other queues too while the window is 0.",
        source="AWS",
        default=None,
        shown=", ".join(f"{each.batch_size} ({name})" for name, each in DEFAULTS.items()),
        aws=True,
    )
    maximum_batching_window_in_seconds: float | None = takes(
        Number(0, 300, fractions=True),
        "How long a batch waits for more: on Kafka from its first record on, else from the end of the last invocation "
        "on. FIFO queues: 0. Fractions are ours.",
        source="AWS",
        default=None,
        shown=", ".join(f"{each.window_s:g} ({name})" for name, each in DEFAULTS.items()),
        aws=True,
    )
    parallelization_factor: int = takes(
        Number(1, 100),
        "Batches of one partition or shard in flight at once, in order for each key. AWS has at most 10, and 1 on "
        "Kafka.",
        default=1,
        only=Only(
            STREAMS,
            "batches of a queue run side by side by themselves, in order for each message group of a FIFO queue; "
            "scaling_config.maximum_concurrency bounds them",
        ),
        aws=True,
    )
    tumbling_window_in_seconds: int = takes(
        Number(0, 900),
        "Length of the windows over which a function carries on its state; 0 = none. With "
        "`parallelization_factor` 1 and without filters.",
        source="AWS",
        default=0,
        only=Only(SHARDED, "windows are of their shards, on AWS too"),
        aws=True,
    )
    scaling_config: ScalingConfig = takes(
        BlockOf(ScalingConfig),
        "Bounds of what runs at once.",
        source="AWS",
        default=EMPTY,
        shown="none",
        only=Only(
            QUEUES,
            "parallelization_factor, for each partition or shard, and the function's reserved_concurrency bound it",
        ),
        aws=True,
    )
    maximum_retry_attempts: int = takes(
        Number(0, 10000, unlimited=True),
        "Retries after the first attempt; -1 = without limit, which with a destination means 10 on Kafka. Queues: -1 = "
        "what fails goes back to the queue, and its redrive policy counts.",
        source="AWS",
        default=-1,
        aws=True,
    )
    maximum_record_age_in_seconds: int = takes(
        Number(60, 604800, unlimited=True),
        "Older records are given up; -1 = never.",
        source="AWS",
        default=-1,
        aws=True,
    )
    bisect_batch_on_function_error: bool = takes(
        Flag(), "Split a failed batch in two and retry the halves.", source="AWS", default=False, aws=True
    )
    function_response_types: tuple[str, ...] = takes(
        ListOf(Choice(("ReportBatchItemFailures",)), 0, 1),
        "Does the function report which records failed?",
        source="AWS",
        default=(),
        shown="none",
        aws=True,
    )
    filter_criteria: FilterCriteria = takes(
        BlockOf(FilterCriteria), "Which records go to the function.", source="AWS", default=EMPTY, shown="all", aws=True
    )
    destination_config: DestinationConfig = takes(
        BlockOf(DestinationConfig),
        "Who is told of batches that were given up.",
        source="AWS",
        default=EMPTY,
        shown="none",
        aws=True,
    )
    init_errors_count: bool = takes(
        Flag(), "Does a function that cannot initialise spend attempts, as on AWS?", default=False
    )
    commit_interval: float = takes(
        Duration(0.01, 60.0),
        "Finished batches are committed at least this often.",
        default=1.0,
        shown="1s",
        only=Only(STREAMS, "what is finished is deleted from the queue at once"),
    )
    retry_backoff: RetryBackoff = takes(BlockOf(RetryBackoff), "Waits between attempts.", default=EMPTY)
    log_level: str | None = takes(
        LEVEL, "Least level to log about this mapping.", default=None, shown="that at top level"
    )
    renamed_from: str | None = takes(
        _FORMER_NAME,
        "The name that the mapping had before: its state and failures are carried over at the next start or reload.",
        default=None,
        shown="none",
    )

    def group(self, name: str) -> str:
        """Give the consumer group; needs a sound Kafka source. A rename leaves the group that goes by the name."""
        assert self.source.kafka is not None
        return self.source.kafka.consumer_group or self.renamed_from or name

    @property
    def limit(self) -> int:
        """Records of one invocation at most; needs a sound source."""
        return self.batch_size if self.batch_size is not None else self._defaults.batch_size

    @property
    def window_s(self) -> float:
        """How long a batch waits for more; needs a sound source."""
        given = self.maximum_batching_window_in_seconds
        return self._defaults.window_s if given is None else float(given)

    @property
    def _defaults(self) -> Defaults:
        assert self.source.kind is not None
        return DEFAULTS[self.source.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Root(Block):
    """The whole file."""

    functions: dict[str, Function] = takes(
        MapOf(_NAME, BlockOf(Function), "a block of functions"),
        "Functions by name; more may come through the API.",
        default=EMPTY,
        shown="none",
    )
    event_source_mappings: dict[str, EventSource] = takes(
        MapOf(_NAME, BlockOf(EventSource), "a block of mappings"),
        "Mappings by name; state and failures belong to the name. More may come through the API.",
        default=EMPTY,
        shown="none",
    )
    state: Stated = takes(
        TextOrBlock(Directory(), BlockOf(State)),
        "Directory of the embedded store, which one daemon has alone; or the Redis that replicas share.",
        default=Path(".headrace"),
        shown="./.headrace",
    )
    fleet: str = takes(
        Text(NAME_ALLOWED, NAME),
        "The name of the replicas together; keeps fleets in one Redis apart. With Redis only.",
        default="headrace",
    )
    lease: float = takes(
        Duration(*LEASE_S),
        "So long after a replica was last heard of, others take over what it had. With Redis only.",
        default=30.0,
        shown="30s",
    )
    local: Path = takes(
        FilePath("a directory"),
        "Directory of what belongs to a replica alone, in a folder of its name: control socket, logs, locks. With "
        "Redis only.",
        default=Path(".headrace"),
        shown="./.headrace",
    )
    listen: tuple[str, int] = takes(
        Listen(),
        "Where the Lambda API, metrics and health are served; port 0 = any. A host that is not loopback needs "
        "`api.keys`.",
        default=("127.0.0.1", 9301),
        shown="127.0.0.1:9301",
    )
    api: Api = takes(BlockOf(Api), "Who may call the Lambda API, and how it behaves.", default=EMPTY)
    aws: Aws = takes(BlockOf(Aws), "How to reach AWS.", default=EMPTY)
    drain_timeout: float = takes(
        Duration(0.0, 3600.0), "How long a stop waits for what is in flight.", default=30.0, shown="30s"
    )
    failures: Failures = takes(BlockOf(Failures), "How long failed batches are kept.", default=EMPTY)
    durability: str = takes(
        Choice(("power_loss", "kill")),
        "What is stored survives this: a loss of power, for which each write waits for the disk, or the end of the "
        "process only. With Redis it is for Redis to do so; what its settings fall short of is told.",
        default="power_loss",
    )
    logs: str = takes(
        LOGS,
        "Where what functions print is kept, those made through the API among them: `on` is the state directory.",
        default="on",
    )
    log_level: str = takes(LEVEL, "Least level to log.", default="info")
