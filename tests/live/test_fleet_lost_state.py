"""A Redis that comes back empty, or full, under a fleet: nothing is read from its start without being asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.fleet_rig import FleetRig
from tests.live.own_redis import OwnRedis
from tests.live.stream_rig import Streams


def rows(first: int, count: int) -> list[tuple[str, str]]:
    """Give records of four keys, whose contents sort as they are written."""
    return [(f"k{number % 4}", f"k{number % 4}-{number:06}") for number in range(first, first + count)]


@pytest.fixture
async def fleet(tmp_path: Path, own_redis: OwnRedis) -> AsyncIterator[FleetRig]:
    own_redis.start()
    # The machine may stand still for some seconds, and no lease ends.
    async with FleetRig(tmp_path, own_redis.settings.shown, lease="10s") as made:
        yield made


async def test_a_fleet_whose_redis_comes_back_empty_waits_for_a_decision(
    fleet: FleetRig, own_redis: OwnRedis, streams: Streams
) -> None:
    stream = await streams.make(2)
    fleet.reads("clicks", stream)
    await stream.put(*rows(0, 20))
    a, b = await fleet.start("a", "b")
    await fleet.until_ended(20)
    await fleet.until_shared(2, a, b)

    own_redis.restart(empty=True)
    await stream.put(*rows(20, 4))
    for replica in (a, b):
        await replica.line("mapping.refused", mapping="clicks", reason="StateGone")
    assert len(fleet.ledger().begun) <= 24

    status = await a.command("status", "--json")
    [mapping] = status.json()["mappings"]
    assert (mapping["state"], mapping["reason"]["code"]) == ("failed", "StateGone")
    # a restart asks again
    assert await b.terminate() == 0
    before = len(b.lines)
    (b,) = await fleet.start("b")
    await b.line("mapping.refused", mapping="clicks", reason="StateGone", after=before)

    accepted = await a.command("mapping", "accept", "clicks")
    assert (accepted.status, "what was kept of it is gone" in accepted.out) == (0, True), accepted.err
    await fleet.until_shared(2, a, b)
    await fleet.until_ended(24)
    assert fleet.ledger().seen_again() >= {data for _, data in rows(0, 20)}


async def test_a_fleet_goes_on_when_its_redis_has_room_again(
    fleet: FleetRig, own_redis: OwnRedis, streams: Streams
) -> None:
    stream = await streams.make(2)
    fleet.reads("clicks", stream)
    await stream.put(*rows(0, 20))
    a, _ = await fleet.start("a", "b")
    await fleet.until_ended(20)
    own_redis.say("CONFIG", "SET", "maxmemory", "1mb")
    await stream.put(*rows(20, 20))
    await a.line("store.doubted", what="memory")
    own_redis.say("CONFIG", "SET", "maxmemory", "0")
    await fleet.until_ended(40)
    assert fleet.ledger().wrong() == []
