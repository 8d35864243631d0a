"""Whose state it is. A mapping's identity is its name: what is kept of its progress and its failures is kept under it.

Under a new name (`renamed_from`) a mapping takes over what was kept under the old one, in one step of the store. Under
the same name it must go on with the source that it began with: positions, retry states and failures mean nothing in
another, and reading it from its start may be the last thing that is wanted. So another source is refused until somebody
says that it is meant. What a mapping leaves behind stays until somebody says that it is not needed any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from router.checkpoints import SHARD, STREAM
from router.errors import DecisionNeeded, InUse, NotFound
from router.ports import DeleteFailure, PutState, RenameMapping, Selection, Store
from router.telemetry import Log

#: Key of the store under which a mapping notes what it has begun to read.
BEGUN: Final = "begun"
#: Failures deleted in one step.
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Holding:
    """What is kept under one name."""

    mapping: str
    #: Small texts: retry states, what was begun.
    states: int
    failures: int
    #: Of them, those that their destination has not accepted yet.
    undelivered: int
    #: What the mapping has begun to read; None = nothing, as far as is known.
    source: str | None

    @property
    def is_empty(self) -> bool:
        return not (self.states or self.failures)


class Life(Protocol):
    """A mapping that a daemon has."""

    @property
    def is_down(self) -> bool: ...

    @property
    def is_undecided(self) -> bool:
        """Does it wait for somebody's decision?"""
        ...

    def decide(self) -> None:
        """Try again, because somebody has decided something."""
        ...


async def holding(store: Store, mapping: str) -> Holding:
    """Say what is kept under a name. Raises StoreUnavailable."""
    states = await store.states(mapping)
    backlog = await store.backlog(mapping)
    return Holding(mapping, len(states), backlog.failures, backlog.undelivered, states.get(BEGUN))


async def _left(store: Store, mapping: str) -> Holding:
    """Say what is kept under a name, also while texts of it are gone: then those are left out."""
    try:
        return await holding(store, mapping)
    except DecisionNeeded:
        backlog = await store.backlog(mapping)
        return Holding(mapping, 0, backlog.failures, backlog.undelivered, None)


async def take_over(store: Store, mapping: str, former: str, log: Log) -> None:
    """Give a mapping what is kept under the name that it had.

    Raises:
        DecisionNeeded: both names have something.
        StoreUnavailable
    """
    left, own = await holding(store, former), await holding(store, mapping)
    if left.is_empty:
        return
    if not own.is_empty:
        raise DecisionNeeded(
            "RenameConflict",
            f"State is kept under {mapping} and under {former}, which is its former name, and it can have one: delete "
            f"the other with `headrace mapping forget {former}` or `headrace mapping forget {mapping}`.",
        )
    await store.apply([RenameMapping(former, mapping)])
    log.write("mapping.renamed", former=former, states=left.states, failures=left.failures)


async def confirm(store: Store, mapping: str, source: str) -> bool:
    """Note what a mapping begins to read; says whether it had begun before.

    Raises:
        DecisionNeeded: it had begun with another source.
        StoreUnavailable
    """
    begun = (await store.states(mapping)).get(BEGUN)
    if begun is None:
        await store.apply([PutState(mapping, BEGUN, source)])
    elif begun != source:
        raise DecisionNeeded(
            "SourceChanged",
            f"What is kept of this mapping belongs to {begun}; the file now names {source}. Put the former source "
            f"back, or let it go on with the new one: `headrace mapping accept {mapping}`.",
        )
    return begun is not None


async def accept(store: Store, mapping: str, lives: Mapping[str, Life]) -> Holding:
    """Let a mapping begin with whatever source it has; gives what it had before.

    One whose texts are gone goes on with those that are left, and begins where it knows nothing.

    Raises:
        NotFound: there is nothing to accept.
        StoreUnavailable
    """
    was_gone = await store.accept_loss(mapping)
    had, life = await holding(store, mapping), lives.get(mapping)
    if had.source is None and not was_gone:
        raise NotFound(f"nothing is kept of a mapping {mapping!r} that has begun to read: there is nothing to accept")
    if life is not None and not life.is_undecided and not was_gone:
        raise NotFound(f"mapping {mapping} reads {had.source}, as it always has: there is nothing to accept")
    if not was_gone:
        places = [key for key in await store.states(mapping) if key == STREAM or key.startswith(SHARD)]
        await store.apply([PutState(mapping, key, "") for key in (BEGUN, *places)])
    if life:
        life.decide()
    return had


async def forget(store: Store, mapping: str, lives: Mapping[str, Life], *, only_look: bool = False) -> Holding:
    """Delete all that is kept under a name; gives what that was, or with `only_look` what it would be.

    Raises:
        InUse: the mapping runs.
        NotFound: nothing is kept.
        StoreUnavailable: some of it may be deleted; forget it again.
    """
    if mapping.startswith("$"):  # what was made through the API is kept there
        raise InUse(f"{mapping} is no mapping: what was made through the API is deleted through the API")
    life = lives.get(mapping)
    if life is not None and not life.is_down:
        raise InUse(
            f"mapping {mapping} runs: take it out of the file, or set `enabled: false`, in the API if that made it, "
            "before what it keeps is deleted"
        )
    if not only_look:
        await store.accept_loss(mapping)
    had = await _left(store, mapping)
    if had.is_empty:
        raise NotFound(f"nothing is kept of a mapping {mapping!r}")
    if only_look:
        return had
    while found := await store.failures(Selection(mapping=mapping, limit=_AT_ONCE)):
        await store.apply([DeleteFailure(entry.batch.id) for entry in found])
    await store.apply([PutState(mapping, key, "") for key in await store.states(mapping)])
    for other in lives.values():
        if other.is_undecided:
            other.decide()
    return had
