"""The shape of Kinesis records, against events and failure records recorded on AWS."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kinesis_codec import KinesisCodec, ReceivedRecord
from router.core.filter import KINESIS, compile_filters
from router.core.model import Batch, Chunk, Part, WindowCall
from tests.fakes.aggregates import aggregate
from tests.fakes.failures import failed_batch

ROOT = Path(__file__).parents[2]
SHARD = "shardId-000000000003"
ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks"
FIRST, SECOND = (49650000000000000000000000000000000000000000000001000003 + 1000003 * n for n in range(2))
decode_received = msgspec.json.Decoder(list[ReceivedRecord]).decode


def codec(arn: str = ARN, **options: Any) -> KinesisCodec:
    made = KinesisCodec(**options)
    made.arn = arn
    return made


def received(*answers: dict[str, Any]) -> list[ReceivedRecord]:
    return decode_received(json.dumps(answers))


def answer(number: int = FIRST, data: bytes = b'{"page":"/a"}', **changes: Any) -> dict[str, Any]:
    """A record as GetRecords gives it."""
    return {
        "SequenceNumber": str(number),
        "ApproximateArrivalTimestamp": 1767225600.987,
        "Data": base64.b64encode(data).decode(),
        "PartitionKey": "user-1",
        "EncryptionType": "KMS",
        **changes,
    }


def chunk(*answers: dict[str, Any], **options: Any) -> Chunk:
    return codec(**options).chunk(SHARD, received(*answers))


CLICKS = (
    answer(),
    answer(SECOND, b"not json", PartitionKey="user-2", ApproximateArrivalTimestamp=1767225601.004),
)


# --- the event


def test_the_event_is_aws_own_but_for_the_role() -> None:
    wanted = json.loads((ROOT / "router/commands/sample_events/kinesis.json").read_text())
    role = wanted["Records"][0]["invokeIdentityArn"]
    event = codec().event(chunk(*CLICKS).rows)
    assert event.replace(b"arn:aws:iam::000000000000:role/headrace", role.encode()).decode() == json.dumps(
        wanted, separators=(",", ":")
    )


@pytest.mark.parametrize("time", ["1767225600.987", "1.767225600987E9", "1767225600", "1767225600.1", "0"])
def test_a_time_in_any_spelling_is_the_same_time(time: str) -> None:
    [record] = decode_received(f"[{json.dumps(answer()).replace('1767225600.987', time)}]")
    read = codec().chunk(SHARD, [record])
    assert list(read.times_ms) == [round(float(time) * 1000)]
    [said] = json.loads(codec().event(read.rows))["Records"]
    assert said["kinesis"]["approximateArrivalTimestamp"] == float(time)


def test_a_consumer_is_named_in_full() -> None:
    consumer = f"{ARN}/consumer/clicks-app:1767225600"
    [record] = json.loads(codec().event(chunk(answer(), arn=consumer).rows))["Records"]
    assert (record["eventSourceARN"], record["awsRegion"]) == (consumer, "eu-west-1")


@given(
    st.lists(st.tuples(st.text(max_size=40), st.binary(max_size=300), st.floats(0, 4e9)), min_size=1, max_size=5),
    st.booleans(),
)
def test_an_event_reads_back(records: list[tuple[str, bytes, float]], deaggregate: bool) -> None:  # noqa: FBT001
    answers = [
        answer(FIRST + place, data, PartitionKey=key, ApproximateArrivalTimestamp=time_s)
        for place, (key, data, time_s) in enumerate(records)
    ]
    one = codec(deaggregate=deaggregate)
    read = one.chunk(SHARD, received(*answers))
    event = one.event(read.rows)
    parsed = one.parse(event)
    assert one.event(parsed.rows) == event
    assert (parsed.shard, parsed.through) == (SHARD, read.through)
    assert list(parsed.positions) == list(read.positions)
    assert list(parsed.keys) == list(read.keys) == [key.encode() for key, _, _ in records]
    # The first record stands for what surrounds all.
    assert len(event) - len(one.event(read.rows[:1])) <= sum(read.sizes[1:])


@pytest.mark.parametrize("event", [b"{}", b'{"Records":[]}', b"[]", b"x", b'{"Records":[{"eventID":"a:1"}]}'])
def test_what_is_no_event_is_refused(event: bytes) -> None:
    with pytest.raises(ValueError, match="no Kinesis event"):
        codec().parse(event)


def test_a_position_that_is_no_number_in_an_event_is_refused() -> None:
    event = codec().event(chunk(answer()).rows).replace(str(FIRST).encode(), b"x")
    with pytest.raises(ValueError, match="no Kinesis event"):
        codec().parse(event)


# --- tumbling windows


WINDOW = WindowCall(1767225600, 1767225720, b'{"user-1":4}')


def test_the_event_of_a_window_is_aws_own_but_for_the_role() -> None:
    wanted = json.loads((ROOT / "router/commands/sample_events/kinesis-tumbling-window.json").read_text())
    role = wanted["Records"][0]["invokeIdentityArn"]
    one = codec()
    event = one.window_event(SHARD, chunk(*CLICKS).rows, WINDOW)
    assert event.replace(b"arn:aws:iam::000000000000:role/headrace", role.encode()).decode() == json.dumps(
        wanted, separators=(",", ":")
    )
    # A codec that has not found its stream yet reads and writes it too.
    parsed = KinesisCodec().parse(event)
    assert parsed.window == WINDOW
    assert KinesisCodec().window_event(parsed.shard, parsed.rows, WINDOW) == event


def test_a_final_call_without_records_reads_back() -> None:
    call = replace(WINDOW, final=True, early=True)
    event = codec().window_event(SHARD, [], call)
    assert json.loads(event) == {
        "Records": [],
        "shardId": SHARD,
        "eventSourceARN": ARN,
        "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:02:00Z"},
        "state": {"user-1": 4},
        "isFinalInvokeForWindow": True,
        "isWindowTerminatedEarly": True,
    }
    parsed = codec().parse(event)
    assert (parsed.shard, list(parsed.rows), parsed.window) == (SHARD, [], call)
    failure = failed_batch(shard=SHARD, first_position=-1, last_position=-1, batch_size=0, window=call)
    assert KinesisCodec().batch_info(failure, event) == {"KinesisBatchInfo": {"shardId": SHARD, "streamArn": ARN}}


# --- names of records


def batch(read: Chunk, count: int) -> Batch:
    return Batch("id", SHARD, 0, [Part(read, range(count))], count)


def test_a_report_names_records_by_their_sequence_number_as_text() -> None:
    read = chunk(answer(7), answer(10), answer(100))
    one = codec()
    assert [one.identify(str(number), batch(read, 2)) for number in (7, 10, 100)] == [7, 10, None]
    for item in (7, 7.0, None, "", "07", " 7", "+7", True, {"itemIdentifier": "7"}, [], "7" * 5000):
        assert one.identify(item, batch(read, 3)) is None


def test_a_report_that_names_an_aggregate_means_its_first_record_in_the_batch() -> None:
    one = codec(deaggregate=True)
    read = one.chunk(SHARD, received(answer(7, aggregate(("a", b"1"), ("b", b"2"), ("c", b"3"))), answer(10)))
    whole, rest = batch(read, 4), Batch("id", SHARD, 0, [Part(read, range(1, 4))], 3)
    assert one.identify("7", whole) == read.positions[0]
    assert one.identify("7", rest) == read.positions[1]
    assert one.identify("10", whole) == read.positions[3]


def test_the_names_are_those_of_the_batch_that_is_reported_on() -> None:
    one = codec()
    early, late = batch(chunk(answer(7)), 1), batch(chunk(answer(8)), 1)
    assert [one.identify("7", each) for each in (early, late, early)] == [7, None, 7]


# --- aggregates


AGGREGATE = answer(FIRST, aggregate(("a", b"one"), ("b", b"two")), PartitionKey="outer")


def test_an_aggregate_is_one_record_where_it_is_not_taken_apart() -> None:
    read = chunk(AGGREGATE)
    assert list(read.positions) == [FIRST]
    [record] = json.loads(codec().event(read.rows))["Records"]
    assert record["kinesis"]["data"] == AGGREGATE["Data"]


def test_an_aggregate_is_taken_apart_as_aws_does() -> None:
    read = chunk(AGGREGATE, answer(SECOND), deaggregate=True)
    records = json.loads(codec().event(read.rows))["Records"]
    assert [each["kinesis"]["sequenceNumber"] for each in records] == [str(FIRST), str(FIRST), str(SECOND)]
    assert [each["eventID"] for each in records[:2]] == [f"{SHARD}:{FIRST}"] * 2
    assert [each["kinesis"]["partitionKey"] for each in records] == ["a", "b", "user-1"]
    assert [base64.b64decode(each["kinesis"]["data"]) for each in records[:2]] == [b"one", b"two"]
    assert {each["kinesis"]["approximateArrivalTimestamp"] for each in records} == {1767225600.987}
    assert list(read.keys) == [b"a", b"b", b"user-1"]


def test_a_damaged_aggregate_is_passed_on_as_it_is() -> None:
    data = aggregate(("a", b"one"))[:-1] + b"?"
    read = chunk(answer(FIRST, data), deaggregate=True)
    [record] = json.loads(codec().event(read.rows))["Records"]
    assert base64.b64decode(record["kinesis"]["data"]) == data


def test_positions_within_an_aggregate_grow_up_to_the_end_of_its_record() -> None:
    three = answer(5, aggregate(("a", b"1"), ("a", b"2"), ("a", b"3")))
    read = chunk(answer(4), three, answer(6, aggregate(("a", b"1"))), deaggregate=True)
    one = codec(deaggregate=True)
    assert [one.write_position(each) for each in read.positions] == ["4", "5.0", "5.1", "5", "6"]
    assert list(read.positions) == sorted(read.positions)
    parsed = one.parse(one.event(read.rows))
    assert list(parsed.positions) == list(read.positions)


# --- positions


@pytest.mark.parametrize("text", ["0", "7", "49650000000000000000000000000000000000000000000001000003"])
@pytest.mark.parametrize("deaggregate", [False, True])
def test_a_position_is_written_as_a_sequence_number(text: str, deaggregate: bool) -> None:  # noqa: FBT001
    one = codec(deaggregate=deaggregate)
    assert one.write_position(one.read_position(text)) == text


def test_a_position_within_an_aggregate_is_before_all_of_it_where_none_is_taken_apart() -> None:
    assert codec(deaggregate=True).write_position(codec(deaggregate=True).read_position("7.2")) == "7.2"
    assert codec().read_position("7.2") == 6


@pytest.mark.parametrize("text", ["", "x", "-1", "1.", "1.x", "01", "1.5.2", "1.16777215", "9" * 200, "\u0661"])
@pytest.mark.parametrize("deaggregate", [False, True])
def test_what_is_no_position_is_refused(text: str, deaggregate: bool) -> None:  # noqa: FBT001
    with pytest.raises(ValueError, match="is no sequence number: give digits"):
        codec(deaggregate=deaggregate).read_position(text)


# --- filters


@pytest.mark.parametrize(
    ("pattern", "passes"),
    [
        ({"partitionKey": ["user-1"]}, True),
        ({"partitionKey": ["user-2"]}, False),
        ({"data": {"page": ["/a"]}}, True),
        ({"data": {"page": ["/b"]}}, False),
        ({"partitionKey": ["user-1"], "data": {"page": ["/a"]}}, True),
        ({"eventName": ["aws:kinesis:record"], "awsRegion": ["eu-west-1"]}, True),
        ({"sequenceNumber": [str(FIRST)], "kinesisSchemaVersion": ["1.0"]}, True),
        ({"approximateArrivalTimestamp": [{"numeric": [">", 1767225600]}]}, True),
        ({"kinesis": {"partitionKey": ["user-1"]}}, False),
    ],
)
def test_filters_see_the_record_fields_at_top_level(pattern: object, passes: bool) -> None:  # noqa: FBT001
    [row] = chunk(answer()).rows
    assert compile_filters([json.dumps(pattern)], KINESIS).matches(*codec().view(row)) is passes


def test_data_that_is_no_json_is_dropped_by_a_pattern_on_fields() -> None:
    matches = compile_filters(['{"data": {"page": [{"exists": true}]}}'], KINESIS).matches
    for data in (b"not json", b"\xff", b"", b"5"):
        [row] = chunk(answer(data=data)).rows
        assert not matches(*codec().view(row))


def test_data_that_is_no_base64_is_seen_as_it_is() -> None:
    [row] = chunk(answer(Data="no base64!")).rows
    assert codec().view(row)[1] == b"no base64!"


# --- failure records


@pytest.mark.parametrize("arn", [ARN, f"{ARN}/consumer/clicks-app:1767225600"])
def test_a_failed_batch_is_described_as_on_aws(arn: str) -> None:
    wanted = json.loads((ROOT / "tests/vectors/destinations/kinesis_on_failure_sqs.json").read_text())
    one = codec(arn)
    read = one.chunk(SHARD, received(*CLICKS))
    failure = failed_batch(
        shard=SHARD,
        first_position=FIRST,
        last_position=SECOND,
        batch_size=2,
        first_time_ms=read.times_ms[0],
        last_time_ms=read.times_ms[1],
    )
    # A codec that has not found its stream yet describes it too.
    info = KinesisCodec().batch_info(failure, one.event(read.rows))
    assert json.dumps(info) == json.dumps({"KinesisBatchInfo": wanted["KinesisBatchInfo"] | {"streamArn": arn}})
