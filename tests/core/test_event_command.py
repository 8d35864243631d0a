"""`headrace event`: the samples, and that what we make ourselves has their shape."""

import base64
import hashlib
import json
import tomllib
from pathlib import Path

import pytest

from connectors.kafka_codec import KafkaCodec
from connectors.s3_codec import S3Codec
from connectors.settings import S3Settings, SqsSettings
from connectors.sqs_codec import ReceivedAttribute, ReceivedMessage, SqsCodec, message_of
from router.cli import main
from router.commands.event import KINDS

FOLDER = Path(__file__).parents[2] / "router" / "commands" / "sample_events"


@pytest.fixture
def headrace(capsys):
    def run(*arguments):
        status = main(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def sample(kind):
    return json.loads((FOLDER / f"{kind}.json").read_text("utf-8"))


def shape(value):
    """Replace values by their types: texts, numbers and what is under which name."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value]
    return type(value).__name__


def test_every_kind_has_its_file_and_every_file_its_kind():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{kind}.json" for kind in KINDS)


def test_all_files_are_shipped():
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["router.commands"]
    shipped = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert shipped >= set(FOLDER.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_printed_for_people_and_for_machines(headrace, kind):
    status, out, err = headrace("event", kind)
    assert (status, err) == (0, "")
    assert out.isascii()
    assert out.count("\n") > 1
    assert json.loads(out) == sample(kind)
    status, out, _ = headrace("event", kind, "--json")
    assert (status, out.count("\n")) == (0, 1)
    assert json.loads(out) == sample(kind)


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_without_a_kind_all_are_listed(headrace, arguments):
    status, out, _ = headrace("event", *arguments)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["KIND", *KINDS]
    status, out, _ = headrace("event", "--json", *arguments)
    assert status == 0
    assert json.loads(out) == [{"kind": kind, "shows": shows} for kind, shows in KINDS.items()]


@pytest.mark.parametrize(
    ("kind", "near"),
    [("sqz", "sqs"), ("s3", "s3-put"), ("sqs_fifo", "sqs-fifo"), ("self-managed-kafka", "kafka"), ("api", "apigw-v1")],
)
def test_an_unknown_kind_is_told_with_what_was_probably_meant(headrace, kind, near):
    status, out, err = headrace("event", kind)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert f"did you mean {near}" in err or f" or {near}" in err


@pytest.mark.parametrize("kind", ["zzz", ""])
def test_an_unknown_kind_that_is_like_none(headrace, kind):
    status, out, err = headrace("event", kind)
    assert (status, out) == (2, "")
    assert "did you mean" not in err


def test_a_kind_and_the_list_of_kinds_are_not_both_to_be_had(headrace):
    assert headrace("event", "sqs", "--list")[0] == 2


@pytest.mark.parametrize("kind", ["sqs", "sqs-fifo"])
def test_checksums_of_messages_are_those_of_their_bodies(kind):
    for record in sample(kind)["Records"]:
        assert hashlib.md5(record["body"].encode()).hexdigest() == record["md5OfBody"]


@pytest.mark.parametrize("kind", ["sqs", "sqs-fifo"])
def test_messages_have_the_shape_that_we_deliver(kind):
    """What a queue answers, made into an event by our codec, is the sample to the order of its members."""
    event = sample(kind)
    codec = SqsCodec()
    messages = [
        message_of(as_received(record), arn=record["eventSourceARN"], region=record["awsRegion"], windowed=False)
        for record in event["Records"]
    ]
    made = json.loads(codec.event(codec.chunk("orders", messages).rows))
    assert made == event
    assert [list(record) for record in made["Records"]] == [list(record) for record in event["Records"]]


def as_received(record):
    """Give a record of the event as ReceiveMessage answers it."""
    attributes = {
        name: ReceivedAttribute(value["dataType"], value.get("stringValue"), value.get("binaryValue"))
        for name, value in record["messageAttributes"].items()
    }
    return ReceivedMessage(
        record["messageId"],
        record["receiptHandle"],
        record["body"],
        record["md5OfBody"],
        record["attributes"],
        attributes,
        record.get("md5OfMessageAttributes"),
    )


def test_notifications_have_the_shape_that_we_deliver():
    """A notification that comes in a message reaches the function as the sample."""
    event = sample("s3-put")
    message = sample("sqs")["Records"][1] | {"body": json.dumps(event)}
    row = message_of(as_received(message), arn=message["eventSourceARN"], region="eu-west-1", windowed=False)
    bucket = event["Records"][0]["s3"]["bucket"]["name"]
    carrier = SqsSettings("uploads", "upload-events", None, None, windowed=False)
    codec = S3Codec(S3Settings(carrier, bucket, ("s3:ObjectCreated:*",), "", "", by_sequencer=False))
    chunk = codec.chunk("upload-events", [row])
    assert (chunk.unfit, json.loads(codec.event(chunk.rows))) == ({}, event)


def test_kafka_records_have_the_shape_that_we_deliver():
    """Both partitions of the sample make one event each: ours hold records of one partition."""
    event = sample("kafka")
    codec = KafkaCodec(event["bootstrapServers"].split(","), "SelfManagedKafka")
    for partition, records in event["records"].items():
        ours = {**event, "records": {partition: records}}
        assert json.loads(codec.event(codec.parse(json.dumps(ours).encode()).rows)) == ours


def test_msk_records_are_those_of_a_self_managed_cluster_with_an_arn():
    event = sample("msk")
    assert shape(event) == {**shape(sample("kafka")), "eventSourceArn": "str"}
    assert base64.b64decode(event["records"]["orders-0"][0]["key"]) == b"order-17"
