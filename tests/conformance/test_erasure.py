"""The records of one key are erased from stored failures, wholly and nobody else's, and are in no file any more."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from connectors.kafka_codec import KafkaCodec, KafkaRecord
from connectors.s3_codec import S3Codec
from connectors.settings import S3Settings, SqsSettings
from connectors.sqs_codec import SqsCodec
from connectors.store.sqlite import SqliteStore
from router.cli import main
from router.core.model import FunctionError, Try, WindowCall
from router.failures.erasure import Erased, erase, without_key
from router.ports import Codec, FailureEntry, KeepFailure, Selection
from tests.fakes.failures import entry
from tests.fakes.shard_stream import MemoryShardCodec
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemoryRecord

KAFKA = KafkaCodec(["127.0.0.1:9092"], "SelfManagedKafka")
QUOTED = FunctionError("KeyError", "no price in the order of alice", ("  File a.py, line 3", "alice"))


def kafka_event(*keys: bytes | None, value: bytes = b"x") -> bytes:
    rows = [
        KafkaRecord("orders", 0, offset, 1767225600000 + offset, "CREATE_TIME", key, (key or b"-") + value, Raw(b"[]"))
        for offset, key in enumerate(keys)
    ]
    return KAFKA.event(rows)


def stored(event: bytes, codec: Codec, failure_id: str = "f1", **changes: Any) -> FailureEntry:
    keys = tuple(dict.fromkeys(key for key in codec.parse(event).keys if key is not None))
    tries = (Try(1.0, "r", 3, QUOTED),)
    size = len(codec.parse(event).rows)
    return entry(failure_id, keys=keys, event=event, batch_size=size, error=QUOTED, tries=tries, **changes)


def offsets(event: bytes | None) -> list[int]:
    assert event is not None
    return [record["offset"] for records in json.loads(event)["records"].values() for record in records]


# --- what is left of one failure


def test_only_the_records_of_the_key_go() -> None:
    event = kafka_event(b"alice", b"bob", b"alice", None, b"alice2")
    failure = stored(event, KAFKA)
    erasure = without_key(KAFKA, failure, event, b"alice")
    assert offsets(erasure.event) == [1, 3, 4]
    assert erasure.entry
    assert erasure.entry.batch.batch_size == 3
    assert erasure.entry.batch_info["KafkaBatchInfo"]["batchSize"] == 3  # type: ignore[index]
    assert (erasure.entry.batch.id, erasure.entry.batch.first_position) == ("f1", failure.batch.first_position)
    assert without_key(KAFKA, failure, event, b"ALICE").event == event


def test_the_window_of_what_is_left_stays() -> None:
    codec, call = MemoryShardCodec(), WindowCall(60, 120, b'{"n":7}')
    rows = [MemoryRecord("s-0", offset, 1000, key, b"x") for offset, key in enumerate((b"alice", b"bob"))]
    event = codec.window_event("s-0", rows, call)
    failure = stored(event, codec, shard="s-0", window=replace(call, state=b""))
    erasure = without_key(codec, failure, event, b"alice")
    assert erasure.event == codec.window_event("s-0", rows[1:], call)
    assert erasure.entry
    assert erasure.entry.batch.window == WindowCall(60, 120, b"")


def test_what_errors_said_goes_with_them_for_it_may_quote_any_record() -> None:
    event = kafka_event(b"alice", b"bob")
    erased = without_key(KAFKA, stored(event, KAFKA), event, b"alice").entry
    assert erased
    assert erased.batch.error == FunctionError("KeyError", "erased", ())
    assert [each.error for each in erased.batch.tries] == [FunctionError("KeyError", "erased", ())]
    never_ran = stored(event, KAFKA)
    object.__setattr__(never_ran.batch, "error", None)
    rest = without_key(KAFKA, never_ran, event, b"alice").entry
    assert rest
    assert rest.batch.error is None


def test_a_failure_of_that_key_alone_is_deleted() -> None:
    event = kafka_event(b"alice", b"alice")
    assert without_key(KAFKA, stored(event, KAFKA), event, b"alice").entry is None


def sqs_event(queue: str, *groups: str) -> bytes:
    records = [
        {
            "messageId": f"00000000-0000-0000-0000-{number:012}",
            "receiptHandle": "r",
            "body": f"of {group}",
            "attributes": {"SentTimestamp": "1767225600000", "MessageGroupId": group},
            "messageAttributes": {},
            "md5OfBody": "m",
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{queue}",
            "awsRegion": "us-east-1",
        }
        for number, group in enumerate(groups)
    ]
    return json.dumps({"Records": records}).encode()


def test_messages_of_a_group_go() -> None:
    codec = SqsCodec()
    event = sqs_event("orders.fifo", "alice", "bob", "alice")
    erasure = without_key(codec, stored(event, codec), event, b"alice")
    assert erasure.event is not None
    assert [record["body"] for record in json.loads(erasure.event)["Records"]] == ["of bob"]
    assert erasure.entry
    info: Any = erasure.entry.batch_info["SQSBatchInfo"]
    assert (info["firstMessageId"], info["batchSize"]) == ("00000000-0000-0000-0000-000000000001", 1)


def test_objects_of_a_key_go_also_from_what_is_said_of_the_batch() -> None:
    queue = SqsSettings("uploads", "uploads", None, None, windowed=False)
    codec = S3Codec(S3Settings(queue, "uploads", ("s3:ObjectCreated:*",), "", "", by_sequencer=False))
    records = [
        {
            "eventName": "ObjectCreated:Put",
            "eventTime": "2026-01-01T00:00:00.000Z",
            "s3": {"bucket": {"name": "uploads"}, "object": {"key": key, "sequencer": f"{number:016X}"}},
        }
        for number, key in enumerate(["in/alice.csv", "in/bob.csv"])
    ]
    event = json.dumps({"Records": records}).encode()
    erasure = without_key(codec, stored(event, codec), event, b"in/alice.csv")
    assert erasure.event is not None
    assert b"alice" not in erasure.event
    assert erasure.entry
    assert "alice" not in json.dumps(erasure.entry.batch_info)


# --- of many


async def test_what_cannot_be_erased_is_told_and_stays() -> None:
    store = MemoryStore()
    event = kafka_event(b"alice", b"bob")
    for failure_id, mapping in (("f1", "orders"), ("f2", "orders"), ("f3", "gone"), ("f4", "orders")):
        await store.apply([KeepFailure(stored(event, KAFKA, failure_id, mapping=mapping), event)])
    garbage = stored(event, KAFKA, "f5")
    await store.apply([KeepFailure(garbage, b"garbage")])
    await store.claim(["f2"])
    await store.drop(["f4"])
    erased = await erase(
        store, lambda name: KAFKA if name == "orders" else None, b"alice", ["f1", "f2", "f3", "f4", "f5"]
    )
    assert (erased.failures, erased.records) == (2, 1)
    reasons = {each.id: each.reason for each in erased.kept}
    assert set(reasons) == {"f2", "f3", "f5"}
    assert "being replayed" in reasons["f2"]
    assert "'gone' is not configured" in reasons["f3"]
    assert "cannot be read" in reasons["f5"]
    assert [each.batch.id for each in await store.failures(Selection(key=b"alice"))] == ["f2", "f3", "f5"]
    assert await erase(store, lambda _: KAFKA, b"nobody", ["f1"]) == Erased(0, 0, [])


# --- the command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "headrace.yaml").write_text(
        "functions:\n  worker: {handler: app.handle, code: .}\n"
        "event_source_mappings:\n  orders:\n    function: worker\n"
        "    source: {kafka: {bootstrap_servers: [127.0.0.1:1], topic: orders}}\n"
    )

    async def make() -> None:
        store = await SqliteStore.open(tmp_path / ".headrace")
        for number in range(30):
            who = b"alice" if number % 3 else b"carol"
            event = kafka_event(who, b"bob", value=b"secret-of-%d" % number)
            failure = stored(event, KAFKA, f"f{number:02}", failed_at_s=float(number))
            if who == b"carol":
                failure = replace(failure, batch=replace(failure.batch, error=None, tries=()))
            await store.apply([KeepFailure(failure, event)])
        await store.drop(["f01"])
        await store.close()

    asyncio.run(make())
    return tmp_path


def erase_command(project: Path, *more: str) -> Sequence[str]:
    return ["-c", str(project / "headrace.yaml"), "state", "erase", "--key", "alice", *more]


def test_the_command_erases_a_key_from_the_store_of_a_stopped_service(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / ".headrace" / "headrace.db.version-1").touch()
    assert main(erase_command(project, "--dry-run", "--json")) == 0
    assert len(json.loads(capsys.readouterr().out)) == 20
    assert main(erase_command(project)) == 2
    assert "--yes is needed" in capsys.readouterr().err
    assert main(erase_command(project, "--yes", "--json")) == 0
    assert json.loads(capsys.readouterr().out) == {
        "failures": 20,
        "records": 19,
        "kept": [],
        "not_covered": ["headrace.db.version-1"],
    }
    files = b"".join(path.read_bytes() for path in (project / ".headrace").iterdir())
    assert b"alice" not in files
    assert base64.b64encode(b"alice") not in files
    assert b"carol" in files
    assert main(erase_command(project, "--yes")) == 0
    assert capsys.readouterr().out.startswith(
        "0 records erased from 0 failed batches\nnot looked into: headrace.db.version-1, copies made by"
    )
