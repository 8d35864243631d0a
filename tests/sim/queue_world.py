"""A queue, its function and the daemons that carry it, in virtual time; and what must be true of all deliveries.

The server side here is the queue, and the dead-letter queue of its own redrive policy.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from router.core.model import Chunk
from router.core.queues import QueueEngine
from router.errors import SourceUnavailable
from router.ports import Source
from router.queue_side import plug_queue
from tests.fakes.queue_source import MemoryQueue, MemoryQueueCodec, MemoryQueueSource, Redrive
from tests.machines.queue_world import leftovers
from tests.sim.stage import KINDS, Delivery, Plan, Record, Stage


@dataclass(frozen=True)
class QueuePlan(Plan):
    fifo: bool
    lease_s: float
    #: Receives after which the queue moves a message away; None = never.
    maximum_receives: int | None


class Server(MemoryQueue):
    """The queue, which sees to it that nothing is deleted too early."""

    def __init__(self, world: QueueWorld, plan: QueuePlan) -> None:
        redrive = Redrive(world.dead, plan.maximum_receives) if plan.maximum_receives else None
        super().__init__(
            fifo=plan.fifo,
            lease_s=plan.lease_s,
            redrive=redrive,
            wall=world.wall,
            shuffle=None if plan.fifo else world.rng,
        )
        self._world = world

    def delete(self, receipt: str) -> str | None:
        before = len(self.deleted)
        why_not = super().delete(receipt)
        self._world.wrong += [
            f"{name} was deleted at {at_s:.1f} although it was not done"
            for at_s, name in self.deleted[before:]
            if not self._world.is_over(name)
        ]
        return why_not


class QueueWire(MemoryQueueSource):
    """A connection that fails while the source is away."""

    def __init__(self, world: QueueWorld) -> None:
        super().__init__(world.queue, latency_s=0.02)
        self._world = world
        world.sources.append(self)

    async def open(self) -> None:
        self._reach()
        await super().open()

    async def receive(self, limit: int, wait_s: float) -> Chunk:
        self._reach()
        chunk = await super().receive(limit, wait_s)
        self._reach()
        return chunk

    async def delete(self, rows: Sequence[Any]) -> Mapping[int, str]:
        self._reach()
        failed = await super().delete(rows)
        self._reach()
        return failed

    async def extend(self, rows: Sequence[Any], lease_s: int) -> Mapping[int, str]:
        self._reach()
        return await super().extend(rows, lease_s)

    async def close(self) -> None:
        await super().close()
        if self in self._world.sources:
            self._world.sources.remove(self)

    def _reach(self) -> None:
        if self._world.away:
            raise SourceUnavailable("connection refused")


class QueueWorld(Stage):
    """The server side, and the ledger; records are named by their message ids."""

    codec = MemoryQueueCodec("orders")
    plug = staticmethod(plug_queue)
    #: No longer than a lease: a handler must be done before it ends.
    durations_s = (0.0, 0.01, 0.2, 2.0, 25.0)

    def __init__(self, plan: QueuePlan) -> None:
        super().__init__(plan)
        self.fifo = plan.fifo
        #: A machine whose leases cannot be extended for long cannot keep its messages from another one.
        self.needs_leases = plan.fifo and plan.sites > 1
        self.outages_s = (1, 5) if self.needs_leases else (1, 30, 600)
        self.dead = MemoryQueue("dead", fifo=plan.fifo, wall=self.wall)
        self.queue = Server(self, plan)
        self.sources: list[QueueWire] = []
        #: Messages that went with their queue.
        self.purged: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self._groups: dict[str, list[str]] = defaultdict(list)
        self._stored: dict[str, frozenset[str]] = {}

    def make_source(self) -> Source:
        return QueueWire(self)

    def append(self) -> None:
        key = f"k{self.rng.randrange(7)}"
        kinds = {**KINDS, "poison": 0} if self._endless else KINDS
        [kind] = self.rng.choices(list(kinds), list(kinds.values()))
        if self.queue.gone:
            return
        self._numbers[key] += 1
        name = self.queue.send("unwanted" if kind == "unwanted" else "wanted", group=key if self.fifo else None)
        self.records[name] = Record(key, self._numbers[key], kind, self.rng.randrange(1, 4) if kind == "flaky" else 0)
        self._groups[key].append(name)
        if kind == "unwanted":
            self.finished.add(name)

    @property
    def _endless(self) -> bool:
        """Would a poison record come again for ever?"""
        return self.plan.mapping.maximum_retry_attempts is None and self.queue.redrive is None

    def purge(self) -> None:
        """Delete the queue with all that is in it."""
        self.purged |= self.queue.messages.keys()
        self.queue.remove()

    def names(self, event: bytes) -> list[Any]:
        return [record["messageId"] for record in json.loads(event)["Records"]]

    def item(self, name: Any) -> object:
        return name

    def listed(self, items: Sequence[Any]) -> set[Any]:
        return set(items)

    # --- what must be true

    def check_delivery(self, names: Sequence[Any]) -> Iterator[str]:
        live = [name for name in names if name not in self.replayed]
        if len(self.sites) == 1:  # else another machine may have had what is shown twice
            deleted = {name for _, name in self.queue.deleted}
            yield from (f"{name} is deleted and runs again" for name in live if name in deleted)
        for index, name in enumerate(live):
            if self.fifo and name not in self.finished:
                yield from (
                    f"{name} runs before {each}" for each in self._waiting_before(name) if each not in live[:index]
                )

    def _waiting_before(self, name: str) -> Iterator[str]:
        """Give the earlier messages of a group that are not over."""
        group = self._groups[self.records[name].key]
        for each in group[: self.records[name].number - 1]:
            if not self.is_over(each):
                yield each

    def is_over(self, name: str) -> bool:
        """Is a message done, moved away by its queue, gone with it, or stored as failed?"""
        if name in self.finished or name in self.purged or name in self.dead.messages:
            return True
        for site in self.sites:
            for failure_id, row in site.store.rows.items():
                if failure_id not in self._stored and row.event is not None:
                    self._stored[failure_id] = frozenset(self.names(row.event))
        return any(name in names for names in self._stored.values())

    def overlaps(self) -> list[str]:
        """Name groups of which two deliveries overlap; in a standard queue, messages that run beside themselves.

        What several machines have in hand only the queue can keep apart, and it knows nothing of replays.
        """
        by_name: dict[Any, list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries if self.fifo or len(self.sites) == 1 else ():
            names = delivery.records
            if not self.fifo or len(self.sites) > 1:
                names = [name for name in names if name not in self.replayed]
            for name in {self.records[name].key for name in names} if self.fifo else names:
                by_name[name].append(delivery)
        return [
            f"{name} began at {after.start_s} while it ran until {before.end_s}"
            for name, deliveries in by_name.items()
            for before, after in pairwise(sorted(deliveries, key=lambda delivery: (delivery.start_s, delivery.end_s)))
            if after.start_s < before.end_s
        ]

    def held_for_ever(self) -> list[str]:
        """Name what the engines still hold on to although nothing is left to do."""
        runners = [site.daemon.life.runner for site in self.sites if site.daemon]
        engines = [runner._engine for runner in runners if runner]
        return [
            f"an engine holds {each}"
            for engine in engines
            for each in (leftovers(engine) if isinstance(engine, QueueEngine) else ["no queue"])
        ]

    async def is_done(self) -> bool:
        """Is the queue empty, and no replay under way?"""
        return not (self.queue.messages or self.queue.gone or await self.is_replaying())
