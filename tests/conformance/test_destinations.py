"""The destinations that need no server, against the suite, and what each alone must do."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from connectors.file_destination import FileSender
from connectors.settings import FileDestination
from router.errors import DestinationUnavailable
from tests.conformance.destination import DestinationConformance, Received, expected, message
from tests.fakes.destination import MemoryDestination

# --- memory


@dataclass
class MemoryPlace:
    destination: MemoryDestination = field(default_factory=MemoryDestination)
    payload = "none"

    def __post_init__(self) -> None:
        self.destination.fault = "there is nothing; make it"

    async def make(self) -> None:
        self.destination.fault = None

    async def remove(self) -> None:
        self.destination.accepted.clear()
        self.destination.fault = "there is nothing; make it"

    async def received(self, count: int) -> Received:
        found = [record for sent in self.destination.accepted for record in expected(sent, self.payload)]
        assert len(found) == count
        return found


class TestMemory(DestinationConformance):
    @pytest.fixture
    async def place(self) -> MemoryPlace:
        return MemoryPlace()


# --- file


class FilePlace:
    payload = "event"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.destination = FileSender(FileDestination(path))

    async def make(self) -> None:
        self.path.parent.mkdir()

    async def remove(self) -> None:
        shutil.rmtree(self.path.parent)

    async def received(self, count: int) -> Received:
        lines = self.path.read_text().splitlines()
        assert len(lines) == count
        return [(None, json.loads(line)) for line in lines]


class TestFile(DestinationConformance):
    @pytest.fixture
    async def place(self, tmp_path: Path) -> FilePlace:
        return FilePlace(tmp_path / "failed" / "orders.jsonl")

    async def test_only_this_user_may_read_it(self, place: FilePlace) -> None:
        await place.make()
        await place.destination.send(message())
        assert stat.S_IMODE(place.path.stat().st_mode) == 0o600

    async def test_what_was_there_stays_and_half_a_line_is_ended(self, place: FilePlace) -> None:
        await place.make()
        place.path.write_text('{"first":1}\n{"torn')
        await place.destination.send(message())
        first, torn, whole = place.path.read_text().splitlines()
        assert (first, torn) == ('{"first":1}', '{"torn')
        assert json.loads(whole)["requestContext"]["requestId"] == "f1"

    async def test_a_directory_or_device_is_refused(self, tmp_path: Path) -> None:
        for path, reason in ((tmp_path, "Is a directory"), (Path("/dev/null"), "no regular file")):
            with pytest.raises(DestinationUnavailable, match=reason):
                await FileSender(FileDestination(path)).send(message())

    async def test_a_full_disk_leaves_no_half_line(self) -> None:
        with pytest.raises(DestinationUnavailable, match="/dev/full"):
            await FileSender(FileDestination(Path("/dev/full"))).send(message())
