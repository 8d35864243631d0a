"""Replaying a dead-letter queue through a mapping that runs over its own queue, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from router.core.model import (
    QUEUE_RULES,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Polling,
    Returned,
)
from router.errors import NotFound, SourceUnavailable
from router.life import MappingLife, MappingParts
from router.queue_side import plug_queue
from router.replay.end import Ends, JobOver, ReplayEnd
from router.replay.queue_job import BARREN_RECEIVES, CALL_LIMIT, OUTAGE_S, SHORTEST_LEASE_S, message_id
from router.replay.replay import PATIENCE_S, REPLAYS_AT_ONCE, Replayer
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.queue_source import MemoryQueue, MemoryQueueSource
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import in_virtual_time

RAISED = Failed(FailureKind.RAISED, FunctionError("ValueError", "no total"))


class Away(MemoryQueueSource):
    """A queue that nobody reaches."""

    async def open(self) -> None:
        raise SourceUnavailable("the queue is away")


class SlowToDelete(MemoryQueueSource):
    """A queue that takes its time before it deletes."""

    delete_s = 2.0

    async def delete(self, rows: Any) -> Mapping[int, str]:
        await asyncio.sleep(self.delete_s)
        return await super().delete(rows)


class Service:
    """A mapping over the queue `orders` that also replays `dead`; `away` is one whose own queue does not answer."""

    def __init__(
        self,
        *,
        fifo: bool = False,
        lease_s: float = 30.0,
        takes_s: float = 0.01,
        passes: Callable[[Mapping[str, object], bytes | None], bool] | None = None,
        **reads: Any,
    ) -> None:
        self.queue = MemoryQueue(fifo=fifo)
        self.dead = MemoryQueue("dead", fifo=fifo, lease_s=lease_s)
        self.source = MemoryQueueSource(self.dead, **reads)
        self.passes = passes
        self.takes_s = takes_s
        #: How long a body takes, and how it ends; others take `takes_s` and succeed.
        self.script: dict[str, tuple[float, Outcome]] = {}
        #: Time and body of every invocation of a dead letter.
        self.runs: list[tuple[float, str]] = []
        self.began = asyncio.Event()
        self.running_at_once = 0
        self.most_at_once = 0
        self.replayer = Replayer(MemoryStore(), Log())
        self.replayer.make_queue = self.make_queue
        self.replayer.lives = {
            "orders": self.life("orders", MemoryQueueSource),
            "away": self.life("away", Away),
        }

    def make_queue(self, mapping: str, queue: str) -> MemoryQueueSource:
        if mapping not in self.replayer.lives:
            raise NotFound(f"there is no mapping {mapping}")
        assert queue == "dead"
        return self.source

    def life(self, name: str, kind: type[MemoryQueueSource], *, enabled: bool = True) -> MappingLife:
        polling = Polling(function_concurrency=1000)
        parts = MappingParts(
            EventSourceMapping(name, "function", QUEUE_RULES, batch_size=10, polling=polling),
            enabled=enabled,
            source_name="memory",
            make_source=lambda: kind(self.queue),
            plug=plug_queue,
            invoker=MemoryInvoker(self.invoke, 1000),
            passes=self.passes,
            keep=self.keep_nothing,
        )
        return MappingLife(
            parts,
            store=MemoryStore(),
            replays=self.replayer,
            metrics=Metrics().of(name),
            log=Log(),
            wall=lambda: 1e9,
            rng=Random(1),
        )

    async def keep_nothing(self, *_: object) -> None:
        raise AssertionError("what has a place of its own is not stored")

    def invoke(self, _: str, event: bytes) -> tuple[float, Outcome]:
        [record] = json.loads(event)["Records"]
        loop = asyncio.get_running_loop()
        self.runs.append((loop.time(), record["body"]))
        self.began.set()
        duration_s, outcome = self.script.get(record["body"], (self.takes_s, Returned()))
        self.running_at_once += 1
        self.most_at_once = max(self.most_at_once, self.running_at_once)
        loop.call_later(duration_s, self.ended)
        return duration_s, outcome

    def ended(self) -> None:
        self.running_at_once -= 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        works = [asyncio.create_task(life.run()) for life in self.replayer.lives.values()]
        works.append(asyncio.create_task(self.replayer.run()))
        await self.replayer.lives["orders"].running.wait()
        yield
        for work in works:
            work.cancel()
        await asyncio.wait(works)

    async def replay(self, mapping: str = "orders", interval_s: float = 0.0) -> tuple[list[ReplayEnd], JobOver]:
        """Replay the dead letters; gives the ends as they come."""
        return await listen(await self.replayer.start_queue(mapping, "dead", interval_s))

    async def stop_orders(self) -> None:
        life = self.replayer.lives["orders"]
        assert life.runner is not None
        ended = life.runner.ended
        life.drain(30.0)
        await ended.wait()

    @property
    def bodies(self) -> list[str]:
        return [body for _, body in self.runs]

    @property
    def left(self) -> list[str]:
        return [held.body for held in self.dead.messages.values()]


async def listen(job: Ends) -> tuple[list[ReplayEnd], JobOver]:
    ends: list[ReplayEnd] = []
    while isinstance(end := await job.next(), ReplayEnd):
        ends.append(end)
    assert isinstance(end, JobOver)
    assert await job.next() is None
    return ends, end


def send(queue: MemoryQueue, *bodies: str, group: str | None = None) -> list[str]:
    return [f"sqs:{queue.send(body, group=group)}" for body in bodies]


def outcomes(ends: list[ReplayEnd]) -> dict[str, str]:
    return {end.id: end.outcome for end in ends}


@in_virtual_time
async def test_what_succeeds_is_deleted() -> None:
    service = Service()
    ids = send(service.dead, *(f"m{number}" for number in range(25)))
    async with service.running():
        ends, over = await service.replay()
    assert sorted((end.id, end.outcome) for end in ends) == sorted((each, "replayed") for each in ids)
    assert over == JobOver(None)
    assert service.left == []
    assert sorted(service.bodies) == sorted(f"m{number}" for number in range(25))


@in_virtual_time
async def test_an_empty_queue_is_soon_over() -> None:
    service = Service()
    async with service.running():
        assert await service.replay() == ([], JobOver(None))


@in_virtual_time
async def test_what_fails_is_told_with_its_error_stays_and_is_to_be_had_again_at_once() -> None:
    service = Service()
    service.script["bad"] = (0.01, RAISED)
    good, bad = send(service.dead, "good", "bad")
    async with service.running():
        ends, over = await service.replay()
    assert outcomes(ends) == {good: "replayed", bad: "failed_again"}
    assert next(end.reason for end in ends if end.id == bad) == "ValueError: no total"
    assert over == JobOver(None)
    assert service.left == ["bad"]
    assert service.bodies.count("bad") == 1
    assert service.dead.counts() == (1, 0, 0)


@in_virtual_time
async def test_a_second_job_takes_what_the_first_has_left() -> None:
    service = Service()
    service.script["bad"] = (0.01, RAISED)
    send(service.dead, "bad")
    async with service.running():
        await service.replay()
        service.script.clear()
        service.source = MemoryQueueSource(service.dead)
        [end], _ = await service.replay()
    assert end.outcome == "replayed"
    assert service.left == []


@in_virtual_time
async def test_no_message_runs_twice_in_one_job_though_its_lease_ends_meanwhile() -> None:
    service = Service(lease_s=30.0, takes_s=100.0)
    service.script["bad"] = (0.01, RAISED)
    send(service.dead, "bad", *(f"m{number}" for number in range(150)))
    async with service.running():
        ends, over = await service.replay()
    assert len(ends) == 151
    assert over == JobOver(None)
    assert len(service.bodies) == len(set(service.bodies)) == 151
    assert service.left == ["bad"]


@in_virtual_time
async def test_a_message_that_comes_again_while_it_runs_is_deleted_by_its_last_receipt() -> None:
    service = Service(takes_s=5.0)
    [first] = send(service.dead, "slow")
    async with service.running():
        job = await service.replayer.start_queue("orders", "dead", 0.0)
        await service.began.wait()
        service.dead.expose(first.removeprefix("sqs:"))
        send(service.dead, "next")
        ends, _ = await listen(job)
    assert [end.outcome for end in ends] == ["replayed", "replayed"]
    assert service.bodies == ["slow", "next"]
    assert service.left == []


@in_virtual_time
async def test_what_cannot_be_held_and_comes_for_ever_does_not_keep_the_job_going_for_ever() -> None:
    service = Service(lease_s=0.0)
    service.script["bad"] = (0.01, RAISED)
    [bad] = send(service.dead, "bad")
    service.source.refuse("extend", bad.removeprefix("sqs:"), times=10**6)
    async with service.running():
        [end], over = await service.replay()
    assert (end.id, over) == (bad, JobOver(None))
    assert service.bodies == ["bad"]
    assert BARREN_RECEIVES <= service.dead.messages[bad.removeprefix("sqs:")].receives <= BARREN_RECEIVES + 3


@in_virtual_time
async def test_what_runs_or_waits_is_hidden_from_others_as_long_as_it_does() -> None:
    service = Service(lease_s=30.0, takes_s=500.0)
    send(service.dead, "m0", "m1", "m2")
    async with service.running():
        job = await service.replayer.start_queue("orders", "dead", 100.0)
        await service.began.wait()
        other = MemoryQueueSource(service.dead)
        assert not (await other.receive(10, 400.0)).rows
        ends, _ = await listen(job)
    assert [end.outcome for end in ends] == ["replayed"] * 3


@in_virtual_time
async def test_a_lease_that_is_too_short_is_extended_as_soon_as_the_message_comes() -> None:
    service = Service(lease_s=1.0, takes_s=SHORTEST_LEASE_S * 3)
    send(service.dead, "slow")
    async with service.running():
        [end], _ = await service.replay()
    assert end.outcome == "replayed"
    assert service.bodies == ["slow"]


@in_virtual_time
async def test_so_many_at_once_and_no_more() -> None:
    service = Service(takes_s=10.0)
    send(service.dead, *(f"m{number}" for number in range(200)))
    async with service.running():
        ends, _ = await service.replay()
    assert len(ends) == 200
    assert service.most_at_once == REPLAYS_AT_ONCE


@in_virtual_time
async def test_replays_keep_to_their_rate() -> None:
    service = Service()
    send(service.dead, *(f"m{number}" for number in range(25)))
    async with service.running():
        await service.replay(interval_s=20.0)
    times_s = [time_s for time_s, _ in service.runs]
    assert len(times_s) == 25
    assert min(after - before for before, after in pairwise(times_s)) >= 20.0
    assert service.left == []


@in_virtual_time
async def test_a_group_keeps_its_order_and_what_is_behind_a_failure_stays_behind_it() -> None:
    service = Service(fifo=True)
    service.script |= {"a1": (5.0, Returned()), "b1": (0.01, RAISED)}
    a1, a2, a3 = send(service.dead, "a1", "a2", "a3", group="a")
    b1, b2, b3 = send(service.dead, "b1", "b2", "b3", group="b")
    async with service.running():
        ends, _ = await service.replay()
    assert outcomes(ends) == {
        **dict.fromkeys((a1, a2, a3), "replayed"),
        b1: "failed_again",
        **dict.fromkeys((b2, b3), "refused"),
    }
    assert [body for body in service.bodies if body.startswith("a")] == ["a1", "a2", "a3"]
    assert [end.id for end in ends if end.id in (b1, b2, b3)] == [b1, b2, b3]
    assert {end.reason for end in ends if end.outcome == "refused"} == {
        "a message before it in its group was not replayed"
    }
    assert service.left == ["b1", "b2", "b3"]


@in_virtual_time
async def test_a_long_group_is_replayed_whole() -> None:
    service = Service(fifo=True, takes_s=3.0)
    send(service.dead, *(f"m{number:02}" for number in range(35)), group="only")
    async with service.running():
        ends, over = await service.replay()
    assert {end.outcome for end in ends} == {"replayed"}
    assert service.bodies == [f"m{number:02}" for number in range(35)]
    assert over == JobOver(None)


@in_virtual_time
async def test_what_the_mapping_would_not_run_stays_and_says_why() -> None:
    service = Service(
        ignores=lambda message: message.body == "foreign",
        unfit=lambda message: "the body is not JSON" if message.body == "broken" else None,
        passes=lambda _, data: data != b"filtered",
    )
    foreign, broken, filtered, good = send(service.dead, "foreign", "broken", "filtered", "good")
    async with service.running():
        ends, over = await service.replay()
    assert outcomes(ends) == {good: "replayed", **dict.fromkeys((foreign, broken, filtered), "refused")}
    reasons = {end.id: end.reason or "" for end in ends}
    assert "source does not want it" in reasons[foreign]
    assert reasons[broken] == "the body is not JSON"
    assert "filter_criteria" in reasons[filtered]
    assert (service.bodies, over) == (["good"], JobOver(None))
    assert service.left == ["foreign", "broken", "filtered"]


@in_virtual_time
async def test_what_is_unfit_in_a_group_stops_what_is_behind_it_and_not_what_is_before() -> None:
    service = Service(fifo=True, unfit=lambda message: "unreadable" if message.body == "a2" else None)
    a1, a2, a3 = send(service.dead, "a1", "a2", "a3", group="a")
    async with service.running():
        ends, _ = await service.replay()
    assert outcomes(ends) == {a1: "replayed", a2: "refused", a3: "refused"}
    assert service.left == ["a2", "a3"]


@in_virtual_time
async def test_a_short_outage_is_waited_for_and_a_long_one_stops_the_job() -> None:
    service = Service()
    send(service.dead, *(f"m{number}" for number in range(30)))
    service.source.fail("receive", SourceUnavailable("it answers 500"), times=3)
    async with service.running():
        ends, over = await service.replay()
        assert (len(ends), over) == (30, JobOver(None))
        send(service.dead, "one more")
        service.source = MemoryQueueSource(service.dead)
        service.source.fail("receive", SourceUnavailable("it answers 500"), times=10**6)
        began_s = asyncio.get_running_loop().time()
        ends, over = await service.replay()
        assert (ends, over) == ([], JobOver("it answers 500"))
        assert asyncio.get_running_loop().time() - began_s < OUTAGE_S + 1
    assert service.left == ["one more"]


@in_virtual_time
async def test_a_deletion_is_tried_again_and_what_cannot_be_deleted_is_told() -> None:
    service = Service()
    twice, never = send(service.dead, "twice", "never")
    service.source.refuse("delete", twice.removeprefix("sqs:"), times=2)
    service.source.refuse("delete", never.removeprefix("sqs:"), "AccessDenied", times=10**6)
    async with service.running():
        ends, _ = await service.replay()
    assert outcomes(ends) == {twice: "replayed", never: "refused"}
    [reason] = [end.reason for end in ends if end.id == never]
    assert reason == "it succeeded, but could not be deleted and will come again: AccessDenied"
    assert service.left == ["never"]
    assert sorted(service.bodies) == ["never", "twice"]


@in_virtual_time
async def test_deletes_that_are_not_answered_are_tried_again() -> None:
    service = Service()
    send(service.dead, "m")
    service.source.fail("delete", SourceUnavailable("half a body"), happens=True)
    async with service.running():
        [end], _ = await service.replay()
    assert end.outcome == "replayed"
    assert service.left == []


@in_virtual_time
async def test_deletions_share_calls() -> None:
    calls: list[int] = []

    class Counting(MemoryQueueSource):
        async def delete(self, rows: Any) -> Mapping[int, str]:
            calls.append(len(rows))
            return await super().delete(rows)

    service = Service()
    service.source = Counting(service.dead, latency_s=0.05)
    send(service.dead, *(f"m{number}" for number in range(60)))
    async with service.running():
        await service.replay()
    assert sum(calls) == 60
    assert max(calls) <= CALL_LIMIT
    assert len(calls) <= 20


@in_virtual_time
async def test_a_mapping_that_does_not_run_stops_the_job_in_time() -> None:
    service = Service()
    send(service.dead, *(f"m{number}" for number in range(100)))
    async with service.running():
        began_s = asyncio.get_running_loop().time()
        ends, over = await service.replay("away")
        assert asyncio.get_running_loop().time() - began_s < PATIENCE_S + 5
    assert {end.outcome for end in ends} == {"refused"}
    assert "away does not run" in (over.stopped or "")
    assert len(service.left) == 100
    assert service.dead.counts() == (100, 0, 0)


@in_virtual_time
async def test_a_drain_stops_the_job_and_gives_back_what_did_not_run() -> None:
    service = Service(takes_s=3.0)
    send(service.dead, *(f"m{number}" for number in range(100)))
    async with service.running():
        job = await service.replayer.start_queue("orders", "dead", 0.5)
        early = [await job.next() for _ in range(5)]
        service.replayer.lives["orders"].drain(30.0)
        ends, over = await listen(job)
    done = [*early, *(end for end in ends if end.outcome == "replayed")]
    assert 5 < len(done) == len(service.runs) < 100
    assert over.stopped == "the mapping is stopping"
    assert len(service.left) == 100 - len(done)
    assert service.dead.counts() == (len(service.left), 0, 0)


@in_virtual_time
async def test_what_has_run_is_deleted_and_told_before_all_ends() -> None:
    service = Service()
    service.source = SlowToDelete(service.dead)
    sent = send(service.dead, "m")
    async with service.running():
        job = await service.replayer.start_queue("orders", "dead", 60.0)
        await service.began.wait()
        await service.stop_orders()
        assert service.left == ["m"]
        await service.replayer.settle(5.0)
        assert service.left == []
    told = await job.next()
    assert isinstance(told, ReplayEnd)
    assert (told.id, told.outcome) == (sent[0], "replayed")


@in_virtual_time
async def test_what_cannot_be_deleted_does_not_keep_the_end_waiting() -> None:
    service = Service()
    service.source = slow = SlowToDelete(service.dead)
    slow.delete_s = 1000.0
    send(service.dead, "m")
    async with service.running():
        await service.replayer.start_queue("orders", "dead", 60.0)
        await service.began.wait()
        await service.stop_orders()
        began_s = asyncio.get_running_loop().time()
        await service.replayer.settle(5.0)
        assert asyncio.get_running_loop().time() - began_s == 5.0
    assert service.left == ["m"]


@in_virtual_time
async def test_a_job_that_is_cut_off_gives_back_what_it_held() -> None:
    service = Service()
    send(service.dead, *(f"m{number}" for number in range(10)))
    async with service.running():
        job = await service.replayer.start_queue("orders", "dead", 60.0)
        assert isinstance(await job.next(), ReplayEnd)
    assert service.dead.counts() == (9, 0, 0)
    assert await job.next() is None


@in_virtual_time
async def test_two_jobs_over_one_queue_share_its_messages() -> None:
    service = Service(takes_s=2.0)
    send(service.dead, *(f"m{number}" for number in range(100)))
    async with service.running():
        first = await service.replayer.start_queue("orders", "dead", 0.0)
        service.source = MemoryQueueSource(service.dead)
        second = await service.replayer.start_queue("orders", "dead", 0.0)
        (some, _), (others, _) = await listen(first), await listen(second)
    assert len(some) + len(others) == 100
    assert len(service.bodies) == len(set(service.bodies)) == 100
    assert service.left == []


@in_virtual_time
async def test_looking_shows_some_and_keeps_none() -> None:
    service = Service(unfit=lambda message: "unreadable" if message.body == "m1" else None)
    ids = send(service.dead, *(f"m{number}" for number in range(12)))
    async with service.running():
        found = await service.replayer.look("orders", "dead", 10)
        assert (found.queue, found.waiting) == ("dead", 12)
        assert [each.id for each in found.messages] == ids[:10]
        assert [each.preview for each in found.messages[:2]] == ["m0", "m1"]
        assert [each.why_not for each in found.messages[:2]] == [None, "unreadable"]
        assert found.messages[0].sent_at == "1970-01-01T00:16:40.000Z"
        assert service.dead.counts() == (12, 0, 0)
        service.source = MemoryQueueSource(service.dead)
        assert (await service.replayer.look("orders", "dead", 0)).messages == ()
    assert {held.receives for held in service.dead.messages.values()} == {0, 1}
    assert service.bodies == []


@in_virtual_time
async def test_looking_at_an_empty_queue() -> None:
    service = Service()
    async with service.running():
        found = await service.replayer.look("orders", "dead", 10)
    assert (found.waiting, found.messages) == (0, [])


@in_virtual_time
async def test_what_is_not_there_is_told_before_anything_begins() -> None:
    service = Service()
    async with service.running():
        with pytest.raises(NotFound, match="nobody"):
            await service.replay("nobody")
        service.source.fail("open", SourceUnavailable("no such queue"))
        with pytest.raises(SourceUnavailable, match="no such queue"):
            await service.replay()
        with pytest.raises(SourceUnavailable, match="is closed"):
            await service.source.receive(1, 0.0)


@in_virtual_time
async def test_a_mapping_that_is_disabled_is_told_before_anything_begins() -> None:
    service = Service()
    service.replayer.lives = {**service.replayer.lives, "off": service.life("off", MemoryQueueSource, enabled=False)}
    async with service.running():
        with pytest.raises(NotFound, match="off is disabled"):
            await service.replay("off")


def test_ids_are_those_of_the_messages() -> None:
    assert message_id(0x7B0C2F5E8A514C1D9F0E2D6A4C9B1A01) == "sqs:7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a01"
