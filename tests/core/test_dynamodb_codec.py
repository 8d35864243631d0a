"""The shape of table stream records: exact events and failure records, and what is made of what the service gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.dynamodb_client import Page
from connectors.dynamodb_codec import DynamoDbCodec, chunk_of, complete, position_of
from router.core.filter import DYNAMODB, compile_filters
from router.core.model import TRIM_HORIZON, Batch, Chunk, FailedBatch, Part, Reason, WindowCall

VECTORS = Path(__file__).parents[1] / "vectors" / "destinations"
SAMPLE = Path(__file__).parents[2] / "router" / "commands" / "sample_events" / "dynamodb.json"
ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/Orders/stream/2026-01-01T00:00:00.000"
SHARD = "shardId-00000001767225600000-0a1b2c3d"
#: As GetRecords gives them: other orders of members, fractions that are none, big initials.
RECEIVED = b"""{"Records": [
 {"awsRegion": "eu-west-1",
  "dynamodb": {"ApproximateCreationDateTime": 1.767225601E9, "Keys": {"pk": {"S": "order#17"}},
   "NewImage": {"pk": {"S": "order#17"}, "qty": {"N": "3"}, "tags": {"SS": ["a", "b"]}, "raw": {"B": "AAE="},
    "lines": {"L": [{"M": {"sku": {"S": "x"}, "gift": {"BOOL": true}, "note": {"NULL": true}}}]}},
   "SequenceNumber": "400000000000000000000001", "SizeBytes": 59, "StreamViewType": "NEW_AND_OLD_IMAGES"},
  "eventID": "c4ca4238a0b923820dcc509a6f75849b", "eventName": "INSERT", "eventSource": "aws:dynamodb",
  "eventVersion": "1.1"},
 {"eventID": "c81e728d9d4c2f636f067f89cc14862c", "eventName": "MODIFY", "eventVersion": "1.1",
  "eventSource": "aws:dynamodb", "awsRegion": "eu-west-1",
  "dynamodb": {"SizeBytes": 59, "SequenceNumber": "400000000000000000000002", "OldImage": {"pk": {"S": "order#17"},
   "qty": {"N": "3"}}, "NewImage": {"pk": {"S": "order#17"}, "qty": {"N": "4"}}, "Keys": {"pk": {"S": "order#17"}},
   "ApproximateCreationDateTime": 1767225602, "StreamViewType": "NEW_AND_OLD_IMAGES"}},
 {"eventID": "eccbc87e4b5ce2fe28308fd9f2a7baf3", "eventName": "REMOVE", "eventVersion": "1.1",
  "eventSource": "aws:dynamodb", "awsRegion": "eu-west-1",
  "userIdentity": {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"},
  "dynamodb": {"ApproximateCreationDateTime": 1767225603.000, "Keys": {"pk": {"S": "order#17"}},
   "OldImage": {"pk": {"S": "order#17"}, "qty": {"N": "4"}}, "SequenceNumber": "400000000000000000000003",
   "SizeBytes": 59, "StreamViewType": "NEW_AND_OLD_IMAGES"}}
]}"""


def compact(value: object) -> bytes:
    """Encode as JSON without spaces, members in their order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def received(answer: bytes = RECEIVED) -> Chunk:
    records = msgspec.json.decode(answer, type=Page).records
    return chunk_of(SHARD, [complete(each, ARN) for each in records], through=position_of(records[-1]))


def with_change(**members: Any) -> bytes:
    record = json.loads(RECEIVED)["Records"][0]
    return compact({"Records": [record | {"dynamodb": record["dynamodb"] | members}]})


def failed(chunk: Chunk, window: WindowCall | None = None) -> FailedBatch:
    positions = chunk.positions
    return FailedBatch(
        id="f",
        mapping="orders",
        function="worker",
        shard=SHARD,
        reason=Reason.RETRIES,
        first_position=positions[0] if positions else -1,
        last_position=positions[-1] if positions else -1,
        batch_size=len(positions),
        attempts=1,
        request_id="r",
        error=None,
        responded=True,
        function_error="Unhandled",
        first_time_ms=chunk.times_ms[0] if positions else 0,
        last_time_ms=chunk.times_ms[-1] if positions else 0,
        failed_at_s=0.0,
        tries=(),
        window=window,
    )


# --- events


def test_an_event_is_that_of_aws_with_its_members_in_order() -> None:
    event = DynamoDbCodec().event(received().rows)
    assert json.loads(event, object_pairs_hook=list) == json.loads(SAMPLE.read_text(), object_pairs_hook=list)


def test_an_event_of_a_window_has_the_members_of_aws_in_their_order() -> None:
    chunk = received()
    call = WindowCall(1767225600, 1767225610, b'{"count":2}')
    event = DynamoDbCodec().window_event(SHARD, chunk.rows, call)
    assert json.loads(event) == {
        **json.loads(SAMPLE.read_text()),
        "shardId": SHARD,
        "eventSourceARN": ARN,
        "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z"},
        "state": {"count": 2},
        "isFinalInvokeForWindow": False,
        "isWindowTerminatedEarly": False,
    }
    names = ["Records", "shardId", "eventSourceARN", "window", "state"]
    assert list(json.loads(event)) == [*names, "isFinalInvokeForWindow", "isWindowTerminatedEarly"]


def test_the_final_call_of_a_window_has_no_records_and_names_the_stream_of_its_shard() -> None:
    codec = DynamoDbCodec()
    codec.streams = {SHARD: ARN}
    call = WindowCall(1767225600, 1767225610, b'{"count":2}', final=True, early=True)
    event = codec.window_event(SHARD, [], call)
    told = json.loads(event)
    assert (told["Records"], told["eventSourceARN"], told["state"]) == ([], ARN, {"count": 2})
    parsed = codec.parse(event)
    assert (list(parsed.rows), parsed.shard, parsed.window, parsed.through) == ([], SHARD, call, TRIM_HORIZON)


def test_what_was_read_back_from_events_makes_the_same_events() -> None:
    codec = DynamoDbCodec()
    chunk = received()
    call = WindowCall(1767225600, 1767225610, '{"é":[1.50]}'.encode())
    plain, of_window = codec.event(chunk.rows), codec.window_event(SHARD, chunk.rows, call)
    parsed = codec.parse(plain)
    assert codec.event(parsed.rows) == plain
    assert (parsed.shard, parsed.window) == ("", None)
    parsed = codec.parse(of_window)
    assert parsed.window is not None
    assert codec.window_event(parsed.shard, parsed.rows, parsed.window) == of_window
    for column in ("positions", "sizes", "times_ms", "keys", "through"):
        assert getattr(parsed, column) == getattr(chunk, column)


def test_an_event_without_records_is_read_back_as_none() -> None:
    assert not DynamoDbCodec().parse(b'{"Records":[]}').rows


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"{}",
        b"[]",
        b'{"Records":[{}]}',
        b'{"records":{}}',
        with_change(SequenceNumber="x"),
        b'{"Records":[],"window":{"start":"soon","end":"later"}}',
    ],
)
def test_what_is_no_event_is_told_as_such(event: bytes) -> None:
    with pytest.raises(ValueError, match="no DynamoDB event"):
        DynamoDbCodec().parse(event)


# --- what the service gives


def test_images_go_through_untouched() -> None:
    image = (
        '{"n":{"N":"1.50"},"u":{"S":"\\u00e9\\/"},"b":{"BS":["AA=="]},"deep":{"M":{"z":{"L":[]},"a":{"NULL":true}}}}'
    )
    record = with_change(NewImage="HERE").replace(b'"HERE"', image.encode())
    [row] = received(record).rows
    assert image.encode() in row


@pytest.mark.parametrize("view_type", ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE"])
def test_a_view_type_without_an_image_leaves_it_out(view_type: str) -> None:
    record = json.loads(RECEIVED)["Records"][1]
    for image in {"NEW_IMAGE": ["OldImage"], "OLD_IMAGE": ["NewImage"]}.get(view_type, ["NewImage", "OldImage"]):
        del record["dynamodb"][image]
    record["dynamodb"]["StreamViewType"] = view_type
    chunk = received(compact({"Records": [record]}))
    [told] = json.loads(DynamoDbCodec().event(chunk.rows))["Records"]
    assert told == {**record, "eventSourceARN": ARN}


@pytest.mark.parametrize(
    ("given", "told"),
    [("1767225601", "1767225601"), ("1.767225601E9", "1767225601"), ("1767225601.25", "1767225601.25")],
)
def test_a_time_is_a_number_without_an_empty_fraction(given: str, told: str) -> None:
    record = with_change(ApproximateCreationDateTime="HERE").replace(b'"HERE"', given.encode())
    chunk = received(record)
    assert f'"ApproximateCreationDateTime":{told},'.encode() in chunk.rows[0]
    assert chunk.times_ms == [round(float(given) * 1000)]


def test_the_key_of_an_item_is_one_however_its_attributes_are_ordered() -> None:
    one = received(with_change(Keys={"sk": {"N": "2"}, "pk": {"S": "a"}}))
    other = received(with_change(Keys={"pk": {"S": "a"}, "sk": {"N": "2"}}))
    assert one.keys == other.keys == [b'{"pk":{"S":"a"},"sk":{"N":"2"}}']
    assert received(with_change(Keys={"pk": {"S": "a"}, "sk": {"N": "3"}})).keys != one.keys
    assert received(with_change(Keys={"pk": {"N": "1"}})).keys != received(with_change(Keys={"pk": {"S": "1"}})).keys


def test_a_size_is_that_of_the_record_in_the_event() -> None:
    chunk = received()
    codec = DynamoDbCodec()
    assert len(codec.event(chunk.rows)) == len(codec.event([])) + sum(chunk.sizes) - 1


# --- names, filters, failure records


def test_an_identifier_is_a_sequence_number_as_text() -> None:
    chunk = received()
    batch = Batch("id", SHARD, 0, [Part(chunk, range(2))], 2)
    codec = DynamoDbCodec()
    assert codec.identify("400000000000000000000002", batch) == 400000000000000000000002
    for item in ("400000000000000000000003", 400000000000000000000002, "0400000000000000000000002", "", None, {}, "-1"):
        assert codec.identify(item, batch) is None


def test_a_position_has_as_many_digits_as_the_service_wants() -> None:
    codec = DynamoDbCodec()
    assert codec.write_position(7) == "000000000000000000007"
    assert codec.read_position("000000000000000000007") == 7
    assert codec.write_position(400000000000000000000002) == "400000000000000000000002"
    with pytest.raises(ValueError, match=r"no sequence number: '1\.5'"):
        codec.read_position("1.5")


@pytest.mark.parametrize(
    ("pattern", "passes"),
    [
        ('{"eventName":["INSERT"]}', [True, False, False]),
        ('{"dynamodb":{"NewImage":{"qty":{"N":["4"]}}}}', [False, True, False]),
        (
            '{"dynamodb":{"Keys":{"pk":{"S":[{"prefix":"order#"}]}}},"eventName":["MODIFY","REMOVE"]}',
            [False, True, True],
        ),
        ('{"userIdentity":{"type":["Service"]}}', [False, False, True]),
        ('{"dynamodb":{"NewImage":{"qty":{"N":[{"exists":false}]}}}}', [False, False, True]),
    ],
)
def test_filters_see_the_change_and_the_members_around_it(pattern: str, passes: list[bool]) -> None:
    codec = DynamoDbCodec()
    records = compile_filters([pattern], DYNAMODB)
    assert [records.matches(*codec.view(row)) for row in received().rows] == passes


def test_a_failure_record_describes_the_batch_as_aws_does() -> None:
    chunk = received()
    codec = DynamoDbCodec()
    info = codec.batch_info(failed(chunk), codec.event(chunk.rows))
    recorded = json.loads((VECTORS / "dynamodb_on_failure_sqs.json").read_text())["DDBStreamBatchInfo"]
    assert info == {"DDBStreamBatchInfo": recorded}
    assert list(json.loads(msgspec.json.encode(info))["DDBStreamBatchInfo"]) == list(recorded)


def test_a_final_call_that_failed_has_only_shard_and_stream() -> None:
    recorded = json.loads((VECTORS / "dynamodb_window_final_failure_s3.json").read_text())
    codec = DynamoDbCodec()
    chunk = codec.parse(recorded["payload"].encode())
    info = codec.batch_info(failed(chunk, chunk.window), recorded["payload"].encode())
    assert info == {"DDBStreamBatchInfo": recorded["DDBStreamBatchInfo"]}
    assert list(info["DDBStreamBatchInfo"]) == ["shardId", "streamArn"]  # type: ignore[call-overload]
