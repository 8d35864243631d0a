"""What happens in a bucket comes through a real queue as S3 delivers it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_plus

import pytest

from tests.live.s3_rig import CREATED, REMOVED, S3Rig, kept_rows, open_rig, receive, records

NASTY = [
    "in/a b+é.txt",
    "100%",
    "100%25",
    "a+b",
    "a%20b",
    "in//double",
    "~tilde*star",
    "日本語/ファイル.csv",
    "😀",
    "k" * 1024,
    "é" * 512,
    "year=2026/(1)'!,;:@&$?#.csv",
]


@pytest.fixture
async def rig(aws_endpoint: str) -> AsyncIterator[S3Rig]:
    async with open_rig(aws_endpoint) as made:
        yield made


def to_queue(arn: str, *events: str) -> dict[str, Any]:
    return {"Id": "all", "QueueArn": arn, "Events": list(events)}


async def test_keys_are_spelled_as_s3_does(rig: S3Rig) -> None:
    bucket, (queue, arn) = await rig.bucket(), await rig.queue()
    await rig.notify(bucket, QueueConfigurations=[to_queue(arn, CREATED)])
    for key in NASTY:
        await rig.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    async with rig.source(rig.settings(bucket, queue)) as source:
        given = records(source, await receive(source, 1 + len(NASTY)))
    keys = [each["s3"]["object"]["key"] for each in given]
    assert sorted(map(unquote_plus, keys)) == sorted(NASTY)
    assert "in/a+b%2B%C3%A9.txt" in keys
    assert all(each["eventName"] == "ObjectCreated:Put" for each in given)


async def test_every_way_to_make_and_remove_an_object_comes_once(rig: S3Rig) -> None:
    bucket, (queue, arn) = await rig.bucket(), await rig.queue()
    await rig.notify(bucket, QueueConfigurations=[to_queue(arn, CREATED, REMOVED)])
    await rig.s3.put_object(Bucket=bucket, Key="a b", Body=b"xyz")
    await rig.s3.copy_object(Bucket=bucket, Key="c d", CopySource={"Bucket": bucket, "Key": "a b"})
    upload = (await rig.s3.create_multipart_upload(Bucket=bucket, Key="e f"))["UploadId"]
    part = await rig.s3.upload_part(Bucket=bucket, Key="e f", UploadId=upload, PartNumber=1, Body=b"x")
    await rig.s3.complete_multipart_upload(
        Bucket=bucket,
        Key="e f",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    await rig.s3.delete_object(Bucket=bucket, Key="c d")
    async with rig.source(rig.settings(bucket, queue, CREATED, REMOVED)) as source:
        given = records(source, await receive(source, 5))
    assert sorted((each["eventName"], each["s3"]["object"]["key"]) for each in given) == [
        ("ObjectCreated:CompleteMultipartUpload", "e+f"),
        ("ObjectCreated:Copy", "c+d"),
        ("ObjectCreated:Put", "a+b"),
        ("ObjectRemoved:Delete", "c+d"),
    ]
    [put] = [each for each in given if each["eventName"] == "ObjectCreated:Put"]
    assert put["s3"]["object"]["size"] == 3
    assert put["s3"]["bucket"]["name"] == bucket


async def test_the_test_event_and_what_is_not_wanted_go_without_the_function(rig: S3Rig) -> None:
    bucket, (queue, arn) = await rig.bucket(), await rig.queue()
    await rig.notify(bucket, QueueConfigurations=[to_queue(arn, CREATED, REMOVED)])
    for key in ("in/é b.csv", "in/b.txt", "out/c.csv"):
        await rig.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    await rig.s3.delete_object(Bucket=bucket, Key="in/é b.csv")
    async with rig.source(rig.settings(bucket, queue, prefix="in/é", suffix=" b.csv")) as source:
        chunks = await receive(source, 5)
        [given] = records(source, chunks)
    assert (given["eventName"], given["s3"]["object"]["key"]) == ("ObjectCreated:Put", "in/%C3%A9+b.csv")
    assert not any(chunk.unfit for chunk in chunks)


@pytest.mark.parametrize("raw", [False, True], ids=["envelope", "raw"])
async def test_through_a_topic_the_records_are_the_same(rig: S3Rig, *, raw: bool) -> None:
    bucket, (queue, queue_arn) = await rig.bucket(), await rig.queue()
    topic = await rig.topic(queue_arn, raw=raw)
    await rig.notify(bucket, TopicConfigurations=[{"Id": "all", "TopicArn": topic, "Events": [CREATED]}])
    await rig.s3.put_object(Bucket=bucket, Key="in/a b.csv", Body=b"x")
    async with rig.source(rig.settings(bucket, queue)) as source:
        chunks = await receive(source, 2)
        [given] = records(source, chunks)
    assert given["eventSource"] == "aws:s3"
    assert given["s3"]["object"]["key"] == "in/a+b.csv"
    assert not any(chunk.unfit for chunk in chunks)


async def test_what_is_no_event_of_the_bucket_is_told_and_left_to_the_queue(rig: S3Rig) -> None:
    bucket, other, (queue, arn) = await rig.bucket(), await rig.bucket(), await rig.queue()
    await rig.notify(other, QueueConfigurations=[to_queue(arn, CREATED)])
    await rig.s3.put_object(Bucket=other, Key="a", Body=b"x")
    for body in ("hello", json.dumps({"order": 17})):
        await rig.sqs.send_message(QueueUrl=await rig.url(queue), MessageBody=body)
    async with rig.source(rig.settings(bucket, queue)) as source:
        chunks = await receive(source, 4)
    assert kept_rows(chunks) == []
    why = sorted(sentence for chunk in chunks for sentence in chunk.unfit.values())
    assert [sentence[:33] for sentence in why] == [
        "the body is no S3 notification: i",
        "the body is not JSON: JSON is mal",
        f"the notification is of bucket '{other[:2]}",
    ]
