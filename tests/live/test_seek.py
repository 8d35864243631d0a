"""`headrace mapping seek` and `headrace checkpoints` on a real Kafka, as an operator uses them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, plain

#: Notes what it was given.
NOTING = """
import os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        for records in event["records"].values():
            for record in records:
                print(record["partition"], record["offset"], file=ledger)
"""
FAILING = NOTING + '    raise ValueError("poison")\n'
MINUTE_MS = 60_000
START_MS = 1_700_000_000_000


class Site:
    """A topic of two partitions with a record a minute, and daemons that read it."""

    def __init__(self, folder: Path, bootstrap: str, topic: str) -> None:
        self.folder = folder
        self.bootstrap = bootstrap
        self.topic = topic
        self.ledger = folder / "ledger"

    def daemon(self, name: str = "a", handler: str = NOTING, **parameters: Any) -> Daemon:
        folder = self.folder / name
        folder.mkdir()
        daemon = Daemon(folder)
        daemon.function("orders", handler, environment={"LEDGER": str(self.ledger)})
        source = parameters.pop("source", {})
        daemon.mapping("orders", {**plain(self.bootstrap, self.topic), **source}, **{"batch_size": 10, **parameters})
        return daemon

    async def put(self, count: int) -> None:
        """Append so many records to each partition."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            for number in range(count):
                for partition in (0, 1):
                    time_ms = START_MS + number * MINUTE_MS
                    await producer.send(self.topic, b"x", partition=partition, timestamp_ms=time_ms)
            await producer.flush()

    def seen(self, partition: int) -> list[int]:
        """Give the offsets of a partition that the function was given."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [int(offset) for owner, offset in map(str.split, lines) if int(owner) == partition]

    async def until(self, daemon: Daemon, *seen: list[int]) -> None:
        await daemon.until(lambda: [self.seen(0), self.seen(1)] == list(seen), f"the function was given {seen}")


async def seek(daemon: Daemon, *arguments: str, status: int = 0) -> Any:
    done = await daemon.command("mapping", "seek", "orders", *arguments, "--json")
    assert done.status == status, done.err
    return done.json() if done.out else done.err


async def settle(daemon: Daemon) -> None:
    """Have all that was done committed."""
    for word in ("drain", "resume"):
        assert (await daemon.command("mapping", word, "orders")).status == 0


def ways(found: Any) -> list[tuple[str, str, str, int, float | None]]:
    return [
        (shard["from"], shard["to"], shard["direction"], shard["records"], shard["seconds"])
        for shard in found["shards"]
    ]


async def test_a_mapping_is_moved_back_and_forward(tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic) -> None:
    site = Site(tmp_path, kafka_bootstrap, await topic(2))
    await site.put(10)
    async with site.daemon() as daemon:
        await daemon.start()
        whole = list(range(10))
        await site.until(daemon, whole, whole)
        await settle(daemon)

        back = await seek(daemon, "--to", "2023-11-14T22:20:00Z")  # START and six minutes and two thirds
        assert ways(back) == [("10", "7", "back", 3, 120.0)] * 2
        assert (back["applied"], back["seen_again"], back["skipped"]) == (False, 6, 0)
        assert (site.seen(0), site.seen(1)) == (whole, whole)
        done = await seek(daemon, "--to", "2023-11-14T22:20:00Z", "--apply", "--yes")
        assert (done["applied"], ways(done)) == (True, ways(back))
        await site.until(daemon, [*whole, 7, 8, 9], [*whole, 7, 8, 9])
        await daemon.line("mapping.sought", skipped=0, again=6)

        await daemon.command("mapping", "drain", "orders")
        await site.put(4)
        forward = await seek(daemon, "--to", "13", "--shard", f"{site.topic}-1", "--apply", "--yes")
        assert ways(forward) == [("10", "13", "forward", 3, 120.0)]
        assert forward["state"] == "paused"
        await daemon.command("mapping", "resume", "orders")
        await site.until(daemon, [*whole, 7, 8, 9, 10, 11, 12, 13], [*whole, 7, 8, 9, 13])
        ended = await seek(daemon, "--to", "LATEST", "--apply", "--yes")
        assert [each[1] for each in ways(ended)] == ["14", "14"]

        wrong = await seek(daemon, "--to", "99", "--shard", f"{site.topic}-0", status=1)
        assert "is not in the log, which holds 0 up to 14 (excluded)" in wrong
        assert await daemon.terminate() == 0
        assert "no headrace runs" in await seek(daemon, "--to", "LATEST", status=3)


async def test_a_poison_batch_that_is_retried_is_skipped(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    site = Site(tmp_path, kafka_bootstrap, await topic(2))
    await site.put(3)
    async with site.daemon(handler=FAILING, batch_size=1, maximum_retry_attempts=-1) as daemon:
        await daemon.start()
        await daemon.until(lambda: site.seen(0).count(0) > 2, "the first record is retried")
        done = await seek(daemon, "--to", "2", "--shard", f"{site.topic}-0", "--apply", "--yes")
        assert done["shards"][0]["retries_void"]
        await daemon.until(lambda: 2 in site.seen(0), "the third record comes")
        assert 1 not in site.seen(0)
        assert 1 not in site.seen(1)


async def test_other_members_of_the_group_keep_their_offsets(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    site = Site(tmp_path, kafka_bootstrap, await topic(2))
    await site.put(3)
    async with site.daemon("a") as daemon, site.daemon("b") as other:
        for each in (daemon, other):
            await each.start()
            await each.ready("orders")
        await daemon.until(lambda: len(site.seen(0) + site.seen(1)) >= 6, "all is read")
        assert "has members beside this mapping" in await seek(
            daemon, "--to", "TRIM_HORIZON", "--apply", "--yes", status=1
        )
        await other.command("mapping", "drain", "orders")
        before = len(site.seen(0))
        await seek(daemon, "--to", "TRIM_HORIZON", "--apply", "--yes")
        await daemon.until(lambda: site.seen(0)[before:] == [0, 1, 2], "all is read again")


async def test_without_an_answer_from_its_brokers_nothing_changes(tmp_path: Path) -> None:
    site = Site(tmp_path, "127.0.0.1:1", "orders")
    async with site.daemon() as daemon:
        await daemon.start()
        for arguments in (("--to", "LATEST"), ("--to", "LATEST", "--apply", "--yes")):
            assert "connection refused" in await seek(daemon, *arguments, status=1)


async def test_a_daemon_that_is_killed_meanwhile_goes_on_from_one_of_both_places(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    site = Site(tmp_path, kafka_bootstrap, await topic(2))
    await site.put(10)
    whole = list(range(10))
    async with site.daemon() as daemon:
        await daemon.start()
        await site.until(daemon, whole, whole)
        await settle(daemon)
        command = asyncio.create_task(
            daemon.command("mapping", "seek", "orders", "--to", "TRIM_HORIZON", "--apply", "--yes")
        )
        await daemon.line("seek.planned", shard=f"{site.topic}-1")
        await daemon.kill()
        assert (await command).status in (0, 3)
        await daemon.start()
        await daemon.ready("orders")
        await site.put(1)
        await daemon.until(lambda: site.seen(0)[-1:] == site.seen(1)[-1:] == [10], "the new record comes")
        assert site.seen(0) == site.seen(1)
        assert site.seen(0) in ([*whole, 10], [*whole, *whole, 10])


# --- checkpoints


async def test_checkpoints_move_a_mapping_to_another_group(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    site = Site(tmp_path, kafka_bootstrap, await topic(2))
    await site.put(5)
    file = tmp_path / "orders.json"
    async with site.daemon("blue") as blue:
        await blue.start()
        await site.until(blue, list(range(5)), list(range(5)))
        await blue.command("mapping", "drain", "orders")
        done = await blue.command("checkpoints", "export", "-o", str(file))
        assert done.out == f"{file}: orders (2 shards)\n"
        again = await blue.command("checkpoints", "export", "-o", str(file))
        assert (again.status, "is there already" in again.err) == (2, True)
        assert await blue.terminate() == 0
        stopped = (await blue.command("checkpoints", "export", "--mapping", "orders")).json()
    exported = json.loads(file.read_text())
    assert exported["mappings"] == stopped["mappings"]
    [mapping] = exported["mappings"]
    assert [(each["shard"], each["position"]) for each in mapping["shards"]] == [
        (f"{site.topic}-0", "5"),
        (f"{site.topic}-1", "5"),
    ]

    await site.put(2)
    async with site.daemon("green", source={"consumer_group": f"{site.topic}-green"}) as green:
        green.document["event_source_mappings"]["sales"] = green.document["event_source_mappings"].pop("orders")
        green.write()
        done = await green.command("checkpoints", "import", str(file), "--mapping", "sales", "--yes", "--json")
        assert [(each["from"], each["to"]) for each in done.json()["shards"]] == [(None, "5"), (None, "5")]
        await green.start()
        await site.until(green, list(range(7)), list(range(7)))

        damaged = tmp_path / "damaged.json"
        damaged.write_text(file.read_text().replace('"5"', '"4"', 1))
        wrong = await green.command("checkpoints", "import", str(damaged), "--mapping", "sales", "--yes")
        assert (wrong.status, "is not as it was exported" in wrong.err) == (2, True)
        running = await green.command("checkpoints", "import", str(file), "--mapping", "sales", "--yes")
        assert "sales was moved: 4 records seen again. It is " in running.out
        await site.until(green, [*range(7), 5, 6], [*range(7), 5, 6])


async def test_checkpoints_that_are_not_in_the_log_any_more(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    site, other = Site(tmp_path, kafka_bootstrap, await topic(2)), Site(tmp_path, kafka_bootstrap, await topic(2))
    await site.put(5)
    file = tmp_path / "orders.json"
    async with site.daemon("a") as daemon, other.daemon("b") as elsewhere:
        await daemon.start()
        await site.until(daemon, list(range(5)), list(range(5)))
        await daemon.command("mapping", "drain", "orders")
        await daemon.command("checkpoints", "export", "-o", str(file))
        elsewhere.write()
        foreign = await elsewhere.command("checkpoints", "import", str(file), "--yes")
        assert foreign.status == 2
        assert f"are of kafka:{site.topic}" in foreign.err

        await site.put(5)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(site.topic, 0): RecordsToDelete(8)})
        await admin.close()
        done = await daemon.command("checkpoints", "import", str(file), "--yes", "--json")
        assert [each["to"] for each in done.json()["shards"]] == ["8", "5"]
        await daemon.command("mapping", "resume", "orders")
        await site.until(daemon, [*range(5), 8, 9], list(range(10)))
