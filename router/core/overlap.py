"""Keeps replays in shards that are over from running beside live work of their keys.

After a shard is split or merged its keys go on in other shards, and which key is in which is known to the stream alone.
So a batch that is replayed in such a shard is compared by its keys: it waits until no batch with one of them is with
the function, and while it is, batches of other shards that have one of them wait. Costs nothing while there is none.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.core.model import Batch


def keys_of(batch: Batch) -> frozenset[bytes]:
    """Give the ordering keys of a batch's records."""
    keys = (chunk.keys[index] for chunk, index in batch.each() if chunk.keys)
    return frozenset(key for key in keys if key is not None)


class Overlap:
    """The keys that are replayed in shards that are over."""

    def __init__(self) -> None:
        #: Keys of each batch.
        self.replayed: dict[str, frozenset[bytes]] = {}

    def blocks_live(self, batch: Batch) -> bool:
        """Say whether one of a live batch's keys is being replayed in a shard that is over."""
        keys = keys_of(batch)
        return any(not keys.isdisjoint(others) for others in self.replayed.values())

    def begin(self, batch: Batch, running: Iterable[Batch]) -> bool:
        """Let a replay in a shard that is over run, unless one of its keys is with the function; say whether it may."""
        keys = keys_of(batch)
        if any(not keys.isdisjoint(keys_of(other)) for other in running):
            return False
        self.replayed[batch.id] = keys
        return True

    def end(self, batch_id: str) -> None:
        """Note that a batch is not with the function any more."""
        self.replayed.pop(batch_id, None)
