"""Makes what a source of S3 notifications lacks: the queue, the queue's policy, the bucket's notification.

Everything that is there stays: a policy gets a statement more, a bucket's notifications a rule more, and only the rule
that an earlier setup made for the same mapping and queue is replaced when the mapping wants something else. What is
there already is left alone, so it can be run again at any time.

A bucket is never made: its name is global, and region, encryption and who may read it are its owner's to decide. Nor
is a queue that is named by URL or ARN, which say that it is somebody's already.

Needs, beside the permissions of `s3_check`, those to do what it does: sqs:CreateQueue, sqs:SetQueueAttributes and
s3:PutBucketNotification. S3 has no way to change notifications only if nobody else has changed them meanwhile: run
one setup of a bucket at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from connectors.aws import aws_errors, sqs_client
from connectors.s3_check import Bucket, can_be_made, reach_bucket
from connectors.s3_rules import AMBIGUOUS, Rule, lets_s3_send, rule_id, with_s3_sending
from connectors.settings import S3Settings
from connectors.sqs_queue import FoundQueue, describe, find_queue, place_of
from router.errors import SourceUnavailable

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

#: Visibility timeout of a new queue, in timeouts of the function (AWS Lambda developer guide on queues), and bounds.
_TIMEOUTS: Final = 6
_SHORTEST_VISIBILITY_S: Final = 30
_LONGEST_VISIBILITY_S: Final = 43200


async def set_up_s3(settings: S3Settings, function_timeout_s: float) -> list[str]:
    """Make what lacks, and say of each thing whether it was made or found.

    Raises:
        SourceUnavailable: something cannot be made; the message says what to do. What was made before stays.
    """
    async with reach_bucket(settings) as bucket:
        queue, is_new = await _queue(settings, function_timeout_s)
        may_send = lets_s3_send(queue.attributes.get("Policy"), queue.arn, settings.bucket)
        try:
            rule = _lacking(settings, queue.arn, bucket)
            if not may_send:
                await _let_s3_send(settings, queue)
            if rule:
                await _notify(settings, bucket, rule, is_policy_new=not may_send)
        except SourceUnavailable as error:
            if not is_new:
                raise
            raise SourceUnavailable(
                f"{error}; the queue {settings.sqs.queue} was made before that, and stays"
            ) from error
    what, visibility_s = describe(settings.sqs), queue.attributes["VisibilityTimeout"]
    return [
        f"{what}: {'made' if is_new else 'found'}, with a visibility timeout of {visibility_s} s",
        f"{what}: its policy {'lets' if may_send else 'now lets'} S3 send for bucket {settings.bucket}",
        f"S3 bucket {settings.bucket}: {f'rule {rule} made' if rule else 'sends what is wanted to the queue'}",
    ]


async def _queue(settings: S3Settings, function_timeout_s: float) -> tuple[FoundQueue, bool]:
    """Find the queue or make it, and say whether it is new."""
    try:
        return await find_queue(settings.sqs), False
    except SourceUnavailable as error:
        if not can_be_made(settings, error):
            raise
    visibility_s = min(max(round(_TIMEOUTS * function_timeout_s), _SHORTEST_VISIBILITY_S), _LONGEST_VISIBILITY_S)
    async with _sqs(settings) as client:
        await client.create_queue(QueueName=settings.sqs.queue, Attributes={"VisibilityTimeout": str(visibility_s)})
    return await find_queue(settings.sqs), True


def _lacking(settings: S3Settings, queue_arn: str, bucket: Bucket) -> Rule | None:
    """Make up the rule that the bucket lacks.

    Raises:
        SourceUnavailable: S3 would refuse it beside the others.
    """
    name = rule_id(settings.sqs.mapping, queue_arn)
    others = [rule for rule in bucket.rules if (rule.id, rule.target) != (name, queue_arn)]
    missing = bucket.wanted.missing([rule for rule in others if rule.target == queue_arn])
    rule = bucket.wanted.rule(settings.sqs.mapping, queue_arn, missing)
    if not missing or rule in bucket.rules:
        return None
    for other in others:
        if rule.overlaps(other):
            hint = "; if its topic sends on to the queue, nothing is lacking" if other.is_topic else ""
            raise SourceUnavailable(
                f"S3 bucket {settings.bucket}: rule {rule} would overlap with rule {other}, which S3 refuses "
                f"({AMBIGUOUS}); narrow or remove one of them{hint}"
            )
    return rule


async def _let_s3_send(settings: S3Settings, queue: FoundQueue) -> None:
    policy = with_s3_sending(queue.attributes.get("Policy"), queue.arn, settings.bucket)
    async with _sqs(settings) as client:
        await client.set_queue_attributes(QueueUrl=queue.url, Attributes={"Policy": policy})


async def _notify(settings: S3Settings, bucket: Bucket, rule: Rule, *, is_policy_new: bool) -> None:
    """Add a rule to the bucket's, or put it in the place of an older one of the same name and queue."""
    kept = [
        each
        for each in bucket.notifications.get("QueueConfigurations", ())
        if (each.get("Id"), each["QueueArn"]) != (rule.id, rule.target)
    ]
    notifications: Any = {**bucket.notifications, "QueueConfigurations": [*kept, rule.configuration()]}
    try:
        with aws_errors(SourceUnavailable, f"S3 bucket {settings.bucket}"):
            await bucket.client.put_bucket_notification_configuration(
                Bucket=settings.bucket, NotificationConfiguration=notifications
            )
    except SourceUnavailable as error:
        if not is_policy_new:
            raise
        raise SourceUnavailable(
            f"{error}; the queue's policy is new and takes effect within a minute: run it again"
        ) from error


@asynccontextmanager
async def _sqs(settings: S3Settings) -> AsyncIterator[SQSClient]:
    place = place_of(settings.sqs)
    with aws_errors(SourceUnavailable, describe(settings.sqs)):
        async with sqs_client(place.endpoint_url, place.region) as client:
            yield client
