"""What was last read of each shard, for replays that go through one: its failures most often lie close together.

The first page of a shard is as small as is asked for, since whoever else reads the shard has its share of what may be
read of it. Who comes back for more is likely to come again, so the next ones are larger, and what is in them is not
read twice. A stream's records never change, so what is remembered is true as long as the stream is the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from dataclasses import replace
from typing import Final

from router.core.model import Chunk
from router.ports import PageSource, PositionCodec

#: Records and bytes of a page that is read ahead, at most; larger ones are not remembered.
AHEAD_COUNT: Final = 1000
AHEAD_BYTES: Final = 1024 * 1024
#: Shards of which a page is remembered.
SHARDS: Final = 16


class PageMemory:
    """A PageSource over another, which it opens and closes; calls for one shard must come one after the other."""

    def __init__(self, pages: PageSource) -> None:
        self._pages = pages
        #: First position that was asked for, and what came, by shard.
        self._last: OrderedDict[str, tuple[int, Chunk]] = OrderedDict()

    @property
    def codec(self) -> PositionCodec:
        return self._pages.codec

    async def open(self) -> None:
        await self._pages.open()

    async def page(self, shard: str, first: int, limit: int = AHEAD_COUNT) -> Chunk:
        known = self._last.get(shard)
        if known is None:
            return await self._read(shard, first, limit)
        since, chunk = known
        if since <= first <= chunk.through:
            return _from(chunk, first)
        size_bytes = max(1, sum(chunk.sizes) // max(1, len(chunk.sizes)))
        return await self._read(shard, first, max(limit, min(AHEAD_COUNT, AHEAD_BYTES // size_bytes)))

    async def close(self) -> None:
        self._last.clear()
        await self._pages.close()

    async def _read(self, shard: str, first: int, limit: int) -> Chunk:
        chunk = await self._pages.page(shard, first, limit)
        if sum(chunk.sizes) <= AHEAD_BYTES and chunk.positions:
            self._last[shard] = first, chunk
            self._last.move_to_end(shard)
            if len(self._last) > SHARDS:
                self._last.popitem(last=False)
        return chunk


def _from(chunk: Chunk, first: int) -> Chunk:
    """Give what a chunk has from a position on."""
    at = bisect_left(chunk.positions, first)
    return replace(
        chunk,
        positions=chunk.positions[at:],
        sizes=chunk.sizes[at:],
        times_ms=chunk.times_ms[at:],
        keys=chunk.keys[at:],
        rows=chunk.rows[at:],
    )
