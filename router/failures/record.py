"""The record that a destination is given for a failed batch: pure, shaped as AWS Lambda shapes it.

Members and their order are those recorded on AWS (streams) and shown in the AWS Lambda developer guide ('Capturing
discarded batches', for Kafka sources). Where AWS differs per destination, so do we: queues and topics of messages get
no payload, object stores the event as an escaped text, Kafka topics one message a record with the record as an object.

Everything comes from the stored failure, also the time, so that a record that is sent twice is the same text twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid5

import msgspec
import pybase64

from router.core.model import WindowCall, partition_of
from router.ports import FailureEntry

#: What stands for the event: nothing, the event as an escaped JSON text, or the event itself.
Payload = Literal["none", "escaped", "object"]

#: The account of ARNs where nothing else is said; Lambda emulators use the same.
ACCOUNT: Final = "000000000000"
DEFAULT_REGION: Final = "us-east-1"
KAFKA_BATCH_INFO: Final = "KafkaBatchInfo"
#: Kafka topics see this word where all other destinations see RetryAttemptsExhausted (developer guide, example record).
KAFKA_TOPIC_CONDITIONS: Final = {"RetryAttemptsExhausted": "RetriesExhausted"}


#: In the ARN of a function without version or alias.
_ARN_COLONS: Final = 6
#: Namespace of the UUIDs of mappings.
_MAPPINGS: Final = UUID("b0a53c2e-0b5f-4c53-8f3f-6f6f5c9d1e77")

#: What a calendar reaches: the years 1 to 9999.
_FIRST_S: Final = -62_135_596_800.0
_LAST_S: Final = 253_402_300_799.0


#: Gives the ARN under which failure records name a function.
ArnOf = Callable[[str], str]


def function_arn(function: str, region: str | None = None, account_id: str = ACCOUNT) -> str:
    """Give the ARN under which failure records name one of our functions, or a version or alias of it."""
    region = region or DEFAULT_REGION
    return f"arn:{partition_of(region)}:lambda:{region}:{account_id}:function:{function}"


def mapping_uuid(mapping: str) -> UUID:
    """Give the UUID by which AWS's forms know a mapping of ours: it follows from the name."""
    return uuid5(_MAPPINGS, mapping)


def object_key(entry: FailureEntry, prefix: str = "") -> str:
    """Give the key under which a bucket is given a record: AWS's layout, behind a prefix.

    AWS ends it with a random UUID; here it follows from the failure, so that a record sent twice is one object.
    """
    batch = entry.batch
    day = iso_ms(batch.failed_at_s)
    date, time = day[:10], day[11:19].replace(":", ".")
    mapping = mapping_uuid(batch.mapping)
    folder = f"aws/lambda/{mapping}/{batch.shard}/{date.replace('-', '/')}"
    return f"{prefix}{folder}/{date}T{time}-{uuid5(mapping, batch.id)}"


def failure_record(
    entry: FailureEntry, *, function_arn: str, event: bytes = b"", payload: Payload = "none"
) -> dict[str, Any]:
    """Make the failure record of a whole batch."""
    record = _envelope(entry, function_arn)
    body: dict[str, Any] = {}
    if payload != "none":
        body = {"payload": event.decode() if payload == "escaped" else msgspec.Raw(event)}
    stamp: dict[str, Any] = {"timestamp": iso_ms(entry.batch.failed_at_s)}
    # Kafka's records end with the payload; those of streams have it before the timestamp.
    if KAFKA_BATCH_INFO in entry.batch_info:
        return {**record, **stamp, **entry.batch_info, **body}
    window = {"timeWindowInfo": time_window(entry.batch.window)} if entry.batch.window else {}
    return {**record, **body, **stamp, **entry.batch_info, **window}


def time_window(call: WindowCall) -> dict[str, Any]:
    """Say which tumbling window a call is of, and how, as events and failure records do."""
    return {
        "window": {"start": iso_s(call.start_s), "end": iso_s(call.end_s)},
        "isFinalInvokeForWindow": call.final,
        "isWindowTerminatedEarly": call.early,
    }


def kafka_topic_records(
    entry: FailureEntry, *, function_arn: str, event: bytes
) -> Iterator[tuple[bytes | None, dict[str, Any]]]:
    """Make what a Kafka topic is given: one message a record of a Kafka source, with the record's own key.

    A failure of another kind of source is one message without a key.
    """
    info = entry.batch_info.get(KAFKA_BATCH_INFO)
    if not isinstance(info, Mapping):
        yield None, failure_record(entry, function_arn=function_arn, event=event, payload="object")
        return
    batch = msgspec.json.decode(event)
    has_version = function_arn.count(":") > _ARN_COLONS
    envelope = _envelope(entry, function_arn if has_version else f"{function_arn}:$LATEST")
    context = envelope["requestContext"]
    context["condition"] = KAFKA_TOPIC_CONDITIONS.get(context["condition"], context["condition"])
    envelope["timestamp"] = iso_ms(entry.batch.failed_at_s)
    for partition, records in batch["records"].items():
        for record in records:
            yield _kafka_topic_record(envelope, info, {**batch, "records": {partition: [record]}}, record)


class Form(NamedTuple):
    """A record as it is sent."""

    body: bytes
    #: Is it nothing but a claim check?
    is_bare: bool


def forms(entry: FailureEntry, record: Mapping[str, Any]) -> Iterator[Form]:
    """Encode a record whole, and then ever smaller, for a destination for which it is too large.

    What is left out is in the failure store, and the claim check says under which id: first it takes the payload's
    place, then everything's but the time.
    """
    yield Form(encode(record), is_bare=False)
    check = {"claimCheck": claim_check(entry)}
    if "payload" in record:
        rest = {name: value for name, value in record.items() if name != "payload"}
        yield Form(encode({**rest, **check}), is_bare=False)
    yield Form(encode({"version": record["version"], "timestamp": record["timestamp"], **check}), is_bare=True)


def claim_check(entry: FailureEntry) -> dict[str, Any]:
    """Say where the whole failure is."""
    failure_id = entry.batch.id
    return {
        "failure": failure_id,
        "mapping": entry.batch.mapping,
        "eventBytes": entry.event_bytes,
        "fetch": f"headrace failures show {failure_id} --json",
    }


def encode(record: Mapping[str, Any]) -> bytes:
    """Encode a record as compact JSON."""
    return msgspec.json.encode(record)


def iso_ms(epoch_s: float) -> str:
    """Give a time as ISO 8601 in UTC with milliseconds.

    Producers may write any number as a record's time; beyond the calendar it becomes its first or last second.
    """
    return _iso(epoch_s, "milliseconds")


def iso_s(epoch_s: float) -> str:
    """Give a time as ISO 8601 in UTC in whole seconds, within the same bounds."""
    return _iso(epoch_s, "seconds")


def _iso(epoch_s: float, unit: str) -> str:
    within_s = min(max(epoch_s, _FIRST_S), _LAST_S)
    return datetime.fromtimestamp(within_s, UTC).isoformat(timespec=unit).replace("+00:00", "Z")


def _kafka_topic_record(
    envelope: Mapping[str, Any], info: Mapping[str, Any], event: Mapping[str, Any], record: Mapping[str, Any]
) -> tuple[bytes | None, dict[str, Any]]:
    source = {name: info[name] for name in ("eventSourceArn", "bootstrapServers") if name in info}
    batch_info = {
        "batchSize": 1,
        **source,
        "payloadSize": len(msgspec.json.encode(event)),
        "recordInfo": {"offset": str(record["offset"]), "timestamp": iso_ms(record["timestamp"] / 1000)},
    }
    key = record.get("key")
    return (
        None if key is None else pybase64.b64decode(key),
        {**envelope, KAFKA_BATCH_INFO: batch_info, "payload": event},
    )


def _envelope(entry: FailureEntry, function_arn: str) -> dict[str, Any]:
    batch = entry.batch
    record: dict[str, Any] = {
        "requestContext": {
            "requestId": batch.request_id,
            "functionArn": function_arn,
            "condition": batch.reason.value,
            "approximateInvokeCount": batch.attempts,
        }
    }
    if batch.responded:
        record["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": batch.function_error,
        }
    record["version"] = "1.0"
    return record
