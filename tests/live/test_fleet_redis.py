"""A fleet whose Redis is in trouble: work stops, and goes on; nothing is lost, and nothing begins anew unasked."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.chaos_proxy import Link, Proxies
from bench.chaos_redis import Redis
from tests.conftest import give_up
from tests.live.fleet_rig import FleetRig, Replica
from tests.live.stream_rig import Stream, Streams
from tests.live.test_fleet_faults import rows
from tests.services.process import ServiceError
from tests.services.redis import redis_server

SHARDS = 4
LEASE_S = 3.0


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    try:
        redis_server()
    except ServiceError as error:
        give_up(f"no redis: {error}")
    async with Redis(tmp_path / "redis") as made:
        yield made


@pytest.fixture
async def link(redis: Redis, toxiproxy: str) -> AsyncIterator[Link]:
    async with Proxies(toxiproxy) as proxies:
        yield await proxies.link(f"test-{redis.address}", redis.address)


@pytest.fixture
async def fleet(tmp_path: Path, link: Link) -> AsyncIterator[FleetRig]:
    async with FleetRig(tmp_path, f"redis://{link.address}/0", lease=f"{LEASE_S:g}s") as made:
        yield made


@pytest.fixture
async def stream(fleet: FleetRig, streams: Streams) -> Stream:
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream, slow_s=0.05)
    return stream


async def two(fleet: FleetRig, stream: Stream) -> list[Replica]:
    """Start two replicas that share the stream and have read something."""
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await stream.put(*rows(0, 40))
    await fleet.until_ended(40)
    return [a, b]


async def goes_on(fleet: FleetRig, stream: Stream, first: int) -> None:
    """Show that the fleet works, and that it did before: what comes now is seen once, in order, and drained."""
    await stream.put(*rows(first, 40))
    await fleet.until_ended(first + 40)
    assert fleet.ledger().wrong() == []
    for replica in fleet.replicas.values():
        assert await replica.terminate() == 0
        assert replica.events("mapping.crashed") == []


async def test_redis_is_killed_and_started_again(fleet: FleetRig, stream: Stream, redis: Redis) -> None:
    await two(fleet, stream)
    await stream.put(*rows(40, 40))
    await redis.kill()
    await asyncio.sleep(1.5 * LEASE_S)  # the outage
    await redis.start()
    await goes_on(fleet, stream, 80)


async def test_redis_is_frozen_past_the_lease(fleet: FleetRig, stream: Stream, redis: Redis) -> None:
    await two(fleet, stream)
    redis.freeze()
    await stream.put(*rows(40, 40))
    await asyncio.sleep(2 * LEASE_S)  # the outage
    redis.thaw()
    await goes_on(fleet, stream, 80)


async def test_redis_is_out_of_memory(fleet: FleetRig, stream: Stream, redis: Redis) -> None:
    await two(fleet, stream)
    await redis.set("maxmemory", "1mb")
    await stream.put(*rows(40, 40))
    await asyncio.sleep(2 * LEASE_S)  # the outage
    await redis.set("maxmemory", "0")
    await goes_on(fleet, stream, 80)


async def test_redis_is_slow(fleet: FleetRig, stream: Stream, link: Link) -> None:
    lease_s = 10.0  # so that none ends because the machine stands still for some seconds
    fleet.document["lease"] = f"{lease_s:g}s"
    a, b = await two(fleet, stream)
    await link.delay(0.3)
    await stream.put(*rows(40, 40))
    await fleet.until_ended(80)
    await asyncio.sleep(1.5 * lease_s)  # so that leases would run out if they were renewed too late
    assert a.events("lease.lost") == b.events("lease.lost") == []
    await link.mend()
    await goes_on(fleet, stream, 80)


async def test_redis_comes_back_empty(fleet: FleetRig, stream: Stream, redis: Redis) -> None:
    a, b = await two(fleet, stream)
    await redis.kill()
    await stream.put(*rows(40, 20))
    await asyncio.sleep(1.5 * LEASE_S)  # nothing of theirs is left that they could hold
    for kept in redis.folder.iterdir():
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
    await redis.start()
    for replica in (a, b):
        await replica.line("mapping.refused", reason="StateGone", mapping="clicks")
    assert "headrace mapping accept" in (await a.command("status")).out
    # Nobody has read the stream from its start.
    assert len(fleet.ledger().begun) <= 40 + 20
    assert set(fleet.ledger().begun) <= {data for _, data in rows(0, 60)}
    first_40 = [data for data in fleet.ledger().begun if data in {each for _, each in rows(0, 40)}]
    assert len(first_40) == 40
    # So does a replica that comes now, once one that knew has said so.
    assert (await a.command("mapping", "accept", "clicks")).status == 0
    await fleet.until_ended(60)
    await stream.put(*rows(60, 20))
    await fleet.until_ended(80)
    assert await a.terminate() == 0
    assert await b.terminate() == 0


async def test_a_redis_that_may_evict_our_keys_is_refused(fleet: FleetRig, stream: Stream, redis: Redis) -> None:
    await redis.set("maxmemory-policy", "allkeys-lru")
    await redis.set("maxmemory", "100mb")
    [a] = await fleet.start("a", ready=False)
    await a.until(lambda: "maxmemory-policy" in str(a.lines), "it says what is wrong with Redis")
    await stream.put(*rows(0, 10))
    assert fleet.ledger().begun == []
    await redis.set("maxmemory-policy", "noeviction")
    await fleet.until_ended(10)


async def test_a_user_without_a_command_is_told_which(fleet: FleetRig, stream: Stream, redis: Redis) -> None:
    await redis.ask("ACL", "SETUSER", "headrace", "on", ">secret", "~headrace:*", "+@all", "-eval", "-evalsha")
    url = str(fleet.document["state"])
    fleet.document["state"] = url.replace("redis://", "redis://headrace:secret@")
    [a] = await fleet.start("a", ready=False)
    await a.until(lambda: any("eval" in str(line).lower() for line in a.lines), "it says which command it lacks")
    assert "secret" not in str(a.lines)
    await redis.ask("ACL", "SETUSER", "headrace", "+eval", "+evalsha")
    await stream.put(*rows(0, 10))
    if a.process.returncode is not None:  # it may have refused to start
        await fleet.start("a")
    await fleet.until_ended(10)
