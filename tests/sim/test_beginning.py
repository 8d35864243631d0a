"""How mappings start: whose state it is, a source that forgot where we were, a failing store, a bug at every start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest
import structlog

from router.core.model import KAFKA_RULES, EventSourceMapping, Returned
from router.errors import InUse, NotFound
from router.identity import BEGUN, Holding, accept, forget
from router.life import MappingHealth, MappingLife, MappingParts
from router.ports import KeepFailure, PutState, Selection
from router.replay.end import ReplayEnd
from router.replay.replay import Replayer
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


def make_life(
    store: MemoryStore, make_source: Callable[[], MemorySource], renamed_from: str | None = None
) -> MappingLife:
    parts = MappingParts(
        EventSourceMapping("orders", "function", KAFKA_RULES),
        enabled=True,
        source_name="memory",
        make_source=make_source,
        plug=plug_stream,
        invoker=MemoryInvoker(lambda *_: (0.01, Returned())),
        passes=None,
        keep=keep_nothing,
        renamed_from=renamed_from,
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


def test_another_source_under_the_same_name_is_refused_until_it_is_accepted() -> None:
    async def main() -> None:
        store = MemoryStore()
        await live_once(store, MemorySource(MemoryStream()))
        opened: list[MemorySource] = []

        def other() -> MemorySource:
            opened.append(Forgetful(MemoryStream()))
            opened[-1].identity = "another"
            return opened[-1]

        with structlog.testing.capture_logs() as lines:
            life = make_life(store, other)
            task = asyncio.create_task(life.run())
            await asyncio.sleep(3600.0)
            assert (len(opened), life.health().state, life.is_down) == (1, "failed", True)
            code, sentence = life.health().reason or ("", "")
            assert (code, "headrace mapping accept orders" in sentence) == ("SourceChanged", True)
            with pytest.raises(NotFound, match="nothing is kept"):
                await accept(store, "clicks", {"orders": life})
            assert (await accept(store, "orders", {"orders": life})).source == "memory"
            await life.running.wait()
            with pytest.raises(NotFound, match="reads another, as it always has"):
                await accept(store, "orders", {"orders": life})
            life.drain(5.0)
            await task
        events = [line["event"] for line in lines]
        assert ("mapping.refused" in events, "position.expired" in events) == (True, False)

    run(main())


def test_a_mapping_whose_texts_are_gone_waits_until_that_is_accepted_and_keeps_what_is_left() -> None:
    async def main() -> None:
        store = MemoryStore()
        await live_once(store, MemorySource(MemoryStream()))
        store.gone.add("orders")
        life = make_life(store, lambda: MemorySource(MemoryStream()))
        task = asyncio.create_task(life.run())
        await asyncio.sleep(3600.0)
        assert (life.health().state, (life.health().reason or ("",))[0]) == ("failed", "StateGone")
        await accept(store, "orders", {"orders": life})
        await life.running.wait()
        assert (await store.states("orders"))[BEGUN] == "memory"
        with pytest.raises(NotFound, match="as it always has"):
            await accept(store, "orders", {"orders": life})
        life.drain(5.0)
        await task

    run(main())


def test_a_mapping_whose_texts_are_gone_comes_to_rest_also_while_it_starts() -> None:
    async def bring_to_rest(life: MappingLife) -> None:
        async with life.still():
            pass

    async def main() -> list[str]:
        store = MemoryStore()
        store.gone.add("orders")
        with structlog.testing.capture_logs() as lines:
            life = make_life(store, lambda: MemorySource(MemoryStream()))
            tasks = [asyncio.create_task(life.run()), asyncio.create_task(bring_to_rest(life))]
            for _ in range(1000):  # turns of the loop: one that asks again and again lets no virtual time pass
                await asyncio.sleep(0)
            assert (tasks[1].done(), life.is_undecided) == (True, True)
            life.drain(5.0)
            await tasks[0]
        return [line["event"] for line in lines]

    assert run(main()).count("mapping.refused") <= 2


def test_what_is_left_of_a_mapping_whose_texts_are_gone_can_be_forgotten() -> None:
    async def main() -> None:
        store = MemoryStore()
        await live_once(store, MemorySource(MemoryStream()))
        await store.apply([KeepFailure(entry(), b"event")])
        store.gone.add("orders")
        looked = await forget(store, "orders", {}, only_look=True)
        assert (looked.states, looked.failures) == (0, 1)
        assert store.gone == {"orders"}
        assert (await forget(store, "orders", {})).failures == 1
        assert (await store.states("orders"), await store.failures(Selection())) == ({}, [])

    run(main())


def test_a_source_that_never_closes_does_not_hold_up_a_stop() -> None:
    class Endless(MemorySource):
        async def close(self) -> None:
            await asyncio.get_running_loop().create_future()

    async def main() -> list[str]:
        return await live_once(MemoryStore(), Endless(MemoryStream()))

    assert run(main())[-2:] == ["mapping.drained", "source.not_closed"]


def test_a_mapping_that_waits_for_a_decision_leaves_when_it_is_told() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.apply([PutState("orders", BEGUN, "another")])
        life = make_life(store, lambda: MemorySource(MemoryStream()))
        task = asyncio.create_task(life.run())
        await asyncio.sleep(1.0)
        assert life.is_undecided
        life.drain(5.0)
        await task

    run(main())


def test_what_was_kept_under_a_former_name_is_taken_over_once_the_store_answers() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.apply(
            [KeepFailure(entry("f1", mapping="purchases"), EVENT), PutState("purchases", BEGUN, "memory")]
        )
        store.write_fault = "the disk is full"
        life = make_life(store, lambda: MemorySource(MemoryStream()), renamed_from="purchases")
        task = asyncio.create_task(life.take_over())
        await asyncio.sleep(1.0)
        assert life.health().reason == ("StateUnavailable", "the disk is full")
        store.write_fault = None
        await task
        assert [each.batch.mapping for each in await store.failures(Selection())] == ["orders"]
        assert await store.states("orders") == {BEGUN: "memory"}
        await life.take_over()

    run(main())


def test_state_under_both_names_is_told_and_waits_until_one_is_forgotten() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.apply([PutState("orders", BEGUN, "memory"), PutState("purchases", "message:1", "[]")])
        life = make_life(store, lambda: MemorySource(MemoryStream()), renamed_from="purchases")
        task = asyncio.create_task(life.take_over())
        await asyncio.sleep(1.0)
        code, sentence = life.health().reason or ("", "")
        assert (code, "headrace mapping forget purchases" in sentence) == ("RenameConflict", True)
        lives = {"orders": life}
        assert (await forget(store, "purchases", lives, only_look=True)).states == 1
        assert not task.done()
        await forget(store, "purchases", lives)
        await task
        assert await store.states("orders") == {BEGUN: "memory"}

    run(main())


def test_what_a_mapping_left_is_forgotten_whole_and_what_runs_is_not() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.apply([KeepFailure(entry(f"f{number}"), EVENT) for number in range(1200)])
        await store.apply([KeepFailure(entry("other", mapping="clicks"), EVENT), PutState("orders", BEGUN, "memory")])
        life = make_life(store, lambda: MemorySource(MemoryStream()))
        with pytest.raises(InUse, match="mapping orders runs"):
            await forget(store, "orders", {"orders": life})
        assert await forget(store, "orders", {}) == Holding("orders", 1, 1200, 1200, "memory")
        assert [each.batch.id for each in await store.failures(Selection())] == ["other"]
        with pytest.raises(NotFound):
            await forget(store, "orders", {})

    run(main())


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
            end = await replayer.start(Selection(ids=("f1",)), 0.0).next()
        assert isinstance(end, ReplayEnd)
        assert (end.outcome, end.reason) == (
            "refused",
            "its mapping 'orders' is not configured, disabled, or has failed; see `headrace status`",
        )
        assert [each.status for each in await store.failures(Selection())] == ["stored"]
        work.cancel()
        await asyncio.wait([work])

    run(main())
