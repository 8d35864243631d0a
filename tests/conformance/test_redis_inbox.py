"""The inboxes of replicas on a real Redis, against the suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from connectors.redis.inbox import RedisInbox
from connectors.redis.link import RedisLink
from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from router.errors import StoreUnavailable
from router.event_ports import Inbox
from tests.conformance.inbox import InboxConformance, InboxSharing, accept, event, forgotten, ids
from tests.conformance.test_redis_store import delete_fleet

pytestmark = pytest.mark.live


@pytest.fixture
async def link(redis_settings: RedisSettings, fleet_name: str) -> AsyncIterator[RedisLink]:
    store = await RedisStore.open(redis_settings, fleet_name, replica="r1", folder=None)
    yield store.link
    await store.close()
    await delete_fleet(redis_settings, fleet_name)


@pytest.fixture
def mine(link: RedisLink) -> Inbox:
    return RedisInbox(link, "r1")


class TestRedisInbox(InboxConformance):
    @pytest.fixture
    def inbox(self, mine: Inbox) -> Inbox:
        return mine


class TestRedisSharing(InboxSharing):
    @pytest.fixture
    def other(self, link: RedisLink) -> Inbox:
        return RedisInbox(link, "r2")


async def test_nothing_is_left_in_redis_of_what_is_done_with(mine: Inbox, link: RedisLink) -> None:
    before = await link.command("KEYS", link.key("*"))
    await accept(mine, *(event(n) for n in range(20)))
    await mine.apply([forgotten(event(n)) for n in range(20)])
    assert await link.command("KEYS", link.key("*")) == before


async def test_a_redis_that_was_emptied_takes_nothing_in(mine: Inbox, link: RedisLink) -> None:
    await accept(mine, event(1))
    await link.command("UNLINK", link.key("meta"))
    with pytest.raises(StoreUnavailable):
        await accept(mine, event(2))


async def test_many_that_accept_at_once_share_round_trips(mine: Inbox) -> None:
    await asyncio.gather(*(accept(mine, event(n)) for n in range(200)))
    assert len(await ids(mine)) == 100
    assert (await mine.lines())["run", "orders"].rows == 200
