"""On whom it is to deliver the failures of a mapping, and to let go of old ones.

A daemon alone always does it. In a fleet the replica that has the lease of `OUTBOX` does, and the others keep failures
only: they tell it what they have kept, so that it need not look, and hand on to it what they are asked to deliver.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from router.core.fleet import OUTBOX
from router.errors import PeerGone, StoreUnavailable
from router.failures.deliveries import DeliverOne, DeliveryEnd, Note
from router.fleet.tenure import Granted, LeaseChange, Lost, Revoking, Tenure
from router.ports import Holds

#: What replicas tell the one that delivers, and ask of it.
NOTE: Final = "outbox"
DELIVER: Final = "deliver"
#: The answer to a note, or to what was asked, when it is not on the replica that was told.
NOT_OURS: Final = b""
NOTED: Final = b"noted"
#: How long a replica may take to answer a note, and to send one failure.
NOTE_S: Final = 10.0
DELIVER_S: Final = 120.0
#: Between two looks for who delivers, and how long somebody who asks waits until anybody does.
LOOK_AGAIN_S: Final = 0.5
PATIENCE_S: Final = 60.0


class Owners(Protocol):
    """The other replicas of a fleet, by what they have."""

    async def owner(self, mapping: str, shard: str) -> str | None:
        """Name the other replica that has a shard; None = none that we know of. Raises StoreUnavailable."""
        ...

    @property
    def others(self) -> Sequence[str]:
        """The other replicas that live."""
        ...

    async def ask(self, replica: str, what: str, body: bytes, within_s: float) -> bytes:
        """Ask one, as `Peers.ask` does."""
        ...


class OutboxLease(Protocol):
    """Says whether it is on us."""

    @property
    def is_ours(self) -> bool: ...

    @property
    def is_shared(self) -> bool:
        """May others keep failures of the mapping, too?"""
        ...

    def fences(self) -> Sequence[Holds]:
        """Give what a write must name that is ours to make. Raises LeaseLost."""
        ...

    async def gained(self) -> None:
        """Return once it is on us."""
        ...

    async def going(self) -> bool:
        """Return once it is not on us any more (False), or is to be another's (True): finish, and release it."""
        ...

    def release(self) -> None:
        """Let go of it: nothing of it runs any more. It may come again."""
        ...

    def leave(self) -> None:
        """Let go of it for good."""
        ...

    async def tell(self, note: Note) -> bool:
        """Tell whoever delivers; False = it could not be told."""
        ...

    async def tell_all(self, note: Note) -> None:
        """Tell all others, as far as they can be told."""
        ...

    async def deliver(self, failure_id: str) -> DeliveryEnd | None:
        """Have another replica send a failure; None = it is on us by now."""
        ...


class AlwaysOurs:
    """Of a daemon that shares its state with nobody."""

    is_ours = True
    is_shared = False

    def fences(self) -> Sequence[Holds]:
        return ()

    async def gained(self) -> None:
        """Return at once."""

    async def going(self) -> bool:
        await asyncio.get_running_loop().create_future()
        return False

    def release(self) -> None:
        """Keep it: it never goes."""

    def leave(self) -> None:
        """Keep it: there is nobody else."""

    async def tell(self, note: Note) -> bool:  # noqa: ARG002 - nobody else is there
        return True

    async def tell_all(self, note: Note) -> None:
        """Tell nobody: nobody else is there."""

    async def deliver(self, failure_id: str) -> DeliveryEnd | None:  # noqa: ARG002 - nobody else is there
        return None


class LeasedOutbox:
    """Of a replica of a fleet."""

    is_shared = True

    def __init__(self, tenure: Tenure, owners: Owners) -> None:
        self._tenure = tenure
        self._owners = owners
        self._is_revoking = False
        self._changed = asyncio.Event()

    @property
    def is_ours(self) -> bool:
        self._tenure.look()
        return self._tenure.has(OUTBOX)

    def fences(self) -> Sequence[Holds]:
        return self._tenure.fences([OUTBOX])

    async def gained(self) -> None:
        self._tenure.attend(self._heard)
        self._tenure.wish(OUTBOX)
        while not self._tenure.has(OUTBOX):
            self._changed.clear()
            await self._changed.wait()

    async def going(self) -> bool:
        while self._tenure.has(OUTBOX) and not self._is_revoking:
            self._changed.clear()
            await self._changed.wait()
        return self._tenure.has(OUTBOX)

    def release(self) -> None:
        self._is_revoking = False
        self._tenure.release(OUTBOX)

    def leave(self) -> None:
        self._tenure.leave()

    def _heard(self, change: LeaseChange) -> None:
        match change:
            case Revoking():
                self._is_revoking = True
            case Granted() | Lost():
                self._is_revoking = False
        self._changed.set()

    async def tell(self, note: Note) -> bool:
        try:
            owner = await self._owners.owner(self._tenure.mapping, OUTBOX)
            if owner is None:
                return False
            return await self._owners.ask(owner, NOTE, msgspec.msgpack.encode(note), NOTE_S) == NOTED
        except (PeerGone, TimeoutError, StoreUnavailable):
            return False

    async def tell_all(self, note: Note) -> None:
        body = msgspec.msgpack.encode(note)
        for replica in self._owners.others:
            with contextlib.suppress(PeerGone, TimeoutError, StoreUnavailable):
                await self._owners.ask(replica, NOTE, body, NOTE_S)

    async def deliver(self, failure_id: str) -> DeliveryEnd | None:
        loop = asyncio.get_running_loop()
        body = msgspec.msgpack.encode(DeliverOne(self._tenure.mapping, failure_id))
        until_s = loop.time() + PATIENCE_S
        while not self._tenure.has(OUTBOX):
            answer = NOT_OURS
            try:
                owner = await self._owners.owner(self._tenure.mapping, OUTBOX)
                answer = await self._owners.ask(owner, DELIVER, body, DELIVER_S) if owner else NOT_OURS
            except PeerGone:
                until_s = loop.time() + PATIENCE_S
            except TimeoutError:
                return DeliveryEnd(failure_id, "not_delivered", "it is still being sent; see `headrace status`")
            except StoreUnavailable as error:
                return DeliveryEnd(failure_id, "refused", str(error))
            if answer != NOT_OURS:
                return msgspec.msgpack.decode(answer, type=DeliveryEnd)
            if loop.time() >= until_s:
                return DeliveryEnd(failure_id, "refused", "no replica delivers now; see `headrace status`")
            await asyncio.sleep(LOOK_AGAIN_S)
        return None
