"""Mappings of the API on aliases and on functions that come and go: asked at each invocation, never restarted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.daemon import Daemon, whole_lines
from tests.live.queue_rig import REGION, Queues
from tests.live.test_api_invoke import ARN, Client, zipped

SOURCE = """
    import json
    def handle(event, context):
        with open({out!r}, "a") as out:
            for record in event["Records"]:
                out.write(json.dumps([{number}, record["body"], context.invoked_function_arn]) + "\\n")
"""


@pytest.fixture
async def daemon(tmp_path: Path, queues: Queues) -> AsyncIterator[Daemon]:
    async with Daemon(tmp_path) as daemon:
        daemon.document["aws"] = {"region": REGION, "endpoint_url": queues.endpoint_url}
        await daemon.start()
        yield daemon


async def test_a_mapping_follows_its_alias_and_waits_for_a_function_that_is_gone_and_its_replays_do_not(
    daemon: Daemon, queues: Queues, tmp_path: Path
) -> None:
    client, queue, out = Client(daemon.port), await queues.make(), tmp_path / "out"

    def code(number: int) -> str:
        return SOURCE.format(out=str(out), number=number)

    def handled() -> list[list[object]]:
        return [json.loads(line) for line in whole_lines(out)]

    async def make_function(number: int) -> None:
        await client.create("orders", code(number))
        await client.call("publish_version", FunctionName="orders")
        await client.call("create_alias", FunctionName="orders", Name="live", FunctionVersion="1")

    await make_function(1)
    made = await client.call(
        "create_event_source_mapping", FunctionName="orders:live", EventSourceArn=await queue.arn(), BatchSize=1
    )
    await queue.send("first")
    await daemon.until(lambda: len(handled()) == 1, "the first message was handled")
    await client.call("update_function_code", FunctionName="orders", ZipFile=zipped(code(2)))
    await client.call("publish_version", FunctionName="orders")
    await client.call("update_alias", FunctionName="orders", Name="live", FunctionVersion="2")
    await queue.send("second")
    await daemon.until(lambda: len(handled()) == 2, "the second message was handled")
    await client.call("delete_function", FunctionName="orders")
    await queue.send("third")
    await daemon.line("batch.refused", mapping=made["UUID"])
    # While a batch is tried once more, there is no reason.
    status = await daemon.until_status(
        made["UUID"],
        lambda found: f"Function not found: {ARN}:orders:live" in json.dumps(found["reason"]),
        "status says that the function is gone",
    )
    assert status["made_by"] == "api"
    dead = await queues.make()
    await dead.send("fourth")
    place = ("--from", f"sqs:{dead.name}", "--mapping", made["UUID"])
    replay = await daemon.command("failures", "replay", *place, "--json", "--yes")
    [end, summary] = [json.loads(line) for line in replay.out.splitlines()]
    assert (replay.status, summary["summary"]["refused"]) == (1, 1)
    assert end["reason"] == f"its function is gone: Function not found: {ARN}:orders:live; see `headrace status`"
    await dead.until((1, 0))
    await make_function(3)
    await daemon.until(lambda: len(handled()) == 3, "the third message was handled")
    assert handled() == [
        [1, "first", f"{ARN}:orders:live"],
        [2, "second", f"{ARN}:orders:live"],
        [3, "third", f"{ARN}:orders:live"],
    ]
    changes = [line["action"] for line in daemon.lines if line.get("event") == "mapping.changed"]
    assert changes == ["start"]
    await queue.until((0, 0))
