"""Who is to have which lease: the plan that every replica of a fleet makes for itself, and all make alike.

There is no leader. Each replica plans from the table that all read, and does only its own part: what it is to take, it
takes; what it is to give, it gives. As the plan follows from the table alone, two replicas with the same table never
want the same; with tables that differ by a moment they may, and then the token in the table lets one of them have it.

Loads are whole millionths, so that sums are the same in whatever order they are made.

`assign` is for what nobody has: greedily, the largest first, to whoever then has least. That is within a third of the
best distribution (Graham 1969, LPT), and the next shard never waits for the others.

`level` moves what somebody has. It plays the moves that take most from the heaviest replica to the lightest, one lease
at a time, and only such as weigh less than the difference of the two: each makes the distribution strictly better (the
sum of squares falls), so moves end, and no lease goes to and fro while loads stand still. A shard that is larger than
all else together is thereby never moved, and the others level around it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple
from zlib import crc32

from router.core.fleet import LeaseKey, part

#: Loads are counted in these parts of a second's work a second.
UNITS: Final = 1_000_000
#: What a shard costs beside its function, as a share of one worker: reading it, looking after it. It makes idle shards
#: spread by number: fifty of them weigh as much as half a busy worker.
SHARD_UNITS: Final = UNITS // 100
#: The same of what is no shard, such as the deliveries of a mapping: it rests nearly always.
PSEUDO_UNITS: Final = UNITS // 1000

#: Levelling begins when the heaviest and a lightest replica differ by more than this share of the mean. Half of it
#: either way is what shards that wobble by 30 % bring about in a replica that has two of them.
BEGIN_SHARE: Final = 0.4
#: Once begun, it goes on to this, so that a replica that has joined gets nearly all of its share.
END_SHARE: Final = 0.1
#: Not worth a move: leases that together are less than this share of the mean.
WORTH_SHARE: Final = 0.05
#: Moves of one plan, at most: it is made anew when they are under way.
MOVES_PLANNED: Final = 256

#: The parts of mappings that each replica which may take leases runs.
Runs = Mapping[str, AbstractSet[str]]


class Weighed(NamedTuple):
    """A lease and what it weighs."""

    units: int
    key: LeaseKey


class Move(NamedTuple):
    """A lease that one replica is to give to another."""

    key: LeaseKey
    giver: str
    taker: str


def weigh(key: LeaseKey, load: float) -> int:
    """Give what a lease weighs that was measured to cost this share of a worker."""
    return round(max(load, 0.0) * UNITS) + (PSEUDO_UNITS if key.shard.startswith("@") else SHARD_UNITS)


def rendezvous(about: str, names: Iterable[str]) -> list[str]:
    """Give names in an order that is the same for everybody, another one for each matter, and keeps if one goes."""
    return sorted(names, key=lambda name: (crc32(f"{about}\0{name}".encode()), name))


def assign(leases: Iterable[Weighed], units: Mapping[str, int], runs: Runs) -> dict[LeaseKey, str]:
    """Say who is to take each of these leases that nobody has; of those that nobody runs, nothing.

    Args:
        leases: what is to be had.
        units: what each replica that may take leases has.
        runs: the parts of mappings that it runs; the same names.
    """
    totals = dict(units)
    heaps: dict[tuple[str, ...], list[tuple[int, int, str]]] = {}
    able: dict[str, tuple[str, ...]] = {}
    assigned: dict[LeaseKey, str] = {}
    for weight, key in sorted(leases, key=lambda each: (-each.units, each.key)):
        of = part(key)
        names = able.get(of)
        if names is None:
            names = able[of] = tuple(name for name in sorted(runs) if of in runs[name])
        if not names:
            continue
        heap = heaps.get(names)
        if heap is None:
            heap = heaps[names] = [(totals[name], crc32(name.encode()), name) for name in names]
            heapify(heap)
        while heap[0][0] != totals[heap[0][2]]:  # it got something through another heap
            _, tie, name = heap[0]
            heapreplace(heap, (totals[name], tie, name))
        _, tie, name = heap[0]
        assigned[key] = name
        totals[name] += weight
        heapreplace(heap, (totals[name], tie, name))
    return assigned


def level(
    units: Mapping[str, int],
    runs: Runs,
    movable: Callable[[str], Iterable[Weighed]],
    *,
    begun: bool,
) -> list[Move]:
    """Give the moves that level the loads, in the order in which they help most; none if they are level enough.

    Args:
        units: what each replica that may take leases has, with what is on its way to it, and without what leaves it.
        runs: the parts of mappings that it runs; the same names.
        movable: the leases of a replica that it could give now.
        begun: is levelling under way? Then it goes on to smaller differences.
    """
    if len(units) < 2:
        return []
    mean = sum(units.values()) / len(units)
    if max(units.values()) - min(units.values()) <= mean * (END_SHARE if begun else BEGIN_SHARE):
        return []
    return _Levelling(units, runs, movable, gap=mean * (END_SHARE if begun else BEGIN_SHARE), mean=mean).moves()


class _Levelling:
    """One play of moves."""

    def __init__(
        self,
        units: Mapping[str, int],
        runs: Runs,
        movable: Callable[[str], Iterable[Weighed]],
        *,
        gap: float,
        mean: float,
    ) -> None:
        self._totals = dict(units)
        self._movable = movable
        self._gap = gap
        self._end = mean * END_SHARE
        self._worth = mean * WORTH_SHARE
        self._runs = {name: frozenset(parts) for name, parts in runs.items()}
        #: Replicas that run the same, lightest first; entries that are out of date are passed over.
        self._alike: dict[frozenset[str], list[tuple[int, str]]] = {}
        for name in sorted(units):
            heappush(self._alike.setdefault(self._runs[name], []), (units[name], name))
        #: Per giver and part, its leases by weight.
        self._leases: dict[str, dict[str, list[Weighed]]] = {}

    def moves(self) -> list[Move]:
        moves: list[Move] = []
        givers = [(-units, name) for name, units in self._totals.items()]
        heapify(givers)
        while givers and len(moves) < MOVES_PLANNED:
            units, giver = heappop(givers)
            gap = self._end if moves else self._gap
            if -units - min(self._lightest(heap)[0] for heap in self._alike.values()) <= gap:
                break  # and neither have those who follow
            move = self._move(giver, gap)
            if move is not None:
                moves.append(move)
                heappush(givers, (-self._totals[giver], giver))
        return moves

    def _move(self, giver: str, gap: float) -> Move | None:
        """Play one move of a replica, to the lightest that can take something from it."""
        for parts, (units, taker) in sorted(
            ((parts, self._lightest(heap)) for parts, heap in self._alike.items()), key=lambda each: each[1]
        ):
            difference = self._totals[giver] - units
            if difference <= gap:
                break
            # A little more than half, so that what pseudo-shards weigh does not keep two idle shards in one replica;
            # a quarter of the difference is left at most, the other way round.
            lease = self._pick(giver, parts, difference * 5 // 8)
            if lease is not None:
                self._totals[giver] -= lease.units
                self._totals[taker] += lease.units
                for name in (giver, taker):
                    heappush(self._alike[self._runs[name]], (self._totals[name], name))
                return Move(lease.key, giver, taker)
        return None

    def _lightest(self, heap: list[tuple[int, str]]) -> tuple[int, str]:
        while heap[0][0] != self._totals[heap[0][1]]:
            heappop(heap)
        return heap[0]

    def _pick(self, giver: str, parts: AbstractSet[str], limit: int) -> Weighed | None:
        """Take the heaviest lease of a replica that is within a limit, if what is within it is worth moving."""
        by_part = self._leases.get(giver)
        if by_part is None:
            by_part = self._leases[giver] = self._sorted(giver, limit)
        best: tuple[Weighed, str, int] | None = None
        for of, leases in by_part.items():
            place = bisect_right(leases, limit, key=lambda each: each.units) - 1 if of in parts else -1
            if place >= 0 and (best is None or leases[place] > best[0]):
                best = leases[place], of, place
        if best is None:
            return None
        lease, of, place = best
        del by_part[of][place]
        return lease

    def _sorted(self, giver: str, limit: int) -> dict[str, list[Weighed]]:
        leases = sorted(self._movable(giver))
        if sum(lease.units for lease in leases if lease.units <= limit) < self._worth:
            return {}
        by_part: dict[str, list[Weighed]] = {}
        for lease in leases:
            by_part.setdefault(part(lease.key), []).append(lease)
        return by_part
