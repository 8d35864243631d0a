"""Functions' code as objects of a real S3."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from connectors.s3_code import S3Code
from router.errors import CodeRefused, SourceUnavailable
from tests.fakes.api import archive
from tests.live.daemon import Daemon
from tests.live.function_rig import answering, api_of, create, invoked
from tests.live.s3_rig import REGION, S3Rig, open_rig

pytestmark = pytest.mark.live

LIMIT_BYTES = 1000


@pytest.fixture
async def rig(aws_endpoint: str) -> AsyncIterator[S3Rig]:
    async with open_rig(aws_endpoint) as rig:
        yield rig


async def test_an_object_is_fetched_as_it_is_or_was(rig: S3Rig) -> None:
    bucket, code = await rig.bucket(), S3Code(rig.endpoint_url, REGION)
    await rig.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = await rig.s3.put_object(Bucket=bucket, Key="a b/orders.zip", Body=archive("x = 1"))
    second = await rig.s3.put_object(Bucket=bucket, Key="a b/orders.zip", Body=archive("x = 2"))
    assert await code.fetch(bucket, "a b/orders.zip", None, LIMIT_BYTES) == archive("x = 2")
    assert await code.fetch(bucket, "a b/orders.zip", first["VersionId"], LIMIT_BYTES) == archive("x = 1")
    for each in (first, second):
        await rig.s3.delete_object(Bucket=bucket, Key="a b/orders.zip", VersionId=each["VersionId"])


async def test_a_function_of_a_daemon_is_made_of_an_object(rig: S3Rig, tmp_path: Path) -> None:
    bucket = await rig.bucket()
    await rig.s3.put_object(Bucket=bucket, Key="orders.zip", Body=answering("from S3"))
    code = {"S3Bucket": bucket, "S3Key": "orders.zip"}

    def steps(api: Any) -> None:
        create(api, Code=code)
        assert invoked(api) == ["from S3", "$LATEST"]
        with pytest.raises(ClientError, match=r"S3 Error Code: NoSuchKey\. S3 Error Message: The specified key"):
            api.update_function_code(FunctionName="orders", S3Bucket=bucket, S3Key="none.zip")
        assert invoked(api) == ["from S3", "$LATEST"]

    async with Daemon(tmp_path) as daemon:
        daemon.document["aws"] = {"endpoint_url": rig.endpoint_url, "region": REGION}
        await daemon.start()
        await asyncio.to_thread(steps, api_of(daemon))


async def test_code_comes_from_where_the_file_says_now_that_objects_are(rig: S3Rig, tmp_path: Path) -> None:
    bucket = await rig.bucket()
    await rig.s3.put_object(Bucket=bucket, Key="orders.zip", Body=answering("from S3"))

    def steps(api: Any) -> None:
        create(api, Code={"S3Bucket": bucket, "S3Key": "orders.zip"})
        assert invoked(api) == ["from S3", "$LATEST"]

    async with Daemon(tmp_path) as daemon:
        daemon.document["aws"] = {"endpoint_url": "http://127.0.0.1:1", "region": REGION}
        await daemon.start()
        daemon.document["aws"] = {"endpoint_url": rig.endpoint_url, "region": REGION}
        daemon.write()
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("config.reloaded")
        await asyncio.to_thread(steps, api_of(daemon))


async def test_what_is_not_there_is_said_in_the_words_of_s3(rig: S3Rig) -> None:
    bucket, code = await rig.bucket(), S3Code(rig.endpoint_url, REGION)
    with pytest.raises(CodeRefused) as raised:
        await code.fetch(bucket, "none.zip", None, LIMIT_BYTES)
    assert str(raised.value) == (
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
    )
    with pytest.raises(CodeRefused, match=r"^Error occurred while GetObject\. S3 Error Code: NoSuchBucket\."):
        await code.fetch(rig.name(), "none.zip", None, LIMIT_BYTES)


async def test_a_version_that_can_be_none_is_refused_and_not_taken_for_a_store_that_is_away(rig: S3Rig) -> None:
    bucket, code = await rig.bucket(), S3Code(rig.endpoint_url, REGION)
    await rig.s3.put_object(Bucket=bucket, Key="orders.zip", Body=archive("x = 1"))
    with pytest.raises(CodeRefused, match=r"^Error occurred while GetObject\. S3 Error Code: InvalidArgument\."):
        await code.fetch(bucket, "orders.zip", "no version", LIMIT_BYTES)


async def test_what_is_too_large_is_not_fetched(rig: S3Rig) -> None:
    bucket = await rig.bucket()
    await rig.s3.put_object(Bucket=bucket, Key="large.zip", Body=bytes(LIMIT_BYTES + 1))
    with pytest.raises(CodeRefused, match="Unzipped size must be smaller than 1000 bytes"):
        await S3Code(rig.endpoint_url, REGION).fetch(bucket, "large.zip", None, LIMIT_BYTES)


async def test_s3_that_is_away_is_told_apart(unused_tcp_port: int) -> None:
    with pytest.raises(SourceUnavailable, match=r"code s3://code/orders\.zip: it cannot be reached"):
        await S3Code(f"http://127.0.0.1:{unused_tcp_port}", REGION).fetch("code", "orders.zip", None, LIMIT_BYTES)
