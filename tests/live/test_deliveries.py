"""Failure records on their way: a destination that is away, too small, or wrong, as the operator meets it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from connectors.aws import s3_client, sns_client
from tests.conftest import MakeTopic
from tests.fakes.receiver import PATH, SECRET, receiver
from tests.live.daemon import Daemon, plain, produce
from tests.live.queue_rig import REGION, Queues, add_mapping, free_port

FAILING = """
def handle(event, context):
    raise ValueError("no total")
"""

NOTING = """
import os
def handle(event, context):
    open(os.environ["LEDGER"], "a").close()
"""


def told(place: dict[str, Any]) -> dict[str, Any]:
    """Give the keys of a mapping that gives up at once and tells a place."""
    return {"maximum_retry_attempts": 0, "batch_size": 1, "destination_config": {"on_failure": place}}


async def test_one_that_is_away_is_told_and_served_once_it_is_back(tmp_path: Path, queues: Queues) -> None:
    queue, port = await queues.make(), free_port()
    place = {"http": {"url": f"http://127.0.0.1:{port}{PATH}", "secret": "${env:SECRET}"}}
    async with Daemon(tmp_path, {"SECRET": SECRET}) as daemon:
        daemon.function("orders", FAILING)
        add_mapping(daemon, "orders", queue.source(), **told(place))
        await daemon.start()
        large = "A" * 20_000
        await queue.send("one", "two", large)
        await queue.until((0, 0))
        # Each was tried at least once.
        await daemon.until(lambda: len({each["failure"] for each in daemon.events("failure.not_delivered")}) == 3, "3")

        outbox = (await daemon.status("orders"))["outbox"]
        assert (outbox["destination"], outbox["undelivered"]) == (f"http:127.0.0.1:{port}", 3)
        assert "it cannot be reached; check url and network" in outbox["last_error"]
        assert outbox["oldest"]
        shown = (await daemon.command("status")).out
        assert "UNDELIVERED" in shown
        assert "it cannot be reached" in shown
        # What a destination says is told before it is stored.
        failures = await daemon.until_failures(
            lambda found: all("it cannot be reached" in (each["delivery"]["last_error"] or "") for each in found),
            "each failure says why it waits",
        )
        assert {each["delivery"]["state"] for each in failures} == {"waiting"}

        done = await daemon.command("failures", "deliver", "--all", "--json")
        *ends, summary = map(json.loads, done.out.splitlines())
        assert (done.status, {each["outcome"] for each in ends}) == (1, {"not_delivered"})
        assert summary == {"summary": {"delivered": 0, "not_delivered": 3, "refused": 0}}

        # What waits outlives the daemon.
        await daemon.kill()
        done = await daemon.command("failures", "deliver", "--all")
        assert done.status == 3
        done = await daemon.command("status", "--json")
        assert done.json()["mappings"][0]["outbox"]["undelivered"] == 3
        await daemon.start()

        async with receiver(port=port, limit_bytes=10_000) as other_end:
            done = await daemon.command("failures", "deliver", "--mapping", "orders")
            assert done.status == 0, done.out
            assert len(other_end.accepted) == 3
            checks = [record["claimCheck"] for record in other_end.records if "claimCheck" in record]
            assert len(checks) == 1
            done = await daemon.command(*checks[0]["fetch"].removeprefix("headrace ").split())
            assert done.json()["event"]["Records"][0]["body"] == large
            payloads = [record["payload"] for record in other_end.records if "payload" in record]
            assert {each["Records"][0]["body"] for each in payloads} == {"one", "two"}

        await daemon.line("failure.delivered", form="claim check")
        assert (await daemon.status("orders"))["outbox"]["undelivered"] == 0
        assert {each["status"] for each in await daemon.failures()} == {"delivered"}
        done = await daemon.command("failures", "deliver", "--all")
        assert (done.status, done.out) == (0, "0 delivered, 0 not delivered, 0 refused\n")
        done = await daemon.command("failures", "deliver", checks[0]["failure"])
        assert done.status == 0
        assert "delivered: its destination has it already" in done.out
        assert await daemon.terminate() == 0
        assert SECRET not in json.dumps(daemon.lines)


async def test_what_was_dropped_waits_no_more(tmp_path: Path, queues: Queues) -> None:
    queue = await queues.make()
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", FAILING)
        add_mapping(daemon, "orders", queue.source(), **told({"file": {"path": "./none/failed.jsonl"}}))
        await daemon.start()
        await queue.send("one", "two")
        await daemon.until(lambda: len({each["failure"] for each in daemon.events("failure.not_delivered")}) == 2, "2")
        first, second = await daemon.failures()
        assert (await daemon.command("failures", "drop", first["id"], "--yes")).status == 0
        assert (await daemon.status("orders"))["outbox"]["undelivered"] == 1
        (tmp_path / "none").mkdir()
        assert (await daemon.command("failures", "deliver", second["id"])).status == 0
        [line] = (tmp_path / "none" / "failed.jsonl").read_text().splitlines()
        assert json.loads(line)["payload"]["Records"][0]["body"] in ("one", "two")
        assert await daemon.terminate() == 0


async def test_a_full_outbox_holds_its_mapping_alone_and_lets_it_go_once_it_is_served(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name, other = await topic(4), await topic()
    ledger = tmp_path / "ledger"
    async with Daemon(tmp_path) as daemon:
        daemon.function("failing", FAILING, reserved_concurrency=4)
        daemon.function("noting", NOTING, environment={"LEDGER": str(ledger)})
        place = told({"file": {"path": "./none/failed.jsonl"}})
        daemon.mapping("orders", plain(kafka_bootstrap, name), function="failing", **place)
        daemon.mapping("others", plain(kafka_bootstrap, other), function="noting")
        await produce(kafka_bootstrap, name, [(f"k{number}", number) for number in range(1200)])
        await daemon.start()
        await daemon.line("mapping.held", mapping="orders")
        status = await daemon.until_status("orders", lambda found: found["state"] == "holding", "status says so")
        assert status["reason"]["code"] == "FailureBacklogFull"
        assert "failures wait for file:" in status["reason"]["message"]
        assert "its directory does not exist; make it" in status["reason"]["message"]
        # What was in flight when it was held may have failed too.
        assert 1000 <= status["outbox"]["undelivered"] < 1100
        await produce(kafka_bootstrap, other, [("k", "goes on")])
        await daemon.until(ledger.exists, "the other mapping works")

        (tmp_path / "none").mkdir()
        done = await daemon.command("failures", "deliver", "--mapping", "orders")
        assert done.status == 0, done.out[-1000:]
        await daemon.line("mapping.resumed", mapping="orders")
        written = tmp_path / "none" / "failed.jsonl"
        await daemon.until(lambda: written.read_bytes().count(b"\n") >= 1200, "all are there")
        records = [json.loads(line)["payload"]["records"] for line in written.read_text().splitlines()]
        assert len({(each["partition"], each["offset"]) for some in records for [each] in some.values()}) == 1200
        assert await daemon.terminate() == 0


async def test_every_kind_is_reached_and_what_is_wrong_is_told(
    tmp_path: Path, queues: Queues, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    queue, endpoint = await queues.make(), queues.endpoint_url
    name = f"headrace-test-{uuid.uuid4().hex[:12]}"
    aws = {"endpoint_url": endpoint, "region": REGION}
    async with (
        receiver() as other_end,
        sns_client(endpoint, REGION) as sns,
        s3_client(endpoint, REGION) as s3,
        Daemon(tmp_path) as daemon,
    ):
        arn = (await sns.create_topic(Name=name))["TopicArn"]
        await s3.create_bucket(Bucket=name)
        good: dict[str, dict[str, Any]] = {
            "sqs": {"queue": queue.name, **aws},
            "sns": {"topic": name, **aws},
            "s3": {"bucket": name, **aws},
            "kafka": {"topic": await topic(), "bootstrap_servers": kafka_bootstrap},
            "http": {"url": other_end.url, "secret": SECRET},
            "file": {"path": "./failed.jsonl"},
        }
        wrong: dict[str, dict[str, Any]] = {
            "sqs": {"queue": f"{name}-none", **aws},
            "sns": {"topic": f"{name}-none", **aws},
            "s3": {"bucket": f"{name}-none", **aws},
            "kafka": {"topic": f"{name}-none", "bootstrap_servers": kafka_bootstrap},
            "http": {"url": other_end.url, "secret": "whsec_" + "A" * 32},
            "file": {"path": "./none/failed.jsonl"},
        }
        daemon.function("orders", FAILING)
        source = (await queues.make()).source()
        for word, places in (("good", good), ("wrong", wrong)):
            for kind, place in places.items():
                add_mapping(daemon, f"{word}-{kind}", source, **told({kind: place}), enabled=False)
        daemon.write()
        done = await daemon.command("check", "--connect", "--json")
        await sns.delete_topic(TopicArn=arn)
        await s3.delete_bucket(Bucket=name)
        checks = {each["name"]: each for each in done.json()["checks"]}
        assert done.status == 1
        for kind in good:
            found = checks[f"event_source_mappings.good-{kind}.destination_config"]
            assert found["ok"], found
            found = checks[f"event_source_mappings.wrong-{kind}.destination_config"]
            assert not found["ok"], found
            assert any(word in found["detail"] for word in ("create it", "make it", "check that secret")), found
        assert other_end.accepted == []
