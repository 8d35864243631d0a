"""The function of the fleet under test: it writes down every record at the start and at the end of its batch.

A line of the ledger, which all workers of all replicas append to:

    time_ns  replica  process  request_id  source  key  number  shard:position  phase

Times are of the machine's one monotonic clock. Phases: `S` it begins; `ok` it succeeded; `bad` the function failed it,
or gave it back with what it failed; `clash` somebody else has its key at this moment.

What ran at the same time is not told from times, which nobody knows of a worker that was killed, but by the kernel: a
worker holds a lock for each key of its batch (in a standard queue, which has no order, for each message), from before
its first line to after its last. The kernel frees it when the process is really gone, and not before.

This file is the function's code as it is, and has to run alone.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

#: Records have this many keys in each source.
KEYS: Final = 24
#: One record in so many is poison.
POISON_EVERY: Final = 120
#: The function takes at most so long for a batch, seconds.
LONGEST_S: Final = 0.4


class Row(NamedTuple):
    """One record of an event."""

    source: str
    key: int
    number: int
    #: What names it in a response.
    identifier: object
    #: Where it is, as far as it says: `shard:position`.
    where: str = "-:0"


def is_poison(key: int, number: int) -> bool:
    return (37 * key + number) % POISON_EVERY == 0


def rows(event: Mapping[str, Any]) -> Iterator[Row]:
    """Give the records of an event of any source."""
    if "Records" not in event:
        for record in (record for records in event["records"].values() for record in records):
            body = json.loads(base64.b64decode(record["value"]))
            identifier = {"partition": f"{record['topic']}-{record['partition']}", "offset": record["offset"]}
            yield Row("kafka", body["key"], body["n"], identifier, f"{record['partition']}:{record['offset']}")
        return
    for record in event["Records"]:
        if record["eventSource"] == "aws:sqs":
            body = json.loads(record["body"])
            source = "fifo" if "MessageGroupId" in record["attributes"] else "sqs"
            yield Row(source, body["key"], body["n"], record["messageId"])
        elif record["eventSource"] == "aws:kinesis":
            body = json.loads(base64.b64decode(record["kinesis"]["data"]))
            yield Row("kinesis", body["key"], body["n"], record["kinesis"]["sequenceNumber"], record["eventID"])
        else:
            image = record["dynamodb"]["NewImage"]
            number = record["dynamodb"]["SequenceNumber"]
            yield Row(
                "dynamodb", int(image["id"]["S"].removeprefix("key-")), int(image["n"]["N"]), number, f"-:{number}"
            )


@cache
def _ledger() -> int:
    return os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@cache
def _locks(source: str) -> int:
    return os.open(f"{os.environ['LEDGER']}.{source}.locks", os.O_RDWR | os.O_CREAT, 0o600)


def _lock(row: Row, how: int) -> bool:
    """Take or free the lock of a key, or of a message that has none; False = another process has it."""
    place = row.key + KEYS * row.number if row.source == "sqs" else row.key
    try:
        fcntl.lockf(_locks(row.source), how, 1, place)
    except OSError:
        return False
    return True


def _write(request_id: str, batch: Sequence[Row], phases: Sequence[str]) -> None:
    now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    head = f"{now_ns} {os.environ['REPLICA']} {os.getpid()} {request_id}"
    lines = [
        f"{head} {row.source} {row.key} {row.number} {row.where} {phase}\n"
        for row, phase in zip(batch, phases, strict=True)
        if phase
    ]
    os.write(_ledger(), "".join(lines).encode())


def _fails(batch: Sequence[Row]) -> Sequence[bool]:
    """Say which records fail: as a handler of their source has to say it."""
    bad = [is_poison(row.key, row.number) for row in batch]
    source = batch[0].source
    if source == "kinesis" and any(bad):
        return [True] * len(batch)
    if source == "dynamodb" and any(bad):
        return [place >= bad.index(True) for place in range(len(batch))]
    if source == "fifo":
        held: set[int] = {row.key for row, is_bad in zip(batch, bad, strict=True) if is_bad}
        first = {key: next(n for n, row in enumerate(batch) if row.key == key and bad[n]) for key in held}
        return [row.key in held and place >= first[row.key] for place, row in enumerate(batch)]
    return bad


def handle(event: Mapping[str, Any], context: Any) -> Mapping[str, object]:
    batch = list(rows(event))
    free = [_lock(row, fcntl.LOCK_EX | fcntl.LOCK_NB) for row in batch]
    _write(context.aws_request_id, batch, ["S"] * len(batch))
    _write(context.aws_request_id, batch, ["" if each else "clash" for each in free])
    time.sleep(LONGEST_S * (batch[0].number % 40) / 40)
    bad = _fails(batch)
    _write(context.aws_request_id, batch, ["bad" if each else "ok" for each in bad])
    for row, is_ours in zip(batch, free, strict=True):
        if is_ours:
            _lock(row, fcntl.LOCK_UN)
    if batch[0].source == "kinesis" and any(bad):
        raise ValueError("poison")
    failed = [row.identifier for row, each in zip(batch, bad, strict=True) if each]
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failed]}
