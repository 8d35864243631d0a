"""Failure records read back: which range of which stream failed, and the event where the record carries it. Pure.

The records are those of `router.failures.record` and of AWS Lambda itself ('Retain discarded records for a Kinesis Data
Streams event source in Lambda', and the same for DynamoDB and Kafka): from a queue without the event, from an object
with the event as a text, from a Kafka topic with the event of one record as an object. One that came through an SNS
topic is wrapped in its notification. They come from anywhere, so nothing of them is believed before it was looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from router.core.model import WindowCall

#: Largest record that is read: the event of 6 MiB as an escaped text, each character of which may take six.
RECORD_LIMIT_BYTES: Final = 40 * 1024 * 1024

Kind = Literal["kinesis", "dynamodb", "kafka"]

#: A sequence number or offset; AWS promises no more than 128 digits (Kinesis API reference, SequenceNumber).
_NUMBER: Final = re.compile(r"[0-9]{1,128}")
_SHARD_CHARS: Final = 300
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Of the digest of a record in its id, hexadecimal digits.
_DIGEST_CHARS: Final = 20


@dataclass(frozen=True, slots=True)
class FailedRange:
    """Records of one shard, from one number to another, both included."""

    shard: str
    #: Sequence numbers or offsets, as numbers.
    first: int
    last: int
    #: When the first record arrived, epoch milliseconds (DynamoDB: to the second); None = it is not told.
    first_time_ms: int | None = None
    #: Digits of a number at least, as the record has them: DynamoDB begins with zeros.
    digits: int = field(default=1, compare=False)

    def shown(self, number: int) -> str:
        """Write a number as the record does."""
        return f"{number:0{self.digits}d}"


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """What a failure record says of the records that failed."""

    #: Follows from what the record says, so that a record that was sent twice has one id: `record:<digest>`.
    id: str
    kind: Kind
    #: ARN of the stream, or the topic.
    stream: str
    #: Kafka: the brokers of its cluster.
    servers: tuple[str, ...]
    #: One a shard; none in the failure of a window's final call.
    ranges: tuple[FailedRange, ...]
    #: How many records failed; None = it does not say.
    count: int | None
    #: The event, JSON, where the record carries it: one for all its ranges.
    payload: bytes | None
    #: When the record was made, epoch milliseconds; None = it does not say.
    made_ms: int | None = None
    #: The tumbling window that the records were of, of which the state is not known; None = of none.
    window: WindowCall | None = None


class _BatchInfo(msgspec.Struct, rename="camel"):
    stream_arn: str
    shard_id: str
    start_sequence_number: str | None = None
    end_sequence_number: str | None = None
    approximate_arrival_of_first_record: str = ""
    batch_size: int | None = None


class _Offsets(msgspec.Struct, rename="camel"):
    first_record_offset: str | int
    last_record_offset: str | int
    first_record_timestamp: str = ""


class _Offset(msgspec.Struct, rename="camel"):
    offset: str | int
    timestamp: str = ""


class _KafkaInfo(msgspec.Struct, rename="camel"):
    bootstrap_servers: str = ""
    batch_size: int | None = None
    records_info: dict[str, _Offsets] | None = None
    record_info: _Offset | None = None


class _Bounds(msgspec.Struct):
    start: datetime
    end: datetime


class _Window(msgspec.Struct, rename="camel"):
    window: _Bounds
    is_final_invoke_for_window: bool = False
    is_window_terminated_early: bool = False


class _Context(msgspec.Struct, rename="camel"):
    request_id: str = ""
    condition: str = ""


class _Record(msgspec.Struct, rename="camel"):
    request_context: _Context = msgspec.field(default_factory=_Context)
    timestamp: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"")
    kinesis: _BatchInfo | None = msgspec.field(name="KinesisBatchInfo", default=None)
    dynamodb: _BatchInfo | None = msgspec.field(name="DDBStreamBatchInfo", default=None)
    kafka: _KafkaInfo | None = msgspec.field(name="KafkaBatchInfo", default=None)
    window: _Window | None = msgspec.field(name="timeWindowInfo", default=None)
    claim_check: msgspec.Raw = msgspec.Raw(b"")
    #: Of a notification of SNS.
    type: str = msgspec.field(name="Type", default="")
    message: str = msgspec.field(name="Message", default="")


class _KafkaEvent(msgspec.Struct):
    records: dict[str, msgspec.Raw]


_decode: Final = msgspec.json.Decoder(_Record).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_kafka: Final = msgspec.json.Decoder(_KafkaEvent).decode


def read_record(text: bytes) -> FailureRecord:
    """Read a failure record.

    Raises:
        ValueError: it is none, or none that can be replayed; the message says why.
    """
    if len(text) > RECORD_LIMIT_BYTES:
        raise ValueError(f"it is larger than a failure record can be ({len(text)} bytes)")
    record = _decoded(text)
    if record.type == "Notification" and record.message:
        record = _decoded(record.message.encode())
    payload = _payload(record.payload)
    infos = (record.kinesis, record.dynamodb, record.kafka)
    match infos:
        case (_BatchInfo() as info, None, None):
            kind: Kind = "kinesis"
            stream, ranges = info.stream_arn, _range_of(info)
        case (None, _BatchInfo() as info, None):
            kind = "dynamodb"
            stream, ranges = info.stream_arn, _range_of(info)
        case (None, None, _KafkaInfo() as kafka):
            kind = "kafka"
            ranges = _kafka_ranges(kafka, payload)
            stream = _topic(ranges)
        case (None, None, None):
            raise ValueError(_no_record(record))
        case _:
            raise ValueError("it is no failure record: it names more than one source")
    if not ranges and payload is None:
        raise ValueError(
            "it is of the final call of a tumbling window, which has no records to read again, and it does not carry "
            "the event"
        )
    servers = _servers(record.kafka)
    source = record.kinesis or record.dynamodb or record.kafka
    count = source.batch_size if source and source.batch_size and source.batch_size > 0 else None
    context = record.request_context
    identity = (kind, stream, servers, ranges, count, context.request_id, context.condition, record.timestamp)
    digest = hashlib.sha256(repr(identity).encode() + b"\n" + (payload or b"")).hexdigest()
    record_id, made_ms = f"record:{digest[:_DIGEST_CHARS]}", _time_ms(record.timestamp)
    return FailureRecord(record_id, kind, stream, servers, ranges, count, payload, made_ms, _window(record.window))


def events(record: FailureRecord) -> Sequence[tuple[str, bytes]]:
    """Take the payload of a record apart into events of one shard each, by the shard where the record names it.

    Raises:
        ValueError: it is no event of that source.
    """
    assert record.payload is not None
    if record.kind != "kafka":
        return [(record.ranges[0].shard if record.ranges else "", record.payload)]
    found = _kafka_records(record.payload)
    return [(shard, msgspec.json.encode({"records": {shard: records}})) for shard, records in found.items()]


def _decoded(text: bytes) -> _Record:
    with _telling():
        return _decode(text)


def _payload(raw: msgspec.Raw) -> bytes | None:
    """Give the event, which stands there as itself or as a text."""
    text = bytes(raw)
    if text in (b"", b"null"):
        return None
    with _telling():
        return _decode_text(text).encode() if text.startswith(b'"') else text


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except msgspec.ValidationError as error:
        raise ValueError(f"it is no failure record: {error}") from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("it is no failure record: it is nested too deeply") from error


def _range_of(info: _BatchInfo) -> tuple[FailedRange, ...]:
    if info.start_sequence_number is None and info.end_sequence_number is None:
        _shard(info.shard_id)
        return ()
    first, last = info.start_sequence_number, info.end_sequence_number
    return (_range(info.shard_id, first, last, info.approximate_arrival_of_first_record),)


def _kafka_ranges(info: _KafkaInfo, payload: bytes | None) -> tuple[FailedRange, ...]:
    if info.records_info:
        return tuple(
            _range(shard, each.first_record_offset, each.last_record_offset, each.first_record_timestamp)
            for shard, each in info.records_info.items()
        )
    if info.record_info is None:
        raise ValueError("it is no failure record: it names no offsets")
    # A message in a topic names the offset alone: the partition stands in the event that it carries.
    shards = list(_kafka_records(payload)) if payload is not None else []
    if len(shards) != 1:
        raise ValueError("it does not say of which partition its record is")
    offset = info.record_info.offset
    return (_range(shards[0], offset, offset, info.record_info.timestamp),)


def _kafka_records(payload: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode_kafka(payload).records
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its payload is no Kafka event: {error}") from error


def _range(shard: str, first: str | int | None, last: str | int | None, time: str) -> FailedRange:
    for number in (first, last):
        if not _NUMBER.fullmatch(str(number)):
            raise ValueError(f"it is no failure record: {str(number)[:40]!r} is no position of a record")
    found = FailedRange(_shard(shard), int(str(first)), int(str(last)), _time_ms(time), len(str(first)))
    if found.first > found.last:
        raise ValueError(f"its range is inverted: it begins at {found.first} and ends at {found.last}")
    return found


def _time_ms(text: str) -> int | None:
    """Read a time; None = it is none, or one that stands for the end of the calendar."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    known = time.tzinfo is not None and 1 < time.year < 9999
    return (time - _EPOCH) // timedelta(milliseconds=1) if known else None


def _shard(name: str) -> str:
    if not name or len(name) > _SHARD_CHARS or not name.isprintable():
        raise ValueError(f"it is no failure record: {name[:40]!r} is no shard")
    return name


def _window(info: _Window | None) -> WindowCall | None:
    if info is None:
        return None
    start_s, end_s = (round(each.timestamp()) for each in (info.window.start, info.window.end))
    return WindowCall(start_s, end_s, early=info.is_window_terminated_early)


def _topic(ranges: Sequence[FailedRange]) -> str:
    """Give the topic of partitions, which all are of one."""
    topics = {each.shard.rpartition("-")[0] for each in ranges}
    numbers = [each.shard.rpartition("-")[2] for each in ranges]
    if len(topics) != 1 or not all(map(str.isdecimal, numbers)) or not (topic := topics.pop()):
        raise ValueError("it is no failure record: its offsets are of no one topic")
    return topic


def _servers(info: _KafkaInfo | None) -> tuple[str, ...]:
    return tuple(filter(None, (server.strip() for server in info.bootstrap_servers.split(",")))) if info else ()


def _no_record(record: _Record) -> str:
    if bytes(record.claim_check):
        return (
            "it is only a claim check: the failure itself is in the store of who wrote it; replay it there by the id "
            "that the claim check names"
        )
    return "it is no failure record of a stream: it has no KinesisBatchInfo, DDBStreamBatchInfo or KafkaBatchInfo"
