"""Says what a ledger of a queue proves, and what breaks a promise. Pure.

Lines, deliveries and kills are those of `bench.ledger_judge`. A place is the number of a key (a FIFO group, an object)
and a message's own number there, from 1 without gaps.

What is promised (docs/sqs.md, docs/fifo.md, docs/s3.md):

- Each message is finished, or stored as failed; only poison is stored.
- No message runs beside itself, and where keys have an order, no two batches with the same key do.
- FIFO: a message starts when all earlier ones of its group are over, or before it in its batch. What is over when
  another one of its group starts never runs again.
- What has succeeded runs again only when it was not deleted: the daemon was killed first, or its worker before the
  answer was heard, or the endpoint was away.
- A poison message is tried alone as often as the mapping allows. A kill of the daemon forgets the attempt in flight, or
  the deletion of what was stored as failed, so that each such kill allows one attempt more. A worker's death is an
  attempt as any other, and redeliveries have their message's attempts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.ledger_judge import Delivery, Kill, Place, Produced, overlaps

#: After an outage the next try of a call comes this long after its end at most, beside as long as the outage was.
_BACK_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Promise:
    """What a mapping promises."""

    #: Attempts of a poison message that stands alone.
    attempts_limit: int
    #: How late the deletion of a finished message may be, seconds.
    delete_late_s: float
    #: Messages of a key run in their order.
    ordered: bool = False
    #: Batches with the same key do not overlap.
    by_key: bool = False
    #: A failed message takes the later ones of its key in the batch with it.
    holds: bool = False


@dataclass(slots=True)
class QueueVerdict:
    """What a ledger says."""

    produced: int
    delivered: int
    deliveries: int
    cut_off: int
    finished: int
    failed: int
    #: Messages that had succeeded and ran again, by the kill that explains it.
    repeated_by_daemon: int
    repeated_by_worker: int
    repeated_by_endpoint: int
    #: Longest time between the end of a batch and the kill after which it ran again, without outages; seconds.
    oldest_repeat_s: float
    poison: int
    #: Most attempts of a poison message that stood alone, and most beyond the limit.
    most_attempts: int
    most_extra_attempts: int
    violations: list[str]


def judge(
    produced: Mapping[Place, Produced],
    deliveries: Sequence[Delivery],
    given_up: Mapping[Place, int],
    kills: Sequence[Kill],
    promise: Promise,
) -> QueueVerdict:
    """Hold a ledger against a promise.

    Args:
        produced: what was sent.
        deliveries: in the order they began.
        given_up: what is stored as failed, with the time at which that was decided, of the ledger's clock.
        kills: in the order they happened.
        promise: of the mapping.
    """
    done = [_done(delivery, produced, promise) for delivery in deliveries]
    finished = set[Place]().union(*done)
    repeats = _repeats(deliveries, done, kills, promise.delete_late_s)
    attempts, extra, exceeded = _poison_attempts(produced, deliveries, kills, promise.attempts_limit)
    unknown = [f"unexplained end: process {each.process} {each.request_id}" for each in deliveries if not each.end_ns]
    lost = [f"lost: {produced[place]}" for place in sorted(produced.keys() - finished - given_up.keys())]
    wrong = [f"stored as failed, but good: {produced[place]}" for place in given_up if not produced[place].poison]
    return QueueVerdict(
        produced=len(produced),
        delivered=sum(len(delivery.places) for delivery in deliveries),
        deliveries=len(deliveries),
        cut_off=sum(delivery.cut_off for delivery in deliveries),
        finished=len(finished),
        failed=len(given_up),
        repeated_by_daemon=repeats.counts["daemon"],
        repeated_by_worker=repeats.counts["worker"],
        repeated_by_endpoint=repeats.counts["endpoint"],
        oldest_repeat_s=repeats.oldest_s,
        poison=sum(each.poison for each in produced.values()),
        most_attempts=attempts,
        most_extra_attempts=extra,
        violations=[
            *unknown,
            *lost,
            *wrong,
            *overlaps(deliveries, (lambda place: produced[place].key) if promise.by_key else lambda place: place),
            *(_disorder(deliveries, done, given_up) if promise.ordered else ()),
            *repeats.violations,
            *exceeded,
        ],
    )


def _done(delivery: Delivery, produced: Mapping[Place, Produced], promise: Promise) -> set[Place]:
    """Give what a delivery has finished: where failures hold their key, not what stood behind one."""
    if not promise.holds:
        return delivery.ok
    held: set[str] = set()
    done: set[Place] = set()
    for place in delivery.places:
        key = produced[place].key
        if place not in delivery.ok:
            held.add(key)
        elif key not in held:
            done.add(place)
    return done


# --- order


@dataclass(slots=True)
class _Key:
    """What is known of one key while the ledger is read."""

    #: When each message was over first: had succeeded, or was given up.
    over_ns: dict[int, int] = field(default_factory=dict)
    #: All messages below this one, and some others, were over when a later one started.
    passed_below: int = 1
    passed: set[int] = field(default_factory=set)

    def has_passed(self, number: int) -> bool:
        return number < self.passed_below or number in self.passed

    def pass_by(self, numbers: range) -> Iterator[int]:
        """Note what must be over as a later one starts; give what was not noted before."""
        for number in numbers:
            if not self.has_passed(number):
                self.passed.add(number)
                yield number
        while self.passed_below in self.passed:
            self.passed.discard(self.passed_below)
            self.passed_below += 1


def _disorder(
    deliveries: Sequence[Delivery], done: Sequence[set[Place]], given_up: Mapping[Place, int]
) -> Iterator[str]:
    keys: dict[int, _Key] = defaultdict(_Key)
    for place, at_ns in given_up.items():
        keys[place.partition].over_ns[place.offset] = at_ns
    for delivery, finished in zip(deliveries, done, strict=True):
        last: dict[int, int] = {}
        for key, number in delivery.places:
            known = keys[key]
            if known.has_passed(number):
                yield f"ran after its successor: {key}/{number} at {delivery.start_ns}"
            # Of those in the batch the one before must stand before; what is missing between them must be over.
            before = last.get(key)
            if before is not None and number <= before:
                yield f"out of order in a batch: {key}/{number} behind {before} at {delivery.start_ns}"
            missing = range(known.passed_below if before is None else before + 1, number)
            for each in known.pass_by(missing):
                over_ns = known.over_ns.get(each)
                if over_ns is None or over_ns > delivery.start_ns:
                    yield f"overtaken: {key}/{number} at {delivery.start_ns} before {each} was over"
            last[key] = number
        for key, number in finished:
            keys[key].over_ns.setdefault(number, delivery.end_ns or 0)


# --- repetitions


@dataclass(slots=True)
class _Repeats:
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("daemon", "worker", "endpoint"), 0))
    oldest_s: float = 0.0
    violations: list[str] = field(default_factory=list)


def _repeats(
    deliveries: Sequence[Delivery], done: Sequence[set[Place]], kills: Sequence[Kill], late_s: float
) -> _Repeats:
    """What had succeeded runs again only because something died before its deletion was confirmed."""
    repeats = _Repeats()
    last_done: dict[Place, Delivery] = {}
    for delivery, finished in zip(deliveries, done, strict=True):
        for place in delivery.places:
            if place not in last_done:
                continue
            before = last_done[place]
            target, after_s = _cause(before, delivery, kills, late_s)
            if target is None:
                repeats.violations.append(
                    f"repeated: {place} at {delivery.start_ns}, done at {before.end_ns}, no kill near"
                )
                continue
            repeats.counts[target] += 1
            repeats.oldest_s = max(repeats.oldest_s, after_s)
        last_done.update(dict.fromkeys(finished, delivery))
    return repeats


def _cause(done: Delivery, again: Delivery, kills: Sequence[Kill], late_s: float) -> tuple[str | None, float]:
    """Give what must have kept a finished batch from being deleted, and how long after its end that was."""
    end_ns = done.end_ns or 0
    meanwhile = [kill for kill in kills if kill.gone_ns >= end_ns and kill.time_ns <= again.start_ns]
    for kill in meanwhile:
        if kill.target == "daemon" or done.process in kill.workers:
            after_s = max(0.0, (kill.time_ns - end_ns) / 1e9 - _outage_s(end_ns, kill.time_ns, kills))
            if after_s <= late_s:
                return kill.target, after_s
    for kill in meanwhile:
        after_s = max(0.0, (kill.time_ns - end_ns) / 1e9)
        if kill.target == "endpoint" and after_s <= late_s:
            return kill.target, after_s
    return None, 0.0


def _outage_s(from_ns: int, until_ns: int, kills: Sequence[Kill]) -> float:
    """Give how long of a time nothing could be deleted, as the endpoint was away, or was not asked again yet."""
    total_s = 0.0
    at_ns = from_ns
    for kill in kills:
        if kill.target == "endpoint":
            back_ns = kill.gone_ns + (kill.gone_ns - kill.time_ns) + int(_BACK_GRACE_S * 1e9)
            total_s += max(0, min(back_ns, until_ns) - max(kill.time_ns, at_ns)) / 1e9
            at_ns = max(at_ns, back_ns)
    return total_s


# --- poison


def _poison_attempts(
    produced: Mapping[Place, Produced], deliveries: Sequence[Delivery], kills: Sequence[Kill], limit: int
) -> tuple[int, int, list[str]]:
    """Count how often each poison message was tried alone, against its limit and the kills of the daemon meanwhile."""
    tried: dict[Place, list[int]] = defaultdict(list)
    for delivery in deliveries:
        if len(delivery.places) == 1 and produced[delivery.places[0]].poison:
            tried[delivery.places[0]].append(delivery.start_ns)
    violations: list[str] = []
    for place, starts in tried.items():
        meanwhile = sum(
            kill.target == "daemon" and starts[0] <= kill.gone_ns and kill.time_ns <= starts[-1] for kill in kills
        )
        if len(starts) > limit + meanwhile:
            violations.append(
                f"poison {place} was tried {len(starts)} times, {meanwhile} kills of the daemon meanwhile"
            )
    most = max(map(len, tried.values()), default=0)
    return most, max(0, most - limit), violations
