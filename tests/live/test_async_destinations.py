"""Destinations and dead-letter queues of asynchronous events, and their failures, over a daemon and a LocalStack."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connectors.aws import service_client, sqs_client
from tests.live.daemon import Daemon

REGION = "us-east-1"
ACCOUNT = "000000000000"
ARRIVAL_S = 30
HANDLER = """
import json, pathlib

GOOD = pathlib.Path(__file__).with_name("good")

def handle(event, context):
    if event.get("fails") and not GOOD.exists():
        raise ValueError("boom")
    return {"ok": True}
"""
#: Is told what the other one came to.
AUDIT = """
import json, pathlib

def handle(event, context):
    with pathlib.Path(__file__).with_name("told").open("a") as told:
        print(json.dumps(event), file=told)
"""


class Scene:
    def __init__(self, daemon: Daemon, sqs: Any, functions: Any, name: str) -> None:
        self.daemon, self.sqs, self.functions, self.name = daemon, sqs, functions, name

    async def queue(self, role: str) -> str:
        made = await self.sqs.create_queue(QueueName=f"{self.name}-{role}")
        return str(made["QueueUrl"])

    def arn(self, role: str) -> str:
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}-{role}"

    async def take(self, url: str) -> dict[str, Any]:
        async with asyncio.timeout(ARRIVAL_S):
            while True:
                answer = await self.sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=1)
                for message in answer.get("Messages", ()):
                    await self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                    return dict(message)

    async def send(self, payload: object, function: str = "worker") -> str:
        answer = await self.functions.invoke(
            FunctionName=function, InvocationType="Event", Payload=json.dumps(payload).encode()
        )
        assert answer["StatusCode"] == 202
        return str(answer["ResponseMetadata"]["RequestId"])

    async def failure(self, *options: str) -> dict[str, Any]:
        """Wait for the one failure there is."""
        async with asyncio.timeout(ARRIVAL_S):
            while not (found := await self.daemon.failures("--mapping", "async:worker", *options)):
                pass  # every turn runs a command
        [one] = found
        return one


@pytest.fixture
async def scene(aws_endpoint: str, tmp_path: Path) -> AsyncIterator[Scene]:
    name = f"headrace-test-{uuid.uuid4().hex[:12]}"
    async with Daemon(tmp_path) as daemon, sqs_client(aws_endpoint, REGION) as sqs:
        daemon.document["aws"] = {"endpoint_url": aws_endpoint, "region": REGION}
        del daemon.document["event_source_mappings"]
        async with service_client("lambda", f"http://127.0.0.1:{daemon.port}", REGION) as functions:
            yield Scene(daemon, sqs, functions, name)
        for url in (await sqs.list_queues(QueueNamePrefix=name)).get("QueueUrls", ()):
            await sqs.delete_queue(QueueUrl=url)


async def test_a_failed_event_is_told_to_its_destination_and_its_dead_letter_queue(scene: Scene) -> None:
    records, letters = await scene.queue("failed"), await scene.queue("dlq")
    scene.daemon.function(
        "worker",
        HANDLER,
        event_invoke_config={
            "maximum_retry_attempts": 0,
            "destination_config": {"on_failure": {"sqs": {"queue": f"{scene.name}-failed"}}},
        },
        dead_letter_config={"target_arn": scene.arn("dlq")},
    )
    await scene.daemon.start()
    request_id = await scene.send({"fails": True, "order": 17})
    record, letter = json.loads((await scene.take(records))["Body"]), await scene.take(letters)
    assert record["requestContext"] == {
        "requestId": request_id,
        "functionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:worker:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 1,
    }
    assert record["requestPayload"] == {"fails": True, "order": 17}
    assert record["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    assert record["responsePayload"]["errorMessage"] == "boom"
    assert record["responsePayload"]["requestId"] == request_id
    assert json.loads(letter["Body"]) == {"fails": True, "order": 17}
    assert letter["MessageAttributes"] == {
        "RequestID": {"StringValue": request_id, "DataType": "String"},
        "ErrorCode": {"StringValue": "200", "DataType": "Number"},
        "ErrorMessage": {"StringValue": "boom", "DataType": "String"},
    }
    failure = await scene.failure("--status", "delivered")
    assert (failure["reason"], failure["error_message"], failure["shard"]) == (
        "RetryAttemptsExhausted",
        "boom",
        "$LATEST",
    )


async def test_another_function_is_told_of_a_success(scene: Scene) -> None:
    audit = scene.daemon.function("audit", AUDIT).with_name("told")
    scene.daemon.function(
        "worker", HANDLER, event_invoke_config={"destination_config": {"on_success": {"function": "audit"}}}
    )
    await scene.daemon.start()
    request_id = await scene.send({"order": 1})
    await scene.daemon.until(audit.exists, "the other function was told")
    await scene.daemon.until(lambda: audit.read_text().endswith("\n"), "all of it is there")
    [record] = [json.loads(line) for line in audit.read_text().splitlines()]
    assert record["requestContext"]["requestId"] == request_id
    assert (record["requestContext"]["condition"], record["responsePayload"]) == ("Success", {"ok": True})


async def test_a_failed_event_is_shown_and_replayed(scene: Scene) -> None:
    code = scene.daemon.function("worker", HANDLER, event_invoke_config={"maximum_retry_attempts": 0})
    await scene.daemon.start()
    request_id = await scene.send({"fails": True, "order": 17})
    failure = await scene.failure()
    shown = (await scene.daemon.command("failures", "show", failure["id"], "--json")).json()
    assert shown["event"] == {"fails": True, "order": 17}
    [tried] = shown["tries"]
    assert (tried["request_id"], tried["error"]["type"]) == (request_id, "ValueError")

    again = await scene.daemon.command("failures", "replay", failure["id"], "--yes", "--json")
    [end, _] = [json.loads(line) for line in again.out.splitlines()]
    assert (again.status, end["outcome"]) == (1, "failed_again")
    new = end["new_failure"]

    code.with_name("good").touch()
    done = await scene.daemon.command("failures", "replay", new, "--yes", "--json")
    assert done.status == 0, done.err
    statuses = {each["id"]: each["status"] for each in await scene.daemon.failures("--mapping", "async:worker")}
    assert statuses == {failure["id"]: "failed_again", new: "replayed"}
    parents = {each["id"]: each["parent"] for each in await scene.daemon.failures("--mapping", "async:worker")}
    assert parents[new] == failure["id"]


async def test_a_target_that_is_away_is_told_later_also_over_a_kill(scene: Scene) -> None:
    scene.daemon.function(
        "worker",
        HANDLER,
        event_invoke_config={
            "maximum_retry_attempts": 0,
            "destination_config": {"on_failure": {"sqs": {"queue": f"{scene.name}-later"}}},
        },
    )
    await scene.daemon.start()
    request_id = await scene.send({"fails": True})
    await scene.daemon.line("event.not_told")
    await scene.daemon.kill()
    later = await scene.queue("later")
    await scene.daemon.start()
    record = json.loads((await scene.take(later))["Body"])
    assert record["requestContext"]["requestId"] == request_id
    failure = await scene.failure("--status", "delivered")
    assert failure["delivery"]["state"] == "accepted"
    assert await scene.daemon.terminate() == 0


async def test_what_waits_is_told_at_once_when_somebody_asks(scene: Scene) -> None:
    scene.daemon.function(
        "worker",
        HANDLER,
        event_invoke_config={
            "maximum_retry_attempts": 0,
            "destination_config": {"on_failure": {"sqs": {"queue": f"{scene.name}-now"}}},
        },
    )
    await scene.daemon.start()
    await scene.send({"fails": True})
    failure = await scene.failure()
    await scene.daemon.line("event.not_told")
    queue = await scene.queue("now")
    told = await scene.daemon.command("failures", "deliver", failure["id"], "--json")
    [end, _] = [json.loads(line) for line in told.out.splitlines()]
    assert end["outcome"] == "delivered", told.out
    assert json.loads((await scene.take(queue))["Body"])["requestPayload"] == {"fails": True}


async def test_configs_and_dead_letters_through_the_api(scene: Scene) -> None:
    letters, records = await scene.queue("dlq"), await scene.queue("failed")
    code = scene.daemon.function("filed", HANDLER).parent
    await scene.daemon.start()
    await scene.functions.create_function(
        FunctionName="worker",
        Runtime="python3.12",
        Role="arn:aws:iam::000000000000:role/r",
        Handler="app.handle",
        Code={"S3Bucket": "headrace-local", "S3Key": str(code)},
        DeadLetterConfig={"TargetArn": scene.arn("dlq")},
    )
    await scene.functions.put_function_event_invoke_config(
        FunctionName="worker",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": scene.arn("failed")}},
    )
    request_id = await scene.send({"fails": True})
    assert json.loads((await scene.take(records))["Body"])["requestContext"]["requestId"] == request_id
    assert (await scene.take(letters))["MessageAttributes"]["RequestID"]["StringValue"] == request_id
    shown = await scene.functions.get_function_event_invoke_config(FunctionName="worker")
    assert shown["FunctionArn"].endswith(":function:worker:$LATEST")
    assert shown["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {"Destination": scene.arn("failed")}}
    await scene.functions.delete_function_event_invoke_config(FunctionName="worker")
    with pytest.raises(scene.functions.exceptions.ResourceNotFoundException, match="doesn't have an EventInvokeConfig"):
        await scene.functions.get_function_event_invoke_config(FunctionName="worker")


async def test_without_concurrency_an_event_goes_straight_to_its_destination(scene: Scene) -> None:
    records = await scene.queue("failed")
    code = scene.daemon.function("filed", HANDLER).parent
    await scene.daemon.start()
    await scene.functions.create_function(
        FunctionName="worker",
        Runtime="python3.12",
        Role="arn:aws:iam::000000000000:role/r",
        Handler="app.handle",
        Code={"S3Bucket": "headrace-local", "S3Key": str(code)},
    )
    await scene.functions.put_function_concurrency(FunctionName="worker", ReservedConcurrentExecutions=0)
    await scene.functions.put_function_event_invoke_config(
        FunctionName="worker", DestinationConfig={"OnFailure": {"Destination": scene.arn("failed")}}
    )
    await scene.send({"order": 1})
    record = json.loads((await scene.take(records))["Body"])
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert list(record) == ["version", "timestamp", "requestContext", "requestPayload"]


async def test_check_reaches_who_is_to_be_told(scene: Scene) -> None:
    await scene.queue("dlq")
    scene.daemon.function(
        "worker",
        HANDLER,
        event_invoke_config={
            "destination_config": {
                "on_success": {"function": "nobody"},
                "on_failure": {"sqs": {"queue": f"{scene.name}-not"}},
            }
        },
        dead_letter_config={"target_arn": scene.arn("dlq")},
    )
    scene.daemon.write()
    done = await scene.daemon.command("check", "--connect", "--json")
    found = {each["name"]: (each["ok"], each["detail"]) for each in done.json()["checks"]}
    assert found["functions.worker.dead_letter_config"] == (True, f"{scene.arn('dlq')}: reached")
    places = "functions.worker.event_invoke_config.destination_config"
    assert found[f"{places}.on_success"] == (True, "function nobody: to be made through the API")
    ok, detail = found[f"{places}.on_failure"]
    assert not ok
    assert "the queue does not exist there; create it" in detail


async def test_a_reload_is_taken_on_and_targets_are_reached_anew(scene: Scene) -> None:
    records = await scene.queue("failed")
    place = {"destination_config": {"on_failure": {"sqs": {"queue": f"{scene.name}-failed"}}}}
    scene.daemon.function("worker", HANDLER, event_invoke_config={"maximum_retry_attempts": 0, **place})
    scene.daemon.document["aws"]["endpoint_url"] = "http://127.0.0.1:9"
    await scene.daemon.start()
    await scene.send({"fails": True})
    await scene.daemon.line("event.not_told")
    scene.daemon.document["aws"]["endpoint_url"] = scene.sqs.meta.endpoint_url
    scene.daemon.write()
    await scene.daemon.line("config.reloaded")
    assert json.loads((await scene.take(records))["Body"])["requestPayload"] == {"fails": True}
