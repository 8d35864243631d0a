"""Places in a MemoryStream: written only while nobody reads, as Kafka's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.core.facts import Progress
from router.core.seek import AtTime, Extent, Move, SeekTo, direction
from router.errors import InUse, RouterError
from router.ports import Span
from tests.fakes.stream_source import MemoryStream


class MemoryPlaces:
    """Where the group of a MemoryStream is."""

    retry_state_limit_bytes: int | None = 4096
    stream = "memory"
    now_ms = 0

    def __init__(self, server: MemoryStream, *, incarnation: str = "first") -> None:
        self.incarnation = incarnation
        #: Raised by the next call of this name, also by `written`: once everything is written.
        self.faults: dict[str, RouterError] = {}
        self.closed = False
        self._server = server

    def _raise(self, call: str) -> None:
        if call in self.faults:
            raise self.faults.pop(call)

    async def open(self) -> None:
        self._raise("open")

    async def close(self) -> None:
        self.closed = True

    async def extents(self, target: SeekTo | None = None, shard: str | None = None) -> Sequence[Extent]:
        self._raise("extents")
        since_ms = target.time_ms if isinstance(target, AtTime) else None
        committed = self._server.committed
        return [
            Extent(
                name,
                committed.get(name),
                log.first,
                log.end,
                next(
                    (each.position for each in log.records if since_ms is not None and each.time_ms >= since_ms), None
                ),
            )
            for name, log in self._server.shards.items()
        ]

    async def measure(self, moves: Sequence[Move]) -> Sequence[Span]:
        self._raise("measure")
        return [
            Span(
                direction(None if before is None else before.checkpoint, after.checkpoint),
                0 if before is None else abs(before.checkpoint - after.checkpoint),
            )
            for _, before, after in moves
        ]

    async def write(self, places: Mapping[str, Progress]) -> None:
        self._raise("write")
        if self._server.members:
            raise InUse("the group has members")
        self._server.committed |= places
        self._raise("written")

    def show(self, place: Progress) -> str:
        return str(place.checkpoint + 1)

    def checkpoint(self, text: str) -> int:
        return int(text) - 1

    def position(self, text: str) -> int:
        return int(text)
