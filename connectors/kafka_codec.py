"""The shape of Kafka records: the Lambda event of a self-managed cluster, and the names records have in it.

Source: AWS Lambda developer guide, "Using Lambda with self-managed Apache Kafka" (event, failed items, failure
records). It leaves open how a record without key or value looks: those members are left out. Header values are lists
of *signed* bytes, as in deliveries of AWS. A header without a value is an empty list.

A row is aiokafka's `ConsumerRecord`; the rows of one event are of one partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pybase64
from aiokafka.structs import ConsumerRecord

from router.core.model import KAFKA_RULES, Batch, Chunk, FailedBatch, SourceRules
from router.failure_record import iso_ms

#: Values from this size on are encoded by pybase64, whose vector code overtakes msgspec's there.
_LARGE_BYTES: Final = 700
#: Kafka's number for a timestamp that was never set.
_NO_TIMESTAMP: Final = -1
_TIMESTAMP_TYPES: Final[Mapping[int | None, str]] = {0: "CREATE_TIME", 1: "LOG_APPEND_TIME", None: "NO_TIMESTAMP_TYPE"}
_TIMESTAMP_NUMBERS: Final = {name: number for number, name in _TIMESTAMP_TYPES.items()}
_SIGNED: Final = [byte - 256 if byte > 127 else byte for byte in range(256)]
#: Everything of an encoded record but topic, key, value and headers, with the longest numbers that 64 bits make.
_FRAME_BYTES: Final = (
    len('{"topic":"","partition":,"offset":,"timestamp":,"timestampType":"NO_TIMESTAMP_TYPE"')
    + len(',"key":"","value":"","headers":[]},')
    + 10
    + 20
    + 20
)


class _Encoded(msgspec.Struct, omit_defaults=True, gc=False):
    """One record as it stands in the event."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestampType: str  # noqa: N815 - the event's own spelling
    key: bytes | msgspec.UnsetType = msgspec.UNSET
    value: bytes | msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    headers: list[dict[str, list[int]]] | msgspec.UnsetType = msgspec.UNSET


class _Decoded(msgspec.Struct):
    """One record read back from an event."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestampType: str  # noqa: N815 - the event's own spelling
    headers: list[dict[str, list[int]]]
    key: bytes | None = None
    value: bytes | None = None


class _DecodedEvent(msgspec.Struct):
    records: dict[str, list[_Decoded]]


_encode: Final = msgspec.json.Encoder().encode
_decode_event: Final = msgspec.json.Decoder(_DecodedEvent).decode


def shard_name(topic: str, partition: int) -> str:
    """Name a partition as the event does."""
    return f"{topic}-{partition}"


class KafkaCodec:
    """Encodes the records of one cluster."""

    rules: SourceRules = KAFKA_RULES

    def __init__(self, bootstrap_servers: Sequence[str], event_source: str) -> None:
        self._servers = ",".join(bootstrap_servers)
        self._event_source = event_source

    def event(self, rows: Sequence[ConsumerRecord[Any, Any]]) -> bytes:
        """Encode rows of one partition, at least one."""
        first = rows[0]
        records = {shard_name(first.topic, first.partition): [_encoded(row) for row in rows]}
        return _encode(
            {"eventSource": self._event_source, "bootstrapServers": self._servers, "records": records},
        )

    def parse(self, event: bytes) -> Chunk:
        """Read the rows of one partition back; encoding them again gives the same bytes."""
        try:
            ((shard, decoded),) = _decode_event(event).records.items()
        except msgspec.MsgspecError as error:
            raise ValueError(f"no Kafka event: {error}") from error
        return chunk_of(shard, [_row(record) for record in decoded], needs_keys=True)

    def identify(self, item: object, batch: Batch) -> int | None:
        """Take `{"partition": "<topic>-<partition>", "offset": <integer>}` of a record in the batch."""
        match item:
            case {"partition": batch.shard, "offset": int(offset)} if not isinstance(offset, bool):
                return offset if batch.holds(offset) else None
        return None

    def view(self, row: ConsumerRecord[Any, Any]) -> tuple[Mapping[str, object], bytes | None]:
        """Give the record's metadata, with its key where it has one, and its value."""
        metadata: dict[str, object] = {
            "topic": row.topic,
            "partition": row.partition,
            "offset": row.offset,
            "timestamp": row.timestamp,
            "timestampType": _TIMESTAMP_TYPES[row.timestamp_type],
        }
        if row.key is not None:
            metadata["key"] = row.key
        return metadata, row.value

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        """Describe a failed batch; a self-managed cluster has no ARN, so none is given."""
        return {
            "KafkaBatchInfo": {
                "batchSize": failure.batch_size,
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


def chunk_of(
    shard: str, rows: Sequence[ConsumerRecord[Any, Any]], *, needs_keys: bool, through: int | None = None
) -> Chunk:
    """Put rows of one partition, ascending and at least one, into columns.

    Sizes are computed, not encoded: exact but for the room of numbers, of base64 padding and of absent members.
    """
    # 4/3 of both sizes falls short of two padded base64 texts by 16/3 at most; an absent member has size -1, needs 0.
    frame = _FRAME_BYTES + len(_encode(rows[0].topic)) + 6
    positions = [row.offset for row in rows]
    # Messages from before Kafka 0.10 have no timestamp, whatever the type of the field says.
    times_ms: list[Any] = [row.timestamp for row in rows]
    if None in times_ms:
        times_ms = [_NO_TIMESTAMP if time_ms is None else time_ms for time_ms in times_ms]
    sizes = [
        frame
        + (row.serialized_key_size + row.serialized_value_size) * 4 // 3
        + (_headers_bytes(row.headers) if row.headers else 0)
        for row in rows
    ]
    return Chunk(
        shard,
        positions,
        sizes,
        times_ms,
        [row.key for row in rows] if needs_keys else (),
        rows,
        positions[-1] if through is None else through,
    )


def _headers_bytes(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Give an upper bound of the encoded size; a byte takes at most five (`-128,`)."""
    return sum(len(_encode(name)) + 5 * len(value or b"") + len("{:[]},") for name, value in headers)


def _encoded(row: ConsumerRecord[Any, Any]) -> _Encoded:
    key, value, headers = row.key, row.value, row.headers
    timestamp: int | None = row.timestamp
    return _Encoded(
        row.topic,
        row.partition,
        row.offset,
        _NO_TIMESTAMP if timestamp is None else timestamp,
        _TIMESTAMP_TYPES[row.timestamp_type],
        msgspec.UNSET if key is None else key,
        msgspec.UNSET if value is None else value if len(value) < _LARGE_BYTES else _raw(value),
        [{name: [_SIGNED[byte] for byte in data or b""]} for name, data in headers] if headers else [],
    )


def _raw(value: bytes) -> msgspec.Raw:
    return msgspec.Raw(b'"%b"' % pybase64.b64encode(value))


def _row(record: _Decoded) -> ConsumerRecord[Any, Any]:
    key, value = record.key, record.value
    return ConsumerRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        timestamp_type=_TIMESTAMP_NUMBERS[record.timestampType],
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=-1 if key is None else len(key),
        serialized_value_size=-1 if value is None else len(value),
        headers=[(name, bytes(b & 255 for b in data)) for header in record.headers for name, data in header.items()],
    )
