"""The outside world as the runner sees it: sources, functions, the store, destinations, the wall clock.

Everything here answers one call at a time: no loop, sleep, retry or batching behind these methods (a source may keep
the connection and the bounded fetch buffer of its client library). Errors are those of router.errors, nothing
foreign.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1
from typing import Any, Final, NamedTuple, Protocol

from router.core.facts import Demand, Progress
from router.core.fleet import Heard, Said
from router.core.model import (
    Batch,
    Chunk,
    Failed,
    FailedBatch,
    Outcome,
    Refused,
    Returned,
    ShardInfo,
    SourceRules,
    TooLarge,
    WindowCall,
)
from router.core.seek import Direction, Extent, Move, SeekTo

#: Records of a page of a stream unless asked otherwise, at most; sources may give fewer.
PAGE_COUNT: Final = 10_000

# --- sources


@dataclass(frozen=True, slots=True)
class Opened:
    """The source assigned a shard to us."""

    shard: str
    unit: Hashable
    #: Last finished position, inclusive; None when nothing is committed.
    checkpoint: int | None
    retry_state: str = ""


@dataclass(frozen=True, slots=True)
class Revoking:
    """The source wants the shard back and waits for `release` until its own deadline."""

    shard: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The shard went without asking."""

    shard: str


ShardChange = Opened | Revoking | Lost


class Codec(Protocol):
    """The shape of a source's records: pure, no I/O."""

    @property
    def rules(self) -> SourceRules: ...

    def event(self, rows: Sequence[Any]) -> bytes:
        """Encode the Lambda event that holds these rows."""
        ...

    def parse(self, event: bytes) -> Chunk:
        """Read the records back from an event made by `event` (for replay); `through` is the last position.

        Raises:
            ValueError: it is no such event.
        """
        ...

    def identify(self, item: object, batch: Batch) -> int | None:
        """Say which position of the batch an itemIdentifier names; None when it names none."""
        ...

    def view(self, row: Any) -> tuple[Mapping[str, object], bytes | None]:
        """Give what filter patterns are matched against: metadata, and the data still encoded."""
        ...

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        """Give the source's part of a failure record, as a one-member mapping such as {"KafkaBatchInfo": {...}}."""
        ...


class Source(Protocol):
    """Where records come from."""

    codec: Codec

    #: What is read, and as whom progress is kept: another one starts anew.
    identity: str

    #: Did `open` find nothing committed and pin starting positions? Never so in a queue.
    pinned: bool

    #: Once it is open: why it is read in a way that takes more processor time than it could; None = it is not.
    handicap: str | None

    async def open(self) -> None:
        """Reach the source; in a stream, pin starting positions where nothing is committed yet.

        Raises:
            SourceUnavailable: not reachable, refused, or missing; the message is for the operator. Call again later.
        """
        ...

    async def close(self) -> None:
        """Leave, without committing; end all calls. May come twice."""
        ...


class StreamSource(Source, Protocol):
    """Ordered shards that resume by position."""

    #: Largest retry state that `commit` takes, bytes; what is larger goes into the store and a pointer here.
    retry_state_limit_bytes: int

    #: Is the keys column of chunks filled? May be set at any time.
    needs_keys: bool

    def changes(self) -> AsyncIterator[ShardChange]:
        """Yield assignments as they come; ends after close."""
        ...

    async def locate(self, shard: str, *, lost: bool) -> int:
        """Give the checkpoint to start behind. With `lost`, the oldest one that is still there.

        Raises:
            SourceUnavailable
        """
        ...

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:
        """Give what there is, waiting a bounded time for something. May be cancelled without losing records.

        Raises:
            SourceUnavailable, PositionLost
        """
        ...

    async def commit(self, done: Mapping[str, Progress]) -> None:
        """Remember checkpoints and retry states durably; all or nothing.

        Raises:
            SourceUnavailable: not known whether it was stored; commit again.
            LeaseLost: the shards are no longer ours.
        """
        ...

    async def release(self, shard: str) -> None:
        """Answer Revoking: we are done with the shard."""
        ...

    def newest(self, shard: str) -> int | None:
        """Position of the newest record known to be in the shard, without asking anybody; None = not known."""
        ...


class PositionCodec(Codec, Protocol):
    """The shape of the records of a stream whose positions can be named."""

    def write_position(self, position: int) -> str:
        """Write a position (not negative) as the stream's own tools know it, such as a sequence number."""
        ...

    def read_position(self, text: str) -> int:
        """Read it back.

        Raises:
            ValueError: it is none.
        """
        ...


class ShardCodec(PositionCodec, Protocol):
    """The shape of the records of a stream whose checkpoints we keep.

    The chunk that `parse` makes of an event of a tumbling window has its call, and no records where that has none.
    """

    def window_event(self, shard: str, rows: Sequence[Any], call: WindowCall) -> bytes:
        """Encode the Lambda event that holds these rows, perhaps none, and what the call is told of its window."""
        ...


class PageSource(Protocol):
    """A stream that is read from a position on, a page a call, beside whatever else reads it: for replays.

    Sources of shards are such; nothing is remembered of what is read.
    """

    @property
    def codec(self) -> PositionCodec: ...

    async def open(self) -> None:
        """Reach the stream. Raises SourceUnavailable."""
        ...

    async def page(self, shard: str, first: int, limit: int = PAGE_COUNT) -> Chunk:
        """Give records from this position on, itself included, about so many at most; 0 = from the oldest there is.

        Raises:
            SourceUnavailable, PositionLost, ShardGone
        """
        ...

    async def close(self) -> None:
        """Let go of it. May come twice."""
        ...


class ShardSource(Source, Protocol):
    """Shards of a stream that come and go, each behind its parents, whose checkpoints the store keeps.

    A unit is a shard. What is read behind is a position, TRIM_HORIZON, or a time (`model.time_of`).
    """

    codec: ShardCodec

    #: Once it is open: the service's own clock then, wall time in seconds; never later than what it is at.
    server_time_s: float

    #: Once it is open, and as of the last `shards`: which of the streams that ever had this name it is.
    incarnation: str

    async def shards(self) -> Sequence[ShardInfo]:
        """List all shards that the stream has, also closed ones.

        Raises:
            SourceUnavailable
        """
        ...

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:
        """Give what there is now, at most `limit` records; may be cancelled without losing records.

        One chunk also when there is nothing new: its `through` is then what was read behind, and `ended` and `more`
        count.

        Raises:
            SourceUnavailable, Throttled: ask again.
            PositionLost: the shard cannot be read behind this position.
            ShardGone
        """
        ...

    async def page(self, shard: str, first: int, limit: int = PAGE_COUNT) -> Chunk:
        """Give records from this position on, as a PageSource does. Raises as that does."""
        ...

    def behind_ms(self, shard: str) -> int | None:
        """Say how far behind the newest record the last read of a shard was, without asking anybody; None = unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """What lies between the two places of a move, by reading it."""

    direction: Direction
    #: Records; at least so many where it is not exact. Of Kafka offsets, also those that hold none.
    records: int = 0
    is_exact: bool = True
    #: From the arrival of the first of them to that of the last, seconds; None = not known.
    seconds: float | None = None


class Places(Protocol):
    """Where the shards of a stream are, seen from beside whatever reads it, and also while nothing does."""

    #: The stream: positions mean nothing in another.
    stream: str

    #: Once it is open: which of the streams that ever had this name it is.
    incarnation: str

    #: The source's own time once it was opened, epoch milliseconds.
    now_ms: int

    #: Largest retry state that `write` takes, bytes; None = any.
    retry_state_limit_bytes: int | None

    async def open(self) -> None:
        """Reach the stream. Raises SourceUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of it. May come twice."""
        ...

    async def extents(self, target: SeekTo | None = None, shard: str | None = None) -> Sequence[Extent]:
        """Give all shards that the stream has, with the place of each, and where a target is in them, or in one.

        Raises:
            SourceUnavailable, StoreUnavailable
            NotFound: the target is not there.
        """
        ...

    async def measure(self, moves: Sequence[Move]) -> Sequence[Span]:
        """Say what each move skips or repeats, within bounded time.

        Raises:
            SourceUnavailable
        """
        ...

    async def write(self, places: Mapping[str, Progress]) -> None:
        """Put shards where they are to go on; all of them or none, durably.

        Raises:
            SourceUnavailable, StoreUnavailable: not known whether it is written.
            InUse: somebody reads them.
        """
        ...

    def show(self, place: Progress) -> str:
        """Write where a shard goes on, as people and the stream's own tools know it."""
        ...

    def checkpoint(self, text: str) -> int:
        """Read back the checkpoint of what `show` wrote.

        Raises:
            ValueError: it is none.
        """
        ...

    def position(self, text: str) -> int:
        """Read a position that a person wrote: that of the record to come next.

        Raises:
            ValueError: it is none.
        """
        ...


class QueueSource(Source, Protocol):
    """Messages that are leased, and deleted one by one when they are done."""

    #: The queue's name: the shard of its chunks.
    name: str

    #: How long a received message is ours, seconds: the queue's own visibility timeout, looked up now and then.
    lease_s: float

    async def receive(self, limit: int, wait_s: float) -> Chunk:
        """Give 1 to `limit` (at most 10) messages as soon as there are some, or none after `wait_s`.

        Positions are the messages' identities as numbers; the same message has the same one each time it comes. What
        the source's own rules filter out is not `kept`, and what no event can be made of is `unfit`. When it is
        cancelled, messages that the queue has handed out come back by themselves.

        Raises:
            SourceUnavailable
        """
        ...

    async def delete(self, rows: Sequence[Any]) -> Mapping[int, str]:
        """Delete 1 to 10 messages; give by index why the queue did not delete one.

        Raises:
            SourceUnavailable: not known which are deleted.
        """
        ...

    async def extend(self, rows: Sequence[Any], lease_s: int) -> Mapping[int, str]:
        """Let the leases of 1 to 10 messages end `lease_s` from now; give by index why one is as it was.

        Raises:
            SourceUnavailable: not known which are extended.
        """
        ...

    def backlog(self) -> int | None:
        """Messages that wait in the queue, about: as last looked up, less those received since; None = not known."""
        ...


class ObjectSource(Protocol):
    """The objects of one place, by their keys."""

    #: For people: `s3://bucket/prefix`.
    name: str

    async def open(self) -> None:
        """Reach the service. Raises SourceUnavailable."""
        ...

    async def page(self, after: str) -> Sequence[tuple[str, int]]:
        """Give keys behind this one, ascending, and the sizes of their objects, bytes; none = there are no more.

        Raises:
            SourceUnavailable
        """
        ...

    async def read(self, key: str) -> bytes:
        """Give an object.

        Raises:
            SourceUnavailable
            NotFound: it is not there any more.
        """
        ...

    async def close(self) -> None:
        """Let go of it. May come twice."""
        ...


# --- functions


@dataclass(frozen=True, slots=True)
class Told:
    """What a function is told of an invocation beside its event; None in each = as of an event source mapping."""

    #: The ARN under which it was invoked, with its qualifier.
    arn: str | None = None
    #: JSON text, as the caller sent it.
    client_context: str | None = None
    #: The tracing header.
    trace_id: str | None = None


@dataclass(slots=True, eq=False)
class Invocation:
    """One call of a function."""

    request_id: str
    #: Encodes the event; called once, when a worker takes the invocation.
    event: Callable[[], bytes]
    #: Is the parsed result wanted (Returned.body), or only that there was one (NOT_READ)?
    wants_body: bool
    #: Called once, on the event loop, never from inside `invoke`.
    done: Callable[[Outcome], None]
    #: Is a result that is wanted given as it came: its bytes, JSON or not?
    wants_raw: bool = False
    told: Told | None = None
    #: Is given the log of it, START to REPORT, before `done`; also where no logs are kept. None = not wanted. Of more
    #: than a MiB it may be the end alone.
    log: Callable[[str], None] | None = None


class Invoker(Protocol):
    """Runs one function, as often in parallel as it may."""

    def invoke(self, invocation: Invocation) -> None:
        """Start it on a free worker or queue it until one is free."""
        ...

    def cancel(self, request_id: str, *, waiting_only: bool) -> None:
        """End it as Cancelled: not started at all, or (unless `waiting_only`) by ending what runs it."""
        ...

    async def close(self) -> None:
        """End all workers."""
        ...


class LogEntry(NamedTuple):
    """What one invocation has printed, as it is kept; a line that nobody knows more of has neither time nor request."""

    #: ISO 8601, UTC: when the invocation had ended.
    timestamp: str | None
    request_id: str | None
    message: str


class LogLine(NamedTuple):
    """What stands in a log stream as one event."""

    #: Wall time, milliseconds.
    at_ms: int
    #: Not empty; its line end is part of it.
    text: str


class LogStreams(Protocol):
    """Takes logs in groups of streams, each of which is made when something is written to it first."""

    async def put(self, group: str, stream: str, lines: Sequence[LogLine]) -> int:
        """Write lines to a stream, and say how many are refused for good: for their times.

        Args:
            group: name of the group.
            stream: name of the stream in it.
            lines: in the order of their times, within what one call may hold.

        Raises:
            DestinationUnavailable: none is written, or nobody knows.
        """
        ...

    async def check(self, group: str) -> str:
        """Reach a group without writing anything, and say what was found. Raises DestinationUnavailable."""
        ...

    async def close(self) -> None:
        """End all calls. May come twice."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """How one call of a target ended. A result is given as it came, as bytes, and durations are left to the caller."""

    outcome: Returned | Failed | Refused | TooLarge
    #: What the function printed, as far as the target tells it.
    log: str = ""
    #: How long the target asks to be left alone, seconds; 0 = it does not say.
    wait_s: float = 0.0


class Target(Protocol):
    """A function that runs elsewhere."""

    async def call(self, request_id: str, event: bytes) -> Answered:
        """Give the event to the function once, and wait for its answer, for as long as its timeout.

        When it is cancelled the connection ends; the function may go on.
        """
        ...

    async def check(self) -> str:
        """Reach it without running the function; say what was found.

        Raises:
            HandlerUnavailable: the message says what to do.
        """
        ...

    async def close(self) -> None:
        """End all connections. May come twice."""
        ...


# --- the store


@dataclass(frozen=True, slots=True)
class FailureEntry:
    """A failed batch as it is stored, without its event."""

    batch: FailedBatch
    #: stored | delivered | replaying | replayed | failed_again | dropped
    status: str
    #: Where its failure record goes, for people ("sqs:orders-dlq"); None = nowhere.
    destination: str | None
    #: The source's part of the failure record.
    batch_info: Mapping[str, object]
    #: The ordering keys in it, for Selection.key; empty in entries that come back from the store.
    keys: tuple[bytes, ...] = ()
    #: Size of the stored event, bytes; 0 once it is dropped.
    event_bytes: int = 0
    #: Deliveries tried so far, the last error, and the wall time of the next try.
    deliveries: int = 0
    delivery_error: str | None = None
    next_delivery_s: float = 0.0

    @property
    def is_accepted(self) -> bool:
        """Has its destination accepted it?"""
        return self.deliveries > 0 and self.delivery_error is None

    @property
    def awaits_delivery(self) -> bool:
        """Is it still to be sent to its destination?"""
        return self.destination is not None and self.status in ("stored", "replaying") and not self.is_accepted


@dataclass(frozen=True, slots=True)
class Selection:
    """Which failures: every field that is set must hold."""

    ids: tuple[str, ...] = ()
    mapping: str | None = None
    shard: str | None = None
    key: bytes | None = None
    #: Wall times, seconds: since <= failed_at < until.
    since_s: float | None = None
    until_s: float | None = None
    #: Part of error type or message, any case.
    error: str | None = None
    #: Empty = every status.
    statuses: tuple[str, ...] = ()
    #: Only those behind this one in the order of time and id: the end of the page before.
    after: tuple[float, str] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class KeepFailure:
    """Write a failure; one with the same id is replaced and its status starts again."""

    entry: FailureEntry
    event: bytes


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Move a failure to `status`, whatever it was.

    What was replayed or dropped needs no delivery any more; nor does what failed again: newer failures took its place.
    """

    id: str
    status: str


@dataclass(frozen=True, slots=True)
class Unclaim:
    """Take a claim of ours back: a failure that is being replayed has the status again that it had before.

    Nothing is done to one that another replica has adopted.
    """

    id: str


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """Forget a failure and its event."""

    id: str


@dataclass(frozen=True, slots=True)
class DeliveryEnded:
    """One delivery was tried: accepted (error None), or to be tried again at `next_delivery_s`.

    An accepted one moves a stored failure to delivered; any other status stays.
    """

    id: str
    error: str | None
    next_delivery_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PutState:
    """Write a small text under (mapping, key); empty text deletes it."""

    mapping: str
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class RenameMapping:
    """Put all texts and failures of a mapping under another name, which has none."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Holds:
    """Write the other changes only if the lease of this shard still has this token; else none, and LeaseLost.

    A store that no replicas share has no leases, and is never given one.
    """

    mapping: str
    shard: str
    token: int


@dataclass(frozen=True, slots=True)
class OwnsEvent:
    """Write the other changes only if this event is in our inbox; else none, and LeaseLost.

    A store that no replicas share is never given one.
    """

    event_id: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Write the other changes only if this text is still that of this digest; else none, and Overtaken.

    For texts that any replica may change. A store that no replicas share is never given one.
    """

    mapping: str
    key: str
    #: As `digest_of` makes it.
    digest: str


def digest_of(text: str) -> str:
    """Give what stands for a text; empty for an empty one, which is none."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest() if text else ""


Change = (
    KeepFailure
    | SetStatus
    | Unclaim
    | DeleteFailure
    | DeliveryEnded
    | PutState
    | RenameMapping
    | Holds
    | OwnsEvent
    | Unchanged
)


@dataclass(frozen=True, slots=True)
class Erasure:
    """How a failure is to be without the records of one key."""

    id: str
    #: Of the failure that was looked at: one that was stored since under the same id is another.
    failed_at_s: float
    key: bytes
    #: What stays; None = nothing, the failure is deleted.
    entry: FailureEntry | None
    #: The event of what stays; None = it was dropped before.
    event: bytes | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one mapping has in the store."""

    #: Failures that their destination has not accepted yet.
    undelivered: int = 0
    #: Sum of event sizes of all failures.
    stored_bytes: int = 0
    #: Failures of any status.
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """How many failures of one status a mapping has."""

    mapping: str
    status: str
    failures: int
    #: Of them, those that their destination has not accepted yet.
    undelivered: int


@dataclass(frozen=True, slots=True)
class Space:
    """The room that a store takes."""

    used_bytes: int
    #: Free inside it, for what is written next.
    free_bytes: int
    #: Can it be given back while the store is in use?
    can_shrink: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the store that an operator should mend."""

    #: persistence | memory | eviction | rights | version
    what: str
    #: What is so, and what to do.
    text: str
    #: Is the store not used until it is mended?
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """How a store that replicas share is."""

    findings: Sequence[Finding] = ()
    #: Mappings whose texts are gone, about which nobody has decided yet.
    gone: frozenset[str] = frozenset()
    #: Has all that was kept gone while this process runs, or before it: failures, too?
    is_another: bool = False
    #: Another one with every start of the server.
    run_id: str = ""


class Store(Protocol):
    """Durable state of the daemon. Every method may raise StoreUnavailable."""

    async def apply(self, changes: Sequence[Change]) -> None:
        """Write all of them or none, durably; returns once they survive a crash.

        Raises:
            LeaseLost: one of the changes is a `Holds` or an `OwnsEvent` that does not hold.
            Overtaken: one of them is an `Unchanged`, and that text is another one.
        """
        ...

    async def states(self, mapping: str) -> Mapping[str, str]:
        """Give all texts put under a mapping.

        Raises:
            DecisionNeeded: some that there were are gone, and nobody has said yet that it may go on without them.
        """
        ...

    async def some_states(self, mapping: str, keys: Sequence[str]) -> Mapping[str, str]:
        """Give those of a mapping's texts that are under these keys."""
        ...

    async def accept_loss(self, mapping: str) -> bool:
        """Let a mapping go on with what is left of its texts; False = none of them are gone."""
        ...

    async def failures(self, selection: Selection) -> Sequence[FailureEntry]:
        """Give the selected failures, oldest first."""
        ...

    async def event(self, failure_id: str) -> bytes | None:
        """Give the stored event of a failure; None when there is no such failure, or it was dropped."""
        ...

    async def claim(self, failure_ids: Sequence[str]) -> Sequence[str]:
        """Mark failures as replaying, in one step, and give those that were neither dropped nor being replayed.

        Where replicas share the store, it remembers by which one.
        """
        ...

    async def adopt(self, dead: str | None) -> Sequence[FailureEntry]:
        """Claim what is being replayed by nobody who lives, and give it, oldest first.

        Args:
            dead: a replica that is dead; None = our own name's former process.
        """
        ...

    async def drop(self, failure_ids: Sequence[str]) -> Sequence[str]:
        """Mark failures as dropped and free their events, in one step, and give those that were not being replayed."""
        ...

    async def erase(self, erasures: Sequence[Erasure]) -> Sequence[str]:
        """Take keys out of failures, in one step, and give those that were not being replayed, nor are others by now.

        What was deleted or replaced is overwritten for good only by `scrub`.
        """
        ...

    async def undelivered(self, mapping: str) -> Sequence[FailureEntry]:
        """Give failures to deliver, oldest first: stored or replaying, and not accepted by their destination yet."""
        ...

    async def count(self, selection: Selection) -> int:
        """Say how many failures are selected, whatever its limit; at once where only mapping and statuses are set."""
        ...

    async def tallies(self) -> Sequence[Tally]:
        """Count what all mappings have stored, by mapping and status; costs the same however much it is."""
        ...

    async def backlog(self, mapping: str) -> Backlog:
        """Count what a mapping has stored; costs the same however much it is."""
        ...

    def size_bytes(self) -> int:
        """Give what it takes up on disk; 0 while that cannot be seen. Never StoreUnavailable."""
        ...

    async def shrink(self, bytes_at_most: int) -> Space:
        """Give so much free room back to the file system, and say what is left.

        The file is smaller after `scrub`. Writes wait meanwhile.
        """
        ...

    async def scrub(self) -> bool:
        """Overwrite what was deleted wherever it still is in the store's files; False = somebody reads, try again."""
        ...

    async def close(self) -> None: ...


# --- replicas


class LeaseTable(Protocol):
    """The table that the replicas of a fleet share, as one of them uses it. Lives where the Store does."""

    #: Ours since the last `join`; empty before the first.
    incarnation: str

    async def join(self) -> None:
        """Enter the table under our name, with a new incarnation; what an earlier one of ours owned is still ours.

        Raises:
            StoreUnavailable
            InUse: another process, with another home, has this name and lives; the message says which and since when.
        """
        ...

    async def exchange(self, said: Said) -> Heard:
        """Say what we have to say, in one step and one round trip, and hear what has changed.

        What cannot be taken or given any more, because others were first, is passed over. Who is given something
        (`Give.heir`) is nudged.

        Raises:
            StoreUnavailable: not known whether it was heard.
        """
        ...

    async def look(self) -> Heard:
        """Give the whole table without changing it, whether we are in it or not; for people.

        Raises:
            StoreUnavailable
        """
        ...

    async def describe(self, about: str) -> None:
        """Put a small JSON text about us beside our row, for people and for `abouts`. Raises StoreUnavailable."""
        ...

    async def abouts(self) -> Mapping[str, str]:
        """Give the texts of all replicas by name, those of dead ones too until they are buried.

        Raises:
            StoreUnavailable
        """
        ...

    async def steered(self) -> None:
        """Tell all replicas that a mapping was paused, resumed or moved, and nudge them. Raises StoreUnavailable."""
        ...

    async def leave(self) -> None:
        """Take ourselves out of the table; what we still own is free at once. Raises StoreUnavailable."""
        ...


class Peers(Protocol):
    """The other replicas of a fleet, as one of them calls them. What they say goes through the shared store."""

    async def ask(self, replica: str, what: str, body: bytes, within_s: float) -> bytes:
        """Ask one replica, and give its answer.

        Raises:
            PeerGone: it does not live, or ended before it answered; what was asked may or may not be done.
            TimeoutError: it lives, and has not answered within this time.
            StoreUnavailable
        """
        ...

    async def calls(self) -> AsyncIterator[PeerCall | None]:
        """Yield what others ask of us, as it comes, once we have joined; None = a nudge. Ends after close.

        Raises:
            StoreUnavailable: call it again later: what was asked meanwhile comes then.
        """
        yield None

    async def close(self) -> None:
        """End all. May come twice."""
        ...


class PeerCall(Protocol):
    """Something that another replica asks."""

    #: Who asks.
    replica: str
    what: str
    body: bytes

    async def answer(self, body: bytes) -> None:
        """Answer it, once. Raises StoreUnavailable."""
        ...


# --- destinations


@dataclass(frozen=True, slots=True)
class FailureMessage:
    """What a destination is given: the failure, its source's part, and the whole event."""

    entry: FailureEntry
    event: bytes


class Sent(Enum):
    """In which form a destination has accepted a record."""

    WHOLE = "whole"
    #: Too large for it: without payload, with the id under which the failure store has it.
    CLAIM_CHECK = "claim check"
    #: The same of an asynchronous event: without both payloads.
    WITHOUT_PAYLOADS = "without payloads"


class Destination(Protocol):
    """Takes failure records."""

    #: For people: "sqs:orders-dlq".
    name: str

    async def send(self, message: FailureMessage) -> Sent:
        """Return once the destination has accepted the record, in the largest form that it takes.

        Raises:
            DestinationUnavailable: not accepted, or not known; it will be sent again.
        """
        ...

    async def check(self) -> None:
        """Reach it without sending anything. Raises DestinationUnavailable."""
        ...

    async def close(self) -> None: ...


class WallClock(Protocol):
    """Seconds since the epoch."""

    def __call__(self) -> float: ...
