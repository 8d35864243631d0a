"""The shape of Kafka records, against the event and failure record of the AWS Lambda developer guide."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka_codec import KafkaCodec, KafkaRecord, chunk_of, record_of
from router.core.model import Batch, FailedBatch, Part, Reason
from tests.fakes.failures import failed_batch

CODEC = KafkaCodec(("broker-a:9092", "broker-b:9092"), "SelfManagedKafka")


def record(offset: int = 15, **changes: Any) -> KafkaRecord:
    fields: dict[str, Any] = {
        "topic": "orders",
        "partition": 0,
        "offset": offset,
        "timestamp": 1767225600000 + offset,
        "timestamp_type": 0,
        "key": b"order-17",
        "value": b'{"total":5}',
        "checksum": None,
        "headers": (),
    } | changes
    for part in ("key", "value"):
        fields[f"serialized_{part}_size"] = -1 if fields[part] is None else len(fields[part])
    return record_of(ConsumerRecord(**fields))


def only(row: KafkaRecord) -> dict[str, Any]:
    encoded: dict[str, Any]
    [[encoded]] = json.loads(CODEC.event([row]))["records"].values()
    return encoded


def test_the_event_is_the_documented_one_to_the_byte() -> None:
    rows = [
        record(15, headers=(("trace", b"abc"), ("bin", b"\xdc\x00\x7f\x80"))),
        record(16, key=None, value=b"plain"),
    ]
    assert CODEC.event(rows) == (
        b'{"eventSource":"SelfManagedKafka","bootstrapServers":"broker-a:9092,broker-b:9092","records":{"orders-0":['
        b'{"topic":"orders","partition":0,"offset":15,"timestamp":1767225600015,"timestampType":"CREATE_TIME",'
        b'"key":"b3JkZXItMTc=","value":"eyJ0b3RhbCI6NX0=",'
        b'"headers":[{"trace":[97,98,99]},{"bin":[-36,0,127,-128]}]},'
        b'{"topic":"orders","partition":0,"offset":16,"timestamp":1767225600016,"timestampType":"CREATE_TIME",'
        b'"value":"cGxhaW4=","headers":[]}]}}'
    )


def test_a_tombstone_has_no_value_and_a_keyless_record_no_key() -> None:
    assert "value" not in only(record(value=None))
    assert "key" not in only(record(key=None))


def test_empty_key_and_value_are_there_and_empty() -> None:
    encoded = only(record(key=b"", value=b""))
    assert (encoded["key"], encoded["value"]) == ("", "")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 699, 700, 701, 1_000_000])
def test_values_of_any_size_are_base64(size: int) -> None:
    value = bytes(number % 256 for number in range(size))
    assert base64.b64decode(only(record(value=value))["value"]) == value


def test_repeated_headers_keep_their_order() -> None:
    headers = (("a", b"\x01"), ("b", b""), ("a", b"\x02"), ("none", None))
    assert only(record(headers=headers))["headers"] == [{"a": [1]}, {"b": []}, {"a": [2]}, {"none": []}]


@pytest.mark.parametrize(("number", "name"), [(0, "CREATE_TIME"), (1, "LOG_APPEND_TIME"), (None, "NO_TIMESTAMP_TYPE")])
def test_the_timestamp_type_is_named(number: int | None, name: str) -> None:
    assert only(record(timestamp_type=number))["timestampType"] == name


def test_a_record_older_than_timestamps_has_minus_one() -> None:
    row = record(timestamp=None, timestamp_type=None)
    assert only(row)["timestamp"] == -1
    assert list(chunk_of("orders-0", [row], needs_keys=False).times_ms) == [-1]


RECORDS = st.builds(
    record,
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(0, 2**62),
    timestamp_type=st.sampled_from([0, 1, None]),
    key=st.none() | st.binary(max_size=40),
    value=st.none() | st.binary(max_size=40) | st.binary(min_size=650, max_size=800),
    headers=st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=12)), max_size=3).map(tuple),
)


@given(st.lists(RECORDS, min_size=1, max_size=5, unique_by=lambda row: row.offset))
def test_what_is_read_back_from_an_event_makes_the_same_event(rows: list[KafkaRecord]) -> None:
    event = CODEC.event(rows)
    chunk = CODEC.parse(event)
    assert CODEC.event(chunk.rows) == event
    assert (chunk.shard, list(chunk.positions)) == ("orders-0", [row.offset for row in rows])
    assert list(chunk.keys) == [row.key for row in rows]
    assert list(chunk.times_ms) == [row.timestamp for row in rows]
    assert [CODEC.view(row) for row in chunk.rows] == [CODEC.view(row) for row in rows]


@given(RECORDS, RECORDS)
def test_the_size_of_a_record_is_an_upper_bound_of_what_it_adds_to_an_event(
    first: KafkaRecord, second: KafkaRecord
) -> None:
    added = len(CODEC.event([first, second])) - len(CODEC.event([first]))
    size = chunk_of("orders-0", [second], needs_keys=False).sizes[0]
    assert added <= size


def test_the_size_is_close_to_the_truth() -> None:
    rows = [record(offset, value=b"x" * 200) for offset in range(100)]
    assert sum(chunk_of("orders-0", rows, needs_keys=False).sizes) < 1.15 * len(CODEC.event(rows))


def test_a_chunk_may_cover_more_than_its_records_and_leave_keys_out() -> None:
    chunk = chunk_of("orders-0", [record(3), record(9)], needs_keys=False, through=12)
    assert (list(chunk.positions), chunk.through, list(chunk.keys)) == ([3, 9], 12, [])


def test_an_identifier_names_partition_and_offset_of_a_record_in_the_batch() -> None:
    chunk = chunk_of("orders-0", [record(offset) for offset in (3, 5, 9)], needs_keys=False)
    batch = Batch("id", "orders-0", 0, [Part(chunk, [0, 2])], 2)
    assert CODEC.identify({"partition": "orders-0", "offset": 9}, batch) == 9
    assert CODEC.identify({"partition": "orders-0", "offset": 9, "more": 1}, batch) == 9
    items: list[object] = [
        {"partition": "orders-0", "offset": 5},
        {"partition": "orders-1", "offset": 9},
        {"partition": "orders-0", "offset": "9"},
        {"partition": "orders-0", "offset": 9.0},
        {"partition": "orders-0"},
        {"offset": 9},
        "orders-0",
        9,
        None,
        [],
    ]
    for item in items:
        assert CODEC.identify(item, batch) is None


def test_true_is_not_the_offset_one() -> None:
    batch = Batch("id", "orders-0", 0, [Part(chunk_of("orders-0", [record(1)], needs_keys=False), range(1))], 1)
    assert CODEC.identify({"partition": "orders-0", "offset": True}, batch) is None


def test_patterns_see_metadata_with_the_key_and_the_value_still_encoded() -> None:
    metadata, value = CODEC.view(record(15))
    assert metadata == {
        "topic": "orders",
        "partition": 0,
        "offset": 15,
        "timestamp": 1767225600015,
        "timestampType": "CREATE_TIME",
        "key": b"order-17",
    }
    assert value == b'{"total":5}'
    metadata, value = CODEC.view(record(key=None, value=None))
    assert "key" not in metadata
    assert value is None


def test_a_failed_batch_is_described_as_documented() -> None:
    failure = FailedBatch(
        id="f",
        mapping="m",
        function="worker",
        shard="orders-0",
        reason=Reason.RETRIES,
        first_position=15,
        last_position=16,
        batch_size=2,
        attempts=4,
        request_id="r",
        error=None,
        responded=True,
        function_error="Unhandled",
        first_time_ms=1767225600015,
        last_time_ms=1767225600016,
        failed_at_s=0.0,
        tries=(),
    )
    assert CODEC.batch_info(failure, b"x" * 757) == {
        "KafkaBatchInfo": {
            "batchSize": 2,
            "bootstrapServers": "broker-a:9092,broker-b:9092",
            "payloadSize": 757,
            "recordsInfo": {
                "orders-0": {
                    "firstRecordOffset": "15",
                    "lastRecordOffset": "16",
                    "firstRecordTimestamp": "2026-01-01T00:00:00.015Z",
                    "lastRecordTimestamp": "2026-01-01T00:00:00.016Z",
                }
            },
        }
    }


def test_a_cluster_of_amazon_is_told_by_its_arn() -> None:
    arn = "arn:aws:kafka:us-east-1:000000000000:cluster/orders/1"
    codec = KafkaCodec(("broker:9092",), "aws:kafka", arn)
    event = codec.event([KafkaRecord("orders", 0, 15, 1, "CREATE_TIME")])
    assert list(json.loads(event).items())[:3] == [
        ("eventSource", "aws:kafka"),
        ("eventSourceArn", arn),
        ("bootstrapServers", "broker:9092"),
    ]
    assert codec.event(codec.parse(event).rows) == event
    info: Any = codec.batch_info(failed_batch(), b"")
    assert list(info["KafkaBatchInfo"].items())[:2] == [("batchSize", 3), ("eventSourceArn", arn)]


@pytest.mark.parametrize(
    ("time_ms", "shown"),
    [
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_767_225_600_000_000, "9999-12-31T23:59:59.000Z"),  # microseconds, by mistake
        (-(2**62), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_failed_record_may_carry_any_time(time_ms: int, shown: str) -> None:
    info: Any = CODEC.batch_info(failed_batch(first_time_ms=time_ms, last_time_ms=time_ms), b"")
    records = info["KafkaBatchInfo"]["recordsInfo"]["orders-0"]
    assert (records["firstRecordTimestamp"], records["lastRecordTimestamp"]) == (shown, shown)


@pytest.mark.parametrize(
    "event", [b"", b"\xff", b'{"records":', b'{"records": {"orders-0": [{"offset": "x"}]}}', b"[]"]
)
def test_what_is_no_event_is_a_value_error(event: bytes) -> None:
    with pytest.raises(ValueError, match="no Kafka event"):
        CODEC.parse(event)
