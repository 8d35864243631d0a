"""A table of leases in memory that several replicas share, with scripted faults. It runs on a loop of virtual time.

store = MemoryStore()
table = MemoryTable(store)
a, b = table.of("a"), table.of("b")
await a.join()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from router.core.fleet import Bury, Give, Heard, Lease, LeaseKey, Mark, Replica, Said, Take, Taken
from router.errors import InUse, StoreUnavailable
from router.ports import Holds
from tests.fakes.peers import Inbox
from tests.fakes.store import MemoryStore


@dataclass
class Row:
    """A replica as the table keeps it, and who has put it there."""

    replica: Replica
    process: MemoryLeaseTable


class MemoryTable:
    """What the replicas share. `store` is the one whose `Holds` it answers, and whose texts it hands out."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.store.is_held = self.is_held
        self.leases: dict[LeaseKey, Lease] = {}
        self.rows: dict[str, Row] = {}
        self.texts: dict[str, str] = {}
        self.steered = 0
        #: While set, nobody reaches it, and all hear this.
        self.fault: str | None = None
        self._numbers = 0
        self._incarnations = 0
        #: When each key was changed last, by version; those that are no more are in it too.
        self._changed: dict[LeaseKey, int] = {}
        #: The oldest version of which is known what has changed since.
        self._oldest = 0

    def of(self, name: str, *, home: str | None = None, lease_s: float = 30.0) -> MemoryLeaseTable:
        """Give the table as this replica uses it; its home is the name unless said otherwise."""
        return MemoryLeaseTable(self, name, name if home is None else home, lease_s)

    def is_held(self, holds: Holds) -> bool:
        lease = self.leases.get(LeaseKey(holds.mapping, holds.shard))
        return lease is not None and lease.token == holds.token

    def forget_changes(self) -> None:
        """Forget what was changed when: who asks next is told the whole table."""
        self._changed = {key: number for key, number in self._changed.items() if key in self.leases}
        self._oldest = self._number()

    def nudge(self, name: str) -> None:
        if name in self.rows:
            self.rows[name].process.inbox.nudge()

    # --- what MemoryLeaseTable does to it

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _incarnation(self) -> str:
        self._incarnations += 1
        return f"incarnation-{self._incarnations}"

    def _put(self, key: LeaseKey, lease: Lease | None) -> None:
        if lease is None:
            del self.leases[key]
        else:
            self.leases[key] = lease
        self._changed[key] = self._number()

    def _free(self, key: LeaseKey) -> None:
        self._put(key, self.leases[key]._replace(token=self._number(), owner="", heir="", since_ms=_now_ms()))

    def _remove(self, name: str) -> None:
        self.rows.pop(name).process.inbox.end()
        self.texts.pop(name, None)
        for key, lease in list(self.leases.items()):
            if lease.owner == name:
                self._free(key)

    def _give(self, us: str, give: Give) -> None:
        lease = self.leases.get(give.key)
        if lease is None or (lease.token, lease.owner) != (give.token, us):
            return
        heir = "" if give.finished else give.heir
        self._put(give.key, Lease(self._number(), "", heir, give.load, _now_ms(), give.finished))
        self.nudge(heir)

    def _mark(self, us: str, mark: Mark) -> None:
        lease = self.leases.get(mark.key)
        if lease is not None and (lease.token, lease.owner) == (mark.token, us):
            self._put(mark.key, lease._replace(heir=mark.heir, load=mark.load))

    def _take(self, us: str, take: Take) -> Taken | None:
        lease = self.leases.get(take.key) or Lease(0, "", "", 0.0, _now_ms())
        if lease.token != take.token or lease.finished or not self._may_take(us, lease, take.dead_beat):
            return None
        since_ms = lease.since_ms if lease.owner == us else _now_ms()
        token = self._number()
        self._put(take.key, Lease(token, us, "", lease.load, since_ms))
        return Taken(token, self.store.texts.get((take.key.mapping, f"shard:{take.key.shard}"), ""))

    def _may_take(self, us: str, lease: Lease, dead_beat: int | None) -> bool:
        if lease.owner in ("", us):
            return True
        return self.rows[lease.owner].replica.beat == dead_beat

    def _bury(self, us: str, bury: Bury) -> None:
        row = self.rows.get(bury.replica)
        if row is not None and bury.replica != us and row.replica.beat == bury.beat:
            self._remove(bury.replica)

    def _forget(self, key: LeaseKey) -> None:
        if key in self.leases and not self.leases[key].owner:
            self._put(key, None)

    def _heard(self, known: int, taken: Mapping[LeaseKey, Taken]) -> Heard:
        whole = known == 0 or not self._oldest <= known <= self._numbers
        changed = self.leases if whole else [key for key, number in self._changed.items() if number > known]
        return Heard(
            version=self._numbers,
            whole=whole,
            taken=taken,
            leases={key: self.leases.get(key) for key in changed},
            replicas={name: row.replica for name, row in self.rows.items()},
            steered=self.steered,
        )


class MemoryLeaseTable:
    """The table as one replica uses it. Passes the conformance suite of the LeaseTable port."""

    def __init__(self, table: MemoryTable, name: str, home: str, lease_s: float) -> None:
        self.table = table
        self.name = name
        self.home = home
        self.lease_s = lease_s
        self.incarnation = ""
        #: While set, this replica alone does not reach the table.
        self.fault: str | None = None
        #: So many answers of exchanges will be lost, after they were applied.
        self.answers_to_lose = 0
        #: Time on the way to the table, and as long on the way back.
        self.delay_s = 0.0
        #: Everything said, in order.
        self.said: list[Said] = []
        #: What waits for this incarnation.
        self.inbox = Inbox()
        self._beats_before = 0
        self._runs: frozenset[str] = frozenset()

    def check(self) -> None:
        """Raise StoreUnavailable while this replica does not reach the table."""
        fault = self.table.fault or self.fault
        if fault:
            raise StoreUnavailable(fault)

    async def join(self) -> None:
        await self._travel()
        row = self.table.rows.get(self.name)
        if row is not None and row.process.home != self.home:
            await self._watch(row.replica)
        before = self.table.rows.get(self.name)
        self.incarnation = self.table._incarnation()
        self._beats_before = before.replica.beat + 1 if before else 0
        if before:
            before.process.inbox.end()
        replica = Replica(self.name, self.incarnation, self._beats_before, 0.0, draining=False, runs=frozenset())
        self.inbox = Inbox()
        self.table.rows[self.name] = Row(replica, self)

    async def _watch(self, other: Replica) -> None:
        """Wait for a lease, and see whether somebody lives under our name."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + max(self.lease_s, other.lease_s)
        while loop.time() < until_s:
            await asyncio.sleep(self.lease_s / 10)
            await self._travel()
            row = self.table.rows.get(self.name)
            if row is None:
                return
            if (row.replica.incarnation, row.replica.beat) != (other.incarnation, other.beat):
                raise InUse(f"another process is replica {self.name} and lives; its home is {row.process.home}")

    async def exchange(self, said: Said) -> Heard:
        await self._travel()
        self.said.append(said)
        heard = self._exchange(said)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise StoreUnavailable("the answer was lost")
        await self._travel()
        return heard

    def _exchange(self, said: Said) -> Heard:
        table = self.table
        row = table.rows.get(self.name)
        if row is not None and row.replica.incarnation != self.incarnation:
            return Heard(said.known, False, {}, {}, {}, replaced=True)
        self._runs = self._runs if said.runs is None else said.runs
        beat = self._beats_before + said.beat
        if row is not None and row.replica.beat > beat:
            raise StoreUnavailable("a later exchange overtook this one")
        replica = Replica(self.name, self.incarnation, beat, said.load, said.draining, self._runs, self.lease_s)
        table.rows[self.name] = Row(replica, self)
        for give in said.gives:
            table._give(self.name, give)
        for mark in said.marks:
            table._mark(self.name, mark)
        taken = {take.key: got for take in said.takes if (got := table._take(self.name, take)) is not None}
        for bury in said.buries:
            table._bury(self.name, bury)
        for key in said.forgets:
            table._forget(key)
        return table._heard(said.known, taken)

    async def look(self) -> Heard:
        await self._travel()
        return self.table._heard(0, {})

    async def describe(self, about: str) -> None:
        await self._travel()
        self.table.texts[self.name] = about

    async def abouts(self) -> Mapping[str, str]:
        await self._travel()
        return dict(self.table.texts)

    async def steered(self) -> None:
        await self._travel()
        self.table.steered += 1
        for name in self.table.rows:
            self.table.nudge(name)

    async def leave(self) -> None:
        await self._travel()
        row = self.table.rows.get(self.name)
        if row is not None and row.replica.incarnation == self.incarnation:
            self.table._remove(self.name)
        await self._travel()

    async def _travel(self) -> None:
        await asyncio.sleep(self.delay_s)
        self.check()


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
