"""What the replicas of a fleet ask of each other about failures: to replay one, to deliver one, and what was kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from router.errors import StoreUnavailable
from router.failures.deliveries import DeliverOne, DeliveryEnd, Note, deliver
from router.failures.outbox_lease import DELIVER, NOT_OURS, NOTE, NOTED
from router.fleet.owners import FleetOwners
from router.life import MappingLife
from router.ports import Store
from router.replay.carrying import REPLAY
from router.replay.replay import Replayer


class Served(Protocol):
    """What of a fleet takes what others ask."""

    def serve(self, what: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None: ...

    @property
    def on_orphaned(self) -> list[Callable[[str], None]]:
        """Called with the name of a dead replica whose jobs fall to us."""
        ...


def share_failures(fleet: Served, owners: FleetOwners, replayer: Replayer, store: Store) -> None:
    """Have a daemon share replays and deliveries with the other replicas of its fleet."""
    replayer.join(owners)
    fleet.on_orphaned.append(replayer.orphaned)
    fleet.serve(REPLAY, lambda _, body: replayer.serve(body))
    fleet.serve(NOTE, lambda _, body: _noted(replayer.lives, body))
    fleet.serve(DELIVER, lambda _, body: _deliver(store, replayer.lives, body))


async def _noted(lives: Mapping[str, MappingLife], body: bytes) -> bytes:
    note = msgspec.msgpack.decode(body, type=Note)
    life = lives.get(note.mapping)
    deliveries = life.parts.deliveries if life else None
    return NOTED if deliveries and deliveries.heard(note) else NOT_OURS


async def _deliver(store: Store, lives: Mapping[str, MappingLife], body: bytes) -> bytes:
    wanted = msgspec.msgpack.decode(body, type=DeliverOne)
    life = lives.get(wanted.mapping)
    deliveries = life.parts.deliveries if life else None
    if deliveries is None or not deliveries.is_ours:
        return NOT_OURS
    end: object
    try:
        ends = await deliver(store, {wanted.mapping: deliveries}, [wanted.id])
        end = await ends.next()
    except StoreUnavailable as error:
        end = DeliveryEnd(wanted.id, "refused", str(error))
    return msgspec.msgpack.encode(end) if isinstance(end, DeliveryEnd) else NOT_OURS
