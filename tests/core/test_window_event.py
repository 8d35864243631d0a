"""The event of a call in a tumbling window, against one recorded on AWS, and read back for a replay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.window_event import window_of, with_window
from router.core.model import WindowCall

SAMPLE = (
    Path(__file__).parents[2] / "router" / "commands" / "sample_events" / "kinesis-tumbling-window.json"
).read_bytes()
ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks"
SHARD = "shardId-000000000003"
CALL = WindowCall(1767225600, 1767225720, b'{"user-1":4}')


def test_the_members_of_a_window_stand_behind_the_records_as_on_aws():
    sample = json.loads(SAMPLE)
    records = json.dumps({"Records": sample["Records"]}, separators=(",", ":")).encode()
    event = with_window(records, SHARD, ARN, CALL)
    assert event == json.dumps(sample, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "call", [CALL, WindowCall(0, 10), WindowCall(60, 120, '{"ü": 1.50}'.encode(), final=True, early=True)]
)
def test_what_is_written_is_read(call):
    assert window_of(with_window(b'{"Records":[]}', SHARD, ARN, call)) == (SHARD, call)


@pytest.mark.parametrize("event", [b'{"Records":[]}', b'{"Records":[],"state":{}}'])
def test_an_event_without_a_window_is_of_none(event):
    assert window_of(event) is None


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"[]",
        b'{"window":',
        b'{"window":{}}',
        with_window(b'{"Records":[]}', SHARD, ARN, CALL).replace(b"2026-01-01T00:02:00Z", b"later"),
    ],
)
def test_what_is_no_event_of_a_window_is_told(event):
    with pytest.raises(ValueError, match=r"."):
        window_of(event)
