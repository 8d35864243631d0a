"""Mappings that are moved in their stream, on virtual time: a shard is where it was or where it is to be."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest
import structlog

from router.checkpoint_file import Saved
from router.commands.selecting import Wanted
from router.core.facts import Progress
from router.core.model import (
    KAFKA_RULES,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Returned,
)
from router.errors import ConfigError, InUse, NotFound, RouterError, SourceUnavailable
from router.life import MappingLife, MappingParts
from router.ports import PutState
from router.replay.replay import Replayer
from router.seeking import Seeking
from router.steering import Steering
from router.stream_side import plug_stream
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.places import MemoryPlaces
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemoryShard, MemorySource, MemoryStream
from tests.sim.virtual_time import in_virtual_time

SHARDS = ("memory-0", "memory-1")
FIRST, SECOND = SHARDS
PATIENCE_S = 3600.0

START = Wanted(edge="TRIM_HORIZON")
END = Wanted(edge="LATEST")


class Machine:
    """One mapping over two shards, and what outlives its daemons."""

    def __init__(self, **rules: Any) -> None:
        self.store = MemoryStore()
        self.stream = MemoryStream(SHARDS)
        self.mapping = EventSourceMapping(
            "orders", "function", KAFKA_RULES, window_s=0.0, drain_s=10.0, **{"batch_size": 1, **rules}
        )
        #: Offsets that the function was given, by shard, in order.
        self.begun: dict[str, list[int]] = {shard: [] for shard in SHARDS}
        self.takes_s = 0.01
        self.poison: set[bytes] = set()
        self.faults: dict[str, RouterError] = {}
        self.incarnation = "first"
        self._news = asyncio.Event()
        self.life: MappingLife
        self.seeking: Seeking
        self.steering: Steering

    def put(self, count: int) -> None:
        """Append so many records to each shard, one a second."""
        for number in range(count):
            for shard in SHARDS:
                self.stream.append(shard, b"%d" % number, time_ms=1000 * self.stream.shards[shard].end)

    @property
    def places(self) -> tuple[int, ...]:
        """The next offset of each shard, as it is committed."""
        return tuple(self.stream.committed[shard].checkpoint + 1 for shard in SHARDS)

    def _make_places(self) -> MemoryPlaces:
        places = MemoryPlaces(self.stream, incarnation=self.incarnation)
        places.faults = self.faults
        return places

    def _run(self, _: str, event: bytes) -> tuple[float, Outcome]:
        fails = False
        for record in json.loads(event)["records"]:
            self.begun[record["partition"]].append(record["offset"])
            fails |= base64.b64decode(record["value"]) in self.poison
        self._news.set()
        outcome = Failed(FailureKind.RAISED, FunctionError("ValueError", "poison")) if fails else Returned()
        return self.takes_s, outcome

    def boot(self) -> asyncio.Task[None]:
        """Start a daemon's life."""
        parts = MappingParts(
            self.mapping,
            enabled=True,
            source_name="memory",
            make_source=lambda: MemorySource(self.stream),
            plug=plug_stream,
            invoker=MemoryInvoker(self._run, 4),
            passes=None,
            keep=keep_nothing,
            make_places=lambda _: self._make_places(),
        )
        self.life = MappingLife(
            parts,
            store=self.store,
            replays=Replayer(self.store, Log()),
            metrics=Metrics().of("orders"),
            log=Log(),
            wall=lambda: 1e9,
            rng=Random(1),
        )
        lives = {"orders": self.life}
        self.steering = Steering(self.store, lives, lambda: 1e9)
        self.seeking = Seeking(self.store, lives)
        return asyncio.create_task(self.life.run())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A daemon's life, which drains at its end."""
        work = self.boot()
        await self.life.running.wait()
        yield
        self.life.drain(10.0)
        await work

    async def seek(self, wanted: Wanted, shard: str | None = None) -> dict[str, Any]:
        return await self.seeking.seek("orders", wanted, shard, apply=True)

    async def preview(self, wanted: Wanted, shard: str | None = None) -> dict[str, Any]:
        return await self.seeking.seek("orders", wanted, shard, apply=False)

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not fact():
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), 1.0)

    async def until_read(self, *ends: int) -> None:
        await self.until(lambda: self.places == ends)


async def keep_nothing(*_: object) -> None:
    raise AssertionError("nothing is given up here")


def both(*offsets: int) -> dict[str, list[int]]:
    return {shard: list(offsets) for shard in SHARDS}


@in_virtual_time
async def test_seeking_back_gives_the_records_again_in_order() -> None:
    machine = Machine()
    machine.put(6)
    async with machine.running():
        await machine.until_read(6, 6)
        seen = await machine.preview(Wanted(time_ms=4000))
        assert machine.places == (6, 6)
        assert not seen["applied"]
        done = await machine.seek(Wanted(time_ms=4000))
        await machine.until(lambda: machine.begun == both(0, 1, 2, 3, 4, 5, 4, 5))
    assert done["applied"]
    assert (done["seen_again"], done["skipped"], done["shards"]) == (4, 0, seen["shards"])
    assert done["to"] == "1970-01-01T00:00:04.000Z"
    assert done["shards"][0] == {
        "shard": FIRST,
        "from": "6",
        "to": "4",
        "finished": False,
        "direction": "back",
        "records": 2,
        "is_exact": True,
        "seconds": None,
        "duplicates": 2,
        "retries_void": False,
    }


@in_virtual_time
async def test_seeking_forward_skips_what_was_previewed_and_nothing_else() -> None:
    machine = Machine()
    async with machine.running():
        await machine.steering.drain("orders", None)
        machine.put(6)
        seen = await machine.preview(Wanted(position="4"), SECOND)
        done = await machine.seek(Wanted(position="4"), SECOND)
        assert (seen["skipped"], done["skipped"], done["state"]) == (4, 4, "paused")
        await machine.steering.resume("orders")
        await machine.until_read(6, 6)
    assert machine.begun == {FIRST: [0, 1, 2, 3, 4, 5], SECOND: [4, 5]}


@in_virtual_time
async def test_what_is_in_flight_ends_first_and_the_mapping_says_that_it_is_moved() -> None:
    machine = Machine()
    machine.takes_s = 3.0
    machine.put(2)
    async with machine.running():
        await machine.until(lambda: machine.begun == both(0))
        seek = asyncio.create_task(machine.seek(END))
        await asyncio.sleep(1.0)
        health = machine.life.health()
        assert (health.state, health.reason and health.reason[0]) == ("draining", "Moving")
        done = await seek
        assert [shard["from"] for shard in done["shards"]] == ["1", "1"]
        await machine.until_read(2, 2)
    assert machine.begun == both(0)


@in_virtual_time
async def test_a_poison_batch_is_left_with_its_retries() -> None:
    machine = Machine()
    machine.poison = {b"1"}
    machine.put(4)
    async with machine.running():
        await machine.until(lambda: machine.begun[FIRST].count(1) == 3)
        await machine.until(lambda: machine.stream.committed[FIRST].retry_state)
        done = await machine.seek(Wanted(position="2"), FIRST)
        assert done["shards"][0]["retries_void"]
        await machine.until(lambda: machine.begun[FIRST][-2:] == [2, 3])
        await machine.until(lambda: machine.stream.committed[FIRST] == Progress(3, ""))
        assert machine.begun[SECOND].count(1) > 1


@in_virtual_time
async def test_retries_that_were_too_large_for_the_source_are_forgotten_with_their_place() -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.until_read(2, 2)
        await machine.steering.drain("orders", None)
        await machine.store.apply([PutState("orders", f"retry:{FIRST}:abc", "large"), PutState("orders", "x", "y")])
        machine.stream.committed[FIRST] = Progress(1, "store:abc")
        assert (await machine.seeking.save("orders"))[0].shards[0].retry_state == "large"
        await machine.seek(START)
        assert "x" in await machine.store.states("orders")
        assert f"retry:{FIRST}:abc" not in await machine.store.states("orders")


@pytest.mark.parametrize("call", ["open", "extents", "write"])
@in_virtual_time
async def test_a_source_that_is_away_changes_nothing_and_the_mapping_goes_on(call: str) -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.until_read(2, 2)
        machine.faults[call] = SourceUnavailable("nobody answers")
        with pytest.raises(SourceUnavailable):
            await machine.seek(START)
        machine.put(1)
        await machine.until_read(3, 3)
    assert machine.begun == both(0, 1, 2)


@in_virtual_time
async def test_a_write_whose_answer_is_lost_is_told_and_all_of_it_counts() -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.until_read(2, 2)
        machine.faults["written"] = SourceUnavailable("nobody answers")
        with pytest.raises(SourceUnavailable):
            await machine.seek(START)
        await machine.until(lambda: machine.begun == both(0, 1, 0, 1))


@in_virtual_time
async def test_other_members_of_the_group_refuse_it() -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.until_read(2, 2)
        other = MemorySource(machine.stream)
        await other.open()
        with pytest.raises(InUse, match="has members"):
            await machine.seek(START)
        await other.close()
        await machine.seek(START)
        await machine.until(lambda: machine.begun == both(0, 1, 0, 1))


@in_virtual_time
async def test_of_two_at_once_one_is_refused() -> None:
    machine = Machine()
    machine.takes_s = 3.0
    machine.put(2)
    async with machine.running():
        await machine.until(lambda: machine.begun == both(0))
        ends = await asyncio.gather(machine.seek(START), machine.seek(END), return_exceptions=True)
        assert [type(end) for end in ends] == [dict, InUse]
        await machine.until(lambda: machine.begun == both(0, 0, 1))


@in_virtual_time
async def test_a_pause_and_a_resume_meanwhile_count_once_it_is_moved() -> None:
    machine = Machine()
    machine.takes_s = 3.0
    machine.put(2)
    async with machine.running():
        await machine.until(lambda: machine.begun == both(0))
        seek = asyncio.create_task(machine.seek(START))
        await asyncio.sleep(0.5)
        await machine.steering.pause("orders")
        await machine.steering.resume("orders")
        await machine.steering.pause("orders")
        assert (await seek)["state"] == "paused"
        await asyncio.sleep(PATIENCE_S)
        assert machine.begun == both(0)
        await machine.steering.resume("orders")
        await machine.until(lambda: machine.begun == both(0, 0, 1))


@in_virtual_time
async def test_a_daemon_that_ends_meanwhile_has_moved_it() -> None:
    machine = Machine()
    machine.takes_s = 3.0
    machine.put(2)
    async with machine.running():
        await machine.until(lambda: machine.begun == both(0))
        seek = asyncio.create_task(machine.seek(END))
        await asyncio.sleep(0.5)
        machine.life.drain(10.0)
        await seek
    assert machine.places == (2, 2)


@in_virtual_time
async def test_whenever_it_is_killed_all_shards_are_where_they_were_or_where_they_were_put() -> None:
    """What a kill leaves is what the source has: that is looked at in every turn of the loop."""
    machine = Machine()
    machine.put(4)
    left: list[tuple[int, ...]] = []
    with structlog.testing.capture_logs() as lines:
        async with machine.running():
            await machine.until_read(4, 4)
            await machine.steering.pause("orders")
            seek = asyncio.create_task(machine.seek(Wanted(time_ms=2000)))
            while not seek.done():
                await asyncio.sleep(0)
                left.append(machine.places)
                planned = [line["after"] for line in lines if line["event"] == "seek.planned"]
                assert machine.places == (4, 4) or planned == ["2", "2"]
    assert list(dict.fromkeys(left)) == [(4, 4), (2, 2)]


@pytest.mark.parametrize("seed", range(12))
@in_virtual_time
async def test_wherever_it_is_moved_each_shard_is_read_in_order_from_there(seed: int) -> None:
    machine = Machine(batch_size=3)
    rng = Random(seed)
    expected: dict[str, list[int]] = {shard: [] for shard in SHARDS}
    async with machine.running():
        for _ in range(12):
            machine.put(rng.randrange(5))
            machine.takes_s = rng.choice((0.01, 0.7))
            ends = tuple(log.end for log in machine.stream.shards.values())
            await machine.until_read(*ends)
            for number, shard in enumerate(SHARDS):
                following = expected[shard][-1] + 1 if expected[shard] else 0
                expected[shard] += range(following, ends[number])
            place = rng.randrange(ends[1] + 1)
            done = await machine.seek(Wanted(position=str(place)), SECOND)
            assert done["seen_again"] == ends[1] - place
            expected[SECOND] += range(place, ends[1])
        await machine.until(lambda: machine.begun == expected)


@in_virtual_time
async def test_a_queue_and_a_mapping_that_is_not_there_are_refused() -> None:
    machine = Machine()
    async with machine.running():
        with pytest.raises(NotFound, match="no mapping 'order'; there are: orders"):
            await machine.seeking.seek("order", START, None, apply=True)
        object.__setattr__(machine.life.parts, "make_places", None)
        for work in (machine.seek(START), machine.seeking.save("orders")):
            with pytest.raises(NotFound, match="mapping orders reads a queue"):
                await work


@pytest.mark.parametrize(
    ("wanted", "shard", "said"),
    [
        (Wanted(position="3"), None, "a position is one of a shard, and there are 2"),
        (Wanted(position="3"), FIRST, r"memory: position 3 of memory-0 is not in the log, which holds 1 up to 2"),
        (Wanted(position="0"), FIRST, r"memory: position 0 of memory-0 is not in the log"),
        (Wanted(position="7.1"), FIRST, "7.1 is no position in memory"),
        (START, "memory-7", "there is no shard memory-7; there are: memory-0, memory-1"),
    ],
)
@in_virtual_time
async def test_a_place_that_is_not_there_is_refused_and_nothing_stops(
    wanted: Wanted, shard: str | None, said: str
) -> None:
    machine = Machine()
    machine.put(2)
    machine.stream.trim(FIRST, 1)
    async with machine.running():
        await machine.until_read(2, 2)
        runner = machine.life.runner
        with pytest.raises(NotFound, match=said):
            await machine.seek(wanted, shard)
        assert machine.life.runner is runner


# --- checkpoints


@in_virtual_time
async def test_what_was_exported_is_where_it_goes_on_elsewhere() -> None:
    machine = Machine()
    machine.poison = {b"2"}
    machine.put(4)
    async with machine.running():
        await machine.until(lambda: machine.begun[FIRST].count(2) > 1 and machine.begun[SECOND].count(2) > 1)
        await machine.steering.drain("orders", None)
        [saved] = await machine.seeking.save()
    assert all(shard.retry_state for shard in saved.shards)

    other = Machine()
    other.stream = machine.stream
    kept = dict(other.stream.committed)
    other.stream.committed = {}
    async with other.running():
        await other.until_read(4, 4)
        seen = await other.seeking.restore("orders", saved, apply=False)
        assert (seen["seen_again"], other.places) == (4, (4, 4))
        await other.steering.drain("orders", None)
        done = await other.seeking.restore("orders", saved, apply=True)
        assert (done["state"], done["unknown_shards"]) == ("paused", [])
        assert other.stream.committed == kept
        await other.steering.resume("orders")
        await other.until(lambda: other.begun == both(0, 1, 2, 3, 2, 3))


async def refused(machine: Machine, saved: Saved, said: str) -> None:
    async with machine.running():
        before = dict(machine.stream.committed)
        with pytest.raises(ConfigError, match=said):
            await machine.seeking.restore("orders", saved, apply=True)
        assert machine.stream.committed == before


@in_virtual_time
async def test_checkpoints_of_another_stream_or_of_what_it_was_before_are_refused() -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.until_read(2, 2)
        [saved] = await machine.seeking.save()
    machine.incarnation = "second"
    await refused(machine, saved, r"are of memory \(first\), and it reads memory \(second\)")
    machine.incarnation = "first"
    machine.stream = MemoryStream(SHARDS)
    await refused(machine, saved, "position 2 of memory-0 is beyond its end, which is at 0")


@in_virtual_time
async def test_shards_that_are_gone_are_named_and_what_was_deleted_meanwhile_is_left_out() -> None:
    machine = Machine()
    machine.put(3)
    async with machine.running():
        await machine.until_read(3, 3)
        await machine.seek(Wanted(position="1"), FIRST)
        await machine.steering.drain("orders", None)
        [saved] = await machine.seeking.save()
        machine.put(3)
        for shard in SHARDS:
            machine.stream.trim(shard, 5)
        del machine.stream.shards[SECOND]
        done = await machine.seeking.restore("orders", saved, apply=True)
        assert done["unknown_shards"] == [SECOND]
        assert [(shard["shard"], shard["to"]) for shard in done["shards"]] == [(FIRST, "5")]


@in_virtual_time
async def test_a_shard_that_came_after_the_export_is_read_from_its_beginning() -> None:
    machine = Machine()
    machine.put(3)
    async with machine.running():
        await machine.until_read(3, 3)
        await machine.steering.drain("orders", None)
        [saved] = await machine.seeking.save()
        machine.stream.shards["memory-2"] = MemoryShard()
        done = await machine.seeking.restore("orders", saved, apply=True)
        assert [(shard["shard"], shard["from"], shard["to"]) for shard in done["shards"]] == [
            (FIRST, "3", "3"),
            (SECOND, "3", "3"),
            ("memory-2", None, "0"),
        ]
        nothing = await machine.seeking.restore("orders", Saved("orders", "memory", "first", []), apply=True)
        assert nothing["shards"] == []
