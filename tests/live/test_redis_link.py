"""The link to Redis: scripts in one step each, and what Redis says when it cannot, for an operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from connectors.redis.link import Call, RedisLink, Script
from connectors.redis.rows import lease, lease_field, lease_key, lease_value
from connectors.settings import RedisSettings
from router.core.fleet import Lease, LeaseKey
from router.errors import StoreUnavailable

ECHO = "return {KEYS[1], ARGV[1]}"


@pytest.fixture
async def link(redis_settings: RedisSettings, fleet_name: str) -> AsyncIterator[RedisLink]:
    opened = await RedisLink.open(redis_settings, fleet_name)
    yield opened
    await opened.close()


def unknown(text: str = ECHO) -> Script:
    """A script that no Redis knows yet."""
    return Script(f"-- {uuid4()}\n{text}")


async def test_a_script_runs_whether_redis_knows_it_or_not(link: RedisLink) -> None:
    script = unknown()
    assert [await link.run(script, [link.key("a")], ["b"]) for _ in range(2)] == [[link.key("a").encode(), b"b"]] * 2


async def test_scripts_of_one_round_trip_answer_each_for_itself(link: RedisLink) -> None:
    fails = unknown("return redis.call('HGET', KEYS[1], 'x')")
    await link.command("SET", link.key("text"), "1")
    calls = [Call(unknown(), [link.key("a")], [1]), Call(fails, [link.key("text")]), Call(unknown(), ["b"], [2.5])]
    first, second, third = await link.run_all(calls)
    assert (first[1], third[1]) == (b"1", b"2.5")
    assert "another program" in str(second)
    await link.command("DEL", link.key("text"))


async def test_a_call_that_takes_too_long_ends_and_the_next_one_is_answered(link: RedisLink) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer in time"):
        await link.command("BLPOP", link.key("nothing"), 5, within_s=0.05)
    assert await link.command("PING") in (b"PONG", True)


async def test_a_closed_link_says_so(link: RedisLink) -> None:
    await link.close()
    await link.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await link.command("PING")


async def test_nobody_listens(fleet_name: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"redis://127.0.0.1:1/0.*cannot be reached"):
        await RedisLink.open(RedisSettings(False, "127.0.0.1", 1, 0), fleet_name)


def test_leases_are_written_and_read_back() -> None:
    key, row = LeaseKey("orders", 'a"\u00e9:1'), Lease(7, "r1", "", 0.25, 1767225600015, finished=True)
    assert (lease_key(lease_field(key)), lease(lease_value(row))) == (key, row)
    assert lease_value(row).startswith(b"[7,")
