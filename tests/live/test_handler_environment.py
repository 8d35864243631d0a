"""What handlers find is what they find on AWS: their AWS libraries need no arguments, and there is a place to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.live.daemon import Daemon
from tests.live.queue_rig import REGION, Queues, add_mapping

#: Sends each body on, by a client that is told nothing.
SENDING = """
    import boto3, os
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=os.environ["NEXT"])["QueueUrl"]

    def handle(event, context):
        for record in event["Records"]:
            sqs.send_message(QueueUrl=url, MessageBody="next to " + record["body"])
"""
#: Writes beside what it wrote before, and holds on while there is a file.
WRITING = """
    import os, tempfile, time
    def handle(event, context):
        for record in event["Records"]:
            with open(os.path.join(tempfile.gettempdir(), record["body"]), "w"):
                pass
        while os.path.exists(os.environ["HOLD"]):
            time.sleep(0.01)
"""


class Rig(Daemon):
    def __init__(self, folder: Path, endpoint_url: str, **environment: str) -> None:
        super().__init__(folder, environment)
        self.document["aws"] = {"endpoint_url": endpoint_url, "region": REGION}

    def written(self) -> set[str]:
        """Name what workers have written."""
        return {path.name for path in (self.state / "scratch").glob("*/*")}


@pytest.mark.parametrize("snap_start", [False, True])
async def test_a_client_of_aws_that_is_told_nothing_reaches_what_the_daemon_reaches(
    tmp_path: Path,
    queues: Queues,
    aws_endpoint: str,
    snap_start: bool,  # noqa: FBT001
) -> None:
    first, second = await queues.make(), await queues.make()
    async with Rig(tmp_path, aws_endpoint, AWS_SECRET_ACCESS_KEY="hunter2-s3cret") as daemon:
        environment = {"NEXT": second.name}
        daemon.function("orders", SENDING, environment=environment, timeout=60, memory_size=512, snap_start=snap_start)
        add_mapping(daemon, "orders", first.source())
        await daemon.start()
        await first.send("one")
        await second.until((1, 0))
        assert await daemon.terminate() == 0
        assert "hunter2" not in json.dumps(daemon.lines)
        kept = [path for path in daemon.state.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
        assert kept == []


async def test_what_a_worker_has_written_goes_with_it_also_after_a_crash_of_the_daemon(
    tmp_path: Path, queues: Queues, aws_endpoint: str
) -> None:
    queue = await queues.make()
    hold = tmp_path / "hold"
    async with Rig(tmp_path, aws_endpoint) as daemon:
        daemon.function("orders", WRITING, environment={"HOLD": str(hold)}, timeout=60)
        add_mapping(daemon, "orders", queue.source(), batch_size=1)
        hold.touch()
        await daemon.start()
        await queue.send("before")
        await daemon.until(lambda: daemon.written() == {"before"}, "it is written")
        await daemon.kill()
        assert daemon.written() == {"before"}
        hold.unlink()
        await daemon.start()
        await daemon.until(lambda: daemon.written() == set(), "what the crash has left is gone")
        await queue.send("after")
        await daemon.until(lambda: "after" in daemon.written(), "it is written")
        assert await daemon.terminate() == 0
        assert list((daemon.state / "scratch").iterdir()) == []
