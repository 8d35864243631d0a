"""A fleet of tenants around one table, in which anything may go wrong; and what must hold in it.

The world carries exchanches to the table and answers back, at any time, in any order between replicas, or not at all.
It plays what works by the leases: it begins at a grant, and ends what it is told to end. Each process has a clock of
its own, which goes on while the process is stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from router.core import fleet as f
from router.core.fleet import Heard, LeaseKey, Said, part
from router.core.plan import weigh
from router.core.tenant import Tenant
from tests.fakes.lease_rules import LeaseRules

LEASE_S = 10.0
KEYS = [LeaseKey(mapping, str(number)) for mapping in ("m", "n") for number in range(4)]


@dataclass
class Flight:
    """An exchange under way."""

    said: Said
    sent_s: float
    #: The table's answer, once it is there.
    heard: Heard | None = None


@dataclass
class Process:
    """One life of a replica."""

    name: str
    incarnation: str
    tenant: Tenant
    #: Its clock is so far ahead.
    ahead_s: float
    flight: Flight | None = None
    #: By its own clock.
    wake_s: float = float("inf")
    is_stopped: bool = False
    is_cut: bool = False
    is_leaving: bool = False
    is_out: bool = False
    wished: set[LeaseKey] = field(default_factory=set)
    #: What works by leases, and by which token.
    running: dict[LeaseKey, int] = field(default_factory=dict)
    revoked: set[LeaseKey] = field(default_factory=set)


class World:
    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.table = LeaseRules()
        self.now_s = 0.0
        self.processes: dict[str, Process] = {}
        #: The largest token of each lease that anybody was granted.
        self.granted: dict[LeaseKey, int] = {}
        self.finished: set[LeaseKey] = set()
        self.orphaned: list[tuple[str, str]] = []
        self.is_quiet = False

    # --- what happens

    def start(self, name: str, mappings: set[str], ahead_s: float) -> None:
        incarnation = self.table.join(name)
        tenant = Tenant(name, LEASE_S, Random(self.chance.randrange(2**32)))
        process = self.processes[name] = Process(name, incarnation, tenant, ahead_s)
        self.feed(process, f.Due())
        for key in KEYS:
            if key.mapping in mappings:
                self.wish(process, key)

    def wish(self, process: Process, key: LeaseKey) -> None:
        if key in process.wished or key in self.finished:
            return
        process.wished.add(key)
        self.feed(process, f.Runs(frozenset(map(part, process.wished))))
        self.feed(process, f.Wished(key))

    def unwish(self, process: Process, key: LeaseKey) -> None:
        process.wished.remove(key)
        process.running.pop(key, None)
        process.revoked.discard(key)
        self.feed(process, f.Unwished(key))
        self.feed(process, f.Runs(frozenset(map(part, process.wished))))

    def crash(self, process: Process) -> None:
        del self.processes[process.name]

    def release(self, process: Process, key: LeaseKey, *, finished: bool = False) -> None:
        # What writes that a shard is finished names its token; so does this.
        is_ours = self.table.leases[key].token == process.running.pop(key)
        process.revoked.discard(key)
        self.feed(process, f.Released(key, finished=finished and is_ours))
        if finished and is_ours:
            self.finished.add(key)
            if key in process.wished:
                self.unwish(process, key)

    def leave(self, process: Process) -> None:
        process.is_leaving = True
        self.feed(process, f.Leaving())

    def arrive(self, process: Process) -> None:
        """Let the table hear what a process says, and write the answer."""
        flight = process.flight
        assert flight is not None
        assert flight.heard is None
        before = {key: lease.token for key, lease in self.table.leases.items()}
        flight.heard = self.table.exchange(process.name, process.incarnation, flight.said)
        for key, lease in self.table.leases.items():
            assert lease.token >= before.get(key, 0)
            assert not (lease.finished and lease.owner)
        self.check()

    def answer(self, process: Process, *, is_lost: bool = False) -> None:
        flight, process.flight = process.flight, None
        assert flight is not None
        if flight.heard is None or is_lost:
            self.feed(process, f.Unanswered("away"))
        else:
            self.feed(process, f.Answered(flight.sent_s, flight.heard))

    def pass_time(self, seconds: float) -> None:
        """Let time go by; those who run are woken when they have asked for it, and a moment late."""
        until_s = self.now_s + seconds
        while True:
            awake = [each for each in self.processes.values() if not each.is_stopped]
            waking = min(awake, key=lambda each: each.wake_s - each.ahead_s, default=None)
            if waking is None or waking.wake_s - waking.ahead_s > until_s:
                break
            # A moment later: a timer is not early, and neither is rounding.
            self.now_s = max(self.now_s, waking.wake_s - waking.ahead_s + 1e-6)
            self.feed(waking, f.Due())
        self.now_s = until_s
        self.check()

    def resume(self, process: Process) -> None:
        process.is_stopped = False
        self.feed(process, f.Due())

    def feed(self, process: Process, fact: f.TenantFact) -> None:
        if isinstance(fact, f.Due):
            process.wake_s = float("inf")
        for command in process.tenant.feed(fact, self.local_s(process)):
            self.carry_out(process, command)
        if not process.is_stopped:
            assert process.running == process.tenant.held(), "what runs is what is held"
        self.check()

    def carry_out(self, process: Process, command: f.TenantCommand) -> None:  # noqa: C901 - a table
        assert not process.is_out
        match command:
            case f.Exchange(said):
                assert process.flight is None, "one at a time"
                process.flight = Flight(said, self.local_s(process))
            case f.Grant(key, taken):
                assert key not in process.running
                assert key in process.wished
                assert not process.is_leaving
                assert taken.token > self.granted.get(key, 0)
                self.granted[key] = taken.token
                process.running[key] = taken.token
            case f.Revoke(key, heir):
                assert key in process.running
                assert key not in process.revoked
                assert heir != process.name
                process.revoked.add(key)
            case f.Lose(key):
                del process.running[key]
                process.revoked.discard(key)
            case f.Finished(mapping, shards):
                assert {LeaseKey(mapping, shard) for shard in shards} <= self.finished
                for key in [key for key in process.wished if key.mapping == mapping and key.shard in shards]:
                    self.late(process, key)
            case f.Orphaned(replica, ours):
                assert replica != process.name
                if ours:
                    self.orphaned.append((replica, process.name))
            case f.WakeAt(mono_s):
                process.wake_s = mono_s
            case f.Ousted():
                process.is_out = True

    def late(self, process: Process, key: LeaseKey) -> None:
        """It is finished; what wishes for it gives that up, a little later."""
        process.wished.discard(key)
        for command in process.tenant.feed(f.Unwished(key), self.local_s(process)):
            self.carry_out(process, command)

    def local_s(self, process: Process) -> float:
        return self.now_s + process.ahead_s

    # --- what must hold

    def check(self) -> None:
        """Nobody but the owner in the table believes to have a lease, by its own clock, at any time."""
        for process in self.processes.values():
            if self.local_s(process) < process.tenant.expires_s:
                for key, token in process.tenant.held().items():
                    lease = self.table.leases[key]
                    assert (lease.owner, lease.token) == (process.name, token), f"{process.name} does not have {key}"

    # --- the end

    def settle(self, leases: float) -> None:
        """Let a fleet without trouble run, and do at once what it is told."""
        self.is_quiet = True
        for process in list(self.processes.values()):
            process.is_cut = False
            if process.is_stopped:
                self.resume(process)
            for key in KEYS:
                if any(each.mapping == key.mapping for each in process.wished):
                    self.wish(process, key)
        until_s = self.now_s + leases * LEASE_S
        self.serve()
        while self.now_s < until_s:
            waits = [each.wake_s - each.ahead_s for each in self.processes.values()]
            self.pass_time(max(0.0, min([*waits, until_s]) - self.now_s))
            self.serve()

    def serve(self) -> None:
        while any(each.flight or self.due(each) for each in self.processes.values()):
            for process in list(self.processes.values()):
                if process.flight:
                    if process.flight.heard is None:
                        self.arrive(process)
                    self.answer(process)
                for key in self.due(process):
                    self.release(process, key, finished=key in self.finished)

    def due(self, process: Process) -> list[LeaseKey]:
        """What is to be released; what was finished by somebody whose word of it was lost is found to be so."""
        running = process.running.keys()
        return sorted(running if process.is_leaving else process.revoked | (running & self.finished))

    def check_settled(self) -> None:
        """Everything that somebody wishes for is somebody's, and as even as can be."""
        able = [each for each in self.processes.values() if not each.is_leaving]
        for key in KEYS:
            holders = [each.name for each in self.processes.values() if key in each.tenant.held()]
            is_wished = any(key in each.wished for each in able)
            assert len(holders) == int(is_wished and key not in self.finished), (key, holders)
        for giver in able:
            for taker in able:
                movable = [weigh(key, self.table.leases[key].load) for key in giver.running if key in taker.wished]
                difference = sum(self.weights(giver)) - sum(self.weights(taker))
                mean = sum(sum(self.weights(each)) for each in able) / len(able)
                helps = sum(weight for weight in movable if weight <= difference // 2)
                assert difference <= 0.4 * mean or helps < 0.05 * mean
        assert not able or set(self.table.replicas) == set(self.processes), "the dead are buried"

    def weights(self, process: Process) -> list[int]:
        return [weigh(key, self.table.leases[key].load) for key in process.running]
