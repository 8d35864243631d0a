"""A fleet in virtual time with its stream, store and destination, for what is tried of failures."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import cast

from router.core.model import (
    STREAM_RULES,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Pace,
    Returned,
)
from router.core.retention import Retention
from router.core.tenant import Tenant
from router.failures.calls import share_failures
from router.failures.failures import Failures
from router.failures.outbox_lease import LeasedOutbox
from router.fleet.fleet import Fleet
from router.fleet.owners import FleetOwners
from router.life import MappingLife, MappingParts
from router.ports import FailureEntry, KeepFailure, Selection, Source
from router.replay.end import JobOver, ReplayEnd
from router.replay.replay import Replayer
from router.shard_side import plug_shards
from router.telemetry import Log, Metrics
from tests.fakes.destination import MemoryDestination
from tests.fakes.failures import entry
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.lease_table import MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.fakes.shard_stream import ShardStream, ShardStreamSource
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemoryRecord

MAPPING = "orders"
SHARDS = 4
LEASE_S = 10.0
WALL_S = 1_800_000_000.0


@dataclass
class World:
    """What outlives the replicas: the stream, the store, the table, the destination, and what the function saw."""

    seed: int = 1
    #: How long an invocation takes.
    takes_s: float = 1.0
    store: MemoryStore = field(default_factory=MemoryStore)
    destination: MemoryDestination = field(default_factory=MemoryDestination)
    retention: Retention = field(default_factory=Retention)
    #: Whose records the function refuses.
    refused: set[str] = field(default_factory=set)
    #: (failure, replica, began, ended); ended is None while it runs.
    runs: list[list[object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.table = MemoryTable(self.store)
        self.stream = ShardStream(SHARDS, now_s=self.wall)
        self.shards = list(self.stream.shards)
        self.replicas: dict[str, Replica] = {}

    def wall(self) -> float:
        return WALL_S + asyncio.get_running_loop().time()

    async def start(self, *names: str) -> list[Replica]:
        """Start replicas, and wait until each shard of the stream is with one."""
        started = [Replica(self, name) for name in names]
        self.replicas |= {each.name: each for each in started}
        await self.until(lambda: sum(len(each.shards) for each in self.living) == SHARDS)
        return started

    @property
    def living(self) -> Sequence[Replica]:
        return [each for each in self.replicas.values() if each.is_alive]

    async def keep(self, count: int) -> list[FailureEntry]:
        """Store failures of one record each, spread over the shards."""
        kept = []
        for number in range(count):
            shard = self.shards[number % SHARDS]
            name = f"f{number:03}"
            failure = entry(name, mapping=MAPPING, shard=shard, failed_at_s=WALL_S + number)
            await self.store.apply([KeepFailure(failure, self.event(name, shard, number))])
            kept.append(failure)
        return kept

    def event(self, name: str, shard: str, number: int = 0) -> bytes:
        row = MemoryRecord(shard, (1 << 64) + number, 0, f"k{number % 5}".encode(), name.encode())
        return ShardStreamSource(self.stream).codec.event([row])

    async def statuses(self) -> Counter[str]:
        return Counter(each.status for each in await self.store.failures(Selection()))

    async def until(self, fact: Callable[[], object], within_s: float = 200.0) -> None:
        async with asyncio.timeout(within_s):
            while not fact():  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)

    async def until_statuses(self, within_s: float = 300.0, **wanted: int) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while (found := await self.statuses()) != wanted:
            assert loop.time() < until_s, found
            await asyncio.sleep(0.2)

    def overlaps(self) -> list[str]:
        """Name failures that ran twice at once."""
        by_failure: dict[object, list[tuple[float, float]]] = defaultdict(list)
        for failure, _, began_s, ended_s in self.runs:
            by_failure[failure].append((began_s, float("inf") if ended_s is None else ended_s))  # type: ignore[arg-type]
        return [
            f"{failure}: {runs}"
            for failure, runs in by_failure.items()
            if any(later[0] < earlier[1] for earlier, later in zip(sorted(runs), sorted(runs)[1:], strict=False))
        ]

    def times_run(self) -> Counter[object]:
        return Counter(failure for failure, *_ in self.runs)


class Replica:
    """One daemon of the fleet."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_alive = True
        loop = asyncio.get_running_loop()
        table = world.table.of(name, lease_s=LEASE_S)
        self.peers = MemoryPeers(table)
        self.table = table
        self.store = world.store.of(name)
        rng = Random(world.rng.getrandbits(32))
        self.fleet = Fleet(
            name,
            lambda: Tenant(name, LEASE_S, rng),
            table,
            self.peers,
            log=Log(),
            rng=rng,
            clock=loop.time,
        )
        self.replayer = Replayer(self.store, Log())
        owners = FleetOwners(self.fleet)
        share_failures(self.fleet, owners, self.replayer, self.store)
        metrics = Metrics().of(MAPPING)
        self.holds: list[str | None] = []
        self.failures = Failures(
            MAPPING,
            store=self.store,
            destination=world.destination,
            retention=world.retention,
            batch_info=lambda failure, _: {"KinesisBatchInfo": {"batchSize": failure.batch_size}},
            hold=self._hold,
            metrics=metrics,
            log=Log(),
            wall=world.wall,
            rng=rng,
            lease=LeasedOutbox(self.fleet.tenure(MAPPING), owners),
        )
        self.invoker = MemoryInvoker(self._invoke)
        self.life = MappingLife(
            MappingParts(
                EventSourceMapping(
                    MAPPING,
                    "function",
                    STREAM_RULES,
                    batch_size=1,
                    maximum_retry_attempts=0,
                    pace=Pace(idle_s=1.0, busy_s=0.2),
                ),
                enabled=True,
                source_name="memory",
                make_source=lambda: cast("Source", ShardStreamSource(world.stream)),
                plug=partial(plug_shards, fleet=self.fleet),
                invoker=self.invoker,
                passes=None,
                keep=self.failures.keep,
                deliveries=self.failures,
            ),
            store=self.store,
            replays=self.replayer,
            metrics=metrics,
            log=Log(),
            wall=world.wall,
            rng=rng,
        )
        self.replayer.lives = {MAPPING: self.life}
        self._task = asyncio.ensure_future(self._run())

    def _hold(self, reason: str | None) -> None:
        self.holds.append(reason)
        self.life.hold(reason)

    def _invoke(self, _: str, event: bytes) -> tuple[float, Outcome]:
        codec = ShardStreamSource(self.world.stream).codec
        [row] = codec.parse(event).rows
        name = row.value.decode()
        loop = asyncio.get_running_loop()
        noted: list[object] = [name, self.name, loop.time(), None]
        self.world.runs.append(noted)
        takes_s = self.world.takes_s * self.world.rng.choice((0.2, 1.0, 1.0, 5.0))

        def ended() -> None:
            if noted[3] is None:
                noted[3] = loop.time()

        loop.call_later(takes_s, ended)
        error = FunctionError("ValueError", "no total")
        return takes_s, Failed(FailureKind.RAISED, error) if name in self.world.refused else Returned()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            works = (self.fleet.run, self.replayer.run, self.failures.run)
            beside = [tasks.create_task(work()) for work in works]
            await self.fleet.joined.wait()
            await tasks.create_task(self.life.run())
            await self.replayer.settle(5.0)
            beside[2].cancel()
            await asyncio.wait([beside[2]])
            await self.fleet.leave()
            for task in beside:
                task.cancel()

    @property
    def shards(self) -> Sequence[str]:
        return [each.shard for each in self.life.shards()]

    async def kill(self) -> None:
        """End its process: nothing more of it runs, and nothing is said."""
        self.is_alive = False
        self.table.fault = "it was killed"
        self.store.write_fault = self.store.read_fault = "it was killed"
        for noted in self.world.runs:
            if noted[1] == self.name and noted[3] is None:
                noted[3] = asyncio.get_running_loop().time()
        self._task.cancel()
        with suppress(asyncio.CancelledError, BaseExceptionGroup):
            await self._task

    async def stop(self) -> None:
        """Drain it."""
        self.fleet.leaving()
        self.life.drain(30.0)
        await self._task
        self.is_alive = False

    async def replay(self, *failure_ids: str) -> Counter[str]:
        job = self.replayer.start(Selection(ids=failure_ids), 0.0)
        ends: Counter[str] = Counter()
        while isinstance(end := await job.next(), ReplayEnd):
            ends[end.outcome] += 1
        assert end == JobOver(None)
        return ends


async def ended(world: World) -> None:
    for each in world.living:
        await each.kill()
