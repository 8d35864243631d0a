"""Decides by a seed what goes wrong when, to which part of a fleet, and for how long. Pure.

The same seed and count give the same events. Nothing in them depends on how the fleet does: what is chosen while they
are carried out, such as the worker that is killed, is chosen by `Event.chance`.

Two events never hit the same part (`Event.part`) at a time, and it gets some time between them to come back; different
parts may well be in trouble together. At least one of the three replicas is always left alone, and two of the brokers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: They are there from the beginning to the end; the guest joins and leaves.
REPLICAS: Final = ("a", "b", "c")
GUEST: Final = "d"
BROKERS: Final = ("1", "2", "3")
#: Seconds between the beginnings of two events.
GAP_S: Final = (1.4, 3.0)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that goes wrong."""

    number: int
    #: From the beginning of the run.
    at_s: float
    kind: str
    #: What it happens to: the name of a replica or broker; empty = the only one of its kind.
    target: str
    #: Until it is mended or started again; 0 = it is over at once.
    lasts_s: float
    #: In [0, 1), for what is chosen while it is carried out.
    chance: float

    @property
    def part(self) -> str:
        """What no other event may hit meanwhile."""
        return f"{KINDS[self.kind].part}{self.target}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of event: how often it comes, what it hits, for how long, and the time to come back."""

    weight: int
    #: Begins the name of what it hits: replica, disk, redis link, aws link, redis, aws, broker, stream.
    part: str
    #: Shortest and longest, seconds; in lengths of the lease where so marked.
    lasts: tuple[float, float]
    rest_s: float
    in_leases: bool = False
    #: What it needs to be among what runs: the source that has a meaning for it; empty = none.
    source: str = ""
    #: The replica does not run meanwhile.
    is_away: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    # the daemon
    "kill replica": Kind(26, "replica ", (0.1, 1.6), 4.0, in_leases=True, is_away=True),
    "restart replica": Kind(14, "replica ", (0.0, 0.5), 4.0, is_away=True),
    "freeze replica": Kind(16, "replica ", (1.1, 1.8), 4.0, in_leases=True, is_away=True),
    "freeze replica briefly": Kind(8, "replica ", (0.1, 0.7), 2.0, in_leases=True, is_away=True),
    "kill worker": Kind(36, "worker ", (0.0, 0.0), 0.5),
    "join": Kind(12, "guest", (0.0, 0.0), 5.0),
    "leave": Kind(8, "guest", (0.0, 0.0), 3.0),
    "vanish": Kind(6, "guest", (0.0, 0.0), 3.0),
    "full disk": Kind(10, "disk ", (2.0, 8.0), 3.0),
    # the ways between
    "cut from Redis": Kind(16, "redis link ", (0.1, 1.6), 3.0, in_leases=True),
    "stall Redis": Kind(10, "redis link ", (0.1, 1.6), 3.0, in_leases=True),
    "delay Redis": Kind(10, "redis link ", (2.0, 8.0), 1.0),
    "cut from AWS": Kind(16, "aws link ", (0.3, 6.0), 2.0, source="aws"),
    "stall AWS": Kind(8, "aws link ", (0.3, 6.0), 2.0, source="aws"),
    "delay AWS": Kind(8, "aws link ", (2.0, 8.0), 1.0, source="aws"),
    # what they use
    "kill Redis": Kind(14, "redis", (0.1, 3.0), 6.0),
    "freeze Redis": Kind(8, "redis", (0.2, 0.8), 6.0, in_leases=True),
    "Redis out of memory": Kind(8, "redis", (1.0, 5.0), 6.0),
    "kill broker": Kind(14, "broker", (0.3, 4.0), 14.0, source="kafka"),
    "freeze AWS": Kind(8, "aws", (0.5, 4.0), 4.0, source="aws"),
    "split": Kind(8, "stream", (0.0, 0.0), 5.0, source="kinesis"),
    "merge": Kind(8, "stream", (0.0, 0.0), 5.0, source="kinesis"),
}

#: The sources that AWS, or what stands in for it, has.
AWS_SOURCES: Final = frozenset({"sqs", "fifo", "kinesis", "dynamodb"})


def schedule(seed: int, count: int, *, lease_s: float, sources: Sequence[str]) -> Sequence[Event]:
    """Give so many events, in the order in which they begin."""
    rng = random.Random(seed)
    kinds = {name: kind for name, kind in KINDS.items() if _concerns(kind, sources)}
    fate = _Fate()
    events: list[Event] = []
    at_s = 0.0
    while len(events) < count:
        at_s += rng.uniform(*GAP_S)
        [name] = rng.choices(list(kinds), [kind.weight for kind in kinds.values()])
        kind = kinds[name]
        lasts_s = rng.uniform(*kind.lasts) * (lease_s if kind.in_leases else 1.0)
        chance = rng.random()
        targets = [each for each in fate.targets(name) if fate.may(name, each, at_s)]
        if not targets:
            continue  # the pause is a little longer then
        target = rng.choice(targets)
        event = Event(len(events) + 1, round(at_s, 3), name, target, round(lasts_s, 3), round(chance, 6))
        fate.suffer(event)
        events.append(event)
    return events


def _concerns(kind: Kind, sources: Sequence[str]) -> bool:
    return not kind.source or kind.source in sources or (kind.source == "aws" and bool(AWS_SOURCES & set(sources)))


class _Fate:
    """What is in trouble until when, as far as the events say."""

    def __init__(self) -> None:
        self._free_s: dict[str, float] = {}
        self._away_until_s: dict[str, float] = {}
        self._has_guest = False

    def targets(self, name: str) -> Sequence[str]:
        part = KINDS[name].part
        if part == "broker":
            return BROKERS
        if part in ("redis", "aws", "stream", "guest"):
            return ("",)
        return REPLICAS

    def may(self, name: str, target: str, at_s: float) -> bool:
        if name in ("join", "leave", "vanish") and self._has_guest != (name != "join"):
            return False
        kind = KINDS[name]
        # One broker at a time, whichever it is.
        part = kind.part if kind.part == "broker" else f"{kind.part}{target}"
        if at_s < self._free_s.get(part, 0.0):
            return False
        if kind.part in ("worker ", "disk ") and at_s < self._away_until_s.get(target, 0.0):
            return False
        others_away = sum(at_s < until_s for other, until_s in self._away_until_s.items() if other != target)
        return not kind.is_away or others_away < len(REPLICAS) - 1

    def suffer(self, event: Event) -> None:
        kind = KINDS[event.kind]
        end_s = event.at_s + event.lasts_s
        part = kind.part if kind.part == "broker" else event.part
        self._free_s[part] = end_s + kind.rest_s
        if kind.is_away:
            self._away_until_s[event.target] = end_s + kind.rest_s
        if event.kind in ("join", "leave", "vanish"):
            self._has_guest = event.kind == "join"
