"""The shape of DynamoDB stream records: the Lambda event of a table's stream, and the names records have in it.

Sources: AWS Lambda developer guide, "Using AWS Lambda with Amazon DynamoDB", and events recorded on AWS: the order of
members, `userIdentity` with small initials where the service itself deleted an item (time to live), and no
`invokeIdentityArn`. Keys and images go through as the service wrote them, byte for byte: DynamoDB's typed JSON, numbers
as strings, binary as base64. An image that the stream's view type leaves out is absent.

A record is encoded once, as it comes: a row is a record as it stands in the event, bytes, and an event joins its rows.
An event says which stream its records are of, but not which shard, unless it is that of a tumbling window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from connectors.window_event import window_of, with_window
from router.core.model import (
    STREAM_RULES,
    TRIM_HORIZON,
    Batch,
    Chunk,
    FailedBatch,
    SourceRules,
    WindowCall,
)
from router.failures.record import iso_s

#: Fewest digits of a sequence number that the service takes (API reference, GetShardIterator).
_DIGITS: Final = 21


class Change(msgspec.Struct, gc=False, kw_only=True, rename="pascal"):
    """The change of one item, with the members of the event in their order."""

    #: Seconds since the epoch; the service rounds down, to whole ones.
    approximate_creation_date_time: int | float
    keys: dict[str, msgspec.Raw]
    new_image: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    old_image: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    sequence_number: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,40}$")]
    size_bytes: int | msgspec.UnsetType = msgspec.UNSET
    stream_view_type: str | msgspec.UnsetType = msgspec.UNSET


class StreamRecord(
    msgspec.Struct,
    gc=False,
    kw_only=True,
    rename={
        "event_id": "eventID",
        "event_name": "eventName",
        "event_version": "eventVersion",
        "event_source": "eventSource",
        "region": "awsRegion",
        "user_identity": "userIdentity",
        "change": "dynamodb",
        "arn": "eventSourceARN",
    },
):
    """One record, with the members of the event in their order."""

    event_id: str
    event_name: str
    event_version: str
    event_source: str
    region: str
    #: Who deleted the item, if that was the service.
    user_identity: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    change: Change
    #: Of the stream; answers of the service lack it.
    arn: str | msgspec.UnsetType = msgspec.UNSET


class _Event(msgspec.Struct, gc=False, kw_only=True):
    Records: list[StreamRecord]
    #: Only in the event of a tumbling window.
    arn: str = msgspec.field(default="", name="eventSourceARN")


_encode: Final = msgspec.json.Encoder().encode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_value: Final = msgspec.json.decode


class DynamoDbCodec:
    """Encodes records as AWS Lambda gives them to functions; rows are bytes."""

    rules: SourceRules = STREAM_RULES

    def __init__(self) -> None:
        #: Shards -> ARN of their stream, as far as they are known.
        self.streams: Mapping[str, str] = {}

    def event(self, rows: Sequence[bytes]) -> bytes:
        return b'{"Records":[%b]}' % b",".join(rows)

    def window_event(self, shard: str, rows: Sequence[bytes], call: WindowCall) -> bytes:
        """Encode the event of a tumbling window; without records its stream is that of the shard, if that is known."""
        arn = _arn_of(rows[0]) if rows else self.streams.get(shard, "")
        return with_window(self.event(rows), shard, arn, call)

    def parse(self, event: bytes) -> Chunk:
        """Read the records back; encoding them again gives the same bytes.

        Without a tumbling window their shard is not known: it is empty.
        """
        try:
            records = _decode_event(event).Records
            shard, call = window_of(event) or ("", None)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError(f"no DynamoDB event: {error}") from error
        chunk = chunk_of(shard, records, through=position_of(records[-1]) if records else TRIM_HORIZON)
        chunk.window = call
        return chunk

    def identify(self, item: object, batch: Batch) -> int | None:
        """Take the `SequenceNumber` of a record in the batch."""
        try:
            position = self.read_position(item) if isinstance(item, str) else -1
        except ValueError:
            return None
        return position if batch.holds(position) and self.write_position(position) == item else None

    def view(self, row: bytes) -> tuple[Mapping[str, object], bytes | None]:
        """Give all members of the record but `dynamodb`, and that as JSON."""
        members = _decode_members(row)
        change = bytes(members.pop("dynamodb"))
        return {name: _decode_value(value) for name, value in members.items()}, change

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        """Describe a failed batch; the failed final call of a tumbling window has no records to describe."""
        parsed = _decode_event(event)
        records = {
            "startSequenceNumber": self.write_position(failure.first_position),
            "endSequenceNumber": self.write_position(failure.last_position),
            "approximateArrivalOfFirstRecord": iso_s(failure.first_time_ms / 1000),
            "approximateArrivalOfLastRecord": iso_s(failure.last_time_ms / 1000),
            "batchSize": failure.batch_size,
        }
        stream = {"streamArn": parsed.Records[0].arn if parsed.Records else parsed.arn}
        return {"DDBStreamBatchInfo": {"shardId": failure.shard, **(records if parsed.Records else {}), **stream}}

    def write_position(self, position: int) -> str:
        return f"{position:0{_DIGITS}d}"

    def read_position(self, text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"no sequence number: {text!r}")
        return int(text)


def chunk_of(shard: str, records: Sequence[StreamRecord], *, through: int) -> Chunk:
    """Put records that name their stream, ascending and perhaps none, into columns."""
    rows = [_encode(record) for record in records]
    return Chunk(
        shard,
        [position_of(record) for record in records],
        [len(row) + 1 for row in rows],
        [created_ms(record) for record in records],
        [_key(record) for record in records],
        rows,
        through,
    )


def complete(record: StreamRecord, arn: str) -> StreamRecord:
    """Make a record as it was received one as it stands in events."""
    record.arn = arn
    change, identity = record.change, record.user_identity
    time_s = change.approximate_creation_date_time
    if isinstance(time_s, float) and time_s.is_integer():
        change.approximate_creation_date_time = int(time_s)
    if isinstance(identity, dict):
        named = {f"{name[:1].lower()}{name[1:]}": value for name, value in identity.items()}
        record.user_identity = {name: named.pop(name) for name in ("type", "principalId") if name in named} | named
    return record


def created_ms(record: StreamRecord) -> int:
    """Give the time at which a record was made, epoch milliseconds."""
    return round(record.change.approximate_creation_date_time * 1000)


def position_of(record: StreamRecord) -> int:
    return int(record.change.sequence_number)


def _key(record: StreamRecord) -> bytes:
    """Name the item, however the service orders the attributes of its key."""
    return _encode_sorted(record.change.keys)


def _arn_of(row: bytes) -> str:
    arn: str = _decode_value(_decode_members(row)["eventSourceARN"])
    return arn
