"""Mappings that are moved in a stream of shards, on virtual time: parents before children, nothing lost, all told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Any

import pytest
import structlog

from router.commands.selecting import Wanted
from router.core.model import (
    STREAM_RULES,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Pace,
    Returned,
)
from router.core.tenant import Tenant
from router.errors import ConfigError, InUse, NotFound, PositionLost, SourceUnavailable, StoreUnavailable, Throttled
from router.fleet.fleet import Fleet
from router.life import MappingLife, MappingParts, Plug
from router.ports import PutState
from router.replay.replay import Replayer
from router.seeking import Mover, Seeking, save
from router.shard_places import ShardPlaces
from router.shard_side import plug_shards
from router.steering import Steering
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.lease_table import MemoryTable
from tests.fakes.peers import MemoryPeers
from tests.fakes.shard_stream import ShardStream, ShardStreamSource
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import in_virtual_time

PATIENCE_S = 3600.0
START = Wanted(edge="TRIM_HORIZON")
END = Wanted(edge="LATEST")
NAMES = [f"shardId-{number:012}" for number in range(8)]


class Machine:
    """One mapping over a stream of one shard at first, a record a second, and what outlives its daemons."""

    def __init__(self, stream: ShardStream | None = None, **rules: Any) -> None:
        self.store = MemoryStore()
        self.now_s = 1_000_000.0
        self.stream = stream or ShardStream(1, now_s=lambda: self.now_s)
        self.mapping = EventSourceMapping(
            "orders", "function", STREAM_RULES, drain_s=10.0, pace=Pace(1.0, 0.2), **{"batch_size": 1, **rules}
        )
        self.written: list[str] = []
        self.seen: list[str] = []
        self.takes_s = 0.01
        self.poison: set[str] = set()
        self.page_count = 10_000
        self.prepare: Callable[[ShardStreamSource], None] = lambda _: None
        self.plug: Plug = plug_shards
        self._news = asyncio.Event()
        self.life: MappingLife
        self.seeking: Seeking
        self.steering: Steering

    def put(self, count: int, *keys: bytes) -> list[int]:
        """Write so many records for each key; gives their positions."""
        positions = []
        for _ in range(count):
            for key in keys or (b"a",):
                self.now_s += 1.0
                value = f"{key.decode()}{len(self.written)}"
                self.written.append(value)
                positions.append(self.stream.put(value.encode(), key, time_ms=int(self.now_s * 1000)).position)
        return positions

    def places(self) -> ShardPlaces:
        source = ShardStreamSource(self.stream)
        self.prepare(source)
        return ShardPlaces(source, self.mapping, self.store, page_count=self.page_count)

    def _run(self, _: str, event: bytes) -> tuple[float, Outcome]:
        values = [base64.b64decode(each["value"]).decode() for each in json.loads(event)["records"]]
        self.seen += values
        self._news.set()
        fails = self.poison & set(values)
        outcome = Failed(FailureKind.RAISED, FunctionError("ValueError", "poison")) if fails else Returned()
        return self.takes_s, outcome

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A daemon's life, which drains at its end."""
        parts = MappingParts(
            self.mapping,
            enabled=True,
            source_name="memory",
            make_source=lambda: ShardStreamSource(self.stream),
            plug=self.plug,
            invoker=MemoryInvoker(self._run, 4),
            passes=None,
            keep=keep_nothing,
            make_places=lambda _: self.places(),
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
        work = asyncio.create_task(self.life.run())
        yield
        self.life.drain(10.0)
        await work

    async def seek(self, wanted: Wanted, shard: str | None = None, *, apply: bool = True) -> dict[str, Any]:
        return await self.seeking.seek("orders", wanted, shard, apply=apply)

    async def settle(self) -> None:
        """Pause once all is seen, and have it committed."""
        await self.until(lambda: self.seen[-len(self.written) :] and set(self.seen) >= set(self.written))
        await self.steering.drain("orders", None)

    async def until(self, fact: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not fact():
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), 1.0)


class ReplicaMachine(Machine):
    """One whose daemons are a replica of a fleet."""

    def __init__(self, stream: ShardStream | None = None, **rules: Any) -> None:
        super().__init__(stream, **rules)
        self.table = MemoryTable(self.store)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        table, rng = self.table.of("a", lease_s=10.0), Random(1)
        clock = asyncio.get_running_loop().time
        fleet = Fleet("a", lambda: Tenant("a", 10.0, rng), table, MemoryPeers(table), log=Log(), rng=rng, clock=clock)
        self.plug = partial(plug_shards, fleet=fleet)
        replica = asyncio.create_task(fleet.run())
        async with super().running():
            yield
        replica.cancel()
        with suppress(asyncio.CancelledError):
            await replica


MACHINES = pytest.mark.parametrize("make_machine", [Machine, ReplicaMachine])


async def keep_nothing(*_: object) -> None:
    raise AssertionError("nothing is given up here")


def told(done: dict[str, Any]) -> list[tuple[str, str, int, bool]]:
    return [(each["shard"], each["direction"], each["records"], each["is_exact"]) for each in done["shards"]]


def position(number: int) -> Wanted:
    return Wanted(position=str(number))


@in_virtual_time
async def test_seeking_back_gives_the_records_from_there_on_again() -> None:
    machine = Machine()
    positions = machine.put(6)
    async with machine.running():
        await machine.settle()
        for wanted, count, seconds in (
            (START, 6, 5.0),
            (Wanted(time_ms=1_000_003_000), 4, 3.0),
            (position(positions[4]), 2, 1.0),
        ):
            seen = await machine.seek(wanted, apply=False)
            assert told(seen) == [(NAMES[0], "back", count, True)]
            assert (seen["shards"][0]["seconds"], seen["shards"][0]["duplicates"]) == (seconds, count)
            done = await machine.seek(wanted)
            assert done["shards"] == seen["shards"]
            machine.seen.clear()
            await machine.steering.resume("orders")
            await machine.until(lambda count=count: machine.seen == machine.written[-count:])
            await machine.steering.drain("orders", None)


@in_virtual_time
async def test_seeking_forward_skips_what_was_previewed() -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.settle()
        positions = machine.put(6)
        seen = await machine.seek(position(positions[4]), apply=False)
        assert told(seen) == [(NAMES[0], "forward", 4, True)]
        assert (await machine.seek(position(positions[4])))["skipped"] == 4
        await machine.steering.resume("orders")
        await machine.until(lambda: len(machine.seen) == 4)
        assert machine.seen == machine.written[:2] + machine.written[-2:]
        await machine.steering.drain("orders", None)
        machine.put(3)
        machine.now_s += 5.0
        assert told(await machine.seek(END)) == [(NAMES[0], "forward", 3, True)]
        assert told(await machine.seek(END)) == [(NAMES[0], "stay", 0, True)]
        machine.put(1)
        await machine.steering.resume("orders")
        await machine.until(lambda: machine.seen[-1] == machine.written[-1])
        assert len(machine.seen) == 5


@MACHINES
@in_virtual_time
async def test_shards_that_were_finished_are_opened_again_and_their_children_go_behind_them(
    make_machine: Callable[[], Machine],
) -> None:
    machine = make_machine()
    machine.put(4, b"a", b"b")
    machine.stream.split(NAMES[0])
    machine.put(4, b"a", b"b")
    async with machine.running():
        await machine.settle()
        done = await machine.seek(START)
        assert [each[1] for each in told(done)] == ["back"] * 3
        assert done["seen_again"] == 16
        machine.seen.clear()
        await machine.steering.resume("orders")
        await machine.until(lambda: len(machine.seen) == 16)
        assert sorted(machine.seen[:8]) == sorted(machine.written[:8])
        for key in "ab":
            assert [each for each in machine.seen if each[0] == key] == [
                each for each in machine.written if each[0] == key
            ]


@in_virtual_time
async def test_a_parent_alone_is_read_again_before_its_children_go_on() -> None:
    machine = Machine()
    machine.put(4)
    machine.stream.roll(NAMES[0])
    machine.put(2)
    async with machine.running():
        await machine.settle()
        machine.put(2)
        await machine.seek(START, NAMES[0])
        machine.seen.clear()
        await machine.steering.resume("orders")
        await machine.until(lambda: len(machine.seen) == 6)
        assert machine.seen == machine.written[:4] + machine.written[-2:]


@in_virtual_time
async def test_at_latest_closed_shards_are_done_and_open_ones_begin_now() -> None:
    machine = Machine()
    machine.put(4)
    machine.stream.roll(NAMES[0])
    machine.put(3)
    async with machine.running():
        await machine.steering.pause("orders")
        machine.now_s += 1.0
        done = await machine.seek(END)
        assert [each["finished"] for each in done["shards"]] == [True, False]
        machine.put(2)
        await machine.steering.resume("orders")
        await machine.until(lambda: len(machine.seen) == 2)
        await asyncio.sleep(PATIENCE_S)
        assert machine.seen == machine.written[-2:]


@in_virtual_time
async def test_forward_over_the_end_of_a_closed_shard_goes_on_in_its_child() -> None:
    machine = Machine()
    machine.put(4)
    machine.stream.roll(NAMES[0])
    machine.put(3)
    async with machine.running():
        await machine.steering.drain("orders", None)
        await machine.store.apply([PutState("orders", "stream", '{"incarnation":"1","start":"TRIM_HORIZON"}')])
        done = await machine.seek(Wanted(time_ms=1_000_006_000))
        await machine.steering.resume("orders")
        await machine.until(lambda: len(machine.seen) >= 2)
        assert done["skipped"] == 7 - 2
        assert machine.seen == machine.written[-2:]


@in_virtual_time
async def test_a_poison_batch_is_left_with_its_retries() -> None:
    machine = Machine()
    positions = machine.put(4)
    machine.poison = {"a1"}
    async with machine.running():
        await machine.until(lambda: machine.seen.count("a1") == 3)
        done = await machine.seek(position(positions[2]))
        assert done["shards"][0]["retries_void"]
        await machine.until(lambda: machine.seen[-2:] == ["a2", "a3"])


@in_virtual_time
async def test_a_mapping_that_has_not_begun_begins_where_it_is_put() -> None:
    machine = Machine(starting_position="LATEST")
    machine.put(3)
    await machine.store.apply([PutState("orders", "paused", "1.0")])
    async with machine.running():
        await machine.life.resting.wait()
        done = await machine.seek(START)
        assert told(done) == [(NAMES[0], "begin", 0, True)]
        await machine.steering.resume("orders")
        await machine.until(lambda: machine.seen == machine.written)


@in_virtual_time
async def test_a_store_that_cannot_write_leaves_all_where_it_was() -> None:
    machine = Machine()
    machine.put(3)
    async with machine.running():
        await machine.settle()
        before = dict(machine.store.texts)
        machine.store.write_fault = "the disk is full"
        with pytest.raises(StoreUnavailable):
            await machine.seek(START)
        machine.store.write_fault = None
        assert machine.store.texts == before


@in_virtual_time
async def test_a_position_that_no_record_has_is_refused() -> None:
    machine = Machine()
    positions = machine.put(3)
    machine.prepare = lambda source: source.fail("page", PositionLost(NAMES[0], "it is not there"))
    async with machine.running():
        await machine.settle()
        with pytest.raises(NotFound, match=f"{NAMES[0]} has no record at {positions[1]}: it is not there"):
            await machine.seek(position(positions[1]))
        with pytest.raises(NotFound, match="is no position in memory"):
            await machine.seek(Wanted(position="1.2"))


@in_virtual_time
async def test_what_cannot_be_counted_is_said_to_be_more() -> None:
    machine = Machine()
    positions = machine.put(3)
    async with machine.running():
        await machine.settle()
        machine.prepare = lambda source: source.fail("read", SourceUnavailable("nobody answers"))
        seen = await machine.seek(START, apply=False)
        assert (told(seen), seen["is_exact"]) == ([(NAMES[0], "back", 0, False)], False)
        machine.prepare = lambda source: source.fail("read", Throttled("slow down"), times=1000)
        seen = await machine.seek(START, apply=False)
        assert told(seen) == [(NAMES[0], "back", 0, False)]
        with pytest.raises(SourceUnavailable, match="was not found within 60 s: seek to a time instead"):
            await machine.seek(position(positions[1]), apply=False)
        machine.prepare = lambda source: source.fail("read", Throttled("slow down"), times=3)
        assert told(await machine.seek(START, apply=False)) == [(NAMES[0], "back", 3, True)]
        machine.prepare = lambda source: source.fail("open", SourceUnavailable("nobody answers"))
        with pytest.raises(SourceUnavailable):
            await machine.seek(START, apply=False)


@in_virtual_time
async def test_counting_ends_after_so_many_pages() -> None:
    machine = Machine()
    machine.page_count = 2
    machine.put(50)
    async with machine.running():
        await machine.settle()
        assert told(await machine.seek(START, apply=False)) == [(NAMES[0], "back", 40, False)]


@in_virtual_time
async def test_what_is_kept_of_another_stream_is_left_alone() -> None:
    machine = Machine()
    machine.put(1)
    async with machine.running():
        await machine.settle()
        await machine.store.apply([PutState("orders", "begun", "other")])
        with pytest.raises(InUse, match="belongs to other, and the file names memory"):
            await machine.seek(START)


# --- checkpoints


@in_virtual_time
async def test_what_was_exported_is_where_it_goes_on_elsewhere() -> None:
    machine = Machine()
    machine.put(2)
    machine.stream.roll(NAMES[0])
    machine.put(2)
    async with machine.running():
        await machine.settle()
        [saved] = await machine.seeking.save("orders")
    assert [(each.shard, each.ended) for each in saved.shards] == [(NAMES[0], True), (NAMES[1], False)]
    machine.stream.roll(NAMES[1])
    machine.put(2)

    other = Machine(machine.stream, starting_position="LATEST")
    other.written = machine.written
    await Mover(other.store, "orders", lambda _: other.places()).restore(saved, nothing_runs)
    async with other.running():
        await other.until(lambda: other.seen == machine.written[-2:])
        await other.steering.drain("orders", None)
        again = await save(other.store, "orders", lambda _: other.places())
        assert [each.shard for each in again.shards] == NAMES[:3]


@asynccontextmanager
async def nothing_runs() -> AsyncIterator[None]:
    yield


@in_virtual_time
async def test_checkpoints_of_a_stream_that_was_made_again_are_refused() -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.settle()
        [saved] = await machine.seeking.save("orders")
        machine.stream.recreate(1)
        with pytest.raises(ConfigError, match=r"are of memory \(1\), and it reads memory \(2\)"):
            await machine.seeking.restore("orders", saved, apply=True)


@in_virtual_time
async def test_a_checkpoint_that_cannot_be_read_is_replaced_by_an_import() -> None:
    machine = Machine()
    machine.put(2)
    async with machine.running():
        await machine.settle()
        [saved] = await machine.seeking.save("orders")
        await machine.store.apply([PutState("orders", f"shard:{NAMES[0]}", "{]")])
        machine.put(1)
        await machine.steering.resume("orders")
        await machine.until(lambda: machine.life.is_undecided)
        await machine.seeking.restore("orders", saved, apply=True)
        await machine.until(lambda: machine.seen == machine.written)


@in_virtual_time
async def test_moved_again_and_again_while_shards_split_every_key_stays_in_order() -> None:
    machine = Machine(parallelization_factor=2)
    rng = Random(7)
    keys = (b"a", b"b", b"c", b"d")
    async with machine.running():
        for _ in range(8):
            machine.put(rng.randrange(1, 4), *keys)
            if rng.random() < 0.5:
                machine.stream.roll(rng.choice(machine.stream.open_shards))
            await machine.settle()
            machine.seen.clear()
            time_ms = int(rng.uniform(1_000_000.0, machine.now_s) * 1000)
            done = await machine.seek(Wanted(time_ms=time_ms))
            wanted = machine.written[-done["seen_again"] :] if done["seen_again"] else []
            await machine.steering.resume("orders")
            await machine.until(lambda wanted=wanted: len(machine.seen) >= len(wanted))
            for key in "abcd":
                assert [each for each in machine.seen if each[0] == key] == [each for each in wanted if each[0] == key]
            machine.seen += machine.written


@in_virtual_time
async def test_a_place_that_was_deleted_meanwhile_is_told_and_read_from_what_is_there() -> None:
    machine = Machine()
    positions = machine.put(6)
    async with machine.running():
        await machine.settle()
        await machine.seek(position(positions[1]))
        [saved] = await machine.seeking.save("orders")
        machine.stream.trim(NAMES[0], positions[4])
        done = await machine.seeking.restore("orders", saved, apply=True)
        assert [each["is_exact"] for each in done["shards"]] == [True]
        machine.seen.clear()
        with structlog.testing.capture_logs() as lines:
            await machine.steering.resume("orders")
            await machine.until(lambda: machine.seen == machine.written[4:])
        assert [line["shard"] for line in lines if line["event"] == "position.lost"] == NAMES[:1]
