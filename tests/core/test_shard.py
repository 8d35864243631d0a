"""How a shard routes records, how much it reads, and how it sums up its progress."""

from __future__ import annotations

from collections import Counter
from zlib import crc32

import pytest

from router.core import retry_state
from router.core.facts import Progress
from router.core.retry_state import Pending, PendingPiece
from router.core.shard import KNOWN_KEYS, LaneTable, Phase, ShardState, lane_of
from tests.core.columns import at, batch_of, chunk_of, mapping_of


def lane_key(number: int) -> bytes:
    return next(key for key in (b"%d" % seed for seed in range(99)) if lane_of(key, 2) == number)


LANE_0, LANE_1 = lane_key(0), lane_key(1)


def shard_of(**settings) -> ShardState:
    shard = ShardState("s", "unit", mapping_of(**settings), at(0))
    shard.phase = Phase.OPEN
    return shard


def waiting(shard: ShardState, number: int = 0) -> list[int]:
    taken: list[int] = []
    lane = shard.lanes[number]
    while lane.window.count:
        parts, _ = shard.cut(lane)
        taken += [chunk.positions[index] for chunk, indexes in parts for index in indexes]
    return taken


def test_with_a_factor_of_1_everything_is_one_lane_in_order():
    shard = shard_of()
    shard.add(chunk_of([3, 5], keys=[b"a", b"b"]), at(0))
    assert waiting(shard) == [3, 5]
    assert [list(mine) for mine in shard.by_lane(chunk_of([3, 5]))] == [[0, 1]]


def test_a_key_is_always_in_the_lane_it_hashes_to():
    keys = [b"a", b"b", b"c", b"a", b"b", b"c"]
    shard = shard_of(parallelization_factor=4)
    shard.add(chunk_of(range(6), keys=keys), at(0))
    for number in range(4):
        assert waiting(shard, number) == [p for p in range(6) if lane_of(keys[p], 4) == number]


@pytest.mark.parametrize("factor", [2, 4, 8, 10])
def test_keys_that_a_checksum_brought_into_one_partition_are_spread_over_all_lanes(factor):
    keys = [key for key in (b"key-%d" % number for number in range(4000)) if crc32(key) % 8 == 3]
    sizes = Counter(lane_of(key, factor) for key in keys)
    assert len(sizes) == factor
    assert max(sizes.values()) < 2 * min(sizes.values())


def test_lanes_of_keys_are_those_that_stored_retry_state_goes_by():
    assert [lane_of(key, 10) for key in (b"", b"a", b"order-17", bytes(range(256)))] == [0, 3, 9, 1]


def test_records_without_a_key_are_spread_by_position():
    shard = shard_of(parallelization_factor=2)
    shard.add(chunk_of([10, 11, 12, 15]), at(0))
    assert (waiting(shard, 0), waiting(shard, 1)) == ([10, 12], [11, 15])


@pytest.mark.parametrize("factor", [1, 3])
def test_filtered_records_reach_no_lane_but_count_as_read(factor):
    shard = shard_of(parallelization_factor=factor)
    shard.add(chunk_of([1, 2, 3, 4], kept=[1, 3], through=9), at(0))
    assert sorted(p for number in range(factor) for p in waiting(shard, number)) == [2, 4]
    shard.add(chunk_of([10], kept=[], through=12), at(0))
    assert shard.progress(at(0)) == Progress(12, "")


def test_buffered_is_what_waits():
    shard = shard_of(parallelization_factor=2, batch_size=2)
    shard.add(chunk_of(range(6), sizes=[1, 2, 3, 4, 5, 6]), at(0))
    assert (shard.buffered, shard.buffered_bytes) == (6, 21)
    shard.cut(shard.lanes[1])
    assert (shard.buffered, shard.buffered_bytes) == (4, 15)


@pytest.mark.parametrize(
    ("settings", "records", "room"),
    [
        ({}, 0, 1000),
        ({"batch_size": 1000, "parallelization_factor": 2}, 0, 4000),
        ({"buffer_count": 10}, 0, 10),
        ({"buffer_count": 10}, 5, 5),
        ({"buffer_count": 10}, 6, 0),
        ({"buffer_bytes": 100}, 5, 995),
        ({"buffer_bytes": 100}, 6, 0),
        ({"buffer_count": 1}, 0, 1),
        ({"buffer_count": 1}, 1, 0),
    ],
)
def test_it_is_read_while_at_least_half_of_the_room_is_left(settings, records, room):
    shard = shard_of(**settings)
    if records:
        shard.add(chunk_of(range(records)), at(0))
    assert shard.room() == room


@pytest.mark.parametrize("phase", [Phase.LOCATING, Phase.PINNING, Phase.CLOSING])
def test_it_is_read_only_when_open(phase):
    shard = shard_of()
    shard.phase = phase
    assert shard.room() == 0


def state_of(checkpoint: int, **lanes: Pending) -> str:
    numbered = {int(name[1:]): work for name, work in lanes.items()}
    return retry_state.encode(checkpoint, numbered, 2)


HALVES = [
    PendingPiece([(12, 13)], True, 2, 1000.0, 0.4, "left"),
    PendingPiece([(14, 15)], True, 0, 0.0, 0.0, "right"),
]


def test_restored_work_is_read_again_whatever_room_there_is():
    shard = shard_of(buffer_count=4, parallelization_factor=2)
    assert shard.resume(10, state_of(10, l1=Pending(19, HALVES)), at(0))
    shard.add(chunk_of([11, 12, 13, 14], keys=[LANE_0] * 4), at(0))
    assert (shard.buffered, shard.room()) == (4, 4)
    shard.add(chunk_of([15, 16, 17], keys=[LANE_0] * 3), at(0))
    assert shard.room() == 2
    shard.add(chunk_of([18, 19], keys=[LANE_0] * 2), at(0))
    assert shard.room() == 0


def test_restored_work_waits_for_all_its_records_and_holds_the_checkpoint():
    shard = shard_of(parallelization_factor=2)
    assert shard.resume(10, state_of(10, l1=Pending(16, HALVES)), at(0))
    lane = shard.lanes[1]
    shard.add(chunk_of([11, 12, 13, 14], keys=[LANE_1] * 4), at(0))
    assert lane.busy
    assert shard.progress(at(0)).checkpoint == 10
    shard.add(chunk_of([15, 16, 17], keys=[LANE_1] * 3), at(0))
    assert not lane.busy
    assert [(piece.id, piece.positions(), piece.attempts) for piece in lane.pieces] == [
        ("left", [12, 13], 2),
        ("right", [14, 15], 0),
    ]
    assert waiting(shard, 1) == [17]
    assert shard.progress(at(0)).checkpoint == 11


def test_restored_work_goes_on_when_the_rest_of_its_records_is_gone():
    shard = shard_of(parallelization_factor=2)
    assert shard.resume(10, state_of(10, l1=Pending(16, HALVES)), at(0))
    shard.add(chunk_of([11, 12], keys=[LANE_1] * 2), at(0))
    shard.skip_to(30, at(0))
    assert [piece.positions() for piece in shard.lanes[1].pieces] == [[12]]


@pytest.mark.parametrize(
    "text",
    ["", "mine", state_of(11, l0=Pending(16, HALVES)), '{"v":1,"c":10,"n":2,"l":{"2":{"e":6,"p":[]}}}'],
)
def test_state_that_does_not_belong_to_the_checkpoint_is_void(text):
    shard = shard_of(parallelization_factor=2)
    assert not shard.resume(10, text, at(0))
    assert not any(lane.busy for lane in shard.lanes)
    assert (shard.read_through, shard.progress(at(0))) == (10, Progress(10, ""))


def test_progress_precedes_the_lowest_unfinished_record_over_the_lanes():
    shard = shard_of(parallelization_factor=2)
    shard.start(9)
    shard.add(chunk_of([10, 11, 13, 14]), at(0))
    assert shard.progress(at(0)).checkpoint == 9
    waiting(shard, 0)
    assert shard.progress(at(0)).checkpoint == 10
    waiting(shard, 1)
    assert shard.progress(at(0)) == Progress(14, "")


def test_a_first_try_leaves_no_trace_and_a_failed_one_does():
    shard = shard_of()
    shard.start(9)
    shard.add(chunk_of([10, 11]), at(0))
    waiting(shard)
    batch = batch_of([10, 11])
    shard.lanes[0].pieces.append(batch)
    assert shard.progress(at(0)) == Progress(9, "")
    batch.durable, batch.attempts = True, 1
    checkpoint, text, _ = shard.progress(at(0))
    lanes = retry_state.decode(text, checkpoint, 1)
    assert lanes
    assert [(piece.ranges, piece.request_id) for piece in lanes[0].pieces] == [([(10, 11)], "id")]


def test_lanes_that_are_ahead_say_so():
    shard = shard_of(parallelization_factor=2)
    shard.start(9)
    shard.add(chunk_of([10, 11, 12, 13]), at(0))
    waiting(shard, 1)
    checkpoint, text, _ = shard.progress(at(0))
    assert retry_state.decode(text, checkpoint, 2) == {1: Pending(13, [])}


def test_the_lanes_of_many_keys_are_remembered_in_bounded_memory() -> None:
    table = LaneTable(10)
    keys = [b"%d" % number for number in range(KNOWN_KEYS + 10)]
    assert [table[key] for key in keys] == [lane_of(key, 10) for key in keys]
    assert len(table) == 10
    assert table[None] == 10


def test_a_state_of_another_factor_that_is_void_leaves_the_lanes_of_the_mapping():
    shard = shard_of(parallelization_factor=2)
    assert not shard.resume(10, '{"v":1,"c":9,"n":3,"l":{}}', at(0))
    assert (len(shard.lanes), shard.rehashing) == (2, False)
