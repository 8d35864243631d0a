"""The queue in memory against the suite, in virtual time; and what only it can do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from router.errors import SourceUnavailable
from router.ports import QueueSource
from tests.conformance.queue_source import Counts, Features, QueueRig, QueueSourceConformance, opened, receive
from tests.fakes.queue_source import MemoryQueue, MemoryQueueSource, Redrive, position_of
from tests.sim.virtual_time import all_in_virtual_time, in_virtual_time

AWAY = SourceUnavailable("connection refused")


class MemoryRig:
    features = Features(real_time=False)

    def __init__(self, latency_s: float) -> None:
        self.queues: dict[str, MemoryQueue] = {}
        self._latency_s = latency_s

    async def make(self, *, fifo: bool = False, lease_s: int = 30) -> str:
        name = f"queue-{len(self.queues)}"
        self.queues[name] = MemoryQueue(name, fifo=fifo, lease_s=lease_s)
        return name

    def source(self, queue: str) -> QueueSource:
        if queue not in self.queues:
            self.queues[queue] = MemoryQueue(queue)
            self.queues[queue].remove()
        return MemoryQueueSource(self.queues[queue], latency_s=self._latency_s)

    async def send(self, queue: str, *bodies: str, group: str | None = None) -> list[str]:
        return [self.queues[queue].send(body, group=group) for body in bodies]

    async def counts(self, queue: str) -> Counts:
        visible, in_flight, _ = self.queues[queue].counts()
        return Counts(visible, in_flight)

    async def remove(self, queue: str) -> None:
        self.queues[queue].remove()


@all_in_virtual_time
class TestMemoryQueueSource(QueueSourceConformance):
    @pytest.fixture(params=[0.0, 0.05], ids=["at once", "with latency"])
    def rig(self, request: pytest.FixtureRequest) -> QueueRig:
        return MemoryRig(request.param)


# --- what only it can do


@in_virtual_time
async def test_a_message_with_a_delay_is_not_seen_before_it_ends() -> None:
    queue = MemoryQueue(delay_s=5.0)
    queue.send("late")
    queue.send("now", delay_s=0.0)
    source = MemoryQueueSource(queue)
    began_s = asyncio.get_running_loop().time()
    assert [row.body for row in (await source.receive(10, 1.0)).rows] == ["now"]
    assert queue.counts() == (0, 1, 1)
    assert [row.body for row in (await source.receive(10, 20.0)).rows] == ["late"]
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(5.0, abs=0.001)


@in_virtual_time
async def test_a_receive_too_many_moves_a_message_away() -> None:
    dead = MemoryQueue("dead")
    queue = MemoryQueue(lease_s=10.0, redrive=Redrive(dead, 2))
    message_id = queue.send("poison")
    source = MemoryQueueSource(queue)
    counts = [chunk.rows[0].receives for chunk in [await source.receive(10, 20.0), await source.receive(10, 20.0)]]
    assert counts == [1, 2]
    moving = asyncio.create_task(source.receive(10, 20.0))
    [row] = (await MemoryQueueSource(dead).receive(10, 20.0)).rows
    assert (row.id, row.receives, row.moved_from) == (message_id, 1, "orders")
    assert row.attributes["DeadLetterQueueSourceArn"] == "orders"
    assert not (await moving).rows
    assert [name for _, name in queue.moved] == [message_id]
    assert queue.counts() == (0, 0, 0)


@in_virtual_time
async def test_a_head_that_is_moved_away_frees_its_group() -> None:
    dead = MemoryQueue("dead", fifo=True)
    queue = MemoryQueue(fifo=True, lease_s=10.0, redrive=Redrive(dead, 1))
    queue.send("poison", group="A")
    source = MemoryQueueSource(queue)
    await source.receive(10, 0.0)
    queue.send("next", group="A")
    assert [row.body for row in (await source.receive(10, 20.0)).rows] == ["next"]


@in_virtual_time
async def test_an_expired_receipt_of_a_fifo_queue_deletes_nothing() -> None:
    queue = MemoryQueue(fifo=True, lease_s=1.0)
    queue.send("a", group="A")
    source = MemoryQueueSource(queue)
    chunk = await source.receive(10, 0.0)
    await asyncio.sleep(1.0)
    assert list(await source.delete(chunk.rows)) == [0]
    assert list(await source.extend(chunk.rows, 5)) == [0]
    assert queue.counts() == (1, 0, 0)


@in_virtual_time
async def test_a_delayed_message_blocks_its_group() -> None:
    queue = MemoryQueue(fifo=True)
    queue.send("first", group="A", delay_s=5.0)
    queue.send("second", group="A")
    source = MemoryQueueSource(queue)
    assert [row.body for row in (await source.receive(10, 20.0)).rows] == ["first", "second"]


@in_virtual_time
async def test_a_message_that_is_exposed_is_given_twice() -> None:
    queue = MemoryQueue()
    message_id = queue.send("a")
    source = MemoryQueueSource(queue)
    first = await source.receive(10, 0.0)
    queue.expose(message_id)
    again = await source.receive(10, 0.0)
    assert again.positions == first.positions
    assert list(await source.delete(first.rows)) == [0]


@pytest.mark.parametrize("call", ["open", "receive", "delete", "extend"])
@in_virtual_time
async def test_a_scripted_fault_fails_so_many_calls(call: str) -> None:
    queue = MemoryQueue()
    queue.send("a")
    source = MemoryQueueSource(queue)
    chunk = await source.receive(10, 0.0)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "open": source.open,
        "receive": lambda: source.receive(1, 0.0),
        "delete": lambda: source.delete(chunk.rows),
        "extend": lambda: source.extend(chunk.rows, 5),
    }
    source.fail(call, AWAY, times=2)
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="connection refused"):
            await calls[call]()
    assert len(queue.messages) == 1
    await calls[call]()


@in_virtual_time
async def test_what_happened_although_its_answer_was_lost_has_happened() -> None:
    queue = MemoryQueue()
    queue.send("a")
    queue.send("b")
    source = MemoryQueueSource(queue)
    source.fail("receive", AWAY, happens=True)
    with pytest.raises(SourceUnavailable):
        await source.receive(1, 0.0)
    assert queue.counts() == (1, 1, 0)
    chunk = await source.receive(10, 0.0)
    source.fail("delete", AWAY, happens=True)
    with pytest.raises(SourceUnavailable):
        await source.delete(chunk.rows)
    assert queue.counts() == (0, 1, 0)
    assert len(queue.deleted) == 1


@in_virtual_time
async def test_one_messages_call_can_be_refused() -> None:
    queue = MemoryQueue()
    ids = [queue.send(body) for body in "abc"]
    source = MemoryQueueSource(queue)
    chunk = await source.receive(10, 0.0)
    source.refuse("delete", ids[1], "try later")
    assert await source.delete(chunk.rows) == {1: "try later"}
    assert list(queue.messages) == [ids[1]]
    assert not await source.delete([chunk.rows[1]])


@in_virtual_time
async def test_a_deleted_queue_that_is_made_again_is_empty() -> None:
    queue = MemoryQueue()
    queue.send("a")
    source = MemoryQueueSource(queue)
    waiting = asyncio.create_task(source.receive(10, 20.0))
    await waiting
    waiting = asyncio.create_task(source.receive(10, 20.0))
    await asyncio.sleep(1.0)
    queue.remove()
    with pytest.raises(SourceUnavailable, match="does not exist"):
        await waiting
    queue.gone = False
    assert not (await source.receive(10, 0.0)).rows


@in_virtual_time
async def test_a_shuffled_queue_gives_all_in_another_order() -> None:
    queue = MemoryQueue(shuffle=Random(1))
    ids = [queue.send(str(number)) for number in range(10)]
    rows = (await MemoryQueueSource(queue).receive(10, 0.0)).rows
    assert [row.id for row in rows] != ids
    assert sorted(row.id for row in rows) == sorted(ids)


@in_virtual_time
async def test_the_sources_own_rules_are_told_in_the_chunk() -> None:
    queue = MemoryQueue()
    for body in ("keep", "ignore", "unfit"):
        queue.send(body)
    source = MemoryQueueSource(
        queue,
        ignores=lambda row: row.body == "ignore",
        unfit=lambda row: "no event can be made of it" if row.body == "unfit" else None,
    )
    chunk = await source.receive(10, 0.0)
    assert chunk.kept == [0, 2]
    assert chunk.unfit == {2: "no event can be made of it"}


@in_virtual_time
async def test_ids_that_are_no_uuids_have_positions_too() -> None:
    rig = MemoryRig(0.0)
    name = await rig.make()
    rig.queues[name].send("a", message_id="m00")
    async with opened(rig, name) as source:
        chunk = await receive(source, 1)
    assert list(chunk.positions) == [position_of("m00")]
    assert 0 <= position_of("m00") < 2**128
