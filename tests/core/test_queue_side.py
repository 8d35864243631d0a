"""The source side of a queue: each command is carried out once, and its answer told once, if anybody waits for it.

On virtual time, over a queue in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest

from router.core import facts as f
from router.core.message_state import MessageState, encode
from router.core.model import QUEUE_RULES, EventSourceMapping, Polling, Returned
from router.errors import SourceUnavailable, StoreUnavailable
from router.ports import PutState
from router.queue_side import QueueSide, plug_queue
from router.runner import Passes, Runner
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.queue_source import MemoryMessage, MemoryQueue, MemoryQueueSource, position_of
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import in_virtual_time

AWAY = SourceUnavailable("the queue is away")


MAPPING = EventSourceMapping(
    "orders", "function", QUEUE_RULES, batch_size=10, polling=Polling(function_concurrency=2), maximum_retry_attempts=1
)


class HungStore(MemoryStore):
    """One whose answers to questions for some texts do not come."""

    async def some_states(self, mapping: str, keys: Sequence[str]) -> Mapping[str, str]:
        await asyncio.Event().wait()
        return {}


class Bench:
    """A side whose facts are kept."""

    def __init__(
        self,
        *,
        passes: Passes | None = None,
        mapping: EventSourceMapping = MAPPING,
        store: MemoryStore | None = None,
        **reads: Any,
    ) -> None:
        self.queue = MemoryQueue()
        self.source = MemoryQueueSource(self.queue, **reads)
        self.store = store or MemoryStore()
        self.metrics = Metrics()
        self.side = QueueSide(self.source, self.store, mapping, passes=passes, metrics=self.metrics.of("orders"))
        self.facts: list[f.Fact] = []
        self.tasks: asyncio.TaskGroup

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        return self.tasks.create_task(work())

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as self.tasks:
            await self.side.follow(self.facts.append, self.spawn)
            assert self.facts == [f.QueueOpened()]
            self.facts.clear()
            yield
            self.side.stop()

    async def received(self) -> list[Any]:
        """Receive once; give the rows."""
        self.side.do(f.Receive(99, 10, 0.0))
        await asyncio.sleep(1.0)
        fact = self.facts.pop()
        assert isinstance(fact, f.Received)
        return list(fact.chunk.rows)


@in_virtual_time
async def test_what_is_received_is_told_with_the_lease_that_holds_now() -> None:
    bench = Bench(ignores=lambda row: row.body == "b", passes=lambda _, data: data != b"c")
    async with bench.following():
        bench.queue.lease_s = 7.0
        for body in "abcd":
            bench.queue.send(body)
        bench.side.do(f.Receive(3, 10, 20.0))
        await asyncio.sleep(1.0)
        [fact] = bench.facts
        assert isinstance(fact, f.Received)
        assert (fact.poll, fact.lease_s, fact.chunk.kept) == (3, 7.0, [0, 3])


@in_virtual_time
async def test_a_receive_that_fails_is_told() -> None:
    bench = Bench()
    async with bench.following():
        bench.source.fail("receive", AWAY)
        bench.side.do(f.Receive(3, 10, 20.0))
        await asyncio.sleep(1.0)
        assert bench.facts == [f.ReceiveFailed(3, "the queue is away")]


@in_virtual_time
async def test_a_receive_that_is_ended_while_it_waits_takes_nothing_and_tells_nothing() -> None:
    bench = Bench()
    async with bench.following():
        bench.side.do(f.Receive(1, 10, 20.0))
        await asyncio.sleep(1.0)
        assert bench.source.waiting == 1
        bench.side.do(f.StopReceiving(1))
        await asyncio.sleep(0)
        assert bench.source.waiting == 0
        bench.queue.send("later")
        await asyncio.sleep(30.0)
        assert bench.facts == []
        assert [row.receives for row in await bench.received()] == [1]


@in_virtual_time
async def test_a_receive_that_is_ended_before_it_began_tells_nothing() -> None:
    bench = Bench()
    async with bench.following():
        bench.queue.send("a")
        bench.side.do(f.Receive(1, 10, 20.0))
        bench.side.do(f.StopReceiving(1))
        await asyncio.sleep(30.0)
        assert bench.facts == []
        assert [row.receives for row in await bench.received()] == [1]


@in_virtual_time
async def test_a_receive_that_is_ended_while_its_answer_is_on_its_way_tells_nothing_and_its_message_comes_again() -> (
    None
):
    bench = Bench(latency_s=0.5)
    async with bench.following():
        bench.queue.send("a")
        bench.side.do(f.Receive(1, 10, 20.0))
        await asyncio.sleep(0.25)
        bench.side.do(f.StopReceiving(1))
        await asyncio.sleep(31.0)
        assert bench.facts == []
        assert [row.receives for row in await bench.received()] == [2]


@in_virtual_time
async def test_a_receive_that_is_ended_in_the_turn_in_which_its_answer_comes_tells_nothing() -> None:
    bench = Bench()
    async with bench.following():
        bench.side.do(f.Receive(1, 10, 20.0))
        await asyncio.sleep(1.0)
        bench.queue.send("a")  # the receive is awake, and has its turn after this one
        bench.side.do(f.StopReceiving(1))
        await asyncio.sleep(31.0)
        assert bench.facts == []
        assert len(await bench.received()) == 1


@in_virtual_time
async def test_stopping_ends_every_receive() -> None:
    bench = Bench()
    async with bench.following():
        for poll in range(3):
            bench.side.do(f.Receive(poll, 10, 20.0))
        await asyncio.sleep(1.0)
        assert bench.source.waiting == 3
        began_s = asyncio.get_running_loop().time()
    assert (bench.source.waiting, bench.facts) == (0, [])
    assert asyncio.get_running_loop().time() == began_s


@in_virtual_time
async def test_deletions_and_leases_are_told_by_position() -> None:
    bench = Bench()
    async with bench.following():
        ids = [bench.queue.send(body) for body in "abc"]
        messages = {position_of(row.id): row for row in await bench.received()}
        bench.source.refuse("delete", ids[1], "InternalError")
        bench.side.do(f.Delete(1, messages))
        await asyncio.sleep(1.0)
        assert bench.facts == [f.Deleted(1, {position_of(ids[1]): "InternalError"})]
        assert list(bench.queue.messages) == [ids[1]]
        bench.facts.clear()
        bench.source.refuse("extend", ids[1], "MessageNotInflight")
        one = {position_of(ids[1]): messages[position_of(ids[1])]}
        bench.side.do(f.Extend(1, one, 60))
        await asyncio.sleep(1.0)
        assert bench.facts == [f.Extended(1, {position_of(ids[1]): "MessageNotInflight"})]
        bench.facts.clear()
        for call in ("delete", "extend"):
            bench.source.fail(call, AWAY)
        bench.side.do(f.Delete(2, one))
        bench.side.do(f.Extend(2, one, 60))
        await asyncio.sleep(1.0)
        assert bench.facts == [f.DeleteFailed(2, "the queue is away"), f.ExtendFailed(2, "the queue is away")]


@in_virtual_time
async def test_what_is_to_be_remembered_is_there_when_it_is_told() -> None:
    bench = Bench()
    async with bench.following():
        bench.side.do(f.Remember(1, {5: "five", 6: "six"}))
        await asyncio.sleep(1.0)
        bench.side.do(f.Remember(2, {5: ""}))
        await asyncio.sleep(1.0)
        bench.store.write_fault = "no space left"
        bench.side.do(f.Remember(3, {7: "seven"}))
        await asyncio.sleep(1.0)
        assert bench.facts == [f.Remembered(1), f.Remembered(2), f.RememberFailed(3, "no space left")]
        assert bench.store.texts == {("orders", "message:6"): "six"}


async def recalled(bench: Bench) -> tuple[float, Mapping[int, str]]:
    """Receive a message for the second time, and a new one; give how long it took, and what came with them."""
    old = bench.queue.send("a")
    position = position_of(old)
    await bench.store.apply([PutState("orders", f"message:{position}", "text")])
    async with bench.following():
        [row] = await bench.received()
        bench.side.do(f.Extend(1, {position: row}, 0))
        bench.queue.send("b")
        await asyncio.sleep(1.0)
        bench.facts.clear()
        began_s = asyncio.get_running_loop().time()
        bench.side.do(f.Receive(2, 10, 0.0))
        while not bench.facts:  # noqa: ASYNC110 - what is measured is when it comes
            await asyncio.sleep(0.01)
        [fact] = bench.facts
        assert isinstance(fact, f.Received)
        assert [row.id == old for row in fact.chunk.rows] == [True, False]
        assert fact.recalled in ({}, {position: "text"})
        return asyncio.get_running_loop().time() - began_s, fact.recalled


@in_virtual_time
async def test_what_comes_again_comes_with_what_is_kept_of_it() -> None:
    bench = Bench()
    _, texts = await recalled(bench)
    assert list(texts.values()) == ["text"]
    assert bench.store.reads == 1, "nobody asks about what comes for the first time"


@in_virtual_time
async def test_what_nobody_counts_is_not_asked_for() -> None:
    bench = Bench(mapping=replace(MAPPING, maximum_retry_attempts=None))
    assert (await recalled(bench))[1] == {}
    assert bench.store.reads == 0


@in_virtual_time
async def test_what_comes_again_is_not_held_up_by_a_store_that_is_away() -> None:
    bench = Bench()
    bench.store.read_fault = "away"
    assert (await recalled(bench))[1] == {}
    took_s, texts = await recalled(Bench(store=HungStore()))
    assert texts == {}
    assert took_s == pytest.approx(1.0, abs=0.1)


@in_virtual_time
async def test_a_queue_is_plugged_in_with_what_it_has_asked_to_remember() -> None:
    bench = Bench()
    name = bench.queue.send("a")
    text = encode(MessageState("piece", 1, 0.0, 0.0, 1e9))
    await bench.store.apply(
        [PutState("orders", f"message:{position_of(name)}", text), PutState("orders", "begun", "memory:orders")]
    )
    plug = partial(
        plug_queue, bench.source, MAPPING, store=bench.store, passes=None, metrics=bench.metrics.of("orders")
    )
    engine, _ = await plug(Random(1))
    assert len(engine._memory) == 1
    bench.store.read_fault = "locked"
    with pytest.raises(StoreUnavailable):
        await plug(Random(1))


class Run:
    """A runner over a queue, whose function takes ten seconds."""

    def __init__(self, **reads: Any) -> None:
        self.bench = Bench(**reads)
        self.events: list[bytes] = []
        self.invoker = MemoryInvoker(self._invoke, 10)
        self.kept: list[str] = []

    def _invoke(self, _: str, event: bytes) -> tuple[float, Returned]:
        self.events.append(event)
        return 10.0, Returned()

    async def start(self) -> Runner:
        bench = self.bench
        engine, side = await plug_queue(
            bench.source, MAPPING, Random(1), store=bench.store, passes=None, metrics=bench.metrics.of("orders")
        )
        return Runner(
            MAPPING,
            engine,
            side,
            self.invoker,
            keep=self._keep,
            replays=self,
            metrics=bench.metrics.of("orders"),
            log=Log(),
            wall=lambda: 1e9,
        )

    async def _keep(self, *_: object) -> None:
        raise AssertionError

    def replayed(self, failure_id: str, new_failures: tuple[str, ...]) -> None:
        raise AssertionError

    def refused(self, failure_id: str, reason: str, *, failed: bool = False, astray: bool = False) -> None:
        raise AssertionError


@in_virtual_time
async def test_a_bug_ends_the_run_with_its_receives_and_invocations() -> None:
    def breaks(row: MemoryMessage) -> bool:
        if row.body == "bug":
            raise LookupError("a bug")
        return False

    run = Run(ignores=breaks)
    run.bench.queue.send("good")
    runner = await run.start()
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(1.0)
    assert len(run.events) == 1
    assert run.bench.source.waiting >= 1
    run.bench.queue.send("bug")
    with pytest.raises(ExceptionGroup) as raised:
        await running
    assert raised.group_contains(LookupError)
    assert run.bench.source.waiting == 0
    assert runner.ended.is_set()
    # What was with the function is killed, not done: it comes again, to the next run.
    assert len(run.bench.queue.messages) == 2
    assert run.invoker._running == {}


@in_virtual_time
async def test_a_drain_lets_what_runs_end_and_deletes_it() -> None:
    run = Run()
    run.bench.queue.send("good")
    runner = await run.start()
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(1.0)
    runner.post(f.DrainRequested(30.0))
    run.bench.queue.send("late")
    await running
    assert [held.body for held in run.bench.queue.messages.values()] == ["late"]
    assert run.bench.queue.counts() == (1, 0, 0)
