"""The inboxes of replicas on a real Redis, against the suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from connectors.redis.inbox import RedisInbox
from connectors.redis.link import RedisLink
from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from router.errors import LeaseLost, StoreUnavailable
from router.event_ports import Inbox
from router.ports import DeleteFailure, KeepFailure, OwnsEvent, Selection, SetStatus
from tests.conformance.inbox import InboxConformance, InboxSharing, accept, event, forgotten, ids
from tests.conformance.test_redis_store import delete_fleet
from tests.fakes.failures import entry

pytestmark = pytest.mark.live


@pytest.fixture
async def store(redis_settings: RedisSettings, fleet_name: str) -> AsyncIterator[RedisStore]:
    opened = await RedisStore.open(redis_settings, fleet_name, replica="r1", folder=None)
    yield opened
    await opened.close()
    await delete_fleet(redis_settings, fleet_name)


@pytest.fixture
def link(store: RedisStore) -> RedisLink:
    return store.link


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


async def test_of_an_event_that_another_has_nothing_is_kept(mine: Inbox, store: RedisStore) -> None:
    await accept(mine, event(1), event(2))
    kept = [OwnsEvent(event(1).id), KeepFailure(entry("f1"), b"event"), SetStatus("f2", "failed_again")]
    await store.apply([KeepFailure(entry("f2"), b"event")])
    await store.apply(kept)
    await store.apply([DeleteFailure("f1"), KeepFailure(entry("f2"), b"event")])
    other = RedisInbox(store.link, "r2")
    await other.adopt("r1")
    for _ in range(2):
        with pytest.raises(LeaseLost, match=event(1).id):
            await store.apply(kept)
        await other.apply([forgotten(event(1))])  # it has ended well there
    assert [(each.batch.id, each.status) for each in await store.failures(Selection())] == [("f2", "stored")]


async def test_a_redis_that_was_emptied_takes_nothing_in(mine: Inbox, link: RedisLink) -> None:
    await accept(mine, event(1))
    await link.command("UNLINK", link.key("meta"))
    with pytest.raises(StoreUnavailable):
        await accept(mine, event(2))


async def test_many_that_accept_at_once_share_round_trips(mine: Inbox) -> None:
    await asyncio.gather(*(accept(mine, event(n)) for n in range(200)))
    assert len(await ids(mine)) == 100
    assert (await mine.lines())["run", "orders"].rows == 200
