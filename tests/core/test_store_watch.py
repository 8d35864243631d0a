"""The eye on a store that replicas share: what changes is told once, and a mapping whose texts are gone rests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from router.errors import InUse, StoreUnavailable
from router.fleet.store_watch import StoreWatch
from router.ports import Finding, StoreHealth
from router.telemetry import Log, Metrics

FULL = Finding("memory", "its memory is used to 91%")
EVICTS = Finding("eviction", "it may throw keys away", is_refused=True)


class Looked:
    def __init__(self) -> None:
        self.health: StoreHealth | None = StoreHealth()

    async def look(self) -> StoreHealth:
        if self.health is None:
            raise StoreUnavailable("it is away")
        return self.health


class Life:
    def __init__(self, *, is_down: bool = False, rests: bool = True) -> None:
        self.is_down = is_down
        self.rests = rests
        self.rested = 0

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        if not self.rests:
            raise InUse("it does not come to rest")
        self.rested += 1
        yield


class Scene:
    def __init__(self, **lives: Life) -> None:
        self.store = Looked()
        self.metrics = Metrics()
        self.lives: Mapping[str, Life] = lives
        self.watch = StoreWatch(self.store, lambda: self.lives, self.metrics.store_findings, Log())

    async def see(self, health: StoreHealth | None) -> list[dict[str, Any]]:
        """Let it be so, and give what is told."""
        self.store.health = health
        with structlog.testing.capture_logs() as lines:
            await self.watch.look()
        return [dict(line) for line in lines]

    def gauges(self) -> dict[str, float]:
        [family] = self.metrics.store_findings.collect()
        return {sample.labels["what"]: sample.value for sample in family.samples}


async def test_a_finding_is_told_when_it_begins_and_when_all_are_over() -> None:
    scene = Scene()
    [told] = await scene.see(StoreHealth([FULL]))
    assert (told["event"], told["what"], told["error"]) == ("store.doubted", "memory", FULL.text)
    assert scene.gauges() == {"memory": 1.0}
    assert await scene.see(StoreHealth([Finding("memory", "its memory is used to 92%")])) == []
    assert scene.watch.findings() == ["its memory is used to 92%"]
    [told] = await scene.see(StoreHealth([FULL, EVICTS]))
    assert (told["event"], told["what"]) == ("store.refused", "eviction")
    assert scene.gauges() == {"memory": 1.0, "eviction": 1.0}
    assert [each["event"] for each in await scene.see(StoreHealth())] == ["store.mended"]
    assert (scene.gauges(), scene.watch.findings()) == ({}, [])


async def test_a_store_that_does_not_answer_is_told_and_what_was_seen_stays() -> None:
    scene = Scene()
    await scene.see(StoreHealth([FULL]))
    assert [each["event"] for each in await scene.see(None)] == ["store.failed"]
    assert scene.watch.findings() == [FULL.text]


async def test_a_mapping_whose_texts_are_gone_comes_to_rest() -> None:
    lives = {"orders": Life(), "clicks": Life(), "refused": Life(is_down=True), "busy": Life(rests=False)}
    scene = Scene(**lives)
    [told] = await scene.see(StoreHealth(gone=frozenset({"orders", "refused", "busy", "removed"})))
    assert (told["event"], told["mappings"]) == ("state.lost", ["busy", "orders", "refused", "removed"])
    assert {name: life.rested for name, life in lives.items()} == {"orders": 1, "clicks": 0, "refused": 0, "busy": 0}
    assert await scene.see(StoreHealth(gone=frozenset({"orders"}))) == []


async def test_a_store_that_has_lost_all_is_told_also_where_no_mapping_was_begun() -> None:
    scene = Scene()
    [told] = await scene.see(StoreHealth(is_another=True))
    assert (told["event"], told["mappings"]) == ("state.lost", [])
    assert await scene.see(StoreHealth(is_another=True)) == []
