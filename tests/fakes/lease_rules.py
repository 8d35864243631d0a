"""The rules of a table of leases, as plain calls without a loop: for machines and simulations of many replicas.

It does what `MemoryTable` does; a test holds them together. What has changed since a version is found without a scan.
"""

from __future__ import annotations

from bisect import bisect_right

from router.core.fleet import Bury, Give, Heard, Lease, LeaseKey, Mark, Replica, Said, Take, Taken


class LeaseRules:
    """A table. Time stands still for it unless `now_ms` is moved."""

    def __init__(self) -> None:
        self.leases: dict[LeaseKey, Lease] = {}
        self.replicas: dict[str, Replica] = {}
        self.texts: dict[LeaseKey, str] = {}
        self.steered = 0
        self.now_ms = 0
        self.takes = 0
        #: Called with the name of who is given something.
        self.nudge = lambda name: None
        self._numbers = 0
        self._incarnations = 0
        self._beats_before: dict[str, int] = {}
        self._runs: dict[str, frozenset[str]] = {}
        self._leases_s: dict[str, float] = {}
        #: Versions and keys in the order of changes.
        self._versions: list[int] = []
        self._keys: list[LeaseKey] = []

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _put(self, key: LeaseKey, lease: Lease | None) -> None:
        if lease is None:
            del self.leases[key]
        else:
            self.leases[key] = lease
        self._versions.append(self._number())
        self._keys.append(key)

    def join(self, name: str, lease_s: float = 0.0) -> str:
        """Put a process into the table; give its incarnation."""
        before = self.replicas.get(name)
        self._incarnations += 1
        incarnation = f"incarnation-{self._incarnations}"
        self._beats_before[incarnation] = before.beat + 1 if before else 0
        self._runs[incarnation] = frozenset()
        self._leases_s[incarnation] = lease_s
        beat = self._beats_before[incarnation]
        self.replicas[name] = Replica(name, incarnation, beat, 0.0, draining=False, runs=frozenset())
        return incarnation

    def exchange(self, name: str, incarnation: str, said: Said) -> Heard:
        row = self.replicas.get(name)
        if row is not None and row.incarnation != incarnation:
            return Heard(said.known, False, {}, {}, {}, replaced=True)
        if said.runs is not None:
            self._runs[incarnation] = said.runs
        beat = self._beats_before[incarnation] + said.beat
        runs, lease_s = self._runs[incarnation], self._leases_s[incarnation]
        self.replicas[name] = Replica(name, incarnation, beat, said.load, said.draining, runs, lease_s)
        for give in said.gives:
            self._give(name, give)
        for mark in said.marks:
            self._mark(name, mark)
        taken = {take.key: got for take in said.takes if (got := self._take(name, take)) is not None}
        for bury in said.buries:
            self._bury(name, bury)
        for key in said.forgets:
            if key in self.leases and not self.leases[key].owner:
                self._put(key, None)
        return self._heard(said.known, taken)

    def leave(self, name: str, incarnation: str) -> None:
        row = self.replicas.get(name)
        if row is not None and row.incarnation == incarnation:
            self._remove(name)

    def _remove(self, name: str) -> None:
        del self.replicas[name]
        for key, lease in list(self.leases.items()):
            if lease.owner == name:
                self._put(key, lease._replace(token=self._number(), owner="", heir="", since_ms=self.now_ms))

    def _owned(self, name: str, key: LeaseKey, token: int) -> Lease | None:
        lease = self.leases.get(key)
        return lease if lease is not None and (lease.token, lease.owner) == (token, name) else None

    def _give(self, name: str, give: Give) -> None:
        if self._owned(name, give.key, give.token) is not None:
            heir = "" if give.finished else give.heir
            self._put(give.key, Lease(self._number(), "", heir, give.load, self.now_ms, give.finished))
            if heir in self.replicas:
                self.nudge(heir)

    def _mark(self, name: str, mark: Mark) -> None:
        lease = self._owned(name, mark.key, mark.token)
        if lease is not None:
            self._put(mark.key, lease._replace(heir=mark.heir, load=mark.load))

    def _take(self, name: str, take: Take) -> Taken | None:
        lease = self.leases.get(take.key) or Lease(0, "", "", 0.0, self.now_ms)
        if lease.token != take.token or lease.finished:
            return None
        if lease.owner not in ("", name) and self.replicas[lease.owner].beat != take.dead_beat:
            return None
        self.takes += 1
        token = self._number()
        since_ms = lease.since_ms if lease.owner == name else self.now_ms
        self._put(take.key, Lease(token, name, "", lease.load, since_ms))
        return Taken(token, self.texts.get(take.key, ""))

    def _bury(self, name: str, bury: Bury) -> None:
        row = self.replicas.get(bury.replica)
        if row is not None and bury.replica != name and row.beat == bury.beat:
            self._remove(bury.replica)

    def _heard(self, known: int, taken: dict[LeaseKey, Taken]) -> Heard:
        whole = not 0 < known <= self._numbers
        keys = self.leases if whole else self._keys[bisect_right(self._versions, known) :]
        return Heard(
            version=self._numbers,
            whole=whole,
            taken=taken,
            leases={key: self.leases.get(key) for key in keys},
            replicas=dict(self.replicas),
            steered=self.steered,
        )
