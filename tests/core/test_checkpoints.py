"""How the store keeps where a mapping is in a stream: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.checkpoints import (
    StreamBegun,
    beginning,
    read_checkpoint,
    read_shard,
    read_stream,
    write_checkpoint,
    write_shard,
    write_stream,
)
from router.core.facts import Progress
from router.core.model import TRIM_HORIZON, ShardInfo, at_time
from router.ports import PutState
from tests.fakes.shard_stream import MemoryShardCodec

CODEC = MemoryShardCodec()
#: The last millisecond of the year 9999.
LAST_MS = 253_402_300_799_999

checkpoints = st.just(TRIM_HORIZON) | st.integers(0, LAST_MS).map(at_time) | st.integers(0, 1 << 200)
progresses = st.builds(Progress, checkpoints, st.text(), st.booleans())
values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each, max_size=3))
documents = st.dictionaries(
    st.sampled_from(("checkpoint", "retry_state", "finished", "incarnation", "start", "other")), values, max_size=4
)


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [
        (TRIM_HORIZON, "TRIM_HORIZON"),
        (at_time(0), "AT_TIMESTAMP 1970-01-01T00:00:00.000Z"),
        (at_time(1_767_225_600_007), "AT_TIMESTAMP 2026-01-01T00:00:00.007Z"),
        (at_time(LAST_MS), "AT_TIMESTAMP 9999-12-31T23:59:59.999Z"),
        (1 << 70, "1180591620717411303424"),
    ],
)
def test_people_can_read_a_checkpoint(checkpoint: int, text: str):
    assert write_checkpoint(checkpoint, CODEC) == text
    assert read_checkpoint(text, CODEC) == checkpoint


@given(checkpoints)
def test_every_checkpoint_is_read_back(checkpoint: int):
    assert read_checkpoint(write_checkpoint(checkpoint, CODEC), CODEC) == checkpoint


@given(progresses)
def test_where_a_shard_is_is_read_back(progress: Progress):
    assert read_shard(write_shard(progress, CODEC), CODEC) == progress


@given(st.builds(StreamBegun, st.text(), checkpoints))
def test_which_stream_it_is_is_read_back(begun: StreamBegun):
    assert read_stream(write_stream(begun, CODEC), CODEC) == begun


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "trim_horizon",
        "LATEST",
        "AT_TIMESTAMP",
        "AT_TIMESTAMP 1969-12-31T23:59:59.999Z",
        "AT_TIMESTAMP 2026-13-01T00:00:00.000Z",
        "AT_TIMESTAMP 2026-01-01T00:00:00Z",
        "AT_TIMESTAMP 2026-01-01T00:00:00.000+01:00",
        "AT_TIMESTAMP 10000-01-01T00:00:00.000Z",
        "AT_TIMESTAMP \uff12\uff10\uff12\uff16-01-01T00:00:00.000Z",
        "12 ",
        "1e3",
        "٣",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str):
    with pytest.raises(ValueError, match=r"\S"):
        read_checkpoint(text, CODEC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"TRIM_HORIZON"',
        "{}",
        '{"checkpoint":7}',
        '{"checkpoint":null,"retry_state":""}',
        '{"checkpoint":"7","retry_state":{}}',
        '{"start":"TRIM_HORIZON"}',
        '{"incarnation":"x"}',
        '{"incarnation":7,"start":"TRIM_HORIZON"}',
        '{"incarnation":"x","start":"soon"}',
        "[" * 100_000,
    ],
)
def test_what_is_nothing_of_ours_is_refused(text: str):
    for read in (read_shard, read_stream):
        with pytest.raises(ValueError, match=r"\S"):
            read(text, CODEC)


@given(st.text() | documents.map(json.dumps))
def test_whatever_somebody_writes_there_is_refused_or_read(text: str):
    for read in (read_shard, read_stream):
        try:
            found = read(text, CODEC)
        except ValueError:
            continue
        assert isinstance(found, Progress | StreamBegun)


SHARDS = [ShardInfo("a", (), closed=True), ShardInfo("b", ("a",))]
BEGUN = StreamBegun("2", at_time(5))


def test_at_latest_what_was_closed_counts_as_done_and_what_another_stream_left_is_void():
    states = {"stream": "x", "shard:old": "y", "begun": "kinesis:orders"}
    assert beginning("orders", BEGUN, SHARDS, states, CODEC, latest=True) == [
        PutState("orders", "shard:old", ""),
        PutState("orders", "shard:a", write_shard(Progress(at_time(5), "", ended=True), CODEC)),
        PutState("orders", "stream", write_stream(BEGUN, CODEC)),
    ]


def test_elsewhere_what_was_closed_is_read_too():
    changes = beginning("orders", BEGUN, SHARDS, {}, CODEC, latest=False)
    assert changes == [PutState("orders", "stream", write_stream(BEGUN, CODEC))]
