"""Events too large for Redis: in a folder or a bucket, and never for long without a failure that names them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from connectors.aws import s3_client
from connectors.redis.payloads import BucketPayloads, FolderPayloads, Payloads
from connectors.redis.store import ORPHAN_S, RedisStore
from connectors.settings import RedisSettings, S3Destination
from router.errors import LeaseLost, StoreUnavailable
from router.ports import DeleteFailure, Erasure, Holds, KeepFailure, Selection
from tests.conformance.test_redis_store import delete_fleet
from tests.fakes.failures import entry

pytestmark = pytest.mark.live

LARGE = b"x" * 101
Open: TypeAlias = Callable[..., Awaitable[RedisStore]]


@pytest.fixture
async def open_store(redis_settings: RedisSettings, fleet_name: str) -> AsyncIterator[Open]:
    opened: list[RedisStore] = []

    async def open_one(place: Path | S3Destination | None) -> RedisStore:
        settings = replace(redis_settings, payloads_over_bytes=100 if place else None, payloads=place)
        opened.append(await RedisStore.open(settings, fleet_name, replica="r1", folder=None))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()
    await delete_fleet(redis_settings, fleet_name)


async def test_large_events_are_elsewhere_while_failures_have_them(open_store: Open, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    folder = tmp_path / store.link.fleet
    kept = entry("f1", keys=(b"k",))
    await store.apply([KeepFailure(kept, LARGE), KeepFailure(entry("f2"), LARGE[:100])])
    assert [path.name.partition(".")[0] for path in folder.iterdir()] == ["f1"]
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    assert (await store.event("f1"), await store.event("f2")) == (LARGE, LARGE[:100])
    [found] = await store.failures(Selection(ids=("f1",)))
    assert found.event_bytes == len(LARGE)
    await store.apply([KeepFailure(kept, b"y" * 300)])
    assert await store.event("f1") == b"y" * 300
    assert len(list(folder.iterdir())) == 1
    rest = Erasure("f1", kept.batch.failed_at_s, b"k", kept, b"z" * 200)
    assert await store.erase([rest]) == ["f1"]
    assert await store.event("f1") == b"z" * 200
    assert len(list(folder.iterdir())) == 1
    assert await store.erase([rest, replace(rest, failed_at_s=1.0)]) == ["f1"]
    assert len(list(folder.iterdir())) == 1
    assert await store.drop(["f1"]) == ["f1"]
    assert list(folder.iterdir()) == []


async def test_what_is_refused_or_deleted_leaves_nothing(open_store: Open, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    with pytest.raises(LeaseLost):
        await store.apply([Holds("orders", "shard-0", 1), KeepFailure(entry("f1"), LARGE)])
    await store.apply([KeepFailure(entry("f1"), LARGE)])
    await store.apply([DeleteFailure("f1")])
    assert list((tmp_path / store.link.fleet).iterdir()) == []


async def test_a_missing_event_is_told_with_its_place(open_store: Open, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.apply([KeepFailure(entry("f1"), LARGE)])
    [path] = (tmp_path / store.link.fleet).iterdir()
    text = path.read_bytes()
    path.unlink()
    with pytest.raises(StoreUnavailable, match=f"the event of failure f1 is not at {path}"):
        await store.event("f1")
    path.write_bytes(text)
    assert await store.event("f1") == LARGE
    without = await open_store(None)
    with pytest.raises(StoreUnavailable, match="outside of Redis, and `state` names no `payloads`"):
        await without.event("f1")


async def test_a_place_that_cannot_be_written_keeps_the_failure_out_of_redis_too(
    open_store: Open, tmp_path: Path
) -> None:
    taken = tmp_path / "file"
    taken.write_text("no folder")
    store = await open_store(taken)
    with pytest.raises(StoreUnavailable, match=f"payloads in {taken}"):
        await store.apply([KeepFailure(entry("f1"), LARGE)])
    assert await store.failures(Selection()) == []


async def test_what_a_crash_left_is_found_once_nobody_can_name_it_any_more(open_store: Open, tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.apply([KeepFailure(entry("f1"), LARGE)])
    folder = tmp_path / store.link.fleet
    [named] = folder.iterdir()
    left, young = (folder / f"{name}.{store.link.born}-0123" for name in ("f1", "f2"))
    for path in (left, young):
        path.write_bytes(b"-left")
    for path in (named, left):
        age_s = path.stat().st_mtime - ORPHAN_S - 60
        os.utime(path, (age_s, age_s))
    await store.shrink(0)
    assert sorted(folder.iterdir()) == sorted([named, young])


async def test_what_a_fleet_named_is_left_for_it_when_redis_comes_back_empty(
    open_store: Open, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    store = await open_store(tmp_path)
    await store.apply([KeepFailure(entry("f1"), LARGE)])
    [named] = (tmp_path / store.link.fleet).iterdir()
    age_s = named.stat().st_mtime - ORPHAN_S - 60
    os.utime(named, (age_s, age_s))
    await delete_fleet(redis_settings, store.link.fleet)
    assert (await store.look()).is_another
    await store.shrink(0)
    assert named.exists(), "the former data can be put back"


async def places(tmp_path: Path, endpoint: str, fleet: str) -> AsyncIterator[Payloads]:
    yield FolderPayloads(tmp_path / fleet)
    async with s3_client(endpoint, None) as client:
        await client.create_bucket(Bucket=fleet)
    yield BucketPayloads(S3Destination(fleet, "large/", endpoint, None), fleet)


async def test_a_folder_and_a_bucket_keep_bytes_by_name(aws_endpoint: str, tmp_path: Path, fleet_name: str) -> None:
    async for place in places(tmp_path, aws_endpoint, fleet_name):
        assert await place.read("f1.a") is None
        assert list(await place.names("")) == []
        for name in ("f1.b", "f1.a", "f2.a"):
            await place.write(name, name.encode())
        assert await place.read("f1.b") == b"f1.b"
        assert [name for name, _ in await place.names("f1.a")] == ["f1.b", "f2.a"]
        assert all(-5 < age_s < 60 for _, age_s in await place.names(""))
        await place.delete(["f1.a", "f9"])
        assert await place.read("f1.a") is None
        await place.close()
        await place.close()


async def test_a_bucket_that_is_not_there_is_told(aws_endpoint: str, fleet_name: str) -> None:
    place = BucketPayloads(S3Destination(fleet_name, "", aws_endpoint, None), fleet_name)
    with pytest.raises(StoreUnavailable, match=f"payloads in S3 bucket {fleet_name}"):
        await place.write("f1.a", b"x")
    await place.close()
