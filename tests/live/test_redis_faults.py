"""Redis in trouble, as the store of a fleet sees it: nothing is lost, nothing hangs, and the operator is told."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from shutil import copytree, rmtree

import pytest

from connectors.redis import link as link_module
from connectors.redis.birth import Note
from connectors.redis.health import needed_commands
from connectors.redis.lease_table import RedisLeaseTable
from connectors.redis.store import RedisStore
from connectors.settings import Secret
from router.core.fleet import LeaseKey, Said, Take
from router.errors import DecisionNeeded, StoreUnavailable
from router.ports import DeleteFailure, Erasure, KeepFailure, PutState, RenameMapping, Selection
from tests.fakes.failures import entry
from tests.live.own_redis import DURABLE, FLEET, OpenStore, OwnRedis

pytestmark = pytest.mark.live


async def answers(store: RedisStore) -> bool:
    """Does it answer again? A connection that broke is found out by the call that uses it."""
    try:
        await store.tallies()
    except StoreUnavailable:
        return False
    return True


async def looks(store: RedisStore) -> bool:
    try:
        await store.look()
    except StoreUnavailable:
        return False
    return True


async def test_a_stopped_redis_is_told_and_what_was_kept_is_there_again(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("orders", "x", "1"), KeepFailure(entry(), b"event")])
    own_redis.kill()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await store.apply([PutState("orders", "x", "2")])
    own_redis.start()
    while not await answers(store):
        pass
    assert await store.states("orders") == {"x": "1"}
    assert await store.event("f1") == b"event"
    await store.apply([PutState("orders", "x", "2")])
    assert await store.states("orders") == {"x": "2"}


async def test_every_acknowledged_change_survives_a_kill_in_the_middle(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.start()
    store = await open_store()
    kept: list[str] = []
    enough = asyncio.Event()

    async def keep(writer: int) -> None:
        for number in range(10_000):
            failure_id = f"f{writer}-{number}"
            await store.apply(
                [KeepFailure(entry(failure_id), b"e"), PutState("orders", f"shard:{writer}", str(number))]
            )
            kept.append(failure_id)
            if len(kept) == 200:
                enough.set()

    writers = [asyncio.ensure_future(keep(writer)) for writer in range(8)]
    await enough.wait()
    own_redis.kill()
    for ended in await asyncio.gather(*writers, return_exceptions=True):
        assert isinstance(ended, StoreUnavailable)
    own_redis.start()
    while not await answers(store):
        pass
    found = {each.batch.id for each in await store.failures(Selection())}
    assert found.issuperset(kept)
    states = await store.states("orders")
    # what was written together is there together, also of what was not acknowledged
    assert {f"f{writer}-{states[f'shard:{writer}']}" for writer in range(8)} <= found
    assert (await store.backlog("orders")).failures == len(found)


async def test_attempts_while_redis_is_away_leave_no_copies_of_large_events(
    own_redis: OwnRedis, open_store: OpenStore, tmp_path: Path
) -> None:
    own_redis.start()
    large = tmp_path / "large"
    store = await open_store(replace(own_redis.settings, payloads_over_bytes=3, payloads=large))
    own_redis.kill()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.apply([KeepFailure(entry(), b"event")])
    own_redis.start()
    while not await answers(store):
        pass
    assert list(large.rglob("*.*")) == []
    await store.apply([KeepFailure(entry(), b"event")])
    assert len(list(large.rglob("*.*"))) == 1


@pytest.mark.parametrize("setting", [("maxmemory", "1mb"), ("min-replicas-to-write", "1")])
async def test_attempts_while_redis_refuses_to_write_leave_no_copies_of_large_events(
    own_redis: OwnRedis, open_store: OpenStore, tmp_path: Path, setting: tuple[str, str]
) -> None:
    own_redis.start()
    large = tmp_path / "large"
    store = await open_store(replace(own_redis.settings, payloads_over_bytes=3, payloads=large))
    await store.apply([KeepFailure(entry(keys=(b"k",)), b"event")])
    kept = list(large.rglob("*.*"))
    own_redis.say("CONFIG", "SET", *setting)
    again = entry("f2")
    erasure = Erasure("f1", again.batch.failed_at_s, b"k", entry(), b"event again")
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.apply([KeepFailure(again, b"event")])
        if setting[0] != "maxmemory":  # what makes room is done
            with pytest.raises(StoreUnavailable):
                await store.erase([erasure])
    assert list(large.rglob("*.*")) == kept
    own_redis.say("CONFIG", "SET", setting[0], "0")
    await store.apply([KeepFailure(again, b"event")])
    assert len(list(large.rglob("*.*"))) == 2


async def test_what_cannot_be_written_takes_no_other_change_with_it(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store = await open_store()
    texts = ["1", "2", "\udcff", "4"]
    ended = await asyncio.gather(
        *(store.apply([PutState("orders", f"x{n}", text)]) for n, text in enumerate(texts)), return_exceptions=True
    )
    assert [type(each) for each in ended] == [type(None), type(None), UnicodeEncodeError, type(None)]
    assert await store.states("orders") == {"x0": "1", "x1": "2", "x3": "4"}


async def test_a_redis_that_stands_still_is_told_in_time_and_goes_on(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("orders", "x", "1")])
    own_redis.pause()
    with pytest.raises(StoreUnavailable, match="does not answer in time"):
        await store.link.command("PING", within_s=0.3)
    own_redis.go_on()
    assert await store.states("orders") == {"x": "1"}


async def test_a_slow_redis_is_waited_for(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store = await open_store()
    own_redis.say("CLIENT", "PAUSE", "2000", "ALL")
    await store.apply([PutState("orders", "x", "1")])
    assert await store.states("orders") == {"x": "1"}
    assert link_module.CALL_S > 2


async def test_a_redis_that_comes_back_empty_asks_for_a_decision(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("orders", "shard:0", "9"), PutState("clicks", "shard:0", "5")])
    own_redis.restart(empty=True)
    while True:  # until its own_redis connections are found out
        try:
            await store.apply([PutState("orders", "shard:0", "10")])
            pytest.fail("it was written where nobody knows what was before")
        except StoreUnavailable as error:
            if "headrace mapping accept" in str(error):
                break
    health = await store.look()
    assert (health.gone, health.is_another) == ({"orders", "clicks"}, True)
    for mapping in ("orders", "clicks"):
        with pytest.raises(DecisionNeeded, match=f"headrace mapping accept {mapping}"):
            await store.states(mapping)
        with pytest.raises(StoreUnavailable, match=f"headrace mapping accept {mapping}"):
            await store.apply([PutState(mapping, "shard:0", "10")])
    assert await store.states("others") == {}
    assert await store.accept_loss("orders")
    await store.apply([PutState("orders", "shard:0", "1")])
    assert await store.states("orders") == {"shard:0": "1"}
    assert (await store.look()).gone == {"clicks"}


async def test_the_decision_is_one_of_the_fleet_and_is_remembered(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    for replica in ("r1", "r2"):
        store = await open_store(replica=replica)
        await store.apply([PutState("orders", "shard:0", "9")])
        await store.close()
    own_redis.restart(empty=True)
    fresh = await open_store(replica="r1")
    with pytest.raises(DecisionNeeded):
        await fresh.states("orders")
    # one that has never seen the fleet hears of it, too
    newcomer = await open_store(replica="r3")
    with pytest.raises(DecisionNeeded):
        await newcomer.states("orders")
    assert await newcomer.accept_loss("orders")
    await newcomer.apply([PutState("orders", "shard:0", "1")])
    late = await open_store(replica="r2")
    assert await late.states("orders") == await fresh.states("orders") == {"shard:0": "1"}
    assert not await late.accept_loss("orders")


@pytest.mark.parametrize("sees", ["states", "look"])
async def test_who_has_only_read_of_a_mapping_or_seen_it_begun_misses_it_too(
    own_redis: OwnRedis, open_store: OpenStore, sees: str
) -> None:
    own_redis.start()
    reader = await open_store(replica="r2")
    writer = await open_store()
    await writer.apply([PutState("orders", "shard:0", "9")])
    await (reader.states("orders") if sees == "states" else reader.look())
    own_redis.restart(empty=True)
    while not await looks(reader):
        pass
    with pytest.raises(DecisionNeeded):
        await reader.states("orders")


async def test_another_redis_than_before_asks_the_replica_that_knows_better(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("orders", "shard:0", "9")])
    other = replace(own_redis.settings, database=1)
    stranger = await open_store(other, replica="r9")
    await stranger.apply([PutState("orders", "shard:0", "5")])
    moved = await open_store(other)
    with pytest.raises(DecisionNeeded):
        await moved.states("orders")
    assert await stranger.states("orders") == {"shard:0": "5"}
    assert await moved.accept_loss("orders")
    assert await (await open_store(other)).states("orders") == {"shard:0": "5"}


async def test_who_finds_redis_empty_first_and_knows_nothing_is_told_by_those_who_do(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.start()
    for replica in ("r1", "r2"):
        store = await open_store(replica=replica)
        await store.apply([PutState(each, "shard:0", "9") for each in ("orders", "clicks")])
        await store.close()
    own_redis.restart(empty=True)
    newcomer = await open_store(replica="r3")  # or a command
    await newcomer.apply([PutState("clicks", "shard:0", "1")])  # nobody can keep it from that
    knows = await open_store(replica="r1")
    assert (await knows.look()).gone == {"orders", "clicks"}
    assert (await newcomer.look()).gone == {"orders"}
    for each in (knows, newcomer):
        with pytest.raises(DecisionNeeded):
            await each.states("orders")
    assert await newcomer.states("clicks") == {"shard:0": "1"}
    assert await newcomer.accept_loss("orders")
    late = await open_store(replica="r2")
    for each in (knows, newcomer, late):
        assert await each.states("orders") == {}
    assert (await late.look()).gone == {"clicks"}


async def test_data_that_are_put_back_are_known_again(
    own_redis: OwnRedis, open_store: OpenStore, tmp_path: Path
) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("orders", "shard:0", "9")])
    own_redis.stop()
    saved = own_redis.folder.rename(tmp_path / "saved")
    own_redis.start()
    while not await looks(store):
        pass
    with pytest.raises(DecisionNeeded):
        await store.states("orders")
    own_redis.stop()
    own_redis.folder.rename(tmp_path / "thrown-away")
    saved.rename(own_redis.folder)
    own_redis.start()
    while not await looks(store):
        pass
    assert await store.states("orders") == {"shard:0": "9"}
    assert not (await store.look()).is_another
    again = await open_store()
    assert await again.states("orders") == {"shard:0": "9"}


async def test_data_from_before_a_mapping_had_begun_ask_for_a_decision(
    own_redis: OwnRedis, open_store: OpenStore, tmp_path: Path
) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("clicks", "shard:0", "5")])
    own_redis.stop()
    copytree(own_redis.folder, tmp_path / "copy")
    own_redis.start()
    while not await looks(store):
        pass
    await store.apply([PutState("orders", "shard:0", "9")])
    table = RedisLeaseTable(store.link, "r1", "home", 5.0)
    await table.join()
    own_redis.stop()
    rmtree(own_redis.folder)
    copytree(tmp_path / "copy", own_redis.folder)
    own_redis.start()
    while True:  # the first exchange that is answered
        with suppress(StoreUnavailable):
            heard = await table.exchange(Said(1, 0.0, False, None, 0, [Take(LeaseKey("orders", "0"), 0)]))
            break
    assert heard.taken == {}, "nobody may read it from its start"
    with pytest.raises(StoreUnavailable, match="headrace mapping accept orders"):
        await store.apply([PutState("orders", "paused", "1")])
    newcomer = await open_store(replica="r2")
    with pytest.raises(DecisionNeeded):
        await store.states("orders")
    assert (await store.look()).gone == (await newcomer.look()).gone == {"orders"}
    assert await store.states("clicks") == {"shard:0": "5"}
    assert await newcomer.accept_loss("orders")
    assert (await store.look()).gone == set()
    assert await store.states("orders") == {}


async def test_a_mapping_that_was_forgotten_or_renamed_is_not_missed(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("orders", "x", "1"), PutState("clicks", "x", "1")])
    await store.apply([PutState("orders", "x", ""), RenameMapping("clicks", "taps")])
    await store.apply([PutState("never", "x", "")])
    again = await open_store()
    assert (await again.look()).gone == set()
    assert [await again.states(each) for each in ("orders", "clicks", "taps", "never")] == [{}, {}, {"x": "1"}, {}]


async def test_mappings_without_texts_are_not_remembered_for_ever(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store, other = await open_store(), await open_store(replica="r2")
    meta, ended = store.link.key("meta"), store.link.key("ended")
    await store.apply([PutState(each, "x", "1") for each in ("orders", "clicks", "taps")])
    await other.look()
    await store.apply([PutState("orders", "x", ""), RenameMapping("clicks", "hits")])
    for each in (store, other):
        assert (await each.look()).gone == set()
    for replica in ("r1", "r2"):
        assert Note.read(own_redis.folder.parent / replica).mappings == {"taps", "hits"}
    assert set(own_redis.say("ZRANGE", ended, 0, -1)) == {b"orders", b"clicks"}
    # one begins again; and then it is long ago
    await store.apply([PutState("orders", "x", "1")])
    await other.look()
    assert own_redis.say("ZRANGE", ended, 0, -1) == [b"clicks"]
    own_redis.say("ZADD", ended, 1, "clicks")
    assert (await other.look()).gone == (await store.look()).gone == set()
    assert (own_redis.say("HEXISTS", meta, "state:clicks"), own_redis.say("EXISTS", ended)) == (0, 0)
    # what has begun again is missed as ever
    own_redis.say("DEL", meta)
    while not await looks(other):
        pass
    for mapping in ("orders", "hits", "taps"):
        with pytest.raises(DecisionNeeded):
            await other.states(mapping)
    assert await other.states("clicks") == {}


async def test_texts_that_were_deleted_or_evicted_are_missed(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store = await open_store()
    await store.apply([PutState("orders", "shard:0", "9"), PutState("orders", "shard:1", "9")])
    own_redis.say("DEL", store.link.key("states", "orders"))
    await store.apply([PutState("orders", "shard:0", "10")])  # who runs knows where it is
    with pytest.raises(DecisionNeeded, match="lost keys"):
        await store.states("orders")
    assert (await store.look()).gone == {"orders"}
    assert await store.accept_loss("orders")
    assert await store.states("orders") == {"shard:0": "10"}


async def test_a_full_redis_keeps_nothing_of_a_change_and_what_is_deleted_makes_room(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.options = (*DURABLE, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    own_redis.start()
    store = await open_store()
    chance = Random(7)
    number = 0

    async def fill() -> None:
        nonlocal number
        while True:
            kept = KeepFailure(entry(f"f{number}"), chance.randbytes(20_000))
            await store.apply([kept, PutState("orders", "kept", str(number))])
            number += 1

    with pytest.raises(StoreUnavailable, match="its memory is full"):
        await fill()
    assert (await store.backlog("orders")).failures == number
    assert await store.states("orders") == {"kept": str(number - 1)}
    health = await store.look()
    assert [each.what for each in health.findings] == ["memory"]
    await store.apply([DeleteFailure(f"f{each}") for each in range(number // 2)])
    await store.apply([PutState("orders", "kept", "again")])
    assert await store.states("orders") == {"kept": "again"}


async def test_a_policy_that_may_evict_is_refused_also_while_it_runs(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.options = (*DURABLE, "--maxmemory-policy", "allkeys-lru")
    own_redis.start()
    with pytest.raises(StoreUnavailable, match="maxmemory-policy is allkeys-lru"):
        await open_store()
    own_redis.say("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    store = await open_store()
    own_redis.say("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    assert [(each.what, each.is_refused) for each in (await store.look()).findings] == [("eviction", True)]
    with pytest.raises(StoreUnavailable, match="allkeys-random"):
        await store.apply([PutState("orders", "x", "1")])
    own_redis.say("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert (await store.look()).findings == []
    await store.apply([PutState("orders", "x", "1")])


@pytest.mark.parametrize(
    ("options", "power_safe", "said"),
    [
        (DURABLE, True, None),
        (("--appendonly", "no"), False, "append-only"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), True, "appendfsync is everysec"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), False, None),
    ],
)
async def test_settings_that_fall_short_are_told(
    own_redis: OwnRedis,
    open_store: OpenStore,
    options: tuple[str, ...],
    power_safe: bool,  # noqa: FBT001
    said: str | None,
) -> None:
    own_redis.options = options
    own_redis.start()
    store = await open_store(power_safe=power_safe)
    findings = (await store.look()).findings
    assert [each.what for each in findings] == (["persistence"] if said else [])
    assert all(said is not None and said in each.text and not each.is_refused for each in findings)


async def test_a_wrong_password_is_told_without_it(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.options = (*DURABLE, "--requirepass", "right-one")
    own_redis.start()
    with pytest.raises(StoreUnavailable, match="wants a password"):
        await open_store()
    with pytest.raises(StoreUnavailable, match="refuses user or password") as told:
        await open_store(replace(own_redis.settings, password=Secret("wrong-one"), username="somebody"))
    assert "wrong-one" not in str(told.value)
    assert "somebody" not in str(told.value)
    assert await open_store(replace(own_redis.settings, password=Secret("right-one")))


@pytest.mark.parametrize("lacking", ["ZADD", "EVALSHA", "HINCRBY"])
async def test_a_user_without_a_needed_right_is_refused_by_its_name(
    own_redis: OwnRedis, open_store: OpenStore, lacking: str
) -> None:
    own_redis.start()
    own_redis.say("ACL", "SETUSER", "fleet", "on", ">pass", "~headrace:*", "+@all", f"-{lacking.lower()}")
    limited = replace(own_redis.settings, username="fleet", password=Secret("pass"))
    with pytest.raises(StoreUnavailable, match=f"ACL refuses.*{lacking}"):
        await open_store(limited)


async def test_a_user_with_just_the_needed_rights_suffices(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    rights = [f"+{each.lower()}" for each in needed_commands()]
    own_redis.say("ACL", "SETUSER", "fleet", "on", ">pass", f"~headrace:{{{FLEET}}}:*", *rights)
    store = await open_store(replace(own_redis.settings, username="fleet", password=Secret("pass")))
    await store.apply([PutState("orders", "x", "1"), KeepFailure(entry(keys=(b"k",)), b"event")])
    assert await store.claim(["f1"]) == ["f1"]
    assert await store.states("orders") == {"x": "1"}
    [finding] = (await store.look()).findings
    assert "CONFIG GET is refused" in finding.text
    with pytest.raises(StoreUnavailable, match="ACL refuses the command BGREWRITEAOF"):
        await store.scrub()


async def test_keys_that_a_user_may_not_touch_are_told(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    own_redis.say("ACL", "SETUSER", "fleet", "on", ">pass", "~others:*", "+@all")
    with pytest.raises(StoreUnavailable, match="ACL refuses the keys of this fleet"):
        await open_store(replace(own_redis.settings, username="fleet", password=Secret("pass")))


async def test_a_replica_of_redis_is_not_written(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.options = (*DURABLE, "--replicaof", "127.0.0.1 1")
    own_redis.start()
    with pytest.raises(StoreUnavailable, match="name the primary"):
        await open_store()


async def test_a_newer_store_is_refused(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store = await open_store()
    own_redis.say("HSET", store.link.key("meta"), "format", "2")
    with pytest.raises(StoreUnavailable, match="newer headrace"):
        await open_store(replica="r2")


async def test_a_key_of_another_program_is_told(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    own_redis.say("SET", f"headrace:{{{FLEET}}}:meta", "mine")
    with pytest.raises(StoreUnavailable, match="of another program"):
        await open_store()


async def test_a_claim_of_which_nobody_heard_is_taken_back(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store, other = await open_store(), await open_store(replica="r2")
    await store.apply([KeepFailure(entry("f1"), b"event"), KeepFailure(entry("f2"), b"event")])
    await store.claim(["f2"])
    own_redis.pause()
    asking = asyncio.ensure_future(store.claim(["f1", "f2"]))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asking, 0.3)
    own_redis.go_on()
    while await other.count(Selection(statuses=("replaying",))) != 2:
        pass  # every turn asks it: what was sent is run in the end
    await store.look()
    assert await other.claim(["f1", "f2"]) == ["f1"]


async def test_what_was_adopted_unheard_is_adopted_again(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.start()
    store, other = await open_store(), await open_store(replica="r2")
    await store.apply([KeepFailure(entry(each), b"event") for each in ("f1", "f2", "f3")])
    await other.claim(["f1", "f2"])
    await store.claim(["f3"])
    for turns in range(0, 60, 3):  # cut off at any of its steps
        asking = asyncio.ensure_future(store.adopt("r2"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if asking.done():
            break
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    found = asking.result() if asking.done() and not asking.cancelled() else await store.adopt("r2")
    assert [each.batch.id for each in found] == ["f1", "f2"]
    assert list(await store.adopt("r2")) == []
