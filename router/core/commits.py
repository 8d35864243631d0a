"""When to commit: one commit at a time for all shards that changed, soon when something waits for it, else late.

Versions are numbered over all shards and never reused, so the answer to a commit that was made for a shard before it
was lost and came back cannot be mistaken for one of its new life.
"""

from __future__ import annotations

from itertools import count

from router.core.shard import ShardState


class CommitSchedule:
    """Knows which shards have something to commit, and by when."""

    def __init__(self) -> None:
        self._versions = count(1)
        self._dirty: dict[str, ShardState] = {}
        self._in_flight = False
        #: Monotonic time by which the next commit starts; None = nothing to commit.
        self.due_s: float | None = None
        #: Commits that failed in a row.
        self.failures = 0
        self.error: str | None = None

    def changed(self, shard: ShardState, by_s: float) -> None:
        """Note a change that is to be committed by this time."""
        shard.version = next(self._versions)
        self._dirty[shard.name] = shard
        self.hurry(by_s)

    def hurry(self, by_s: float) -> None:
        """Commit what is there by this time."""
        if self._dirty and (self.due_s is None or by_s < self.due_s):
            self.due_s = by_s

    def forget(self, shard: ShardState) -> None:
        """Commit nothing more for a shard."""
        if self._dirty.get(shard.name) is shard:
            del self._dirty[shard.name]
        self._forget_if_idle()

    def begin(self, now_s: float) -> list[ShardState]:
        """Give the shards to commit now; empty when it is not time or a commit is under way."""
        if self._in_flight or self.due_s is None or now_s < self.due_s:
            return []
        self.due_s = None
        shards = list(self._dirty.values())
        self._dirty.clear()
        self._in_flight = bool(shards)
        return shards

    def succeeded(self) -> None:
        self._in_flight = False
        self.failures = 0
        self.error = None

    def failed(self, shards: list[ShardState], error: str, again_s: float) -> None:
        """Take the shards back, to be committed again at this time or with what changes meanwhile."""
        self._in_flight = False
        self.failures += 1
        self.error = error
        for shard in shards:
            self._dirty.setdefault(shard.name, shard)
        self.due_s = again_s
        self._forget_if_idle()

    def _forget_if_idle(self) -> None:
        """Forget an error that no commit will repeat."""
        if not (self._dirty or self._in_flight):
            self.error = None
            self.due_s = None
