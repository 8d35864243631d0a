"""Trouble with notifications of a bucket: what is none, or of another bucket, and queues that cannot be asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import Daemon
from tests.live.queue_rig import FaultyEndpoint, Queue, Queues, add_mapping, refusal
from tests.live.s3_rig import CREATED, S3Rig, open_rig

#: Notes the keys of the objects.
NOTING = """
import os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        for record in event["Records"]:
            print(record["s3"]["object"]["key"], file=ledger)
"""
TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads", "HostId": "h"}


@pytest.fixture
async def rig(aws_endpoint: str) -> AsyncIterator[S3Rig]:
    async with open_rig(aws_endpoint) as made:
        yield made


class Uploads(Daemon):
    """A daemon that reads one bucket's notifications."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.function("uploads", NOTING, environment={"LEDGER": str(self.ledger)})

    def upload(self, queue: Queue, bucket: str, endpoint_url: str | None = None, **parameters: Any) -> None:
        [carrier] = queue.source(endpoint_url).values()
        add_mapping(self, "uploads", {"s3": {**carrier, "bucket": bucket}}, "uploads", **parameters)

    def keys(self) -> list[str]:
        return self.ledger.read_text().splitlines()


def notification(bucket: str, key: str) -> dict[str, Any]:
    thing = {"key": key, "size": 1, "eTag": "e", "sequencer": "0055AED6DCD90281E5"}
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-11-21T10:00:00.000Z",
        "s3": {"bucket": {"name": bucket}, "object": thing},
    }
    return {"Records": [record]}


#: Body -> why it is unfit.
UNFIT = {
    "not JSON": "the body is not JSON",
    json.dumps({"order": 1}): "the body is no S3 notification: it has no Records",
    json.dumps({"Records": [{"eventSource": "aws:s3"}]}): "the body is no S3 notification",
    json.dumps({"Records": []}): "the body is no S3 notification: it has no Records",
    json.dumps({"Type": "Notification", "Message": "hello"}): "the SNS message in the body is not JSON",
    json.dumps(notification("others", "theirs")): "the notification is of bucket 'others', and this mapping is for",
}


async def test_what_is_no_notification_of_the_bucket_is_left_to_the_queue(tmp_path: Path, queues: Queues) -> None:
    dead = await queues.make()
    redrive = {"deadLetterTargetArn": await dead.arn(), "maxReceiveCount": 2}
    # Long enough for what is fit to be run and deleted before it comes a third time.
    queue = await queues.make(VisibilityTimeout="5", RedrivePolicy=redrive)
    async with Uploads(tmp_path) as daemon:
        daemon.upload(queue, "uploads", batch_size=10)
        await daemon.start()
        await queue.send(TEST_EVENT, *UNFIT, notification("uploads", "mine"))
        await dead.until((len(UNFIT), 0))
        await queue.until((0, 0))
        assert daemon.keys() == ["mine"]
        errors = [line["error"] for line in daemon.events("message.unfit")]
        for reason in UNFIT.values():
            assert any(error.startswith(reason) for error in errors), reason
        assert len(errors) == 2 * len(UNFIT), "each time that it came"
        assert await daemon.failures() == []
        assert await daemon.terminate() == 0


async def test_with_a_limit_of_retries_it_is_stored_and_may_be_replayed(tmp_path: Path, queues: Queues) -> None:
    queue = await queues.make(VisibilityTimeout="30")
    async with Uploads(tmp_path) as daemon:
        daemon.upload(queue, "uploads", batch_size=10, maximum_retry_attempts=2)
        await daemon.start()
        ids = await queue.send(*UNFIT, notification("uploads", "mine"))
        await queue.until((0, 0))
        failures = await daemon.failures()
        assert {failure["reason"] for failure in failures} == {"RecordUnfit"}
        assert {failure["error_type"] for failure in failures} == {"Headrace.RecordUnfit"}
        whole = [json.loads((await daemon.command("failures", "show", each["id"], "--json")).out) for each in failures]
        stored = {each["event"]["Records"][0]["messageId"]: each for each in whole}
        assert set(stored) == set(ids[:-1])
        for message_id, (body, reason) in zip(ids, UNFIT.items(), strict=False):
            assert stored[message_id]["event"]["Records"][0]["body"] == body
            assert reason in stored[message_id]["error_message"]
        assert daemon.keys() == ["mine"]
        assert await daemon.terminate() == 0

        # The mapping was wrong about the bucket: what was stored for that is run once it is right.
        daemon.upload(queue, "others", batch_size=10, maximum_retry_attempts=2)
        await daemon.start()
        theirs = stored[ids[len(UNFIT) - 1]]["id"]
        done = await daemon.command("failures", "replay", theirs, "--json")
        assert done.status == 0, done
        assert daemon.keys() == ["mine", "theirs"]
        assert await daemon.terminate() == 0


async def test_a_bucket_that_goes_on_while_its_queue_cannot_be_asked(
    tmp_path: Path, queues: Queues, rig: S3Rig
) -> None:
    bucket, queue = await rig.bucket(), await queues.make(VisibilityTimeout="5")
    rule = {"Id": "all", "QueueArn": await queue.arn(), "Events": [CREATED]}
    await rig.notify(bucket, QueueConfigurations=[rule])
    async with FaultyEndpoint(rig.endpoint_url, waits=False) as endpoint, Uploads(tmp_path) as daemon:
        await endpoint.come()
        daemon.upload(queue, bucket, endpoint.url)
        await daemon.start()
        await rig.s3.put_object(Bucket=bucket, Key="one", Body=b"x")
        await daemon.until(lambda: daemon.keys() == ["one"], "the first one has come")

        endpoint.faults["ReceiveMessage"] = refusal(403, "ExpiredToken", "The provided token has expired.")
        failed = await daemon.line("source.failed", mapping="uploads")
        assert "the credentials are not accepted" in failed["error"]
        await rig.s3.put_object(Bucket=bucket, Key="two", Body=b"x")
        await endpoint.go()
        await daemon.until(
            lambda: any("it cannot be reached" in line["error"] for line in daemon.events("source.failed")),
            "it is away",
        )
        await rig.s3.put_object(Bucket=bucket, Key="three", Body=b"x")
        endpoint.mend()
        await endpoint.come()
        await daemon.until(lambda: len(daemon.keys()) == 3, "all have come")
        await queue.until((0, 0))
        assert sorted(daemon.keys()) == ["one", "three", "two"]
        assert await daemon.terminate() == 0


async def test_a_queue_that_hides_its_messages_too_shortly_is_told_before_it_hurts(
    tmp_path: Path, queues: Queues, rig: S3Rig
) -> None:
    bucket, queue = await rig.bucket(), await queues.make(VisibilityTimeout="2")
    rule = {"Id": "all", "QueueArn": await queue.arn(), "Events": [CREATED]}
    await rig.notify(bucket, QueueConfigurations=[rule])
    async with Uploads(tmp_path) as daemon:
        daemon.upload(queue, bucket)
        daemon.write()
        done = await daemon.command("check", "--connect", "--json")
        assert done.status == 1
        [source] = [check for check in done.json()["checks"] if check["name"].endswith("source")]
        assert "Queue visibility timeout: 2 seconds is less than Function timeout: 3 seconds" in source["detail"]
        # S3's test event is still there: nothing was received.
        await queue.until((1, 0))
