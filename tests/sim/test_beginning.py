"""How mappings start: a source that forgot where we were, a state directory that fails, a bug at every start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import structlog

from router.core.model import KAFKA_RULES, EventSourceMapping, Returned
from router.life import MappingHealth, MappingLife, MappingParts
from router.ports import KeepFailure, Selection
from router.replay import Replayer
from router.stream_side import plug_stream
from router.telemetry import Log, Metrics
from tests.fakes.failures import EVENT, entry
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemorySource, MemoryStream
from tests.sim.virtual_time import run


class Forgetful(MemorySource):
    """A source whose group had no committed positions when it was opened."""

    pinned = True


async def keep_nothing(*_: object) -> None:
    raise AssertionError("nothing fails here")


def make_life(store: MemoryStore, make_source: Callable[[], MemorySource]) -> MappingLife:
    parts = MappingParts(
        EventSourceMapping("orders", "function", KAFKA_RULES),
        enabled=True,
        source_name="memory",
        make_source=make_source,
        plug=plug_stream,
        invoker=MemoryInvoker(lambda *_: (0.01, Returned())),
        passes=None,
        keep=keep_nothing,
    )
    log = Log()
    return MappingLife(
        parts,
        store=store,
        replays=Replayer(store, log),
        metrics=Metrics().of("orders"),
        log=log,
        wall=lambda: 1e9,
        rng=Random(1),
    )


async def live_once(store: MemoryStore, source: MemorySource) -> list[str]:
    """Run a mapping from its start to its drain, and give the events it logged."""
    with structlog.testing.capture_logs() as lines:
        life = make_life(store, lambda: source)
        task = asyncio.create_task(life.run())
        await life.running.wait()
        life.drain(5.0)
        await task
    return [line["event"] for line in lines]


def test_a_first_start_is_no_news() -> None:
    async def main() -> list[str]:
        return await live_once(MemoryStore(), Forgetful(MemoryStream()))

    assert "position.expired" not in run(main())


def test_positions_that_are_gone_are_told() -> None:
    async def main() -> tuple[list[str], list[str]]:
        store = MemoryStore()
        first = await live_once(store, MemorySource(MemoryStream()))
        return first, await live_once(store, Forgetful(MemoryStream()))

    first, second = run(main())
    assert "position.expired" not in first
    assert "position.expired" in second


def test_a_source_that_is_read_in_a_slower_way_is_told_once() -> None:
    class Slow(MemorySource):
        handicap = "its client is another one"

    async def main() -> list[str]:
        return await live_once(MemoryStore(), Slow(MemoryStream()))

    assert run(main()).count("source.slowed") == 1


def test_another_source_under_the_same_name_starts_anew_without_alarm() -> None:
    async def main() -> list[str]:
        store = MemoryStore()
        await live_once(store, MemorySource(MemoryStream()))
        other = Forgetful(MemoryStream())
        other.identity = "another"
        return await live_once(store, other)

    assert "position.expired" not in run(main())


def test_a_state_directory_that_cannot_be_read_is_not_blamed_on_the_source() -> None:
    async def main() -> None:
        store = MemoryStore()
        store.read_fault = "disk I/O error"
        life = make_life(store, lambda: MemorySource(MemoryStream()))
        task = asyncio.create_task(life.run())
        await asyncio.sleep(0.001)
        assert life.health() == MappingHealth("starting", ("StateUnavailable", "disk I/O error"))
        store.read_fault = None
        await life.running.wait()
        assert life.health().reason is None
        life.drain(5.0)
        await task

    run(main())


def test_a_replay_through_a_mapping_that_stays_down_is_refused_at_once() -> None:
    def broken() -> MemorySource:
        raise ValueError("a bug")

    async def main() -> None:
        store = MemoryStore()
        await store.apply([KeepFailure(entry("f1"), EVENT)])
        life = make_life(store, broken)
        await life.run()
        assert life.health() == MappingHealth("failed", ("Crashed", "a bug"))
        replayer = Replayer(store, Log())
        replayer.lives = {"orders": life}
        work = asyncio.create_task(replayer.run())
        await asyncio.sleep(0.001)
        async with asyncio.timeout(1.0):
            end = await replayer.start(["f1"], 0.0).get()
        assert end is not None
        assert (end.outcome, end.reason) == (
            "refused",
            "its mapping 'orders' is not configured, disabled, or has failed; see `headrace status`",
        )
        assert [each.status for each in await store.failures(Selection())] == ["stored"]
        work.cancel()
        await asyncio.wait([work])

    run(main())
