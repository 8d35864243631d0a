"""Which other replica has a shard, for what only its owner may do.

Shards that are leased are looked up in the table of leases, as this replica knows it. Where the source assigns shards
(Kafka), each replica says in its description what it has been given: that is a moment old, so who is asked may say that
it has the shard no more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from router.core.fleet import Lease, LeaseKey, Replica
from router.ports import LeaseTable, Peers

#: How old a description may be that is gone by.
ABOUT_S: Final = 1.0


class Known(Protocol):
    """What of a fleet is known to one replica of it."""

    name: str
    table: LeaseTable
    peers: Peers

    def lease(self, key: LeaseKey) -> Lease | None:
        """Give a lease as the table was last heard to have it; None = it has none."""
        ...

    def living(self) -> Mapping[str, Replica]:
        """Give the other replicas that live, as far as we know."""
        ...


class FleetOwners:
    """The other replicas, by what they have."""

    def __init__(self, fleet: Known) -> None:
        self._fleet = fleet
        #: By mapping and shard, who says that it has it.
        self._assigned: Mapping[tuple[str, str], Sequence[str]] = {}
        self._looked_s = float("-inf")
        self._looking = asyncio.Lock()
        self._turns = 0

    async def owner(self, mapping: str, shard: str) -> str | None:
        """Name the other replica that has a shard; None = none that we know of. Raises StoreUnavailable."""
        lease = self._fleet.lease(LeaseKey(mapping, shard))
        if lease is not None:
            return lease.owner if lease.owner != self._fleet.name and lease.owner else None
        await self._look()
        found = self._assigned.get((mapping, shard), ())
        if self._fleet.name in found or not found:
            return None
        # One of several has it no more and does not know; it is not known which.
        self._turns += 1
        return found[self._turns % len(found)]

    @property
    def others(self) -> Sequence[str]:
        """The other replicas that live."""
        return sorted(self._fleet.living())

    async def ask(self, replica: str, what: str, body: bytes, within_s: float) -> bytes:
        """Ask one, as `Peers.ask` does."""
        return await self._fleet.peers.ask(replica, what, body, within_s)

    async def _look(self) -> None:
        async with self._looking:
            loop = asyncio.get_running_loop()
            if loop.time() - self._looked_s < ABOUT_S:
                return
            assigned: dict[tuple[str, str], list[str]] = {}
            for replica, text in (await self._fleet.table.abouts()).items():
                for mapping, about in (json.loads(text) if text else {}).get("mappings", {}).items():
                    for shard in about.get("shards", ()):
                        assigned.setdefault((mapping, shard), []).append(replica)
            self._assigned, self._looked_s = assigned, loop.time()
