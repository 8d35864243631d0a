"""The shape of SQS messages: the Lambda event of a queue, standard or FIFO, and the names messages have in it.

Sources: AWS Lambda developer guide, "Using Lambda with Amazon SQS" (event, failed items), and events recorded on AWS:
the order of members, and that a message without attributes has no `md5OfMessageAttributes` where the mapping has no
batching window, and null where it has one. Attribute values go through untouched; binary ones are base64 both in the
queue's answers and in the event.

A message is encoded once, as it comes: a row is an `SqsRow`, and an event joins the records of its rows. AWS has no
failure record for queues, so the shape of `SQSBatchInfo` is ours, after those of streams and Kafka.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from connectors.settings import queue_name
from router.core.model import QUEUE_RULES, UNKNOWN_TIME_MS, Batch, Chunk, FailedBatch, Part, SourceRules
from router.failures.record import iso_ms
from router.ports import Codec

#: The names of FIFO queues, and only those, end so.
FIFO_SUFFIX: Final = ".fifo"
_UUID_LENGTH: Final = 36
#: System attributes in the event's order; any that is not among them follows.
_ATTRIBUTE_ORDER: Final[Sequence[str]] = (
    "ApproximateReceiveCount",
    "SentTimestamp",
    "SenderId",
    "ApproximateFirstReceiveTimestamp",
    "SequenceNumber",
    "MessageGroupId",
    "MessageDeduplicationId",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
)


class ReceivedAttribute(msgspec.Struct, gc=False, rename="pascal"):
    """A message attribute as ReceiveMessage gives it."""

    data_type: str
    string_value: str | None = None
    #: In base64.
    binary_value: str | None = None


class ReceivedMessage(msgspec.Struct, gc=False, rename="pascal"):
    """A message as ReceiveMessage gives it."""

    message_id: str
    receipt_handle: str
    body: str
    md5_of_body: str = msgspec.field(name="MD5OfBody")
    attributes: dict[str, str] = {}
    message_attributes: dict[str, ReceivedAttribute] = {}
    md5_of_message_attributes: str | None = msgspec.field(default=None, name="MD5OfMessageAttributes")


class MessageAttribute(msgspec.Struct, gc=False, kw_only=True, rename="camel"):
    """A message attribute as it stands in the event; the lists are for types that SQS never had."""

    string_value: str | msgspec.UnsetType = msgspec.UNSET
    binary_value: str | msgspec.UnsetType = msgspec.UNSET
    string_list_values: list[str]
    binary_list_values: list[str]
    data_type: str


class SqsMessage(
    msgspec.Struct,
    gc=False,
    kw_only=True,
    rename={
        "message_id": "messageId",
        "receipt_handle": "receiptHandle",
        "message_attributes": "messageAttributes",
        "md5_of_message_attributes": "md5OfMessageAttributes",
        "md5_of_body": "md5OfBody",
        "event_source": "eventSource",
        "arn": "eventSourceARN",
        "region": "awsRegion",
    },
):
    """One message as it stands in the event."""

    message_id: str
    receipt_handle: str
    body: str
    attributes: dict[str, str]
    message_attributes: dict[str, MessageAttribute]
    #: UNSET = the member is absent.
    md5_of_message_attributes: str | msgspec.UnsetType | None = msgspec.UNSET
    md5_of_body: str
    event_source: Literal["aws:sqs"]
    #: Of the queue.
    arn: str
    region: str


class SqsRow(msgspec.Struct, frozen=True, gc=False):
    """One message."""

    message_id: str
    receipt_handle: str
    #: As it stands in the event.
    record: bytes


class _Event(msgspec.Struct, gc=False):
    Records: Sequence[SqsMessage]


_encode: Final = msgspec.json.Encoder().encode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, Any]).decode


class MessageCodec(Codec, Protocol):
    """The shape of what comes as messages of a queue: notifications, or the messages themselves."""

    def chunk(self, shard: str, messages: Sequence[SqsMessage]) -> Chunk:
        """Put messages, as they were received and perhaps none, into columns."""
        ...

    def receipt(self, row: Any) -> str:
        """Give the receipt handle of a row made by `chunk`."""
        ...


class SqsCodec:
    """Encodes messages as AWS Lambda gives them to functions; rows are `SqsRow`."""

    rules: SourceRules = QUEUE_RULES

    def __init__(self) -> None:
        #: The parts of the batch that was last reported on, and its messages by id: a report may name each of 10,000.
        self._reported: Sequence[Part] = ()
        self._positions: Mapping[str, int] = {}

    def event(self, rows: Sequence[SqsRow]) -> bytes:
        return b'{"Records":[%b]}' % b",".join([row.record for row in rows])

    def parse(self, event: bytes) -> Chunk:
        """Read the messages of one queue back; encoding them again gives the same bytes."""
        try:
            messages = _decode_event(event).Records
            return self.chunk(queue_name(messages[0].arn), messages)
        except (msgspec.MsgspecError, IndexError) as error:
            raise ValueError(f"no SQS event: {error}") from error

    def chunk(self, shard: str, messages: Sequence[SqsMessage]) -> Chunk:
        rows = [SqsRow(message.message_id, message.receipt_handle, _encode(message)) for message in messages]
        return Chunk(
            shard,
            [position_of(row.message_id) for row in rows],
            [len(row.record) + 1 for row in rows],
            [sent_ms(message) for message in messages],
            # Standard queues may have groups too, which say nothing about order.
            [_group(message) for message in messages] if shard.endswith(FIFO_SUFFIX) else (),
            rows,
            through=0,
            again=came_again(messages),
        )

    def receipt(self, row: SqsRow) -> str:
        return row.receipt_handle

    def identify(self, item: object, batch: Batch) -> int | None:
        """Take the `messageId` of a message in the batch."""
        if batch.parts is not self._reported:
            self._reported = batch.parts
            self._positions = {row.message_id: position_of(row.message_id) for row in batch.rows()}
        return self._positions.get(item) if isinstance(item, str) else None

    def view(self, row: SqsRow) -> tuple[Mapping[str, object], bytes | None]:
        """Give all members of the record but its body, and the body."""
        metadata = _decode_members(row.record)
        return metadata, metadata.pop("body").encode()

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        """Describe a failed batch; the messages themselves are in its event."""
        messages = _decode_event(event).Records
        return {
            "SQSBatchInfo": {
                "batchSize": failure.batch_size,
                "eventSourceARN": messages[0].arn,
                "payloadSize": len(event),
                "firstMessageId": messages[0].message_id,
                "lastMessageId": messages[-1].message_id,
                "approximateArrivalOfFirstMessage": iso_ms(failure.first_time_ms / 1000),
                "approximateArrivalOfLastMessage": iso_ms(failure.last_time_ms / 1000),
            }
        }


def position_of(message_id: str) -> int:
    """Give a message's identity as a number: its UUID, else the first 128 bits of its SHA-256."""
    if len(message_id) == _UUID_LENGTH:
        try:
            return int(message_id.replace("-", ""), 16)
        except ValueError:
            pass
    return int.from_bytes(hashlib.sha256(message_id.encode()).digest()[:16])


def came_again(messages: Sequence[SqsMessage]) -> Sequence[int]:
    """Give the indexes of messages that the queue had handed out before."""
    first = ("1", None)
    return tuple(at for at, each in enumerate(messages) if each.attributes.get("ApproximateReceiveCount") not in first)


def message_of(received: ReceivedMessage, *, arn: str, region: str, windowed: bool) -> SqsMessage:
    """Give a message its event's shape."""
    attributes = received.attributes
    ordered = {name: attributes[name] for name in _ATTRIBUTE_ORDER if name in attributes}
    # AWS: absent in every recording without a batching window, null in every one with a window.
    none = None if windowed else msgspec.UNSET
    described = received.message_attributes
    return SqsMessage(
        message_id=received.message_id,
        receipt_handle=received.receipt_handle,
        body=received.body,
        attributes=ordered if len(ordered) == len(attributes) else ordered | attributes,
        message_attributes={name: _attribute(value) for name, value in described.items()} if described else {},
        md5_of_message_attributes=received.md5_of_message_attributes or none,
        md5_of_body=received.md5_of_body,
        event_source="aws:sqs",
        arn=arn,
        region=region,
    )


def _attribute(received: ReceivedAttribute) -> MessageAttribute:
    text, binary = received.string_value, received.binary_value
    return MessageAttribute(
        string_value=msgspec.UNSET if text is None else text,
        binary_value=msgspec.UNSET if binary is None else binary,
        string_list_values=[],
        binary_list_values=[],
        data_type=received.data_type,
    )


def sent_ms(message: SqsMessage) -> int:
    """Give the time at which a message was sent, epoch milliseconds."""
    sent = message.attributes.get("SentTimestamp", "")
    return int(sent) if sent.isdecimal() else UNKNOWN_TIME_MS


def _group(message: SqsMessage) -> bytes | None:
    group = message.attributes.get("MessageGroupId")
    return None if group is None else group.encode()
