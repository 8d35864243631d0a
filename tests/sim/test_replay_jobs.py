"""Replay jobs over several mappings: what one mapping lacks holds up no other, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from random import Random

from router.core.model import KAFKA_RULES, EventSourceMapping, Returned
from router.errors import SourceUnavailable
from router.life import MappingLife, MappingParts
from router.ports import KeepFailure, Selection
from router.replay import PATIENCE_S, ReplayEnd, Replayer
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
            invoker=MemoryInvoker(lambda *_: (0.01, Returned())),
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

    async def stored(self, failure_id: str, mapping: str, event: bytes | None = None) -> None:
        """Keep a failure of one record."""
        whole = self.source.codec.event([MemoryRecord("memory-0", 4, 0, b"k", b"v")])
        kept = entry(failure_id, mapping=mapping, shard="memory-0")
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
        """Replay, and give the ends as they come."""
        job = self.replayer.start(failure_ids, 0.0)
        ends = []
        while (end := await job.get()) is not None:
            ends.append(end)
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
        job = service.replayer.start(["f1", "f2"], 0.0)
        await asyncio.sleep(10.0)
        works.append(asyncio.create_task(service.replayer.lives["orders"].run()))
        async with asyncio.timeout(100.0):
            ends = [await job.get(), await job.get(), await job.get()]
        assert [end and (end.id, end.outcome) for end in ends] == [("f2", "refused"), ("f1", "replayed"), None]
        await asyncio.sleep(10.0)
        assert await service.statuses() == {"f1": "replayed", "f2": "replayed"}
        assert not any(work.done() for work in works)
        for work in works:
            work.cancel()
        await asyncio.wait(works)

    run(main())
