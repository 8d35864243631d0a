"""Everything in this folder needs a real server."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.live.queue_rig import Queues, open_queues
from tests.live.stream_rig import Streams, open_streams

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
