"""Mappings that are paused, resumed and drained, on virtual time: nothing is lost, and nothing is seen twice."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import structlog

from router.core.model import KAFKA_RULES, QUEUE_RULES, EventSourceMapping, Outcome, Returned
from router.errors import NotFound, SourceUnavailable, StoreUnavailable
from router.life import MappingHealth, MappingLife, MappingParts
from router.ports import KeepFailure, Selection, Source
from router.queue_side import plug_queue
from router.replay.end import ReplayEnd
from router.replay.replay import Replayer
from router.steering import Steering, unknown
from router.stream_side import plug_stream
from router.telemetry import Log, Metrics
from tests.fakes.failures import entry
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.queue_source import MemoryQueue, MemoryQueueSource
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemoryRecord, MemorySource, MemoryStream
from tests.sim.virtual_time import in_virtual_time

SHARD = "memory-0"
#: An invocation that runs while it is paused.
LONG_S = 3.0
PATIENCE_S = 3600.0


class Machine:
    """One mapping over what outlives its daemons: the source's server side, and the store."""

    def __init__(self, kind: str = "stream", **rules: Any) -> None:
        self.store = MemoryStore()
        self.stream = MemoryStream([SHARD])
        self.queue = MemoryQueue()
        self.sources: list[MemorySource | MemoryQueueSource] = []
        self.kind = kind
        self.mapping = EventSourceMapping(
            "orders",
            "function",
            KAFKA_RULES if kind == "stream" else QUEUE_RULES,
            batch_size=1,
            window_s=0.0,
            drain_s=10.0,
            **rules,
        )
        #: What the function has seen, and what was begun.
        self.seen: list[str] = []
        self.begun: list[str] = []
        self.takes_s = 0.01
        self._news = asyncio.Event()
        self.life: MappingLife
        self.replayer: Replayer
        self.steering: Steering
        self.prepare: Callable[[MemorySource], None] = lambda _: None

    def put(self, value: str) -> None:
        if self.kind == "stream":
            self.stream.append(SHARD, value.encode())
        else:
            self.queue.send(value)

    @property
    def is_settled(self) -> bool:
        """Does the source know that all is done?"""
        if self.kind == "queue":
            return not self.queue.messages
        return self.stream.committed[SHARD].checkpoint == self.stream.shards[SHARD].end - 1

    def _make_source(self) -> Source:
        source = MemorySource(self.stream) if self.kind == "stream" else MemoryQueueSource(self.queue)
        self.sources.append(source)
        if isinstance(source, MemorySource):
            self.prepare(source)
        return source

    def _run(self, _: str, event: bytes) -> tuple[float, Outcome]:
        [record] = json.loads(event).get("records") or json.loads(event)["Records"]
        value = base64.b64decode(record["value"]).decode() if self.kind == "stream" else record["body"]
        self.begun.append(value)
        self._news.set()
        asyncio.get_running_loop().call_later(self.takes_s, self._end, value)
        return self.takes_s, Returned()

    def _end(self, value: str) -> None:
        self.seen.append(value)
        self._news.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A daemon's life, which drains at its end."""
        parts = MappingParts(
            self.mapping,
            enabled=True,
            source_name="memory",
            make_source=self._make_source,
            plug=plug_stream if self.kind == "stream" else plug_queue,
            invoker=MemoryInvoker(self._run, 4),
            passes=None,
            keep=keep_nothing,
        )
        self.replayer = Replayer(self.store, Log())
        self.life = MappingLife(
            parts,
            store=self.store,
            replays=self.replayer,
            metrics=Metrics().of("orders"),
            log=Log(),
            wall=lambda: 1e9,
            rng=Random(1),
        )
        lives = {"orders": self.life}
        self.replayer.lives = lives
        self.steering = Steering(self.store, lives, lambda: 1e9)
        work = asyncio.create_task(self.life.run())
        replays = asyncio.create_task(self.replayer.run())
        yield
        self.life.drain(10.0)
        await work
        replays.cancel()
        await asyncio.wait([replays])

    async def replay(self, failure_id: str) -> ReplayEnd:
        end = await self.replayer.start(Selection(ids=(failure_id,)), 0.0).next()
        assert isinstance(end, ReplayEnd)
        return end

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not fact():
                self._news.clear()
                await self._news.wait()


async def keep_nothing(*_: object) -> None:
    raise AssertionError("nothing fails here")


BOTH = pytest.mark.parametrize("kind", ["stream", "queue"])


@BOTH
@in_virtual_time
async def test_what_is_in_flight_ends_and_nothing_new_starts_until_it_is_resumed(kind: str) -> None:
    machine = Machine(kind)
    machine.takes_s = LONG_S
    async with machine.running():
        await machine.life.running.wait()
        machine.put("one")
        await machine.until(lambda: machine.begun == ["one"])
        done = await machine.steering.pause("orders")
        assert (done["state"], done["idle"], machine.seen) == ("paused", False, [])
        [batch] = done["in_flight"]
        assert (batch["records"], batch["attempts"]) == (1, 0)
        assert done["seen_again"][0]["records"] in (1, None)
        machine.put("two")
        done = await machine.steering.drain("orders", None)
        assert done == {"mapping": "orders", "state": "paused", "idle": True, "in_flight": [], "seen_again": []}
        assert machine.seen == ["one"]
        await asyncio.sleep(PATIENCE_S)
        assert machine.begun == ["one"]
        assert machine.life.health().reason == (
            "Paused",
            "Paused since 2001-09-09T01:46:40.000Z; `headrace mapping resume orders` goes on.",
        )
        await machine.steering.resume("orders")
        await machine.until(lambda: machine.seen == ["one", "two"])
    assert machine.is_settled
    assert machine.begun == ["one", "two"]


@BOTH
@in_virtual_time
async def test_a_pause_outlives_the_daemon_and_says_so(kind: str) -> None:
    machine = Machine(kind)
    async with machine.running():
        await machine.life.running.wait()
        await machine.steering.pause("orders")
    machine.put("one")
    with structlog.testing.capture_logs() as lines:
        async with machine.running():
            await machine.life.resting.wait()
            assert machine.life.known
            assert machine.life.health().state == "paused"
            assert [line["event"] for line in lines] == ["mapping.paused"]
            opened = len(machine.sources)
            await asyncio.sleep(PATIENCE_S)
            assert len(machine.sources) == opened
            await machine.steering.resume("orders")
            await machine.until(lambda: machine.seen == ["one"])
    async with machine.running():
        await machine.life.running.wait()
    assert machine.is_settled


@in_virtual_time
async def test_a_drain_that_may_not_wait_tells_what_is_in_flight_and_what_would_be_seen_twice() -> None:
    machine = Machine()
    machine.takes_s = LONG_S
    async with machine.running():
        await machine.life.running.wait()
        machine.put("one")
        await machine.until(lambda: machine.begun)
        done = await machine.steering.drain("orders", 1.0)
        assert not done["idle"]
        [batch] = done["in_flight"]
        assert {**batch, "request_id": ""} == {
            "shard": SHARD,
            "first_position": 0,
            "last_position": 0,
            "records": 1,
            "seconds": 1.0,
            "attempts": 0,
            "request_id": "",
            "replays": None,
        }
        assert [(each["shard"], each["first_position"], each["last_position"]) for each in done["seen_again"]] == [
            (SHARD, 0, 0)
        ]
        assert (await machine.steering.drain("orders", None))["idle"]


@in_virtual_time
async def test_progress_that_cannot_be_committed_is_told() -> None:
    machine = Machine()

    def refuse_commits(source: MemorySource) -> None:
        source.fail("commit", SourceUnavailable("the broker is away"), times=1000)

    machine.prepare = refuse_commits
    async with machine.running():
        await machine.life.running.wait()
        machine.put("one")
        await machine.until(lambda: machine.seen)
        done = await machine.steering.drain("orders", None)
        assert done["idle"]
        assert done["in_flight"] == []
        assert done["seen_again"] == [{"shard": SHARD, "first_position": 0, "last_position": None, "records": None}]


@in_virtual_time
async def test_a_mapping_whose_source_is_away_is_idle_as_soon_as_it_is_paused() -> None:
    machine = Machine()
    machine.prepare = lambda source: source.fail("open", SourceUnavailable("nobody answers"))
    async with machine.running():
        away = MappingHealth("starting", ("SourceUnavailable", "nobody answers"))
        while machine.life.health() != away:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.001)
        assert (await machine.steering.drain("orders", 0.5))["idle"]
        assert machine.life.health().state == "paused"
        machine.prepare = lambda _: None
        await machine.steering.resume("orders")
        await machine.life.running.wait()


@in_virtual_time
async def test_a_pause_that_cannot_be_stored_does_not_count() -> None:
    machine = Machine()
    async with machine.running():
        await machine.life.running.wait()
        machine.store.write_fault = "the disk is full"
        with pytest.raises(StoreUnavailable):
            await machine.steering.pause("orders")
        machine.store.write_fault = None
        assert not machine.life.is_paused
        machine.put("one")
        await machine.until(lambda: machine.seen == ["one"])


@in_virtual_time
async def test_a_mapping_that_was_resumed_while_it_drained_drains_and_goes_on() -> None:
    machine = Machine()
    machine.takes_s = LONG_S
    async with machine.running():
        await machine.life.running.wait()
        machine.put("one")
        await machine.until(lambda: machine.begun)
        for _ in range(3):
            await machine.steering.pause("orders")
            await machine.steering.resume("orders")
        machine.put("two")
        await machine.until(lambda: machine.seen == ["one", "two"])
    assert machine.begun == ["one", "two"]


@in_virtual_time
async def test_a_shutdown_does_not_wait_for_who_may_resume_and_bounds_a_drain() -> None:
    machine = Machine()
    machine.takes_s = 8.0
    loop = asyncio.get_running_loop()
    async with machine.running():
        await machine.life.running.wait()
        machine.put("one")
        await machine.until(lambda: machine.begun)
        await machine.steering.pause("orders")
        began_s = loop.time()
        machine.life.drain(1.0)
        await machine.life.resting.wait()
        assert loop.time() - began_s < 7.0
    async with machine.running():
        await machine.life.resting.wait()
        began_s = loop.time()
    assert loop.time() == began_s


@in_virtual_time
async def test_a_mapping_that_is_to_leave_before_it_knows_of_its_pause_leaves() -> None:
    machine = Machine()
    async with machine.running():
        await machine.steering.pause("orders")
    async with asyncio.timeout(1.0):
        async with machine.running():
            await asyncio.sleep(0)  # it reads what the store says of a pause
            machine.life.drain(1.0)
            machine.life.pause(1e9)


@in_virtual_time
async def test_who_asks_for_a_mapping_that_is_not_there_hears_which_there_are() -> None:
    machine = Machine()
    async with machine.running():
        for work in (machine.steering.pause("order"), machine.steering.resume("order")):
            with pytest.raises(NotFound, match=r"no mapping 'order'; there are: orders"):
                await work
        with pytest.raises(NotFound):
            await machine.steering.drain("order", None)


def test_who_asks_for_a_mapping_where_there_are_none_hears_that() -> None:
    assert str(unknown("order", [])) == "there is no mapping 'order'; there are none"


def test_who_asks_for_a_mapping_of_the_api_that_does_not_run_hears_when_it_does() -> None:
    uuid = "8e27e3cf-7996-4dee-8631-6463718590b3"
    assert str(unknown(uuid, [])) == (
        f"no mapping {uuid} runs here: one of the API does while it is enabled and a daemon runs"
    )


@in_virtual_time
async def test_replays_are_refused_while_it_is_paused() -> None:
    machine = Machine()
    event = MemorySource(machine.stream).codec.event([MemoryRecord(SHARD, 4, 0, None, b"again")])
    kept = entry("f1", mapping="orders", shard=SHARD)
    await machine.store.apply([KeepFailure(kept, event)])
    async with machine.running():
        await machine.life.running.wait()
        await machine.steering.drain("orders", None)
        end = await machine.replay("f1")
        assert end.outcome == "refused"
        assert end.reason == "its mapping orders is paused: `headrace mapping resume orders` first"
        with pytest.raises(NotFound, match="is paused"):
            await machine.replayer.start_queue("orders", "dead", 0.0)
        await machine.steering.resume("orders")
        end = await machine.replay("f1")
        assert end.outcome == "replayed"


@BOTH
@pytest.mark.parametrize("seed", range(12))
@in_virtual_time
async def test_whatever_is_steered_all_is_seen_once(kind: str, seed: int) -> None:
    machine = Machine(kind)
    rng = Random(seed)
    put: list[str] = []
    for _ in range(4):
        async with machine.running():
            for _ in range(12):
                machine.takes_s = rng.choice((0.01, 0.5, LONG_S))
                for _ in range(rng.randrange(4)):
                    put.append(f"{len(put)}")
                    machine.put(put[-1])
                await asyncio.sleep(rng.choice((0.0, 0.01, 0.7, 5.0)))
                await rng.choice(
                    (
                        lambda: machine.steering.pause("orders"),
                        lambda: machine.steering.resume("orders"),
                        lambda: machine.steering.drain("orders", rng.choice((0.0, 2.0, None))),
                    )
                )()
    machine.takes_s = 0.01
    async with machine.running():
        await machine.steering.resume("orders")
        await machine.until(lambda: len(machine.seen) >= len(put))
    assert machine.is_settled
    assert sorted(machine.seen, key=int) == put
    if kind == "stream":
        assert machine.seen == put
