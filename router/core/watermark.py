"""How far a shard is finished.

The checkpoint is the highest position that is finished together with everything before it. Lanes take records in
order and finish them out of order between lanes, so the checkpoint is what precedes the lowest unfinished position
over the lanes, or all that was read when nothing is unfinished. It is derived from what the lanes hold: there is no
list of acknowledged positions to keep, and nothing to do per record. Filtered records are in no lane, so it passes
them by itself.
"""

from __future__ import annotations

from collections.abc import Iterable


def low_watermark(unfinished: Iterable[tuple[int, int] | None], read_through: int) -> int:
    """Give the checkpoint: inclusive position up to which a shard is finished.

    Args:
        unfinished: for each lane the lowest unfinished position and what precedes it in the shard; None = no such.
        read_through: position up to which the shard was read.
    """
    return min((pair for pair in unfinished if pair), default=(0, read_through))[1]
