"""A daemon that listens elsewhere than on loopback: who has a key is served, and nobody else; keys are renewed."""

import asyncio
import json

import aiohttp
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.live.daemon import Daemon

HANDLER = "def handle(event, context):\n    return event\n"
SECRET, TOKEN = "a-secret-of-some-length", "a-token-of-some-length"
KEYS = [
    {"access_key_id": "OPS", "secret_access_key": SECRET},
    {"access_key_id": "BUCKETS", "secret_access_key": SECRET, "service": "s3.amazonaws.com"},
]


def client(daemon, key="OPS", secret=SECRET):
    return boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{daemon.port}",
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


async def code_of(call, **arguments):
    """The code with which a call is refused."""
    with pytest.raises(ClientError) as refusal:
        await asyncio.to_thread(call, **arguments)
    return refusal.value.response["Error"]["Code"]


@pytest.fixture
async def daemon(tmp_path):
    async with Daemon(tmp_path) as daemon:
        daemon.function("echo", HANDLER)
        daemon.document["listen"] = f"0.0.0.0:{daemon.port}"
        daemon.document["api"] = {"keys": KEYS, "metrics_token": TOKEN}
        await daemon.start()
        yield daemon


async def invoked(api):
    answer = await asyncio.to_thread(api.invoke, FunctionName="echo", Payload=b'{"a": 1}')
    return json.loads(answer["Payload"].read())


async def test_who_has_a_key_is_served_and_nobody_else(daemon):
    assert await invoked(client(daemon)) == {"a": 1}
    assert await code_of(client(daemon, secret="another").list_functions) == "InvalidSignatureException"
    assert await code_of(client(daemon, key="NOBODY").list_functions) == "UnrecognizedClientException"
    assert await code_of(client(daemon, key="BUCKETS").list_functions) == "AccessDeniedException"
    # The function of the file has no policy, so no service may invoke it.
    assert await code_of(client(daemon, key="BUCKETS").invoke, FunctionName="echo") == "AccessDeniedException"
    await daemon.terminate()
    said = json.dumps([dict(line) for line in daemon.lines])
    assert SECRET not in said
    assert TOKEN not in said


async def test_pages_ask_who_asks_too(daemon):
    address = f"http://127.0.0.1:{daemon.port}"
    async with aiohttp.ClientSession(address) as http:
        for path, headers, status in (
            ("/health/live", {}, 200),
            ("/health/ready", {}, 200),
            ("/metrics", {}, 403),
            ("/metrics", {"Authorization": f"Bearer {TOKEN}"}, 200),
            ("/metrics", {"Authorization": "Bearer another"}, 403),
            ("/", {}, 403),
        ):
            async with http.get(path, headers=headers) as answer:
                assert (path, answer.status) == (path, status)


async def test_keys_are_renewed_without_a_restart(daemon):
    old, new = client(daemon), client(daemon, key="NEXT")
    assert await code_of(new.list_functions) == "UnrecognizedClientException"
    daemon.document["api"]["keys"] = [{"access_key_id": "NEXT", "secret_access_key": SECRET}]
    daemon.write()
    await daemon.line("config.reloaded")
    assert await invoked(new) == {"a": 1}
    assert await code_of(old.list_functions) == "UnrecognizedClientException"


async def test_without_keys_it_does_not_start(tmp_path):
    async with Daemon(tmp_path) as daemon:
        daemon.document["listen"] = f"0.0.0.0:{daemon.port}"
        await daemon.start(ready=False)
        assert await daemon.exit() == 2
    assert "headrace.yaml:3: listen: found a host that is not loopback" in daemon.lines[0]["text"]
