"""Reads a ledger of deliveries and says what it proves, and what breaks a promise. Pure.

A ledger line is one record of one batch at its start (S) or end (`ok`, or `bad` when the function failed it):

    time_ns  process  request_id  key  number  partition  offset  phase

All times are of the machine's one monotonic clock. A batch without an end ended when its process was killed.

A record's place is its partition and offset; in ledgers of queues (`bench.queue_judge`) it is the number of its key and
its own number there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class Place(NamedTuple):
    partition: int
    offset: int


class Produced(NamedTuple):
    key: str
    number: int
    poison: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9."""

    #: Just before it was sent, and when the last of the workers was seen to be gone; an endpoint: when it was back.
    time_ns: int
    gone_ns: int
    #: daemon | worker | endpoint
    target: str
    #: Process ids of the workers it ended.
    workers: tuple[int, ...]


@dataclass(slots=True)
class Delivery:
    """One batch with the function."""

    process: int
    request_id: str
    start_ns: int
    places: list[Place] = field(default_factory=list)
    end_ns: int | None = None
    ok: set[Place] = field(default_factory=set)
    cut_off: bool = False


@dataclass(slots=True)
class Verdict:
    """What a ledger says."""

    produced: int
    delivered: int
    deliveries: int
    cut_off: int
    finished: int
    failed: int
    duplicates: int
    #: Longest time between the end of a batch and the kill after which it ran again, seconds.
    oldest_duplicate_s: float
    poison: int
    #: Most attempts of a poison record, and most beyond its limit.
    most_attempts: int
    most_extra_attempts: int
    violations: list[str]


def read(lines: Iterable[str], kills: Sequence[Kill]) -> list[Delivery]:
    """Put the lines of a ledger together to deliveries, in the order they began."""
    open_ones: dict[int, Delivery] = {}
    deliveries: list[Delivery] = []
    for line in lines:
        words = line.split()
        if len(words) != 8 or words[7] not in ("S", "ok", "bad"):
            continue  # cut off by a kill
        time_ns, process, request_id = int(words[0]), int(words[1]), words[2]
        place, phase = Place(int(words[5]), int(words[6])), words[7]
        current = open_ones.get(process)
        if phase == "S":
            if current is None or current.end_ns is not None or current.start_ns != time_ns:
                current = open_ones[process] = Delivery(process, request_id, time_ns)
                deliveries.append(current)
            current.places.append(place)
        elif current is not None:
            current.end_ns = time_ns
            if phase == "ok":
                current.ok.add(place)
    for delivery in deliveries:
        if delivery.end_ns is None:
            delivery.cut_off = True
            delivery.end_ns = _death_ns(delivery, kills)
    return sorted(deliveries, key=lambda delivery: delivery.start_ns)


def _death_ns(delivery: Delivery, kills: Sequence[Kill]) -> int | None:
    """Give the end of a batch that was cut off: its daemon waits only for the process, the next one for all of them."""
    for kill in kills:
        if delivery.process in kill.workers and kill.gone_ns >= delivery.start_ns:
            return kill.gone_ns if kill.target == "daemon" else max(kill.time_ns, delivery.start_ns)
    return None


def judge(
    produced: Mapping[Place, Produced],
    deliveries: Sequence[Delivery],
    failed: set[Place],
    kills: Sequence[Kill],
    *,
    attempts_limit: int,
    commit_late_s: float,
) -> Verdict:
    """Hold the ledger against the promises; `commit_late_s` is how late the commit of a finished batch may be."""
    finished = {place for delivery in deliveries for place in delivery.ok}
    duplicates, oldest_s, repeated = _duplicates(deliveries, kills, commit_late_s)
    attempts, extra, exceeded = _poison_attempts(produced, deliveries, kills, attempts_limit)
    unknown = [f"unexplained end: process {each.process} {each.request_id}" for each in deliveries if not each.end_ns]
    lost = [f"lost: {place} {produced[place]}" for place in sorted(produced.keys() - finished - failed)]
    wrong = [f"stored as failed, but good: {place}" for place in sorted(failed) if not produced[place].poison]
    return Verdict(
        produced=len(produced),
        delivered=sum(len(delivery.places) for delivery in deliveries),
        deliveries=len(deliveries),
        cut_off=sum(delivery.cut_off for delivery in deliveries),
        finished=len(finished),
        failed=len(failed),
        duplicates=duplicates,
        oldest_duplicate_s=oldest_s,
        poison=sum(each.poison for each in produced.values()),
        most_attempts=attempts,
        most_extra_attempts=extra,
        violations=[
            *unknown,
            *lost,
            *wrong,
            *_overtaken(produced, deliveries),
            *overlaps(deliveries, lambda place: produced[place].key),
            *repeated,
            *exceeded,
        ],
    )


def _overtaken(produced: Mapping[Place, Produced], deliveries: Sequence[Delivery]) -> list[str]:
    """A record comes first with or after its predecessor of the same key, and not before that has succeeded."""
    place_of = {(each.key, each.number): place for place, each in produced.items()}
    seen: set[Place] = set()
    ok_ns: dict[Place, int] = {}
    violations = []
    for delivery in deliveries:
        here: set[Place] = set()
        for place in delivery.places:
            record = produced[place]
            before = place_of.get((record.key, record.number - 1))
            is_settled = (
                before is None or before in here or produced[before].poison or _was_done(before, delivery, ok_ns)
            )
            if place not in seen and not is_settled:
                violations.append(f"out of order: {record} at {delivery.start_ns} before {before} was done")
            here.add(place)
        seen |= here
        for place in delivery.ok:
            ok_ns.setdefault(place, delivery.end_ns or 0)
    return violations


def _was_done(place: Place, delivery: Delivery, ok_ns: Mapping[Place, int]) -> bool:
    return place in ok_ns and ok_ns[place] <= delivery.start_ns


def overlaps(deliveries: Sequence[Delivery], key_of: Callable[[Place], Hashable]) -> list[str]:
    """Find deliveries of one key that were with the function at the same time."""
    by_key: dict[Hashable, list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        for key in {key_of(place) for place in delivery.places}:
            by_key[key].append(delivery)
    return [
        f"overlap: {key} in {later.request_id} at {later.start_ns}, {earlier.request_id} ran until {earlier.end_ns}"
        for key, mine in by_key.items()
        for earlier, later in pairwise(mine)
        if earlier.end_ns is None or later.start_ns < earlier.end_ns
    ]


def _duplicates(
    deliveries: Sequence[Delivery], kills: Sequence[Kill], commit_late_s: float
) -> tuple[int, float, list[str]]:
    """What had succeeded runs again only because of a kill before its commit, or before its answer was heard."""
    last_ok: dict[Place, Delivery] = {}
    count, oldest_s, violations = 0, 0.0, []
    for delivery in deliveries:
        for place in delivery.places:
            if place in last_ok:
                count += 1
                late_s = _killed_after_s(last_ok[place], delivery, kills)
                oldest_s = max(oldest_s, late_s)
                if late_s > commit_late_s:
                    done_ns = last_ok[place].end_ns
                    violations.append(f"repeated: {place} at {delivery.start_ns}, done at {done_ns}, no kill near")
        last_ok.update(dict.fromkeys(delivery.ok, delivery))
    return count, oldest_s, violations


def _killed_after_s(done: Delivery, again: Delivery, kills: Sequence[Kill]) -> float:
    """Give the time from the end of a batch to the kill that explains why it runs again; infinite without one."""
    end_ns = done.end_ns or 0
    for kill in kills[bisect_left(kills, end_ns, key=lambda kill: kill.gone_ns) :]:
        if kill.time_ns > again.start_ns:
            break
        if kill.target == "daemon" or done.process in kill.workers:
            return max(0.0, (kill.time_ns - end_ns) / 1e9)
    return float("inf")


def _poison_attempts(
    produced: Mapping[Place, Produced], deliveries: Sequence[Delivery], kills: Sequence[Kill], limit: int
) -> tuple[int, int, list[str]]:
    """Count what each poison record was tried alone, against its limit and the kills meanwhile."""
    tried: dict[Place, list[int]] = defaultdict(list)
    for delivery in deliveries:
        if len(delivery.places) == 1 and produced[delivery.places[0]].poison:
            tried[delivery.places[0]].append(delivery.start_ns)
    violations = []
    extra = 0
    for place, starts in tried.items():
        meanwhile = sum(starts[0] <= kill.gone_ns and kill.time_ns <= starts[-1] for kill in kills)
        extra = max(extra, len(starts) - limit)
        if len(starts) > limit + meanwhile:
            violations.append(f"poison {place} was tried {len(starts)} times, {meanwhile} kills meanwhile")
    return max(map(len, tried.values()), default=0), extra, violations
