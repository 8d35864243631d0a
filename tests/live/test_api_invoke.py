"""Functions that are made and invoked through the API of a running daemon, with boto3 as its users have it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import textwrap
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.handlers.conftest import eventually
from tests.live.daemon import Daemon

ARN = "arn:aws:lambda:us-east-1:000000000000:function"
ROLE = "arn:aws:iam::000000000000:role/any"
SOURCE = """
    import os, pathlib, sys, time

    def handle(event, context):
        print("handles", event)
        match event:
            case {"raise": text}:
                raise ValueError(text)
            case {"sleep": seconds}:
                time.sleep(seconds)
            case {"exit": status}:
                os._exit(status)
            case {"leave": status}:
                sys.exit(status)
            case {"hoard": megabytes}:
                held = b"x" * (megabytes << 20)
                time.sleep(30)
            case {"long": size}:
                return "x" * size
            case {"set": True}:
                return {1, 2}
            case {"touch": path, "after": seconds}:
                time.sleep(seconds)
                open(path, "w").close()
                while "until" in event and not pathlib.Path(event["until"]).exists():
                    time.sleep(0.05)
        said = context.client_context
        return {
            "event": event,
            "version": context.function_version,
            "arn": context.invoked_function_arn,
            "id": context.aws_request_id,
            "custom": said and said.custom,
        }
"""


class Client:
    """Lambda as boto3 has it, over one daemon; each call in a thread of its own."""

    def __init__(self, port: int) -> None:
        self.lambda_ = boto3.client(
            "lambda",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(retries={"max_attempts": 0}, read_timeout=60, max_pool_connections=20),
        )

    async def call(self, operation: str, **members: Any) -> Any:
        return await asyncio.to_thread(getattr(self.lambda_, operation), **members)

    async def create(self, name: str, source: str = SOURCE, **members: Any) -> None:
        await self.call(
            "create_function",
            FunctionName=name,
            Runtime="python3.12",
            Role=ROLE,
            Handler="app.handle",
            Code={"ZipFile": zipped(source)},
            **members,
        )
        await asyncio.to_thread(self.lambda_.get_waiter("function_active_v2").wait, FunctionName=name)

    async def invoke(self, name: str, event: object = None, **members: Any) -> Any:
        """Invoke it; the answer, with its payload read."""
        answer = await self.call("invoke", FunctionName=name, Payload=json.dumps(event).encode(), **members)
        return {**answer, "Payload": json.loads(answer["Payload"].read() or b"null")}

    async def error(self, name: str, event: object = None, **members: Any) -> tuple[Any, str]:
        """Invoke what fails; its error object, and the request id."""
        answer = await self.invoke(name, event, **members)
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        return answer["Payload"], answer["ResponseMetadata"]["RequestId"]


def zipped(source: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("app.py", textwrap.dedent(source))
    return content.getvalue()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with Daemon(tmp_path) as daemon:
        daemon.document["aws"] = {"region": "us-east-1"}
        yield daemon


@pytest.fixture
async def client(daemon: Daemon) -> Client:
    await daemon.start()
    return Client(daemon.port)


async def test_a_function_is_invoked_with_all_that_its_caller_says(client: Client) -> None:
    await client.create("orders")
    context = base64.b64encode(b'{"custom": {"a": 1}}').decode()
    answer = await client.invoke("orders", {"b": "é"}, ClientContext=context, LogType="Tail")
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert answer["Payload"] == {
        "event": {"b": "é"},
        "version": "$LATEST",
        "arn": f"{ARN}:orders",
        "id": request_id,
        "custom": {"a": 1},
    }
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    log = base64.b64decode(answer["LogResult"]).decode().splitlines()
    assert log[:3] == [
        f"START RequestId: {request_id} Version: $LATEST",
        "handles {'b': 'é'}",
        f"END RequestId: {request_id}",
    ]
    assert log[3].startswith(f"REPORT RequestId: {request_id}\tDuration: ")


async def test_versions_and_aliases_run_the_code_that_they_were_published_with(client: Client) -> None:
    await client.create("orders", "def handle(event, context): return [1, context.invoked_function_arn]")
    await client.call("publish_version", FunctionName="orders")
    await client.call("create_alias", FunctionName="orders", Name="live", FunctionVersion="1")
    await client.call(
        "update_function_code", FunctionName="orders", ZipFile=zipped("def handle(event, context): return [2, None]")
    )
    by_alias = await client.invoke("orders", Qualifier="live")
    assert (by_alias["Payload"], by_alias["ExecutedVersion"]) == ([1, f"{ARN}:orders:live"], "1")
    assert (await client.invoke(f"{ARN}:orders:1"))["Payload"] == [1, f"{ARN}:orders:1"]
    assert (await client.invoke("orders"))["Payload"] == [2, None]


async def test_errors_are_those_of_the_official_runtime(client: Client) -> None:
    await client.create("orders", Timeout=20)
    await client.create("brief", Timeout=1)
    error, request_id = await client.error("orders", {"raise": "no"})
    trace = error.pop("stackTrace")
    assert error == {"errorMessage": "no", "errorType": "ValueError", "requestId": request_id}
    assert trace == ['  File "/var/task/app.py", line 8, in handle\n    raise ValueError(text)\n']
    error, request_id = await client.error("orders", {"set": True})
    assert error["errorType"] == "Runtime.MarshalError"
    assert error["errorMessage"] == "Unable to marshal response: Object of type set is not JSON serializable"
    assert error["requestId"] == request_id
    for name, event, kind, words in (
        ("brief", {"sleep": 30}, "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        ("orders", {"exit": 0}, "Runtime.ExitError", "Runtime exited without providing a reason"),
        ("orders", {"leave": 127}, "Runtime.ExitError", "Runtime exited with error: exit status 127"),
        ("orders", {"hoard": 300}, "Runtime.ExitError", "Runtime exited with error: signal: killed"),
    ):
        error, request_id = await client.error(name, event)
        assert error == {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {words}"}
    error, _ = await client.error("orders", {"long": 6 * 1024 * 1024 + 200})
    assert error == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }
    assert len((await client.invoke("orders", {"long": 6_000_000}))["Payload"]) == 6_000_000


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("import missing", "Runtime.ImportModuleError", "Unable to import module 'app': No module named 'missing'"),
        ("x = 1", "Runtime.HandlerNotFound", "Handler 'handle' missing on module 'app'"),
        ("raise KeyError('at import')", "KeyError", "'at import'"),
    ],
)
async def test_a_function_that_cannot_be_loaded_says_so_to_each_caller_at_once(
    client: Client, source: str, kind: str, words: str
) -> None:
    await client.create("broken", source)
    async with asyncio.timeout(20):
        for error, _ in await asyncio.gather(*(client.error("broken") for _ in range(8))):
            assert (error["errorType"], error["errorMessage"], error["requestId"]) == (kind, words, "")
    answer = await client.invoke("broken", LogType="Tail")
    assert f"[ERROR] {kind}: " in base64.b64decode(answer["LogResult"]).decode()


async def test_a_function_that_exits_while_it_is_loaded_is_an_exit(client: Client) -> None:
    await client.create("broken", "import sys\nsys.exit(3)")
    error, request_id = await client.error("broken")
    assert error == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: Runtime exited with error: exit status 3",
    }


async def test_reserved_concurrency_holds_over_all_versions(client: Client, tmp_path: Path) -> None:
    await client.create("orders", Timeout=30)
    await client.call("publish_version", FunctionName="orders")
    await client.call("put_function_concurrency", FunctionName="orders", ReservedConcurrentExecutions=1)
    begun, may_end = tmp_path / "begun", tmp_path / "may_end"
    event = {"touch": str(begun), "after": 0, "until": str(may_end)}
    slow = asyncio.ensure_future(client.invoke("orders", event))
    await eventually(begun.exists, "it began")
    with pytest.raises(ClientError) as refused:
        await client.invoke("orders", {}, Qualifier="1")
    may_end.touch()
    response = refused.value.response
    assert response["Error"]["Code"] == "TooManyRequestsException"
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"
    assert (await slow)["StatusCode"] == 200
    assert (await client.invoke("orders", {}, Qualifier="1"))["StatusCode"] == 200
    await client.call("put_function_concurrency", FunctionName="orders", ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError, match="Rate Exceeded"):
        await client.invoke("orders")
    await client.call("delete_function_concurrency", FunctionName="orders")
    assert (await client.invoke("orders"))["StatusCode"] == 200


async def test_a_function_of_the_file_is_invoked_without_a_mapping(daemon: Daemon) -> None:
    daemon.function("filed", "def handle(event, context): return [event, context.invoked_function_arn]")
    await daemon.start()
    client = Client(daemon.port)
    assert (await client.invoke("filed", {"a": 1}))["Payload"] == [{"a": 1}, f"{ARN}:filed"]
    with pytest.raises(ClientError, match=r"filed is defined in .*: change it there"):
        await client.call("put_function_concurrency", FunctionName="filed", ReservedConcurrentExecutions=1)


async def test_what_was_made_is_there_after_a_kill(daemon: Daemon, client: Client) -> None:
    await client.create("orders", "def handle(event, context): return event")
    assert (await client.invoke("orders", 1))["Payload"] == 1
    await daemon.kill()
    await daemon.start()
    assert (await client.invoke("orders", 2))["Payload"] == 2


async def test_a_function_goes_on_when_its_caller_hangs_up(client: Client, daemon: Daemon, tmp_path: Path) -> None:
    await client.create("orders", Timeout=20)
    touched = tmp_path / "touched"
    body = json.dumps({"touch": str(touched), "after": 1}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    head = (
        "POST /2015-03-31/functions/orders/invocations HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{daemon.port}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.5)
    writer.close()
    await writer.wait_closed()
    await eventually(touched.exists, "the function ended")


async def test_a_function_that_is_deleted_ends_what_it_runs_and_is_gone(client: Client, tmp_path: Path) -> None:
    await client.create("orders", Timeout=20)
    await client.invoke("orders")
    begun, may_end = tmp_path / "begun", tmp_path / "may_end"
    event = {"touch": str(begun), "after": 0, "until": str(may_end)}
    slow = asyncio.ensure_future(client.invoke("orders", event))
    await eventually(begun.exists, "it began")
    await client.call("delete_function", FunctionName="orders")
    with pytest.raises(ClientError, match=f"Function not found: {ARN}:orders"):
        await client.invoke("orders")
    assert not slow.done()
    may_end.touch()
    assert (await slow)["StatusCode"] == 200
