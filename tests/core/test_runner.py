"""What a run does with answers that come when what they are about is another's by now, or ours anew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.core import facts as f
from router.core.model import STREAM_RULES, Batch, EventSourceMapping, Part
from router.errors import LeaseLost
from router.ports import Holds
from router.replay.replay import Replayer
from router.runner import Runner
from router.telemetry import Log, Metrics
from tests.fakes.failures import failed_batch
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.shard_stream import MemoryShardCodec
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemoryRecord, memory_chunk
from tests.sim.virtual_time import in_virtual_time

MAPPING = EventSourceMapping("orders", "price", STREAM_RULES)


class Engine:
    """Gives one batch up, and hears what becomes of it."""

    records_done = 0

    def __init__(self) -> None:
        self.facts: list[Any] = []

    def feed(self, fact: Any, now: object) -> list[f.Command]:
        self.facts.append(fact)
        match fact:
            case f.Due():
                chunk = memory_chunk("one", [MemoryRecord("one", 15, 0, b"key", b"value")], 15)
                return [f.Keep(failed_batch(shard="one"), Batch("b", "one", 0, [Part(chunk, [0])], 1))]
            case f.DrainRequested():
                return [f.Finished()]
        return []


class Side:
    """A source whose one shard is leased."""

    codec = MemoryShardCodec()
    token = 5

    async def follow(self, post: object, spawn: object) -> None:
        pass

    def fences(self, shard: str) -> list[Holds]:
        return [Holds("orders", shard, self.token)]

    def stop(self) -> None:
        pass

    def left(self) -> None:
        pass


@pytest.mark.parametrize(("token", "told"), [(5, [f.ShardLost("one")]), (7, [])])
@in_virtual_time
async def test_a_failure_that_is_refused_says_that_its_shard_is_lost_unless_that_is_ours_anew(
    token: int, told: list[f.Fact]
) -> None:
    engine, side, kept = Engine(), Side(), []

    async def keep(_: object, __: bytes, ___: object, fences: object) -> None:
        kept.append(fences)
        await asyncio.sleep(10)
        raise LeaseLost("it is another's")

    runner = Runner(
        MAPPING,
        engine,  # type: ignore[arg-type]
        side,  # type: ignore[arg-type]
        MemoryInvoker(lambda *_: (0.0, None), 1),  # type: ignore[arg-type, return-value]
        keep=keep,
        replays=Replayer(MemoryStore(), Log()),
        metrics=Metrics().of("orders"),
        log=Log(),
        wall=lambda: 0.0,
    )
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(1)
    runner.post(f.Due())
    await asyncio.sleep(1)
    side.token = token
    await asyncio.sleep(20)
    runner.post(f.DrainRequested(0.0))
    await running
    assert kept == [[Holds("orders", "one", 5)]]
    assert [fact for fact in engine.facts if isinstance(fact, f.ShardLost)] == told
