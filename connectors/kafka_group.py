"""What the consumer group gives us and takes away, as a queue of changes.

The group's protocol is the eager one: a rebalance revokes everything, waits until each member has joined again, and
assigns anew; most shards come back to where they were. aiokafka calls us from its own task and stays a member of the
group, with heartbeats, for as long as we keep it waiting for the work in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import TopicPartition

from connectors.kafka_codec import shard_name
from router.errors import RouterError
from router.ports import Lost, Revoking


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are ours from now on."""

    partitions: tuple[TopicPartition, ...]


#: The end of changes: we closed (None), or our membership ended by this.
_End = RouterError | None


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Our part of the group's partitions."""

    def __init__(self, release_s: float) -> None:
        #: What we may read and commit, by shard.
        self.owned: dict[str, TopicPartition] = {}
        #: Rises with every assignment, so that a fetch that outlived its own is recognised.
        self.generation = 0
        self._release_s = release_s
        self._unreleased: set[str] = set()
        self._released = asyncio.Event()
        self._closing = False
        self._changes: asyncio.Queue[Assigned | Revoking | Lost | _End] = asyncio.Queue()

    @property
    def revoking(self) -> bool:
        """Say whether the group waits for us to give our shards back."""
        return bool(self._unreleased)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - it is all we own
        """Ask for all shards, wait until they are released or time is up, and take the rest."""
        self._unreleased = set(self.owned)
        self._released.clear()
        for shard in self.owned:
            self._changes.put_nowait(Revoking(shard))
        if self._unreleased and not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._release_s):
                    await self._released.wait()
        for shard in self._unreleased:
            self._changes.put_nowait(Lost(shard))
        self._unreleased = set()
        self.owned = {}
        self.generation += 1

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take what the group gives."""
        partitions = tuple(sorted(assigned))
        self.owned = {shard_name(*partition): partition for partition in partitions}
        self.generation += 1
        self._changes.put_nowait(Assigned(partitions))

    def lose(self) -> None:
        """Give up everything: the group does not know us any more. What it gives us next is opened anew."""
        for shard in self.owned:
            self._changes.put_nowait(Lost(shard))
        self.owned = {}
        self.generation += 1
        self._unreleased = set()
        self._released.set()

    def release(self, shard: str) -> None:
        """Give one shard back; the group goes on when it was the last."""
        self._unreleased.discard(shard)
        if not self._unreleased:
            self._released.set()

    async def next(self) -> Assigned | Revoking | Lost | None:
        """Wait for the next change; None after close.

        Raises:
            SourceUnavailable: the consumer is dead.
            DecisionNeeded: another process has our place.
        """
        change = await self._changes.get()
        if isinstance(change, RouterError):
            raise change
        return change

    def end(self, error: _End = None) -> None:
        """End the changes, and whatever waits for us to release something."""
        self._closing = True
        self._released.set()
        self._changes.put_nowait(error)
