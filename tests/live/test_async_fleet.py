"""Failures of asynchronous events in a fleet: told of, shown and replayed, also when the replica that had them dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connectors.aws import service_client, sqs_client
from tests.live.fleet_rig import FleetRig, Replica

REGION = "us-east-1"
ARRIVAL_S = 40
#: Fails until a file says that all is good; while another file is there it takes long first.
HANDLER = """
import json, os, pathlib, time

NOTES = pathlib.Path(os.environ["NOTES"])

def handle(event, context):
    (NOTES / "begun").touch()
    while (NOTES / "slow").exists():
        time.sleep(0.05)
    if not (NOTES / "good").exists():
        raise ValueError("boom")
"""


async def take(sqs: Any, url: str) -> dict[str, Any]:
    async with asyncio.timeout(ARRIVAL_S):
        while True:
            answer = await sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
            for message in answer.get("Messages", ()):
                record: dict[str, Any] = json.loads(message["Body"])
                return record


async def send(replica: Replica, payload: bytes = b'{"order": 17}') -> str:
    async with service_client("lambda", f"http://127.0.0.1:{replica.port}", REGION) as functions:
        answer = await functions.invoke(FunctionName="worker", InvocationType="Event", Payload=payload)
    return str(answer["ResponseMetadata"]["RequestId"])


async def failure(replica: Replica, status: str) -> dict[str, Any]:
    """Wait for the one failure that has this status."""
    async with asyncio.timeout(ARRIVAL_S):
        while not (found := [each for each in await replica.failures() if each["status"] == status]):
            pass  # every turn runs a command
    [one] = found
    return one


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str, aws_endpoint: str) -> AsyncIterator[FleetRig]:
    async with FleetRig(tmp_path, redis_url, lease="8s") as made:
        made.document["aws"] = {"endpoint_url": aws_endpoint, "region": REGION}
        made.function(
            "worker",
            HANDLER,
            timeout="60s",
            event_invoke_config={
                "maximum_retry_attempts": 0,
                "destination_config": {"on_failure": {"sqs": {"queue": made.name}}},
            },
        )
        yield made


async def test_what_a_dead_replica_had_to_tell_is_told_by_another(fleet: FleetRig, aws_endpoint: str) -> None:
    one, two = await fleet.start("one", "two")
    request_id = await send(one)
    await one.line("event.not_told")
    await one.kill()
    async with sqs_client(aws_endpoint, REGION) as sqs:
        url = (await sqs.create_queue(QueueName=fleet.name))["QueueUrl"]
        assert (await take(sqs, url))["requestContext"]["requestId"] == request_id
        await sqs.delete_queue(QueueUrl=url)
    told = await failure(two, "delivered")
    assert (told["mapping"], told["error_message"]) == ("async:worker", "boom")


async def test_a_replay_that_its_replica_does_not_survive_is_ended_by_another(fleet: FleetRig) -> None:
    one, two = await fleet.start("one", "two")
    await send(one)
    kept = await failure(two, "stored")
    (fleet.notes / "good").touch()
    (fleet.notes / "slow").touch()
    (fleet.notes / "begun").unlink()
    job = asyncio.ensure_future(one.command("failures", "replay", kept["id"], "--yes"))
    await one.until((fleet.notes / "begun").exists, "the replay runs")
    await one.kill()
    (fleet.notes / "slow").unlink()
    replayed = await failure(two, "replayed")
    assert replayed["id"] == kept["id"]
    assert (await job).status != 0


async def test_any_replica_replays_what_another_has_kept(fleet: FleetRig) -> None:
    one, two = await fleet.start("one", "two")
    await send(one)
    kept = await failure(two, "stored")
    (fleet.notes / "good").touch()
    done = await two.command("failures", "replay", kept["id"], "--yes")
    assert done.status == 0, done.err
    assert (await failure(one, "replayed"))["id"] == kept["id"]
