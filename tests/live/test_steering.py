"""`headrace mapping pause|resume|drain` on real sources, as an operator uses it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, plain, produce
from tests.live.queue_rig import Queues, add_mapping

#: Notes what begins and ends; waits in between while there is a file HOLD.
HOLDING = """
import base64, os, time
def handle(event, context):
    records = event["records"].values() if "records" in event else [event["Records"]]
    [record] = [each for several in records for each in several]
    value = base64.b64decode(record["value"]).decode() if "value" in record else record["body"]
    with open(os.environ["LEDGER"], "a", buffering=1) as ledger:
        print("began", value, file=ledger)
        while os.path.exists(os.environ["HOLD"]):
            time.sleep(0.02)
        print("ended", value, file=ledger)
"""


class Site:
    """A daemon whose function can be held."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.hold = folder / "hold"
        self.ledger = folder / "ledger"
        environment = {"HOLD": str(self.hold), "LEDGER": str(self.ledger)}
        daemon.function("orders", HOLDING, timeout=60, environment=environment)

    @property
    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    async def until(self, lines: list[str]) -> None:
        await self.daemon.until(lambda: self.lines == lines, f"the function noted {lines}, not {self.lines}")

    async def steer(self, *arguments: str, status: int = 0) -> Any:
        done = await self.daemon.command("mapping", *arguments, "orders", "--json")
        assert done.status == status, done.err
        return done.json()

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self.daemon.port}{path}") as answer:
            return answer.status, await answer.text()


async def is_steered(site: Site, in_flight: Mapping[str, object], seen_again: Mapping[str, object]) -> None:
    """Pause while "1" of "1" and "2" is with the function, drain, restart, resume."""
    daemon = site.daemon
    await daemon.start()
    await site.until(["began 1"])

    paused = await site.steer("pause")
    assert (paused["state"], paused["idle"]) == ("paused", False)
    [batch] = paused["in_flight"]
    assert in_flight.items() <= batch.items()
    drained = await site.steer("drain", "--timeout", "500ms", status=1)
    assert not drained["idle"]
    assert [seen_again.items() <= each.items() for each in drained["seen_again"]] == [True]
    shown = await daemon.command("mapping", "drain", "orders", "--timeout", "0s")
    assert shown.status == 1
    assert "In flight:" in shown.out
    assert "is not idle yet" in shown.err

    site.hold.unlink()
    drained = await site.steer("drain")
    assert (drained["idle"], drained["in_flight"], drained["seen_again"]) == (True, [], [])
    assert site.lines == ["began 1", "ended 1"]

    assert await daemon.terminate() == 0
    await daemon.start()
    await daemon.line("mapping.paused", mapping="orders", after=len(daemon.lines) // 2)
    status = await daemon.status("orders")
    assert (status["state"], status["reason"]["code"]) == ("paused", "Paused")
    assert (await site.get("/health/ready"))[0] == 200
    assert (await site.get("/health/ready?mapping=orders"))[0] == 503
    assert 'headrace_mapping_stuck{mapping="orders",reason="Paused"} 1.0' in (await site.get("/metrics"))[1]

    assert await site.steer("resume")
    await site.until(["began 1", "ended 1", "began 2", "ended 2"])
    assert await daemon.terminate() == 0
    assert site.lines == ["began 1", "ended 1", "began 2", "ended 2"]


async def test_a_kafka_mapping_is_steered(tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic) -> None:
    name = await topic()
    await produce(kafka_bootstrap, name, [(None, 1), (None, 2)])
    async with Daemon(tmp_path) as daemon:
        site = Site(daemon, tmp_path)
        site.hold.touch()
        daemon.mapping("orders", plain(kafka_bootstrap, name), batch_size=1, maximum_batching_window_in_seconds=0)
        shard = f"{name}-0"
        await is_steered(
            site,
            {"shard": shard, "first_position": 0, "last_position": 0, "records": 1, "attempts": 0},
            {"shard": shard, "first_position": 0},
        )


async def test_a_queue_mapping_is_steered_and_gives_back_what_it_has_in_hand(tmp_path: Path, queues: Queues) -> None:
    # A receive that is given up may have taken the next message along: that comes again in so many seconds.
    queue = await queues.make(fifo=True, VisibilityTimeout="10")
    await queue.send("1", group="a")
    await queue.send("2", group="a")
    async with Daemon(tmp_path) as daemon:
        site = Site(daemon, tmp_path)
        site.hold.touch()
        add_mapping(daemon, "orders", queue.source(visibility_heartbeat=True), batch_size=1)
        await is_steered(site, {"shard": queue.name, "records": 1, "attempts": 0}, {"shard": queue.name, "records": 1})
        await queue.until((0, 0))


async def test_what_a_paused_member_of_a_group_leaves_goes_to_the_others(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(2)
    (tmp_path / "other").mkdir()
    async with Daemon(tmp_path) as daemon, Daemon(tmp_path / "other") as other:
        for each in (daemon, other):
            Site(each, tmp_path)
            each.mapping("orders", plain(kafka_bootstrap, name), batch_size=1, maximum_batching_window_in_seconds=0)
            await each.start()
            await each.ready("orders")
        site = Site(daemon, tmp_path)
        await site.steer("drain")
        values = [str(number) for number in range(4)]
        for partition in (0, 1):
            records = [(None, int(value)) for value in values[2 * partition : 2 * partition + 2]]
            await produce(kafka_bootstrap, name, records, partition=partition)
        await daemon.until(lambda: len(site.lines) == 8, "the other member took all records")
        assert sorted(site.lines) == sorted([f"{word} {value}" for value in values for word in ("began", "ended")])


async def test_a_mapping_is_paused_and_resumed_without_a_daemon(tmp_path: Path) -> None:
    async with Daemon(tmp_path) as daemon:
        site = Site(daemon, tmp_path)
        daemon.mapping("orders", plain("127.0.0.1:1", "orders"))
        daemon.write()
        assert (await site.steer("pause"))["idle"]
        wrong = await daemon.command("mapping", "pause", "order")
        assert (wrong.status, wrong.err) == (1, "headrace: there is no mapping 'order'; there are: orders\n")
        nobody = await daemon.command("mapping", "drain", "orders")
        assert nobody.status == 3
        await daemon.start()
        assert (await daemon.status("orders"))["state"] == "paused"
        wrong = await daemon.command("mapping", "resume", "order")
        assert (wrong.status, wrong.err) == (1, "headrace: there is no mapping 'order'; there are: orders\n")
        assert await daemon.terminate() == 0
        await site.steer("resume")
        await daemon.start()
        assert (await daemon.status("orders"))["reason"]["code"] == "SourceUnavailable"


async def test_a_pause_stays_with_the_name_over_reloads_and_renaming(tmp_path: Path) -> None:
    """It needs no server: there is nobody at its brokers."""
    async with Daemon(tmp_path) as daemon:
        site = Site(daemon, tmp_path)
        daemon.mapping("orders", plain("127.0.0.1:1", "orders"))
        await daemon.start()
        await site.steer("pause")
        mappings = daemon.document["event_source_mappings"]

        async def reloaded() -> None:
            before = len(daemon.lines)
            daemon.write()
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.line("config.reloaded", after=before)

        for changes in ({"batch_size": 7}, {"enabled": False}, {"enabled": True}):
            mappings["orders"] |= changes
            before = len(daemon.lines)
            await reloaded()
        await daemon.line("mapping.paused", mapping="orders", after=before)
        assert (await daemon.status("orders"))["state"] == "paused"

        mappings["sales"] = {**mappings.pop("orders"), "renamed_from": "orders"}
        await reloaded()
        await daemon.line("mapping.paused", mapping="sales")
        assert (await daemon.status("sales"))["state"] == "paused"
        assert daemon.events("mapping.started") == []
