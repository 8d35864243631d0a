"""What is read and when: one read at a time for each unit, for its shards that have room.

A unit is what one read covers (all partitions of a Kafka topic, one shard of a stream). When a further shard of a unit
gets room while a read is under way, a new read with the whole demand takes its place; what the old one brings all the
same is recognised by the position it was read behind. Between two reads of a unit lies what its pace asks for; after a
failure it waits, with growing pauses.

Room is counted by shard in records and bytes, and over all shards in bytes: while the buffers of the mapping are full,
only shards that hold nothing are read. As soon as what reads of single shards may bring might not fit either, a shard
is asked for no more than fills a batch of each lane.

Shards that have nothing new are read at times of their own: a thousand that were begun together would else be read
together, each second anew, and hold up everything else for as long as that takes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from router.core.facts import Demand, Read
from router.core.lane import backoff_s
from router.core.model import OUTAGE_BACKOFF, THROTTLE_BACKOFF, Instant, Pace

if TYPE_CHECKING:
    from random import Random

    from router.core.shard import ShardState


#: What a record that was asked for is taken to have, bytes, until it comes; and the most records that one read brings.
_RECORD_BYTES: Final = 1024
_READ_COUNT: Final = 10_000


@dataclass(slots=True)
class _Unit:
    #: Shards that have room.
    starved: set[str] = field(default_factory=set)
    #: Shards of the read that is under way; None = none is.
    reading: frozenset[str] | None = None
    #: Bytes that this read may bring.
    reserved_bytes: int = 0
    #: When the read that is under way, or the last one, was asked for.
    asked_s: float = 0.0
    #: Had the last read something, or did it say that there is something?
    had_more: bool = True
    failures: int = 0
    #: Not before this time is it read again.
    not_before_s: float = 0.0
    #: Why its shards cannot be read, or found out where to read.
    error: str | None = None


class Reading:
    """Knows which shards want records, which are being read, and what is in memory."""

    def __init__(self, memory_bytes: int, pace: Pace, rng: Random) -> None:
        self._memory_bytes = memory_bytes
        self._pace = pace
        self._rng = rng
        self._units: dict[Hashable, _Unit] = {}
        #: Units to look at; a dict, because sets have no order to repeat.
        self.wanted: dict[Hashable, None] = {}
        #: Bytes that wait in lanes, over all shards, and those that reads under way may bring.
        self.buffered_bytes = 0
        self._reserved_bytes = 0

    # --- shards

    def open(self, unit: Hashable) -> None:
        """Know a unit."""
        self._units.setdefault(unit, _Unit())

    def starve(self, shard: ShardState) -> None:
        """Note that a shard may have room."""
        self._units[shard.unit].starved.add(shard.name)
        self.want(shard.unit)

    def fed(self, shard: ShardState) -> None:
        """Ask for a shard again if it had enough and has room now."""
        if shard.name not in self._units[shard.unit].starved and self.room(shard):
            self.starve(shard)

    def stop(self, shard: ShardState) -> None:
        """Read a shard no more."""
        self._units[shard.unit].starved.discard(shard.name)

    def forget(self, shard: ShardState) -> None:
        """Read a shard no more; should it come back, it is read from where it then is."""
        self.stop(shard)
        unit = self._units[shard.unit]
        if unit.reading is not None:
            unit.reading -= {shard.name}

    def retire(self, unit: Hashable) -> None:
        """Forget a unit that has no shard any more, unless a read of it, from before it was lost, has yet to end."""
        if self._units[unit].reading is None:
            self._reserve(self._units.pop(unit), {})
            self.wanted.pop(unit, None)

    def room(self, shard: ShardState) -> int:
        """Count the records that may be read now."""
        return 0 if shard.buffered and self.is_memory_full else shard.room()

    @property
    def is_memory_full(self) -> bool:
        return self.buffered_bytes > self._memory_bytes

    def changed(self, size_bytes: int, shards: Iterable[ShardState]) -> None:
        """Count bytes that came (positive) or went; shards that had to wait for memory are asked for again."""
        was_full = self.is_memory_full
        self.buffered_bytes += size_bytes
        if was_full and not self.is_memory_full:
            for shard in shards:
                if self.room(shard):
                    self.starve(shard)

    # --- reads

    def want(self, unit: Hashable) -> None:
        """Look at a unit again, if it is still there when that is due."""
        if unit in self._units:
            self.wanted[unit] = None

    def reads(self, shards: Mapping[str, ShardState], now: Instant) -> list[Read]:
        """Give the reads that start now, or take the place of those under way."""
        wanting, self.wanted = self.wanted, {}
        reads = []
        for key in wanting:
            unit = self._units[key]
            if now.mono_s < unit.not_before_s or (unit.reading is not None and unit.starved <= unit.reading):
                continue
            demand = self._demand(unit, shards)
            if demand:
                unit.reading = frozenset(demand)
                unit.asked_s = now.mono_s
                self._reserve(unit, demand)
                reads.append(Read(key, demand))
        return reads

    def _demand(self, unit: _Unit, shards: Mapping[str, ShardState]) -> dict[str, Demand]:
        """Say what to read; shards that have no room any more starve again when a batch leaves them."""
        demand = {}
        may_come_bytes = self._reserved_bytes - unit.reserved_bytes
        is_tight = self.buffered_bytes + may_come_bytes > self._memory_bytes
        for name in sorted(unit.starved):
            shard = shards[name]
            limit = min(self.room(shard), shard.fill_count) if is_tight else self.room(shard)
            if limit:
                demand[name] = Demand(shard.read_behind, limit)
        unit.starved.intersection_update(demand)
        return demand

    def _reserve(self, unit: _Unit, demand: Mapping[str, Demand]) -> None:
        """Count what a read may bring; one for many shards brings little of each, and says itself how much."""
        self._reserved_bytes -= unit.reserved_bytes
        limit = min(_READ_COUNT, *(each.limit for each in demand.values())) if len(demand) == 1 else 0
        unit.reserved_bytes = limit * _RECORD_BYTES
        self._reserved_bytes += unit.reserved_bytes

    def ended(self, unit: Hashable) -> None:
        """Note that a unit's read is over, however it ended."""
        state = self._units[unit]
        state.reading = None
        self._reserve(state, {})
        self.want(unit)

    def succeeded(self, unit: Hashable, now: Instant, *, more: bool, read_bytes: int = 0) -> float | None:
        """Note that a unit was read, and whether it had or has something; give when to look at it again, if not now."""
        state = self._units[unit]
        pace = self._pace
        state.failures = 0
        state.error = None
        wait_s = pace.busy_s if more else pace.idle_s
        if state.had_more and not more:
            wait_s = self._rng.uniform(pace.busy_s, wait_s)
        state.had_more = more
        if pace.bytes_per_s:
            wait_s = max(wait_s, read_bytes / pace.bytes_per_s)
        state.not_before_s = state.asked_s + wait_s
        return state.not_before_s if state.not_before_s > now.mono_s else None

    def failed(self, unit: Hashable, error: str, now: Instant, *, throttled: bool = False) -> float:
        """Read a unit no more for a while; give how long, seconds."""
        state = self._units[unit]
        wait_s = backoff_s(THROTTLE_BACKOFF if throttled else OUTAGE_BACKOFF, state.failures, self._rng)
        state.failures += 1
        state.error = error
        state.not_before_s = now.mono_s + wait_s
        return wait_s

    def note_error(self, unit: Hashable, error: str | None) -> None:
        """Remember why a unit's shards cannot be read; None = they can."""
        self._units[unit].error = error

    def error_of(self, unit: Hashable) -> str | None:
        return self._units[unit].error

    def quit(self) -> list[Read]:
        """Give the commands that end all reads under way."""
        return [Read(key, {}) for key, unit in self._units.items() if unit.reading is not None]
