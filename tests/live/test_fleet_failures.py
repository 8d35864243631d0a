"""Failures of a fleet over a real Redis: one replica delivers, each replays what it has, and a dead one is replaced."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeTopic
from tests.live.daemon import plain, produce
from tests.live.fleet_rig import NOTING, FleetRig, Replica
from tests.live.stream_rig import Stream, Streams

SHARDS = 4
RECORDS = 24
#: The function fails while a file says so.
BREAKING = NOTING.replace(
    '    note("end"', '    if (HERE / "broken").exists():\n        raise ValueError("broken")\n    note("end"'
)

#: Makes the records of a topic such as those of a stream.
OF_TOPIC = """


def of_topic(event):
    for records in event["records"].values():
        for record in records:
            shard = f"{record['topic']}-{record['partition']}:{record['offset']}"
            key = base64.b64decode(record["key"]).decode()
            yield {"eventID": shard, "kinesis": {"partitionKey": key, "data": record["value"]}}
"""


class Scene:
    """A fleet whose mapping fails each record alone, until it is repaired, and tells a file."""

    def __init__(self, fleet: FleetRig) -> None:
        self.fleet = fleet
        self.told = fleet.folder / "told.jsonl"
        self._broken = fleet.notes / "broken"
        self._broken.touch()

    async def reads(self, streams: Streams, **mapping: Any) -> Stream:
        stream = await streams.make(SHARDS)
        told = {"destination_config": {"on_failure": {"file": {"path": str(self.told)}}}}
        self.fleet.reads("clicks", stream, batch_size=1, maximum_retry_attempts=0, **{**told, **mapping})
        self.fleet.function("clicks", BREAKING, reserved_concurrency=8, timeout="30s")
        await stream.put(*((f"k{number % 8}", f"k{number % 8}-{number:06}") for number in range(RECORDS)))
        return stream

    def repair(self) -> None:
        self._broken.unlink()

    def deliveries(self) -> Counter[str]:
        """Count what the destination has been told, by failure."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return Counter(json.loads(line)["requestContext"]["requestId"] for line in lines)


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str):
    # The machine may stand still for some seconds, and no lease ends.
    async with FleetRig(tmp_path, redis_url, lease="10s") as made:
        yield made


async def kept(replica: Replica, **statuses: int) -> None:
    """Wait until the failures have these statuses."""
    found: Counter[str] = Counter()
    for _ in range(200):
        found = Counter(each["status"] for each in await replica.failures())
        if found == statuses:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{found}, not {statuses}")


async def replay(replica: Replica, *options: str) -> Counter[str]:
    """Replay all failures, and count how that ended."""
    done = await replica.command("failures", "replay", "--all", "--yes", "--json", *options)
    *ends, _ = map(json.loads, done.out.splitlines())
    assert not done.err, done.err
    return Counter(each["outcome"] for each in ends)


async def test_a_replay_runs_where_the_shards_are_and_the_destination_is_served_once(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    await scene.reads(streams)
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await kept(a, delivered=RECORDS)
    assert sum(scene.deliveries().values()) == RECORDS
    by_delivery = [bool(each.events("failure.delivered")) for each in (a, b)]
    assert sorted(by_delivery) == [False, True]

    scene.repair()
    assert await replay(a) == {"replayed": RECORDS}
    await kept(b, replayed=RECORDS)
    pids = {run.pid for run in fleet.ledger().runs if run.end_s < float("inf")}
    assert all(pids & set(each.workers()) for each in (a, b))
    assert fleet.ledger().wrong() == []
    assert fleet.ledger().seen_again() == set()


async def test_what_a_killed_replica_was_replaying_is_taken_up_by_another(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    await scene.reads(streams, destination_config={})
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await kept(a, stored=RECORDS)
    scene.repair()
    fleet.slow(0.5)
    job = asyncio.create_task(a.command("failures", "replay", "--all", "--yes", "--json"))
    await fleet.until_ended(2)
    await a.kill()
    assert (await job).status == 3
    await kept(b, replayed=RECORDS)
    assert len(fleet.ledger().ended) == RECORDS
    assert fleet.ledger().wrong() == []


async def test_what_the_owner_of_a_shard_was_replaying_goes_to_the_next(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    await scene.reads(streams, destination_config={})
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await kept(a, stored=RECORDS)
    scene.repair()
    fleet.slow(0.5)
    job = asyncio.create_task(replay(a))
    await b.until(lambda: {run.pid for run in fleet.ledger().runs[RECORDS:]} & set(b.workers()), "b replays something")
    await b.kill()
    assert await job == {"replayed": RECORDS}
    await kept(a, replayed=RECORDS)
    assert fleet.ledger().wrong() == []


async def test_a_replica_that_stops_gives_back_what_it_was_replaying(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    await scene.reads(streams, destination_config={})
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await kept(a, stored=RECORDS)
    scene.repair()
    fleet.slow(0.5)
    job = asyncio.create_task(a.command("failures", "replay", "--all", "--yes", "--json"))
    await fleet.until_ended(2)
    assert await a.terminate() == 0
    await job
    await b.until(lambda: len(b.shards) == SHARDS, "b has all shards")
    await replay(b)
    await kept(b, replayed=RECORDS)
    assert fleet.ledger().wrong() == []


async def test_a_failure_that_is_replayed_at_two_replicas_runs_once(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    await scene.reads(streams, destination_config={})
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await kept(a, stored=RECORDS)
    scene.repair()
    fleet.slow(0.1)
    ends = sum(await asyncio.gather(replay(a), replay(b)), Counter[str]())
    assert ends["replayed"] == RECORDS
    await kept(a, replayed=RECORDS)
    assert fleet.ledger().seen_again() == set()


async def test_when_who_delivers_is_killed_another_goes_on(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    scene.told = fleet.folder / "later" / "told.jsonl"
    await scene.reads(streams)
    replicas = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, *replicas)
    await kept(replicas[0], stored=RECORDS)
    killed, other = await who_delivers(replicas)
    await killed.kill()
    await other.line("failure.not_delivered", after=len(other.lines))
    scene.told.parent.mkdir()
    done = await other.command("failures", "deliver", "--all", "--json")
    assert done.status == 0, done.out
    await kept(other, delivered=RECORDS)
    assert set(scene.deliveries().values()) == {1}
    assert len(scene.deliveries()) == RECORDS


async def test_any_replica_has_failures_delivered_and_dropped(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    scene.told = fleet.folder / "later" / "told.jsonl"
    await scene.reads(streams)
    replicas = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, *replicas)
    await kept(replicas[0], stored=RECORDS)
    owner, other = await who_delivers(replicas)

    done = await other.command("failures", "deliver", "--all", "--json")
    *ends, summary = map(json.loads, done.out.splitlines())
    assert (done.status, summary) == (1, {"summary": {"delivered": 0, "not_delivered": RECORDS, "refused": 0}})
    assert "its directory does not exist" in ends[0]["reason"]

    dropped = [end["id"] for end in ends[:3]]
    assert (await other.command("failures", "drop", *dropped, "--yes")).status == 0
    await until_undelivered(owner, RECORDS - 3)
    erased = await other.command("state", "erase", "--key", "k1", "--yes", "--json")
    assert (erased.status, erased.json()["kept"]) == (0, []), erased.err

    left = [each["id"] for each in await other.failures() if each["status"] == "stored"]
    scene.told.parent.mkdir()
    done = await other.command("failures", "deliver", *left, "--json")
    summary = {"delivered": len(left), "not_delivered": 0, "refused": 0}
    assert json.loads(done.out.splitlines()[-1]) == {"summary": summary}
    assert set(scene.deliveries().values()) == {1}
    assert len(scene.deliveries()) == len(left)


async def test_too_much_that_waits_holds_the_mapping_on_every_replica(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    scene.told = fleet.folder / "later" / "told.jsonl"
    stream = await scene.reads(streams)
    fleet.document["failures"] = {"keep_bytes": "1MiB"}
    replicas = await fleet.start("a", "b")
    await stream.put(("k0", "x" * 700_000), ("k0", "y" * 700_000))
    for each in replicas:
        await each.line("mapping.held")
    assert (await replicas[0].command("failures", "drop", "--all", "--yes")).status == 0
    for each in replicas:
        await each.line("mapping.resumed")


async def test_failure_records_run_where_their_shards_are(fleet: FleetRig, streams: Streams):
    scene = Scene(fleet)
    await scene.reads(streams)
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    await kept(a, delivered=RECORDS)
    scene.repair()
    done = await a.command("failures", "replay", "--from", str(scene.told), "--yes", "--json")
    assert not done.err, done.err
    *ends, _ = map(json.loads, done.out.splitlines())
    assert Counter(each["outcome"] for each in ends) == {"replayed": RECORDS}
    pids = {run.pid for run in fleet.ledger().runs if run.end_s < float("inf")}
    assert all(pids & set(each.workers()) for each in (a, b))
    assert fleet.ledger().seen_again() == set()


async def test_failures_of_a_topic_run_where_their_partitions_are(
    fleet: FleetRig, kafka_bootstrap: str, topic: MakeTopic
):
    name = await topic(partitions=2)
    scene = Scene(fleet)
    fleet.function("orders", BREAKING.replace('event["Records"]', "of_topic(event)") + OF_TOPIC, timeout="30s")
    kafka = {**plain(kafka_bootstrap, name), "session_timeout": "60s"}
    Replica(fleet, "unused").mapping("orders", kafka, batch_size=1, maximum_retry_attempts=0, parallelization_factor=2)
    await produce(
        kafka_bootstrap, name, [(f"k{number % 8}", f"k{number % 8}-{number:06}") for number in range(RECORDS)]
    )
    a, b = await fleet.start("a", "b")
    await a.until(lambda: len(a.shards) == len(b.shards) == 1, "both have a partition")
    await kept(a, stored=RECORDS)
    scene.repair()
    assert await replay(a) == {"replayed": RECORDS}
    pids = {run.pid for run in fleet.ledger().runs if run.end_s < float("inf")}
    assert all(pids & set(each.workers()) for each in (a, b))
    assert fleet.ledger().wrong() == []
    assert fleet.ledger().seen_again() == set()


async def who_delivers(replicas: Sequence[Replica]) -> tuple[Replica, Replica]:
    """Wait until one of two replicas has tried to deliver, and all is as it stays; give it, and the other."""
    seen = [len(each.lines) for each in replicas]
    await replicas[0].until(
        lambda: any(
            any(line.get("event") == "failure.not_delivered" for line in each.lines[after:])
            for each, after in zip(replicas, seen, strict=True)
        ),
        "one tries to deliver",
    )
    first, second = replicas
    last = [max((line["timestamp"] for line in each.events("failure.not_delivered")), default="") for each in replicas]
    return (first, second) if last[0] > last[1] else (second, first)


async def until_undelivered(replica: Replica, count: int) -> None:
    """Wait until a replica says that so many failures wait for their destination."""
    found = None
    for _ in range(100):
        found = (await replica.status("clicks"))["outbox"]["undelivered"]
        if found == count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{found} wait, not {count}")
