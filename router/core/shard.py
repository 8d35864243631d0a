"""One shard: routes what is read into lanes, knows what is in memory, and sums up its progress.

With a factor of 1 a shard is one lane. With more, a record goes to the lane its key hashes to (CRC-32, so that a
restart finds it there again); records without a key carry no order among each other and are spread by position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import replace
from enum import Enum
from zlib import crc32

from router.core import retry_state
from router.core.facts import Progress
from router.core.lane import Lane, as_uuid
from router.core.model import TRIM_HORIZON, Batch, Chunk, EventSourceMapping, Instant, Part, WindowCall
from router.core.tumbling import TumblingWindow
from router.core.watermark import low_watermark
from router.core.window import BatchWindow


class Phase(Enum):
    """What a shard waits for; lanes run only in OPEN, and replays in OVER."""

    #: Where does reading start?
    LOCATING = "locating"
    #: The start is being committed, so that a crash before the first batch skips nothing.
    PINNING = "pinning"
    OPEN = "open"
    #: Finishing what is in flight, to commit and give the shard back or to stop.
    CLOSING = "closing"
    #: Finished, or gone from the stream: only replays run in it.
    OVER = "over"


#: Keys whose lane is remembered, at most; then the table begins anew.
KNOWN_KEYS = 10_000


def lane_of(key: bytes, factor: int) -> int:
    """Say which of `factor` lanes a key is of.

    Retry state is stored by lane, so this must not change. Clients choose partitions by a checksum of the key, modulo
    their number; the same checksum, modulo the lanes, would leave lanes of a partition empty, so it is mixed first.
    """
    return ((crc32(key) * 0x9E3779B1 & 0xFFFFFFFF) >> 16) % factor


class LaneTable(dict[bytes | None, int]):
    """Lanes by key; `factor` for none. Keys come again, and looking one up takes a third of what `lane_of` takes."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self._factor = factor

    def __missing__(self, key: bytes | None) -> int:
        if len(self) >= KNOWN_KEYS:
            self.clear()
        lane = self[key] = self._factor if key is None else lane_of(key, self._factor)
        return lane


class ShardState:
    """Everything an engine knows of one shard."""

    __slots__ = (
        "_lane_table",
        "_mapping",
        "_restored_through",
        "_room_count",
        "buffered",
        "buffered_bytes",
        "checkpoint",
        "committed",
        "committed_version",
        "ended",
        "failures",
        "gated",
        "lanes",
        "lost",
        "name",
        "phase",
        "read_through",
        "rehashing",
        "rewound",
        "summed",
        "summed_version",
        "unit",
        "version",
    )

    def __init__(self, name: str, unit: Hashable, mapping: EventSourceMapping, now: Instant) -> None:
        self._mapping = mapping
        self._room_count = mapping.buffer_count or max(1000, 2 * mapping.batch_size * mapping.parallelization_factor)
        self.name = name
        self.unit = unit
        self.phase = Phase.LOCATING
        #: Does it go on in the lanes of another parallelization factor, until what was unfinished in them is done?
        self.rehashing = False
        self._make_lanes(mapping.parallelization_factor, now)
        #: Position up to which records are read again for work from before a restart.
        self._restored_through = -1
        #: Records that wait in lanes, without those that are with the function, and their bytes.
        self.buffered = 0
        self.buffered_bytes = 0
        #: Position up to which it was read, and the last one handed to be committed.
        self.read_through = -1
        self.checkpoint = -1
        #: Number of the last change that a commit would write, of the last that was summed up, of the last committed.
        self.version = 0
        self.summed_version = 0
        self.committed_version = 0
        #: What was summed up last, and what is committed; None = nothing yet.
        self.summed: Progress | None = None
        self.committed: Progress | None = None
        #: Lanes that wait for a commit.
        self.gated: list[Lane] = []
        #: Is `read_through` the end of the shard?
        self.ended = False
        #: Locating failed so often in a row; and whether an earlier position was lost.
        self.failures = 0
        self.lost = False
        #: Is it read from the oldest record that is left, because `read_through` is lost?
        self.rewound = False

    def _make_lanes(self, factor: int, now: Instant) -> None:
        self.lanes = [self._new_lane(number, now) for number in range(factor)]
        self._lane_table = LaneTable(factor)

    def _new_lane(self, number: int, now: Instant) -> Lane:
        mapping = self._mapping
        limits = (mapping.batch_size, mapping.batch_bytes, mapping.window_s, mapping.rules.window_start)
        tumbling = TumblingWindow(mapping.tumbling_window_s, *limits) if mapping.tumbling_window_s else None
        window = tumbling or BatchWindow(*limits)
        window.completed(now.mono_s)
        return Lane(self.name, number, window, tumbling)

    # --- where it starts

    def start(self, checkpoint: int) -> None:
        """Read behind this checkpoint."""
        self.read_through = self.checkpoint = checkpoint

    def resume(self, checkpoint: int, text: str, now: Instant) -> bool:
        """Read behind a committed checkpoint with its retry state; False when the state does not belong to it."""
        self.start(checkpoint)
        self.committed = Progress(checkpoint, text)
        former = retry_state.lanes_of(text)
        if former and former != len(self.lanes):
            self.rehashing = True
            self._make_lanes(former, now)
        restored = self._restore(text, now)
        if self.rehashing and not restored:
            self.rehash(now)
        return restored

    def _restore(self, text: str, now: Instant) -> bool:
        """Take up the retry state committed with the checkpoint; False when it does not belong to it."""
        pending = retry_state.decode(text, self.checkpoint, len(self.lanes))
        if pending is None or not all(number < len(self.lanes) for number in pending):
            return False
        for number, work in pending.items():
            lane = self.lanes[number]
            if work.window and lane.tumbling:
                self._restore_window(lane, lane.tumbling, work.window, now)
            if work.pieces or work.taken_through > self.checkpoint:
                lane.pending = work
                self._restored_through = max(self._restored_through, work.taken_through)
        return True

    def _restore_window(
        self, lane: Lane, tumbling: TumblingWindow, saved: retry_state.SavedWindow, now: Instant
    ) -> None:
        call = tumbling.restore(saved)
        if call and saved.final:
            batch = self.final_call(lane, tumbling, call)
            batch.attempts, next_try_s, batch.backoff_s = saved.final
            batch.not_before_s = retry_state.again_at_s(next_try_s, batch.backoff_s, now)
            batch.durable = True
            lane.pieces.append(batch)

    @property
    def is_clear(self) -> bool:
        """Say whether the lanes of another factor have nothing left that was begun in them."""
        return self.rehashing and not any(lane.busy or lane.pieces or lane.is_window_open for lane in self.lanes)

    def rehash(self, now: Instant) -> None:
        """Give what waits to the lanes that the mapping has; nothing is with the function meanwhile."""
        waiting = [part for lane in self.lanes for part in lane.window.drain()]
        chunks = {id(chunk): chunk for chunk, _ in waiting}
        kept: dict[int, list[int]] = {key: [] for key in chunks}
        for chunk, indexes in waiting:
            kept[id(chunk)] += indexes
        self.rehashing = False
        self._make_lanes(self._mapping.parallelization_factor, now)
        for key, chunk in sorted(chunks.items(), key=lambda item: item[1].through):
            self._route(chunk, sorted(kept[key]), now)

    # --- what comes in

    def add(self, chunk: Chunk, now: Instant) -> None:
        """Route a page that follows directly on what was read."""
        kept: Sequence[int] = range(len(chunk.positions)) if chunk.kept is None else chunk.kept
        if kept:
            self._route(chunk, kept, now)
        self.skip_to(chunk.through, now)

    def _route(self, chunk: Chunk, kept: Sequence[int], now: Instant) -> None:
        if len(self.lanes) == 1:
            self._add_to(self.lanes[0], chunk, kept, now)
        else:
            for lane, indexes in zip(self.lanes, self._by_lane(chunk, kept), strict=True):
                if indexes:
                    self._add_to(lane, chunk, indexes, now)
        self.buffered = sum([lane.window.count for lane in self.lanes])
        self.buffered_bytes = sum([lane.window.bytes for lane in self.lanes])

    @property
    def read_behind(self) -> int:
        """The checkpoint that the next page is read behind."""
        return TRIM_HORIZON if self.rewound else self.read_through

    def goes_on(self, chunk: Chunk) -> bool:
        """Take up a page that was read after a rewind; False when its positions do not come after those before it."""
        first = chunk.positions[0] if chunk.positions else chunk.through
        if first <= self.read_through:
            return False
        self.rewound = False
        chunk.before = self.read_through
        return True

    def skip_to(self, position: int, now: Instant) -> None:
        """Note that everything up to a position was read, or is gone."""
        self.read_through = position
        for lane in self.lanes:
            if lane.pending and position >= lane.pending.taken_through:
                lane.pieces.extend(lane.pending.batches(self.name, lane.number, now))
                lane.pending = None

    def end(self, now: Instant) -> None:
        """Note that nothing comes behind what was read."""
        self.ended = True
        self.miss(now)

    def miss(self, now: Instant) -> bool:
        """Go on without what is missing of work from before a restart, because it is gone; says whether any is."""
        is_missing = False
        for lane in self.lanes:
            if lane.pending:
                lane.pieces.extend(lane.pending.batches(self.name, lane.number, now))
                lane.pending = None
                is_missing = True
        return is_missing

    def by_lane(self, chunk: Chunk) -> list[Sequence[int]]:
        """Say which records of a chunk belong to which lane."""
        everything = range(len(chunk.positions))
        return [everything] if len(self.lanes) == 1 else list(self._by_lane(chunk, everything))

    def _by_lane(self, chunk: Chunk, kept: Sequence[int]) -> list[list[int]]:
        factor = len(self.lanes)
        lanes: list[list[int]] = [[] for _ in range(factor + 1)]
        add = [lane.append for lane in lanes]
        keys = chunk.keys if len(kept) == len(chunk.keys) else [chunk.keys[index] for index in kept]
        for index, number in zip(kept, map(self._lane_table.__getitem__, keys), strict=True):
            add[number](index)
        keyless = lanes.pop()
        if keyless:
            for index in keyless:
                add[chunk.positions[index] % factor](index)
            for lane in lanes:
                lane.sort()
        return lanes

    def _add_to(self, lane: Lane, chunk: Chunk, indexes: Sequence[int], now: Instant) -> None:
        if lane.pending:
            indexes = lane.pending.claim(chunk, indexes)
        if indexes:
            lane.window.add(Part(chunk, indexes), now.mono_s)

    def cut(self, lane: Lane) -> tuple[list[Part], int]:
        """Take a lane's next batch, and how many records it has."""
        before_bytes = lane.window.bytes
        parts, count = lane.window.cut()
        self.buffered -= count
        self.buffered_bytes -= before_bytes - lane.window.bytes
        return parts, count

    @property
    def fill_count(self) -> int:
        """Count the records that fill a batch of each lane."""
        return self._mapping.batch_size * len(self.lanes)

    def final_call(self, lane: Lane, tumbling: TumblingWindow, call: WindowCall) -> Batch:
        """Make the batch of a window's final call; the same one after a restart, whatever was committed."""
        opening = f"{self._mapping.name}\n{self.name}\n{tumbling.mark}"
        digest = int.from_bytes(hashlib.sha256(opening.encode()).digest()[:16])
        return Batch(as_uuid(digest & ~(0xF000C << 60) | 0x80008 << 60), self.name, lane.number, (), 0, window=call)

    def room(self) -> int:
        """Count the records that may be read now; 0 when there is no room, or less than is worth a call."""
        if self.phase is not Phase.OPEN or self.ended:
            return 0
        if self.buffered <= self._room_count // 2 and self.buffered_bytes <= self._mapping.buffer_bytes // 2:
            return self._room_count - self.buffered
        # Work from before a restart can only go on when all its records are read again, whatever room there is.
        return max(0, min(self._restored_through - self.read_through, self._room_count))

    # --- how far it is

    @property
    def busy(self) -> bool:
        """Say whether anything is with the function, or on its way into the failure store."""
        return any(lane.running or lane.keeping for lane in self.lanes)

    @property
    def is_finished(self) -> bool:
        """Say whether everything that the shard ever had is settled."""
        return self.ended and not any(
            lane.running or lane.keeping or lane.pieces or lane.window.count or lane.pending or lane.is_window_open
            for lane in self.lanes
        )

    @property
    def dirty(self) -> bool:
        return self.version > self.committed_version

    @property
    def committed_through(self) -> int:
        """The last position that a restart passes over."""
        return self.checkpoint if self.committed is None else self.committed.checkpoint

    def progress(self, now: Instant) -> Progress:
        """Sum up what is to be committed."""
        self.checkpoint = low_watermark([self._unfinished(lane) for lane in self.lanes], self.read_through)
        self.summed_version = self.version
        work = {lane.number: self._work(lane, now) for lane in self.lanes}
        text = retry_state.encode(self.checkpoint, work, len(self.lanes))
        self.summed = Progress(self.checkpoint, text, ended=self.is_finished)
        return self.summed

    def is_news(self, progress: Progress) -> bool:
        """Say whether this differs from what is committed."""
        return progress != self.committed

    def _unfinished(self, lane: Lane) -> tuple[int, int] | None:
        # Until its records are read again a lane with pending work holds the checkpoint where it was restored.
        return (self.checkpoint + 1, self.checkpoint) if lane.pending else lane.unfinished()

    def _work(self, lane: Lane, now: Instant) -> retry_state.Pending:
        if lane.pending:
            return lane.pending
        window = self._window(lane, now)
        pieces = [piece for piece in lane.pieces if piece.count]
        if not any(piece.durable for piece in pieces):
            # A first try leaves no trace until it fails: its records are simply read again.
            unfinished = lane.unfinished()
            return retry_state.Pending(self.read_through if unfinished is None else unfinished[1], [], window)
        head = lane.window.head()
        taken_through = self.read_through if head is None else head[0].preceding(head[1])
        return retry_state.Pending(taken_through, [retry_state.pending(piece, now) for piece in pieces], window)

    def _window(self, lane: Lane, now: Instant) -> retry_state.SavedWindow | None:
        saved = lane.tumbling.saved() if lane.tumbling else None
        final = next((piece for piece in lane.pieces if piece.is_final and piece.durable), None)
        return replace(saved, final=retry_state.failed_call(final, now)) if saved and final else saved
