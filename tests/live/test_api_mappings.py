"""Event source mappings that AWS's own client makes, over real sources: made, changed, stopped, deleted."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import MakeTopic
from tests.live import mapping_calls as calls
from tests.live.mapping_calls import Fed, site
from tests.live.queue_rig import Queues, free_port
from tests.live.stream_rig import Streams

KINDS = ("queue", "fifo", "stream", "table", "kafka")
NO_QUEUE = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: "
    "The specified queue does not exist."
)


@pytest.fixture(params=KINDS)
async def source(
    request: pytest.FixtureRequest, queues: Queues, streams: Streams, kafka_bootstrap: str, topic: MakeTopic
) -> Fed:
    match request.param:
        case "stream":
            return await calls.stream(streams)
        case "table":
            return await calls.table(streams)
        case "kafka":
            return calls.kafka(kafka_bootstrap, await topic())
    return await calls.queue(queues, fifo=request.param == "fifo")


async def test_one_of_every_kind_runs_and_stops_as_it_is_told(tmp_path: Path, aws_endpoint: str, source: Fed) -> None:
    async with site(tmp_path, aws_endpoint) as at:
        await at.daemon.start()
        uuid = await at.make(**source.members)
        assert await at.state(uuid) in ("Creating", "Enabled")
        await source.send("first")
        await at.until_seen("first")
        await at.until_state(uuid, "Enabled")

        changed = await at.client.update_event_source_mapping(UUID=uuid, BatchSize=3)
        assert (changed["BatchSize"], changed["State"]) == (3, "Updating")
        await at.until_state(uuid, "Enabled")
        await source.send("second")
        await at.until_seen("second")

        stopped = await at.client.update_event_source_mapping(UUID=uuid, Enabled=False)
        assert stopped["State"] == "Disabling"
        await at.until_state(uuid, "Disabled")
        await source.send("third")
        await at.client.update_event_source_mapping(UUID=uuid, Enabled=True)
        await at.until_seen("third")
        assert [at.seen(text) for text in ("first", "second")] == [1, 1]

        gone = await at.client.delete_event_source_mapping(UUID=uuid)
        assert gone["State"] == "Deleting"
        await at.until_state(uuid, "gone")
        assert (await at.client.list_event_source_mappings())["EventSourceMappings"] == []


async def test_a_mapping_outlives_the_daemon_that_made_it(tmp_path: Path, aws_endpoint: str, source: Fed) -> None:
    async with site(tmp_path, aws_endpoint) as at:
        await at.daemon.start()
        uuid = await at.make(**source.members)
        await source.send("first")
        await at.until_seen("first")
        await at.daemon.kill()
        await source.send("second")
        await at.daemon.start()
        assert await at.state(uuid) == "Enabled"
        await at.until_seen("second")


async def test_a_cluster_of_amazon_is_read_where_the_file_says_and_told_by_its_arn(
    tmp_path: Path, aws_endpoint: str, kafka_bootstrap: str, topic: MakeTopic, queues: Queues
) -> None:
    arn = "arn:aws:kafka:us-east-1:000000000000:cluster/orders/11111111-2222-3333-4444-555555555555-1"
    servers, failed = kafka_bootstrap.split(","), await queues.make()
    source = calls.kafka(kafka_bootstrap, await topic())
    members: dict[str, Any] = {
        "EventSourceArn": arn,
        "Topics": source.members["Topics"],
        "ProvisionedPollerConfig": {"MinimumPollers": 1},
        "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnFailure": {"Destination": await failed.arn()}},
    }
    async with site(tmp_path, aws_endpoint) as at:
        at.daemon.document["api"] = {"msk_clusters": {arn: servers}}
        await at.daemon.start()
        await at.make(**members)
        await source.send("poison")
        await at.until_seen("poison")
        [event, *_] = at.notes()
        assert list(event) == ["eventSource", "eventSourceArn", "bootstrapServers", "records"]
        assert (event["eventSource"], event["eventSourceArn"]) == ("aws:kafka", arn)
        await failed.until((1, 0))
        answer = await queues.client.receive_message(QueueUrl=failed.url, WaitTimeSeconds=20)
        assert json.loads(answer["Messages"][0]["Body"])["KafkaBatchInfo"]["eventSourceArn"] == arn


@pytest.mark.parametrize("kind", ["stream", "table", "kafka"])
async def test_the_end_of_a_source_is_where_it_was_when_the_mapping_was_made(
    tmp_path: Path,
    aws_endpoint: str,
    streams: Streams,
    kafka_bootstrap: str,
    topic: MakeTopic,
    kind: str,
) -> None:
    match kind:
        case "stream":
            source = await calls.stream(streams, "LATEST")
        case "table":
            source = await calls.table(streams, "LATEST")
        case _:
            source = calls.kafka(kafka_bootstrap, await topic(), "LATEST")
    async with site(tmp_path, aws_endpoint) as at:
        await at.daemon.start()
        await source.send("before")
        # Services tell their time in whole seconds.
        await asyncio.sleep(2.0)
        uuid = await at.make(**source.members)
        await source.send("at once")
        await at.until_seen("at once")
        # The stand-in for tables tells the times of its records in whole minutes, and none is missed for that.
        assert not at.seen("before") or kind == "table"
        assert await at.state(uuid) == "Enabled"


class TestSourcesThatAreNotThere:
    async def test_they_are_refused_in_the_words_of_aws(
        self, tmp_path: Path, aws_endpoint: str, queues: Queues, streams: Streams
    ) -> None:
        queue = (await calls.queue(queues)).members["EventSourceArn"]
        stream = (await calls.stream(streams)).members["EventSourceArn"]
        table = (await calls.table(streams)).members["EventSourceArn"]
        position = {"StartingPosition": "LATEST"}
        missing = [
            ({"EventSourceArn": f"{queue}-not"}, NO_QUEUE),
            ({"EventSourceArn": f"{stream}-not", **position}, f"Stream not found: {stream}-not"),
            (
                {"EventSourceArn": table.replace(":table/", ":table/not-"), **position},
                f"Stream not found: {table.replace(':table/', ':table/not-')}",
            ),
            (
                {"EventSourceArn": f"{stream}/consumer/nobody:1700000000", **position},
                f"Stream not found: {stream}/consumer/nobody:1700000000",
            ),
        ]
        async with site(tmp_path, aws_endpoint) as at:
            await at.daemon.start()
            for members, text in missing:
                with pytest.raises(ClientError) as refused:
                    await at.make(**members)
                error = refused.value.response
                assert (error["Error"]["Code"], error["message"]) == ("InvalidParameterValueException", text)
            assert (await at.client.list_event_source_mappings())["EventSourceMappings"] == []

    async def test_a_service_that_is_away_is_said(self, tmp_path: Path) -> None:
        async with site(tmp_path, f"http://127.0.0.1:{free_port()}") as at:
            await at.daemon.start()
            with pytest.raises(ClientError) as refused:
                await at.make(EventSourceArn="arn:aws:sqs:us-east-1:000000000000:orders")
            assert refused.value.response["Error"]["Code"] == "ServiceException"
            assert "it cannot be reached" in refused.value.response["Error"]["Message"]

    async def test_7_a_queue_that_hides_messages_too_briefly(
        self, tmp_path: Path, aws_endpoint: str, queues: Queues
    ) -> None:
        arn = await (await queues.make(VisibilityTimeout="4")).arn()
        async with site(tmp_path, aws_endpoint) as at:
            await at.daemon.start()
            with pytest.raises(ClientError, match="Queue visibility timeout: 4 seconds is less than Function timeout"):
                await at.make(EventSourceArn=arn)


class TestWhatGoesUnderAMapping:
    async def test_its_function(self, tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
        source = await calls.stream(streams)
        async with site(tmp_path, aws_endpoint) as at:
            await at.daemon.start()
            code = at.daemon.folder / "functions" / "orders"
            function = {
                "FunctionName": "made",
                "Runtime": "python3.12",
                "Handler": "app.handle",
                "Role": "arn:aws:iam::000000000000:role/any",
                "Code": {"S3Bucket": "headrace-local", "S3Key": str(code)},
                "Environment": {"Variables": {"NOTES": str(tmp_path / "made.notes")}},
            }
            await at.client.create_function(**function)
            uuid = await at.make(**source.members, FunctionName="made", MaximumRetryAttempts=0)
            await source.send("first")
            await at.until_seen("first", "made")
            await at.client.delete_function(FunctionName="made")
            await source.send("second")
            await at.daemon.until(lambda: at.daemon.events("batch.refused", mapping=uuid), "it is told of the loss")
            assert await at.state(uuid) == "Enabled"
            # A function that is not there spends no attempt: what waited is for the next one of its name.
            await at.client.create_function(**function)
            await at.until_seen("second", "made")

    async def test_its_source(self, tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
        source = await calls.stream(streams)
        async with site(tmp_path, aws_endpoint) as at:
            await at.daemon.start()
            uuid = await at.make(**source.members)
            await source.send("first")
            await at.until_seen("first")
            await streams.delete(source.members["EventSourceArn"].rpartition("/")[2])
            found: dict[str, Any] = {}
            async with asyncio.timeout(40):
                while not found.get("LastProcessingResult", "").startswith("PROBLEM: "):
                    found = await at.client.get_event_source_mapping(UUID=uuid)
                    await asyncio.sleep(0.1)
            assert found["State"] == "Enabled"
            await at.client.delete_event_source_mapping(UUID=uuid)
            await at.until_state(uuid, "gone")


#: Ends once it may.
HOLDING = """
import pathlib, time

def handle(event, context):
    here = pathlib.Path(__file__)
    here.with_name("began").touch()
    while not here.with_name("may_end").exists():
        time.sleep(0.05)
"""


class TestDelete:
    async def test_what_is_in_flight_ends_first(self, tmp_path: Path, aws_endpoint: str, queues: Queues) -> None:
        queue = await queues.make(VisibilityTimeout="60")
        source = {"EventSourceArn": await queue.arn(), "FunctionName": "holds"}
        async with site(tmp_path, aws_endpoint) as at:
            code = at.daemon.function("holds", HOLDING, timeout=60)
            await at.daemon.start()
            uuid = await at.make(**source)
            await queue.send("one")
            await at.daemon.until(code.with_name("began").exists, "it is with the function")
            await at.client.delete_event_source_mapping(UUID=uuid)
            assert await at.state(uuid) == "Deleting"
            with pytest.raises(at.client.exceptions.ResourceInUseException):
                await at.client.delete_event_source_mapping(UUID=uuid)
            code.with_name("may_end").touch()
            await at.until_state(uuid, "gone")
            assert await queue.counts() == (0, 0)
            made_again = await at.make(**source)
            assert made_again != uuid

    async def test_what_fails_at_the_end_is_still_told(
        self, tmp_path: Path, aws_endpoint: str, queues: Queues, streams: Streams
    ) -> None:
        source, dead, began = await calls.stream(streams), await queues.make(), tmp_path / "began"
        code = f"""
        import pathlib, time

        def handle(event, context):
            pathlib.Path({str(began)!r}).touch()
            time.sleep(1)
            raise ValueError("poison")
        """
        async with site(tmp_path, aws_endpoint) as at:
            at.daemon.function("fails", code, timeout=5)
            await at.daemon.start()
            rules = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": await dead.arn()}}}
            uuid = await at.make(**source.members, FunctionName="fails", **rules)
            await source.send("one")
            await at.daemon.until(began.exists, "it is with the function")
            await at.client.delete_event_source_mapping(UUID=uuid)
            await at.until_state(uuid, "gone")
            told = await _record_of(queues.client, dead.url)
            assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"

    async def test_a_crash_meanwhile_does_not_keep_it(self, tmp_path: Path, aws_endpoint: str, queues: Queues) -> None:
        source = await calls.queue(queues)
        async with site(tmp_path, aws_endpoint) as at:
            await at.daemon.start()
            uuid = await at.make(**source.members)
            await source.send("slow")
            await at.until_seen("slow")
            await at.client.delete_event_source_mapping(UUID=uuid)
            await at.daemon.kill()
            await at.daemon.start()
            await at.until_state(uuid, "gone")

    async def test_of_many_at_once_one_does_it(self, tmp_path: Path, aws_endpoint: str, queues: Queues) -> None:
        queue = await queues.make(VisibilityTimeout="60")
        async with site(tmp_path, aws_endpoint) as at:
            code = at.daemon.function("holds", HOLDING, timeout=60)
            await at.daemon.start()
            uuid = await at.make(EventSourceArn=await queue.arn(), FunctionName="holds")
            await at.until_state(uuid, "Enabled")
            # What is in flight holds up the one that comes first until all have come.
            await queue.send("one")
            await at.daemon.until(code.with_name("began").exists, "it is with the function")
            updates = [at.client.update_event_source_mapping(UUID=uuid, BatchSize=size) for size in range(1, 6)]
            deletes = [at.client.delete_event_source_mapping(UUID=uuid) for _ in range(5)]
            ends = await asyncio.gather(*updates, *deletes, return_exceptions=True)
            code.with_name("may_end").touch()
            refused = {end.response["Error"]["Code"] for end in ends if isinstance(end, ClientError)}
            assert refused == {"ResourceInUseException"}
            assert sum(isinstance(end, dict) for end in ends) == 1


class TestLikeTheFile:
    """The same handler sees the same, whoever made the mapping."""

    @pytest.mark.parametrize("kind", ["stream", "table", "kafka"])
    async def test_events_and_failure_records_are_equal(
        self,
        tmp_path: Path,
        aws_endpoint: str,
        queues: Queues,
        streams: Streams,
        kafka_bootstrap: str,
        topic: MakeTopic,
        kind: str,
    ) -> None:
        match kind:
            case "stream":
                source = await calls.stream(streams)
            case "table":
                source = await calls.table(streams)
            case _:
                source = calls.kafka(kafka_bootstrap, await topic())
        dead = {name: await queues.make() for name in ("orders", "bills")}
        rules = {
            name: {
                "MaximumRetryAttempts": 1,
                "DestinationConfig": {"OnFailure": {"Destination": await queue.arn()}},
            }
            for name, queue in dead.items()
        }
        mode = {"ProvisionedPollerConfig": {"MinimumPollers": 1}} if kind == "kafka" else {}
        async with site(tmp_path, aws_endpoint, ("orders", "bills")) as at:
            at.daemon.document["event_source_mappings"]["file"] = {
                "FunctionName": "bills",
                "init_errors_count": True,
                **rules["bills"],
                **{name: value for name, value in source.members.items() if name != "SourceAccessConfigurations"},
            }
            await source.send("fine")
            await source.send("poison")
            await at.daemon.start()
            await at.make(**source.members, **rules["orders"], **mode)
            for name in ("orders", "bills"):
                await at.until_seen("poison", name)
            told = {name: await _record_of(queue.queues.client, queue.url) for name, queue in dead.items()}
            assert _comparable(told["orders"]) == _comparable(told["bills"])
            assert at.notes("orders")[0] == at.notes("bills")[0]
            assert {json.dumps(each) for each in at.notes("orders")} == {json.dumps(each) for each in at.notes("bills")}


async def _record_of(client: Any, url: str) -> dict[str, Any]:
    """Receive the one failure record of a queue."""
    async with asyncio.timeout(40):
        while True:
            found = (await client.receive_message(QueueUrl=url, WaitTimeSeconds=1)).get("Messages")
            if found:
                return dict(json.loads(found[0]["Body"]))


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Take out what is of one invocation: its id, its time, its function."""
    context = {
        name: value for name, value in record["requestContext"].items() if name not in ("requestId", "functionArn")
    }
    return {**record, "requestContext": context, "timestamp": None}


async def test_a_mapping_that_the_changed_file_leaves_no_brokers_is_told_of_everywhere(tmp_path: Path) -> None:
    cluster = "arn:aws:kafka:us-east-1:000000000000:cluster/orders/11111111-2222-3333-4444-555555555555-1"
    async with site(tmp_path, "http://127.0.0.1:1") as at:
        daemon = at.daemon
        daemon.document["api"] = {"msk_clusters": {cluster: ["127.0.0.1:1"]}}
        await daemon.start()
        uuid = await at.make(EventSourceArn=cluster, Topics=["orders"])
        await daemon.until_reason(uuid, "SourceUnavailable")
        before = len(daemon.lines)
        del daemon.document["api"]
        daemon.write()
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("config.reloaded", after=before)
        told = await daemon.until_reason(uuid, "Unfit")
        assert (told["state"], told["source"], told["made_by"]) == ("failed", "kafka:orders", "api")
        assert f"does not name the brokers of {cluster}" in told["reason"]["message"]
        paused = await daemon.command("mapping", "pause", uuid)
        assert (paused.status, f"no mapping {uuid} runs here" in paused.err) == (1, True)
        assert await at.state(uuid) == "Enabled"
        await at.client.update_event_source_mapping(UUID=uuid, Enabled=False)
        await at.until_state(uuid, "Disabled")
        assert json.loads((await daemon.command("status", "--json")).out)["mappings"] == []
        await at.client.delete_event_source_mapping(UUID=uuid)
        await at.until_state(uuid, "gone")
