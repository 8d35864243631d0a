"""What the replicas of a fleet know of each other: the table of leases and replicas, and how one replica changes it.

Replicas share a table. A lease says who may read one shard of one mapping, and write what it keeps of it: every such
write names the token of the lease, and is refused once another has taken it. A replica shows that it lives by a number
that rises (`beat`). Who sees the number stand still for the length of a lease, by its own monotonic clock, takes over
what that replica owns. No wall clock is compared with another's.

A replica stops by itself before that: `Tenant` (tenant.py) decides when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Pseudo-shard of a mapping whose owner delivers the mapping's failures, and lets go of old ones.
OUTBOX: Final = "@outbox"
#: Pseudo-shard of a mapping of a stream: who owns it writes down where the mapping begins in it.
BEGINNING: Final = "@beginning"


class LeaseKey(NamedTuple):
    """What is leased: a shard of a mapping, or what only one replica may do for it (`OUTBOX`)."""

    mapping: str
    shard: str


def part(key: LeaseKey) -> str:
    """Name the part of a mapping that a lease is for; a replica may have it if that is among what it `runs`.

    All shards of a mapping are one part, which runs or rests as a whole; each pseudo-shard is one of its own.
    """
    return f"{key.mapping}{key.shard}" if key.shard.startswith("@") else key.mapping


class Lease(NamedTuple):
    """Who owns something, as the table has it."""

    #: Another one, and a larger one, with every owner and whenever it becomes free; never used again for any key.
    token: int
    #: Name of the replica; empty = it is free.
    owner: str
    #: To whom its owner is giving it, or has given it; empty = to nobody in particular.
    heir: str
    #: Cost a second of what it is for, as its last owner has measured it.
    load: float
    #: Since when it has this owner, or none, epoch milliseconds of the table's clock: for people.
    since_ms: int
    #: The shard is finished for good: nobody takes it, and its children may be read.
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica, as the table has it."""

    name: str
    #: Another one with every start of its process.
    incarnation: str
    #: Rises while it lives.
    beat: int
    #: Cost a second of all that it owns.
    load: float
    #: Is it stopping? Then it takes nothing, and gives what it has.
    draining: bool
    #: The parts of mappings (`part`) of which it would take leases.
    runs: frozenset[str]
    #: So long it goes on after it was heard, at most, by its own file; 0 = it has not said.
    lease_s: float = 0.0


class Take(NamedTuple):
    """Become the owner, if the lease still has this token (0 = it is not in the table)."""

    key: LeaseKey
    token: int
    #: Of a dead owner: and if its beat is still this one. None = it is free, or our own.
    dead_beat: int | None = None


class Give(NamedTuple):
    """Stop being the owner, if the lease still has this token."""

    key: LeaseKey
    token: int
    #: Who is to take it; empty = anybody.
    heir: str
    load: float
    finished: bool = False


class Mark(NamedTuple):
    """Say to whom a lease of ours goes once it is drained, so that all count it there, and what it costs by now."""

    key: LeaseKey
    token: int
    #: Empty = it stays.
    heir: str
    load: float


class Bury(NamedTuple):
    """Take a replica out of the table, if its beat is still this one; what it still owns is free then."""

    replica: str
    beat: int


@dataclass(frozen=True, slots=True)
class Said:
    """What one replica tells the table in one exchange; done in the order of gives, marks, takes, buries, forgets."""

    beat: int
    load: float
    draining: bool
    #: The parts of mappings (`part`) of which it would take leases; None = as said before.
    runs: frozenset[str] | None
    #: Version of the table that it knows; 0 = none.
    known: int
    takes: Sequence[Take] = ()
    gives: Sequence[Give] = ()
    marks: Sequence[Mark] = ()
    buries: Sequence[Bury] = ()
    #: Keys of which nothing is to be known any more; refused for those that somebody owns.
    forgets: Sequence[LeaseKey] = ()


class Taken(NamedTuple):
    """A lease that is ours now."""

    token: int
    #: What the store keeps of the shard, read in the same step; empty = nothing.
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The answer: what was taken, and what has changed in the table since the version that was known."""

    version: int
    #: Is the table told whole, and not only what has changed?
    whole: bool
    taken: Mapping[LeaseKey, Taken]
    #: Changed leases; None = it is not in the table any more. Our own changes of this exchange are among them.
    leases: Mapping[LeaseKey, Lease | None]
    #: All replicas, ourselves among them.
    replicas: Mapping[str, Replica]
    #: Rises whenever somebody pauses, resumes or moves a mapping of the fleet.
    steered: int = 0
    #: Does the table have us under another incarnation? Then another process has our name, and we are out.
    replaced: bool = False


# --- facts of a Tenant


@dataclass(frozen=True, slots=True)
class Wished:
    """We would read this shard, or do this, if its lease were ours. Stays so until Unwished."""

    key: LeaseKey


@dataclass(frozen=True, slots=True)
class Unwished:
    """We want this no more: what of it is ours was released before, or is released now."""

    key: LeaseKey


@dataclass(frozen=True, slots=True)
class Answered:
    """An exchange ended. It was sent at this monotonic time: what it confirms is confirmed as of then."""

    sent_s: float
    heard: Heard


@dataclass(frozen=True, slots=True)
class Unanswered:
    """It is not known whether the table has heard us."""

    error: str


@dataclass(frozen=True, slots=True)
class Released:
    """What was ours is finished with, committed, and nothing of it runs any more."""

    key: LeaseKey
    #: Is the shard finished for good?
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What the shards that are ours cost a second now."""

    loads: Mapping[LeaseKey, float]


@dataclass(frozen=True, slots=True)
class Runs:
    """The parts of mappings (`part`) of which we would take leases from now on."""

    parts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The stream knows nothing of these finished shards any more: keep nothing of their leases."""

    keys: Sequence[LeaseKey]


@dataclass(frozen=True, slots=True)
class Leaving:
    """We are stopping: everything is given to others as it is released."""


@dataclass(frozen=True, slots=True)
class Nudged:
    """Somebody says that there is something for us in the table."""


@dataclass(frozen=True, slots=True)
class Due:
    """The time asked for by WakeAt has come."""


TenantFact = Wished | Unwished | Answered | Unanswered | Released | Measured | Runs | Forgotten | Leaving | Nudged | Due

# --- commands of a Tenant


@dataclass(frozen=True, slots=True)
class Exchange:
    """Tell the table this; answered by Answered or Unanswered. One at a time."""

    said: Said


@dataclass(frozen=True, slots=True)
class Grant:
    """It is ours from now on: begin where the text says."""

    key: LeaseKey
    taken: Taken


@dataclass(frozen=True, slots=True)
class Revoke:
    """Finish what is in flight, commit, and answer by Released. It is still ours until then."""

    key: LeaseKey
    #: Who waits for it; empty = nobody in particular.
    heir: str


@dataclass(frozen=True, slots=True)
class Lose:
    """It is not ours any more, or cannot be known to be: end at once what runs of it, and write nothing."""

    key: LeaseKey
    why: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Another replica has finished these shards of a mapping of ours: their children may be read."""

    mapping: str
    shards: Sequence[str]


@dataclass(frozen=True, slots=True)
class Orphaned:
    """A replica is dead: what it had begun for the fleet, such as replays, is for whoever takes it up."""

    replica: str
    #: Are we the one to take it up?
    ours: bool


@dataclass(frozen=True, slots=True)
class Steered:
    """Somebody has paused, resumed or moved a mapping: look."""


@dataclass(frozen=True, slots=True)
class Ousted:
    """Another process has our name: we own nothing any more, and must stop."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Feed Due at this monotonic time."""

    mono_s: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something an operator may want to read; `event` is listed in router.telemetry."""

    event: str
    fields: Mapping[str, object]


TenantCommand = Exchange | Grant | Revoke | Lose | Finished | Orphaned | Steered | Ousted | WakeAt | Note
