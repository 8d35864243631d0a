"""What nobody has, and which of it we are to take.

Each such lease has one replica that is to take it, by the plan or because its last owner named an heir. The others wait
a while: a hundred replicas do not run for one shard. If it is not taken (its replica does not know of the shard yet, or
has just died) one more may after each wait, until somebody does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.core.fleet import Lease, LeaseKey, Take, part
from router.core.lease_rows import LeaseRows
from router.core.liveness import Liveness
from router.core.plan import Runs, Weighed, assign, rendezvous, weigh


class Openings:
    """The leases that somebody could take, and since when we see them."""

    def __init__(self, name: str, leases: LeaseRows, liveness: Liveness, patience_s: float, stale_s: float) -> None:
        """Make it.

        Args:
            name: ours.
            leases: the table.
            liveness: who lives.
            patience_s: how long a lease is left to whom it is meant for.
            stale_s: how long we count on others to take one that we do not wish for.
        """
        self._name = name
        self._leases = leases
        self._liveness = liveness
        self._patience_s = patience_s
        self._stale_s = stale_s
        #: Since when nobody has them.
        self._since_s: dict[LeaseKey, float] = {}
        #: Wished for by us, and not in the table.
        self._unlisted: set[LeaseKey] = set()
        self.wished: set[LeaseKey] = set()
        #: What of the last takes was meant for others, which have not taken it, and for whom.
        self.helped: dict[LeaseKey, str] = {}

    def wish(self, key: LeaseKey) -> None:
        self.wished.add(key)
        if key not in self._leases.rows:
            self._unlisted.add(key)

    def unwish(self, key: LeaseKey) -> None:
        self.wished.discard(key)
        self._unlisted.discard(key)

    def changed(self, keys: Iterable[LeaseKey]) -> None:
        """Learn which rows have changed."""
        for key in keys:
            if key in self._leases.rows:
                self._unlisted.discard(key)
            elif key in self.wished:
                self._unlisted.add(key)

    def is_unsettled(self, now_s: float) -> bool:
        """Say whether something is likely to be taken soon."""
        return any(key in self.wished or now_s < since_s + self._stale_s for key, since_s in self._since_s.items())

    def look(self, runs: Runs, now_s: float) -> None:
        """See anew what nobody has that one of the replicas which may take leases runs."""
        parts = frozenset().union(*runs.values())
        before = self._since_s
        self._since_s = {
            key: before.get(key, now_s)
            for keys in (self._unlisted, *(self._leases.of(owner) for owner in self._ownerless()))
            for key in keys
            if part(key) in parts
        }

    def _ownerless(self) -> list[str]:
        living = self._liveness.living
        return [owner for owner in self._leases.owners if owner != self._name and owner not in living]

    def units(self, runs: Runs, now_s: float) -> dict[str, int]:
        """Give what weighs on each replica; what is open weighs on an heir only as long as that is waited for."""
        units = {name: self._leases.units.get(name, 0) for name in runs}
        for key, since_s in self._since_s.items():
            lease = self._leases.rows.get(key)
            if lease is not None and lease.heir in units and not self._awaits_heir(lease, key, since_s, runs, now_s):
                units[lease.heir] -= weigh(key, lease.load)
        return units

    def takes(self, runs: Runs, now_s: float) -> list[Take]:
        """Give what we are to take now.

        Args:
            runs: the parts of mappings of each replica that may take leases.
            now_s: the time.
        """
        self.helped = {}
        if not self._since_s or self._name not in runs:
            return []
        planned: dict[str, list[Weighed]] = {}
        chosen: list[LeaseKey] = []
        for key, since_s in self._since_s.items():
            lease = self._leases.rows.get(key)
            is_wished = key in self.wished
            if lease is not None and self._awaits_heir(lease, key, since_s, runs, now_s):
                if lease.heir == self._name and is_wished:
                    chosen.append(key)
            elif is_wished or now_s < since_s + self._stale_s:
                owner = lease.owner if lease else ""
                planned.setdefault(owner, []).append(Weighed(weigh(key, lease.load if lease else 0.0), key))
        for key, taker in self._assign(planned, runs, now_s).items():
            if key not in self.wished:
                continue
            if taker == self._name:
                chosen.append(key)
            elif self._may_help(key, taker, runs, now_s):
                chosen.append(key)
                self.helped[key] = taker
        return [self._take(key) for key in chosen]

    def _assign(self, planned: Mapping[str, list[Weighed]], runs: Runs, now_s: float) -> dict[LeaseKey, str]:
        """Plan who is to take what is free, and what each of the dead had: of those, who knows that it is dead.

        One that has joined since then counts a whole lease from its own first sight, and has the least load of all.
        """
        units = self.units(runs, now_s)
        assigned: dict[LeaseKey, str] = {}
        for owner in sorted(planned):
            witnesses = {
                name: parts
                for name, parts in runs.items()
                if not owner or name == self._name or self._liveness.is_witness(name, owner)
            }
            taken = assign(planned[owner], {name: units[name] for name in witnesses}, witnesses)
            weights = {lease.key: lease.units for lease in planned[owner]}
            for key, name in taken.items():
                units[name] += weights[key]
            assigned |= taken
        return assigned

    def _awaits_heir(self, lease: Lease, key: LeaseKey, since_s: float, runs: Runs, now_s: float) -> bool:
        """Say whether a lease is left to whom its last owner has given it."""
        if lease.owner or not lease.heir:
            return False
        return now_s < since_s + self._patience_s and part(key) in runs.get(lease.heir, ())

    def _may_help(self, key: LeaseKey, taker: str, runs: Runs, now_s: float) -> bool:
        """Say whether it has waited so long that we may take it although it was meant for another."""
        waits = int((now_s - self._since_s[key]) / self._patience_s)
        if not waits:
            return False
        of = part(key)
        able = [name for name, parts in runs.items() if of in parts and name != taker]
        return self._name in rendezvous(f"{key.mapping}/{key.shard}", able)[:waits]

    def _take(self, key: LeaseKey) -> Take:
        lease = self._leases.rows.get(key)
        if lease is None:
            return Take(key, 0)
        dead = self._liveness.dead.get(lease.owner)
        return Take(key, lease.token, dead.beat if dead else None)
