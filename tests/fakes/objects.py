"""Objects in memory, and an ObjectSource over them; faults by script."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import NotFound, RouterError, SourceUnavailable

#: Keys of one page.
PAGE = 3


class MemoryObjects:
    """One bucket and prefix."""

    name = "s3://bucket/failed/"

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = objects or {}
        #: What reading a key raises.
        self.faults: dict[str, RouterError] = {}
        #: While set, nothing answers, and this is said.
        self.away: str | None = None
        self.closed = 0

    async def open(self) -> None:
        self._answer()

    async def page(self, after: str) -> Sequence[tuple[str, int]]:
        self._answer()
        keys = [key for key in sorted(self.objects) if key > after][:PAGE]
        return [(key, len(self.objects[key])) for key in keys]

    async def read(self, key: str) -> bytes:
        self._answer()
        if key in self.faults:
            raise self.faults[key]
        if key not in self.objects:
            raise NotFound(f"the object {key} was deleted meanwhile")
        return self.objects[key]

    async def close(self) -> None:
        self.closed += 1

    def _answer(self) -> None:
        if self.away:
            raise SourceUnavailable(self.away)
