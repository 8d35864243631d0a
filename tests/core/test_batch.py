"""What a batch knows of its records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.core.model import Batch, Part
from tests.core.columns import chunk_of

_POSITIONS = st.sets(st.integers(0, 60), min_size=1).map(sorted)


@given(_POSITIONS, st.integers(1, 7), st.integers(1, 3))
def test_a_batch_holds_the_positions_of_its_records(positions, page, step):
    pages = [chunk_of(positions[at : at + page]) for at in range(0, len(positions), page)]
    parts = [Part(chunk, range(len(chunk.positions))) for chunk in pages]
    if step > 1:
        parts = [Part(chunk, list(indexes)[::step]) for chunk, indexes in parts]
    batch = Batch("id", "s", 0, parts, sum(len(part.indexes) for part in parts))
    assert [position for position in range(-1, 63) if batch.holds(position)] == batch.positions()
