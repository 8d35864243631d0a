"""Notifications of an S3 bucket that come as SQS messages: the event that S3 gives a function, and what it leaves out.

A message's body is a notification, or an envelope of SNS around one; raw delivery of SNS makes it a notification
again. A notification holds records: one from S3, as many as its sender likes from others. The function is given the
records alone, as S3 would have called it: the key spelled as S3 does (`connectors.s3_key`), `eventName` without
`s3:`, everything else byte for byte as it came.

What is left out, so that the message is deleted without an invocation: the event that S3 sends to try a new rule,
and records of event types or keys that the mapping does not want. What is kept but unfit, so that it is never lost
silently: bodies that are no JSON or no notification, notifications without records, and those of another bucket. An
unfit message has no S3 event; where an event of it is asked for (it is stored, or replayed), it is that of SQS.

Sources: Amazon S3 user guide, "Event message structure" and "Configuring event notifications using object key name
filtering"; Amazon SNS developer guide, "HTTP/HTTPS notification JSON format", which queues are given too.

A store that encodes no key is known by its records' marks: releases of ministack before 1.5.18 number all events
`0` and sign as `EXAMPLE`; S3's numbers have 16 digits or more.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec

from connectors.s3_key import read_key
from connectors.settings import S3Settings, queue_name
from connectors.sqs_codec import SqsCodec, SqsMessage, came_again, position_of, sent_ms
from router.core.model import QUEUE_RULES, UNKNOWN_TIME_MS, Batch, Chunk, FailedBatch, Part, SourceRules
from router.failures.record import iso_ms

_TEST_EVENT: Final = "s3:TestEvent"
_SQS: Final = "aws:sqs"
#: Characters of a bucket's name, at most.
_NAME_LENGTH: Final = 63
_is_hexadecimal: Final = re.compile("[0-9A-Fa-f]+").fullmatch


class S3Row(msgspec.Struct, frozen=True, gc=False):
    """One message."""

    #: Empty = read back from an event.
    receipt: str
    #: Its records as they stand in the event, with commas between; what has none is a record of SQS.
    records: bytes
    #: Of the first record: the decoded key, in UTF-8, and its place among the events of that key.
    object_key: bytes | None = None
    rank: int = 0


class _Body(msgspec.Struct, gc=False):
    """What a body may be: a notification, a test event, an envelope."""

    Records: list[msgspec.Raw] | None = None
    Event: Any = None
    Type: Any = None
    Message: Any = None


class _Bucket(msgspec.Struct, gc=False):
    name: str


class _Object(msgspec.Struct, gc=False):
    key: str
    sequencer: Any = None


class _S3(msgspec.Struct, gc=False):
    bucket: _Bucket
    object: _Object


class _Record(msgspec.Struct, gc=False):
    """What we look at in a record."""

    eventName: str  # noqa: N815 - the event's own spelling
    s3: _S3


class _Named(msgspec.Struct, gc=False):
    """What reports may name a record by: members of S3's, or of SQS's."""

    s3: _S3 | None = None
    messageId: str = ""  # noqa: N815 - see above


class _Origin(msgspec.Struct, gc=False):
    """What tells the shapes of stored events, and stores, apart."""

    eventSource: Any = None  # noqa: N815 - see above
    eventTime: Any = None  # noqa: N815 - see above
    responseElements: Any = None  # noqa: N815 - see above


class _Event(msgspec.Struct, gc=False):
    Records: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]


class _Found(msgspec.Struct, frozen=True, gc=False):
    """One record that was read."""

    #: As it stands in the event.
    text: bytes | msgspec.Raw
    #: Decoded.
    key: str
    rank: int
    is_wanted: bool


_encode: Final = msgspec.json.Encoder().encode
_decode_body: Final = msgspec.json.Decoder(_Body).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_record: Final = msgspec.json.Decoder(_Record).decode
_decode_named: Final = msgspec.json.Decoder(list[_Named]).decode
_decode_message: Final = msgspec.json.Decoder(SqsMessage).decode
_decode_origin: Final = msgspec.json.Decoder(_Origin).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_each_members: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class S3Codec:
    """Reads the notifications of one bucket; rows are `S3Row`."""

    rules: SourceRules = QUEUE_RULES

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        types = [event.removeprefix("s3:") for event in settings.events]
        self._types = frozenset(types)
        self._families = tuple(name[:-1] for name in types if name.endswith("*"))
        #: The parts of the batch that was last reported on, and what its records' names stand for.
        self._reported: Sequence[Part] = ()
        self._named: dict[str, int | None] = {}

    def chunk(self, shard: str, messages: Sequence[SqsMessage]) -> Chunk:
        """Read messages as they were received."""
        rows: list[S3Row] = []
        kept: list[int] = []
        unfit: dict[int, str] = {}
        for index, message in enumerate(messages):
            try:
                row, is_wanted = self._read(message)
            except ValueError as error:
                row, is_wanted = _as_message(message), True
                unfit[index] = str(error)
            rows.append(row)
            if is_wanted:
                kept.append(index)
        ordered = self._settings.by_sequencer
        return Chunk(
            shard,
            [position_of(message.message_id) for message in messages],
            [len(row.records) + 1 for row in rows],
            [sent_ms(message) for message in messages],
            [row.object_key for row in rows] if ordered else (),
            rows,
            through=0,
            kept=None if len(kept) == len(rows) else kept,
            unfit=unfit,
            again=came_again(messages),
            ranks=[row.rank for row in rows] if ordered else (),
        )

    def receipt(self, row: S3Row) -> str:
        """Give the receipt handle of a message that was received."""
        return row.receipt

    def event(self, rows: Sequence[S3Row]) -> bytes:
        """Encode the records of all rows; an unfit message stands among them as a record of SQS."""
        return b'{"Records":[%b]}' % b",".join([row.records for row in rows])

    def parse(self, event: bytes) -> Chunk:
        """Read the records back, with keys. Unfit messages are read anew: the mapping may be another by now."""
        rows: list[S3Row] = []
        positions: list[int] = []
        times_ms: list[int] = []
        seen: Counter[bytes] = Counter()
        try:
            for text in map(bytes, _decode_event(event).Records):
                origin = _decode_origin(text)
                if origin.eventSource == _SQS:
                    message = _decode_message(text)
                    rows.append(self._reread(message))
                    positions.append(position_of(message.message_id))
                    times_ms.append(sent_ms(message))
                else:
                    sent = _decode_record(text).s3.object
                    rows.append(S3Row("", text, read_key(sent.key)[0].encode(), _rank(sent.sequencer)))
                    positions.append(_digest(text, seen[text]))
                    times_ms.append(_time_ms(origin.eventTime))
                    seen[text] += 1
        except msgspec.MsgspecError as error:
            raise ValueError(f"no S3 event: {error}") from error
        return Chunk(
            queue_name(self._settings.sqs.queue),
            positions,
            [len(row.records) + 1 for row in rows],
            times_ms,
            [row.object_key for row in rows],
            rows,
            through=0,
            ranks=[row.rank for row in rows],
        )

    def identify(self, item: object, batch: Batch) -> int | None:
        """Take the sequencer of a record, or its key as in the event, where that names one message and no other."""
        if batch.parts is not self._reported:
            self._reported, self._named = batch.parts, _names(batch)
        return self._named.get(item) if isinstance(item, str) else None

    def view(self, row: S3Row) -> tuple[Mapping[str, object], bytes | None]:
        """Give a record's members as metadata and its `s3` as data; of several records, lists of them."""
        records = _decode_each_members(b"[%b]" % row.records)
        things = [record.pop("s3") for record in records if "s3" in record]
        if len(records) == 1:
            data = bytes(things[0]) if things else None
            return {name: msgspec.json.decode(value) for name, value in records[0].items()}, data
        members: dict[str, list[object]] = {}
        for record in records:
            for name, value in record.items():
                members.setdefault(name, []).append(msgspec.json.decode(value))
        return members, b"[%b]" % b",".join(things)

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        """Describe a failed batch, an unfit one as messages. AWS has no such record for S3, so this shape is ours."""
        texts = _decode_event(event).Records
        if _decode_origin(texts[0]).eventSource == _SQS:
            return SqsCodec().batch_info(failure, event)
        return {
            "S3BatchInfo": {
                "batchSize": failure.batch_size,
                "bucket": self._settings.bucket,
                "payloadSize": len(event),
                "firstObjectKey": _decode_record(texts[0]).s3.object.key,
                "lastObjectKey": _decode_record(texts[-1]).s3.object.key,
                "approximateArrivalOfFirstMessage": iso_ms(failure.first_time_ms / 1000),
                "approximateArrivalOfLastMessage": iso_ms(failure.last_time_ms / 1000),
            }
        }

    def _read(self, message: SqsMessage) -> tuple[S3Row, bool]:
        """Read a message's records, and say whether some are wanted; then the row has only those, else all.

        Raises:
            ValueError: it is unfit; the message says why.
        """
        found = [self._record(text) for text in _records_in(message.body)]
        wanted = [each for each in found if each.is_wanted]
        chosen = wanted or found
        if not chosen:
            return _as_message(message), False
        first, records = chosen[0], b",".join([each.text for each in chosen])
        return S3Row(message.receipt_handle, records, first.key.encode(), first.rank), bool(wanted)

    def _reread(self, message: SqsMessage) -> S3Row:
        try:
            return self._read(message)[0]
        except ValueError:
            return _as_message(message)

    def _record(self, text: msgspec.Raw) -> _Found:
        try:
            record = _decode_record(text)
        except msgspec.ValidationError as error:
            raise ValueError(f"the body is no S3 notification: {error} in a record") from error
        bucket, sent = record.s3.bucket.name, record.s3.object
        if bucket != self._settings.bucket:
            raise ValueError(
                f"the notification is of bucket {bucket[:_NAME_LENGTH]!r}, and this mapping is for "
                f"{self._settings.bucket!r}: correct the mapping, or let that bucket send to another queue"
            )
        key, spelled = read_key(sent.key, is_raw=sent.sequencer == "0" and _encodes_no_keys(text))
        name = record.eventName.removeprefix("s3:")
        is_as_s3 = spelled == sent.key and name == record.eventName
        return _Found(
            text if is_as_s3 else _rewritten(text, name, spelled), key, _rank(sent.sequencer), self._wants(name, key)
        )

    def _wants(self, name: str, key: str) -> bool:
        settings = self._settings
        return (
            (name in self._types or name.startswith(self._families))
            and key.startswith(settings.prefix)
            and key.endswith(settings.suffix)
        )


def _as_message(message: SqsMessage) -> S3Row:
    return S3Row(message.receipt_handle, _encode(message))


def _records_in(body: str) -> list[msgspec.Raw]:
    """Give a notification's records, compact if they were spread over lines; none in a test event.

    Raises:
        ValueError: it is no notification; the message says why.
    """
    text, where = body, "the body"
    decoded = _decode(text, where)
    if decoded.Records is None and decoded.Type == "Notification" and isinstance(decoded.Message, str):
        text, where = decoded.Message, "the SNS message in the body"
        decoded = _decode(text, where)
    if decoded.Records is None and decoded.Event == _TEST_EVENT:
        return []
    if not decoded.Records:
        raise ValueError(f"{where} is no S3 notification: it has no Records")
    if "\n" in text or "\r" in text:
        return [msgspec.Raw(msgspec.json.format(record, indent=-1)) for record in decoded.Records]
    return decoded.Records


def _decode(text: str, where: str) -> _Body:
    try:
        return _decode_body(text)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where} is no S3 notification: {error}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested too deeply") from error


def _encodes_no_keys(text: msgspec.Raw) -> bool:
    elements = _decode_origin(text).responseElements
    return isinstance(elements, dict) and elements.get("x-amz-id-2") == "EXAMPLE"


def _rewritten(text: msgspec.Raw, name: str, key: str) -> bytes:
    """Put another event name and key into a record; all else stays byte for byte."""
    record = _decode_members(text)
    s3 = _decode_members(record["s3"])
    thing = _decode_members(s3["object"])
    record["eventName"] = msgspec.Raw(_encode(name))
    thing["key"] = msgspec.Raw(_encode(key))
    s3["object"] = msgspec.Raw(_encode(thing))
    record["s3"] = msgspec.Raw(_encode(s3))
    return _encode(record)


def _rank(sequencer: object) -> int:
    """Read a sequencer, hexadecimal digits of any number; any other one counts as the first."""
    return int(sequencer, 16) if isinstance(sequencer, str) and _is_hexadecimal(sequencer) else 0


def _time_ms(time: object) -> int:
    try:
        read = datetime.fromisoformat(str(time))
    except ValueError:
        return UNKNOWN_TIME_MS
    return round((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)


def _digest(text: bytes, earlier: int) -> int:
    """Number a record by what it holds, and by how many equal ones stand before it."""
    return int.from_bytes(hashlib.sha256(b"%d %b" % (earlier, text)).digest()[:16])


def _names(batch: Batch) -> dict[str, int | None]:
    """Map message ids, sequencers and keys to the position of the message they name; None = of several."""
    names: dict[str, int | None] = {}
    for chunk, index in batch.each():
        position = chunk.positions[index]
        for record in _decode_named(b"[%b]" % chunk.rows[index].records):
            thing = record.s3.object if record.s3 else None
            for name in (thing.sequencer, thing.key) if thing else (record.messageId,):
                if isinstance(name, str):
                    names[name] = position if names.get(name, position) == position else None
    return names
