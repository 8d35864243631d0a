"""The shape of Kinesis records: the Lambda event of a stream, and the names records have in it.

Sources: AWS Lambda developer guide, "Using Lambda with Amazon Kinesis" (event, failed items, failure records, tumbling
windows), and what was recorded on AWS: the order of members, times as the shortest decimal, and that all records of an
aggregate have its sequence number. The data is base64 both in the stream's answers and in the event, and goes through
untouched.

A row is a record in the form of the event. A position is the sequence number. Where aggregates are taken apart (see
connectors.kpl) it is the sequence number and, in its lowest 24 bits, the place in the aggregate, the last one being
that of every record's end: written `SEQ` at the end of a record, else `SEQ.PLACE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import pybase64

from connectors.kpl import UserRecord, split
from connectors.window_event import window_of, with_window
from router.core.model import STREAM_RULES, TRIM_HORIZON, Batch, Chunk, FailedBatch, Part, SourceRules, WindowCall
from router.failures.record import ACCOUNT, iso_ms

#: On AWS, the role that the function runs as. Here functions run as nobody that AWS knows.
INVOKE_IDENTITY: Final = f"arn:aws:iam::{ACCOUNT}:role/headrace"
#: Room for the place in an aggregate, which holds up to a million records of no bytes.
_PLACE_BITS: Final = 24
_END: Final = (1 << _PLACE_BITS) - 1
#: API reference, SequenceNumber.
_SEQUENCE_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,128}")
_POSITION: Final = re.compile(rf"({_SEQUENCE_NUMBER.pattern})(?:\.(0|[1-9][0-9]{{0,7}}))?")
#: Longest decimal of a double.
_TIME_BYTES: Final = 24


class ReceivedRecord(msgspec.Struct, gc=False):
    """A record as GetRecords and SubscribeToShard give it."""

    SequenceNumber: str
    #: Seconds.
    ApproximateArrivalTimestamp: float
    #: In base64.
    Data: str
    PartitionKey: str


class _Kinesis(msgspec.Struct, gc=False):
    kinesisSchemaVersion: str  # noqa: N815 - the event's own spelling
    partitionKey: str  # noqa: N815
    sequenceNumber: str  # noqa: N815
    data: str
    approximateArrivalTimestamp: float  # noqa: N815


class KinesisRecord(msgspec.Struct, gc=False):
    """One record, with the members of the event in their order."""

    kinesis: _Kinesis
    eventSource: str  # noqa: N815
    eventVersion: str  # noqa: N815
    eventID: str  # noqa: N815
    eventName: str  # noqa: N815
    invokeIdentityArn: str  # noqa: N815
    awsRegion: str  # noqa: N815
    eventSourceARN: str  # noqa: N815


class _Event(msgspec.Struct, gc=False):
    Records: list[KinesisRecord]
    #: Of the event of a tumbling window.
    eventSourceARN: str = ""  # noqa: N815


_encode: Final = msgspec.json.Encoder().encode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


class KinesisCodec:
    """Encodes the records of one stream, or of one consumer of it."""

    rules: SourceRules = STREAM_RULES

    def __init__(self, *, deaggregate: bool = False) -> None:
        """Make it; `deaggregate`: are aggregates taken apart?"""
        #: Of the stream or consumer, as events name it; empty until the stream is found.
        self.arn = ""
        self._deaggregate = deaggregate
        #: The parts of the batch that was last reported on, and the first position of each of its sequence numbers: a
        #: report may name each of 10,000 records.
        self._reported: Sequence[Part] = ()
        self._first_positions: Mapping[str, int] = {}

    def event(self, rows: Sequence[KinesisRecord]) -> bytes:
        return _encode({"Records": rows})

    def window_event(self, shard: str, rows: Sequence[KinesisRecord], call: WindowCall) -> bytes:
        return with_window(self.event(rows), shard, rows[0].eventSourceARN if rows else self.arn, call)

    def parse(self, event: bytes) -> Chunk:
        """Read the rows of one shard back; encoding them again gives the same bytes."""
        try:
            rows, found = _decode_event(event).Records, window_of(event)
            if found and not rows:
                return Chunk(found[0], (), (), (), (), (), TRIM_HORIZON, window=found[1])
            shard = rows[0].eventID.rpartition(":")[0]
            chunk = _chunk(shard, rows, self._parsed_positions(rows))
            chunk.window = found[1] if found else None
        except (msgspec.MsgspecError, IndexError, ValueError) as error:
            raise ValueError(f"no Kinesis event: {error}") from error
        return chunk

    def chunk(self, shard: str, received: Sequence[ReceivedRecord]) -> Chunk:
        """Put records of a shard, as they were received, at least one, into columns."""
        if not self._deaggregate:
            positions = [int(record.SequenceNumber) for record in received]
            return _chunk(shard, self._rows(shard, received), positions)
        positions, apart = [], []
        for record in received:
            inner = split(record.Data)
            end = int(record.SequenceNumber) << _PLACE_BITS | _END
            # The last one is at the end of the record, which is then finished.
            positions += [*range(end - _END, end - _END + len(inner) - 1), end]
            apart += [_within(record, each) for each in inner] or [record]
        return _chunk(shard, self._rows(shard, apart), positions)

    def is_within(self, position: int) -> bool:
        """Say whether a position is within an aggregate, and not at its end."""
        return self._deaggregate and position & _END != _END

    def sequence_number(self, position: int) -> int:
        """Give the sequence number of the record that a position is in."""
        return position >> _PLACE_BITS if self._deaggregate else position

    def identify(self, item: object, batch: Batch) -> int | None:
        """Take the sequence number of a record in the batch; of several records that have it, the first is meant."""
        if batch.parts is not self._reported:
            self._reported = batch.parts
            rows = zip(reversed(batch.rows()), reversed(batch.positions()), strict=True)
            self._first_positions = {row.kinesis.sequenceNumber: position for row, position in rows}
        return self._first_positions.get(item) if isinstance(item, str) else None

    def view(self, row: KinesisRecord) -> tuple[Mapping[str, object], bytes | None]:
        """Give all members of the record but its data, those of `kinesis` among them, and the data."""
        metadata: dict[str, object] = msgspec.structs.asdict(row)
        del metadata["kinesis"]
        metadata |= msgspec.structs.asdict(row.kinesis)
        del metadata["data"]
        return metadata, decode_data(row.kinesis.data)

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        """Describe a failed batch; the final call of a window has no records to name."""
        called = _decode_event(event)
        rows = called.Records
        if not rows:
            return {"KinesisBatchInfo": {"shardId": failure.shard, "streamArn": called.eventSourceARN}}
        return {
            "KinesisBatchInfo": {
                "shardId": failure.shard,
                "startSequenceNumber": rows[0].kinesis.sequenceNumber,
                "endSequenceNumber": rows[-1].kinesis.sequenceNumber,
                "approximateArrivalOfFirstRecord": iso_ms(failure.first_time_ms / 1000),
                "approximateArrivalOfLastRecord": iso_ms(failure.last_time_ms / 1000),
                "batchSize": failure.batch_size,
                "streamArn": rows[0].eventSourceARN,
            }
        }

    def write_position(self, position: int) -> str:
        sequence_number = self.sequence_number(position)
        return f"{sequence_number}.{position & _END}" if self.is_within(position) else str(sequence_number)

    def read_position(self, text: str) -> int:
        """Read it back; one within an aggregate is before all of it where aggregates are not taken apart."""
        found = _POSITION.fullmatch(text)
        if not found or (found[2] and int(found[2]) >= _END):
            raise ValueError(f"{text!r} is no sequence number: give digits, as events and failure records show them")
        sequence_number = int(found[1])
        if not self._deaggregate:
            return sequence_number - 1 if found[2] else sequence_number
        return sequence_number << _PLACE_BITS | (int(found[2]) if found[2] else _END)

    def _rows(self, shard: str, records: Sequence[ReceivedRecord]) -> list[KinesisRecord]:
        arn = self.arn
        region = arn.split(":")[3]
        return [
            KinesisRecord(
                _Kinesis(
                    "1.0",
                    each.PartitionKey,
                    each.SequenceNumber,
                    each.Data,
                    each.ApproximateArrivalTimestamp,
                ),
                "aws:kinesis",
                "1.0",
                f"{shard}:{each.SequenceNumber}",
                "aws:kinesis:record",
                INVOKE_IDENTITY,
                region,
                arn,
            )
            for each in records
        ]

    def _parsed_positions(self, rows: Sequence[KinesisRecord]) -> list[int]:
        """Give rows positions that fit: which place of an aggregate a record had, events do not say."""
        numbers = [int(row.kinesis.sequenceNumber) for row in rows]
        if not self._deaggregate:
            return numbers
        positions: list[int] = []
        for number, following in zip(numbers, [*numbers[1:], -1], strict=True):
            if following != number:
                place = _END
            elif positions and positions[-1] >> _PLACE_BITS == number:
                place = (positions[-1] & _END) + 1
            else:
                place = 0
            positions.append(number << _PLACE_BITS | place)
        return positions


def decode_data(data: str) -> bytes:
    """Decode a record's data; what is no base64 is given as it is."""
    try:
        return pybase64.b64decode(data, validate=True)
    except ValueError:
        return data.encode()


def _within(record: ReceivedRecord, inner: UserRecord) -> ReceivedRecord:
    return ReceivedRecord(
        record.SequenceNumber,
        record.ApproximateArrivalTimestamp,
        pybase64.b64encode(inner.data).decode(),
        inner.partition_key,
    )


def _chunk(shard: str, rows: Sequence[KinesisRecord], positions: Sequence[int]) -> Chunk:
    """Put rows of one shard, ascending and at least one, into columns.

    Sizes are computed, not encoded: exact but for the room of times. Keys are filled with one lane as well: a shard may
    have unfinished work in the lanes it had before, and replays in shards that are over are told apart by key.
    """
    first = rows[0]
    frame = len(_encode(first)) + _TIME_BYTES - _room(first.kinesis)
    return Chunk(
        shard,
        positions,
        [frame + _room(row.kinesis) for row in rows],
        [round(row.kinesis.approximateArrivalTimestamp * 1000) for row in rows],
        [row.kinesis.partitionKey.encode() for row in rows],
        rows,
        positions[-1],
    )


def _room(record: _Kinesis) -> int:
    """Bytes that differ from record to record, but for the time."""
    return len(_encode(record.partitionKey)) + 2 * len(record.sequenceNumber) + len(record.data)
