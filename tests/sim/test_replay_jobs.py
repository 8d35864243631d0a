"""Replay jobs over several mappings: what one mapping lacks holds up no other, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from random import Random

from router.core.model import KAFKA_RULES, EventSourceMapping, FunctionError, Outcome, Refused, Returned
from router.errors import SourceUnavailable
from router.life import MappingLife, MappingParts
from router.ports import KeepFailure, Selection
from router.replay.end import UNHEARD_LIMIT, JobOver, ReplayEnd
from router.replay.replay import PATIENCE_S, REPLAYS_AT_ONCE, Replayer
from router.stored import PAGE
from router.stream_side import plug_stream
from router.telemetry import Log, Metrics
from tests.fakes.failures import entry
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemoryRecord, MemorySource, MemoryStream
from tests.sim.virtual_time import run


class Away(MemorySource):
    """A source that nobody reaches."""

    async def open(self) -> None:
        raise SourceUnavailable("the brokers are away")


async def keep_nothing(*_: object) -> None:
    raise AssertionError("nothing fails here")


class Service:
    """Two mappings over one store: `orders` runs, the source of `away` does not answer."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.replayer = Replayer(self.store, Log())
        stream = MemoryStream()
        self.source = MemorySource(stream)
        self.outcome: Outcome = Returned()
        self.replayer.lives = {
            "orders": self.life("orders", lambda: self.source),
            "away": self.life("away", lambda: Away(stream)),
        }

    def life(self, name: str, make_source: Callable[[], MemorySource]) -> MappingLife:
        parts = MappingParts(
            EventSourceMapping(name, "function", KAFKA_RULES),
            enabled=True,
            source_name="memory",
            make_source=make_source,
            plug=plug_stream,
            invoker=MemoryInvoker(lambda *_: (0.01, self.outcome)),
            passes=None,
            keep=keep_nothing,
        )
        return MappingLife(
            parts,
            store=self.store,
            replays=self.replayer,
            metrics=Metrics().of(name),
            log=Log(),
            wall=lambda: 1e9,
            rng=Random(1),
        )

    async def stored(
        self, failure_id: str, mapping: str, event: bytes | None = None, *, failed_at_s: float = 1.0
    ) -> None:
        """Keep a failure of one record."""
        whole = self.source.codec.event([MemoryRecord("memory-0", 4, 0, b"k", b"v")])
        kept = entry(failure_id, mapping=mapping, shard="memory-0", failed_at_s=failed_at_s)
        await self.store.apply([KeepFailure(kept, whole if event is None else event)])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        works = [asyncio.create_task(life.run()) for life in self.replayer.lives.values()]
        works.append(asyncio.create_task(self.replayer.run()))
        await self.replayer.lives["orders"].running.wait()
        yield
        for work in works:
            work.cancel()
        await asyncio.wait(works)

    async def ends(self, *failure_ids: str) -> list[ReplayEnd]:
        """Replay these, and give the ends as they come."""
        return await self.ends_of(Selection(ids=failure_ids))

    async def ends_of(self, selection: Selection) -> list[ReplayEnd]:
        job = self.replayer.start(selection, 0.0)
        ends = []
        while isinstance(end := await job.next(), ReplayEnd):
            ends.append(end)
        assert end == JobOver(None)
        assert await job.next() is None
        return ends

    async def statuses(self) -> dict[str, str]:
        return {each.batch.id: each.status for each in await self.store.failures(Selection())}


def test_a_mapping_that_does_not_run_holds_up_no_other_and_is_given_up_in_time() -> None:
    async def main() -> None:
        service = Service()
        await service.stored("f1", "away")
        await service.stored("f2", "orders")
        async with service.running():
            began_s = asyncio.get_running_loop().time()
            ends = await service.ends("f1", "f2")
            assert [(end.id, end.outcome) for end in ends] == [("f2", "replayed"), ("f1", "refused")]
            assert "away does not run" in (ends[1].reason or "")
            assert asyncio.get_running_loop().time() - began_s < PATIENCE_S + 1
        assert await service.statuses() == {"f1": "stored", "f2": "replayed"}

    run(main())


def test_a_replay_that_was_given_up_leaves_nothing_that_waits() -> None:
    async def main() -> None:
        service = Service()
        await service.stored("f1", "away")
        async with service.running():
            before = asyncio.all_tasks()
            assert [end.outcome for end in await service.ends("f1")] == ["refused"]
            await asyncio.sleep(1.0)
            assert not [task for task in asyncio.all_tasks() - before if "Event.wait" in repr(task)]

    run(main())


def test_a_replay_whose_function_is_gone_is_refused_at_once_and_may_be_asked_for_again() -> None:
    async def main() -> None:
        service = Service()
        service.outcome = Refused(FunctionError("ResourceNotFoundException", "Function not found: function"))
        await service.stored("f1", "orders")
        async with service.running():
            [end] = await service.ends("f1")
            assert end.outcome == "refused"
            assert end.reason == "its function is gone: Function not found: function; see `headrace status`"
            assert await service.statuses() == {"f1": "stored"}
            service.outcome = Returned()
            [end] = await service.ends("f1")
            assert end.outcome == "replayed"

    run(main())


def test_a_stored_event_that_cannot_be_read_is_refused_alone() -> None:
    async def main() -> None:
        service = Service()
        await service.stored("f1", "orders", event=b"\xff not an event")
        await service.stored("f2", "orders")
        async with service.running():
            ends = {end.id: end for end in await service.ends("f1", "f2")}
        assert "cannot be read" in (ends["f1"].reason or "")
        assert ends["f2"].outcome == "replayed"
        assert await service.statuses() == {"f1": "stored", "f2": "replayed"}

    run(main())


def test_what_a_job_claims_while_the_store_is_asked_for_what_was_left_runs_once() -> None:
    async def main() -> None:
        service = Service()
        await service.stored("f1", "orders")
        await service.stored("f2", "orders")
        await service.store.claim(["f2"])
        service.store.read_fault = "locked"
        works = [asyncio.create_task(service.replayer.run())]
        await asyncio.sleep(0.5)
        service.store.read_fault = None
        job = service.replayer.start(Selection(ids=("f1", "f2")), 0.0)
        await asyncio.sleep(10.0)
        works.append(asyncio.create_task(service.replayer.lives["orders"].run()))
        async with asyncio.timeout(100.0):
            ends = [await job.next(), await job.next()]
            assert await job.next() == JobOver(None)
        outcomes = {end.id: end.outcome for end in ends if isinstance(end, ReplayEnd)}
        assert outcomes == {"f2": "refused", "f1": "replayed"}
        await asyncio.sleep(10.0)
        assert await service.statuses() == {"f1": "replayed", "f2": "replayed"}
        assert not any(work.done() for work in works)
        for work in works:
            work.cancel()
        await asyncio.wait(works)

    run(main())


def test_a_long_job_runs_everything_once_and_oldest_first() -> None:
    async def main() -> None:
        service = Service()
        names = [f"f{number:03}" for number in range(3 * PAGE + 7)]
        for number, name in enumerate(names):
            await service.stored(name, "orders", failed_at_s=float(number))
        reads = service.store.reads
        async with service.running():
            job = service.replayer.start(Selection(mapping="orders"), 0.0)
            ends: list[ReplayEnd] = []
            while isinstance(end := await job.next(), ReplayEnd):
                ends.append(end)
                statuses = await service.statuses()
                assert list(statuses.values()).count("replaying") <= REPLAYS_AT_ONCE
        assert [end.id for end in ends] == names
        assert {end.outcome for end in ends} == {"replayed"}
        assert service.store.reads - reads < 3 * len(names)

    run(main())


def test_a_long_job_waits_once_for_a_mapping_that_does_not_run() -> None:
    async def main() -> None:
        service = Service()
        for number in range(5 * REPLAYS_AT_ONCE):
            await service.stored(f"a{number:03}", "away", failed_at_s=float(number))
        await service.stored("f", "orders", failed_at_s=1e9)
        async with service.running():
            began_s = asyncio.get_running_loop().time()
            ends = {end.id: end for end in await service.ends_of(Selection())}
            assert asyncio.get_running_loop().time() - began_s < PATIENCE_S + 5
        assert ends.pop("f").outcome == "replayed"
        assert len(ends) == 5 * REPLAYS_AT_ONCE
        assert {end.reason for end in ends.values()} == {"its mapping away does not run; see `headrace status`"}
        assert set((await service.statuses()).values()) == {"stored", "replayed"}

    run(main())


def test_a_job_that_nobody_listens_to_goes_on() -> None:
    async def main() -> None:
        service = Service()
        for number in range(UNHEARD_LIMIT + 200):
            await service.stored(f"f{number:04}", "orders", failed_at_s=float(number))
        async with service.running():
            job = service.replayer.start(Selection(), 0.0)
            await job.next()
            job.leave()
            await asyncio.sleep(600.0)
            assert set((await service.statuses()).values()) == {"replayed"}

    run(main())


def test_a_rate_is_kept() -> None:
    async def main() -> None:
        service = Service()
        for number in range(30):
            await service.stored(f"f{number:02}", "orders", failed_at_s=float(number))
        async with service.running():
            began_s = asyncio.get_running_loop().time()
            job = service.replayer.start(Selection(), 0.5)
            while isinstance(await job.next(), ReplayEnd):
                pass
            assert 14.5 <= asyncio.get_running_loop().time() - began_s < 16

    run(main())
