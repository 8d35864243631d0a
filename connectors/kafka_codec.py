"""The shape of Kafka records: the Lambda event of a self-managed cluster, and the names records have in it.

Source: AWS Lambda developer guide, "Using Lambda with self-managed Apache Kafka" (event, failed items, failure
records). It leaves open how a record without key or value looks: those members are left out. Header values are lists
of *signed* bytes, as in deliveries of AWS. A header without a value is an empty list.

A row is a record in the form of the event, whose key and value are base64 only once the event is made. The rows of one
event are of one partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pybase64
from aiokafka.structs import ConsumerRecord

from router.core.model import KAFKA_RULES, Batch, Chunk, FailedBatch, SourceRules
from router.failures.record import iso_ms

#: Values from this size on are encoded by pybase64, whose vector code overtakes msgspec's there.
_LARGE_BYTES: Final = 700
#: Kafka's number for a timestamp that was never set.
_NO_TIMESTAMP: Final = -1
TIMESTAMP_TYPES: Final[Mapping[int | None, str]] = {0: "CREATE_TIME", 1: "LOG_APPEND_TIME", None: "NO_TIMESTAMP_TYPE"}
NO_HEADERS: Final = msgspec.Raw(b"[]")
#: Everything of an encoded record but topic, key, value and headers, with the longest numbers that 64 bits make.
_FRAME_BYTES: Final = (
    len('{"topic":"","partition":,"offset":,"timestamp":,"timestampType":"NO_TIMESTAMP_TYPE"')
    + len(',"key":"","value":"","headers":},')
    + 10
    + 20
    + 20
)


class KafkaRecord(msgspec.Struct, omit_defaults=True, gc=False):
    """One record, with the members of the event in their order."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestampType: str  # noqa: N815 - the event's own spelling
    key: bytes | None = None
    value: bytes | None = None
    #: As they stand in the event.
    headers: msgspec.Raw = msgspec.Raw(b"")


class _Event(msgspec.Struct):
    records: dict[str, list[KafkaRecord]]


_encode: Final = msgspec.json.Encoder().encode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


def shard_name(topic: str, partition: int) -> str:
    """Name a partition as the event does."""
    return f"{topic}-{partition}"


class KafkaCodec:
    """Encodes the records of one cluster."""

    rules: SourceRules = KAFKA_RULES

    def __init__(
        self, bootstrap_servers: Sequence[str], event_source: str, event_source_arn: str | None = None
    ) -> None:
        self._servers = ",".join(bootstrap_servers)
        #: What is told of the cluster; one of one's own has no ARN.
        self._arn = {"eventSourceArn": event_source_arn} if event_source_arn else {}
        self._source = {"eventSource": event_source, **self._arn, "bootstrapServers": self._servers}

    def event(self, rows: Sequence[KafkaRecord]) -> bytes:
        """Encode rows of one partition, at least one."""
        first = rows[0]
        # Records of a topic are much alike: where the first value is small, looking at each costs more than it saves.
        encoded = [_with_large_value(row) for row in rows] if len(first.value or b"") >= _LARGE_BYTES else rows
        records = {shard_name(first.topic, first.partition): encoded}
        return _encode({**self._source, "records": records})

    def parse(self, event: bytes) -> Chunk:
        """Read the rows of one partition back; encoding them again gives the same bytes."""
        try:
            ((shard, rows),) = _decode_event(event).records.items()
        except msgspec.MsgspecError as error:
            raise ValueError(f"no Kafka event: {error}") from error
        return chunk_of(shard, rows, needs_keys=True)

    def write_position(self, position: int) -> str:
        return str(position)

    def read_position(self, text: str) -> int:
        """Read an offset. Raises ValueError."""
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"{text[:40]!r} is no offset")
        return int(text)

    def identify(self, item: object, batch: Batch) -> int | None:
        """Take `{"partition": "<topic>-<partition>", "offset": <integer>}` of a record in the batch."""
        match item:
            case {"partition": batch.shard, "offset": int(offset)} if not isinstance(offset, bool):
                return offset if batch.holds(offset) else None
        return None

    def view(self, row: KafkaRecord) -> tuple[Mapping[str, object], bytes | None]:
        """Give the record's metadata, with its key where it has one, and its value."""
        metadata: dict[str, object] = {
            "topic": row.topic,
            "partition": row.partition,
            "offset": row.offset,
            "timestamp": row.timestamp,
            "timestampType": row.timestampType,
        }
        if row.key is not None:
            metadata["key"] = row.key
        return metadata, row.value

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        """Describe a failed batch."""
        return {
            "KafkaBatchInfo": {
                "batchSize": failure.batch_size,
                **self._arn,
                "bootstrapServers": self._servers,
                "payloadSize": len(event),
                "recordsInfo": {
                    failure.shard: {
                        "firstRecordOffset": str(failure.first_position),
                        "lastRecordOffset": str(failure.last_position),
                        "firstRecordTimestamp": iso_ms(failure.first_time_ms / 1000),
                        "lastRecordTimestamp": iso_ms(failure.last_time_ms / 1000),
                    }
                },
            }
        }


def chunk_of(shard: str, rows: Sequence[KafkaRecord], *, needs_keys: bool, through: int | None = None) -> Chunk:
    """Put rows of one partition, ascending and at least one, into columns.

    Sizes are computed, not encoded: exact but for the room of numbers, of base64 padding and of absent members.
    """
    first, last = rows[0].offset, rows[-1].offset
    is_dense = last - first == len(rows) - 1
    # 4/3 of both sizes falls short of two padded base64 texts by 16/3 at most.
    frame = _FRAME_BYTES + len(_encode(rows[0].topic)) + 6
    return Chunk(
        shard,
        range(first, last + 1) if is_dense else [row.offset for row in rows],
        [frame + (len(row.key or b"") + len(row.value or b"")) * 4 // 3 + len(row.headers) for row in rows],
        [row.timestamp for row in rows],
        [row.key for row in rows] if needs_keys else (),
        rows,
        last if through is None else through,
    )


def record_of(record: ConsumerRecord[bytes, bytes]) -> KafkaRecord:
    """Make a row of a record of the client's."""
    # Messages from before Kafka 0.10 have no timestamp, whatever the type of the field says.
    timestamp: int | None = record.timestamp
    return KafkaRecord(
        record.topic,
        record.partition,
        record.offset,
        _NO_TIMESTAMP if timestamp is None else timestamp,
        TIMESTAMP_TYPES[record.timestamp_type],
        record.key,
        record.value,
        encode_headers(record.headers),
    )


def encode_headers(headers: Sequence[tuple[str, bytes | None]]) -> msgspec.Raw:
    return msgspec.Raw(_encode([{name: _signed(value)} for name, value in headers])) if headers else NO_HEADERS


def _signed(value: bytes | None) -> list[int]:
    return memoryview(value).cast("b").tolist() if value else []


def _with_large_value(row: KafkaRecord) -> KafkaRecord:
    value = row.value
    if value is None or len(value) < _LARGE_BYTES:
        return row
    encoded: Any = msgspec.Raw(b'"%b"' % pybase64.b64encode(value))
    return KafkaRecord(
        row.topic, row.partition, row.offset, row.timestamp, row.timestampType, row.key, encoded, row.headers
    )
