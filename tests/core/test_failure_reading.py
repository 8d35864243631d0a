"""Failure records read back: AWS's own, those that we write, and whatever else somebody hands us."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.model import Reason, WindowCall
from router.failures.reading import RECORD_LIMIT_BYTES, FailedRange, events, read_record
from router.failures.record import Payload, encode, failure_record, function_arn, kafka_topic_records
from router.ports import FailureEntry
from tests.fakes.failures import entry

VECTORS = Path(__file__).parents[1] / "vectors" / "destinations"
STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks"
ARN = function_arn("worker")


def sample(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return record


def test_a_record_of_kinesis_from_a_queue() -> None:
    record = read_record((VECTORS / "kinesis_on_failure_sqs.json").read_bytes())
    assert (record.kind, record.stream, record.count, record.payload) == ("kinesis", STREAM, 2, None)
    assert record.ranges == (
        FailedRange(
            "shardId-000000000003",
            49650000000000000000000000000000000000000000000001000003,
            49650000000000000000000000000000000000000000000002000006,
            1767225600987,
        ),
    )
    assert record.made_ms == 1767225670021


def test_a_record_of_kinesis_from_a_bucket_carries_its_event() -> None:
    record = read_record((VECTORS / "kinesis_on_failure_s3.json").read_bytes())
    [(shard, event)] = events(record)
    assert shard == "shardId-000000000003"
    assert event.decode() == sample("kinesis_on_failure_s3.json")["payload"]


def test_records_of_kafka_name_a_range_for_each_partition() -> None:
    record = read_record((VECTORS / "kafka_on_failure_sqs.json").read_bytes())
    assert (record.kind, record.stream, record.count) == ("kafka", "orders", 3)
    assert record.servers == ("b-1.main.example.internal:9092", "b-2.main.example.internal:9092")
    assert [(each.shard, each.first, each.last) for each in record.ranges] == [("orders-0", 15, 16), ("orders-1", 8, 8)]
    carried = events(read_record((VECTORS / "kafka_on_failure_s3.json").read_bytes()))
    assert [(shard, list(json.loads(event)["records"])) for shard, event in carried] == [
        ("orders-0", ["orders-0"]),
        ("orders-1", ["orders-1"]),
    ]


def test_a_message_of_a_kafka_topic_names_its_partition_in_the_event() -> None:
    record = read_record((VECTORS / "kafka_on_failure_kafka.json").read_bytes())
    assert [(each.shard, each.first, each.last) for each in record.ranges] == [("orders-0", 15, 15)]
    [(_, event)] = events(record)
    assert json.loads(event)["records"]["orders-0"][0]["offset"] == 15


def test_the_final_call_of_a_window_has_no_range_and_runs_from_its_event_only() -> None:
    final = sample("dynamodb_window_final_failure_s3.json")
    record = read_record(json.dumps(final).encode())
    assert (record.kind, record.ranges) == ("dynamodb", ())
    assert [event for _, event in events(record)] == [final["payload"].encode()]
    del final["payload"]
    with pytest.raises(ValueError, match="final call of a tumbling window"):
        read_record(json.dumps(final).encode())


def test_a_record_of_a_window_names_it() -> None:
    record = sample("kinesis_on_failure_sqs.json")
    record["timeWindowInfo"] = {
        "window": {"start": "2026-01-01T00:00:10Z", "end": "2026-01-01T00:00:20Z"},
        "isFinalInvokeForWindow": False,
        "isWindowTerminatedEarly": False,
    }
    assert read_record(json.dumps(record).encode()).window == WindowCall(1767225610, 1767225620)


def test_a_notification_is_unwrapped() -> None:
    text = (VECTORS / "kinesis_on_failure_sqs.json").read_text()
    wrapped = json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:0:t", "Message": text})
    assert read_record(wrapped.encode()) == read_record(text.encode())


def test_the_id_is_of_what_is_said_and_not_of_how_it_is_written() -> None:
    record = sample("kinesis_on_failure_sqs.json")
    texts = [json.dumps(record), json.dumps(record, indent=2), json.dumps(dict(reversed(record.items())))]
    assert len({read_record(text.encode()).id for text in texts}) == 1
    for part, name, value in (
        ("KinesisBatchInfo", "endSequenceNumber", "49650000000000000000000000000000000000000000000003000003"),
        ("requestContext", "requestId", "another"),
    ):
        other = {**record, part: {**record[part], name: value}}
        assert read_record(json.dumps(other).encode()).id != read_record(texts[0].encode()).id


# --- our own

PAYLOADS: tuple[Payload, ...] = ("none", "escaped", "object")
numbers = st.integers(0, 10**56)
shards = st.from_regex(r"[a-z]{1,10}-[0-9]{1,5}", fullmatch=True)


@given(first=numbers, more=numbers, shard=shards, count=st.integers(1, 10_000), payload=st.sampled_from(PAYLOADS))
def test_what_we_write_for_streams_is_read_back(
    first: int, more: int, shard: str, count: int, payload: Payload
) -> None:
    info = {
        "shardId": shard,
        "startSequenceNumber": str(first),
        "endSequenceNumber": str(first + more),
        "approximateArrivalOfFirstRecord": "2026-01-01T00:00:00.987Z",
        "approximateArrivalOfLastRecord": "2026-01-01T00:00:00.987Z",
        "batchSize": count,
        "streamArn": STREAM,
    }
    for name, kind in (("KinesisBatchInfo", "kinesis"), ("DDBStreamBatchInfo", "dynamodb")):
        stored = made(batch_info={name: info})
        event = b'{"Records":[{"x":"\xc3\xa9"}]}'
        whole = failure_record(stored, function_arn=ARN, event=event, payload=payload)
        record = read_record(encode(whole))
        assert (record.kind, record.stream, record.count) == (kind, STREAM, count)
        assert record.ranges == (FailedRange(shard, first, first + more, 1767225600987),)
        assert record.payload == (None if payload == "none" else event)


@given(first=st.integers(0, 2**62), more=st.integers(0, 2**62), partition=st.integers(0, 10_000))
def test_what_we_write_for_kafka_is_read_back(first: int, more: int, partition: int) -> None:
    shard = f"orders.eu-{partition}"
    offsets = {
        "firstRecordOffset": str(first),
        "lastRecordOffset": str(first + more),
        "firstRecordTimestamp": "1969-12-31T23:59:59.999Z",
        "lastRecordTimestamp": "1969-12-31T23:59:59.999Z",
    }
    info = {"batchSize": 2, "bootstrapServers": "a:1,b:2", "payloadSize": 1, "recordsInfo": {shard: offsets}}
    stored = made(batch_info={"KafkaBatchInfo": info})
    record = read_record(encode(failure_record(stored, function_arn=ARN)))
    assert (record.stream, record.servers) == ("orders.eu", ("a:1", "b:2"))
    assert record.ranges == (FailedRange(shard, first, first + more, -1),)

    event = {"records": {shard: [{"topic": "orders.eu", "partition": partition, "offset": first, "timestamp": 5}]}}
    [(_, message)] = kafka_topic_records(stored, function_arn=ARN, event=json.dumps(event).encode())
    record = read_record(encode(message))
    assert record.ranges == (FailedRange(shard, first, first, 5),)


def made(**changes: Any) -> FailureEntry:
    return entry(reason=Reason.RETRIES, **changes)


# --- what is none


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"startSequenceNumber": "3", "endSequenceNumber": "2"}, "inverted: it begins at 3 and ends at 2"),
        ({"startSequenceNumber": "-1"}, "'-1' is no position"),
        ({"startSequenceNumber": "1e3"}, "'1e3' is no position"),
        ({"startSequenceNumber": "٣"}, "is no position"),
        ({"endSequenceNumber": "9" * 129}, "is no position"),
        ({"endSequenceNumber": None}, "'None' is no position"),
        ({"startSequenceNumber": 3}, "Expected `str | null`, got `int`"),
        ({"shardId": ""}, "'' is no shard"),
        ({"shardId": "a\nb"}, "is no shard"),
        ({"shardId": ["a"]}, "Expected `str`, got `array`"),
        ({"streamArn": None}, "Expected `str`, got `null`"),
        ({"batchSize": "2"}, "Expected `int | null`, got `str`"),
    ],
)
def test_what_is_wrong_with_a_stream_s_record_is_said(change: dict[str, Any], complaint: str) -> None:
    record = sample("kinesis_on_failure_sqs.json")
    record["KinesisBatchInfo"] |= change
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read_record(json.dumps(record).encode())


@pytest.mark.parametrize(
    ("info", "complaint"),
    [
        ({}, "names no offsets"),
        ({"recordInfo": {"offset": "1"}}, "does not say of which partition"),
        ({"recordsInfo": {"orders": {"firstRecordOffset": "1", "lastRecordOffset": "1"}}}, "of no one topic"),
        ({"recordsInfo": {"-1": {"firstRecordOffset": "1", "lastRecordOffset": "1"}}}, "of no one topic"),
        (
            {"recordsInfo": {each: {"firstRecordOffset": 1, "lastRecordOffset": 1} for each in ("a-0", "b-0")}},
            "of no one topic",
        ),
    ],
)
def test_what_is_wrong_with_a_record_of_kafka_is_said(info: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_record(json.dumps({"KafkaBatchInfo": info}).encode())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b'"text"', "Expected `object`, got `str`"),
        (b'{"Records":[]}', "no failure record of a stream"),
        (b'{"version":"1.0","claimCheck":{"failure":"a"}}', "only a claim check"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"x" * (RECORD_LIMIT_BYTES + 1), "larger than a failure record"),
        (b'{"KafkaBatchInfo":{"recordInfo":{"offset":1}},"payload":{"records":7}}', "its payload is no Kafka event"),
        (b'{"KinesisBatchInfo":{"streamArn":"a","shardId":"b"},"payload":"\xff"}', "no JSON"),
    ],
)
def test_what_is_no_record_is_said(text: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_record(text)


def test_one_of_two_sources_is_none() -> None:
    both = {**sample("kinesis_on_failure_sqs.json"), **sample("kafka_on_failure_sqs.json")}
    with pytest.raises(ValueError, match="more than one source"):
        read_record(json.dumps(both).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ("requestContext", "timestamp", "payload", "timeWindowInfo", "claimCheck", "Type", "Message")
INFOS = ("KinesisBatchInfo", "DDBStreamBatchInfo", "KafkaBatchInfo")


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from((*MEMBERS, *INFOS)), json_values).map(lambda each: json.dumps(each).encode())
)
def test_nothing_else_than_a_value_error_comes_of_what_is_foreign(text: bytes) -> None:
    _is_a_record_or_none(text)


@given(st.sampled_from(sorted(VECTORS.glob("*.json"))), st.data())
def test_nor_of_a_record_with_something_else_in_it(path: Path, data: st.DataObject) -> None:
    record = json.loads(path.read_text())
    place = record
    while True:
        name = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or data.draw(st.booleans()):
            break
        place = place[name]
    place[name] = data.draw(json_values)
    _is_a_record_or_none(json.dumps(record).encode())


def _is_a_record_or_none(text: bytes) -> None:
    try:
        record = read_record(text)
        if record.payload is not None:
            events(record)
    except ValueError:
        return
    assert record.ranges or record.payload is not None
    assert all(0 <= each.first <= each.last for each in record.ranges)
