"""What `status`, `/health/ready` and the lag metrics say, from facts that are handed in. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from router.core.describe import ShardStatus
from router.core.model import UNKNOWN_TIME_MS
from router.daemon import FunctionInfo, TargetInfo
from router.failures.deliveries import OutboxFacts
from router.failures.record import iso_ms
from router.life import MappingHealth
from router.ports import Tally

#: States in which a mapping is connected to its source and works on what comes.
RUNS: Final = frozenset(("running", "idle", "retrying"))
#: Rates are taken over this time.
RATE_SPAN_S: Final = 10.0
#: Samples, a second apart, of which the longest delay is told.
LOOP_LAG_SAMPLES: Final = 60


class Rate:
    """Counts per second over the last RATE_SPAN_S, from a total that is looked at now and then."""

    def __init__(self) -> None:
        self._counted = 0
        self._total = 0
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, mono_s: float, total: int) -> None:
        """Note the total; one that is smaller than the last began again at 0."""
        self._counted += total - self._total if total >= self._total else total
        self._total = total
        self._samples.append((mono_s, self._counted))
        while len(self._samples) > 2 and self._samples[1][0] <= mono_s - RATE_SPAN_S:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return round((last - first) / (last_s - first_s), 1) if last_s > first_s else 0.0


class LoopLag:
    """How long the event loop was busy with one thing, by how late a timer of each second came."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=LOOP_LAG_SAMPLES)

    def add(self, late_s: float) -> None:
        self._late_s.append(late_s)

    @property
    def worst_s(self) -> float:
        return max(0.0, *self._late_s) if self._late_s else 0.0


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """One shard, and the records behind its checkpoint: None while the start or the end is not known."""

    status: ShardStatus
    lag_records: int | None
    #: Its checkpoint as people and their tools know it; None before the first.
    position: int | str | None = None

    def lag_s(self, wall_s: float) -> float | None:
        """Age of the oldest unfinished record; 0 without lag, None while that record is not read yet or has no time."""
        if self.lag_records == 0:
            return 0.0
        oldest_ms = self.status.oldest_ms
        if oldest_ms is None or oldest_ms == UNKNOWN_TIME_MS:
            return None
        return max(0.0, round(wall_s - oldest_ms / 1000, 3))


@dataclass(frozen=True, slots=True)
class MappingFacts:
    """One mapping as it is now."""

    name: str
    function: str
    source: str
    health: MappingHealth
    #: Has it opened its source, or said why it cannot?
    known: bool
    last_result: str
    records_per_second: float
    shards: Sequence[ShardFacts]
    #: Shards that wait for their parents, and for which.
    waiting: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: What waits for its destination; None = it has none.
    outbox: OutboxFacts | None = None
    #: Was it made through the API?
    is_made: bool = False

    @property
    def lag_records(self) -> int | None:
        """Lag over all shards; None when it is not known of one, or the source is not open."""
        lags = [shard.lag_records for shard in self.shards]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if len(known) == len(lags) and self.health.state in RUNS else None

    def lag_s(self, wall_s: float) -> float | None:
        if self.lag_records == 0:
            return 0.0
        return max((age for shard in self.shards if (age := shard.lag_s(wall_s)) is not None), default=None)

    @property
    def in_flight(self) -> int:
        return sum(shard.status.in_flight for shard in self.shards)


def status_document(
    version: str,
    mappings: Sequence[MappingFacts],
    functions: Sequence[FunctionInfo],
    wall_s: float,
    config: Mapping[str, Any] | None = None,
    event_targets: Sequence[TargetInfo] = (),
) -> dict[str, Any]:
    """Describe a running daemon."""
    return {
        "version": version,
        "state": _overall(mappings),
        "mappings": [_mapping(each, wall_s) for each in mappings],
        "functions": [_function(each) for each in functions],
        "event_targets": [_target(each) for each in event_targets],
        "config": config,
    }


def stored_document(version: str, tallies: Iterable[Tally], functions: Mapping[str, str]) -> dict[str, Any]:
    """Describe what a store knows while no daemon runs: the failures of each mapping by status, and its function."""
    counts: dict[str, dict[str, int]] = {}
    undelivered: Counter[str] = Counter()
    for tally in tallies:
        counts.setdefault(tally.mapping, {})[tally.status] = tally.failures
        undelivered[tally.mapping] += tally.undelivered
    mappings: list[dict[str, Any]] = [
        {
            "name": name,
            "made_by": None,
            "function": functions.get(name),
            "source": None,
            "state": "stopped",
            "reason": None,
            "lag_records": None,
            "lag_seconds": None,
            "in_flight": 0,
            "records_per_second": 0.0,
            "last_result": None,
            "shards": [],
            "waiting": [],
            "outbox": _outbox(OutboxFacts(None, undelivered[name])),
            "failures": dict(sorted(statuses.items())),
        }
        for name, statuses in sorted(counts.items())
    ]
    return {"version": version, "state": "stopped", "mappings": mappings, "functions": [], "event_targets": []}


def ready_document(mappings: Sequence[MappingFacts]) -> tuple[bool, dict[str, Any]]:
    """Say whether every mapping has opened its source or said why it cannot, and how each is."""
    ready = all(each.known for each in mappings)
    members = [{"name": each.name, "state": each.health.state, "reason": reason(each.health)} for each in mappings]
    return ready, {"ready": ready, "mappings": members}


def summary(mappings: Sequence[MappingFacts]) -> str:
    """Say in one line how many mappings there are in each state, and which does not move."""
    counts = Counter(each.health.state for each in mappings)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    stuck = [
        f"{each.name}: {each.health.reason[0]}"
        for each in mappings
        if each.health.reason and each.health.state != "stopped"
    ]
    more = f" and {len(stuck) - 1} more" if len(stuck) > 1 else ""
    return f"mappings: {states or 'none'}" + (f" ({stuck[0]}{more})" if stuck else "")


def reason(health: MappingHealth) -> dict[str, str] | None:
    """Give why a mapping does not move, as machines read it."""
    return {"code": health.reason[0], "message": health.reason[1]} if health.reason else None


def _overall(mappings: Sequence[MappingFacts]) -> str:
    states = {each.health.state for each in mappings}
    if "draining" in states:
        return "draining"
    if not all(each.known for each in mappings):
        return "starting"
    return "idle" if states <= {"idle", "stopped", "paused"} else "running"


def _mapping(facts: MappingFacts, wall_s: float) -> dict[str, Any]:
    return {
        "name": facts.name,
        "made_by": "api" if facts.is_made else "file",
        "function": facts.function,
        "source": facts.source,
        "state": facts.health.state,
        "reason": reason(facts.health),
        "lag_records": facts.lag_records,
        "lag_seconds": facts.lag_s(wall_s),
        "in_flight": facts.in_flight,
        "records_per_second": facts.records_per_second,
        "last_result": facts.last_result,
        "shards": [_shard(each, wall_s) for each in facts.shards],
        "waiting": [{"shard": shard, "parents": list(parents)} for shard, parents in sorted(facts.waiting.items())],
        "outbox": _outbox(facts.outbox) if facts.outbox else None,
    }


def _outbox(facts: OutboxFacts) -> dict[str, Any]:
    return {
        "destination": facts.destination,
        "undelivered": facts.undelivered,
        "oldest": None if facts.oldest_s is None else iso_ms(facts.oldest_s),
        "last_error": facts.last_error,
        "next_try": None if facts.next_try_s is None else iso_ms(facts.next_try_s),
    }


def _shard(facts: ShardFacts, wall_s: float) -> dict[str, Any]:
    status = facts.status
    return {
        "shard": status.shard,
        "position": facts.position,
        "lag_records": facts.lag_records,
        "lag_seconds": facts.lag_s(wall_s),
        "in_flight": status.in_flight,
        "attempts": status.attempts,
        "next_try": None if status.next_try_s is None else iso_ms(status.next_try_s),
    }


def _function(info: FunctionInfo) -> Mapping[str, Any]:
    return {
        "name": info.name,
        "handler": info.handler,
        "workers": info.workers,
        "busy": info.busy,
        "waiting": info.waiting,
        "snap_start": info.snap_start and {"state": info.snap_start[0], "found": list(info.snap_start[1])},
        "events": info.events
        and {
            "waiting": info.events.waiting,
            "overdue_seconds": round(info.events.overdue_s, 3),
            "reason": info.events.reason,
        },
    }


def _target(info: TargetInfo) -> Mapping[str, Any]:
    overdue_s = round(info.overdue_s, 3)
    return {"target": info.name, "waiting": info.waiting, "overdue_seconds": overdue_s, "error": info.error}
