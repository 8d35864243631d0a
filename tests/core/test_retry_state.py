"""What a checkpoint remembers of unfinished work, and that nothing else is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import retry_state
from router.core.model import Batch, Part
from router.core.retry_state import FailedCall, Pending, PendingPiece, SavedWindow
from tests.core.columns import at, batch_of, chunk_of


def piece_of(*ranges: tuple[int, int], attempts: int = 1, contiguous: bool = True) -> PendingPiece:
    return PendingPiece(ranges, contiguous, attempts, 1_700_000_000.5, 1.6, "request-1")


pieces = st.builds(
    PendingPiece,
    st.lists(st.tuples(st.integers(101, 200), st.integers(0, 5)).map(lambda r: (r[0], sum(r))), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 50),
    st.integers(0, 2_000_000_000).map(float),
    st.integers(0, 60).map(float),
    st.uuids().map(str),
)

windows = st.one_of(
    st.none(),
    st.builds(SavedWindow, st.integers(0, 2_000_000_000), st.integers(0, 2_000_000_000), st.just(-1), st.none()),
    st.builds(
        SavedWindow,
        st.integers(0, 2_000_000_000),
        st.integers(0, 2_000_000_000),
        st.integers(0, 200),
        st.dictionaries(st.text(), st.text()).map(lambda state: json.dumps(state, ensure_ascii=False).encode()),
        st.none() | st.builds(FailedCall, st.integers(1, 50), st.integers(0, 2_000_000_000), st.integers(0, 60)),
    ),
)
lanes_of_work = st.builds(Pending, st.integers(205, 300), st.lists(pieces, max_size=3), windows)


@given(st.dictionaries(st.integers(0, 9), lanes_of_work))
def test_what_is_written_is_read(lanes):
    text = retry_state.encode(100, lanes, 10)
    assert (retry_state.decode(text, 100, 10) if text else {}) == lanes


def test_nothing_is_written_when_the_checkpoint_says_it_all():
    assert retry_state.encode(7, {0: Pending(7, []), 1: Pending(7, [])}, 2) == ""


def test_the_form_is_stable():
    """State in brokers and stores outlives this version."""
    lanes = {0: Pending(119, [piece_of((101, 110)), piece_of((112, 112), (115, 116), attempts=0, contiguous=False)])}
    assert json.loads(retry_state.encode(100, lanes, 4)) == {
        "v": 1,
        "c": 100,
        "n": 4,
        "l": {
            "0": {
                "e": 19,
                "p": [[[[1, 10]], 1, "request-1", 1, 1_700_000_000.5, 1.6], [[12, [15, 16]], 0, "request-1", 0]],
            }
        },
    }


@pytest.mark.parametrize(
    ("window", "written"),
    [
        (SavedWindow(60, 120, -1, None), [60, 120]),
        (SavedWindow(60, 120, 98, b'{"n":1}'), [60, 120, -2, '{"n":1}']),
        (SavedWindow(60, 120, 98, b"{}", FailedCall(2, 1000.5, 0.4)), [60, 120, -2, "{}", 2, 1000.5, 0.4]),
    ],
)
def test_the_newest_window_is_written_even_when_nothing_else_is_unfinished(window, written):
    text = retry_state.encode(100, {0: Pending(100, [], window)}, 1)
    assert json.loads(text)["l"] == {"0": {"e": 0, "p": [], "w": written}}
    assert retry_state.decode(text, 100, 1) == {0: Pending(100, [], window)}


@pytest.mark.parametrize(
    "window",
    [
        "[]",
        "[60]",
        "7",
        '[60,120,0,"[]"]',
        '[60,120,0,"{"]',
        "[60,120,0,{}]",
        '[60,120,"x","{}"]',
        '[60,120,0,"{}",1]',
        f'[60,120,0,"{"[" * 100_000}"]',
    ],
)
def test_a_window_that_is_not_one_of_ours_is_void_with_all_the_rest(window):
    text = f'{{"v":1,"c":100,"n":1,"l":{{"0":{{"e":0,"p":[],"w":{window}}}}}}}'
    assert retry_state.decode(text, 100, 1) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "null",
        "[]",
        "7",
        "{}",
        '{"v":2,"c":100,"n":4,"l":{}}',
        '{"v":1,"c":99,"n":4,"l":{}}',
        '{"v":1,"c":100,"n":5,"l":{}}',
        '{"v":1,"c":100,"n":4,"l":[]}',
        '{"v":1,"c":100,"n":4,"l":{"x":{"e":1,"p":[]}}}',
        '{"v":1,"c":100,"n":4,"l":{"0":{"e":1}}}',
        '{"v":1,"c":100,"n":4,"l":{"0":{"e":1,"p":[[1]]}}}',
        '{"v":1,"c":100,"n":4,"l":{"0":{"e":1,"p":[[[[1]],1,"id",1]]}}}',
        '{"v":1,"c":100,"n":4,"l":{"0":{"e":1,"p":[["ab",1,"id","x"]]}}}',
        '{"v":1,"c":100,"n":4,"l":{"0":{"e":1e999,"p":[]}}}',
        "[" * 100_000,
    ],
)
def test_what_does_not_belong_to_the_checkpoint_is_void(text):
    assert retry_state.decode(text, 100, 4) is None


def test_a_contiguous_batch_is_one_range_and_others_list_theirs():
    batch = batch_of([3, 4, 9])
    assert retry_state.pending(batch, at(0)).ranges == [(3, 9)]
    batch.contiguous = False
    assert retry_state.pending(batch, at(0)).ranges == [(3, 4), (9, 9)]


def test_the_next_try_is_wall_time():
    batch = batch_of([3])
    batch.not_before_s = 12.0
    assert retry_state.pending(batch, at(10)).next_try_s == 1012.0
    assert retry_state.pending(batch, at(15)).next_try_s == 1015.0


@pytest.mark.parametrize(("next_try_s", "wait_s"), [(1010.5, 0.5), (1000.0, 0.0), (9_999_999.0, 1.6)])
def test_the_wait_that_remains_is_capped_so_that_a_stepped_clock_cannot_stall(next_try_s, wait_s):
    piece = PendingPiece([(1, 2)], True, 3, next_try_s, 1.6, "request-1")
    lane = Pending(2, [piece])
    lane.claim(chunk_of([1, 2]), range(2))
    (batch,) = lane.batches("s", 0, at(10))
    assert batch.not_before_s == pytest.approx(10 + wait_s)
    assert (batch.id, batch.attempts, batch.backoff_s, batch.durable) == ("request-1", 3, 1.6, True)


def test_records_read_again_are_sorted_into_pieces_finished_ones_dropped_and_new_ones_given():
    lane = Pending(16, [piece_of((11, 12)), piece_of((14, 14), (16, 16), contiguous=False)])
    first, second = chunk_of([10, 11, 12, 13]), chunk_of([14, 15, 16, 17, 18])
    assert list(lane.claim(first, range(4))) == []
    assert list(lane.claim(second, range(5))) == [3, 4]
    batches = lane.batches("s", 2, at(0))
    assert [batch.positions() for batch in batches] == [[11, 12], [14, 16]]
    assert [batch.count for batch in batches] == [2, 2]
    assert {(batch.shard, batch.lane) for batch in batches} == {("s", 2)}


def test_a_piece_may_span_pages():
    lane = Pending(12, [piece_of((11, 12))])
    lane.claim(chunk_of([11]), range(1))
    lane.claim(chunk_of([12]), range(1))
    assert lane.batches("s", 0, at(0))[0].positions() == [11, 12]


def test_pieces_whose_records_are_gone_drop_out():
    lane = Pending(12, [piece_of((11, 11)), piece_of((12, 12))])
    lane.claim(chunk_of([12]), range(1))
    assert [batch.positions() for batch in lane.batches("s", 0, at(0))] == [[12]]


def test_other_lanes_records_are_not_taken():
    chunk = chunk_of([11, 12, 13])
    lane = Pending(13, [piece_of((11, 13))])
    lane.claim(chunk, [0, 2])
    assert lane.batches("s", 0, at(0))[0].positions() == [11, 13]


def test_a_batch_of_parts_survives_the_round_trip():
    chunk = chunk_of([101, 102, 105, 106])
    batch = Batch("request-1", "s", 0, [Part(chunk, [0, 1, 3])], 3, attempts=2, contiguous=False)
    text = retry_state.encode(100, {0: Pending(106, [retry_state.pending(batch, at(0))])}, 1)
    lanes = retry_state.decode(text, 100, 1)
    assert lanes
    lanes[0].claim(chunk, range(4))
    (again,) = lanes[0].batches("s", 0, at(0))
    assert (again.positions(), again.id, again.attempts) == ([101, 102, 106], "request-1", 2)
