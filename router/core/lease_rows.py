"""The table of leases as one replica knows it, kept up change by change: who owns what, and what that weighs.

A row counts where it is going: a lease that has an heir weighs on the heir already, so that nobody else sends the heir
something for the same room. What is finished weighs nothing and is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.core.fleet import Heard, Lease, LeaseKey
from router.core.plan import Weighed, weigh


class LeaseRows:
    """All rows, and what follows from them."""

    def __init__(self) -> None:
        self.rows: dict[LeaseKey, Lease] = {}
        #: What each replica owns; under the empty name what is free.
        self._owned: dict[str, dict[LeaseKey, Lease]] = {}
        #: What weighs on each replica.
        self.units: dict[str, int] = {}
        #: Finished shards by mapping.
        self.finished: dict[str, set[str]] = {}

    def learn(self, heard: Heard) -> list[LeaseKey]:
        """Take up what has changed, and give the keys of it."""
        gone = [key for key in self.rows if key not in heard.leases] if heard.whole else []
        for key in gone:
            self._drop(key)
        for key, lease in heard.leases.items():
            self._drop(key)
            if lease is not None:
                self._add(key, lease)
        return [*gone, *heard.leases]

    def _add(self, key: LeaseKey, lease: Lease) -> None:
        self.rows[key] = lease
        if lease.finished:
            self.finished.setdefault(key.mapping, set()).add(key.shard)
            return
        self._owned.setdefault(lease.owner, {})[key] = lease
        name = lease.heir or lease.owner
        self.units[name] = self.units.get(name, 0) + weigh(key, lease.load)

    def _drop(self, key: LeaseKey) -> None:
        lease = self.rows.pop(key, None)
        if lease is None:
            return
        if lease.finished:
            self.finished[key.mapping].discard(key.shard)
            return
        del self._owned[lease.owner][key]
        if not self._owned[lease.owner]:
            del self._owned[lease.owner]
        name = lease.heir or lease.owner
        self.units[name] -= weigh(key, lease.load)
        if not self.units[name]:  # whatever weighs on it weighs more than nothing
            del self.units[name]

    def of(self, owner: str) -> Mapping[LeaseKey, Lease]:
        """Give what a replica owns; of the empty name, what is free."""
        return self._owned.get(owner, {})

    @property
    def owners(self) -> Iterable[str]:
        """Name those who own something; the empty name is among them if something is free."""
        return self._owned.keys()

    def movable(self, owner: str) -> list[Weighed]:
        """Give what a replica owns and is not giving away already."""
        return [Weighed(weigh(key, lease.load), key) for key, lease in self.of(owner).items() if not lease.heir]
