"""The Lambda API of a fleet: what is made on one replica runs on all of them, and outlives each of them."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.live.daemon import PATIENCE_S
from tests.live.fleet_rig import NOTING, FleetRig, Replica
from tests.live.own_redis import OwnRedis
from tests.live.queue_rig import REGION
from tests.live.stream_rig import Streams


@pytest.fixture
async def fleet(tmp_path: Path, own_redis: OwnRedis, streams_endpoint: str) -> AsyncIterator[FleetRig]:
    own_redis.start()
    # The machine may stand still for some seconds, and no lease ends.
    async with FleetRig(tmp_path, own_redis.settings.shown, lease="10s") as made:
        made.document["aws"] = {"endpoint_url": streams_endpoint, "region": REGION}
        yield made


class Api:
    """The API of one replica; refusals are not tried again."""

    def __init__(self, replica: Replica) -> None:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": REGION}
        url = f"http://127.0.0.1:{replica.port}"
        self.client = boto3.client("lambda", endpoint_url=url, config=Config(retries={"total_max_attempts": 1}), **keys)

    async def call(self, name: str, **parameters: Any) -> dict[str, Any]:
        return dict(await asyncio.to_thread(getattr(self.client, name), **parameters))

    async def status(self, name: str, **parameters: Any) -> int:
        """Give the status of the answer to a call, whatever it is."""
        try:
            return int((await self.call(name, **parameters))["ResponseMetadata"]["HTTPStatusCode"])
        except ClientError as error:
            return status_of(error)

    async def known(self) -> Api:
        """Wait until it is known what was made."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.status("list_functions") != 200:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.1)
        return self

    async def refused(self, name: str, **parameters: Any) -> tuple[int, str]:
        """Give status and message of the refusal of a call."""
        with pytest.raises(ClientError) as refusal:
            await self.call(name, **parameters)
        return status_of(refusal.value), refusal.value.response["Error"]["Message"]

    async def until(self, name: str, fact: Callable[[dict[str, Any]], bool], **parameters: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not fact(await self.call(name, **parameters)):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.1)

    async def invoke(self, function: str, event: object = None) -> Any:
        answer = await self.call("invoke", FunctionName=function, Payload=json.dumps(event))
        assert "FunctionError" not in answer, answer["Payload"].read()
        return json.load(answer["Payload"])


def status_of(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


async def together(fleet: FleetRig) -> tuple[Api, Api]:
    """Start two replicas, and wait until each knows of the other."""
    replicas = await fleet.start("a", "b")

    async def known(replica: Replica) -> int:
        found = (await replica.command("status", "--json")).json()
        return sum(each["state"] == "live" for each in found["fleet"]["replicas"])

    async with asyncio.timeout(PATIENCE_S):
        for each in replicas:
            while await known(each) < len(replicas):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.2)
    a, b = replicas
    return await Api(a).known(), await Api(b).known()


def archive(text: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr("app.py", text)
    return data.getvalue()


def function(text: str, **environment: str) -> dict[str, Any]:
    return {
        "FunctionName": "orders",
        "Runtime": "python3.12",
        "Role": "arn:aws:iam::000000000000:role/orders",
        "Handler": "app.handle",
        "Code": {"ZipFile": archive(text)},
        "Timeout": 20,
        "Environment": {"Variables": environment},
    }


async def test_what_is_made_on_one_replica_is_there_on_the_others_when_the_call_returns(fleet: FleetRig) -> None:
    a, b = await together(fleet)
    await a.call("create_function", **function("def handle(event, context): return {'first': event}"))
    assert await b.invoke("orders", 1) == {"first": 1}
    code = archive("def handle(event, context): return {'second': event}")
    await b.call("update_function_code", FunctionName="orders", ZipFile=code)
    assert await a.invoke("orders", 2) == {"second": 2}
    await b.call("delete_function", FunctionName="orders")
    assert (await a.refused("invoke", FunctionName="orders"))[0] == 404


async def test_of_changes_on_two_replicas_at_once_none_is_lost_silently(fleet: FleetRig) -> None:
    apis = await together(fleet)
    await apis[0].call("create_function", **function("def handle(event, context): return None"))

    async def tag(number: int) -> bool:
        arn = f"arn:aws:lambda:{REGION}:000000000000:function:orders"
        try:
            await apis[number % 2].call("tag_resource", Resource=arn, Tags={f"t{number}": ""})
        except ClientError as error:
            refused.append((status_of(error), "do it again" in error.response["Error"]["Message"]))
            return False
        return True

    refused: list[tuple[int, bool]] = []

    done = await asyncio.gather(*map(tag, range(40)))
    expected = {f"t{number}" for number, is_done in enumerate(done) if is_done}
    assert len(expected) >= 20
    assert set(refused) <= {(503, True)}
    for api in apis:
        assert (await api.call("get_function", FunctionName="orders"))["Tags"].keys() == expected


async def test_a_mapping_is_shared_survives_the_replica_that_made_it_and_is_deleted_everywhere(
    fleet: FleetRig, streams: Streams
) -> None:
    stream = await streams.make(4)
    one, two = await fleet.start("a", "b")
    a, b = await Api(one).known(), await Api(two).known()
    await a.call("create_function", **function(NOTING, NOTES=str(fleet.notes)))
    made = await a.call(
        "create_event_source_mapping",
        EventSourceArn=await stream.arn(),
        FunctionName="orders",
        StartingPosition="TRIM_HORIZON",
        BatchSize=10,
    )
    await fleet.until_shared(4, one, two)
    await stream.put(*((f"k{number % 9}", f"k{number % 9}-{number:06}") for number in range(90)))
    await fleet.until_ended(90)

    await one.kill()
    await stream.put(*((f"k{number % 9}", f"k{number % 9}-{number:06}") for number in range(90, 180)))
    await fleet.until_ended(180)
    await b.call("update_event_source_mapping", UUID=made["UUID"], BatchSize=5)
    await b.until("get_event_source_mapping", lambda found: found["State"] == "Enabled", UUID=made["UUID"])

    await fleet.start("a")
    a = await Api(one).known()
    await a.until("get_event_source_mapping", lambda found: found["BatchSize"] == 5, UUID=made["UUID"])
    await fleet.until_shared(4, one, two)
    assert fleet.ledger().wrong() == []

    await a.call("delete_event_source_mapping", UUID=made["UUID"])
    for api in (a, b):
        await api.until("list_event_source_mappings", lambda found: not found["EventSourceMappings"])
    await fleet.until_shared(0, one, two, fewest=0)
    await stream.put(("k0", "k0-unseen"))
    assert await one.terminate() == await two.terminate() == 0
    assert "k0-unseen" not in fleet.ledger().begun
    assert one.events("fleet.mixed") == two.events("fleet.mixed") == [], "what is made is no difference of files"


async def test_when_redis_comes_back_empty_the_api_asks_before_it_takes_all_for_deleted(
    fleet: FleetRig, own_redis: OwnRedis
) -> None:
    [one] = await fleet.start("a")
    a = await Api(one).known()
    await a.call("create_function", **function("def handle(event, context): return 1"))
    own_redis.restart(empty=True)
    await one.line("catalogue.unknown")
    status, message = await a.refused("list_functions")
    assert (status, "headrace mapping accept '$functions'" in message) == (503, True)

    assert await one.terminate() == 0
    await fleet.start("a")  # a restart asks again
    a = Api(one)
    assert (await a.refused("list_functions"))[0] == 503
    for kind in ("$functions", "$mappings"):
        await one.command("mapping", "accept", kind)

    await a.known()
    assert (await a.call("list_functions"))["Functions"] == []
    await a.call("create_function", **function("def handle(event, context): return 2"))
    assert await a.invoke("orders") == 2
