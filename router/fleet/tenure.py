"""What one part of a mapping has of the fleet: the leases that it would have, and those that it has.

A part is the run of a stream, which wishes for shards, or what delivers failures, which wishes for `OUTBOX`. It names
what it would have, and is told when it has it, when another replica is to have it, and when it is gone. Each lease that
is granted has a token; a write that names it (`Holds`) is refused once the lease is another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from router.core.fleet import BEGINNING, Forgotten, LeaseKey, Released, TenantFact, Unwished, Wished
from router.errors import LeaseLost
from router.ports import Holds

#: How long it is waited to be the one that writes down where a mapping begins.
BEGINNING_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Granted:
    """The shard is ours from now on."""

    shard: str
    #: What the store keeps of it, read in the same step; empty = nothing.
    text: str
    token: int


@dataclass(frozen=True, slots=True)
class Revoking:
    """Another replica is to have the shard: finish, commit, and release it. It is ours until then."""

    shard: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The shard is not ours any more: end at once what runs of it, and write nothing."""

    shard: str


@dataclass(frozen=True, slots=True)
class FinishedElsewhere:
    """Other replicas have finished these shards."""

    shards: Sequence[str]


LeaseChange = Granted | Revoking | Lost | FinishedElsewhere
#: Learns of a change at the moment in which it is known.
Listener: TypeAlias = Callable[[LeaseChange], None]


class Ownership(Protocol):
    """Who keeps the leases of this replica."""

    @property
    def error(self) -> str | None:
        """Why the table was not heard when it was last asked; None = it was."""
        ...

    def feed(self, fact: TenantFact) -> None: ...

    def look(self) -> None:
        """Lose what has run out by the clock, if something has."""
        ...

    def wished(self, tenure: Tenure, shard: str) -> None:
        """Learn who hears of a lease from now on."""
        ...

    def left(self, tenure: Tenure) -> None:
        """Learn that nothing is wished for by it any more."""
        ...


class Tenure:
    """The wishes of one part of a mapping, and what it has of them."""

    def __init__(self, mapping: str, ownership: Ownership) -> None:
        self.mapping = mapping
        self._ownership = ownership
        self._wishes: set[str] = set()
        #: Tokens of what it has.
        self._tokens: dict[str, int] = {}
        #: What came before anybody listened.
        self._unheard: list[LeaseChange] = []
        self._listener: Listener = self._unheard.append

    def attend(self, listener: Listener) -> None:
        """Have this called with every change, at once; what came before anybody listened comes now."""
        self._listener = listener
        while self._unheard:
            listener(self._unheard.pop(0))

    async def changes(self) -> AsyncIterator[LeaseChange]:
        """Give the changes as they come, without end; for those who may hear of them a moment later."""
        queue: asyncio.Queue[LeaseChange] = asyncio.Queue()
        self.attend(queue.put_nowait)
        while True:
            yield await queue.get()

    # --- what is said

    def wish(self, shard: str) -> None:
        """Have this shard as soon as it is to be ours; `Granted` comes then."""
        if shard not in self._wishes:
            self._wishes.add(shard)
            self._ownership.wished(self, shard)
            self._ownership.feed(Wished(LeaseKey(self.mapping, shard)))

    def unwish(self, shard: str) -> None:
        """Wish for a shard no more; if we have it, nothing of it runs."""
        if shard in self._wishes:
            self._wishes.discard(shard)
            self._tokens.pop(shard, None)
            self._ownership.feed(Unwished(LeaseKey(self.mapping, shard)))

    def release(self, shard: str, *, finished: bool = False) -> None:
        """Let go of a shard: all of it is committed, and nothing of it runs any more.

        It stays wished for, unless the shard is finished for good.
        """
        if self._tokens.pop(shard, None) is not None:
            self._ownership.feed(Released(LeaseKey(self.mapping, shard), finished))
        if finished:
            self.unwish(shard)

    def forget(self, shards: Iterable[str]) -> None:
        """Have the fleet keep nothing more of finished shards; nobody who listens later is told of their ends."""
        keys = [LeaseKey(self.mapping, shard) for shard in sorted(shards)]
        if keys:
            self._ownership.feed(Forgotten(keys))
            names = {key.shard for key in keys}
            self._unheard[:] = [left for change in self._unheard for left in _without(change, names)]

    def leave(self) -> None:
        """Give back all that is left, and wish for nothing more: nothing of it runs."""
        self._listener = self._unheard.append
        for shard in sorted(self._wishes):
            self.unwish(shard)
        self._ownership.left(self)

    # --- what it has

    @property
    def owned(self) -> Sequence[str]:
        """The shards that it has."""
        return list(self._tokens)

    def has(self, shard: str) -> bool:
        return shard in self._tokens

    def why_stuck(self) -> tuple[str, str] | None:
        """Say why it has nothing of what it wishes for, if that is because the table cannot be asked; else None."""
        error = self._ownership.error
        if error is None or self._tokens or not self._wishes:
            return None
        return "StateUnavailable", f"No lease can be taken, and none is held: {error}"

    def look(self) -> None:
        """Lose what has run out by the clock, and be told so, before anything more is begun."""
        self._ownership.look()

    def fences(self, shards: Iterable[str]) -> list[Holds]:
        """Give what a write for these shards must name.

        Raises:
            LeaseLost: one of them is not ours.
        """
        fences = []
        for shard in shards:
            token = self._tokens.get(shard)
            if token is None:
                raise LeaseLost(f"{shard} of {self.mapping} is not ours any more")
            fences.append(Holds(self.mapping, shard, token))
        return fences

    # --- what is told

    def tell(self, change: LeaseChange) -> None:
        """Learn of a change; called by who keeps the leases."""
        match change:
            case Granted(shard, _, token):
                self._tokens[shard] = token
            case Lost(shard):
                self._tokens.pop(shard, None)
        self._listener(change)


def _without(change: LeaseChange, finished: AbstractSet[str]) -> list[LeaseChange]:
    """Give what a change says beside that these shards are finished."""
    if not isinstance(change, FinishedElsewhere):
        return [change]
    left = [shard for shard in change.shards if shard not in finished]
    return [FinishedElsewhere(left)] if left else []


class Tenures(Protocol):
    """Who gives tenures."""

    def tenure(self, mapping: str) -> Tenure: ...


@asynccontextmanager
async def beginner(fleet: Tenures, mapping: str) -> AsyncIterator[Sequence[Holds]]:
    """Be the one replica that writes down where a mapping begins; gives what the write must name.

    Raises:
        LeaseLost: another one is at it, or is believed to be: look again later.
    """
    tenure = fleet.tenure(mapping)
    try:
        tenure.wish(BEGINNING)
        try:
            async with asyncio.timeout(BEGINNING_S):
                async for change in tenure.changes():
                    if isinstance(change, Granted):
                        break
        except TimeoutError:
            raise LeaseLost(f"another replica writes down where {mapping} begins, or the fleet is not joined") from None
        yield tenure.fences([BEGINNING])
        tenure.release(BEGINNING)
    finally:
        tenure.leave()
