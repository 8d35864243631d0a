"""Leases and peers of a fleet while its Redis is emptied, full, restarted, cut off, or comes back with older data."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.redis.birth import Note
from connectors.redis.inbox import RedisInbox
from connectors.redis.lease_table import RedisLeaseTable
from connectors.redis.link import RedisLink
from connectors.redis.peers import RedisPeers
from connectors.redis.store import RedisStore
from connectors.redis.table_scripts import INBOX
from connectors.settings import Secret
from router.core.asynchronous import Became, PutOff
from router.core.fleet import Bury, Give, LeaseKey, Mark, Take
from router.errors import LeaseLost, StoreUnavailable
from router.ports import Holds, PeerCall, Peers, PutState
from tests.conformance.inbox import accept, event, forgotten, ids, owe
from tests.conformance.lease_table import FIRST, SECOND, Talker
from tests.live.own_redis import OwnRedis

FLEET = "fleet"
LEASE_S = 15.0


@pytest.fixture
def server(redis_url: str, tmp_path: Path) -> Iterator[OwnRedis]:
    """Its log is on the disk before it answers."""
    with OwnRedis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
async def store(server: OwnRedis) -> AsyncIterator[RedisStore]:
    opened = await RedisStore.open(server.settings, FLEET, replica="a", folder=None)
    yield opened
    await opened.close()


async def enter(store: RedisStore, name: str, home: str = "") -> tuple[Talker, Peers]:
    table = RedisLeaseTable(store.link, name, home or name, LEASE_S)
    await table.join()
    talker = Talker(table)
    await talker.say(runs=frozenset({"orders"}))
    return talker, RedisPeers(store.link, table)


async def next_call(peers: Peers) -> PeerCall:
    async for call in peers.calls():
        if call is not None:
            return call
    raise AssertionError("closed")


async def test_a_redis_that_was_emptied_is_no_new_table(server: OwnRedis, store: RedisStore) -> None:
    a, peers = await enter(store, "a")
    await a.take(FIRST)
    server.say("FLUSHALL")
    with pytest.raises(StoreUnavailable, match="empty, or another one"):
        await a.say()
    with pytest.raises(StoreUnavailable, match="empty, or another one"):
        await a.table.join()
    with pytest.raises(StoreUnavailable, match="empty, or another one"):
        await peers.ask("a", "x", b"", 1.0)
    assert server.found() == []
    await peers.close()


async def test_leases_are_renewed_and_moved_while_redis_has_no_memory_left(server: OwnRedis, store: RedisStore) -> None:
    a, ours = await enter(store, "a")
    b, theirs = await enter(store, "b")
    token = await a.take(FIRST)
    server.say("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(StoreUnavailable, match="memory is full"):
        await store.apply([PutState("orders", "x", "1" * 1000)])
    await a.say(gives=[Give(FIRST, token, "b", 0.0)])
    assert await b.take(FIRST) > token
    asking = asyncio.create_task(ours.ask("b", "status", b"?", 10.0))
    await (await next_call(theirs)).answer(b"!")
    assert await asking == b"!"
    await ours.close()
    await theirs.close()


async def test_while_redis_has_no_memory_left_no_event_is_accepted_and_what_makes_room_is_written(
    server: OwnRedis, store: RedisStore
) -> None:
    inbox, other = RedisInbox(store.link, "a"), RedisInbox(store.link, "b")
    await accept(inbox, event(1), event(2), event(3))
    server.say("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(StoreUnavailable, match="memory is full"):
        await accept(inbox, event(4), payload=b"1" * 1000)
    with pytest.raises(StoreUnavailable, match="memory is full"):
        await inbox.apply([Became(owe(event(1)), event(1))])
    await inbox.apply([Became(PutOff(replace(event(3), tries=1)), event(3))])
    await inbox.apply([forgotten(event(2))])
    assert await other.adopt("a")
    assert await ids(other) == [event(1).id, event(3).id]
    await other.close()
    await inbox.close()


async def test_a_redis_with_older_data_gives_out_no_token_again(server: OwnRedis, store: RedisStore) -> None:
    a, _ = await enter(store, "a")
    b, _ = await enter(store, "b")
    await a.take(SECOND)
    await b.say()
    copies = {key: server.say("DUMP", key) for key in server.found()}
    lost = await a.take(FIRST)
    server.say("FLUSHALL")
    for key, copy in copies.items():
        server.say("RESTORE", key, "0", copy)
    heard = await a.say()
    assert (heard.whole, FIRST in a.leases, a.leases[SECOND].owner) == (True, False, "a")
    # as many changes as before
    token = await b.take(FIRST)
    assert token != lost
    with pytest.raises(LeaseLost):
        await store.apply([Holds(*FIRST, lost), PutState("orders", "x", "1")])
    await store.apply([Holds(*FIRST, token), PutState("orders", "x", "1")])


async def test_a_name_is_not_taken_before_its_replica_has_lost_all_by_its_own_file(store: RedisStore) -> None:
    long_s = 6.0
    table = RedisLeaseTable(store.link, "a", "a", long_s)
    other = RedisLeaseTable(store.link, "a", "elsewhere", long_s / 2)
    a = Talker(table)
    loop = asyncio.get_running_loop()
    while not other.incarnation:
        with contextlib.suppress(StoreUnavailable):  # the machine stood still: once more
            while a.heard is None:
                await (a.say() if table.incarnation else table.join())
                began_s = loop.time()
            await other.join()
    assert loop.time() - began_s >= long_s


async def test_a_replica_whose_joining_was_forgotten_is_not_replaced_by_its_former_process(
    server: OwnRedis, store: RedisStore
) -> None:
    await enter(store, "a")
    key = store.link.key("replicas")
    before = server.say("DUMP", key)
    again, _ = await enter(store, "a")
    server.say("RESTORE", key, "0", before, "REPLACE")
    heard = await again.say()
    assert not heard.replaced
    assert heard.replicas["a"].incarnation == again.table.incarnation


class Served:
    """Somebody who answers all that it is asked, and asks for more after every outage."""

    def __init__(self, peers: Peers) -> None:
        self.heard: list[bytes] = []
        self.outages = 0
        self._peers = peers
        self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            try:
                async for call in self._peers.calls():
                    if call is not None:
                        self.heard.append(call.body)
                        await call.answer(call.body)
            except StoreUnavailable:
                self.outages += 1
            else:
                return

    async def close(self) -> None:
        await self._peers.close()
        await self._task


async def test_joining_that_was_given_up_on_is_not_taken_for_another_process(
    server: OwnRedis, store: RedisStore
) -> None:
    table = RedisLeaseTable(store.link, "a", "a", 3.0)
    server.pause()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="in time"):
            await table.join()
    server.go_on()
    a = Talker(table)
    await table.join()
    heard = await a.say(runs=frozenset({"orders"}))
    assert not heard.replaced
    other, _ = await enter(store, "b")
    assert (await other.say()).replicas["a"].runs == {"orders"}
    assert not (await a.say()).replaced


async def test_a_replica_has_its_home_in_its_own_folder(server: OwnRedis, tmp_path: Path) -> None:
    homes = []
    for name in ("one", "one", "two"):
        store = await RedisStore.open(server.settings, FLEET, replica="a", folder=tmp_path / name)
        homes.append(Note.read(tmp_path / name).home)
        await store.close()
    assert homes[0] == homes[1] != homes[2]


async def test_calls_go_on_after_a_restart_of_redis(server: OwnRedis, store: RedisStore) -> None:
    _, ours = await enter(store, "a")
    _, theirs = await enter(store, "b")
    served = Served(theirs)
    assert await ours.ask("b", "x", b"1", 5.0) == b"1"
    server.kill()
    with pytest.raises(StoreUnavailable):
        await ours.ask("b", "x", b"2", 5.0)
    server.start()
    answer = b""
    while not answer:
        with contextlib.suppress(StoreUnavailable):
            answer = await ours.ask("b", "x", b"3", 5.0)
    assert answer == b"3"
    assert served.outages
    await served.close()
    await ours.close()


async def test_no_call_is_lost_or_comes_twice_when_the_connection_of_the_reader_breaks(
    server: OwnRedis, store: RedisStore
) -> None:
    _, theirs = await enter(store, "b")
    server.say("ACL", "SETUSER", "asker", "on", ">secret", "~*", "+@all")
    settings = replace(server.settings, username="asker", password=Secret("secret"))
    other = await RedisStore.open(settings, FLEET, replica="a", folder=None)
    _, ours = await enter(other, "a")
    served = Served(theirs)
    bodies = [b"%d" % number for number in range(400)]
    for first in range(0, len(bodies), 10):
        asking = asyncio.gather(*(ours.ask("b", "x", body, 20.0) for body in bodies[first : first + 10]))
        await break_reading(server, "default")
        assert await asking == bodies[first : first + 10]
    assert served.outages
    assert sorted(served.heard, key=int) == bodies
    await served.close()
    await ours.close()
    await other.close()


async def break_reading(server: OwnRedis, user: str) -> None:
    """End a connection on which this user waits for something, as soon as there is one."""
    waiting: list[str] = []
    while not waiting:
        await asyncio.sleep(0)
        waiting = [each["id"] for each in server.clients() if (each["user"], each["cmd"]) == (user, "xread")]
    server.say("CLIENT", "KILL", "ID", *waiting)


async def test_what_ended_leaves_no_inbox_and_no_list_of_mappings(server: OwnRedis, store: RedisStore) -> None:
    a, ours = await enter(store, "a")
    b, _ = await enter(store, "b")
    c, _ = await enter(store, "c")
    await c.say(runs=frozenset({"clicks"}))
    for _ in range(3 * INBOX):
        await a.table.steered()
    inboxes = [server.say("XLEN", key) for key in server.found(store.link.key("inbox", "*"))]
    assert len(inboxes) == 3
    assert max(inboxes) < 1.5 * INBOX
    with pytest.raises(TimeoutError, match="calls to answer before"):
        await ours.ask("b", "x", b"", 5.0)
    assert len(server.say("HKEYS", store.link.key("runs"))) == 2
    await c.table.leave()
    await a.say(buries=[Bury("b", (await a.say()).replicas["b"].beat)])
    assert await a.say(runs=frozenset({"orders", "clicks"}))
    assert len(server.say("HKEYS", store.link.key("runs"))) == 1
    await a.table.leave()
    await ours.close()
    assert server.found(store.link.key("inbox", "*")) == []
    assert server.say("HKEYS", store.link.key("runs")) == []
    assert await b.table.look()


async def test_an_answer_of_a_thousand_mappings_and_a_hundred_replicas_is_a_few_kilobytes(
    server: OwnRedis, store: RedisStore
) -> None:
    runs = frozenset(f"mapping-{number:04}" for number in range(1000))
    talkers = [(await enter(store, f"replica-{number:02}"))[0] for number in range(100)]
    for talker in talkers:
        await talker.say(runs=runs)
    keys = [LeaseKey("orders", f"shard-{number:06}") for number in range(10_000)]
    await talkers[0].say(takes=[Take(key, 0) for key in keys])
    await talkers[1].say()
    server.say("CONFIG", "RESETSTAT")
    heard = await talkers[1].say()
    calls = server.say("INFO", "commandstats")
    told_bytes = server.say("INFO", "stats")["total_net_output_bytes"]
    assert {replica.runs for replica in heard.replicas.values()} == {runs}
    assert calls["cmdstat_evalsha"]["calls"] == 1
    assert told_bytes < 15_000


#: What a user of Redis needs for leases and peers, beside what the store needs.
RIGHTS = (
    "+evalsha +eval +hget +hset +hdel +hmget +hgetall +hkeys +hvals +hexists +hlen +hincrby +time +zadd +zrem +zrange "
    "+zrangebyscore +zremrangebyrank +zremrangebyscore +zscore +xadd +xlen +xread +xtrim +unlink"
)


async def test_a_user_with_few_rights_is_enough(server: OwnRedis, store: RedisStore) -> None:
    server.say("ACL", "SETUSER", "few", "on", ">secret", "~headrace:{fleet}:*", *RIGHTS.split())
    link = RedisLink(replace(server.settings, username="few", password=Secret("secret")), FLEET)
    link.born = store.link.born
    table = RedisLeaseTable(link, "a", "a", LEASE_S)
    await table.join()
    a, peers = Talker(table), RedisPeers(link, table)
    await a.say(runs=frozenset({"orders"}))
    b, _ = await enter(store, "b")
    token = await a.take(FIRST)
    await a.take(SECOND)
    heard = await a.say(gives=[Give(FIRST, token, "a", 0.0)], marks=[Mark(SECOND, a.leases[SECOND].token, "b", 1.0)])
    await a.say(forgets=[FIRST], known=heard.version)
    await a.say(buries=[Bury("b", heard.replicas["b"].beat)], runs=frozenset())
    await table.describe("{}")
    assert await table.abouts() == {"a": "{}"}
    await table.steered()
    assert (await table.look()).leases[SECOND] == a.leases[SECOND]
    served = Served(peers)
    assert await peers.ask("a", "x", b"1", 5.0) == b"1"
    await table.leave()
    await served.close()
    await link.close()
    assert (await b.say()).leases
