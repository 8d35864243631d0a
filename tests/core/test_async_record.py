"""Records of asynchronous events against recordings of those that AWS makes, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asynchronous.record import ERROR_MESSAGE_BYTES, dead_letter_message, destination_message
from router.core.asynchronous import AsyncEvent, Condition, LastAnswer, Settled

VECTORS = Path(__file__).parents[1] / "vectors" / "destinations"
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:worker"
REQUEST = "c0ffee00-1111-4222-8333-444455556666"
EVENT = AsyncEvent(REQUEST, "worker", None, 0.0, 0.0, 13)
FAILED = LastAnswer(200, "$LATEST", "Unhandled", b'{"errorMessage":"boom"}', "boom")


def sample(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return record


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def settled(record: dict[str, Any]) -> Settled:
    """How the event of a recorded record had ended."""
    context, response = record["requestContext"], record.get("responseContext")
    last = None
    if response:
        payload = compact(record["responsePayload"]) if "responsePayload" in record else None
        error = record["responsePayload"].get("errorMessage") if payload else None
        last = LastAnswer(
            response["statusCode"], response.get("executedVersion"), response.get("functionError"), payload, error
        )
    at_s = datetime.fromisoformat(record["timestamp"]).timestamp()
    event = replace(EVENT, last=last)
    return Settled(event, Condition(context["condition"]), context["approximateInvokeCount"], at_s)


@pytest.mark.parametrize(
    "name",
    [
        "async_on_success.json",
        "async_on_failure_retries_exhausted.json",
        "async_on_failure_event_age_exceeded.json",
        "async_on_failure_never_invoked.json",
    ],
)
def test_a_record_is_the_recorded_one(name: str) -> None:
    expected = sample(name)
    message = destination_message(settled(expected), compact(expected["requestPayload"]), FUNCTION)
    assert message.body == compact(expected)
    at_s = datetime.fromisoformat(expected["timestamp"]).timestamp()
    assert (message.id, message.function, message.at_s) == (REQUEST, "worker", at_s)


def test_an_event_bus_is_given_the_record_as_its_detail_and_the_recorded_type() -> None:
    expected = sample("async_on_failure_eventbridge.json")
    message = destination_message(settled(expected["detail"]), compact(expected["detail"]["requestPayload"]), FUNCTION)
    assert message.body == compact(expected["detail"])
    assert message.detail_type == expected["detail-type"]
    assert message.function_arn == expected["resources"][1]
    done = destination_message(settled(sample("async_on_success.json")), b"1", FUNCTION)
    assert done.detail_type == "Lambda Function Invocation Result - Success"


def test_a_dead_letter_queue_is_given_the_recorded_message() -> None:
    expected = sample("async_dlq_sqs_message.json")
    body = expected["Body"].encode()
    message = dead_letter_message(settled(sample("async_on_failure_retries_exhausted.json")), body, FUNCTION)
    assert message.body == body
    assert message.small is None
    recorded = expected["MessageAttributes"]
    assert list(message.attributes) == list(recorded)
    for name, (kind, value) in message.attributes.items():
        assert recorded[name] == {"DataType": kind, "StringValue": value}


def test_where_a_record_is_too_large_it_goes_without_both_payloads() -> None:
    expected = sample("async_on_failure_retries_exhausted.json")
    message = destination_message(settled(expected), b"1", FUNCTION)
    del expected["requestPayload"], expected["responsePayload"]
    assert message.small == compact(expected)


def test_what_was_invoked_is_named_with_its_qualifier() -> None:
    event = replace(EVENT, qualifier="live", last=FAILED)
    message = destination_message(Settled(event, Condition.RETRIES_EXHAUSTED, 3, 1.0), b"1", FUNCTION)
    assert json.loads(message.body)["requestContext"]["functionArn"] == f"{FUNCTION}:live"
    assert message.function_arn == f"{FUNCTION}:live"


def test_payloads_stand_in_a_record_byte_for_byte() -> None:
    odd = b'{"total": 1.50E9, "n": 123456789012345678901234567890, "e": "\xc3\xa9\\u00e9"}'
    event = replace(EVENT, last=LastAnswer(200, "3", None, odd))
    body = destination_message(Settled(event, Condition.SUCCESS, 1, 1.0), odd, FUNCTION).body
    assert b'"requestPayload":' + odd + b"," in body
    assert body.endswith(b'"responsePayload":' + odd + b"}")


def test_an_event_without_payload_is_an_empty_object_as_its_handler_sees_it() -> None:
    ended = Settled(replace(EVENT, last=FAILED), Condition.RETRIES_EXHAUSTED, 1, 1.0)
    assert json.loads(destination_message(ended, b"", FUNCTION).body)["requestPayload"] == {}
    assert dead_letter_message(ended, b"", FUNCTION).body == b"{}"


@pytest.mark.parametrize("result", [b"", None])
def test_an_empty_result_is_left_out(result: bytes | None) -> None:
    event = replace(EVENT, last=LastAnswer(200, "$LATEST", None, result))
    record = json.loads(destination_message(Settled(event, Condition.SUCCESS, 1, 1.0), b"1", FUNCTION).body)
    assert list(record)[-1] == "responseContext"


@pytest.mark.parametrize("result", [b'"\\ud800"', b'{"a": [1e999, "\\udead"]}'])
def test_half_a_character_that_is_escaped_is_json(result: bytes) -> None:
    event = replace(EVENT, last=LastAnswer(200, "$LATEST", None, result))
    message = destination_message(Settled(event, Condition.SUCCESS, 1, 1.0), b"1", FUNCTION)
    assert message.body.endswith(b',"responsePayload":' + result + b"}")


@pytest.mark.parametrize("result", [b"NaN", b"<html>", b'{"half":', b'"\xff"', b"[" * 9000 + b"]" * 9000])
def test_a_result_that_is_no_json_is_left_out_and_that_is_said(result: bytes) -> None:
    event = replace(EVENT, last=LastAnswer(200, "$LATEST", None, result))
    record = json.loads(destination_message(Settled(event, Condition.SUCCESS, 1, 1.0), b"1", FUNCTION).body)
    assert "responsePayload" not in record
    assert record["deliveryError"] == {"statusCode": 400, "errorCode": "InvalidRequestContentException"}


def test_without_concurrency_there_is_no_response_not_even_of_an_earlier_try() -> None:
    for last in (None, LastAnswer(429), FAILED):
        ended = Settled(replace(EVENT, last=last), Condition.ZERO_RESERVED_CONCURRENCY, 0, 1.0)
        record = json.loads(destination_message(ended, b"1", FUNCTION).body)
        assert list(record) == ["version", "timestamp", "requestContext", "requestPayload"]
        assert record["requestContext"]["approximateInvokeCount"] == 0
        attributes = dead_letter_message(ended, b"1", FUNCTION).attributes
        assert "ErrorCode" not in attributes
        assert attributes["ErrorMessage"] == (
            "String",
            "Function not invoked. Function isconfigured with zero reserved concurrent executions",
        )


@pytest.mark.parametrize(
    ("last", "qualifier", "code", "text"),
    [
        (LastAnswer(404), None, "404", f"Function not found: {FUNCTION}:$LATEST"),
        (LastAnswer(404), "live", "404", f"Function not found: {FUNCTION}:live"),
        (LastAnswer(429), None, "429", "Rate Exceeded."),
        (FAILED, None, "200", "boom"),
    ],
)
def test_what_a_dead_letter_queue_is_told_of_the_last_try(
    last: LastAnswer, qualifier: str | None, code: str, text: str
) -> None:
    event = replace(EVENT, qualifier=qualifier, last=last)
    attributes = dead_letter_message(Settled(event, Condition.RETRIES_EXHAUSTED, 3, 1.0), b"1", FUNCTION).attributes
    assert attributes["ErrorCode"] == ("Number", code)
    assert attributes["ErrorMessage"] == ("String", text)


def test_a_target_that_is_gone_leaves_no_version_and_no_payload() -> None:
    event = replace(EVENT, last=LastAnswer(404))
    record = json.loads(destination_message(Settled(event, Condition.RETRIES_EXHAUSTED, 2, 1.0), b"1", FUNCTION).body)
    assert record["responseContext"] == {"statusCode": 404}
    assert "responsePayload" not in record


def test_an_error_without_text_has_no_message_for_a_queue_takes_no_empty_one() -> None:
    for last in (None, replace(FAILED, error_message=""), replace(FAILED, error_message=None)):
        ended = Settled(replace(EVENT, last=last), Condition.EVENT_AGE_EXCEEDED, 0, 1.0)
        assert "ErrorMessage" not in dead_letter_message(ended, b"1", FUNCTION).attributes


@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_an_error_message_is_its_first_bytes_and_only_the_last_character_may_be_cut(text: str) -> None:
    text = text * (ERROR_MESSAGE_BYTES // len(text) + 1)
    event = replace(EVENT, last=replace(FAILED, error_message=text))
    _, sent = dead_letter_message(Settled(event, Condition.RETRIES_EXHAUSTED, 1, 1.0), b"1", FUNCTION).attributes[
        "ErrorMessage"
    ]
    readable = text.encode(errors="replace").decode()
    assert readable.startswith(sent.rstrip("\ufffd"))
    assert len(sent.rstrip("\ufffd").encode()) <= ERROR_MESSAGE_BYTES
    assert len(sent.encode()) <= ERROR_MESSAGE_BYTES + 2


def test_a_character_that_is_cut_is_replaced() -> None:
    event = replace(EVENT, last=replace(FAILED, error_message="x" * (ERROR_MESSAGE_BYTES - 1) + "é"))
    attributes = dead_letter_message(Settled(event, Condition.RETRIES_EXHAUSTED, 1, 1.0), b"1", FUNCTION).attributes
    assert attributes["ErrorMessage"][1] == "x" * (ERROR_MESSAGE_BYTES - 1) + "\ufffd"
