"""The shape of SQS messages, against the events of the AWS Lambda developer guide and those recorded on AWS."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sqs_codec import ReceivedMessage, SqsCodec, SqsMessage, message_of, position_of
from router.core.filter import SQS, compile_filters
from router.core.model import Batch, Chunk, Part
from tests.fakes.failures import failed_batch

CODEC = SqsCodec()
ARN = "arn:aws:sqs:eu-west-1:111122223333:orders"
FIFO_ARN = f"{ARN}.fifo"
decode_received = msgspec.json.Decoder(ReceivedMessage).decode


def answer(number: int = 1, body: str = "plain text", **changes: Any) -> dict[str, Any]:
    """A message as ReceiveMessage gives it; members that are None are left out."""
    message = {
        "Attributes": {
            "SenderId": "AIDAEXAMPLESENDER",
            "ApproximateFirstReceiveTimestamp": "1767225600456",
            "ApproximateReceiveCount": "1",
            "SentTimestamp": f"176722560012{number}",
        },
        "Body": body,
        "MD5OfBody": hashlib.md5(body.encode()).hexdigest(),
        "MessageId": f"7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a0{number}",
        "ReceiptHandle": f"AQEBexampleHandle{number}==",
    }
    return {name: value for name, value in (message | changes).items() if value is not None}


def message(
    number: int = 1, body: str = "plain text", *, arn: str = ARN, windowed: bool = False, **changes: Any
) -> SqsMessage:
    received = decode_received(json.dumps(answer(number, body, **changes)))
    return message_of(received, arn=arn, region="eu-west-1", windowed=windowed)


def event_of(*messages: SqsMessage) -> bytes:
    return CODEC.event(CODEC.chunk("orders", messages).rows)


def only(message: SqsMessage) -> dict[str, Any]:
    record: dict[str, Any]
    [record] = json.loads(event_of(message))["Records"]
    return record


def view_of(message: SqsMessage) -> tuple[Mapping[str, object], bytes | None]:
    [row] = CODEC.chunk("orders", [message]).rows
    return CODEC.view(row)


def test_the_event_is_the_recorded_one_to_the_byte() -> None:
    attributes = {
        "weight": {"DataType": "Number", "StringValue": "12.5"},
        "blob": {"DataType": "Binary", "BinaryValue": "AAH+"},
        "kind": {"DataType": "String.enum", "StringValue": "größe"},
    }
    event = event_of(
        message(1, '{"total":"99.50"}', MessageAttributes=attributes, MD5OfMessageAttributes="e9e0079a"), message(2)
    )
    assert event.decode() == (
        '{"Records":['
        '{"messageId":"7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a01","receiptHandle":"AQEBexampleHandle1==",'
        '"body":"{\\"total\\":\\"99.50\\"}",'
        '"attributes":{"ApproximateReceiveCount":"1","SentTimestamp":"1767225600121","SenderId":"AIDAEXAMPLESENDER",'
        '"ApproximateFirstReceiveTimestamp":"1767225600456"},'
        '"messageAttributes":{'
        '"weight":{"stringValue":"12.5","stringListValues":[],"binaryListValues":[],"dataType":"Number"},'
        '"blob":{"binaryValue":"AAH+","stringListValues":[],"binaryListValues":[],"dataType":"Binary"},'
        '"kind":{"stringValue":"größe","stringListValues":[],"binaryListValues":[],"dataType":"String.enum"}},'
        '"md5OfMessageAttributes":"e9e0079a","md5OfBody":"8a1766bc8cead5d3ce468873400abbad",'
        f'"eventSource":"aws:sqs","eventSourceARN":"{ARN}","awsRegion":"eu-west-1"}},'
        '{"messageId":"7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a02","receiptHandle":"AQEBexampleHandle2==",'
        '"body":"plain text",'
        '"attributes":{"ApproximateReceiveCount":"1","SentTimestamp":"1767225600122","SenderId":"AIDAEXAMPLESENDER",'
        '"ApproximateFirstReceiveTimestamp":"1767225600456"},'
        '"messageAttributes":{},"md5OfBody":"31bc5c2b8fd4f20cd747347b7504a385",'
        f'"eventSource":"aws:sqs","eventSourceARN":"{ARN}","awsRegion":"eu-west-1"}}'
        "]}"
    )


def test_attributes_come_in_the_recorded_order_and_unknown_ones_last() -> None:
    names = [
        "ApproximateReceiveCount",
        "SentTimestamp",
        "SenderId",
        "ApproximateFirstReceiveTimestamp",
        "SequenceNumber",
        "MessageGroupId",
        "MessageDeduplicationId",
        "AWSTraceHeader",
        "DeadLetterQueueSourceArn",
        "AttributeOfTheFuture",
    ]
    attributes = {name: f"of {name}" for name in reversed(names)}
    assert list(only(message(Attributes=attributes))["attributes"].items()) == [(name, f"of {name}") for name in names]


def test_without_attributes_their_digest_is_absent_or_null_by_the_window() -> None:
    assert "md5OfMessageAttributes" not in only(message())
    assert only(message(windowed=True))["md5OfMessageAttributes"] is None
    text = list(only(message(windowed=True)))
    assert text[text.index("messageAttributes") + 1] == "md5OfMessageAttributes"
    for windowed in (True, False):
        assert only(message(windowed=windowed, MD5OfMessageAttributes="abc"))["md5OfMessageAttributes"] == "abc"


def test_what_the_service_leaves_out_is_empty() -> None:
    record = only(message(Attributes=None, MessageAttributes=None))
    assert (record["attributes"], record["messageAttributes"]) == ({}, {})


@pytest.mark.parametrize("body", ["", "5", "null", '{"a":1}', "not json {", "\t\n\r", "é世😀", '"\\'])
def test_the_body_is_the_text_as_it_was_sent(body: str) -> None:
    assert only(message(body=body))["body"] == body
    assert view_of(message(body=body))[1] == body.encode()


TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)
VALUES = st.builds(
    lambda text, binary: (
        {"DataType": "String", "StringValue": text} if text is not None else {"DataType": "Binary", **binary}
    ),
    st.none() | TEXTS,
    st.binary(max_size=12).map(lambda data: {"BinaryValue": msgspec.to_builtins(data)}),
)
MESSAGES = st.builds(
    message,
    number=st.integers(0, 9),
    body=TEXTS,
    arn=st.sampled_from([ARN]),
    windowed=st.booleans(),
    MessageAttributes=st.none() | st.dictionaries(TEXTS, VALUES, max_size=3),
    MD5OfMessageAttributes=st.none() | st.just("0" * 32),
    Attributes=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
)


@given(st.lists(MESSAGES, min_size=1, max_size=5))
def test_what_is_read_back_from_an_event_makes_the_same_event(messages: list[SqsMessage]) -> None:
    event = event_of(*messages)
    chunk = CODEC.parse(event)
    assert CODEC.event(chunk.rows) == event
    assert chunk == CODEC.chunk("orders", messages)


@given(MESSAGES)
def test_what_is_looked_at_is_the_message(message: SqsMessage) -> None:
    members = msgspec.to_builtins(message)
    body = members.pop("body").encode()
    assert view_of(message) == (members, body)


@given(st.lists(MESSAGES, max_size=5))
def test_an_event_is_its_messages_as_json(messages: list[SqsMessage]) -> None:
    assert event_of(*messages) == msgspec.json.encode({"Records": messages})


@given(MESSAGES, MESSAGES)
def test_the_size_of_a_message_is_what_it_adds_to_an_event(first: SqsMessage, second: SqsMessage) -> None:
    added = len(event_of(first, second)) - len(event_of(first))
    assert CODEC.chunk("orders", [second]).sizes == [added]


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"Records":[]}',
        b'{"Records":[{}]}',
        b'{"Records":{}}',
        b'{"records":{"orders-0":[]}}',
        event_of(message()).replace(b'"aws:sqs"', b'"aws:s3"'),
        event_of(message()).replace(b'"receiptHandle"', b'"handle"'),
    ],
)
def test_what_is_no_event_of_a_queue_is_refused(event: bytes) -> None:
    with pytest.raises(ValueError, match="no SQS event"):
        CODEC.parse(event)


# --- columns


def test_a_position_is_the_message_id_as_a_number() -> None:
    name = "7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a01"
    assert position_of(name) == uuid.UUID(name).int == CODEC.chunk("orders", [message()]).positions[0]


@pytest.mark.parametrize("name", ["", "m-1", "é", "x" * 36, "7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a0g"])
def test_an_id_that_is_no_uuid_is_hashed(name: str) -> None:
    assert position_of(name) == int(hashlib.sha256(name.encode()).hexdigest()[:32], 16)


def test_times_are_those_of_sending_where_they_are_known() -> None:
    rows = [message(3), message(Attributes=None), message(Attributes={"SentTimestamp": "soon"})]
    assert CODEC.chunk("orders", rows).times_ms == [1767225600123, -1, -1]


def test_the_groups_of_a_fifo_queue_are_keys_and_those_of_a_standard_queue_are_not() -> None:
    rows = [message(arn=FIFO_ARN, Attributes={"MessageGroupId": name}) for name in ("cart-9", "größe")]
    chunk = CODEC.chunk("orders.fifo", rows)
    assert (chunk.shard, chunk.keys) == ("orders.fifo", [b"cart-9", "größe".encode()])
    assert CODEC.parse(CODEC.event(chunk.rows)) == chunk
    assert not CODEC.chunk("orders", [message(Attributes={"MessageGroupId": "tenant-1"})]).keys


def test_nothing_received_is_an_empty_chunk() -> None:
    assert CODEC.chunk("orders", []) == Chunk("orders", [], [], [], (), [], 0)


# --- items, filters, failures


class CountingBatch(Batch):
    """A batch that knows how often its rows were looked at."""

    __slots__ = ("looks",)

    looks: int

    def rows(self) -> list[Any]:
        self.looks += 1
        return super().rows()


def batch_of(batch_id: str, rows: list[SqsMessage]) -> CountingBatch:
    batch = CountingBatch(batch_id, "orders", 0, [Part(CODEC.chunk("orders", rows), range(len(rows)))], len(rows))
    batch.looks = 0
    return batch


def test_an_identifier_is_the_message_id_of_a_message_in_the_batch() -> None:
    ids = [message(number).message_id for number in range(4)]
    chunk = CODEC.chunk("orders", [message(number) for number in range(4)])
    batch = Batch("b", "orders", 0, [Part(chunk, [0, 2])], 2)
    positions = chunk.positions
    assert [CODEC.identify(name, batch) for name in ids] == [positions[0], None, positions[2], None]
    strangers: list[object] = ["", ids[0].upper(), ids[0].replace("-", ""), f" {ids[0]}", positions[0], None, [], {}]
    assert [CODEC.identify(item, batch) for item in strangers] == [None] * len(strangers)


def test_a_report_on_ten_thousand_messages_looks_through_them_once() -> None:
    codec = SqsCodec()
    names = [str(uuid.UUID(int=number)) for number in range(10_000)]
    batch = batch_of("b", [message(MessageId=name) for name in names[:9000]])
    assert [codec.identify(name, batch) for name in names] == [*range(9000), *[None] * 1000]
    assert batch.looks == 1
    other = batch_of("c", [message(MessageId=name) for name in names[9000:9010]])
    assert [codec.identify(name, other) for name in names[8999:9011]] == [None, *range(9000, 9010), None]
    assert [codec.identify(names[0], batch), batch.looks, other.looks] == [0, 2, 1]


def test_what_comes_again_under_one_request_id_with_other_messages_is_looked_through_anew() -> None:
    codec = SqsCodec()
    first, second = (message(number) for number in range(2))
    codec.identify("", batch_of("piece", [first]))
    batch = batch_of("piece", [first, second])
    assert codec.identify(second.message_id, batch) == position_of(second.message_id)
    batch.parts, batch.count = batch.select([1]), 1
    assert codec.identify(first.message_id, batch) is None


@pytest.mark.parametrize(
    ("pattern", "passes"),
    [
        ({"body": {"total": [{"numeric": [">", 5]}]}}, True),
        ({"body": {"total": [5]}}, False),
        ({"messageAttributes": {"tenant": {"stringValue": ["acme"]}}}, True),
        ({"messageAttributes": {"tenant": {"binaryValue": [{"exists": True}]}}}, False),
        ({"attributes": {"ApproximateReceiveCount": ["1"]}}, True),
        ({"messageId": [{"prefix": "7b0c"}], "eventSource": ["aws:sqs"], "awsRegion": ["eu-west-1"]}, True),
        ({"eventSourceARN": [ARN], "md5OfBody": [{"exists": True}], "receiptHandle": [{"exists": True}]}, True),
        ({"md5OfMessageAttributes": [{"exists": True}]}, False),
        ({"message_id": [{"exists": True}]}, False),
    ],
)
def test_patterns_see_the_record_with_its_body_parsed(pattern: dict[str, Any], *, passes: bool) -> None:
    seen = message(body='{"total":7}', MessageAttributes={"tenant": {"DataType": "String", "StringValue": "acme"}})
    assert compile_filters([json.dumps(pattern)], SQS).matches(*view_of(seen)) is passes


def test_looking_at_a_row_does_not_change_it() -> None:
    rows = CODEC.chunk("orders", [message()]).rows
    before = CODEC.event(rows)
    CODEC.view(rows[0])
    assert CODEC.event(rows) == before


def test_a_failed_batch_is_described_by_its_queue_and_its_ends() -> None:
    event = event_of(*(message(number) for number in (1, 2, 3)))
    assert CODEC.batch_info(failed_batch(shard="orders"), event) == {
        "SQSBatchInfo": {
            "batchSize": 3,
            "eventSourceARN": ARN,
            "payloadSize": len(event),
            "firstMessageId": "7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a01",
            "lastMessageId": "7b0c2f5e-8a51-4c1d-9f0e-2d6a4c9b1a03",
            "approximateArrivalOfFirstMessage": "2026-01-01T00:00:00.015Z",
            "approximateArrivalOfLastMessage": "2026-01-01T00:00:00.016Z",
        }
    }
