"""Places in a MemoryStream: written only while nobody reads, as Kafka's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.core.facts import Progress
from router.core.seek import Extent, Move, Place, direction
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

    async def extents(self, since_ms: int | None = None) -> Sequence[Extent]:
        self._raise("extents")
        committed = self._server.committed
        return [
            Extent(
                shard,
                Place(committed[shard].checkpoint, committed[shard].retry_state) if shard in committed else None,
                log.first,
                log.end,
                next(
                    (each.position for each in log.records if since_ms is not None and each.time_ms >= since_ms), None
                ),
            )
            for shard, log in self._server.shards.items()
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

    async def write(self, places: Mapping[str, Place]) -> None:
        self._raise("write")
        if self._server.members:
            raise InUse("the group has members")
        self._server.committed |= {
            shard: Progress(place.checkpoint, place.retry_state) for shard, place in places.items()
        }
        self._raise("written")

    def show(self, place: Place) -> str:
        return str(place.checkpoint + 1)

    def checkpoint(self, text: str) -> int:
        return int(text) - 1

    def position(self, text: str) -> int:
        return int(text)
