"""A few tenants around a table, for tests: what they say is carried at once, and what they are told is done at once."""

from __future__ import annotations

from collections import deque
from random import Random

from router.core import fleet as f
from router.core.fleet import LeaseKey, part
from router.core.tenant import Tenant
from tests.fakes.lease_rules import LeaseRules

LEASE_S = 10.0
FIRST, SECOND = LeaseKey("m", "1"), LeaseKey("m", "2")


class Site:
    """A few replicas around a table, which answers at once unless somebody is cut off."""

    def __init__(self, *names, lease_s=LEASE_S):
        self.table = LeaseRules()
        self.nudged = deque()
        self.table.nudge = self.nudged.append
        self.lease_s = lease_s
        self.now_s = 100.0
        self.tenants = {}
        self.incarnations = {}
        self.exchanges = {}
        self.wakes = {}
        self.cut = set()
        #: Replicas that do not release what is asked back.
        self.slow = set()
        self.did = []
        for name in names:
            self.join(name)

    def join(self, name, *keys, lease_s=None):
        lease_s = lease_s or self.lease_s
        self.incarnations[name] = self.table.join(name, lease_s)
        self.tenants[name] = Tenant(name, lease_s, Random(1))
        self.wakes[name] = self.now_s
        self.exchanges.pop(name, None)
        self.feed(name, f.Due())
        self.wish(name, *keys)

    def wish(self, name, *keys):
        if keys:
            self.feed(name, f.Runs(frozenset(map(part, keys))))
        for key in keys:
            self.feed(name, f.Wished(key))

    def feed(self, name, fact):
        if isinstance(fact, f.Due):
            self.wakes[name] = float("inf")
        for command in self.tenants[name].feed(fact, self.now_s):
            self.did.append((name, command))
            match command:
                case f.Exchange(said):
                    assert name not in self.exchanges
                    self.exchanges[name] = (self.now_s, said)
                case f.WakeAt(mono_s):
                    self.wakes[name] = mono_s
                case f.Revoke(key) if name not in self.slow:
                    self.feed(name, f.Released(key))

    def answer(self, name):
        sent_s, said = self.exchanges.pop(name)
        if name in self.cut:
            self.feed(name, f.Unanswered("no route"))
        else:
            heard = self.table.exchange(name, self.incarnations[name], said)
            self.feed(name, f.Answered(sent_s, heard))

    def settle(self):
        while self.exchanges or self.nudged:
            for name in sorted(self.exchanges):
                self.answer(name)
            while self.nudged:
                name = self.nudged.popleft()
                if name in self.tenants:
                    self.feed(name, f.Nudged())

    def run(self, seconds):
        until_s = self.now_s + seconds
        self.settle()
        while (next_s := min(self.wakes.values())) <= until_s:
            self.now_s = max(self.now_s, next_s)
            for name in [name for name, wake_s in self.wakes.items() if wake_s <= self.now_s]:
                self.feed(name, f.Due())
            self.settle()
        self.now_s = until_s

    def kill(self, name):
        del self.tenants[name], self.wakes[name]
        self.exchanges.pop(name, None)

    def owners(self):
        return {key: name for name, tenant in self.tenants.items() for key in tenant.held()}

    def counts(self):
        return {name: len(tenant.held()) for name, tenant in self.tenants.items()}

    def said(self, name, kind):
        return [command for who, command in self.did if who == name and isinstance(command, kind)]
