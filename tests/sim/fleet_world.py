"""A fleet of any size around one table of leases, on virtual time, with faults; and what it did.

It runs the tenants alone: an exchange takes a millisecond or a few on the way, a shard that is asked back takes a
moment to drain, and what shards cost wobbles. It counts what an operator would want to know, and notices when two
replicas believe to have one shard at one time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random

from router.core import fleet as f
from router.core.fleet import LeaseKey, part
from router.core.plan import UNITS, weigh
from router.core.tenant import Tenant
from tests.fakes.lease_rules import LeaseRules

#: How often a replica measures what its shards cost, seconds, and what share of a new measure it believes.
MEASURE_S = 5.0
MEASURE_SHARE = 0.2
#: What shards cost wobbles by this share.
WOBBLE = 0.3


@dataclass(eq=False)
class Site:
    """One life of a replica."""

    name: str
    incarnation: str
    tenant: Tenant
    is_cut: bool = False
    is_dead: bool = False
    flying: bool = False
    wake_s: float = float("inf")
    running: set[LeaseKey] = field(default_factory=set)
    measured: dict[LeaseKey, float] = field(default_factory=dict)


@dataclass
class Tally:
    """What happened in a part of the time."""

    exchanges: int = 0
    grants: int = 0
    revokes: int = 0
    losses: int = 0
    #: Moments in which a shard was two replicas' by their own clocks.
    overlaps: int = 0
    feeds: int = 0
    cpu_s: float = 0.0
    #: How long shards that were running once were with nobody: seconds, by what took them from their owner.
    idle_s: dict[str, list[float]] = field(default_factory=dict)


class FleetWorld:
    def __init__(
        self, shards: int, *, lease_s: float, seed: int, load: Callable[[Random], float] | None = None
    ) -> None:
        self.chance = Random(seed)
        self.lease_s = lease_s
        self.table = LeaseRules()
        self.table.nudge = self._nudge
        self.keys = [LeaseKey(f"mapping-{number % 10}", f"shard-{number:05}") for number in range(shards)]
        self.loads = {key: load(self.chance) if load else 0.0 for key in self.keys}
        self.parts = frozenset(map(part, self.keys))
        self.now_s = 0.0
        self.sites: dict[str, Site] = {}
        self.is_away = False
        self.tally = Tally()
        #: Who has each shard by its own word, and since when those are idle that nobody has, and why.
        self.holder: dict[LeaseKey, Site] = {}
        self.idle: dict[LeaseKey, tuple[float, str]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    # --- what is done to it

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        heappush(self._events, (seconds, next(self._order), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now_s + seconds, what)

    def run(self, seconds: float) -> Tally:
        """Let time go by; give what happened in it."""
        self.tally = Tally()
        until_s = self.now_s + seconds
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, what = heappop(self._events)
            what()
        self.now_s = until_s
        return self.tally

    def join(self, name: str) -> None:
        incarnation = self.table.join(name)
        site = Site(name, incarnation, Tenant(name, self.lease_s, Random(self.chance.random())))
        self.sites[name] = site
        self._feed(site, f.Runs(self.parts))
        for key in self.keys:
            self._feed(site, f.Wished(key))
        self.after(MEASURE_S * self.chance.random(), lambda: self._measure(site))

    def crash(self, name: str) -> None:
        site = self.sites.pop(name)
        site.is_dead = True
        for key in list(site.running):
            self._ends(site, key, "killed")

    def leave(self, name: str) -> None:
        """Stop a replica as an operator does: what it has is drained and given to others, then it goes."""
        site = self.sites.pop(name)
        self._feed(site, f.Leaving())
        for key in list(site.running):
            self.after(self._drain_s(), lambda key=key: self._release(site, key))

        def go() -> None:
            site.is_dead = True
            self.table.leave(site.name, site.incarnation)

        self.after(1.0, go)

    def cut(self, name: str, seconds: float) -> None:
        site = self.sites[name]
        site.is_cut = True
        self.after(seconds, lambda: setattr(site, "is_cut", False))

    def away(self, seconds: float) -> None:
        """Let nobody reach the table for a while."""
        self.is_away = True
        self.after(seconds, lambda: setattr(self, "is_away", False))

    # --- what follows

    def _feed(self, site: Site, fact: f.TenantFact) -> None:
        if site.is_dead:
            return
        began_s = time.process_time()
        commands = site.tenant.feed(fact, self.now_s)
        self.tally.cpu_s += time.process_time() - began_s
        self.tally.feeds += 1
        for command in commands:
            self._carry_out(site, command)

    def _carry_out(self, site: Site, command: f.TenantCommand) -> None:
        match command:
            case f.Exchange(said):
                assert not site.flying
                site.flying = True
                self.tally.exchanges += 1
                sent_s = self.now_s
                self.after(self._way_s(), lambda: self._arrive(site, said, sent_s))
            case f.Grant(key):
                self._begins(site, key)
            case f.Revoke(key):
                self.tally.revokes += 1
                self.after(self._drain_s(), lambda: self._release(site, key))
            case f.Lose(key):
                self.tally.losses += 1
                self._ends(site, key, "cut off")
            case f.WakeAt(mono_s):
                site.wake_s = mono_s
                self.at(mono_s, lambda: self._due(site, mono_s))

    def _due(self, site: Site, mono_s: float) -> None:
        if site.wake_s == mono_s:
            self._feed(site, f.Due())

    def _arrive(self, site: Site, said: f.Said, sent_s: float) -> None:
        if site.is_dead:
            return
        if site.is_cut or self.is_away:
            self.after(1.0, lambda: self._land(site, f.Unanswered("no route")))
            return
        self.table.now_ms = int(self.now_s * 1000)
        heard = self.table.exchange(site.name, site.incarnation, said)
        self.after(self._way_s(), lambda: self._land(site, f.Answered(sent_s, heard)))

    def _land(self, site: Site, fact: f.TenantFact) -> None:
        site.flying = False
        self._feed(site, fact)

    def _nudge(self, name: str) -> None:
        if site := self.sites.get(name):
            self.after(self._way_s(), lambda: self._feed(site, f.Nudged()))

    def _begins(self, site: Site, key: LeaseKey) -> None:
        self.tally.grants += 1
        other = self.holder.get(key)
        if other is not None and other is not site and self.now_s < other.tenant.expires_s:
            self.tally.overlaps += 1
        self.holder[key] = site
        site.running.add(key)
        if key in self.idle:
            since_s, why = self.idle.pop(key)
            self.tally.idle_s.setdefault(why, []).append(self.now_s - since_s)

    def _ends(self, site: Site, key: LeaseKey, why: str) -> None:
        if key in site.running:
            site.running.remove(key)
            site.measured.pop(key, None)
            if self.holder.get(key) is site:
                del self.holder[key]
                self.idle[key] = (self.now_s, why)

    def _release(self, site: Site, key: LeaseKey) -> None:
        if key in site.running and not site.is_dead:
            self._ends(site, key, "moved")
            self._feed(site, f.Released(key))

    def _measure(self, site: Site) -> None:
        if site.is_dead:
            return
        for key in site.running:
            share = self.loads[key] * (1 + WOBBLE * (2 * self.chance.random() - 1))
            known = site.measured.get(key)
            site.measured[key] = share if known is None else known + MEASURE_SHARE * (share - known)
        self._feed(site, f.Measured(dict(site.measured)))
        self.after(MEASURE_S, lambda: self._measure(site))

    def _way_s(self) -> float:
        return self.chance.uniform(0.0005, 0.002) if self.chance.random() < 0.99 else self.chance.uniform(0.002, 0.05)

    def _drain_s(self) -> float:
        return self.chance.uniform(0.0, 0.12)

    # --- what can be seen

    def unowned(self) -> int:
        return len(self.keys) - len(self.holder)

    def balance(self) -> float:
        """Give the load of the heaviest replica in parts of the mean, by what shards cost in truth."""
        totals = [sum(weigh(key, self.loads[key]) for key in site.running) / UNITS for site in self.sites.values()]
        return max(totals) * len(totals) / sum(totals) if any(totals) else 1.0

    def pick(self, number: int) -> Sequence[str]:
        return self.chance.sample(sorted(self.sites), number)


def worst(idle_s: Iterable[float]) -> float:
    return max(idle_s, default=0.0)
