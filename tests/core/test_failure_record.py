"""Failure records against examples of the records that AWS makes, member for member and in the same order."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from router.core.model import Reason, WindowCall
from router.failures.record import (
    encode,
    failure_record,
    forms,
    function_arn,
    kafka_topic_records,
    mapping_uuid,
    object_key,
)
from router.failures.shown import to_json, to_json_whole
from router.ports import FailureEntry
from tests.fakes.failures import entry

VECTORS = Path(__file__).parents[1] / "vectors" / "destinations"
ARN = "arn:aws:lambda:eu-west-1:111122223333:function:worker"


def sample(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return record


def stored(record: dict[str, Any], event: bytes = b"") -> FailureEntry:
    """The failure that the sample record was made of."""
    context = record["requestContext"]
    response = record.get("responseContext")
    info = {name: value for name, value in record.items() if name.endswith("BatchInfo")}
    window = None
    if "timeWindowInfo" in record:
        bounds = [datetime.fromisoformat(each).timestamp() for each in record["timeWindowInfo"]["window"].values()]
        window = WindowCall(*map(round, bounds), b"", record["timeWindowInfo"]["isFinalInvokeForWindow"])
    return entry(
        window=window,
        event=event,
        batch_info=info,
        reason=Reason(context["condition"]),
        attempts=context["approximateInvokeCount"],
        responded=response is not None,
        function_error=response and response["functionError"],
    )


def same_text(record: dict[str, Any], expected: dict[str, Any]) -> bool:
    return encode(record) == json.dumps(expected, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "name",
    [
        "kafka_on_failure_sqs.json",
        "kinesis_on_failure_sqs.json",
        "kinesis_partial_failure.json",
        "kinesis_record_age_exceeded.json",
    ],
)
def test_a_record_without_payload(name: str) -> None:
    expected = sample(name)
    assert same_text(failure_record(stored(expected), function_arn=ARN), expected)


@pytest.mark.parametrize("name", ["kafka_on_failure_s3.json", "kinesis_on_failure_s3.json"])
def test_a_record_with_the_event_as_escaped_text(name: str) -> None:
    expected = sample(name)
    event = expected["payload"].encode()
    assert same_text(
        failure_record(stored(expected, event), function_arn=ARN, event=event, payload="escaped"), expected
    )


def test_a_record_of_a_tumbling_window_ends_with_it() -> None:
    expected = sample("dynamodb_window_final_failure_s3.json")
    event = expected["payload"].encode()
    record = failure_record(
        stored(expected, event), function_arn=expected["requestContext"]["functionArn"], event=event, payload="escaped"
    )
    assert list(record) == list(expected)
    for member in ("requestContext", "payload", "DDBStreamBatchInfo", "timeWindowInfo"):
        assert same_text(record[member], expected[member])


def test_a_record_with_the_event_itself_keeps_every_byte_of_it() -> None:
    event = b'{"total": 1.789651658E9, "name": "\xc3\xa9", "n": 123456789012345678901234567890}'
    record = failure_record(entry(), function_arn=ARN, event=event, payload="object")
    assert b'"payload":' + event + b"}" in encode(record)


def test_a_kafka_topic_is_given_one_message_a_record_under_the_records_key() -> None:
    whole, one = sample("kafka_on_failure_s3.json"), sample("kafka_on_failure_kafka.json")
    whole["requestContext"]["approximateInvokeCount"] = one["requestContext"]["approximateInvokeCount"]
    event = whole["payload"].encode()
    messages = list(kafka_topic_records(stored(whole, event), function_arn=ARN, event=event))
    assert [key for key, _ in messages] == [b"order-17", None, b"order-18"]
    assert same_text(messages[0][1], one)
    assert [list(record["payload"]["records"]) for _, record in messages] == [["orders-0"], ["orders-0"], ["orders-1"]]
    assert [record["KafkaBatchInfo"]["recordInfo"]["offset"] for _, record in messages] == ["15", "16", "8"]


def test_a_kafka_topic_is_told_the_other_conditions_as_they_are() -> None:
    whole = sample("kafka_on_failure_s3.json")
    whole["requestContext"]["condition"] = "RecordAgeExceeded"
    del whole["responseContext"]
    event = whole["payload"].encode()
    record = next(kafka_topic_records(stored(whole, event), function_arn=ARN, event=event))[1]
    assert record["requestContext"]["condition"] == "RecordAgeExceeded"
    assert "responseContext" not in record


def test_a_kafka_topic_is_told_the_version_that_was_invoked() -> None:
    event = b'{"records":{"t-0":[{"offset":1,"timestamp":1000}]}}'
    arns = [
        next(kafka_topic_records(entry(), function_arn=arn, event=event))[1]["requestContext"]["functionArn"]
        for arn in (ARN, f"{ARN}:live")
    ]
    assert arns == [f"{ARN}:$LATEST", f"{ARN}:live"]


def test_an_empty_key_is_a_key() -> None:
    event = b'{"records":{"t-0":[{"offset":1,"timestamp":1000,"key":""}]}}'
    assert [key for key, _ in kafka_topic_records(entry(), function_arn=ARN, event=event)] == [b""]


def test_a_kafka_topic_is_told_of_a_record_with_any_time() -> None:
    event = b'{"records":{"t-0":[{"offset":1,"timestamp":4611686018427387904}]}}'
    [(_, record)] = kafka_topic_records(entry(), function_arn=ARN, event=event)
    assert record["KafkaBatchInfo"]["recordInfo"]["timestamp"] == "9999-12-31T23:59:59.000Z"


def test_a_failure_of_another_source_is_one_kafka_message_without_key() -> None:
    expected = sample("kinesis_on_failure_s3.json")
    event = expected["payload"].encode()
    [(key, record)] = kafka_topic_records(stored(expected, event), function_arn=ARN, event=event)
    assert key is None
    assert json.loads(encode(record)) == {**expected, "payload": json.loads(event)}


def test_the_same_failure_gives_the_same_text_each_time() -> None:
    assert encode(failure_record(entry(), function_arn=ARN)) == encode(failure_record(entry(), function_arn=ARN))


def test_function_arns() -> None:
    assert function_arn("orders") == "arn:aws:lambda:us-east-1:000000000000:function:orders"
    assert function_arn("orders", "eu-west-1") == "arn:aws:lambda:eu-west-1:000000000000:function:orders"
    assert function_arn("orders", "cn-north-1") == "arn:aws-cn:lambda:cn-north-1:000000000000:function:orders"


def test_what_the_list_prints() -> None:
    assert to_json(entry()) == {
        "id": "f1",
        "mapping": "orders",
        "function": "worker",
        "shard": "orders-0",
        "reason": "RetryAttemptsExhausted",
        "first_position": 15,
        "last_position": 17,
        "batch_size": 3,
        "attempts": 4,
        "error_type": "ValueError",
        "error_message": "no total",
        "failed_at": "2026-01-01T00:01:10.021Z",
        "status": "stored",
        "destination": "sqs:orders-dlq",
        "parent": None,
        "delivery": {"state": "waiting", "tries": 0, "last_error": None, "next_try": None},
    }


def test_the_list_of_a_batch_that_never_ran() -> None:
    shown = to_json(entry(error=None, first_position=2**70))
    assert (shown["error_type"], shown["error_message"]) == (None, None)
    assert shown["first_position"] == "1180591620717411303424"


def test_what_show_prints_beside_the_list() -> None:
    shown = to_json_whole(entry(), b'{"records":{}}')
    assert shown["event"] == {"records": {}}
    assert shown["tries"] == [
        {
            "when": "2026-01-01T00:01:00.500Z",
            "request_id": "c0ffee00",
            "records": 3,
            "error": {"type": "ValueError", "message": "no total", "trace": ["  File a.py"]},
        }
    ]
    assert to_json_whole(entry(), None)["event"] is None


@pytest.mark.parametrize(("kind", "first", "last"), [("SQS", "MessageId", "m"), ("S3", "ObjectKey", "in/a.csv")])
def test_records_without_positions_go_by_their_names(kind: str, first: str, last: str) -> None:
    info = {f"{kind}BatchInfo": {f"first{first}": f"{last}-1", f"last{first}": f"{last}-2"}}
    shown = to_json(replace(entry(first_position=2**100), batch_info=info))
    assert (shown["first_position"], shown["last_position"]) == (f"{last}-1", f"{last}-2")


def test_a_final_call_has_no_positions() -> None:
    shown = to_json(entry(first_position=-1, last_position=-1, batch_size=0, window=WindowCall(0, 10, b"", final=True)))
    assert (shown["first_position"], shown["last_position"], shown["batch_size"]) == (None, None, 0)


def test_an_object_goes_by_the_key_that_aws_gives_it_and_always_by_the_same() -> None:
    failure = entry("f1", mapping="orders", shard="orders-0", failed_at_s=1767225670.021)
    folder = f"aws/lambda/{mapping_uuid('orders')}/orders-0/2026/01/01/"
    key = object_key(failure)
    assert re.fullmatch(rf"{folder}2026-01-01T00\.01\.10-[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}", key)
    assert object_key(failure, "failed/") == f"failed/{key}"
    assert object_key(entry("f2", mapping="orders")) != key
    assert mapping_uuid("invoices") != mapping_uuid("orders")


def test_the_uuid_of_a_mapping_stays_as_objects_are_found_by_it() -> None:
    assert str(mapping_uuid("orders")) == "13c4d4ae-c8e5-5b1f-a7ee-3abc23873d3a"


def test_a_record_with_payload_becomes_smaller_in_two_steps() -> None:
    failure = entry("f1", event=b"x" * 5000)
    record = failure_record(failure, function_arn=ARN, event=b'"' + b"x" * 4998 + b'"', payload="object")
    whole, checked, bare = forms(failure, record)
    assert whole.body == encode(record)
    check = {
        "failure": "f1",
        "mapping": "orders",
        "eventBytes": 5000,
        "fetch": "headrace failures show f1 --json",
    }
    rest = {name: value for name, value in record.items() if name != "payload"}
    assert json.loads(checked.body) == {**rest, "claimCheck": check}
    assert json.loads(bare.body) == {"version": "1.0", "timestamp": record["timestamp"], "claimCheck": check}
    assert [form.is_bare for form in (whole, checked, bare)] == [False, False, True]
    assert len(bare.body) < len(checked.body) < 1024 < len(whole.body)


def test_a_record_without_payload_has_only_the_pointer_for_a_smaller_form() -> None:
    failure = entry("f1")
    whole, bare = forms(failure, failure_record(failure, function_arn=ARN))
    assert "claimCheck" not in json.loads(whole.body)
    assert bare.is_bare


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"destination": None}, None),
        (
            {"deliveries": 2, "delivery_error": "queue away", "next_delivery_s": 1767225700.0},
            {"state": "waiting", "tries": 2, "last_error": "queue away", "next_try": "2026-01-01T00:01:40.000Z"},
        ),
        (
            {"status": "delivered", "deliveries": 3, "next_delivery_s": 1767225700.0},
            {"state": "accepted", "tries": 3, "last_error": None, "next_try": None},
        ),
        (
            {"status": "replaying", "deliveries": 1},
            {"state": "accepted", "tries": 1, "last_error": None, "next_try": None},
        ),
        (
            {"status": "dropped", "deliveries": 1, "delivery_error": "queue away"},
            {"state": "not_needed", "tries": 1, "last_error": "queue away", "next_try": None},
        ),
    ],
)
def test_how_far_a_failure_is_on_its_way(changes: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert to_json(replace(entry(), **changes))["delivery"] == expected
