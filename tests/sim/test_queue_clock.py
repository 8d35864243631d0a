"""A mapping over a queue on a machine whose clock is set, by an hour forward or back, on virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from router.core.model import (
    QUEUE_RULES,
    Backoff,
    EventSourceMapping,
    Failed,
    FailedBatch,
    FailureKind,
    FunctionError,
    Outcome,
    Polling,
    Reason,
    Returned,
)
from router.life import MappingLife, MappingParts
from router.queue_side import plug_queue
from router.replay.replay import Replayer
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.queue_source import MemoryQueue, MemoryQueueSource
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import VirtualTimeLoop, in_virtual_time

HOUR_S = 3600.0
STEPS_S = (HOUR_S, -HOUR_S)
RAISED = Failed(FailureKind.RAISED, FunctionError("ValueError", "no total"))
#: Waits of 2, 4 and 8 seconds.
BACKOFF = Backoff(base_s=2.0, cap_s=60.0, jitter=0.0)


class Machine:
    """A queue, a store that outlives the daemons, and a clock that can be set."""

    def __init__(self, *, heartbeat: bool = False, **settings: Any) -> None:
        self.queue = MemoryQueue(lease_s=30.0, wall=self.wall)
        self.store = MemoryStore()
        self.step_s = 0.0
        #: Loop time and bodies of each invocation, and why batches were given up.
        self.runs: list[tuple[float, list[str]]] = []
        self.given_up: list[Reason] = []
        self._ran = asyncio.Event()
        polling = Polling(function_concurrency=4, heartbeat=heartbeat)
        self.mapping = EventSourceMapping(
            "orders", "function", QUEUE_RULES, polling=polling, backoff=BACKOFF, **{"batch_size": 1, **settings}
        )
        #: What becomes of a body, and how long it takes.
        self.poison = {"poison"}
        self.takes_s = 0.01

    def wall(self) -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return loop.wall() + self.step_s

    def step(self, by_s: float) -> None:
        self.step_s += by_s

    def invoke(self, _: str, event: bytes) -> tuple[float, Outcome]:
        bodies = [record["body"] for record in json.loads(event)["Records"]]
        self.runs.append((asyncio.get_running_loop().time(), bodies))
        self._ran.set()
        return self.takes_s, RAISED if self.poison.intersection(bodies) else Returned()

    async def keep(self, failure: FailedBatch, *_: object) -> None:
        self.given_up.append(failure.reason)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A daemon's life; killed at its end."""
        parts = MappingParts(
            self.mapping,
            enabled=True,
            source_name="memory",
            make_source=lambda: MemoryQueueSource(self.queue),
            plug=plug_queue,
            invoker=MemoryInvoker(self.invoke, 4),
            passes=None,
            keep=self.keep,
        )
        life = MappingLife(
            parts,
            store=self.store,
            replays=Replayer(self.store, Log()),
            metrics=Metrics().of("orders"),
            log=Log(),
            wall=self.wall,
            rng=Random(1),
        )
        work = asyncio.create_task(life.run())
        await life.running.wait()
        yield
        work.cancel()
        await asyncio.wait([work])

    async def until(self, runs: int) -> None:
        async with asyncio.timeout(4 * HOUR_S):
            while len(self.runs) < runs:
                self._ran.clear()
                await self._ran.wait()

    async def until_empty(self) -> None:
        async with asyncio.timeout(4 * HOUR_S):
            while self.queue.messages:
                await self.queue.change()

    @property
    def waits_s(self) -> list[float]:
        times = [at_s for at_s, _ in self.runs]
        return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize("by_s", STEPS_S)
@in_virtual_time
async def test_retries_come_when_they_should(by_s: float) -> None:
    machine = Machine(maximum_retry_attempts=3)
    async with machine.running():
        machine.queue.send("poison")
        for tries in (1, 2, 3):
            await machine.until(tries)
            machine.step(by_s if tries % 2 else -by_s)
        await machine.until_empty()
    assert machine.waits_s == pytest.approx([2.0, 4.0, 8.0], abs=0.1)
    assert machine.given_up == [Reason.RETRIES]


@pytest.mark.parametrize("by_s", STEPS_S)
@in_virtual_time
async def test_a_restart_waits_no_longer_than_the_retry_would_have(by_s: float) -> None:
    machine = Machine(maximum_retry_attempts=3)
    async with machine.running():
        machine.queue.send("poison")
        await machine.until(3)
        await asyncio.sleep(0.1)
    machine.step(by_s)
    async with machine.running():
        await machine.until_empty()
    assert len(machine.runs) == 4, "what was tried before is known"
    # The queue shows it 30 s after the first receive; a clock that was put back may hold it for its wait of 8 s.
    assert machine.runs[3][0] - machine.runs[0][0] <= 30.0 + 8.0 + 1.0
    assert machine.given_up == [Reason.RETRIES]


@pytest.mark.parametrize("heartbeat", [False, True])
@pytest.mark.parametrize("by_s", STEPS_S)
@in_virtual_time
async def test_leases_and_windows_go_by_no_clock(by_s: float, *, heartbeat: bool) -> None:
    machine = Machine(heartbeat=heartbeat, batch_size=3, window_s=5.0)
    machine.takes_s = 10.0 if not heartbeat else 100.0
    async with machine.running():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(20.0)
        machine.queue.send("one")
        await machine.until(1)
        began_s = loop.time()
        machine.step(by_s)
        machine.queue.send("two")
        machine.queue.send("three")
        await machine.until(2)
        assert loop.time() - began_s <= 5.2
        machine.step(-by_s)
        await machine.until_empty()
    ran = sorted(body for _, bodies in machine.runs for body in bodies)
    assert ran == ["one", "three", "two"], "nothing ran twice"


@in_virtual_time
async def test_only_the_age_of_messages_goes_by_the_clock() -> None:
    machine = Machine(maximum_record_age_s=HOUR_S / 2, maximum_retry_attempts=10)
    async with machine.running():
        machine.queue.send("poison")
        await machine.until(2)
        machine.step(HOUR_S)
        await machine.until_empty()
    assert machine.given_up == [Reason.AGE]
    assert len(machine.runs) <= 3

    machine = Machine(maximum_record_age_s=HOUR_S / 2, maximum_retry_attempts=3)
    async with machine.running():
        machine.queue.send("poison")
        await machine.until(2)
        machine.step(-HOUR_S)
        await machine.until_empty()
    assert machine.given_up == [Reason.RETRIES], "a message of the future is young"
