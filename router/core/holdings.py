"""The leases that are one replica's own, from the answer that says so until the table has them as another's.

A lease is held, then asked back from whoever works by it (revoked), then released: nothing of it runs any more, and it
is only ours to give away. A row that has us as owner although we do not hold it is a stray: of a former process of
ours, or from an answer that came too late. Strays are taken anew before they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

from router.core.fleet import Give, Lease, LeaseKey, Mark, Take, Taken
from router.core.lease_rows import LeaseRows
from router.core.plan import weigh

#: What a lease costs is told when it has changed by this share, or when the sum over all has by the other: a shard that
#: wobbles does not make every replica plan anew.
TOLD_SHARE: Final = 0.25
SUM_SHARE: Final = 0.1
#: So many are told at once: this many, or this share of what is measured.
TOLD: Final = 32
TOLD_MOST_SHARE: Final = 0.1


class _Phase(Enum):
    HELD = "held"
    REVOKED = "revoked"
    RELEASED = "released"


@dataclass(slots=True)
class _Holding:
    """A lease that is ours."""

    token: int
    #: What it was measured to cost.
    load: float
    #: It came from another replica, and is not moved on until then.
    rests_until_s: float
    phase: _Phase = _Phase.HELD
    heir: str = ""
    finished: bool = False


class Holdings:
    """What is ours."""

    def __init__(self, name: str, rows: LeaseRows) -> None:
        self._name = name
        self._rows = rows
        self._all: dict[LeaseKey, _Holding] = {}
        #: Those of them that are revoked, and those that are released.
        self._revoked: dict[LeaseKey, None] = {}
        self._released: dict[LeaseKey, None] = {}
        #: Strays, and since when.
        self._strays: dict[LeaseKey, float] = {}
        #: Loads to be told.
        self._loads: dict[LeaseKey, float] = {}

    # --- what there is

    def __len__(self) -> int:
        return len(self._all)

    def held(self) -> Mapping[LeaseKey, int]:
        """Give the tokens of what may still be used."""
        return {key: each.token for key, each in self._all.items() if each.phase is not _Phase.RELEASED}

    def token(self, key: LeaseKey) -> int | None:
        """Give the token of a lease that may still be used."""
        holding = self._all.get(key)
        return None if holding is None or holding.phase is _Phase.RELEASED else holding.token

    @property
    def is_used(self) -> bool:
        """Say whether anything may still be used."""
        return len(self._all) > len(self._released)

    @property
    def revoked_count(self) -> int:
        return len(self._revoked)

    @property
    def released_count(self) -> int:
        return len(self._released)

    def may_move(self, key: LeaseKey, now_s: float) -> bool:
        holding = self._all.get(key)
        return holding is not None and holding.phase is _Phase.HELD and now_s >= holding.rests_until_s

    # --- what happens to it

    def hold(self, key: LeaseKey, taken: Taken, rests_until_s: float) -> bool:
        """Have a lease from now on, unless the table knows better already."""
        row = self._rows.rows.get(key)
        if row is None or row.owner != self._name or row.token != taken.token:
            return False
        self._strays.pop(key, None)
        self._all[key] = _Holding(taken.token, row.load, rests_until_s)
        return True

    def revoke(self, key: LeaseKey, heir: str) -> None:
        holding = self._all[key]
        holding.phase, holding.heir = _Phase.REVOKED, heir
        self._revoked[key] = None

    def release(self, key: LeaseKey, *, finished: bool) -> bool:
        """Learn that nothing runs of a lease any more; say whether it was in use until now."""
        if self.token(key) is None:
            return False
        holding = self._all[key]
        holding.phase, holding.finished = _Phase.RELEASED, finished
        self._revoked.pop(key, None)
        self._released[key] = None
        return True

    def learn(self, keys: Iterable[LeaseKey], now_s: float) -> list[tuple[LeaseKey, str]]:
        """Look at rows that have changed; give what of ours was in use and is lost, with why."""
        lost = []
        for key in keys:
            row = self._rows.rows.get(key)
            is_ours = row is not None and row.owner == self._name and not row.finished
            holding = self._all.get(key)
            if holding is not None and not (row is not None and is_ours and row.token == holding.token):
                if self._drop(key).phase is not _Phase.RELEASED:
                    lost.append((key, _why(row)))
                holding = None
            if is_ours and holding is None:
                self._strays.setdefault(key, now_s)
            else:
                self._strays.pop(key, None)
        return lost

    def is_finishing(self, key: LeaseKey) -> bool:
        """Say whether we have said ourselves that the shard is finished."""
        holding = self._all.get(key)
        return holding is not None and holding.finished

    def lose_all(self, now_s: float) -> list[LeaseKey]:
        """Have nothing from now on; give what was in use."""
        lost = [key for key, each in self._all.items() if each.phase is not _Phase.RELEASED]
        self._strays.update(dict.fromkeys(self._all, now_s))
        for each in (self._all, self._revoked, self._released):
            each.clear()
        return lost

    def _drop(self, key: LeaseKey) -> _Holding:
        self._revoked.pop(key, None)
        self._released.pop(key, None)
        return self._all.pop(key)

    def measured(self, loads: Mapping[LeaseKey, float]) -> None:
        """Learn what leases cost, and note what the table has wrong by much; the worst first."""
        wrong: list[tuple[int, LeaseKey]] = []
        total = 0
        for key, load in loads.items():
            if key in self._all and key in self._rows.rows:
                self._all[key].load = load
                known = weigh(key, self._rows.rows[key].load)
                total += known
                wrong.append((abs(weigh(key, load) - known), key))
        off = sum(difference for difference, _ in wrong)
        self._loads = {}
        for difference, key in sorted(wrong, reverse=True)[: max(TOLD, int(len(wrong) * TOLD_MOST_SHARE))]:
            if difference <= TOLD_SHARE * weigh(key, self._rows.rows[key].load) and off <= SUM_SHARE * total:
                break
            off -= difference
            self._loads[key] = loads[key]

    # --- what the table is told

    def marks(self) -> list[Mark]:
        """Say to whom what is revoked goes, unless the table knows, and what it costs."""
        marks = []
        for key in self._revoked:
            holding = self._all[key]
            if self._rows.rows[key].heir != holding.heir:
                marks.append(Mark(key, holding.token, holding.heir, holding.load))
        for key, load in self._loads.items():
            each = self._all.get(key)
            if each is not None and each.phase is _Phase.HELD:
                marks.append(Mark(key, each.token, "", load))
        self._loads = {}
        return marks

    def given(self, limit: int) -> list[Give]:
        """Give back what is released, to whom it is meant for; until the table has it as another's."""
        return [
            Give(key, each.token, each.heir, each.load, each.finished)
            for key in islice(self._released, limit)
            for each in [self._all[key]]
        ]

    def wasted(self, before_s: float, limit: int) -> list[Give]:
        """Give back strays that are so old."""
        strays = (key for key, since_s in self._strays.items() if since_s <= before_s)
        return [Give(key, row.token, "", row.load) for key in islice(strays, limit) for row in [self._rows.rows[key]]]

    def retaken(self, wished: Iterable[LeaseKey] | Mapping[LeaseKey, object]) -> list[Take]:
        """Take strays anew that are wished for."""
        return [Take(key, self._rows.rows[key].token) for key in self._strays if key in wished]


def _why(row: Lease | None) -> str:
    if row is None:
        return "the table does not have it any more"
    return f"{row.owner or 'nobody'} has it now"
