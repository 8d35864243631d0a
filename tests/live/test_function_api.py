"""Functions through the API of a running daemon, as boto3 makes, changes and invokes them."""

from __future__ import annotations

import asyncio
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fakes.api import archive
from tests.live.daemon import Daemon
from tests.live.function_rig import KEYS, answering, api_of, create, invoked


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with Daemon(tmp_path) as daemon:
        await daemon.start()
        yield daemon


async def at(steps: Callable[[Any], None], daemon: Daemon) -> None:
    """Run steps of boto3, which blocks, beside the daemon."""
    await asyncio.to_thread(steps, api_of(daemon))


async def test_a_function_is_made_changed_published_and_deleted(daemon: Daemon) -> None:
    def steps(api: Any) -> None:
        assert create(api)["State"] == "Pending"
        api.get_waiter("function_exists").wait(FunctionName="orders")
        api.get_waiter("function_active_v2").wait(FunctionName="orders")
        assert invoked(api) == ["a", "$LATEST"]
        assert api.publish_version(FunctionName="orders")["Version"] == "1"
        api.update_function_code(FunctionName="orders", ZipFile=answering("b"))
        api.get_waiter("function_updated_v2").wait(FunctionName="orders")
        assert invoked(api) == ["b", "$LATEST"]
        assert invoked(api, "orders:1") == ["a", "1"]
        api.create_alias(FunctionName="orders", Name="live", FunctionVersion="1")
        assert invoked(api, "orders:live") == ["a", "1"]
        assert api.publish_version(FunctionName="orders")["Version"] == "2"
        api.update_alias(FunctionName="orders", Name="live", FunctionVersion="2")
        assert invoked(api, "orders:live") == ["b", "2"]
        found = api.get_function(FunctionName="orders", Qualifier="1")
        with urllib.request.urlopen(found["Code"]["Location"]) as code:
            assert code.read() == answering("a")
        api.delete_function(FunctionName="orders")
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            api.get_function(FunctionName="orders")

    await at(steps, daemon)
    assert list((daemon.state / "archives").iterdir()) == []


async def test_what_was_made_outlives_a_kill(daemon: Daemon) -> None:
    def make(api: Any) -> None:
        create(api, Publish=True, Tags={"a": "b"})
        api.create_alias(FunctionName="orders", Name="live", FunctionVersion="1")

    def look(api: Any) -> None:
        assert invoked(api, "orders:live") == ["a", "1"]
        assert api.get_function(FunctionName="orders")["Tags"] == {"a": "b"}

    await at(make, daemon)
    await daemon.kill()
    left = daemon.state / "archives" / "0123.zip"
    left.write_bytes(b"of a function that was never written")
    unpacked = daemon.state / "code" / "of-a-function-that-is-gone"
    unpacked.mkdir(parents=True, exist_ok=True)
    await daemon.start()
    await at(look, daemon)
    assert not left.exists()
    assert not unpacked.exists()


async def test_a_folder_is_code_as_it_is(daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "orders.py").write_text("def handler(event, context): return __file__")

    def steps(api: Any) -> None:
        create(api, Code={"S3Bucket": "headrace-local", "S3Key": str(folder)}, Publish=True)
        assert invoked(api) == str(folder / "orders.py")

    def look(api: Any) -> None:
        assert [invoked(api, name) for name in ("orders", "orders:1")] == [str(folder / "orders.py")] * 2

    await at(steps, daemon)
    await daemon.kill()
    await daemon.start()
    await at(look, daemon)


async def test_a_folder_that_is_given_again_is_loaded_anew(daemon: Daemon, tmp_path: Path) -> None:
    code = {"S3Bucket": "headrace-local", "S3Key": str(tmp_path)}
    file = tmp_path / "orders.py"
    file.write_text("def handler(event, context): return 'one'")

    def steps(api: Any) -> None:
        create(api, Code=code)
        assert invoked(api) == "one"
        file.write_text("def handler(event, context): return 'another'")
        assert invoked(api) == "one"
        api.update_function_code(FunctionName="orders", **code)
        assert invoked(api) == "another"

    await at(steps, daemon)


async def test_a_region_and_account_that_the_file_changes_are_those_of_all_arns_at_once(daemon: Daemon) -> None:
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:orders"
    code = archive("def handler(event, context): return context.invoked_function_arn")

    def look(api: Any) -> None:
        assert api.get_function_configuration(FunctionName="orders")["FunctionArn"] == arn
        assert invoked(api, arn) == arn

    await at(lambda api: create(api, Code={"ZipFile": code}), daemon)
    before = len(daemon.lines)
    daemon.document["aws"] = {"region": "eu-central-1", "account_id": "123456789012"}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.line("config.reloaded", after=before)
    await at(look, daemon)


def work(api: Any, rng: Random, strange: list[str]) -> None:
    """Do one thing after the other with a function, and note what is not to be answered."""
    acts = (
        lambda code: create(api, Code={"ZipFile": code}),
        lambda code: api.update_function_code(FunctionName="orders", ZipFile=code),
        lambda _: api.update_function_configuration(FunctionName="orders", Timeout=rng.randrange(1, 9)),
        lambda _: api.publish_version(FunctionName="orders"),
        lambda _: api.delete_function(FunctionName="orders"),
    )
    for _ in range(12):
        try:
            rng.choice(acts)(answering(str(rng.randrange(3))))
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ResourceNotFoundException", "ResourceConflictException"):
                strange.append(str(error))


async def test_changes_and_deletes_at_once_come_one_behind_the_other(daemon: Daemon) -> None:
    """Whatever comes of each, none of them is a fault of ours, and what is left is whole."""

    def steps(api: Any) -> None:
        strange: list[str] = []
        threads = [threading.Thread(target=work, args=(api_of(daemon), Random(seed), strange)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert strange == []
        for each in api.list_functions()["Functions"]:
            api.delete_function(FunctionName=each["FunctionName"])
        create(api)
        assert invoked(api) == ["a", "$LATEST"]

    await at(steps, daemon)
    assert len(list((daemon.state / "archives").iterdir())) == 1


async def test_a_link_needs_no_signature_where_all_else_does(tmp_path: Path) -> None:
    def steps(api: Any) -> None:
        create(api)
        location = api.get_function(FunctionName="orders")["Code"]["Location"]
        with urllib.request.urlopen(location) as code:
            assert code.read() == answering("a")
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/2015-03-31/functions")
        raised.value.close()
        assert raised.value.code == 403

    async with Daemon(tmp_path) as daemon:
        daemon.document["api"] = {"keys": [KEYS]}
        await daemon.start()
        await at(steps, daemon)
