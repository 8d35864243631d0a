"""S3 notifications in messages of a queue: what reaches the function, what is left out, what is never lost."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_plus
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.s3_codec import S3Codec
from connectors.settings import S3Settings, SqsSettings
from connectors.sqs_codec import ReceivedMessage, SqsMessage, message_of
from router.core.filter import S3, compile_filters
from router.core.model import UNKNOWN_TIME_MS, Batch, Chunk, FailedBatch, Part, Reason

HERE = pathlib.Path(__file__).parent
QUEUE = "upload-events"
SENT_MS = 1767225600123
SETTINGS = S3Settings(
    SqsSettings("uploads", QUEUE, None, None, windowed=False),
    "uploads",
    ("s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"),
    "",
    "",
    by_sequencer=False,
)
CODEC = S3Codec(SETTINGS)
NASTY = "in/a b+é.txt"
AS_S3 = "in/a+b%2B%C3%A9.txt"

TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-01-01T00:00:00.123Z",
    "Bucket": "uploads",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
}


def record(key: str = "in/a.csv", event: str = "ObjectCreated:Put", **members: Any) -> dict[str, Any]:
    """A record as S3 writes it; `sequencer`, `bucket` and members of the record itself can be given."""
    bucket, sequencer = members.pop("bucket", "uploads"), members.pop("sequencer", "0065A1B2C3D4E5F6A7")
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-01-01T00:00:00.123Z",
        "eventName": event,
        "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.10"},
        "responseElements": {"x-amz-request-id": "EXAMPLE123456789", "x-amz-id-2": "EXAMPLEid2/abcdefghijklmnop"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "images-created",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A3EXAMPLE"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 2048, "eTag": "0123", "versionId": "v1", "sequencer": sequencer},
        },
        **members,
    }


def body(*records: Mapping[str, Any]) -> str:
    return json.dumps({"Records": records})


def in_sns(message: str, kind: str = "Notification") -> str:
    """The envelope that SNS puts into queues."""
    return json.dumps(
        {
            "Type": kind,
            "MessageId": "bc9d6a86-3270-4b64-b1c1-55292cb4cb96",
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:t",
            "Subject": "Amazon S3 Notification",
            "Message": message,
            "Timestamp": "2026-11-21T09:49:35.000Z",
        }
    )


def message(text: str, number: int = 1) -> SqsMessage:
    received = ReceivedMessage(
        str(UUID(int=number)), f"receipt-{number}", text, "0" * 32, {"SentTimestamp": str(SENT_MS + number)}
    )
    return message_of(received, arn=f"arn:aws:sqs:eu-west-1:000000000000:{QUEUE}", region="eu-west-1", windowed=False)


def read(*bodies: str, codec: S3Codec = CODEC) -> Chunk:
    return codec.chunk(QUEUE, [message(text, number) for number, text in enumerate(bodies, 1)])


def records_of(chunk: Chunk, codec: S3Codec = CODEC) -> list[dict[str, Any]]:
    event = json.loads(codec.event(chunk.rows))
    assert list(event) == ["Records"]
    records: list[dict[str, Any]] = event["Records"]
    return records


def batch_of(chunk: Chunk, indexes: Sequence[int] | None = None, name: str = "b") -> Batch:
    wanted = range(len(chunk.rows)) if indexes is None else indexes
    return Batch(name, chunk.shard, 0, [Part(chunk, wanted)], len(wanted))


class TestShape:
    def test_records_come_unwrapped_as_s3_delivers_them(self) -> None:
        first, second = record(AS_S3), record("in/b.csv", "ObjectRemoved:Delete")
        chunk = read(body(first), body(second))
        assert (
            CODEC.event(chunk.rows)
            == json.dumps({"Records": [first, second]})
            .replace('{"Records": [', '{"Records":[')
            .replace("}, {", "},{")
            .encode()
        )
        assert (chunk.kept, chunk.unfit, chunk.shard) == (None, {}, "upload-events")

    def test_the_event_of_aws_itself_is_unchanged(self) -> None:
        event = {"Records": [record("in/summer+trip/caf%C3%A9.jpg")]}
        assert records_of(read(json.dumps(event))) == event["Records"]

    @pytest.mark.parametrize("wrap", [str, in_sns], ids=["raw", "envelope"])
    def test_sns_is_unwrapped(self, wrap: Any) -> None:
        assert records_of(read(wrap(body(record(AS_S3))))) == [record(AS_S3)]

    @pytest.mark.parametrize("spelling", [AS_S3, "in/a%20b%2B%C3%A9.txt", "in%2Fa+b%2B%C3%A9.txt", NASTY])
    def test_whatever_the_store_wrote_the_key_is_spelled_as_s3_does(self, spelling: str) -> None:
        [given] = records_of(read(body(record(spelling))))
        assert given == record(AS_S3)
        assert list(given) == list(record())
        assert list(given["s3"]["object"]) == list(record()["s3"]["object"])

    def test_all_but_key_and_name_stays_byte_for_byte_and_in_order(self) -> None:
        text = (
            '{ "zeta":1.50, "eventName":"s3:ObjectCreated:Put","big":123456789012345678901234567890,'
            '"s3" : {"object":{"size": 1e2,"key":"a b","x":"\\u00e9/\\/"},"bucket":{"name":"uploads"}}, "a":null}'
        )
        assert CODEC.event(read(f'{{"Records":[{text}]}}').rows) == (
            b'{"Records":[{"zeta":1.50,"eventName":"ObjectCreated:Put","big":123456789012345678901234567890,'
            b'"s3":{"object":{"size":1e2,"key":"a+b","x":"\\u00e9/\\/"},"bucket":{"name":"uploads"}},"a":null}]}'
        )

    @pytest.mark.parametrize("indent", [None, 2])
    def test_an_event_is_one_line(self, indent: int | None) -> None:
        text = json.dumps({"Records": [record("a\nb"), record("b\r")]}, indent=indent).replace("\n", "\r\n")
        event = CODEC.event(read(text).rows)
        assert not {b"\n"[0], b"\r"[0]} & set(event)
        assert [each["s3"]["object"]["key"] for each in json.loads(event)["Records"]] == ["a%0Ab", "b%0D"]

    def test_a_record_without_what_stand_ins_leave_out_is_taken(self) -> None:
        moto = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventTime": "2026-11-21T09:49:35.213000",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "uploads"}, "object": {"key": "in%2Fa+b%2B%C3%A9.txt", "size": 1}},
        }
        [given] = records_of(read(body(moto)))
        assert given["s3"]["object"] == {"key": AS_S3, "size": 1}

    def test_columns_are_those_of_the_messages(self) -> None:
        chunk = read(body(record("é")), "no JSON")
        assert chunk.positions == [1, 2]
        assert chunk.times_ms == [SENT_MS + 1, SENT_MS + 2]
        assert [CODEC.receipt(row) for row in chunk.rows] == ["receipt-1", "receipt-2"]
        assert (chunk.keys, chunk.ranks) == ((), ())
        assert sum(chunk.sizes) + len('{"Records":[]}') >= len(CODEC.event(chunk.rows))

    def test_no_messages_are_no_rows(self) -> None:
        chunk = read()
        assert (chunk.rows, chunk.kept, chunk.positions) == ([], None, [])


class TestRawKeys:
    """Keys of ministack before 1.5.18, which encodes none and says so by its marks alone."""

    @staticmethod
    def ministack(key: str) -> dict[str, Any]:
        """A record as captured from 1.4.21."""
        return record(
            key,
            sequencer="0",
            userIdentity={"principalId": "EXAMPLE"},
            responseElements={"x-amz-request-id": "2dbb9575-4902-4213-a7b3-173b2dae45f0", "x-amz-id-2": "EXAMPLE"},
        )

    @pytest.mark.parametrize("key", ["a+b", "a%20b", "100%25", NASTY, "in/a.csv", "~"])
    def test_a_key_is_taken_as_it_is_where_the_store_encodes_none(self, key: str) -> None:
        [given] = records_of(read(body(self.ministack(key))))
        assert unquote_plus(given["s3"]["object"]["key"]) == key
        assert given["s3"]["object"]["sequencer"] == "0"

    @pytest.mark.parametrize(
        "other", [{"sequencer": "1"}, {"responseElements": {"x-amz-id-2": "EXAMPLE123"}}, {"responseElements": None}]
    )
    def test_one_mark_alone_says_nothing(self, other: dict[str, Any]) -> None:
        marks: dict[str, Any] = {"sequencer": "0", "responseElements": {"x-amz-id-2": "EXAMPLE"}}
        [given] = records_of(read(body(record("a+b", **marks | other))))
        assert given["s3"]["object"]["key"] == "a+b"

    def test_a_key_is_not_encoded_again_when_it_is_read_back(self) -> None:
        event = CODEC.event(read(body(self.ministack("a%20b"))).rows)
        assert CODEC.event(CODEC.parse(event).rows) == event


class TestLeftOut:
    @pytest.mark.parametrize("text", [json.dumps(TEST_EVENT), in_sns(json.dumps(TEST_EVENT))], ids=["plain", "SNS"])
    def test_the_test_event_is_swallowed(self, text: str) -> None:
        chunk = read(text, body(record()))
        assert (chunk.kept, chunk.unfit) == ([1], {})

    @pytest.mark.parametrize(
        ("name", "is_wanted"),
        [
            ("ObjectCreated:Put", True),
            ("ObjectCreated:CompleteMultipartUpload", True),
            ("s3:ObjectCreated:Copy", True),
            ("ObjectRemoved:Delete", True),
            ("ObjectRemoved:DeleteMarkerCreated", False),
            ("ObjectCreatedElsewhere:Put", False),
            ("ObjectTagging:Put", False),
            ("", False),
        ],
    )
    def test_event_types(self, name: str, *, is_wanted: bool) -> None:
        chunk = read(body(record(event=name)))
        assert chunk.kept == (None if is_wanted else [])
        assert chunk.unfit == {}

    @pytest.mark.parametrize(
        ("prefix", "suffix", "spelling", "is_wanted"),
        [
            ("in/a b", "é.txt", AS_S3, True),
            ("in/a b", "é.txt", NASTY, True),
            ("in/a+b", "", AS_S3, False),
            ("", "%A9.txt", AS_S3, False),
            ("out/", "", "in/out/a", False),
            ("", ".csv", "in/a.csv.gz", False),
        ],
    )
    def test_prefix_and_suffix_are_compared_with_the_decoded_key(
        self, prefix: str, suffix: str, spelling: str, *, is_wanted: bool
    ) -> None:
        codec = S3Codec(replace(SETTINGS, prefix=prefix, suffix=suffix))
        assert read(body(record(spelling)), codec=codec).kept == (None if is_wanted else [])

    def test_of_several_records_only_the_wanted_ones_go_on(self) -> None:
        codec = S3Codec(replace(SETTINGS, prefix="in/"))
        chunk = read(
            body(record("out/a"), record("in/b"), record("in/c", "ObjectAcl:Put"), record("in/d")), codec=codec
        )
        assert chunk.kept is None
        assert [each["s3"]["object"]["key"] for each in records_of(chunk, codec)] == ["in/b", "in/d"]

    def test_what_is_not_wanted_can_still_be_run_by_hand(self) -> None:
        codec = S3Codec(replace(SETTINGS, prefix="in/"))
        chunk = read(body(record("out/a")), codec=codec)
        assert chunk.kept == []
        assert records_of(chunk, codec) == [record("out/a")]


class TestUnfit:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "is not JSON"),
            ("plain text", "is not JSON"),
            ('{"Records":[', "is not JSON"),
            ('{"Records":["\\ud800"]}', "is not JSON"),
            ("[" * 100_000, "the body is no S3 notification"),
            ('{"Records":[' + "[" * 100_000, "the body is nested too deeply"),
            ("17", "the body is no S3 notification: Expected `object`, got `int`"),
            ("[]", "the body is no S3 notification: Expected `object`, got `array`"),
            ("{}", "the body is no S3 notification: it has no Records"),
            ('{"Records":[]}', "it has no Records"),
            ('{"Records":null}', "it has no Records"),
            ('{"Records":17}', "Expected `array | null`, got `int`"),
            ('{"Records":[17]}', "Expected `object`, got `int` in a record"),
            ('{"Records":[{}]}', "missing required field `eventName` in a record"),
            ('{"Records":[{"eventName":"ObjectCreated:Put","s3":{}}]}', "missing required field `bucket`"),
            ('{"Event":"s3:Other"}', "it has no Records"),
            (in_sns("hello"), "the SNS message in the body is not JSON"),
            (in_sns("{}"), "the SNS message in the body is no S3 notification: it has no Records"),
            (in_sns(in_sns(body(record()))), "the SNS message in the body is no S3 notification"),
            (in_sns(body(record()), "SubscriptionConfirmation"), "the body is no S3 notification: it has no Records"),
            ('{"Type":"Notification","Message":17}', "it has no Records"),
            ('{"version":"0","detail-type":"Object Created","source":"aws.s3","detail":{}}', "it has no Records"),
            (body(record(bucket="other")), "is of bucket 'other', and this mapping is for 'uploads'"),
            (in_sns(body(record(bucket="other"))), "is of bucket 'other'"),
            (body(record(), record(bucket="other")), "is of bucket 'other'"),
            (body(record(bucket="o" * 9999)), "is of bucket 'ooo"),
            (body(record(), {}), "in a record"),
        ],
    )
    def test_what_is_no_event_of_the_bucket_is_named_and_kept(self, text: str, why: str) -> None:
        chunk = read(body(record()), text, json.dumps(TEST_EVENT))
        assert chunk.kept == [0, 1]
        assert list(chunk.unfit) == [1]
        assert why in chunk.unfit[1]
        assert "\n" not in chunk.unfit[1]
        assert len(chunk.unfit[1]) < 300

    def test_its_event_is_that_of_sqs_and_is_read_back(self) -> None:
        chunk = read("hello")
        event = CODEC.event(chunk.rows)
        [given] = json.loads(event)["Records"]
        assert given["body"] == "hello"
        assert given["eventSource"] == "aws:sqs"
        again = CODEC.parse(event)
        assert (again.shard, again.positions, again.times_ms) == ("upload-events", [1], [SENT_MS + 1])
        assert CODEC.event(again.rows) == event

    def test_read_back_it_may_fit_by_now(self) -> None:
        event = CODEC.event(read(body(record(NASTY, bucket="other"))).rows)
        others = S3Codec(replace(SETTINGS, bucket="other"))
        again = others.parse(event)
        assert records_of(again, others) == [record(AS_S3, bucket="other")]
        assert again.keys == [NASTY.encode()]

    def test_beside_records_it_is_in_the_event_too(self) -> None:
        chunk = read(body(record()), "hello")
        event = CODEC.event(chunk.rows)
        assert [each["eventSource"] for each in json.loads(event)["Records"]] == ["aws:s3", "aws:sqs"]
        assert CODEC.event(CODEC.parse(event).rows) == event

    @given(
        st.text(max_size=60) | st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists).map(json.dumps)
    )
    def test_no_body_is_too_strange(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            return  # queues carry no lone surrogates
        assert read(text).unfit

    @given(
        st.sampled_from(["eventName", "eventSource", "eventTime", "responseElements", "s3"]),
        st.none() | st.integers() | st.text(max_size=5) | st.lists(st.none()) | st.just({}),
    )
    def test_no_member_is_too_strange(self, name: str, value: object) -> None:
        chunk = read(body(record("a b", sequencer="0") | {name: value}))
        json.loads(CODEC.event(chunk.rows))
        assert CODEC.event(CODEC.parse(CODEC.event(chunk.rows)).rows) == CODEC.event(chunk.rows)


class TestOrder:
    CODEC = S3Codec(replace(SETTINGS, by_sequencer=True))

    def test_keys_are_decoded_object_keys(self) -> None:
        chunk = read(body(record(AS_S3)), "hello", json.dumps(TEST_EVENT), codec=self.CODEC)
        assert chunk.keys == [NASTY.encode(), None, None]
        assert chunk.ranks == [0x0065A1B2C3D4E5F6A7, 0, 0]

    @pytest.mark.parametrize(
        ("sequencer", "rank"),
        [
            ("0055AED6DCD90281E5", 0x55AED6DCD90281E5),
            ("55aed6dcd90281e5", 0x55AED6DCD90281E5),
            ("F" * 40, int("F" * 40, 16)),
            ("", 0),
            ("0", 0),
            ("0x1F", 0),
            ("1_0", 0),
            (" 1F", 0),
            ("-1", 0),
            ("Happy Sequencer", 0),
            ("\u0661", 0),
            (None, 0),
            (17, 0),
            ([], 0),
        ],
    )
    def test_sequencers_are_compared_as_numbers(self, sequencer: object, rank: int) -> None:
        assert read(body(record(sequencer=sequencer)), codec=self.CODEC).ranks == [rank]

    def test_of_several_records_the_first_wanted_one_counts(self) -> None:
        chunk = read(
            body(
                record("z", "ObjectAcl:Put", sequencer="01"), record("a", sequencer="02"), record("b", sequencer="03")
            ),
            codec=self.CODEC,
        )
        assert (chunk.keys, chunk.ranks) == ([b"a"], [2])


class TestReadBack:
    def test_what_is_read_back_encodes_to_the_same_bytes(self) -> None:
        event = CODEC.event(read(body(record(NASTY), record("in/b")), in_sns(body(record("in/c")))).rows)
        chunk = CODEC.parse(event)
        assert CODEC.event(chunk.rows) == event
        assert chunk.keys == [NASTY.encode(), b"in/b", b"in/c"]
        assert chunk.times_ms == [1767225600123] * 3
        assert (chunk.shard, chunk.kept, chunk.unfit) == ("upload-events", None, {})
        assert [len(row.records) + 1 for row in chunk.rows] == chunk.sizes
        assert {CODEC.receipt(row) for row in chunk.rows} == {""}

    def test_records_have_the_same_position_each_time_and_equal_ones_have_two(self) -> None:
        event = CODEC.event(read(body(record("a")), body(record("b")), body(record("a"))).rows)
        positions = CODEC.parse(event).positions
        assert len(set(positions)) == 3
        assert CODEC.parse(event).positions == positions
        assert all(0 <= position < 2**128 for position in positions)
        assert CODEC.parse(CODEC.event(CODEC.parse(event).rows[:2])).positions == positions[:2]

    @pytest.mark.parametrize(
        ("time", "expected"),
        [("2026-01-01T00:00:00.123000", 1767225600123), ("soon", UNKNOWN_TIME_MS), (None, UNKNOWN_TIME_MS)],
    )
    def test_a_time_may_lack_its_zone_or_make_no_sense(self, time: object, expected: int) -> None:
        event = CODEC.event(read(body(record(eventTime=time))).rows)
        assert CODEC.parse(event).times_ms == [expected]

    @pytest.mark.parametrize(
        "event", [b"", b"17", b"{}", b'{"Records":[]}', b'{"Records":[{}]}', b'{"Records":[{"eventSource":"aws:sqs"}]}']
    )
    def test_no_event_is_refused(self, event: bytes) -> None:
        with pytest.raises(ValueError, match="no S3 event: "):
            CODEC.parse(event)


class TestIdentify:
    CHUNK = read(
        body(record("a+b", sequencer="01"), record("in/b", sequencer="02")),
        body(record("in/c", sequencer="03")),
        body(record("in/c", sequencer="04")),
        body(record("in/d", sequencer="03")),
        "hello",
    )

    @pytest.mark.parametrize(
        ("item", "position"),
        [
            ("01", 1),
            ("02", 1),
            ("a+b", 1),
            ("in/b", 1),
            ("04", 3),
            ("in/d", 4),
            (str(UUID(int=5)), 5),
            ("03", None),
            ("in/c", None),
            ("a b", None),
            ("", None),
            (str(UUID(int=1)), None),
            (None, None),
            (1, None),
            (["01"], None),
        ],
    )
    def test_a_name_is_taken_that_names_one_message_alone(self, item: object, position: int | None) -> None:
        assert S3Codec(SETTINGS).identify(item, batch_of(self.CHUNK)) == position

    def test_only_the_batch_counts(self) -> None:
        codec = S3Codec(SETTINGS)
        assert codec.identify("03", batch_of(self.CHUNK, [0, 1], "first")) == 2
        assert codec.identify("03", batch_of(self.CHUNK, [1, 3], "second")) is None
        assert codec.identify("03", batch_of(self.CHUNK, [3], "second")) == 4
        assert codec.identify("01", batch_of(self.CHUNK, [1, 3], "second")) is None
        assert codec.identify("01", batch_of(self.CHUNK, [0, 3], "second")) == 1

    def test_a_sequencer_that_is_no_text_names_nothing(self) -> None:
        chunk = read(body(record(sequencer=[])))
        assert S3Codec(SETTINGS).identify("in/a.csv", batch_of(chunk)) == 1


class TestFilters:
    @staticmethod
    def passes(pattern: dict[str, Any], *records: dict[str, Any]) -> bool:
        [row] = read(body(*records)).rows
        return compile_filters([json.dumps(pattern)], S3).matches(*CODEC.view(row))

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ({"eventName": ["ObjectCreated:Put"]}, True),
            ({"eventName": [{"prefix": "ObjectRemoved:"}]}, False),
            ({"s3": {"object": {"size": [{"numeric": [">", 1000]}]}}}, True),
            ({"s3": {"object": {"size": [{"numeric": [">", 5000]}]}}}, False),
            ({"s3": {"object": {"key": [{"suffix": ".csv"}]}}, "awsRegion": ["eu-west-1"]}, True),
            ({"s3": {"object": {"key": [{"prefix": "a b"}]}}}, False),
            ({"userIdentity": {"principalId": [{"anything-but": "AWS:AIDAEXAMPLE"}]}}, False),
            ({"glacierEventData": [{"exists": False}]}, True),
        ],
    )
    def test_patterns_see_the_record_as_the_function_does(self, pattern: dict[str, Any], *, expected: bool) -> None:
        assert self.passes(pattern, record("a b.csv")) is expected

    def test_an_unfit_message_is_seen_as_a_message(self) -> None:
        [row] = read("hello").rows
        metadata, data = CODEC.view(row)
        assert (metadata["body"], data) == ("hello", None)

    def test_of_several_records_one_is_enough(self) -> None:
        records = record("a", "ObjectCreated:Put"), record("b", "ObjectRemoved:Delete") | {"extra": 1}
        assert self.passes({"eventName": ["ObjectRemoved:Delete"]}, *records)
        assert self.passes({"s3": {"object": {"key": ["b"]}}}, *records)
        assert self.passes({"extra": [1]}, *records)
        assert not self.passes({"s3": {"object": {"key": ["c"]}}}, *records)
        assert not self.passes({"eventName": ["ObjectCreated:Copy"]}, *records)


class TestFailureRecord:
    @staticmethod
    def info(event: bytes, count: int) -> Mapping[str, object]:
        failure = FailedBatch(
            "f", "uploads", "orders", "upload-events", Reason.RETRIES, 1, 2, count, 3, "r", None, responded=True,
            function_error="Unhandled", first_time_ms=SENT_MS, last_time_ms=SENT_MS + 1, failed_at_s=0.0, tries=(),
        )  # fmt: skip
        return CODEC.batch_info(failure, event)

    def test_it_says_which_objects(self) -> None:
        event = CODEC.event(read(body(record("a b")), body(record("in/b"))).rows)
        assert self.info(event, 2) == {
            "S3BatchInfo": {
                "batchSize": 2,
                "bucket": "uploads",
                "payloadSize": len(event),
                "firstObjectKey": "a+b",
                "lastObjectKey": "in/b",
                "approximateArrivalOfFirstMessage": "2026-01-01T00:00:00.123Z",
                "approximateArrivalOfLastMessage": "2026-01-01T00:00:00.124Z",
            }
        }

    def test_an_unfit_message_is_described_as_one(self) -> None:
        info = self.info(CODEC.event(read("hello").rows), 1)["SQSBatchInfo"]
        assert isinstance(info, dict)
        assert info["firstMessageId"] == str(UUID(int=1))
