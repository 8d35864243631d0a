"""However many shards there are and however much is in them, what is in memory is bounded, and all of it moves on."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from router.core import facts as f
from router.core.model import NOT_READ, Batch, Chunk, Returned
from router.core.streams import StreamEngine
from tests.core.columns import at, identify, mapping_of

RECORD_BYTES = 100
LANES = 3
BATCH_SIZE = 4
MEMORY_BYTES = 30_000


class Flood:
    """Shards that always have more; the function answers when it is told to."""

    def __init__(self, shard_count: int) -> None:
        mapping = mapping_of(
            batch_size=BATCH_SIZE,
            parallelization_factor=LANES,
            memory_bytes=MEMORY_BYTES,
            buffer_count=400,
            commit_interval_s=0.0,
        )
        self.engine = StreamEngine(mapping, identify, Random(1))
        self.shard_count = shard_count
        self.reads: dict[object, dict[str, f.Demand]] = {}
        self.running: dict[str, Batch] = {}
        #: The oldest position of each shard that was not handled.
        self.handled = 0
        for number in range(shard_count):
            self.feed(f.ShardOpened(f"s{number}", f"s{number}", -1))

    def feed(self, fact: f.Fact) -> None:
        for command in self.engine.feed(fact, at(0.0)):
            match command:
                case f.Read(unit, demand):
                    self.reads[unit] = dict(demand)
                case f.Invoke(batch):
                    self.running[batch.id] = batch
                case f.Commit():
                    self.feed(f.Committed())
                case _:
                    pass

    def read_all(self) -> int:
        """Answer reads with all that they ask for until none is asked; gives how many records came."""
        came = 0
        while self.reads:
            unit, demand = self.reads.popitem()
            chunks = [page(shard, wanted) for shard, wanted in demand.items()]
            came += sum(len(chunk.positions) for chunk in chunks)
            self.feed(f.ChunksRead(unit, chunks))
        return came

    def end_all(self) -> None:
        for batch_id, batch in [*self.running.items()]:
            del self.running[batch_id]
            self.handled += batch.count
            self.feed(f.InvocationEnded(batch_id, Returned(NOT_READ)))

    def in_memory(self) -> Iterator[int]:
        """Count by shard the records that wait, read from the lanes themselves."""
        for shard in self.engine._shards.values():
            waiting = sum(lane.window.count for lane in shard.lanes)
            assert shard.buffered == waiting
            yield waiting


def page(shard: str, wanted: f.Demand) -> Chunk:
    positions = range(wanted.after + 1, wanted.after + 1 + wanted.limit)
    keys = [f"{position % 16}".encode() for position in positions]
    sizes = [RECORD_BYTES] * len(positions)
    times_ms = [1] * len(positions)
    return Chunk(shard, positions, sizes, times_ms, keys, positions, positions[-1], before=wanted.after, more=True)


@pytest.mark.parametrize("shard_count", [1, 20, 1000])
def test_what_waits_in_memory_is_bounded_by_shards_and_lanes_and_batches(shard_count: int):
    flood = Flood(shard_count)
    came = 0
    for _ in range(4):
        came += flood.read_all()
        waiting = list(flood.in_memory())
        assert max(waiting) <= 400
        # A shard that holds nothing may always fill a batch of each lane, twice as many for keys that are not even.
        least = shard_count * LANES * BATCH_SIZE * 2
        assert sum(waiting) * RECORD_BYTES <= MEMORY_BYTES + 400 * RECORD_BYTES + least * RECORD_BYTES
        with_function = sum(batch.count for batch in flood.running.values())
        assert with_function <= shard_count * LANES * BATCH_SIZE
        assert came == flood.handled + with_function + sum(waiting)
        assert {batch.shard for batch in flood.running.values()} == {f"s{number}" for number in range(shard_count)}
        flood.end_all()
