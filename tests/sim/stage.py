"""What every simulation has: a server side that outlives the daemons, the function, daemons on machines, a ledger.

A daemon is everything this program builds for one mapping: supervisor, runner, engine, failures, replays. Killing one
throws all of that away and keeps the server side. Whatever the function is given is written down, to be judged at the
end. What is read, and what of it must hold, is for the stages made of this one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

from router.core.model import (
    Cancelled,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Refused,
    Returned,
)
from router.core.retention import Retention
from router.failures.failures import Failures
from router.life import MappingLife, MappingParts, Plug
from router.ports import Codec, Invocation, Selection, Source
from router.replay.replay import Replayer
from router.supervisor import Work
from router.telemetry import Log, Metrics
from tests.fakes.destination import MemoryDestination
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import VirtualTimeLoop

NAME = "orders"
HOUR_S = 3600.0
#: Chances of the kinds of records in a hundred.
KINDS = {"good": 70, "flaky": 12, "poison": 8, "unwanted": 10}


class Lines(Log):
    """Keeps what is logged."""

    def __init__(self, lines: list[tuple[float, str, Mapping[str, object]]]) -> None:
        super().__init__()
        self._lines = lines

    def bind(self, **bound: object) -> Log:
        return self

    def write(self, event: str, **fields: object) -> None:
        self._lines.append((asyncio.get_running_loop().time(), event, fields))


@dataclass(slots=True)
class Delivery:
    """One time the function had some records."""

    request_id: str
    records: Sequence[Hashable]
    start_s: float
    end_s: float = float("inf")
    outcome: Outcome | None = None
    #: Records that this delivery finished.
    done: Sequence[Hashable] = ()


@dataclass(slots=True)
class Record:
    key: str
    number: int
    #: good | poison | flaky | unwanted
    kind: str
    #: Failures that are left of a flaky one.
    failures_left: int = 0


class Function:
    """An Invoker that writes down what is delivered."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._deliveries: dict[str, Delivery] = {}
        self._dying: set[str] = set()
        self._workers = MemoryInvoker(self._run, concurrency=3)

    def invoke(self, invocation: Invocation) -> None:
        def done(outcome: Outcome) -> None:
            delivery = self._deliveries.pop(invocation.request_id, None)
            self._dying.discard(invocation.request_id)
            if delivery:
                self._stage.end(delivery, outcome)
            invocation.done(outcome)

        self._workers.invoke(replace(invocation, done=done))

    def cancel(self, request_id: str, *, waiting_only: bool) -> None:
        if request_id not in self._deliveries:
            self._workers.cancel(request_id, waiting_only=waiting_only)
        elif not waiting_only and request_id not in self._dying:
            self._dying.add(request_id)
            loop = asyncio.get_running_loop()
            loop.call_later(self._stage.plan.killing_s, partial(self._workers.cancel, request_id, waiting_only=False))

    async def close(self) -> None:
        await self._workers.close()

    def _run(self, request_id: str, event: bytes) -> tuple[float, Outcome]:
        duration_s, outcome, delivery = self._stage.begin(request_id, event)
        if delivery:
            self._deliveries[request_id] = delivery
        return duration_s, outcome


def wanted(_: Mapping[str, object], data: bytes | None) -> bool:
    """The mapping's filter."""
    return data == b"wanted"


@dataclass
class Site:
    """What one machine keeps over the lives of its daemons."""

    store: MemoryStore = field(default_factory=MemoryStore)
    daemon: Daemon | None = None


class Daemon:
    """One life of one mapping's machinery."""

    def __init__(self, stage: Stage, site: Site, *, plug: Plug | None = None, beside: Sequence[Work] = ()) -> None:
        log, metrics = Lines(stage.lines), Metrics().of(NAME)
        rng = Random(stage.rng.getrandbits(32))
        self.replayer = Replayer(site.store, log)
        self.failures = Failures(
            NAME,
            store=site.store,
            destination=stage.destination,
            retention=Retention(undelivered_limit=stage.plan.undelivered_limit),
            batch_info=stage.codec.batch_info,
            hold=self._hold,
            metrics=metrics,
            log=log,
            wall=stage.wall,
            rng=rng,
        )
        self.function = Function(stage)
        parts = MappingParts(
            stage.mapping,
            enabled=True,
            source_name="memory:orders",
            make_source=stage.make_source,
            plug=plug or stage.plug,
            invoker=self.function,
            passes=wanted,
            keep=self.failures.keep,
            deliveries=self.failures,
        )
        self.life = MappingLife(
            parts, store=site.store, replays=self.replayer, metrics=metrics, log=log, wall=stage.wall, rng=rng
        )
        self.replayer.lives = {NAME: self.life}
        self._beside = (self.replayer.run, self.failures.run, *beside)
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(work()) for work in self._beside]
            await tasks.create_task(self.life.run())
            await self.leave()
            for task in beside:
                task.cancel()

    def _hold(self, reason: str | None) -> None:
        self.life.hold(reason)

    async def leave(self) -> None:
        """Take leave of others, once nothing of the mapping runs."""

    async def kill(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def drain(self, within_s: float) -> None:
        self.life.drain(within_s)
        await self._task


@dataclass(frozen=True)
class Plan:
    """What a simulation is made of."""

    seed: int
    mapping: EventSourceMapping
    records: int
    #: Time over which records come and faults happen.
    busy_s: float
    undelivered_limit: int
    sites: int
    #: How long it takes to kill an invocation.
    killing_s: float
    #: How often a fault happens, and how often it is looked whether all is done.
    fault_every_s: float = field(default=120.0, kw_only=True)
    look_every_s: float = field(default=HOUR_S, kw_only=True)


class Stage:
    """The server side, and the ledger."""

    codec: Codec
    plug: Plug
    #: How long an invocation may take, and how long the source may be away.
    durations_s: Sequence[float] = (0.0, 0.01, 0.2, 2.0, 25.0, 100.0)
    outages_s: Sequence[float] = (1, 30, 600)

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        #: What a daemon runs that starts now.
        self.mapping = plan.mapping
        self.rng = Random(plan.seed)
        self.destination = MemoryDestination()
        self.sites = [Site() for _ in range(plan.sites)]
        #: By what names them in events.
        self.records: dict[Any, Record] = {}
        self.deliveries: list[Delivery] = []
        self.finished: set[Any] = set()
        self.lines: list[tuple[float, str, Mapping[str, object]]] = []
        #: Times of kills, and of shards that went without a drain: each may forget the attempt in flight.
        self.interruptions: list[float] = []
        self.away = False
        self.refusing = False
        self.fixed = False
        #: How far the wall clock was put forward or back.
        self.step_s = 0.0
        self.faults: list[str] = []
        #: Records that were replayed, and so have more attempts, also behind the checkpoint.
        self.replayed: set[Any] = set()
        self.wrong: list[str] = []

    def wall(self) -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return loop.wall() + self.step_s

    def interrupt(self) -> None:
        self.interruptions.append(asyncio.get_running_loop().time())

    # --- what stages are made of

    def make_daemon(self, site: Site) -> Daemon:
        """Start a daemon on a machine."""
        return Daemon(self, site)

    def make_source(self) -> Source:
        """Connect to the server side."""
        raise NotImplementedError

    def append(self) -> None:
        """Let one record come."""
        raise NotImplementedError

    def names(self, event: bytes) -> list[Any]:
        """Name the records of an event."""
        raise NotImplementedError

    def listed(self, items: Sequence[Any]) -> set[Any]:
        """Say which records a report lists."""
        raise NotImplementedError

    def item(self, name: Any) -> object:
        """Give the itemIdentifier of a record."""
        raise NotImplementedError

    def check_delivery(self, names: Sequence[Any]) -> Iterator[str]:
        """Say what is wrong about giving the function these records now."""
        raise NotImplementedError

    async def is_done(self) -> bool:
        """Is there nothing left to do?"""
        raise NotImplementedError

    # --- the function

    def begin(self, request_id: str, event: bytes) -> tuple[float, Outcome, Delivery | None]:
        """Say how long an invocation takes and how it ends, and write down that it began."""
        if self.refusing:
            return 0.5, Refused(FunctionError("Runtime.ImportModuleError", "no module"), initialising=True), None
        names = self.names(event)
        delivery = Delivery(request_id, names, asyncio.get_running_loop().time())
        self.wrong += self.check_delivery(names)
        self.deliveries.append(delivery)
        self.wrong += [f"{each} is unwanted" for each in names if self.records[each].kind == "unwanted"]
        duration_s = self.rng.choice(self.durations_s)
        bad = [each for each in names if self._fails(self.records[each])]
        if self.fixed or not bad:
            return duration_s, Returned(None), delivery
        return duration_s, self._failure(bad), delivery

    def _fails(self, record: Record) -> bool:
        if record.kind == "flaky" and record.failures_left:
            record.failures_left -= 1
            return True
        return record.kind == "poison"

    def _failure(self, bad: Sequence[Any]) -> Outcome:
        report = [{"itemIdentifier": self.item(each)} for each in bad]
        if self.plan.mapping.report_item_failures and self.rng.random() < 0.8:
            malformed: list[Any] = [{"itemIdentifier": "?"}]
            return Returned({"batchItemFailures": report if self.rng.random() < 0.8 else malformed})
        kind = self.rng.choice((FailureKind.RAISED, FailureKind.TIMED_OUT, FailureKind.CRASHED))
        return Failed(kind, FunctionError("ValueError", "poison"))

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        """Write down how an invocation ended, and which records that finishes."""
        delivery.end_s = asyncio.get_running_loop().time()
        delivery.outcome = outcome
        if isinstance(outcome, Returned):
            items = (outcome.body or {}).get("batchItemFailures", []) if isinstance(outcome.body, dict) else []
            named = [item["itemIdentifier"] for item in items]
            if "?" not in named:
                failed = self.listed(named)
                delivery.done = [each for each in delivery.records if each not in failed]
                self.finished.update(delivery.done)

    # --- what must be true

    async def stored(self) -> set[Any]:
        """Give the records that are in stored failures."""
        found = set()
        for site in self.sites:
            for entry in await site.store.failures(Selection()):
                found |= await self._records_of(site, entry.batch.id)
        return found

    async def note_replays(self, site: Site, failure_ids: Sequence[str]) -> None:
        for failure_id in failure_ids:
            self.replayed |= await self._records_of(site, failure_id)

    async def _records_of(self, site: Site, failure_id: str) -> set[Any]:
        event = await site.store.event(failure_id)
        assert event is not None
        return set(self.names(event))

    async def is_replaying(self) -> bool:
        replaying = Selection(statuses=("replaying",))
        return any([await site.store.failures(replaying) for site in self.sites])

    def first_deliveries_out_of_order(self) -> list[str]:
        """Compare live records; what expired unseen and was replayed came after its time, as it must."""
        first: set[Any] = set()
        order: dict[str, list[int]] = defaultdict(list)
        for delivery in self.deliveries:
            for each in delivery.records:
                if each not in first and each not in self.replayed:
                    first.add(each)
                    order[self.records[each].key].append(self.records[each].number)
        return [f"{key}: {b} after {a}" for key, seen in order.items() for a, b in pairwise(seen) if b <= a]

    def overlaps(self) -> list[str]:
        by_key: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries:
            for key in {self.records[each].key for each in delivery.records}:
                by_key[key].append(delivery)
        return [
            f"{key}: {after.request_id} began at {after.start_s} while {before.request_id} ran until {before.end_s}"
            for key, deliveries in by_key.items()
            for before, after in pairwise(sorted(deliveries, key=lambda delivery: (delivery.start_s, delivery.end_s)))
            if after.start_s < before.end_s
        ]

    def tried_too_often(self) -> list[str]:
        """Compare the tries of each record in a batch of its own with the limit and the interruptions meanwhile."""
        retries = self.plan.mapping.maximum_retry_attempts
        tries: dict[Any, list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries:
            if len(delivery.records) == 1 and not delivery.done and not isinstance(delivery.outcome, Cancelled):
                tries[delivery.records[0]].append(delivery)
        violations = []
        for each, mine in tries.items():
            meanwhile = sum(mine[0].start_s <= at_s <= mine[-1].start_s for at_s in self.interruptions)
            if retries is not None and len(mine) > retries + 1 + meanwhile and each not in self.replayed:
                violations.append(f"{each} was tried {len(mine)} times, {meanwhile} interruptions meanwhile")
        return violations

    async def failures_not_served(self) -> list[str]:
        """Name stored failures that are neither delivered nor replayed, and deliveries that nobody accepted."""
        accepted = set(self.destination.ids)
        wrong = []
        for site in self.sites:
            for entry in await site.store.failures(Selection()):
                if entry.status not in ("delivered", "replayed", "failed_again"):
                    wrong.append(f"failure {entry.batch.id} is {entry.status}: {entry.delivery_error}")
                if entry.status == "delivered" and entry.batch.id not in accepted:
                    wrong.append(f"failure {entry.batch.id} was not delivered")
        return wrong

    def crashes(self) -> list[str]:
        return [f"{at_s:.1f} {line}" for at_s, event, line in self.lines if event == "mapping.crashed"]
