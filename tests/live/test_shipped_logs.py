"""What functions print in CloudWatch Logs: line by line, soon, in one stream a worker; and without it nothing stops."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aioboto3
import pytest

from tests.live.daemon import PATIENCE_S, Daemon
from tests.live.queue_rig import REGION, FaultyEndpoint, Queues, add_mapping, refusal

PRINTING = """
    import logging, os, time
    def handle(event, context):
        for record in event["Records"]:
            print("body", record["body"], time.time(), flush=True)
            print()
            logging.warning("stream %s", context.log_stream_name)
            while os.path.exists(os.environ["HOLD"]):
                time.sleep(0.01)
"""


class Group:
    """A log group of a test's own, which is not made yet."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.name = f"/headrace-test/{uuid.uuid4().hex[:12]}"

    async def streams(self) -> dict[str, list[str]]:
        """Give the lines of each stream."""
        try:
            found = await self._client.describe_log_streams(logGroupName=self.name)
        except self._client.exceptions.ResourceNotFoundException:
            return {}
        return {each["logStreamName"]: await self._lines(each["logStreamName"]) for each in found["logStreams"]}

    async def _lines(self, stream: str) -> list[str]:
        events = (await self._client.get_log_events(logGroupName=self.name, logStreamName=stream, startFromHead=True))[
            "events"
        ]
        assert [each["timestamp"] for each in events] == sorted(each["timestamp"] for each in events)
        return [each["message"] for each in events]

    async def lines(self) -> list[str]:
        return [line for lines in (await self.streams()).values() for line in lines]

    async def until(self, text: str) -> float:
        """Wait for a line; gives the time at which it was seen."""
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while not any(text in line for line in lines):
                lines = await self.lines()
                await asyncio.sleep(0.02)
        return time.time()

    async def remove(self) -> None:
        await self._client.delete_log_group(logGroupName=self.name)


@pytest.fixture
async def group(aws_endpoint: str) -> AsyncIterator[Group]:
    async with aioboto3.Session().client("logs", endpoint_url=aws_endpoint, region_name=REGION) as client:
        group = Group(client)
        yield group
        await group.remove()


@pytest.fixture
async def endpoint(aws_endpoint: str) -> AsyncIterator[FaultyEndpoint]:
    async with FaultyEndpoint(aws_endpoint) as made:
        await made.come()
        yield made


class Shipping(Daemon):
    """A daemon whose function prints, and holds on while there is a file."""

    def __init__(self, folder: Path, endpoint_url: str, group: Group, **function: object) -> None:
        super().__init__(folder)
        self.hold = folder / "hold"
        self.document["aws"] = {"endpoint_url": endpoint_url, "region": REGION}
        self.document["logs"] = "cloudwatch"
        given = {"log_group": group.name, "timeout": 60, "environment": {"HOLD": str(self.hold)}, **function}
        self.function("orders", PRINTING, **given)


async def test_each_line_is_an_event_in_the_stream_of_its_worker(
    tmp_path: Path, queues: Queues, aws_endpoint: str, group: Group
) -> None:
    queue = await queues.make()
    async with Shipping(tmp_path, aws_endpoint, group, reserved_concurrency=1) as daemon:
        add_mapping(daemon, "orders", queue.source())
        daemon.write()
        looked = (await daemon.command("check", "--connect", "--json")).json()["checks"]
        [found] = [each for each in looked if each["name"] == "functions.orders.logs"]
        assert (found["ok"], found["detail"]) == (True, f"log group {group.name}: it is made with the first line")
        await daemon.start()
        await queue.send("one")
        await queue.until((0, 0))
        await group.until("REPORT RequestId")
        [(stream, lines)] = (await group.streams()).items()
        request_id = lines[0].split()[2]
        assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream)
        assert lines[0] == f"START RequestId: {request_id} Version: $LATEST\n"
        assert lines[1].startswith("body one ")
        assert lines[2] == "\n"
        assert lines[3].startswith("[WARNING]\t")
        assert lines[3].endswith(f"\tstream {stream}\n")
        assert lines[4] == f"END RequestId: {request_id}\n"
        assert lines[5].startswith(f"REPORT RequestId: {request_id}\t")
        assert len(lines) == 6

        done = await daemon.command("logs", "orders")
        assert done.status == 1
        assert f"has logs: cloudwatch: read it with `aws logs tail {group.name} --follow" in done.err
        assert not (daemon.state / "logs").exists()


async def test_lines_are_visible_within_two_seconds_also_of_what_still_runs(
    tmp_path: Path, queues: Queues, aws_endpoint: str, group: Group
) -> None:
    queue = await queues.make()
    took_s = []
    async with Shipping(tmp_path, aws_endpoint, group) as daemon:
        add_mapping(daemon, "orders", queue.source(), batch_size=1)
        await daemon.start()
        for number in range(5):
            daemon.hold.touch()
            await queue.send(f"held-{number}")
            seen_s = await group.until(f"body held-{number} ")
            [line] = [line for line in await group.lines() if f"body held-{number} " in line]
            took_s.append(seen_s - float(line.split()[2]))
            assert daemon.hold.exists(), "it runs still"
            daemon.hold.unlink()
            await queue.until((0, 0))
        assert await daemon.terminate() == 0
    # The rest is for a machine that stands still meanwhile.
    assert sorted(took_s)[1] < 2, took_s


async def test_nothing_waits_for_a_service_that_is_away_and_what_was_printed_comes_when_it_is_back(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint, group: Group
) -> None:
    queue = await queues.make()
    async with Shipping(tmp_path, endpoint.url, group) as daemon:
        endpoint.faults["PutLogEvents"] = refusal(400, "AccessDeniedException")
        add_mapping(daemon, "orders", queue.source())
        await daemon.start()
        await queue.send("first")
        await queue.until((0, 0))
        refused = await daemon.line("logs.refused", function="orders")
        assert refused["error"].startswith("CloudWatch Logs of function orders: the credentials do not allow this")
        await queue.send("second")
        await queue.until((0, 0))
        assert await group.streams() == {}
        endpoint.mend()
        await daemon.line("logs.accepted", function="orders")
        await group.until("body first")
        await group.until("body second")
        assert daemon.events("logs.lost") == []
        assert await daemon.terminate() == 0


async def test_a_stop_ships_what_waits(tmp_path: Path, queues: Queues, aws_endpoint: str, group: Group) -> None:
    queue = await queues.make()
    async with Shipping(tmp_path, aws_endpoint, group) as daemon:
        add_mapping(daemon, "orders", queue.source(), batch_size=1)
        await daemon.start()
        await queue.send(*(f"body-{number}" for number in range(20)))
        await queue.until((0, 0))
        assert await daemon.terminate() == 0
        text = "".join(await group.lines())
        assert [f"body-{number}" for number in range(20) if f"body body-{number} " not in text] == []
        assert text.count("REPORT RequestId") == 20


async def test_a_stop_does_not_wait_long_for_a_service_that_is_away_and_says_what_is_lost(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint, group: Group
) -> None:
    queue = await queues.make()
    async with Shipping(tmp_path, endpoint.url, group) as daemon:
        add_mapping(daemon, "orders", queue.source())
        await daemon.start()
        await queue.send("first")
        await group.until("REPORT")
        endpoint.faults["PutLogEvents"] = refusal(500, "ServiceUnavailableException")
        await queue.send("second")
        await queue.until((0, 0))
        begun_s = time.monotonic()
        assert await daemon.terminate() == 0
        assert time.monotonic() - begun_s < 20
        [lost] = daemon.events("logs.lost", function="orders")
        assert lost["bytes"] > 100
        assert "body second" not in json.dumps(daemon.lines), "what handlers print is in no line of ours"


async def test_a_function_of_the_api_ships_to_its_own_group_as_json(
    tmp_path: Path, aws_endpoint: str, group: Group
) -> None:
    async with Shipping(tmp_path, aws_endpoint, group) as daemon:
        await daemon.start()
        url = f"http://127.0.0.1:{daemon.port}"
        async with aioboto3.Session().client("lambda", endpoint_url=url, region_name=REGION) as client:
            code = {"S3Bucket": "headrace-local", "S3Key": daemon.document["functions"]["orders"]["code"]}
            made = await client.create_function(
                FunctionName="made",
                Runtime="python3.12",
                Role="arn:aws:iam::000000000000:role/r",
                Handler="app.handle",
                Code=code,
                Environment={"Variables": {"HOLD": str(daemon.hold)}},
                LoggingConfig={"LogFormat": "JSON", "LogGroup": group.name},
            )
            assert made["LoggingConfig"]["LogGroup"] == group.name
            shown = await client.get_function_configuration(FunctionName="orders")
            assert shown["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": group.name}
            event = json.dumps({"Records": [{"body": "of the API"}]})
            answer = await client.invoke(FunctionName="made", Payload=event)
            assert "FunctionError" not in answer
        await group.until("platform.report")
        lines = await group.lines()
        assert json.loads(lines[0])["type"] == "platform.start"
        assert lines[1].startswith("body of the API ")
        assert json.loads(lines[3])["message"].startswith("stream ")
        assert await daemon.terminate() == 0
