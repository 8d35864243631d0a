"""`headrace check --connect --setup` on a real bucket and a real queue: what it makes, finds and refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from connectors.s3_check import check_s3
from connectors.s3_rules import AMBIGUOUS, lets_s3_send, with_s3_sending
from connectors.s3_setup import set_up_s3
from connectors.settings import S3Settings
from router.errors import SourceUnavailable
from tests.live.s3_rig import CREATED, REMOVED, S3Rig, open_rig, receive, records

TIMEOUT_S = 10.0


@pytest.fixture
async def rig(aws_endpoint: str) -> AsyncIterator[S3Rig]:
    async with open_rig(aws_endpoint) as made:
        yield made


@pytest.fixture
async def lacking(rig: S3Rig) -> S3Settings:
    """A bucket that notifies nobody, and a queue that is not there."""
    return rig.settings(await rig.bucket(), rig.name(), prefix="in/", suffix=".csv")


def a_rule(arn: str, name: str, *events: str, prefix: str = "") -> dict[str, Any]:
    rules = [{"Name": "Prefix", "Value": prefix}] if prefix else []
    return {"Id": name, "QueueArn": arn, "Events": list(events), "Filter": {"Key": {"FilterRules": rules}}}


async def refused(settings: S3Settings, *, setup: bool = True) -> str:
    with pytest.raises(SourceUnavailable) as refusal:
        await (set_up_s3 if setup else check_s3)(settings, TIMEOUT_S)
    return str(refusal.value)


class TestSetup:
    async def test_from_nothing_events_flow(self, rig: S3Rig, lacking: S3Settings) -> None:
        queue, bucket = lacking.sqs.queue, lacking.bucket
        said = await set_up_s3(lacking, TIMEOUT_S)
        attributes = await rig.attributes(queue)
        assert attributes["VisibilityTimeout"] == "60"
        assert lets_s3_send(attributes["Policy"], attributes["QueueArn"], bucket)
        rule = f"'headrace-uploads-{queue}' ({CREATED}, prefix 'in/', suffix '.csv', to {attributes['QueueArn']})"
        assert said == [
            f"SQS queue {queue}: made, with a visibility timeout of 60 s",
            f"SQS queue {queue}: its policy now lets S3 send for bucket {bucket}",
            f"S3 bucket {bucket}: rule {rule} made",
        ]
        for key in ("in/a.csv", "in/b.txt"):
            await rig.s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        async with rig.source(lacking) as source:
            [given] = records(source, await receive(source, 2))
        assert given["s3"]["object"]["key"] == "in/a.csv"

    async def test_a_second_time_it_changes_nothing(self, rig: S3Rig, lacking: S3Settings) -> None:
        await set_up_s3(lacking, TIMEOUT_S)
        before = await rig.rules(lacking.bucket), (await rig.attributes(lacking.sqs.queue))["Policy"]
        assert await set_up_s3(lacking, 100 * TIMEOUT_S) == [
            f"SQS queue {lacking.sqs.queue}: found, with a visibility timeout of 60 s",
            f"SQS queue {lacking.sqs.queue}: its policy lets S3 send for bucket {lacking.bucket}",
            f"S3 bucket {lacking.bucket}: sends what is wanted to the queue",
        ]
        assert (await rig.rules(lacking.bucket), (await rig.attributes(lacking.sqs.queue))["Policy"]) == before

    @pytest.mark.parametrize(("timeout_s", "visibility"), [(1.0, "30"), (900.0, "5400"), (9000.0, "43200")])
    async def test_the_visibility_timeout_fits_the_function(
        self, rig: S3Rig, lacking: S3Settings, timeout_s: float, visibility: str
    ) -> None:
        await set_up_s3(lacking, timeout_s)
        assert (await rig.attributes(lacking.sqs.queue))["VisibilityTimeout"] == visibility

    async def test_rules_and_statements_of_others_stay(self, rig: S3Rig) -> None:
        bucket, (queue, arn), (_, other_arn) = await rig.bucket(), await rig.queue(), await rig.queue()
        topic = await rig.topic(other_arn, raw=True)
        rules = [a_rule(other_arn, "theirs", CREATED, prefix="out/")]
        topics = [{"Id": "topic", "TopicArn": topic, "Events": [REMOVED]}]
        await rig.notify(bucket, QueueConfigurations=rules, TopicConfigurations=topics)
        policy = with_s3_sending(None, arn, "another-bucket")
        await rig.sqs.set_queue_attributes(QueueUrl=await rig.url(queue), Attributes={"Policy": policy})
        before = await rig.rules(bucket)

        await set_up_s3(rig.settings(bucket, queue, prefix="in/"), TIMEOUT_S)

        after = await rig.rules(bucket)
        assert after["TopicConfigurations"] == before["TopicConfigurations"]
        assert after["QueueConfigurations"][:1] == before["QueueConfigurations"]
        assert [each["Id"] for each in after["QueueConfigurations"]] == ["theirs", f"headrace-uploads-{queue}"]
        policy = (await rig.attributes(queue))["Policy"]
        assert lets_s3_send(policy, arn, bucket)
        assert lets_s3_send(policy, arn, "another-bucket")

    async def test_the_rule_follows_the_mapping(self, rig: S3Rig, lacking: S3Settings) -> None:
        await set_up_s3(lacking, TIMEOUT_S)
        await set_up_s3(replace(lacking, prefix="in/2026/", events=(CREATED, REMOVED)), TIMEOUT_S)
        [rule] = (await rig.rules(lacking.bucket))["QueueConfigurations"]
        assert rule["Events"] == [CREATED, REMOVED]
        assert {each["Name"].lower(): each["Value"] for each in rule["Filter"]["Key"]["FilterRules"]} == {
            "prefix": "in/2026/",
            "suffix": ".csv",
        }

    async def test_a_rule_that_is_there_already_is_enough(self, rig: S3Rig) -> None:
        bucket, (queue, arn) = await rig.bucket(), await rig.queue()
        await rig.notify(bucket, QueueConfigurations=[a_rule(arn, "theirs", CREATED)])
        before = await rig.rules(bucket)
        said = await set_up_s3(rig.settings(bucket, queue, prefix="in/"), TIMEOUT_S)
        assert said[-1] == f"S3 bucket {bucket}: sends what is wanted to the queue"
        assert await rig.rules(bucket) == before

    async def test_only_the_events_that_lack_are_added(self, rig: S3Rig) -> None:
        bucket, (queue, arn) = await rig.bucket(), await rig.queue()
        await rig.notify(bucket, QueueConfigurations=[a_rule(arn, "theirs", CREATED)])
        await set_up_s3(rig.settings(bucket, queue, CREATED, REMOVED), TIMEOUT_S)
        rules = (await rig.rules(bucket))["QueueConfigurations"]
        assert [each["Events"] for each in rules] == [[CREATED], [REMOVED]]

    async def test_filters_are_cut_at_special_characters_for_a_stand_in(self, rig: S3Rig, lacking: S3Settings) -> None:
        settings = replace(lacking, prefix="in/a b", suffix="é.csv")
        await set_up_s3(settings, TIMEOUT_S)
        for key in ("in/a b-é.csv", "in/a.csv"):
            await rig.s3.put_object(Bucket=lacking.bucket, Key=key, Body=b"x")
        async with rig.source(settings) as source:
            [given] = records(source, await receive(source, 3))
        assert given["s3"]["object"]["key"] == "in/a+b-%C3%A9.csv"
        assert "sends to the queue" in await check_s3(settings, TIMEOUT_S)


class TestRefusals:
    async def test_overlapping_rules(self, rig: S3Rig, lacking: S3Settings) -> None:
        _, arn = await rig.queue()
        await rig.notify(
            lacking.bucket, QueueConfigurations=[a_rule(arn, "theirs", "s3:ObjectCreated:Put", prefix="i")]
        )
        before = await rig.rules(lacking.bucket)
        reason = await refused(lacking)
        assert f"rule 'headrace-uploads-{lacking.sqs.queue}' ({CREATED}, prefix 'in/', suffix '.csv', to " in reason
        assert f"rule 'theirs' (s3:ObjectCreated:Put, prefix 'i', to {arn})" in reason
        assert AMBIGUOUS in reason
        assert reason.endswith(f"; the queue {lacking.sqs.queue} was made before that, and stays")
        assert await rig.rules(lacking.bucket) == before
        assert "Policy" not in await rig.attributes(lacking.sqs.queue)

    async def test_a_topic_that_gets_the_events_may_be_enough(self, rig: S3Rig) -> None:
        bucket, (queue, arn) = await rig.bucket(), await rig.queue()
        topic = await rig.topic(arn, raw=False)
        await rig.notify(bucket, TopicConfigurations=[{"Id": "topic", "TopicArn": topic, "Events": [CREATED]}])
        reason = await refused(rig.settings(bucket, queue))
        assert reason.endswith("; if its topic sends on to the queue, nothing is lacking")

    async def test_no_bucket_is_made(self, rig: S3Rig, lacking: S3Settings) -> None:
        settings = replace(lacking, bucket=rig.name())
        assert f"S3 bucket {settings.bucket}: the bucket does not exist there; create it" in await refused(settings)
        with pytest.raises(rig.sqs.exceptions.QueueDoesNotExist):
            await rig.sqs.get_queue_url(QueueName=lacking.sqs.queue)

    @pytest.mark.parametrize("form", ["arn:aws:sqs:us-east-1:000000000000:{}", "{endpoint}/000000000000/{}"])
    async def test_no_queue_is_made_that_is_somebodys(self, rig: S3Rig, lacking: S3Settings, form: str) -> None:
        queue = form.format(lacking.sqs.queue, endpoint=rig.endpoint_url)
        reason = await refused(replace(lacking, sqs=replace(lacking.sqs, queue=queue)))
        assert "the queue does not exist there" in reason

    async def test_notifications_that_the_store_does_not_take(self, rig: S3Rig, lacking: S3Settings) -> None:
        gone, arn = await rig.queue()
        await rig.notify(lacking.bucket, QueueConfigurations=[a_rule(arn, "theirs", CREATED, prefix="out/")])
        await rig.remove_queue(gone)
        before = await rig.rules(lacking.bucket)
        first, second = await refused(lacking), await refused(lacking)
        assert f"S3 bucket {lacking.bucket}: PutBucketNotificationConfiguration: InvalidArgument: " in second
        again = "; the queue's policy is new and takes effect within a minute: run it again"
        assert first == f"{second}{again}; the queue {lacking.sqs.queue} was made before that, and stays"
        assert await rig.rules(lacking.bucket) == before

    async def test_a_server_that_is_away(self, lacking: S3Settings) -> None:
        settings = replace(lacking, sqs=replace(lacking.sqs, endpoint_url="http://127.0.0.1:1"))
        assert f"S3 bucket {lacking.bucket}: it cannot be reached; check endpoint_url" in await refused(settings)
        assert f"SQS queue {lacking.sqs.queue}: it cannot be reached" in await refused(settings, setup=False)

    async def test_a_name_that_no_queue_can_have(self, lacking: S3Settings) -> None:
        reason = await refused(replace(lacking, sqs=replace(lacking.sqs, queue="no/queue?")))
        assert "SQS queue no/queue?: " in reason


class TestCheck:
    async def test_after_setup_all_is_well(self, lacking: S3Settings) -> None:
        await set_up_s3(lacking, TIMEOUT_S)
        found = await check_s3(lacking, TIMEOUT_S)
        assert found.endswith(f"; bucket {lacking.bucket}: sends to the queue")
        assert lacking.sqs.queue in found

    async def test_a_queue_that_is_not_there(self, lacking: S3Settings) -> None:
        reason = await refused(lacking, setup=False)
        assert f"SQS queue {lacking.sqs.queue}: the queue does not exist there" in reason
        assert reason.endswith("`headrace check --connect --setup` makes it")

    async def test_a_bucket_that_is_not_there(self, rig: S3Rig, lacking: S3Settings) -> None:
        await set_up_s3(lacking, TIMEOUT_S)
        reason = await refused(replace(lacking, bucket=rig.name()), setup=False)
        assert "the bucket does not exist there" in reason

    async def test_a_bucket_that_sends_other_events(self, lacking: S3Settings) -> None:
        await set_up_s3(lacking, TIMEOUT_S)
        reason = await refused(replace(lacking, events=(CREATED, REMOVED)), setup=False)
        assert f"it does not send {REMOVED} of keys with prefix 'in/' and suffix '.csv' to queue" in reason
        assert "run `headrace check --connect --setup`" in reason

    async def test_a_policy_that_does_not_let_s3_send(self, rig: S3Rig, lacking: S3Settings) -> None:
        await set_up_s3(lacking, TIMEOUT_S)
        policy = json.dumps({"Version": "2012-10-17", "Statement": []})
        attributes = {"Policy": policy}
        await rig.sqs.set_queue_attributes(QueueUrl=await rig.url(lacking.sqs.queue), Attributes=attributes)
        reason = await refused(lacking, setup=False)
        assert f"its policy does not let S3 send to it for bucket {lacking.bucket}" in reason

    async def test_events_that_go_to_a_topic_are_said_to(self, rig: S3Rig) -> None:
        bucket, (queue, arn) = await rig.bucket(), await rig.queue()
        topic = await rig.topic(arn, raw=False)
        await rig.notify(bucket, TopicConfigurations=[{"Id": "topic", "TopicArn": topic, "Events": [CREATED]}])
        found = await check_s3(rig.settings(bucket, queue), TIMEOUT_S)
        assert found.endswith(
            f"sends {CREATED} to topics only, not to the queue itself: one of them must send on to the queue"
        )
