"""Which shards of a stream may be read: a shard only after its parents.

A shard that is split or merged is closed, and its keys go on in its children. So a child is started when every parent
that we know of is finished: read to its end, and all of it settled. Children of one parent run side by side; the child
of a merge waits for both (behaviour recorded on AWS; a parent that was trimmed counts as finished).

Theory: the listing is a forest that is only ever extended at its leaves and cut off at its roots. What was begun or
finished is known from the store. What is neither listed nor begun is gone, and has nothing for us. But a listing comes
in pages, and may have been looked at while it changed: that a shard is missing is believed when two listings in a row
say so, since a child that is read too early cannot be taken back, and what is forgotten too early is read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.core.model import ShardInfo


def finished_at_latest(shards: Sequence[ShardInfo]) -> list[str]:
    """Name the shards in which a mapping that begins at LATEST has nothing to read: they were closed before."""
    return [shard.name for shard in shards if shard.closed]


class Lineage:
    """The shards of one stream, and how far each is."""

    def __init__(self, begun: Iterable[str], finished: Iterable[str]) -> None:
        """Take up what the store knows.

        Args:
            begun: shards that have a checkpoint.
            finished: those of them that are finished.
        """
        self._finished = set(finished)
        #: Shards that are not finished, and are to be read whether they are listed or not.
        self._begun = set(begun) - self._finished
        self._started: set[str] = set()
        self._listed: dict[str, ShardInfo] = {}
        self._parents: set[str] = set()
        #: Parents of what is listed, and of what is gone unread between those and what is still in memory.
        self._ancestry: dict[str, tuple[str, ...]] = {}
        #: Parents that the last listing did not have, and of them those that the one before did not have either.
        self._missing: set[str] = set()
        self._trimmed: set[str] = set()
        #: Finished shards that the last listing knew nothing of, and of them those that the one before did not either.
        self._unknown: set[str] = set()
        self._gone: set[str] = set()

    def listed(self, shards: Sequence[ShardInfo]) -> None:
        """Learn which shards the stream has."""
        self._listed = {shard.name: shard for shard in shards}
        self._parents = {parent for shard in shards for parent in shard.parents}
        missing = self._parents - self._listed.keys() - self._finished - self._begun
        self._trimmed = missing & self._missing
        self._missing = missing
        self._remember(shards)
        unknown = self._finished - self._listed.keys() - self._parents
        self._gone = unknown & self._unknown
        self._unknown = unknown

    def _remember(self, shards: Sequence[ShardInfo]) -> None:
        former, self._ancestry = self._ancestry, {shard.name: shard.parents for shard in shards}
        names = [*self._parents]
        while names:
            name = names.pop()
            if name in former and name not in self._ancestry and name not in self._finished:
                self._ancestry[name] = former[name]
                names += former[name]

    def start(self) -> list[str]:
        """Give the shards that may be read now and were not started yet: they are from now on."""
        ready = [name for name in (*self._listed, *sorted(self._begun - self._listed.keys())) if self._is_ready(name)]
        self._started.update(ready)
        self._begun.update(ready)
        return ready

    def _is_ready(self, name: str) -> bool:
        if name in self._finished or name in self._started:
            return False
        shard = self._listed.get(name)
        # What was begun and is not listed any more has outlived its parents.
        return shard is None or all(self._is_done(parent) for parent in shard.parents)

    def waiting(self) -> dict[str, list[str]]:
        """Give the shards that may not be read yet, and which of their parents are not finished."""
        return {
            name: [parent for parent in shard.parents if not self._is_done(parent)]
            for name, shard in self._listed.items()
            if name not in self._finished and name not in self._started and not self._is_ready(name)
        }

    def _is_done(self, parent: str) -> bool:
        return parent in self._finished or (parent in self._trimmed and not self._follows_unfinished(parent))

    def _follows_unfinished(self, name: str) -> bool:
        """Say whether what was read of a shard before this one, which is gone, is not settled yet."""
        parents = self._ancestry.get(name, ())
        return any(parent in self._begun or self._follows_unfinished(parent) for parent in parents)

    def finish(self, name: str) -> bool:
        """Note that a shard is finished, or gone; says whether that was not known."""
        if name in self._finished:
            return False
        self._finished.add(name)
        self._begun.discard(name)
        return True

    def is_over(self, name: str) -> bool:
        """Say whether nothing of a shard is read any more, or will be."""
        return name in self._finished or (name not in self._listed and name not in self._begun)

    @property
    def wants_listing(self) -> bool:
        """Say whether a new listing is likely to tell of something to read."""
        childless = self._started & self._finished & self._listed.keys() - self._parents
        return bool(childless) or self._missing != self._trimmed

    def forget(self) -> list[str]:
        """Give the finished shards of which the stream knows nothing any more, once; nothing is to be kept of them."""
        gone, self._gone = sorted(self._gone), set()
        self._finished.difference_update(gone)
        return gone
