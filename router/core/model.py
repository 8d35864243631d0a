"""The values the core thinks in: records in columns, batches as ranges of them, outcomes, failed batches, settings.

Columns, not objects: a `Chunk` is one page of one shard with a list per attribute, and the records themselves are
opaque rows that only the codec of their source understands. A `Batch` names rows of chunks. Nothing in the core is
made once per record on the common path, because that alone would cost more than everything else the core does.

A position is an integer that grows within its shard (a Kafka offset, a Kinesis sequence number). A checkpoint is the
position of the last record that is finished together with all before it, *inclusive*; TRIM_HORIZON (-1) is 'before the
first', and what is lower names a time (`at_time`). A queue has no such order: there a position is only the message's
identity as a number, and every message is settled alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

#: Largest event that a function takes, and largest result it may give: 6 MiB (AWS Lambda quotas).
EVENT_LIMIT_BYTES: Final = 6 * 1024 * 1024
#: Largest sum of record sizes in one batch: the event limit less room for what surrounds the records.
BATCH_LIMIT_BYTES: Final = EVENT_LIMIT_BYTES - 8 * 1024


#: Arrival of a record that carries no time: it has no age.
UNKNOWN_TIME_MS: Final = -1


#: Checkpoint before the first record that a shard still has.
TRIM_HORIZON: Final = -1


def partition_of(region: str) -> str:
    """Give the part of AWS that a region is in, as ARNs name it."""
    for beginning, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if region.startswith(beginning):
            return partition
    return "aws"


def at_time(time_ms: int) -> int:
    """Give the checkpoint before the first record that arrived at or after a time, epoch milliseconds (not negative).

    It stands for a place whose position is not known, and is lower than every position.
    """
    return -2 - time_ms


def time_of(checkpoint: int) -> int | None:
    """Give the time that `at_time` made a checkpoint of; None = it is a position, or TRIM_HORIZON."""
    return -2 - checkpoint if checkpoint < TRIM_HORIZON else None


class Instant(NamedTuple):
    """Now, on both clocks: windows and backoff use the monotonic one, record age and stored times the wall."""

    mono_s: float
    wall_s: float


@dataclass(slots=True)
class Chunk:
    """One page of records of one shard, in ascending position. Columns have equal length; they may be empty."""

    shard: str
    positions: Sequence[int]
    #: Bytes each record takes in the event, an upper bound (base64 and metadata included).
    sizes: Sequence[int]
    #: Arrival at the source, epoch milliseconds; UNKNOWN_TIME_MS where the source did not note it.
    times_ms: Sequence[int]
    #: Ordering keys; None = a record without one. May be empty when nothing needs keys (factor 1).
    keys: Sequence[bytes | None]
    #: Opaque to the core.
    rows: Sequence[Any]
    #: Last position this page covers, also where it holds nothing for us (transaction markers, compacted tails).
    #: Reading goes on behind it.
    through: int
    #: Indexes that passed the filter, ascending; None = all.
    kept: Sequence[int] | None = None
    #: The checkpoint that was read behind (Demand.after), set by the runner.
    before: int = -1
    #: Records of which no event can be made for the function, by index, and why (queues; among those kept).
    unfit: Mapping[int, str] = field(default_factory=dict)
    #: Indexes of messages that the queue had handed out before (queues).
    again: Sequence[int] = ()
    #: Place of each record among those of its key (S3 sequencers); empty = as they came.
    ranks: Sequence[int] = ()
    #: Is `through` the end of the shard, behind which nothing will ever come?
    ended: bool = False
    #: Is it known that more waits behind `through`, even if this page has no record?
    more: bool = False
    #: What the source counts against its limit for this page, where that bounds how soon more may be read.
    read_bytes: int = 0
    #: The call of a tumbling window that these records are of, when they were read from a stored event.
    window: WindowCall | None = None

    def preceding(self, index: int) -> int:
        """Position that is finished when everything before record `index` is."""
        return self.positions[index - 1] if index else self.before


class ShardInfo(NamedTuple):
    """A shard as its stream lists it."""

    name: str
    #: Shards whose records come before its own; they need not be listed any more.
    parents: tuple[str, ...] = ()
    #: Will no more records be written to it?
    closed: bool = False


@dataclass(frozen=True, slots=True)
class WindowCall:
    """What a call of the function is told of its tumbling window."""

    #: The window: start inclusive, end exclusive, seconds since the epoch.
    start_s: int
    end_s: int
    #: What the calls before it have returned as state, a JSON object; empty in a FailedBatch, whose event has it.
    state: bytes = b"{}"
    #: Is it the window's last call, which has no records?
    final: bool = False
    #: Does it come before the window's end, because the state has become too large?
    early: bool = False


class Part(NamedTuple):
    """Some records of one chunk: a range where they are neighbours, else a list of indexes."""

    chunk: Chunk
    indexes: Sequence[int]


def _first_position(part: Part) -> int:
    return part.chunk.positions[part.indexes[0]]


@dataclass(slots=True, eq=False)
class Batch:
    """Records of one lane that are handed to the function together, and what has been tried with them.

    A suffix, a half, or the rest after expired records is a *new* batch with its own id and a fresh budget. Only the
    final call of a tumbling window has no records.
    """

    #: The request id: equal in all attempts of this batch.
    id: str
    shard: str
    lane: int
    parts: Sequence[Part]
    count: int
    #: Attempts that count against the retry limit.
    attempts: int = 0
    #: Times in a row the function was not even started.
    refusals: int = 0
    #: Monotonic time before which it must not run again.
    not_before_s: float = 0.0
    #: The wait that `not_before_s` came from, seconds.
    backoff_s: float = 0.0
    #: True when it must be made again after a restart: it was tried and failed, or is a piece of such a batch.
    durable: bool = False
    #: False when records of the lane between first and last are not part of it (partial responses).
    contiguous: bool = True
    tries: list[Try] = field(default_factory=list)
    #: Id of the stored failure that this batch replays; None for live records.
    replays: str | None = None
    #: Its tumbling window, with the state as of its last start; None = there are no such windows, or not yet started.
    window: WindowCall | None = None

    @property
    def is_final(self) -> bool:
        """Is it the final call of a window?"""
        return self.window is not None and self.window.final

    def each(self) -> Iterator[tuple[Chunk, int]]:
        for chunk, indexes in self.parts:
            for index in indexes:
                yield chunk, index

    @property
    def first(self) -> tuple[Chunk, int]:
        chunk, indexes = self.parts[0]
        return chunk, indexes[0]

    @property
    def last(self) -> tuple[Chunk, int]:
        chunk, indexes = self.parts[-1]
        return chunk, indexes[-1]

    @property
    def first_position(self) -> int:
        chunk, index = self.first
        return chunk.positions[index]

    @property
    def last_position(self) -> int:
        chunk, index = self.last
        return chunk.positions[index]

    def positions(self) -> list[int]:
        return [chunk.positions[index] for chunk, index in self.each()]

    def holds(self, position: int) -> bool:
        """Say whether it has the record at a position; without a list of them, as a report may name every record."""
        nearest = bisect_right(self.parts, position, key=_first_position) - 1
        if nearest < 0:
            return False
        chunk, indexes = self.parts[nearest]
        positions = chunk.positions
        place = bisect_left(indexes, position, key=positions.__getitem__)
        return place < len(indexes) and positions[indexes[place]] == position

    def rows(self) -> list[Any]:
        """The records, in order, for the codec."""
        rows: list[Any] = []
        for chunk, indexes in self.parts:
            if isinstance(indexes, range):
                rows += chunk.rows[indexes.start : indexes.stop]
            else:
                column = chunk.rows
                rows += [column[index] for index in indexes]
        return rows

    def select(self, wanted: Sequence[int]) -> list[Part]:
        """Parts that hold the records with these ordinals in the batch (ascending)."""
        refs = list(self.each())
        parts: list[Part] = []
        chunk: Chunk | None = None
        indexes: list[int] = []
        for ordinal in wanted:
            owner, index = refs[ordinal]
            if owner is not chunk:
                chunk, indexes = owner, []
                parts.append(Part(owner, indexes))
            indexes.append(index)
        return parts


#: Error type of what a function that runs elsewhere did not accept, an error of its server among that.
NOT_ACCEPTED: Final = "Headrace.NotAccepted"


class FailureKind(Enum):
    """How a function failed once it had started."""

    RAISED = "raised"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    BAD_RESPONSE = "bad_response"


@dataclass(frozen=True, slots=True)
class FunctionError:
    """What the function, or the lack of it, said; shaped like the error object of a Lambda invocation."""

    error_type: str
    message: str
    #: Stack trace lines of the user's own code.
    trace: tuple[str, ...] = ()
    #: The message as AWS has it, where ours says more; None = they are the same.
    aws_message: str | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned. `body` is the parsed JSON result, or NOT_READ where nobody needs it."""

    body: object = None
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """The function ran and failed: this spends an attempt."""

    kind: FailureKind
    error: FunctionError
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """The function was never started (no worker, cannot initialise, throttled): spends no attempt."""

    error: FunctionError
    #: True when the function's own initialisation failed, which AWS counts and we do not by default.
    initialising: bool = False


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The event is larger than a function may be given."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """As if it had not been tried: spends no attempt, and runs again at once.

    We stopped the invocation ourselves (revoked shard, shutdown), never started it, or its worker ended through what
    may be another's fault.
    """


Outcome = Returned | Failed | Refused | TooLarge | Cancelled


class _Marker(Enum):
    NOT_JSON = "not json"
    NOT_READ = "not read"


#: The function's result is not JSON.
NOT_JSON: Final = _Marker.NOT_JSON
#: Nobody looked at the function's result, because the mapping does not report item failures.
NOT_READ: Final = _Marker.NOT_READ


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt, for the people who look at a failed batch."""

    at_s: float
    request_id: str
    records: int
    error: FunctionError


class Reason(Enum):
    """Why a batch was given up (condition of the failure record)."""

    RETRIES = "RetryAttemptsExhausted"
    AGE = "RecordAgeExceeded"
    SIZE = "MaximumPayloadSizeExceeded"
    UNFIT = "RecordUnfit"
    #: Of asynchronous events only.
    EVENT_AGE = "EventAgeExceeded"
    ZERO_CONCURRENCY = "ZeroReservedConcurrency"


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """A batch that was given up: everything about it but its records."""

    #: Derived from mapping, shard and records, so that storing it twice is one entry.
    id: str
    mapping: str
    function: str
    shard: str
    reason: Reason
    #: Of its first and last record; -1 when it is the final call of a window, which has none.
    first_position: int
    last_position: int
    batch_size: int
    #: Attempts of this batch, at least 1 even if it never ran (as AWS counts).
    attempts: int
    request_id: str
    error: FunctionError | None
    #: Did the function answer at all? False: expired or too large, and the record has no responseContext.
    responded: bool
    #: `Unhandled`, or None when the failure came from the function's own list of failed items.
    function_error: str | None
    #: Arrival of the first and last record, epoch milliseconds; of a final call, the end of its window.
    first_time_ms: int
    last_time_ms: int
    failed_at_s: float
    tries: tuple[Try, ...]
    #: Id of the failure whose replay failed again.
    parent: str | None = None
    #: The tumbling window that it was called for, without state.
    window: WindowCall | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """Wait before retry k (0, 1, ...): base x factor^k, at most `cap_s`, varied by the share `jitter`."""

    base_s: float = 0.2
    cap_s: float = 60.0
    jitter: float = 0.2
    factor: float = 2.0


#: Backoff of what is not a record's fault: reads, commits, stores, sources that do not answer.
OUTAGE_BACKOFF: Final = Backoff(base_s=0.5, cap_s=30.0, jitter=0.2)
#: Backoff of reads beyond what the stream lets be read in a second: whoever else reads it has its share too.
THROTTLE_BACKOFF: Final = Backoff(base_s=0.5, cap_s=5.0, jitter=0.2)


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon a unit is read again, from the start of one read to that of the next, seconds; 0 = at once."""

    #: After a read that found nothing, and the end of what there is.
    idle_s: float = 0.0
    #: After any other.
    busy_s: float = 0.0
    #: And no sooner than what was read last is paid off at this rate; 0 = there is no such limit.
    bytes_per_s: int = 0


class WindowStart(Enum):
    """What starts the clock of the batching window."""

    FIRST_RECORD = "first record"
    PREVIOUS_COMPLETION = "previous completion"


class ReportStyle(Enum):
    """What batchItemFailures means: the lowest entry starts the rest, or exactly the entries failed."""

    LOWEST = "lowest"
    LISTED = "listed"


@dataclass(frozen=True, slots=True)
class SourceRules:
    """Where AWS defines a difference between kinds of sources, it is one of these fields."""

    window_start: WindowStart
    report_style: ReportStyle
    #: What to do with a single record whose event is too large: give it up at once, or spend attempts on it.
    too_large_is_final: bool
    #: Responses that are a success beside null and objects without failures, as recorded on AWS.
    empty_responses: tuple[object, ...]
    #: Is an item without any member a success? (recorded for queues)
    empty_item_succeeds: bool
    #: Do the records of a batch come oldest first, so that those that are too old are its head?
    sorted_by_time: bool = True
    #: Waits of a batch whose function could not be started; None = those of the mapping's retries.
    refusal_backoff: Backoff | None = None


KAFKA_RULES: Final = SourceRules(
    WindowStart.FIRST_RECORD,
    ReportStyle.LISTED,
    too_large_is_final=True,
    empty_responses=([],),
    empty_item_succeeds=False,
)
STREAM_RULES: Final = SourceRules(
    WindowStart.PREVIOUS_COMPLETION,
    ReportStyle.LOWEST,
    too_large_is_final=False,
    empty_responses=("", []),
    empty_item_succeeds=False,
)
QUEUE_RULES: Final = SourceRules(
    WindowStart.PREVIOUS_COMPLETION,
    ReportStyle.LISTED,
    too_large_is_final=False,
    empty_responses=("",),
    empty_item_succeeds=True,
    sorted_by_time=False,
    # Fits what was recorded on AWS: one refusal in a lease of 60 s, two within 10 s of a longer one.
    refusal_backoff=Backoff(base_s=1.0, cap_s=256.0, factor=4.0),
)


@dataclass(frozen=True, slots=True)
class Polling:
    """What only queues have: how many batches at once, and what is done about leases (visibility timeouts)."""

    #: Batches with the function at once, at most (`ScalingConfig.MaximumConcurrency`), and then nothing is received
    #: beyond what can run at once; None = as many as the function takes.
    maximum_concurrency: int | None = None
    #: Invocations that the function can run at once.
    function_concurrency: int = 1
    #: Does the queue lock a message group while one of its messages is leased?
    fifo: bool = False
    #: Are the leases of all messages in hand extended while they wait or run?
    heartbeat: bool = False
    #: FIFO: does a message that the handler lists take the later ones of its group in the batch with it?
    hold_group: bool = False
    #: A batch that was refused is tried again only while its lease still covers this time; 0 = as long as it lasts.
    needed_lease_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EventSourceMapping:
    """The behaviour of one mapping, fully defaulted: all the core needs to know of the configuration."""

    name: str
    function: str
    rules: SourceRules
    batch_size: int = 100
    window_s: float = 0.0
    #: Largest sum of record sizes in a batch.
    batch_bytes: int = BATCH_LIMIT_BYTES
    parallelization_factor: int = 1
    #: Retries after the first attempt; None = without limit.
    maximum_retry_attempts: int | None = None
    #: Records this old are given up; None = never.
    maximum_record_age_s: float | None = None
    bisect: bool = False
    report_item_failures: bool = False
    #: Does a function that cannot initialise spend attempts, as on AWS?
    init_errors_count: bool = False
    #: How long an in-flight invocation may go on when its shard is revoked or the mapping drains.
    drain_s: float = 30.0
    #: Longest time a finished batch stays uncommitted while nothing urgent happens.
    commit_interval_s: float = 1.0
    #: Records and bytes of one shard held in memory at most, beyond what one read brings; None = from the batch size.
    buffer_count: int | None = None
    buffer_bytes: int = 16 * 1024 * 1024
    #: Bytes of all shards together beyond which only shards that hold nothing are read.
    memory_bytes: int = 48 * 1024 * 1024
    backoff: Backoff = Backoff()
    polling: Polling = Polling()
    pace: Pace = Pace()
    #: Where shards begin to be read of which the store keeps the checkpoints: TRIM_HORIZON, LATEST or AT_TIMESTAMP.
    starting_position: str = "TRIM_HORIZON"
    #: Epoch milliseconds; set exactly with AT_TIMESTAMP.
    starting_time_ms: int | None = None
    #: Length of a tumbling window; 0 = none.
    tumbling_window_s: int = 0

    @property
    def remembers_messages(self) -> bool:
        """Is it noted what each message of a queue has been through? Without a limit of tries nobody asks."""
        return self.bisect or self.maximum_retry_attempts is not None
