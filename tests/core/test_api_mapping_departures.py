"""Mappings that are deleted go when nothing of them runs, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.api.mapping_departures import Alone, Departures, alone_with
from router.api.mapping_running import Stage
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Mapping
from router.errors import InUse
from router.ports import PutState, Store
from router.telemetry import Log
from tests.fakes.store import MemoryStore


class Lives:
    """What runs goes when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.daemon_ends = False

    def stage(self, name: str) -> Stage:
        return Stage.GONE if self.left.is_set() else Stage.LEAVING

    def last_result(self, name: str) -> str:
        return "OK"

    async def opened(self, name: str, within_s: float) -> None: ...

    async def gone(self, name: str) -> bool:
        self.asked.set()
        await self.left.wait()
        return not self.daemon_ends


def mapping(*, is_leaving: bool) -> Mapping:
    return Mapping(uuid="u", function="f", properties={}, name="u", is_leaving=is_leaving)


@asynccontextmanager
async def seeing_off(
    catalogue: Catalogue, lives: Lives, store: MemoryStore, alone: Alone | None = None
) -> AsyncIterator[Departures]:
    departures = Departures(catalogue, lives, alone or alone_with(store), Log(), retry_s=0.0)
    task = asyncio.create_task(departures.run())
    yield departures
    task.cancel()
    await asyncio.wait([task])


class Scene:
    async def start(self, *, is_leaving: bool) -> Scene:
        self.store, self.lives = MemoryStore(), Lives()
        self.catalogue = Catalogue(self.store)
        self.catalogue.follow = self._follow
        self.gone = asyncio.Event()
        await self.catalogue.put_mapping(mapping(is_leaving=is_leaving))
        await self.store.apply([PutState("u", "begun", "queue"), PutState("other", "begun", "queue")])
        return self

    async def _follow(self) -> None:
        if not self.catalogue.mappings:
            self.gone.set()


async def test_it_stays_while_something_runs_and_takes_its_texts_along() -> None:
    scene = await Scene().start(is_leaving=False)
    async with seeing_off(scene.catalogue, scene.lives, scene.store) as departures:
        await scene.catalogue.put_mapping(mapping(is_leaving=True))
        departures.begin()
        await scene.lives.asked.wait()
        assert scene.catalogue.mapping("u")
        scene.lives.left.set()
        await asyncio.wait_for(scene.gone.wait(), 5)
    assert not await scene.store.states("u")
    assert await scene.store.states("other")
    again = Catalogue(scene.store)
    await again.load()
    assert not again.mappings


async def test_a_start_goes_on_with_what_was_leaving() -> None:
    scene = await Scene().start(is_leaving=True)
    scene.lives.left.set()
    async with seeing_off(scene.catalogue, scene.lives, scene.store):
        await asyncio.wait_for(scene.gone.wait(), 5)


async def test_what_the_daemons_end_keeps_from_leaving_is_left_to_the_next_start() -> None:
    scene = await Scene().start(is_leaving=True)
    scene.lives.daemon_ends = True
    async with seeing_off(scene.catalogue, scene.lives, scene.store):
        await scene.lives.asked.wait()
        scene.lives.left.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    record = scene.catalogue.mapping("u")
    assert record is not None
    assert record.is_leaving
    assert await scene.store.states("u")


async def test_a_store_that_cannot_write_is_asked_again() -> None:
    scene = await Scene().start(is_leaving=True)
    scene.store.write_fault = "disk full"
    scene.lives.left.set()
    async with seeing_off(scene.catalogue, scene.lives, scene.store):
        await scene.lives.asked.wait()
        await asyncio.sleep(0)
        assert scene.catalogue.mapping("u")
        scene.store.write_fault = None
        await asyncio.wait_for(scene.gone.wait(), 5)


async def test_nothing_is_deleted_while_another_replica_runs_it() -> None:
    scene = await Scene().start(is_leaving=True)
    scene.lives.left.set()
    asked, runs = asyncio.Event(), True

    @asynccontextmanager
    async def alone(_: str) -> AsyncIterator[Store]:
        asked.set()
        if runs:
            raise InUse("replica b runs it")
        yield scene.store

    async with seeing_off(scene.catalogue, scene.lives, scene.store, alone):
        await asked.wait()
        assert await scene.store.states("u")
        runs = False
        await asyncio.wait_for(scene.gone.wait(), 5)
    assert not await scene.store.states("u")


async def test_what_another_replica_has_seen_off_is_not_written_again() -> None:
    scene = await Scene().start(is_leaving=True)
    scene.lives.left.set()
    asked, goes_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def alone(_: str) -> AsyncIterator[Store]:
        asked.set()
        await goes_on.wait()
        yield scene.store

    async with seeing_off(scene.catalogue, scene.lives, scene.store, alone):
        await asked.wait()
        await scene.catalogue.drop_mapping("u")
        await scene.store.apply([PutState("u", "begun", "a new one of this name")])
        goes_on.set()
        for _ in range(10):
            await asyncio.sleep(0)
    assert await scene.store.states("u")


async def test_it_ends_also_where_it_is_told_of_one_at_that_moment() -> None:
    scene = await Scene().start(is_leaving=False)
    departures = Departures(scene.catalogue, scene.lives, alone_with(scene.store), Log())
    task = asyncio.create_task(departures.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    departures.begin()
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done
    assert task.cancelled()
