"""What an engine is told (facts) and what it asks for (commands).

`engine.feed(fact, now) -> list[Command]`. A fact says what has happened, never what to do; a command is carried out
by the runner, which reports the end of it as a further fact. Same facts and seed, same commands: an incident is a
unit test.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from router.core.model import Batch, Chunk, FailedBatch, Outcome, ShardInfo

# --- facts


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A stream was reached whose shards we find ourselves."""

    #: The shards that have a checkpoint, and those of them that are finished.
    begun: frozenset[str]
    finished: frozenset[str]
    #: Was the stream that we had begun deleted, and made again under its name?
    remade: bool = False


@dataclass(frozen=True, slots=True)
class ShardsListed:
    """All shards that the stream has."""

    shards: Sequence[ShardInfo]


@dataclass(frozen=True, slots=True)
class ShardsFinished:
    """Other replicas have finished these shards: their children may be read."""

    shards: Sequence[str]


@dataclass(frozen=True, slots=True)
class ListFailed:
    error: str


@dataclass(frozen=True, slots=True)
class ShardOpened:
    """The source gave us this shard. `checkpoint` is None when nothing is committed for it yet."""

    shard: str
    #: What one read covers; shards of one unit are read together.
    unit: Hashable
    checkpoint: int | None
    #: Retry state that was committed with the checkpoint; empty when there was none.
    retry_state: str = ""


@dataclass(frozen=True, slots=True)
class ShardRevoking:
    """The source wants the shard back: finish, commit, release."""

    shard: str


@dataclass(frozen=True, slots=True)
class ShardLost:
    """The shard is no longer ours; whatever we do for it now is not accepted."""

    shard: str


@dataclass(frozen=True, slots=True)
class Located:
    """Answer to Locate: read behind this checkpoint."""

    shard: str
    checkpoint: int


@dataclass(frozen=True, slots=True)
class Rewound:
    """Answer to Locate after a lost position: the oldest record that is left is not known before it is read."""

    shard: str


@dataclass(frozen=True, slots=True)
class LocateFailed:
    shard: str
    error: str


@dataclass(frozen=True, slots=True)
class ChunksRead:
    """A read ended. Shards without records may be missing; it may be empty."""

    unit: Hashable
    chunks: Sequence[Chunk]


@dataclass(frozen=True, slots=True)
class ReadFailed:
    unit: Hashable
    error: str
    #: Was it only too much for the source?
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class PositionGone:
    """The shard cannot be read from where we are: trimmed, or somebody moved the log."""

    unit: Hashable
    shard: str
    error: str


@dataclass(frozen=True, slots=True)
class ShardDeleted:
    """The stream has no such shard any more, whatever was left to read in it."""

    unit: Hashable
    shard: str
    error: str


@dataclass(frozen=True, slots=True)
class QueueOpened:
    """The queue was reached: polling may begin."""


@dataclass(frozen=True, slots=True)
class Received:
    """A receive from a queue ended; the chunk may be empty. Its messages are ours for `lease_s` from now."""

    poll: int
    chunk: Chunk
    lease_s: float
    #: What is kept of those that came again, by position: another replica may have had them since we wrote.
    recalled: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReceiveFailed:
    poll: int
    error: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A Delete ended; `failed` says, by position, what the queue did not delete and why."""

    call: int
    failed: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class DeleteFailed:
    """A Delete could not be asked for, or it is not known how it ended."""

    call: int
    error: str


@dataclass(frozen=True, slots=True)
class Extended:
    """An Extend ended; `failed` says, by position, whose lease is as it was and why."""

    call: int
    failed: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class ExtendFailed:
    call: int
    error: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a Remember asked for is stored durably."""

    call: int


@dataclass(frozen=True, slots=True)
class RememberFailed:
    call: int
    error: str


@dataclass(frozen=True, slots=True)
class InvocationEnded:
    batch_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Kept:
    """A failed batch is durably stored."""

    failure_id: str


@dataclass(frozen=True, slots=True)
class KeepFailed:
    failure_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Committed:
    """What the last Commit asked for is remembered durably."""


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """What the last Commit asked for may or may not be remembered."""

    error: str


@dataclass(frozen=True, slots=True)
class Held:
    """Start nothing new but replays until Unheld, and say why (for example: too many undelivered failures)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unheld:
    pass


@dataclass(frozen=True, slots=True)
class ReplayRequested:
    """Run a stored failed batch again, in the lanes of its keys. `chunk` holds its records."""

    failure_id: str
    chunk: Chunk
    #: Has the batch a place of its own (a dead-letter queue)? Then it is tried once and never stored as a new failure.
    elsewhere: bool = False
    #: Does it wait for a while when its shard is not ours? Else it is given back at once, as `astray`.
    waits: bool = True


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Stop: start nothing new, let in-flight work end, commit, finish."""

    #: What is still in flight after this time is ended by force.
    within_s: float


@dataclass(frozen=True, slots=True)
class Due:
    """The time asked for by WakeAt has come."""


#: What both engines are told.
SharedFact = InvocationEnded | Kept | KeepFailed | Held | Unheld | ReplayRequested | DrainRequested | Due
StreamFact = (
    SharedFact
    | StreamOpened
    | ShardsListed
    | ShardsFinished
    | ListFailed
    | ShardDeleted
    | ShardOpened
    | ShardRevoking
    | ShardLost
    | Located
    | Rewound
    | LocateFailed
    | ChunksRead
    | ReadFailed
    | PositionGone
    | Committed
    | CommitFailed
)
QueueFact = (
    SharedFact
    | QueueOpened
    | Received
    | ReceiveFailed
    | Deleted
    | DeleteFailed
    | Extended
    | ExtendFailed
    | Remembered
    | RememberFailed
)
Fact = StreamFact | QueueFact

# --- commands


class Demand(NamedTuple):
    """Room for records of one shard, and from where."""

    #: Checkpoint: read what follows this position.
    after: int
    #: At most this many records are wanted; a source may give fewer.
    limit: int


class Progress(NamedTuple):
    """What a source, or the store in its place, is to remember of a shard."""

    #: Position of the last record that is finished with all before it.
    checkpoint: int
    #: Attempts, halves and next tries of what is unfinished behind it; empty when there is nothing to say.
    retry_state: str
    #: Is the whole shard finished, to its very end?
    ended: bool = False


@dataclass(frozen=True, slots=True)
class List:
    """List the shards of the stream; answered by ShardsListed or ListFailed."""


@dataclass(frozen=True, slots=True)
class Open:
    """Take this shard up where it is, once it may be ours; answered by ShardOpened."""

    shard: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Keep nothing more of these shards: they are finished, and the stream has them no more."""

    shards: Sequence[str]


@dataclass(frozen=True, slots=True)
class Locate:
    """Ask the source where reading starts, by the mapping's starting position or after a lost position."""

    shard: str
    #: True when an earlier position was lost: nothing may be skipped then.
    lost: bool


@dataclass(frozen=True, slots=True)
class Read:
    """Read these shards. A Read for a unit replaces the one still under way for it."""

    unit: Hashable
    demand: Mapping[str, Demand]


@dataclass(frozen=True, slots=True)
class Invoke:
    batch: Batch


@dataclass(frozen=True, slots=True)
class Cancel:
    """End this invocation now, also by force; answered by InvocationEnded. With `waiting_only`, only if not started."""

    batch_id: str
    waiting_only: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """Store this failed batch durably; its destination is served from the store."""

    failure: FailedBatch
    batch: Batch


@dataclass(frozen=True, slots=True)
class Commit:
    done: Mapping[str, Progress]


@dataclass(frozen=True, slots=True)
class Release:
    """Give the shard back, if anybody else may want it: all that could be finished is committed, nothing of it runs."""

    shard: str
    #: Is it finished for good?
    finished: bool = False
    #: Does the run end, so that it is not to be ours again?
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Receive:
    """Ask the queue for messages, waiting for some; answered by Received or ReceiveFailed."""

    poll: int
    #: At most this many, 1 to 10.
    limit: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class StopReceiving:
    """End this receive; it is not answered any more."""

    poll: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete messages, 1 to 10: rows by position."""

    call: int
    messages: Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class Extend:
    """Let the leases of messages, 1 to 10, end this long from now; 0 gives them back to the queue."""

    call: int
    messages: Mapping[int, Any]
    lease_s: int


@dataclass(frozen=True, slots=True)
class Remember:
    """Store what a queue's messages have been through, durably: texts by position; an empty text forgets."""

    call: int
    texts: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay is over: all its records succeeded, or these failures took their place."""

    failure_id: str
    new_failures: Sequence[str]


@dataclass(frozen=True, slots=True)
class ReplayRefused:
    """A replay cannot run here and now, or what has a place of its own failed again; either stays as it is."""

    failure_id: str
    reason: str
    #: Did the function run, and fail?
    failed: bool = False
    #: Is its shard not ours, or not ours any more? Nothing of it runs here, and another replica may have it.
    astray: bool = False


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Feed Due at this monotonic time."""

    mono_s: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something an operator may want to read; `event` is listed in router.telemetry."""

    event: str
    shard: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Finished:
    """Drained: nothing is in flight and everything finished is committed."""


#: What both engines ask for.
SharedCommand = Invoke | Cancel | Keep | Replayed | ReplayRefused | WakeAt | Note | Finished
StreamCommand = List | Open | Forget | Locate | Read | Commit | Release
QueueCommand = Receive | StopReceiving | Delete | Extend | Remember
Command = SharedCommand | StreamCommand | QueueCommand
