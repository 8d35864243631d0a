"""Everything in this folder needs a real server."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from tests.live.own_redis import DURABLE, FLEET, OpenStore, OwnRedis
from tests.live.queue_rig import Queues, open_queues
from tests.live.stream_rig import Streams, open_streams
from tests.services.process import ServiceError
from tests.services.redis import redis_server

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.live)


@pytest.fixture
async def queues(aws_endpoint: str) -> AsyncIterator[Queues]:
    async with open_queues(aws_endpoint) as made:
        yield made


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 2 MB in place of the state directory."""
    disk = tmp_path / "state"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
async def streams(streams_endpoint: str) -> AsyncIterator[Streams]:
    async with open_streams(streams_endpoint) as made:
        yield made


@pytest.fixture
def own_redis(tmp_path: pathlib.Path) -> Iterator[OwnRedis]:
    """A Redis that the test starts, and may break."""
    try:
        redis_server()
    except ServiceError as error:
        pytest.skip(f"no redis: {error}")
    server = OwnRedis(tmp_path / "redis", *DURABLE)
    yield server
    server.kill()


@pytest.fixture
async def open_store(own_redis: OwnRedis, tmp_path: pathlib.Path) -> AsyncIterator[OpenStore]:
    opened: list[RedisStore] = []

    async def open_one(
        settings: RedisSettings | None = None, *, replica: str = "r1", power_safe: bool = True
    ) -> RedisStore:
        folder = tmp_path / replica
        store = await RedisStore.open(
            settings or own_redis.settings, FLEET, replica=replica, folder=folder, power_safe=power_safe
        )
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()
