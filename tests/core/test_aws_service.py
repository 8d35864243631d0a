"""A service that is found at its first call, and found anew once what was found does not do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from connectors.aws_service import AwsService
from router.errors import SourceUnavailable
from tests.fakes.certificates import make_certificate, serving
from tests.fakes.http_server import HttpServer, http_server, say

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as server, asyncio.timeout(PATIENCE_S):
        server.always["ListStreams"] = say({})
        yield server


def service(url: str) -> AwsService:
    return AwsService(
        "dynamodbstreams",
        signs_as="dynamodb",
        target="DynamoDBStreams_20120810",
        version="1.0",
        what="table t",
        endpoint_url=url,
        region="eu-west-1",
    )


async def ask(one: AwsService) -> object:
    return await one.call("ListStreams", {"TableName": "t"}, msgspec.json.decode)


async def test_a_call_is_signed_for_the_service_behind_the_name(server: HttpServer) -> None:
    one = service(server.url)
    assert one.server_time_s is None
    assert await ask(one) == {}
    await one.close()
    [request] = server.requests
    assert request.json == {"TableName": "t"}
    assert request.headers["x-amz-target"] == "DynamoDBStreams_20120810.ListStreams"
    assert request.headers["content-type"] == "application/x-amz-json-1.0"
    assert "/eu-west-1/dynamodb/aws4_request" in request.headers["authorization"]


async def test_calls_at_once_find_it_together(server: HttpServer) -> None:
    one = service(server.url)
    assert await asyncio.gather(*[ask(one) for _ in range(5)]) == [{}] * 5
    await one.close()


async def test_authorities_that_cannot_be_used_are_looked_up_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    async with http_server(say({}), tls=serving(certificate)) as server, asyncio.timeout(PATIENCE_S):
        one = service(server.url)
        with pytest.raises(SourceUnavailable, match=r"table t: cannot use .*missing\.pem; correct AWS_CA_BUNDLE"):
            await ask(one)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        assert await ask(one) == {}
        await one.close()


async def test_a_closed_service_finds_nothing_any_more(server: HttpServer) -> None:
    one = service(server.url)
    await one.close()
    with pytest.raises(SourceUnavailable, match="table t: it is closed"):
        await ask(one)
    assert not server.requests
