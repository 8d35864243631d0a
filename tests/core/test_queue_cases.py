"""The queue engine against recorded and documented cases of AWS Lambda's queue mappings.

Each case of tests/vectors/queue-cases.json gives settings, messages, scripted outcomes, and the calls, deletions and
dead letters to expect. They run here in virtual time against an ideal queue, without a runner.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.core import facts as f
from router.core.model import (
    NOT_READ,
    QUEUE_RULES,
    Backoff,
    Batch,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Instant,
    Outcome,
    Polling,
    Refused,
    Returned,
)
from router.core.queues import QueueEngine
from tests.fakes.queue_source import MemoryQueue, MemoryQueueSource, Redrive
from tests.sim.virtual_time import in_virtual_time

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "queue-cases.json").read_text())["cases"]

#: Long enough for every case: two leases of a minute, and what follows.
LENGTH_S = 200.0


def test_all_cases_are_run() -> None:
    assert len(CASES) == 26


class Simulation:
    """Plays the runner: calls take their time, everything else is instant."""

    def __init__(self, case: dict[str, Any]) -> None:
        settings = case["settings"]
        self.loop = asyncio.get_running_loop()
        self.began_s = self.loop.time()
        self.messages = {message["id"]: message for message in case["messages"]}
        self.script = list(case["script"])
        self.report = bool(settings.get("ReportBatchItemFailures"))
        self.dead = MemoryQueue("dead", fifo=settings.get("fifo", False))
        self.queue = MemoryQueue(
            fifo=settings.get("fifo", False),
            lease_s=settings.get("VisibilityTimeout", 30),
            redrive=Redrive(self.dead, settings["maxReceiveCount"]) if "maxReceiveCount" in settings else None,
        )
        self.source = MemoryQueueSource(self.queue, ignores=lambda row: not self.messages[row.id]["match"])
        self.engine = QueueEngine(mapping_of(settings), "orders", self.source.codec.identify, Random(1), {})
        self.tasks: set[asyncio.Task[None]] = set()
        self.receives: dict[int, asyncio.Task[None]] = {}
        self.invocations: list[dict[str, Any]] = []

    @property
    def now_ms(self) -> float:
        return (self.loop.time() - self.began_s) * 1000

    async def run(self) -> None:
        for message in self.messages.values():
            self.queue.send_at(
                self.began_s + message["t"] / 1000, "body", group=message["group"], message_id=message["id"]
            )
        await asyncio.sleep(0)
        self.feed(f.QueueOpened())
        await asyncio.sleep(LENGTH_S)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def feed(self, fact: f.QueueFact) -> None:
        now_s = self.loop.time()
        for command in self.engine.feed(fact, Instant(now_s, now_s)):
            match command:
                case f.Receive(poll, limit, wait_s):
                    self.receives[poll] = self.spawn(self.receive(poll, limit, wait_s))
                case f.StopReceiving(poll):
                    self.receives[poll].cancel()
                case f.Invoke(batch):
                    self.invoke(batch)
                case f.Delete(call, messages):
                    self.spawn(self.delete(call, messages))
                case f.WakeAt(mono_s):
                    self.loop.call_at(mono_s, self.feed, f.Due())
                case _:
                    assert isinstance(command, f.Note)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def receive(self, poll: int, limit: int, wait_s: float) -> None:
        chunk = await self.source.receive(limit, wait_s)
        self.feed(f.Received(poll, chunk, self.source.lease_s))

    async def delete(self, call: int, messages: Mapping[int, Any]) -> None:
        failed = await self.source.delete(list(messages.values()))
        assert not failed
        self.feed(f.Deleted(call, {}))

    def invoke(self, batch: Batch) -> None:
        rows = batch.rows()
        outcome = self.script.pop(0) if self.script else "ok"
        self.invocations.append(
            {
                "t": self.now_ms,
                "messages": [self.messages[row.id]["i"] for row in rows],
                "receiveCounts": [row.receives for row in rows],
                "outcome": outcome,
            }
        )
        taken_ms = 0 if outcome == "throttle" else 10
        if isinstance(outcome, dict) and "do" in outcome:
            taken_ms = outcome["ms"]
            outcome = outcome["do"]
        ended = f.InvocationEnded(batch.id, self.outcome(outcome))
        self.loop.call_later(taken_ms / 1000, self.feed, ended)

    def outcome(self, scripted: Any) -> Outcome:
        match scripted:
            case "ok":
                return Returned(None)
            case "error":
                return Failed(FailureKind.RAISED, FunctionError("Boom", "boom"))
            case "throttle":
                return Refused(FunctionError("TooManyRequestsException", "Rate Exceeded."))
            case {"report": indexes}:
                ids = {message["i"]: name for name, message in self.messages.items()}
                items = [{"itemIdentifier": ids[index]} for index in indexes]
                return Returned({"batchItemFailures": items} if self.report else NOT_READ)
            case {"return": value}:
                return Returned(value if self.report else NOT_READ)
        raise AssertionError(scripted)

    def deleted(self, *, match: bool) -> list[int]:
        """Give the messages that were deleted, those that the filter let pass or the others."""
        deleted = [self.messages[name] for _, name in self.queue.deleted]
        return [message["i"] for message in deleted if message["match"] is match]


def mapping_of(settings: dict[str, Any]) -> EventSourceMapping:
    concurrency = settings.get("MaximumConcurrency", 1)
    return EventSourceMapping(
        "case",
        "function",
        replace(QUEUE_RULES, refusal_backoff=Backoff(1.0, 256.0, jitter=0.0, factor=4.0)),
        batch_size=settings["BatchSize"],
        window_s=settings.get("MaximumBatchingWindowInSeconds", 0),
        report_item_failures=settings.get("ReportBatchItemFailures", False),
        polling=Polling(
            maximum_concurrency=concurrency, function_concurrency=concurrency, fifo=settings.get("fifo", False)
        ),
    )


@pytest.mark.parametrize("case", CASES, ids=[f"{case['id']} {case['title']}" for case in CASES])
@in_virtual_time
async def test_case(case: dict[str, Any]) -> None:
    simulation = Simulation(case)
    await simulation.run()
    expect = case["expect"]
    members = ("messages", "receiveCounts", "outcome")
    seen = simulation.invocations
    assert [[each[member] for member in members] for each in seen] == [
        [each[member] for member in members] for each in expect["invocations"]
    ]
    if case["times"] == "exact":
        assert [each["t"] for each in seen] == pytest.approx([each["t"] for each in expect["invocations"]], abs=1)
    for key, match in (("deleted", True), ("filtered", False)):
        assert sorted(simulation.deleted(match=match)) == sorted(
            index for entry in expect[key] for index in entry["messages"]
        )
    moved = [simulation.messages[name]["i"] for _, name in simulation.queue.moved]
    assert moved == [index for entry in expect["deadLetter"] for index in entry["messages"]]
    left = set(range(len(case["messages"]))) - set(moved)
    assert left == set(simulation.deleted(match=True) + simulation.deleted(match=False))
