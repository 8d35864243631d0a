"""Replicas that share the shards of streams of LocalStack over a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.fleet_rig import FleetRig, Replica
from tests.live.own_redis import OwnRedis
from tests.live.stream_rig import Stream, Streams
from tests.live.test_kinesis import merge, shards, split

SHARDS = 4
#: The machine may stand still for some seconds, and no lease ends.
LEASE_S = 10.0


@dataclass
class Fed:
    count: int = 0


@asynccontextmanager
async def feeding(stream: Stream) -> AsyncIterator[Fed]:
    """Put records one after the other meanwhile."""
    fed = Fed()

    async def feed() -> None:
        while True:
            await stream.put(*rows(fed.count, 1))
            fed.count += 1

    task = asyncio.create_task(feed())
    try:
        yield fed
    finally:
        task.cancel()
        await asyncio.wait([task])


def rows(first: int, count: int) -> list[tuple[str, str]]:
    """Give records of eight keys, whose contents sort as they are written."""
    return [(f"k{number % 8}", f"k{number % 8}-{number:06}") for number in range(first, first + count)]


@pytest.fixture
async def fleet(tmp_path, redis_url):
    async with FleetRig(tmp_path, redis_url, lease=f"{LEASE_S:g}s") as made:
        yield made


async def test_two_replicas_share_a_stream(fleet: FleetRig, streams: Streams):
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    await stream.put(*rows(0, 40))
    a, b = await fleet.start("a", "b")
    await fleet.until_ended(40)
    await fleet.until_shared(SHARDS, a, b)
    await stream.put(*rows(40, 40))
    await fleet.until_ended(80)
    assert fleet.ledger().wrong() == []
    assert await a.terminate() == 0
    assert await b.terminate() == 0
    assert fleet.ledger().seen_again() == set()


async def test_a_replica_that_joins_gets_its_part_and_one_that_leaves_gives_it_back(fleet: FleetRig, streams: Streams):
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    [a] = await fleet.start("a")
    await fleet.until_shared(SHARDS, a)
    async with feeding(stream) as fed:
        [b] = await fleet.start("b")
        await fleet.until_shared(SHARDS, a, b)
        assert await b.terminate() == 0
        await fleet.until_shared(SHARDS, a)
    await fleet.until_ended(fed.count)
    ledger = fleet.ledger()
    assert ledger.wrong() == []
    assert ledger.seen_again() == set()


async def test_what_a_killed_replica_had_is_taken_over_within_the_lease(fleet: FleetRig, streams: Streams):
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    async with feeding(stream) as fed:
        await asyncio.sleep(1)  # let some records be with the function
        killed_s = time.monotonic()
        await b.kill()
        await fleet.until_shared(SHARDS, a)
        assert time.monotonic() - killed_s < 2 * LEASE_S
    await fleet.until_ended(fed.count)
    assert fleet.ledger().wrong() == []


async def test_a_replica_that_sleeps_past_its_lease_runs_nothing_beside_the_others_and_writes_nothing(
    fleet: FleetRig, streams: Streams
):
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream, slow_s=1.5)
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await stream.put(*rows(0, 80))
    await b.until(lambda: {each.pid for each in fleet.ledger().runs} & set(b.workers()), "b runs something")
    b.pause()
    await fleet.until_shared(SHARDS, a)
    await fleet.until_ended(80)
    b.go_on()
    await b.line("lease.lost")
    await stream.put(*rows(80, 8))
    await fleet.until_ended(88)
    await fleet.until_shared(SHARDS, a, b)
    assert fleet.ledger().wrong() == []
    assert not a.events("batch.failed") + b.events("batch.failed")  # no end that the leash brought about is an attempt


async def test_a_shard_is_handed_over_when_what_runs_of_it_has_ended(fleet: FleetRig, streams: Streams):
    stream = await streams.make(2)
    fleet.reads("clicks", stream, slow_s=3)
    [a] = await fleet.start("a")
    await fleet.until_shared(2, a)
    await stream.put(*rows(0, 16))
    await a.until(lambda: len(fleet.ledger().runs) >= 2, "both shards are with the function")
    [b] = await fleet.start("b")
    await fleet.until_shared(2, a, b)
    await stream.put(*rows(16, 16))
    await fleet.until_ended(32)
    ledger = fleet.ledger()
    assert ledger.wrong() == []
    assert ledger.seen_again() == set()


async def test_a_handler_that_outlasts_the_drain_is_ended_and_runs_again_elsewhere_with_no_attempt_spent(
    fleet: FleetRig, streams: Streams
):
    stream = await streams.make(2)
    fleet.document["drain_timeout"] = "1s"
    fleet.reads("clicks", stream, slow_s=20)
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(2, a, b)
    await stream.put(*rows(0, 16))
    await a.until(lambda: len(fleet.ledger().runs) >= 2, "both shards are with the function")
    fleet.slow(None)
    assert await a.terminate() == 0
    await fleet.until_shared(2, b)
    await b.until(lambda: any(run.end_s < float("inf") for run in fleet.ledger().runs), "b has run one")
    assert fleet.ledger().wrong() == []
    assert not a.events("batch.failed")


async def test_children_are_read_when_their_parents_are_finished_whoever_has_finished_them(
    fleet: FleetRig, streams: Streams
):
    stream = await streams.make(2)
    fleet.reads("clicks", stream)
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(2, a, b)
    await stream.put(*rows(0, 16))
    one, two = sorted(await shards(stream))
    children = [*await split(stream, one), *await split(stream, two)]
    await stream.put(*rows(16, 40))
    await fleet.until_ended(56)
    await fleet.until_shared(4, a, b, fewest=2)
    await merge(stream, children[1], children[2])
    await stream.put(*rows(56, 40))
    await fleet.until_ended(96)
    await fleet.until_shared(3, a, b)
    ledger = fleet.ledger()
    assert ledger.wrong() == []
    assert ledger.seen_again() == set()


async def test_three_replicas_share_the_stream_of_a_table_and_survive_a_kill(fleet: FleetRig, streams: Streams):
    table = await streams.table()
    fleet.reads("clicks", table)
    a, b, c = await fleet.start("a", "b", "c")

    async def put(first: int, count: int) -> None:
        await table.put(*({"id": {"S": data}, "key": {"S": key}} for key, data in rows(first, count)))

    await put(0, 40)
    await fleet.until_ended(40)
    [owner] = [each for each in (a, b, c) if each.shards]
    await owner.kill()
    await put(40, 40)
    await fleet.until_ended(80)
    assert fleet.ledger().wrong() == []


async def test_a_fleet_that_is_started_before_its_redis_says_so_and_goes_on_when_it_comes(
    tmp_path: Path, streams: Streams
):
    redis = OwnRedis(tmp_path / "redis")
    stream = await streams.make(2)
    async with FleetRig(tmp_path, f"redis://{redis.settings.host}:{redis.settings.port}/0") as fleet:
        fleet.reads("clicks", stream)
        await stream.put(*rows(0, 16))
        [a] = await fleet.start("a", ready=False)
        await a.line("fleet.waiting")
        await a.line("mapping.waiting", reason="StateUnavailable")
        with redis:
            await fleet.until_ended(16)
            assert await a.terminate() == 0


async def test_of_two_processes_with_one_name_the_second_says_why_it_ends(fleet: FleetRig, streams: Streams):
    stream = await streams.make(1)
    fleet.reads("clicks", stream)
    [a] = await fleet.start("a")
    other = Replica(fleet, "a")
    other.document = {**fleet.document, "local": "./elsewhere"}
    other.file_name = "other.yaml"
    await other.start(ready=False)
    line = await other.line("fleet.ousted")
    assert "another process is replica a" in line["error"]
    assert await other.exit() == 1
    await stream.put(*rows(0, 8))
    await fleet.until_ended(8)
    assert a.shards
