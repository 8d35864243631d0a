"""This daemon as one replica of a fleet: carries out what the tenant decides, and tells it what happened.

One task has the exchanges with the table, one at a time; one takes what other replicas ask. Time is that of the clock
that goes on while the machine sleeps, so that a machine that wakes knows at once that its leases have run out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from random import Random
from typing import Final, TypeAlias, assert_never

from router.core import fleet as c
from router.core.lane import backoff_s
from router.core.model import OUTAGE_BACKOFF
from router.core.tenant import Tenant
from router.errors import InUse, StoreUnavailable
from router.fleet.tenure import FinishedElsewhere, Granted, LeaseChange, Lost, Revoking, Tenure
from router.ports import LeaseTable, PeerCall, Peers
from router.telemetry import FleetMetrics, Log

#: How often it is measured what our leases cost.
MEASURE_S: Final = 5.0
#: Share of a new measure in the smoothed one.
MEASURE_SHARE: Final = 0.2
#: What giving everything back may take at the end, beyond one call.
LEAVE_S: Final = 2.0

#: Answers what another replica, which is named, asks of us.
Handler: TypeAlias = Callable[[str, bytes], Awaitable[bytes]]
#: Seconds with the function so far, by lease, what runs now included.
Spent: TypeAlias = Callable[[], Mapping[c.LeaseKey, float]]


def boot_s() -> float:
    """Give the seconds since the machine was started, also those that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fleet:
    """One replica, from its first word to its last."""

    def __init__(
        self,
        name: str,
        make_tenant: Callable[[], Tenant],
        table: LeaseTable,
        peers: Peers,
        *,
        log: Log,
        rng: Random,
        spent: Spent = dict,
        reach: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = boot_s,
    ) -> None:
        """Make it.

        Args:
            name: ours.
            make_tenant: is called once we are in the table.
            table: ours.
            peers: the other replicas.
            log: takes what happens.
            rng: for pauses.
            spent: measures what our leases cost; may be set later.
            reach: is awaited before the table is entered. Raises StoreUnavailable.
            clock: monotonic, in seconds.
        """
        self.name = name
        self.table = table
        self.peers = peers
        #: Measures what our leases cost.
        self.spent = spent
        #: Called when a mapping was paused, resumed or moved by somebody.
        self.on_steered: list[Callable[[], None]] = []
        #: Called whenever the table was heard.
        self.on_heard: list[Callable[[], None]] = []
        #: Called with the name of a dead replica whose jobs fall to us.
        self.on_orphaned: list[Callable[[str], None]] = []
        #: Called once with the reason when another process has our name, and we must stop.
        self.on_ousted: list[Callable[[str], None]] = []
        #: Set while we are in the table.
        self.joined = asyncio.Event()
        #: Set once the table was heard, until we begin anew.
        self.known = asyncio.Event()
        self._make_tenant = make_tenant
        #: None before we are in the table: what is fed waits.
        self._tenant: Tenant | None = None
        self._reach = reach
        self._log = log
        self._rng = rng
        self._clock = clock
        self._facts: deque[c.TenantFact] = deque()
        self._feeding = False
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        #: Who wishes for what, and of which parts of mappings how much.
        self._tenures: dict[c.LeaseKey, Tenure] = {}
        self._of_mapping: dict[str, set[Tenure]] = {}
        self._parts: Counter[str] = Counter()
        self._said: c.Said | None = None
        self._is_to_say = asyncio.Event()
        self._has_left = False
        self._is_settled = asyncio.Event()
        self._handlers: dict[str, Handler] = {}
        #: Our own row, and when it was heard.
        self._us: c.Replica | None = None
        self._heard_s = 0.0
        #: Counts what happens; None = nobody does.
        self.metrics: FleetMetrics | None = None
        #: Why the table was not heard when it was last asked; None = it was, or was not asked yet.
        self.error: str | None = None
        self._spent_before: dict[c.LeaseKey, float] = {}
        self._loads: dict[c.LeaseKey, float] = {}

    # --- from inside the daemon

    def tenure(self, mapping: str) -> Tenure:
        """Give a part of a mapping its own view of the leases."""
        tenure = Tenure(mapping, self)
        self._of_mapping.setdefault(mapping, set()).add(tenure)
        return tenure

    def serve(self, what: str, handler: Handler) -> None:
        """Have this answer what other replicas ask under a name. What it raises is logged, and leaves them waiting."""
        self._handlers[what] = handler

    def lease(self, key: c.LeaseKey) -> c.Lease | None:
        """Give a lease as the table was last heard to have it; None = it has none."""
        return self._rows.get(key)

    def leases(self, mapping: str) -> dict[str, c.Lease]:
        """Give all leases of a mapping as last heard, by shard."""
        return {key.shard: lease for key, lease in self._rows.items() if key.mapping == mapping}

    def living(self) -> Mapping[str, c.Replica]:
        """Give the other replicas that live, as far as we know."""
        return self._tenant.liveness.living if self._tenant else {}

    def dead(self) -> Mapping[str, c.Replica]:
        """Give the replicas that are dead, and not out of the table yet."""
        return self._tenant.liveness.dead if self._tenant else {}

    def lags_s(self) -> Mapping[str, float]:
        """Say for how long each replica was not heard of; seconds."""
        if self._tenant is None:
            return {}
        now_s, liveness = self._clock(), self._tenant.liveness
        lags = {name: now_s - liveness.still_s(name) for name in (*liveness.living, *liveness.dead)}
        return {self.name: now_s - self._heard_s, **lags}

    def all_leases(self) -> Mapping[c.LeaseKey, c.Lease]:
        """Give all leases as last heard."""
        return self._rows

    def owned(self) -> int:
        """Count the leases that are ours, as last heard."""
        return len(self._tenant.leases.of(self.name)) if self._tenant else 0

    def us(self) -> c.Replica | None:
        """Give our own row as last heard; None = we are not in the table."""
        return self._us

    @property
    def _rows(self) -> Mapping[c.LeaseKey, c.Lease]:
        return self._tenant.leases.rows if self._tenant else {}

    def leaving(self) -> None:
        """Say that we are stopping: what is released goes to others, and nothing more is taken."""
        self.feed(c.Leaving())

    async def leave(self) -> None:
        """Go out of the table, once nothing of ours runs; what is not given back by then is free at once."""
        if not self.joined.is_set():
            return
        try:
            async with asyncio.timeout(LEAVE_S):
                # The one that is under way, and one that gives what was released meanwhile.
                for _ in range(2):
                    if self._said is not None:
                        self._is_settled.clear()
                        await self._is_settled.wait()
                # An exchange that comes behind it would put us into the table again.
                self._has_left = True
                await self.table.leave()
        except (StoreUnavailable, TimeoutError) as error:
            self._log.write("fleet.not_left", error=str(error) or "no answer in time")

    async def run(self) -> None:
        """Be a replica until cancelled, or until another process has our name."""
        self._begin_anew()
        try:
            await self._join()
        except InUse as error:
            self._ousted(str(error))
            return
        self._go_on()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._measure())
            tasks.create_task(self._take_calls(tasks))
            try:
                await self._exchange()
            finally:
                if self._timer:
                    self._timer.cancel()

    def _begin_anew(self) -> None:
        """Be one that has nothing, and wishes for what is wished for: a bug may have ended what was before."""
        self._tenant = None
        self._said = None
        self.joined.clear()
        self.known.clear()
        for key, tenure in list(self._tenures.items()):
            if tenure.has(key.shard):
                tenure.tell(Lost(key.shard))
        self._facts = deque([c.Runs(frozenset(+self._parts)), *map(c.Wished, self._tenures)])

    @property
    def expires_s(self) -> float:
        """Time of our clock at which all that we own is lost unless it is confirmed before; infinite = nothing is."""
        return inf if self._tenant is None else self._tenant.expires_s

    # --- from tenures

    def feed(self, fact: c.TenantFact) -> None:
        """Tell the tenant something; what it commands is done before this returns, unless it is already at it."""
        self._facts.append(fact)
        match fact:
            case c.Wished(key):
                self._count(key, 1)
            case c.Released() if self.metrics:
                self.metrics.given.inc()
            case c.Unwished(key):
                self._tenures.pop(key, None)
                self._count(key, -1)
        self._go_on()

    def _go_on(self) -> None:
        if self._feeding or self._tenant is None:
            return
        self._feeding = True
        try:
            while self._facts:
                for command in self._tenant.feed(self._facts.popleft(), self._clock()):
                    self._do(command)
        finally:
            self._feeding = False

    def look(self) -> None:
        """Lose what has run out by the clock, if something has."""
        if self._clock() >= self.expires_s:
            self.feed(c.Due())

    def left(self, tenure: Tenure) -> None:
        """Forget a tenure that wishes for nothing any more."""
        tenures = self._of_mapping.get(tenure.mapping, set())
        tenures.discard(tenure)
        if not tenures:
            self._of_mapping.pop(tenure.mapping, None)

    def wished(self, tenure: Tenure, shard: str) -> None:
        """Learn who hears of a lease from now on."""
        self._tenures[c.LeaseKey(tenure.mapping, shard)] = tenure

    def _count(self, key: c.LeaseKey, change: int) -> None:
        part = c.part(key)
        before = self._parts[part]
        self._parts[part] += change
        if bool(before) is not bool(self._parts[part]):
            self._facts.append(c.Runs(frozenset(+self._parts)))

    # --- commands

    def _do(self, command: c.TenantCommand) -> None:  # noqa: C901, PLR0912 - one line a command
        match command:
            case c.Exchange(said):
                self._said = said
                self._is_to_say.set()
            case c.Grant(key, taken):
                if self.metrics:
                    self.metrics.taken.inc()
                self._tell(key, Granted(key.shard, taken.text, taken.token))
            case c.Revoke(key):
                self._tell(key, Revoking(key.shard))
            case c.Lose(key, why):
                if self.metrics:
                    self.metrics.lost.inc()
                self._log.write("lease.lost", mapping=key.mapping, shard=key.shard, why=why)
                self._tell(key, Lost(key.shard))
            case c.Finished(mapping, shards):
                for tenure in list(self._of_mapping.get(mapping, ())):
                    tenure.tell(FinishedElsewhere(shards))
            case c.Orphaned(replica, ours):
                self._log.write("replica.died", replica=replica)
                for orphaned in self.on_orphaned if ours else ():
                    orphaned(replica)
            case c.Steered():
                for steered in self.on_steered:
                    steered()
            case c.Ousted():
                self._ousted(
                    f"another process is replica {self.name} of this fleet now: give each replica its own name"
                )
            case c.WakeAt(mono_s):
                self._wake_at(mono_s)
            case c.Note(event, fields):
                self._log.write(event, **fields)
            case _:
                assert_never(command)

    def _tell(self, key: c.LeaseKey, change: LeaseChange) -> None:
        tenure = self._tenures.get(key)
        if tenure is not None:
            tenure.tell(change)
        elif isinstance(change, Granted):  # not wished for any more
            self._facts.append(c.Released(key))

    def _ousted(self, why: str) -> None:
        self._log.write("fleet.ousted", error=why)
        for ousted in self.on_ousted:
            ousted(why)

    def _wake_at(self, mono_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
        self._timer = loop.call_later(max(0.0, mono_s - self._clock()), self.feed, c.Due())

    # --- the table

    async def _join(self) -> None:
        attempt = 0
        while True:
            try:
                if self._reach:
                    await self._reach()
                await self.table.join()
            except StoreUnavailable as error:
                self.error = str(error)
                wait_s = backoff_s(OUTAGE_BACKOFF, attempt, self._rng)
                self._log.write("fleet.waiting", error=str(error), retry_in_s=round(wait_s, 1))
                attempt += 1
                await asyncio.sleep(wait_s)
            else:
                self.error = None
                self._tenant = self._make_tenant()
                self.joined.set()
                self._log.write("fleet.joined", replica=self.name)
                return

    async def _exchange(self) -> None:
        while True:
            await self._is_to_say.wait()
            self._is_to_say.clear()
            if self._has_left:
                return
            said = self._said
            assert said is not None, "set with the event"
            sent_s = self._clock()
            try:
                heard = await self.table.exchange(said)
            except StoreUnavailable as error:
                self.error = str(error)
                fact: c.TenantFact = c.Unanswered(self.error)
            else:
                self.error = None
                fact = c.Answered(sent_s, heard)
                self._us, self._heard_s = heard.replicas.get(self.name), sent_s
            if self.metrics:
                self.metrics.exchanged(self._clock() - sent_s, answered=isinstance(fact, c.Answered))
            self._said = None
            self.feed(fact)
            if isinstance(fact, c.Answered):
                self.known.set()
                for heard_it in self.on_heard:
                    heard_it()
            self._is_settled.set()

    # --- what others ask

    async def _take_calls(self, tasks: asyncio.TaskGroup) -> None:
        attempt = 0
        while True:
            try:
                async for call in self.peers.calls():
                    attempt = 0
                    if call is None:
                        self.feed(c.Nudged())
                    else:
                        tasks.create_task(self._answer(call))
            except StoreUnavailable:
                await asyncio.sleep(backoff_s(OUTAGE_BACKOFF, attempt, self._rng))
                attempt += 1
            else:
                return

    async def _answer(self, call: PeerCall) -> None:
        handler = self._handlers.get(call.what)
        try:
            # A replica of another version may ask what we know nothing of: an empty answer says so.
            await call.answer(await handler(call.replica, call.body) if handler else b"")
        except StoreUnavailable as error:
            self._log.write("peer.not_answered", replica=call.replica, what=call.what, error=str(error))
        except Exception as bug:  # noqa: BLE001 - one call must not end the others
            self._log.write("peer.not_answered", replica=call.replica, what=call.what, error=repr(bug))

    # --- what it costs

    async def _measure(self) -> None:
        before_s = self._clock()
        while True:
            await asyncio.sleep(MEASURE_S)
            now_s = self._clock()
            self.feed(c.Measured(self._smoothed(max(now_s - before_s, 0.001))))
            before_s = now_s

    def _smoothed(self, elapsed_s: float) -> Mapping[c.LeaseKey, float]:
        """Give the share of time with the function of each lease that has a tenure, smoothed."""
        spent = dict(self.spent())
        loads = {}
        for key, tenure in self._tenures.items():
            if tenure.has(key.shard):
                before = self._spent_before.get(key, 0.0)
                now = spent.get(key, 0.0)
                # A new run counts from nothing again.
                share = (now - before if now >= before else now) / elapsed_s
                known = self._loads.get(key)
                loads[key] = share if known is None else known + MEASURE_SHARE * (share - known)
        self._spent_before, self._loads = spent, loads
        return loads
