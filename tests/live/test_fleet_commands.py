"""The commands of operators over two replicas that share the shards of a stream, on a real Redis."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.conftest import MakeTopic
from tests.live.daemon import PATIENCE_S, plain, produce
from tests.live.fleet_rig import FleetRig, Replica
from tests.live.stream_rig import Streams

SHARDS = 4

#: Appends a line for each record.
KAFKA_NOTING = """
import os
def handle(event, context):
    records = [record for records in event["records"].values() for record in records]
    handle = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, b"".join(b"%d\\n" % record["offset"] for record in records))
    os.close(handle)
"""


def rows(first: int, count: int) -> list[tuple[str, str]]:
    """Give records of eight keys, whose contents sort as they are written."""
    return [(f"k{number % 8}", f"k{number % 8}-{number:06}") for number in range(first, first + count)]


@pytest.fixture
async def fleet(tmp_path, redis_url):
    # The machine may stand still for some seconds, and no lease ends.
    async with FleetRig(tmp_path, redis_url, lease="10s") as made:
        yield made


async def test_a_mapping_is_steered_on_all_replicas_from_any(fleet: FleetRig, streams: Streams):
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    await stream.put(*rows(0, 40))
    a, b = await fleet.start("a", "b")
    await fleet.until_ended(40)
    await fleet.until_shared(SHARDS, a, b)

    drained = await a.command("mapping", "drain", "clicks", "--json")
    assert (drained.status, drained.json()["idle"], drained.json()["silent"]) == (0, True, [])
    await b.line("mapping.paused", mapping="clicks")
    await stream.put(*rows(40, 8))

    preview = await b.command("mapping", "seek", "clicks", "--to", "TRIM_HORIZON", "--json")
    assert (preview.status, preview.json()["seen_again"]) == (0, 40)
    sought = await b.command("mapping", "seek", "clicks", "--to", "TRIM_HORIZON", "--apply", "--yes", "--json")
    assert (sought.status, sought.json()["applied"]) == (0, True)
    resumed = await a.command("mapping", "resume", "clicks")
    assert (resumed.status, resumed.out) == (0, "clicks goes on\n")
    await fleet.until_ended(48)
    assert len(fleet.ledger().begun) == 88
    assert fleet.ledger().seen_again() == {data for _, data in rows(0, 40)}

    refused = await a.command("mapping", "forget", "clicks", "--yes")
    assert (refused.status, "runs" in refused.err) == (1, True)
    exported = await a.command("checkpoints", "export")
    assert len(exported.json()["mappings"][0]["shards"]) == SHARDS


async def test_commands_without_a_replica_on_this_machine(fleet: FleetRig, streams: Streams):
    stream = await streams.make(1)
    fleet.reads("clicks", stream)
    await stream.put(*rows(0, 4))
    (a,) = await fleet.start("a")
    await fleet.until_ended(4)
    (fleet.folder / "other.yaml").write_text(json.dumps({**fleet.document, "fleet": f"{fleet.name}-other"}))
    other = await a.command("--config", "other.yaml", "mapping", "drain", "clicks")
    assert (other.status, "replica a of fleet" in other.err) == (3, True), "a replica in the same folder, of another"
    assert await a.terminate() == 0
    listed = await a.command("failures", "list", "--json")
    assert (listed.status, listed.json()) == (0, [])
    away = await a.command("status")
    assert (away.status, "replica a of fleet" in away.err) == (3, True)
    paused = await a.command("mapping", "pause", "clicks")
    assert paused.status == 0
    (a,) = await fleet.start("a")
    await a.line("mapping.paused", mapping="clicks")
    erased = await a.command("state", "erase", "--key", "k1", "--yes", "--json")
    assert (erased.status, erased.json()["failures"]) == (0, 0)
    backup = await a.command("state", "backup", "copy.db")
    assert (backup.status, "Redis makes its own copies" in backup.err) == (2, True)


async def test_status_shows_who_has_what(fleet: FleetRig, streams: Streams):
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    await stream.put(*rows(0, 16))
    a, b = await fleet.start("a", "b")
    await fleet.until_ended(16)
    await fleet.until_shared(SHARDS, a, b)
    told = (await a.command("status", "--json")).json()
    assert [(each["name"], each["state"]) for each in told["fleet"]["replicas"]] == [("a", "live"), ("b", "live")]
    [mapping] = told["mappings"]
    shards = {each["shard"]: each["replica"] for each in mapping["shards"]}
    assert (len(shards), set(shards.values())) == (SHARDS, {"a", "b"})
    owners = {each["shard"]: each["owner"] for each in told["fleet"]["leases"] if not each["shard"].startswith("@")}
    assert owners == shards
    assert told["fleet"]["differences"] == []
    await b.kill()
    away = (await a.command("status", "--json")).json()["fleet"]
    assert {each["name"]: each["state"] for each in away["replicas"]}["b"] in ("silent", "dead")
    await fleet.until_shared(SHARDS, a)
    table = await a.command("status")
    assert (table.status, "REPLICA" in table.out) == (0, True)
    assert await a.terminate() == 0
    stopped = await a.command("status", "--json")
    assert (stopped.status, stopped.json()["fleet"]["name"]) == (3, fleet.name)


async def test_a_topic_is_sought_in_by_all_members_of_its_group(
    fleet: FleetRig, kafka_bootstrap: str, topic: MakeTopic
):
    name = await topic(4)
    scratch = Replica(fleet, "unused")
    scratch.function("orders", KAFKA_NOTING, environment={"SEEN": str(fleet.folder / "seen")})
    scratch.mapping("orders", {**plain(kafka_bootstrap, name), "session_timeout": "60s"}, batch_size=5)
    await produce(kafka_bootstrap, name, [(f"k{number}", f"v{number}") for number in range(40)])
    a, b = await fleet.start("a", "b")
    await seen(fleet, 40)
    await fleet.until_shared(4, a, b)
    drained = await b.command("mapping", "drain", "orders", "--json")
    assert (drained.status, drained.json()["idle"]) == (0, True)
    sought = await a.command("mapping", "seek", "orders", "--to", "TRIM_HORIZON", "--apply", "--yes", "--json")
    assert (sought.status, sought.err) == (0, "")
    assert sought.json()["seen_again"] == 40
    assert (await b.command("mapping", "resume", "orders")).status == 0
    await seen(fleet, 80)
    # While both run.
    sought = await b.command("mapping", "seek", "orders", "--to", "TRIM_HORIZON", "--apply", "--yes", "--json")
    assert (sought.status, sought.err) == (0, "")
    await seen(fleet, 120)
    await fleet.until_shared(4, a, b, fewest=2)  # the first that is back may have read all of it
    async with asyncio.timeout(PATIENCE_S):  # a replica says within a second what its group has given it
        while await shown(a) != [2, 2]:
            pass


async def shown(replica: Replica) -> list[int]:
    """Give how many shards each replica has, as `status` shows it."""
    told = (await replica.command("status", "--json")).json()
    return sorted(each["shards"] for each in told["fleet"]["replicas"])


async def seen(fleet: FleetRig, count: int) -> None:
    """Wait until so many records were seen, each time counted."""
    file = fleet.folder / "seen"
    async with asyncio.timeout(PATIENCE_S):
        while not file.exists() or len(file.read_text().splitlines()) < count:  # noqa: ASYNC110 - other processes have no event for it
            await asyncio.sleep(0.05)
    assert len(file.read_text().splitlines()) == count


async def test_a_mover_that_is_killed_leaves_the_mapping_where_it_was(fleet: FleetRig, streams: Streams):
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    fleet.document["lease"] = "15s"  # the mover is killed before who is paused is taken for dead
    await stream.put(*rows(0, 40))
    a, b = await fleet.start("a", "b")
    await fleet.until_ended(40)
    await fleet.until_shared(SHARDS, a, b, fewest=1)
    b.pause()  # it does not come to rest, so the mover waits for it
    seek = asyncio.create_task(a.command("mapping", "seek", "clicks", "--to", "TRIM_HORIZON", "--apply", "--yes"))
    await a.line("mapping.drained", mapping="clicks")
    await a.kill()
    assert (await seek).status == 3
    b.go_on()
    await stream.put(*rows(40, 16))
    await fleet.until_ended(56)
    assert len(fleet.ledger().begun) == 56, "nothing was moved"
    await fleet.until_shared(SHARDS, b)
    (a,) = await fleet.start("a")
    await stream.put(*rows(56, 8))
    await fleet.until_ended(64)
    assert (await a.command("mapping", "seek", "clicks", "--to", "LATEST", "--apply", "--yes")).status == 0


async def test_replicas_with_different_files_are_told(fleet: FleetRig, streams: Streams, redis_url: str):
    stream = await streams.make(1)
    fleet.reads("clicks", stream)
    (fleet.folder / "other").mkdir()
    async with FleetRig(fleet.folder / "other", redis_url, name=fleet.name) as other:
        other.reads("clicks", stream, batch_size=7)
        (a,), (b,) = await fleet.start("a"), await other.start("b")
        for each in (a, b):
            told = await each.line("fleet.mixed")
            assert set(told["differences"]) == {"file", "mapping clicks"}
        document = (await a.command("status", "--json")).json()
        assert [each["what"] for each in document["fleet"]["differences"]] == ["file", "mapping clicks"]
        assert await b.terminate() == 0
        await a.line("fleet.alike")
