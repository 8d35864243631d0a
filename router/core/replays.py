"""Stored failures that run again: how far each is, and which wait for their shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from router.core.facts import Replayed, ReplayRefused, ReplayRequested
from router.core.model import FunctionError


@dataclass(slots=True)
class _Running:
    request: ReplayRequested
    left: int
    new_failures: list[str] = field(default_factory=list)
    #: How it ends when its last batch is over, if not as replayed.
    refused: ReplayRefused | None = None


class Replays:
    """Counts the batches that are left of each replay."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        #: Requests whose shard is not open here, and until when (monotonic) they wait.
        self._parked: list[tuple[ReplayRequested, float]] = []

    def __len__(self) -> int:
        return len(self._running) + len(self._parked)

    def __contains__(self, failure_id: str) -> bool:
        return failure_id in self._running or any(request.failure_id == failure_id for request, _ in self._parked)

    def begin(self, request: ReplayRequested, batches: int) -> None:
        self._running[request.failure_id] = _Running(request, batches)

    def has_place(self, failure_id: str) -> bool:
        """Say whether its records have a place of their own."""
        return self._running[failure_id].request.elsewhere

    def refuse(self, refused: ReplayRefused) -> None:
        """Let a replay end so when its last batch is over; the first reason counts."""
        replay = self._running[refused.failure_id]
        replay.refused = replay.refused or refused

    def is_refused(self, failure_id: str) -> bool:
        return self._running[failure_id].refused is not None

    def replaced(self, failure_id: str, pieces: int, new_failure: str | None = None) -> Replayed | ReplayRefused | None:
        """Note that one batch became so many pieces (0 = it is over), or a new failure; give the end of the replay."""
        replay = self._running[failure_id]
        replay.left += pieces - 1
        if new_failure:
            replay.new_failures.append(new_failure)
        if replay.left:
            return None
        del self._running[failure_id]
        return replay.refused or Replayed(failure_id, tuple(replay.new_failures))

    def park(self, request: ReplayRequested, until_s: float) -> None:
        self._parked.append((request, until_s))

    def unpark(self, shard: str) -> list[ReplayRequested]:
        """Give the requests that waited for this shard."""
        ready = [request for request, _ in self._parked if request.chunk.shard == shard]
        self._parked = [(request, until_s) for request, until_s in self._parked if request.chunk.shard != shard]
        return ready

    def expired(self, now_s: float) -> list[ReplayRefused]:
        """Give up the requests that have waited long enough."""
        late = [request for request, until_s in self._parked if until_s <= now_s]
        self._parked = [(request, until_s) for request, until_s in self._parked if until_s > now_s]
        return [not_here(request) for request in late]

    def refuse_parked(self) -> list[ReplayRefused]:
        """Give up all requests that wait for a shard."""
        parked, self._parked = self._parked, []
        return [left_behind(request) for request, _ in parked]

    def refuse_astray(self, shard: str) -> list[ReplayRefused]:
        """Give back the requests that do not wait for this shard to be ours again."""
        astray = [each for each, _ in self._parked if each.chunk.shard == shard and not each.waits]
        self._parked = [(each, until_s) for each, until_s in self._parked if each not in astray]
        return [not_here(each) for each in astray]

    def abandon(self, failure_ids: Sequence[str]) -> list[ReplayRequested]:
        """Stop replays whose shard went, and give their requests: they start anew where they can."""
        gone = [self._running.pop(failure_id, None) for failure_id in dict.fromkeys(failure_ids)]
        return [replay.request for replay in gone if replay]


def stopping(failure_id: str) -> ReplayRefused:
    return ReplayRefused(failure_id, "the mapping is stopping")


def without_function(failure_id: str, error: FunctionError) -> ReplayRefused:
    """Say that a replay has no function to go to: nobody knows whether there will be one again."""
    return ReplayRefused(failure_id, f"its function is gone: {error.message}; see `headrace status`")


def not_here(request: ReplayRequested) -> ReplayRefused:
    """Say that a request's shard is not ours."""
    reason = f"shard {request.chunk.shard} is not assigned to this daemon"
    return ReplayRefused(request.failure_id, reason, astray=not request.waits)


def left_behind(request: ReplayRequested) -> ReplayRefused:
    """Say that a request is not run because the mapping ends here."""
    return stopping(request.failure_id) if request.waits else not_here(request)
