"""What a checkpoint remembers of the unfinished work behind it, as a short text.

It is written with the checkpoint it belongs to (for Kafka in the metadata of the committed offset), so a restart, a
crash or a rebalance goes on with the same attempts, halves and request ids, and it is void with any other checkpoint:
whoever resets an offset resets the retries with it.

Per lane: `e`, the position up to which the lane's records have been taken, and the pieces among them that are not
done. Everything of the lane up to `e` that is in no piece is finished and is not run again. A piece lists its
positions as ranges; where it holds all the lane's records between first and last, that is one range. Numbers are
relative to the checkpoint. The time of the next try is wall time, because it must mean something after a restart; the
wait that remains is capped at the wait it came from, so a stepped clock cannot stall a lane.

Where there are tumbling windows, `w` is the newest one of the lane: its start and end; while it is open also its first
position and its state, as text; and once its final call has failed, the attempts, next try and wait of that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from router.core.model import Batch, Chunk, Instant, Part

_VERSION = 1
#: More lanes than a mapping can have.
_MOST_LANES = 1000


class FailedCall(NamedTuple):
    """A final call that has failed and is tried again."""

    attempts: int
    next_try_s: float
    backoff_s: float


@dataclass(frozen=True, slots=True)
class SavedWindow:
    """The newest tumbling window of a lane."""

    start_s: int
    end_s: int
    #: First position in it since it was opened last; -1 when it is closed.
    since: int
    #: None = it is closed.
    state: bytes | None
    final: FailedCall | None = None


@dataclass(slots=True)
class PendingPiece:
    """A piece whose records have to be read again."""

    #: Inclusive ranges of positions.
    ranges: Sequence[tuple[int, int]]
    contiguous: bool
    attempts: int
    next_try_s: float
    backoff_s: float
    request_id: str
    parts: list[Part] = field(default_factory=list)

    def holds(self, position: int) -> bool:
        return any(low <= position <= high for low, high in self.ranges)


@dataclass(slots=True)
class Pending:
    """One lane's unfinished work from before."""

    #: Position up to which the lane's records were taken.
    taken_through: int
    pieces: Sequence[PendingPiece]
    window: SavedWindow | None = None

    def claim(self, chunk: Chunk, indexes: Sequence[int]) -> Sequence[int]:
        """Sort re-read records into the pieces they belong to; give those that are new to the lane."""
        for piece in self.pieces:
            mine = [index for index in indexes if self._is_taken(chunk, index) and piece.holds(chunk.positions[index])]
            if mine:
                piece.parts.append(Part(chunk, mine))
        return indexes[sum(1 for index in indexes if self._is_taken(chunk, index)) :]

    def _is_taken(self, chunk: Chunk, index: int) -> bool:
        return chunk.positions[index] <= self.taken_through

    def batches(self, shard: str, lane: int, now: Instant) -> list[Batch]:
        """Make the pieces batches again, once all their records are here; records that are gone drop out."""
        return [
            Batch(
                piece.request_id,
                shard,
                lane,
                piece.parts,
                sum(len(part.indexes) for part in piece.parts),
                attempts=piece.attempts,
                not_before_s=again_at_s(piece.next_try_s, piece.backoff_s, now),
                backoff_s=piece.backoff_s,
                durable=True,
                contiguous=piece.contiguous,
            )
            for piece in self.pieces
            if piece.parts
        ]


def encode(checkpoint: int, lanes: Mapping[int, Pending], factor: int) -> str:
    """Write the unfinished work of a shard; empty when there is none that the checkpoint alone does not say."""
    telling = {
        str(number): _encode_lane(checkpoint, lane)
        for number, lane in lanes.items()
        if lane.pieces or lane.window or lane.taken_through > checkpoint
    }
    if not telling:
        return ""
    return json.dumps({"v": _VERSION, "c": checkpoint, "n": factor, "l": telling}, separators=(",", ":"))


def decode(text: str, checkpoint: int, factor: int) -> dict[int, Pending] | None:
    """Read what `encode` wrote; None when it is not ours, or belongs to another checkpoint or number of lanes."""
    try:
        state = json.loads(text)
        if (state["v"], state["c"], state["n"]) != (_VERSION, checkpoint, factor):
            return None
        return {int(number): _decode_lane(checkpoint, lane) for number, lane in state["l"].items()}
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError):
        return None


def again_at_s(next_try_s: float, backoff_s: float, now: Instant) -> float:
    """Give the monotonic time of a next try that was remembered as wall time."""
    return now.mono_s + min(max(next_try_s - now.wall_s, 0.0), backoff_s)


def _next_try_s(batch: Batch, now: Instant) -> float:
    return now.wall_s + max(batch.not_before_s - now.mono_s, 0.0)


def failed_call(batch: Batch, now: Instant) -> FailedCall:
    """Describe a final call that has failed."""
    return FailedCall(batch.attempts, _next_try_s(batch, now), batch.backoff_s)


def lanes_of(text: str) -> int | None:
    """Say how many lanes a state was written with; None when it is not ours."""
    try:
        lanes = json.loads(text)["n"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return lanes if isinstance(lanes, int) and 0 < lanes <= _MOST_LANES else None


def pending(batch: Batch, now: Instant) -> PendingPiece:
    """Describe a batch so that it can be made again."""
    return PendingPiece(
        [(batch.first_position, batch.last_position)] if batch.contiguous else _ranges(batch.positions()),
        batch.contiguous,
        batch.attempts,
        _next_try_s(batch, now),
        batch.backoff_s,
        batch.id,
    )


def _ranges(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Join neighbouring positions."""
    ranges: list[tuple[int, int]] = []
    for position in positions:
        if ranges and position == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], position)
        else:
            ranges.append((position, position))
    return ranges


def _encode_lane(checkpoint: int, lane: Pending) -> dict[str, Any]:
    pieces = [_encode_piece(checkpoint, piece) for piece in lane.pieces]
    window = {"w": _encode_window(checkpoint, lane.window)} if lane.window else {}
    return {"e": lane.taken_through - checkpoint, "p": pieces, **window}


def _encode_window(checkpoint: int, window: SavedWindow) -> list[Any]:
    bounds = [window.start_s, window.end_s]
    if window.state is None:
        return bounds
    final = window.final
    times = (round(final.next_try_s, 3), round(final.backoff_s, 3)) if final else ()
    tried = (final.attempts, *times) if final else ()
    return [*bounds, window.since - checkpoint, window.state.decode(), *tried]


def _encode_piece(checkpoint: int, piece: PendingPiece) -> list[Any]:
    ranges = [[low - checkpoint, high - checkpoint] if high > low else low - checkpoint for low, high in piece.ranges]
    tried = piece.attempts > 0
    return [
        ranges,
        int(piece.contiguous),
        piece.request_id,
        piece.attempts,
        *((round(piece.next_try_s, 3), round(piece.backoff_s, 3)) if tried else ()),
    ]


def _decode_lane(checkpoint: int, lane: Mapping[str, Any]) -> Pending:
    window = lane.get("w")
    return Pending(
        checkpoint + int(lane["e"]),
        [_decode_piece(checkpoint, piece) for piece in lane["p"]],
        None if window is None else _decode_window(checkpoint, window),
    )


def _decode_window(checkpoint: int, window: Sequence[Any]) -> SavedWindow:
    start_s, end_s, *opened = window
    if not opened:
        return SavedWindow(int(start_s), int(end_s), -1, None)
    since, state, *tried = opened
    if not isinstance(json.loads(state), dict):
        raise TypeError
    final = FailedCall(int(tried[0]), float(tried[1]), float(tried[2])) if tried else None
    return SavedWindow(int(start_s), int(end_s), checkpoint + int(since), state.encode(), final)


def _decode_piece(checkpoint: int, piece: Sequence[Any]) -> PendingPiece:
    ranges, contiguous, request_id, attempts, *times = piece
    next_try_s, backoff_s = times or (0.0, 0.0)
    pairs = [(item, item) if isinstance(item, int) else (item[0], item[1]) for item in ranges]
    return PendingPiece(
        [(checkpoint + int(low), checkpoint + int(high)) for low, high in pairs],
        bool(contiguous),
        int(attempts),
        float(next_try_s),
        float(backoff_s),
        str(request_id),
    )
