"""Says what the ledger of a fleet proves, and what breaks a promise. Pure.

The ledger's lines are told in `bench.chaos_function`. A place is a source, the number of a key there, and the number of
a record of that key, from 1 without gaps. What is promised (docs/guarantees.md):

- Each record succeeded, or is stored as failed; just the poison is stored, and all of it.
- Two deliveries of one key never overlap; in a standard queue, which has no keys, two of one message.
- Where keys have an order, every delivery of a record begins when all earlier records of its key are over (succeeded,
  or given up) or stand before it in its batch. This holds for what comes first and for what comes again: after a crash
  a key goes on at or before its first unfinished record.
  Among replicas it is a FIFO queue that keeps the order of a group: it hands out nothing of it while messages of it are
  hidden. LocalStack does when one of them comes back before the others, so this is counted apart where another replica
  had last what is missing.
- A record that succeeded runs again only when something kept its end from being committed: the time from its end to a
  trouble that concerns its replica and its source is at most `commit_late_s`, not counting other such troubles, and as
  long after each as it lasted, for the pauses between tries.
- What was seen to be committed while the fleet ran never runs later (`bench.chaos_commits`; not in queues).
- A poison record is tried alone as often as the mapping allows, and once more for each trouble meanwhile that may have
  ended an attempt, or forgotten it: tries of a queue's messages are kept in Redis, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

ORDERED: Final = frozenset({"kafka", "fifo", "kinesis", "dynamodb"})
#: Beside as long as a trouble was, its calls are tried again so much later at most, seconds.
BACK_GRACE_S: Final = 1.0

#: What a kind of trouble can keep from being committed; of the replica that it hits, or of all where it hits none.
_ALL = frozenset({"kafka", "sqs", "fifo", "kinesis", "dynamodb"})
_STORED = frozenset({"kinesis", "dynamodb"})
_QUEUES = frozenset({"sqs", "fifo"})
CONCERNS: Final[Mapping[str, frozenset[str]]] = {
    "kill replica": _ALL,
    "freeze replica": _ALL,
    "freeze replica briefly": _ALL,
    "vanish": _ALL,
    "kill worker": _ALL,
    "cut from Redis": _STORED,
    "stall Redis": _STORED,
    "delay Redis": _STORED,
    "kill Redis": _STORED,
    "freeze Redis": _STORED,
    "Redis out of memory": _STORED,
    "cut from AWS": _QUEUES,
    "stall AWS": _QUEUES,
    "delay AWS": _QUEUES,
    "freeze AWS": _QUEUES,
    "kill broker": frozenset({"kafka"}),
    # A clean stop commits what it can; so do these by themselves.
    "restart replica": frozenset(),
    "join": frozenset(),
    "leave": frozenset(),
    "full disk": frozenset(),
    "split": frozenset(),
    "merge": frozenset(),
}
#: These only make it late, and explain nothing by themselves.
SLOWS: Final = frozenset({"freeze replica briefly", "delay Redis", "delay AWS"})
#: The others go on without a broker after so many seconds, long before it is back.
BROKER_S: Final = 6.0
#: Of two that explain the same, the one that ends a process does.
FATAL: Final = frozenset({"kill replica", "freeze replica", "vanish", "kill worker"})


class Place(NamedTuple):
    source: str
    key: int
    number: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """An event as it was carried out."""

    kind: str
    #: The replica it hit; empty = something that all use.
    replica: str
    #: Just before it began, and when it was over, of the ledger's clock.
    from_ns: int
    until_ns: int
    #: The workers that it ended, where it ended only them.
    workers: tuple[int, ...] = ()

    @property
    def back_ns(self) -> int:
        """Until when what could not be committed meanwhile is tried again."""
        lasted_ns = self.until_ns - self.from_ns
        if self.kind == "kill broker":
            lasted_ns = min(lasted_ns, int(BROKER_S * 1e9))
        pause_ns = 0 if self.kind in SLOWS else lasted_ns
        return self.from_ns + lasted_ns + pause_ns + int(BACK_GRACE_S * 1e9)

    def concerns(self, delivery: Delivery) -> bool:
        """Say whether it may keep the end of a delivery from being committed."""
        if delivery.source not in CONCERNS[self.kind]:
            return False
        if self.workers:
            return delivery.process in self.workers
        return self.replica in ("", delivery.replica)


@dataclass(slots=True)
class Delivery:
    """One batch with the function."""

    replica: str
    process: int
    request_id: str
    source: str
    start_ns: int
    places: list[Place] = field(default_factory=list)
    #: Shard and position of each.
    positions: list[tuple[str, int]] = field(default_factory=list)
    #: None = its process ended first.
    end_ns: int | None = None
    ok: set[Place] = field(default_factory=set)
    clashes: list[Place] = field(default_factory=list)


#: By shard: when it was seen that all up to which position was committed; both rise.
Commits: TypeAlias = Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Promise:
    """What a mapping promises."""

    #: Attempts of a poison record that stands alone.
    attempts_limit: int
    #: How late the end of a record may be committed, seconds.
    commit_late_s: float


@dataclass(slots=True)
class Verdict:
    """What the ledger says of one source."""

    produced: int = 0
    delivered: int = 0
    deliveries: int = 0
    cut_off: int = 0
    finished: int = 0
    failed: int = 0
    #: Records that had succeeded and ran again, by the trouble that explains it.
    repeated: dict[str, int] = field(default_factory=dict)
    #: Longest time from the end of a batch to the trouble that made it run again, without other troubles; seconds.
    oldest_repeat_s: float = 0.0
    #: Records of which it would have been explained if they had run again later: how much the explanations excuse.
    excusable: int = 0
    #: Messages of a FIFO group that the queue handed out although another replica still had earlier ones.
    passed_hidden: int = 0
    #: Records that were seen to be committed while the fleet ran.
    committed: int = 0
    poison: int = 0
    #: Most attempts of a poison record that stood alone.
    most_attempts: int = 0
    violations: list[str] = field(default_factory=list)


def read(lines: Iterable[str]) -> list[Delivery]:
    """Put the lines of a ledger together to deliveries, in the order they began."""
    current: dict[int, Delivery] = {}
    deliveries: list[Delivery] = []
    for line in lines:
        words = line.split()
        if len(words) != 9 or words[8] not in ("S", "ok", "bad", "clash"):
            continue  # cut off by a kill
        time_ns, replica, process, request_id, source = int(words[0]), words[1], int(words[2]), words[3], words[4]
        place, phase = Place(source, int(words[5]), int(words[6])), words[8]
        mine = current.get(process)
        if phase == "S":
            if mine is None or mine.start_ns != time_ns or mine.end_ns is not None:
                mine = current[process] = Delivery(replica, process, request_id, source, time_ns)
                deliveries.append(mine)
            mine.places.append(place)
            shard, _, position = words[7].partition(":")
            mine.positions.append((shard, int(position)))
        elif mine is not None and phase == "clash":
            mine.clashes.append(place)
        elif mine is not None:
            mine.end_ns = time_ns
            if phase == "ok":
                mine.ok.add(place)
    return sorted(deliveries, key=lambda delivery: delivery.start_ns)


def judge(
    source: str,
    produced: Mapping[Place, bool],
    deliveries: Sequence[Delivery],
    given_up: Mapping[Place, int],
    troubles: Sequence[Trouble],
    promise: Promise,
    commits: Commits | None = None,
) -> Verdict:
    """Hold the ledger of one source against a promise.

    Args:
        source: whose it is; all that is given is of this source, but for the troubles.
        produced: what was sent, and whether it is poison.
        deliveries: in the order they began.
        given_up: what is stored as failed, and since when, of the ledger's clock.
        troubles: in the order they began.
        promise: of the mapping.
        commits: what was seen to be committed, by shard, where that can be seen.
    """
    finished = set[Place]().union(*(delivery.ok for delivery in deliveries))
    verdict = Verdict(
        produced=len(produced),
        delivered=sum(len(delivery.places) for delivery in deliveries),
        deliveries=len(deliveries),
        cut_off=sum(delivery.end_ns is None for delivery in deliveries),
        finished=len(finished),
        failed=len(given_up),
        poison=sum(produced.values()),
    )
    unknown = {place for delivery in deliveries for place in delivery.places} - produced.keys()
    verdict.violations += [
        f"never sent: {_name(place)}" for place in sorted(unknown | (given_up.keys() - produced.keys()))
    ]
    verdict.violations += [f"lost: {_name(place)}" for place in sorted(produced.keys() - finished - given_up.keys())]
    verdict.violations += [
        f"stored as failed, but good: {_name(place)}" for place in sorted(given_up) if not produced.get(place, True)
    ]
    verdict.violations += _overlaps(deliveries)
    if source in ORDERED:
        _disorder(verdict, deliveries, given_up)
    _repeats(verdict, deliveries, troubles, promise.commit_late_s)
    _committed(verdict, deliveries, commits or {})
    _poison_attempts(verdict, produced, deliveries, troubles, promise.attempts_limit)
    return verdict


def _name(place: Place) -> str:
    return f"{place.source} {place.key}/{place.number}"


# --- order


def _overlaps(deliveries: Sequence[Delivery]) -> Iterator[str]:
    for delivery in deliveries:
        if delivery.clashes:
            names = ", ".join(map(_name, delivery.clashes[:3]))
            yield f"overlap: {names} ran elsewhere when {_told(delivery)} began"


def _told(delivery: Delivery) -> str:
    return f"{delivery.request_id} of {delivery.replica}[{delivery.process}] at {delivery.start_ns}"


@dataclass(slots=True)
class _Key:
    """What is over of one key, as a place in the ledger is reached."""

    #: When each record was over first.
    over_ns: dict[int, int] = field(default_factory=dict)
    #: All below it are known to be over by `since_ns` at the latest, which is not in the future.
    below: int = 1

    def first_open(self, at_ns: int) -> int:
        """Give the first record that is not over at this time; times must not fall."""
        while self.over_ns.get(self.below, at_ns + 1) <= at_ns:
            self.below += 1
        return self.below


def _disorder(verdict: Verdict, deliveries: Sequence[Delivery], given_up: Mapping[Place, int]) -> None:
    keys: dict[int, _Key] = defaultdict(_Key)
    over = [(delivery.end_ns or 0, place) for delivery in deliveries for place in delivery.ok]
    for at_ns, place in [*over, *((at_ns, place) for place, at_ns in given_up.items())]:
        first_ns = keys[place.key].over_ns
        first_ns[place.number] = min(at_ns, first_ns.get(place.number, at_ns))
    had_last: dict[Place, str] = {}
    for delivery in deliveries:
        before: dict[int, list[int]] = defaultdict(list)
        for place in delivery.places:
            key, mine = keys[place.key], before[place.key]
            if mine and place.number <= mine[-1]:
                verdict.violations.append(
                    f"out of order in a batch: {_name(place)} behind {mine[-1]} in {_told(delivery)}"
                )
            missing = [
                number
                for number in range(key.first_open(delivery.start_ns), place.number)
                if number not in mine and key.over_ns.get(number, delivery.start_ns + 1) > delivery.start_ns
            ]
            owners = {had_last.get(Place(place.source, place.key, number)) for number in missing}
            if missing and place.source == "fifo" and not owners & {None, delivery.replica}:
                verdict.passed_hidden += 1
            elif missing:
                verdict.violations.append(
                    f"out of order: {_name(place)} in {_told(delivery)} before {missing[0]} was over"
                )
            mine.append(place.number)
        had_last.update(dict.fromkeys(delivery.places, delivery.replica))


# --- repetitions


def _repeats(
    verdict: Verdict, deliveries: Sequence[Delivery], troubles: Sequence[Trouble], commit_late_s: float
) -> None:
    counts: Counter[str] = Counter()
    last_ok: dict[Place, Delivery] = {}
    for delivery in deliveries:
        for place in delivery.places:
            done = last_ok.get(place)
            if done is None:
                continue
            cause, after_s = _cause(done, delivery.start_ns, troubles)
            if cause and after_s <= commit_late_s:
                counts[cause] += 1
                verdict.oldest_repeat_s = max(verdict.oldest_repeat_s, after_s)
            else:
                near = f"{cause} came {after_s:.1f} s later" if cause else "no trouble near"
                verdict.violations.append(
                    f"repeated: {_name(place)} in {_told(delivery)}, done at {done.end_ns} by {done.replica}, {near}"
                )
        last_ok.update(dict.fromkeys(delivery.ok, delivery))
    verdict.repeated = dict(counts.most_common())
    end_ns = max((delivery.start_ns for delivery in deliveries), default=0)
    verdict.excusable = sum(
        len(delivery.ok)
        for delivery in deliveries
        if delivery.ok and _is_excused(delivery, end_ns, troubles, commit_late_s)
    )


def _is_excused(done: Delivery, again_ns: int, troubles: Sequence[Trouble], commit_late_s: float) -> bool:
    cause, after_s = _cause(done, again_ns, troubles)
    return bool(cause) and after_s <= commit_late_s


def _cause(done: Delivery, again_ns: int, troubles: Sequence[Trouble]) -> tuple[str, float]:
    """Give the trouble that explains best why something ran again, and how long after its end that came."""
    assert done.end_ns is not None, "it succeeded"
    causes: list[tuple[float, bool, str]] = []
    covered_ns, reached_ns = 0, done.end_ns
    for each in troubles:
        if each.from_ns > again_ns:
            break
        back_ns = each.back_ns
        if back_ns < done.end_ns or not each.concerns(done):
            continue
        after_s = max(0, each.from_ns - done.end_ns - covered_ns) / 1e9
        if each.kind not in SLOWS:
            causes.append((after_s, each.kind not in FATAL, each.kind))
        covered_ns += max(0, back_ns - max(each.from_ns, reached_ns))
        reached_ns = max(reached_ns, back_ns)
    after_s, _, kind = min(causes, default=(float("inf"), True, ""))
    return kind, after_s


def _committed(verdict: Verdict, deliveries: Sequence[Delivery], commits: Commits) -> None:
    """Nothing runs that was seen to be committed before."""
    seen: set[Place] = set()
    for delivery in deliveries:
        for place, (shard, position) in zip(delivery.places, delivery.positions, strict=True):
            samples = commits.get(shard, ())
            at = bisect_left(samples, position, key=lambda sample: sample[1])
            if at == len(samples):
                continue
            seen.add(place)
            at_ns, reached = samples[at]
            if at_ns < delivery.start_ns:
                verdict.violations.append(
                    f"repeated: {_name(place)} at {shard}:{position} in {_told(delivery)}; "
                    f"at {at_ns} all up to {reached} was committed"
                )
    verdict.committed = len(seen)


# --- poison


def _poison_attempts(
    verdict: Verdict,
    produced: Mapping[Place, bool],
    deliveries: Sequence[Delivery],
    troubles: Sequence[Trouble],
    limit: int,
) -> None:
    """Count how often each poison record was tried alone, against its limit and the troubles meanwhile."""
    tried: dict[Place, list[int]] = defaultdict(list)
    for delivery in deliveries:
        if len(delivery.places) == 1 and produced.get(delivery.places[0]):
            tried[delivery.places[0]].append(delivery.start_ns)
    for place, starts in tried.items():
        meanwhile = sum(
            (place.source in CONCERNS[each.kind] or (place.source in _QUEUES and CONCERNS[each.kind] == _STORED))
            and starts[0] <= each.until_ns
            and each.from_ns <= starts[-1]
            for each in troubles
        )
        verdict.most_attempts = max(verdict.most_attempts, len(starts))
        if len(starts) > limit + meanwhile:
            verdict.violations.append(
                f"poison {_name(place)} was tried {len(starts)} times, {meanwhile} troubles meanwhile"
            )
