"""Which replicas live, as one of them sees it: a replica whose beat stands still for the length of a lease is dead.

Only our own monotonic clock counts, and only from when we saw the beat: it was written before we read it, so its
replica cannot have been confirmed later than that, and gives up by itself before we think so (tenant.py). The beat is
named when something is taken from the dead, so that the table refuses it if the replica has come back meanwhile.

A replica whose file has a longer lease goes on for that long, so that is waited for: while the files of a fleet change,
there are both.

After an outage of the table all beats have stood still, and mean nothing: everybody is given a whole lease anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from router.core.fleet import Replica


@dataclass(slots=True)
class _Sight:
    """What we have seen of a replica."""

    replica: Replica
    #: Since when we know this incarnation.
    since_s: float
    #: Since when its beat stands still.
    still_s: float
    dead: bool = False
    silent: bool = False


class Liveness:
    """The other replicas of a fleet."""

    def __init__(self, lease_s: float, silent_s: float) -> None:
        """Make it; who has not been heard of for `silent_s` is given nothing, and loses nothing by that."""
        self._lease_s = lease_s
        self._silent_s = silent_s
        self._seen: dict[str, _Sight] = {}
        #: Changes whenever somebody begins or ceases to live, to drain, or to run a mapping.
        self.version = 0
        #: When the next one will be dead if it does not beat; infinite = nobody.
        self.next_s = inf

    def heard(self, replicas: Iterable[Replica], now_s: float, *, anew: bool) -> None:
        """Learn what the table has of the others.

        Args:
            replicas: all of them.
            now_s: when we read it.
            anew: was the table away, so that beats have stood still for no fault of theirs?
        """
        seen, self._seen = self._seen, {}
        for replica in replicas:
            sight = seen.pop(replica.name, None)
            if sight is None or sight.replica.incarnation != replica.incarnation:
                sight = _Sight(replica, now_s, now_s)
                self.version += 1
            else:
                self._again(sight, replica, now_s, anew=anew)
            if sight.silent is not (now_s - sight.still_s > self._silent_s):
                sight.silent = not sight.silent
                self.version += 1
            self._seen[replica.name] = sight
        self.version += bool(seen)
        self._reckon()

    def _again(self, sight: _Sight, replica: Replica, now_s: float, *, anew: bool) -> None:
        before, sight.replica = sight.replica, replica
        if before.beat != replica.beat:
            sight.still_s = now_s
            if sight.dead:
                sight.dead, sight.since_s = False, now_s
                self.version += 1
        elif anew and not sight.dead:
            sight.still_s = now_s
        if before.draining is not replica.draining or (before.runs is not replica.runs and before.runs != replica.runs):
            self.version += 1

    def _reckon(self) -> None:
        self.next_s = min((self._ends_s(sight) for sight in self._seen.values() if not sight.dead), default=inf)

    def _ends_s(self, sight: _Sight) -> float:
        return sight.still_s + max(self._lease_s, sight.replica.lease_s)

    def pass_away(self, now_s: float) -> list[str]:
        """Give those who are dead from now on, each once."""
        if now_s < self.next_s:
            return []
        dead = [name for name, sight in self._seen.items() if not sight.dead and now_s >= self._ends_s(sight)]
        for name in dead:
            self._seen[name].dead = True
        self.version += bool(dead)
        self._reckon()
        return sorted(dead)

    @property
    def living(self) -> Mapping[str, Replica]:
        return {name: sight.replica for name, sight in self._seen.items() if not sight.dead}

    @property
    def talking(self) -> Mapping[str, Replica]:
        """Give those who live, as far as one can know: of whom something was heard just now."""
        return {name: each.replica for name, each in self._seen.items() if not (each.dead or each.silent)}

    @property
    def dead(self) -> Mapping[str, Replica]:
        return {name: sight.replica for name, sight in self._seen.items() if sight.dead}

    def ends_s(self, name: str) -> float:
        """Say when a replica that does not beat any more is dead."""
        return self._ends_s(self._seen[name])

    def still_s(self, name: str) -> float:
        """Say since when the beat of a replica stands still, as far as we have seen."""
        return self._seen[name].still_s

    def is_settled(self, name: str, now_s: float, after_s: float) -> bool:
        """Say whether a replica lives long enough to be relied on."""
        return now_s >= self._seen[name].since_s + after_s

    def is_witness(self, name: str, dead: str) -> bool:
        """Say whether a replica was there when a dead one was last heard of, or nearly, so that it is dead for both."""
        last = self._seen.get(dead)
        return last is None or self._seen[name].since_s <= last.still_s + self._silent_s / 2

    def buried(self, now_s: float, after_s: float) -> list[Replica]:
        """Give those that are dead for so long that nobody waits for them any more."""
        return [sight.replica for sight in self._seen.values() if sight.dead and now_s >= sight.still_s + after_s]
