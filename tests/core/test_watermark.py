"""How far a shard is finished."""

from __future__ import annotations

import pytest

from router.core.watermark import low_watermark


@pytest.mark.parametrize(
    ("unfinished", "read_through", "checkpoint"),
    [
        ([], 7, 7),
        ([None, None], 7, 7),
        ([(5, 4), None], 7, 4),
        ([(5, 4), (3, 1)], 7, 1),
        ([(0, -1)], 7, -1),
    ],
)
def test_the_checkpoint_precedes_the_lowest_unfinished_position(unfinished, read_through, checkpoint):
    assert low_watermark(unfinished, read_through) == checkpoint
