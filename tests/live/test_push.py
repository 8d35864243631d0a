"""S3, SNS and EventBridge push to functions, as docs/push.md says: their services call Invoke with the type Event."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connectors.aws import s3_client, service_client, sns_client
from tests.conftest import ServiceUnavailable, give_up, service_environment
from tests.live.daemon import Daemon

REGION = "us-east-1"
FUNCTION = f"arn:aws:lambda:{REGION}:000000000000:function:pushed"
MADE = f"arn:aws:lambda:{REGION}:000000000000:function:made"
EVENTS = Path(__file__).parents[1] / "vectors" / "events"
#: Writes each event, as text, to a file of its own beside its code.
HANDLER = """
import json, pathlib, uuid

FOLDER = pathlib.Path(__file__).with_name("seen")

def handle(event, context):
    FOLDER.mkdir(exist_ok=True)
    seen = {"event": event, "arn": context.invoked_function_arn, "id": context.aws_request_id}
    draft = FOLDER / f"{uuid.uuid4()}.draft"
    draft.write_text(json.dumps(seen))
    draft.rename(draft.with_suffix(".json"))
"""


class Pushed:
    """A daemon with a function that notes what it is given."""

    def __init__(self, daemon: Daemon, code: Path) -> None:
        self.daemon = daemon
        self._seen = code.with_name("seen")

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted(self._seen.glob("*.json"))]

    async def events(self, count: int) -> list[Any]:
        """Wait for so many events."""
        await self.daemon.until(lambda: len(self.seen) >= count, f"{count} events have come")
        return [each["event"] for each in self.seen]


async def pushed(daemon: Daemon) -> Pushed:
    code = daemon.function("pushed", HANDLER)
    del daemon.document["event_source_mappings"]
    await daemon.start()
    return Pushed(daemon, code)


@pytest.fixture(scope="module")
def pushing() -> Mapping[str, str]:
    try:
        return service_environment("localstack-push", "HEADRACE_TEST_PUSH")
    except ServiceUnavailable as error:
        give_up(f"no LocalStack that pushes: {error}")


@pytest.fixture
async def target(pushing: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pushed]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with Daemon(tmp_path) as daemon:
        daemon.document["listen"] = f"127.0.0.1:{pushing['HEADRACE_TEST_PUSH_TARGET']}"
        daemon.port = int(pushing["HEADRACE_TEST_PUSH_TARGET"])
        yield await pushed(daemon)


@pytest.fixture(scope="module")
def ministack() -> str:
    try:
        return service_environment("ministack", "HEADRACE_TEST_MINISTACK")["HEADRACE_TEST_MINISTACK"]
    except ServiceUnavailable as error:
        give_up(f"no ministack: {error}")


@pytest.fixture
async def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pushed]:
    """The same on any port."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with Daemon(tmp_path) as daemon:
        yield await pushed(daemon)


@pytest.mark.live
async def test_a_bucket_notifies_a_function(target: Pushed, pushing: Mapping[str, str]) -> None:
    bucket = f"headrace-test-{uuid.uuid4().hex[:12]}"
    async with s3_client(pushing["HEADRACE_TEST_PUSH"], REGION) as s3:
        await s3.create_bucket(Bucket=bucket)
        wanted: Any = [{"Id": "made", "LambdaFunctionArn": FUNCTION, "Events": ["s3:ObjectCreated:*"]}]
        await s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"LambdaFunctionConfigurations": wanted}
        )
        await s3.put_object(Bucket=bucket, Key="in/a.txt", Body=b"hello")
        [event] = await target.events(1)
        await s3.delete_object(Bucket=bucket, Key="in/a.txt")
        await s3.delete_bucket(Bucket=bucket)
    [record] = event["Records"]
    example = json.loads((EVENTS / "s3_put.json").read_text())["Records"][0]
    assert set(record) == set(example)
    assert (record["eventSource"], record["eventName"]) == ("aws:s3", "ObjectCreated:Put")
    assert record["s3"]["bucket"]["name"] == bucket
    assert (record["s3"]["object"]["key"], record["s3"]["object"]["size"]) == ("in/a.txt", 5)
    assert record["s3"]["configurationId"] == "made"


@pytest.mark.live
async def test_a_bucket_is_told_that_a_function_is_not_there(target: Pushed, pushing: Mapping[str, str]) -> None:
    bucket = f"headrace-test-{uuid.uuid4().hex[:12]}"
    async with s3_client(pushing["HEADRACE_TEST_PUSH"], REGION) as s3:
        await s3.create_bucket(Bucket=bucket)
        wanted: Any = [{"LambdaFunctionArn": f"{FUNCTION}-not", "Events": ["s3:ObjectCreated:*"]}]
        with pytest.raises(s3.exceptions.ClientError, match="Unable to validate"):
            await s3.put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration={"LambdaFunctionConfigurations": wanted}
            )
        await s3.delete_bucket(Bucket=bucket)


@pytest.mark.live
async def test_with_keys_a_bucket_may_invoke_what_a_policy_lets_it(
    pushing: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, bucket = int(pushing["HEADRACE_TEST_PUSH_TARGET"]), f"headrace-test-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "localstack")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-localstack")
    wanted: Any = {"LambdaFunctionConfigurations": [{"LambdaFunctionArn": MADE, "Events": ["s3:ObjectCreated:*"]}]}
    async with (
        Daemon(tmp_path) as daemon,
        s3_client(pushing["HEADRACE_TEST_PUSH"], REGION) as s3,
        service_client("lambda", f"http://127.0.0.1:{port}", REGION) as functions,
    ):
        daemon.port, daemon.document["listen"] = port, f"127.0.0.1:{port}"
        daemon.document["api"] = {
            "keys": [
                {"access_key_id": "localstack", "secret_access_key": "secret-of-localstack"},
                {
                    "access_key_id": "buckets",
                    "secret_access_key": "secret-of-the-buckets",
                    "service": "s3.amazonaws.com",
                },
            ]
        }
        target = await pushed(daemon)
        code = daemon.folder / "functions" / "pushed"
        await functions.create_function(
            FunctionName="made",
            Runtime="python3.12",
            Role="arn:aws:iam::000000000000:role/r",
            Handler="app.handle",
            Code={"S3Bucket": "headrace-local", "S3Key": str(code)},
        )
        await s3.create_bucket(Bucket=bucket)
        with pytest.raises(s3.exceptions.ClientError, match="Unable to validate"):
            await s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
        await functions.add_permission(
            FunctionName="made",
            StatementId="bucket",
            Action="lambda:InvokeFunction",
            Principal="s3.amazonaws.com",
            SourceArn=f"arn:aws:s3:::{bucket}",
        )
        await s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
        await s3.put_object(Bucket=bucket, Key="a", Body=b"")
        [event] = await target.events(1)
        assert event["Records"][0]["s3"]["bucket"]["name"] == bucket
        await s3.delete_object(Bucket=bucket, Key="a")
        await s3.delete_bucket(Bucket=bucket)


@pytest.mark.live
async def test_a_topic_notifies_a_function(target: Pushed, pushing: Mapping[str, str]) -> None:
    async with sns_client(pushing["HEADRACE_TEST_PUSH"], REGION) as sns:
        topic = (await sns.create_topic(Name=f"headrace-test-{uuid.uuid4().hex[:12]}"))["TopicArn"]
        await sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=FUNCTION)
        attributes: Any = {"team": {"DataType": "String", "StringValue": "ops"}}
        await sns.publish(TopicArn=topic, Message='{"level": "warn"}', Subject="s", MessageAttributes=attributes)
        [event] = await target.events(1)
        await sns.delete_topic(TopicArn=topic)
    [record] = event["Records"]
    example = json.loads((EVENTS / "sns.json").read_text())["Records"][0]
    assert set(record) == set(example)
    assert set(record["Sns"]) == set(example["Sns"])
    assert record["EventSource"] == "aws:sns"
    assert (record["Sns"]["TopicArn"], record["Sns"]["Message"]) == (topic, '{"level": "warn"}')
    assert record["Sns"]["MessageAttributes"] == {"team": {"Type": "String", "Value": "ops"}}


@pytest.mark.live
async def test_a_rule_of_an_event_bus_invokes_a_function(target: Pushed, pushing: Mapping[str, str]) -> None:
    async with service_client("events", pushing["HEADRACE_TEST_PUSH"], REGION) as events:
        rule = f"headrace-test-{uuid.uuid4().hex[:12]}"
        await events.put_rule(Name=rule, EventPattern=json.dumps({"source": [rule]}))
        await events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": FUNCTION}])
        entry = {"Source": rule, "DetailType": "Order Placed", "Detail": '{"orderId": 17, "state": "placed"}'}
        await events.put_events(Entries=[entry])
        [event] = await target.events(1)
        await events.remove_targets(Rule=rule, Ids=["1"])
        await events.delete_rule(Name=rule)
    example = json.loads((EVENTS / "eventbridge.json").read_text())
    assert set(event) == set(example)
    assert (event["source"], event["detail-type"]) == (rule, "Order Placed")
    assert event["detail"] == {"orderId": 17, "state": "placed"}


@asynccontextmanager
async def api_destination(events: Any, port: int, pattern: Mapping[str, Any]) -> AsyncIterator[None]:
    """Have what fits a pattern posted to Invoke, with the header that makes it asynchronous."""
    name = f"headrace-test-{uuid.uuid4().hex[:12]}"
    connection = await events.create_connection(
        Name=name,
        AuthorizationType="API_KEY",
        AuthParameters={
            "ApiKeyAuthParameters": {"ApiKeyName": "x-api-key", "ApiKeyValue": "unused"},
            "InvocationHttpParameters": {
                "HeaderParameters": [{"Key": "X-Amz-Invocation-Type", "Value": "Event", "IsValueSecret": False}]
            },
        },
    )
    destination = await events.create_api_destination(
        Name=name,
        ConnectionArn=connection["ConnectionArn"],
        HttpMethod="POST",
        InvocationEndpoint=f"http://127.0.0.1:{port}/2015-03-31/functions/pushed/invocations",
    )
    await events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    place = {"Id": "1", "Arn": destination["ApiDestinationArn"], "RoleArn": "arn:aws:iam::000000000000:role/r"}
    await events.put_targets(Rule=name, Targets=[place])
    yield
    await events.remove_targets(Rule=name, Ids=["1"])
    await events.delete_rule(Name=name)
    await events.delete_api_destination(Name=name)
    await events.delete_connection(Name=name)


async def put_and_see(endpoint: str, target: Pushed) -> None:
    source = f"shop-{uuid.uuid4().hex}"
    async with (
        service_client("events", endpoint, REGION) as events,
        api_destination(events, target.daemon.port, {"source": [source]}),
    ):
        await events.put_events(Entries=[{"Source": source, "DetailType": "d", "Detail": '{"orderId": 17}'}])
        [event] = await target.events(1)
    assert set(event) == set(json.loads((EVENTS / "eventbridge.json").read_text()))
    assert (event["source"], event["detail"]) == (source, {"orderId": 17})


@pytest.mark.live
async def test_an_api_destination_is_invoke_with_a_header(target: Pushed, pushing: Mapping[str, str]) -> None:
    await put_and_see(pushing["HEADRACE_TEST_PUSH"], target)


@pytest.mark.live
async def test_so_it_is_with_another_event_bus(aside: Pushed, ministack: str) -> None:
    await put_and_see(ministack, aside)


@pytest.mark.live
async def test_a_bucket_notifies_a_function_through_an_event_bus(aside: Pushed, ministack: str) -> None:
    bucket = f"headrace-test-{uuid.uuid4().hex[:12]}"
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}}
    async with (
        s3_client(ministack, REGION) as s3,
        service_client("events", ministack, REGION) as events,
        api_destination(events, aside.daemon.port, pattern),
    ):
        await s3.create_bucket(Bucket=bucket)
        through: Any = {"EventBridgeConfiguration": {}}
        await s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=through)
        await s3.put_object(Bucket=bucket, Key="in/a b.txt", Body=b"hi")
        [event] = await aside.events(1)
        await s3.delete_object(Bucket=bucket, Key="in/a b.txt")
        await s3.delete_bucket(Bucket=bucket)
    assert event["detail-type"] == "Object Created"
    assert event["detail"]["object"]["key"] == "in/a b.txt", "it is not URL-encoded here"


@pytest.mark.live
async def test_clients_of_localstack_reach_our_functions(target: Pushed, pushing: Mapping[str, str]) -> None:
    async with service_client("lambda", pushing["HEADRACE_TEST_PUSH"], REGION) as functions:
        shown = await functions.get_function(FunctionName="pushed")
        answer = await functions.invoke(FunctionName="pushed", InvocationType="Event", Payload=b'{"direct": 1}')
        with pytest.raises(functions.exceptions.ResourceNotFoundException):
            await functions.get_function(FunctionName="nobody")
    assert shown["Configuration"]["FunctionArn"] == FUNCTION
    assert answer["StatusCode"] == 202
    assert await target.events(1) == [{"direct": 1}]


async def test_events_of_all_sources_that_push_arrive_as_they_are(tmp_path: Path) -> None:
    async with Daemon(tmp_path) as daemon:
        target = await pushed(daemon)
        url = f"http://127.0.0.1:{daemon.port}/2015-03-31/functions/pushed/invocations"
        ids: dict[str, Any] = {}
        async with aiohttp.ClientSession() as http:
            for file in sorted(EVENTS.glob("*.json")):
                body = file.read_bytes()
                async with http.post(url, data=body, headers={"X-Amz-Invocation-Type": "Event"}) as answer:
                    assert (answer.status, await answer.read()) == (202, b"")
                    ids[answer.headers["x-amzn-RequestId"]] = json.loads(body)
        await target.events(len(ids))
        assert {each["id"]: each["event"] for each in target.seen} == ids
