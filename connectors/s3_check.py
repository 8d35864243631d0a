"""Looks at a source of S3 notifications without receiving anything: does the bucket send what is wanted to the queue?

Needs the permissions sqs:GetQueueUrl, sqs:GetQueueAttributes, s3:ListBucket and s3:GetBucketNotification; the last two
are needed by nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from connectors.aws import aws_errors, is_missing_queue, s3_client
from connectors.s3_rules import Rule, Wanted, lets_s3_send, rules_of
from connectors.settings import S3Settings
from connectors.sqs_check import check_sqs
from connectors.sqs_queue import FoundQueue, find_queue, place_of
from router.errors import SourceUnavailable

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

#: What makes all of it, for messages.
SETUP: Final = "`headrace check --connect --setup`"
_AWS_HOSTS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that was reached."""

    client: S3Client
    #: Its notification configuration as S3 gives it, without what belongs to the answer alone.
    notifications: dict[str, Any]
    wanted: Wanted

    @property
    def rules(self) -> list[Rule]:
        return rules_of(self.notifications)


async def check_s3(settings: S3Settings, function_timeout_s: float) -> str:
    """Reach queue and bucket, and say what was found.

    Raises:
        SourceUnavailable: one of them cannot be reached, or the bucket sends nothing of what is wanted to the queue;
            the message says what to do.
    """
    try:
        queue = await find_queue(settings.sqs)
    except SourceUnavailable as error:
        if not can_be_made(settings, error):
            raise
        raise SourceUnavailable(f"{error}; {SETUP} makes it") from error
    about_queue = await check_sqs(settings.sqs, function_timeout_s)
    async with reach_bucket(settings) as bucket:
        return f"{about_queue}; bucket {settings.bucket}: {_judge(settings, queue, bucket)}"


def can_be_made(settings: S3Settings, error: SourceUnavailable) -> bool:
    """Say whether the queue only lacks; one that is named by URL or ARN is somebody's already."""
    return is_missing_queue(error) and ":" not in settings.sqs.queue


@asynccontextmanager
async def reach_bucket(settings: S3Settings) -> AsyncIterator[Bucket]:
    """Reach a bucket and read its notifications.

    Raises:
        SourceUnavailable: not reachable, refused, or missing; the message says what to do.
    """
    place = place_of(settings.sqs)
    async with AsyncExitStack() as opened:
        with aws_errors(SourceUnavailable, f"S3 bucket {settings.bucket}"):
            client = await opened.enter_async_context(s3_client(place.endpoint_url, place.region))
            await client.head_bucket(Bucket=settings.bucket)
            answer = await client.get_bucket_notification_configuration(Bucket=settings.bucket)
        notifications = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
        is_s3 = (urlsplit(client.meta.endpoint_url).hostname or "").endswith(_AWS_HOSTS)
        yield Bucket(client, notifications, Wanted.of(settings, is_s3=is_s3))


def _judge(settings: S3Settings, queue: FoundQueue, bucket: Bucket) -> str:
    """Say how the wanted events come to the queue."""
    direct = [rule for rule in bucket.rules if rule.target == queue.arn]
    topics = [rule for rule in bucket.rules if rule.is_topic]
    missing, missing_by_all = bucket.wanted.missing(direct), bucket.wanted.missing(direct + topics)
    if missing_by_all:
        raise SourceUnavailable(
            f"S3 bucket {settings.bucket}: it does not send {', '.join(missing_by_all)}{_of_keys(settings)} to queue "
            f"{settings.sqs.queue}; run {SETUP}, or correct its notifications"
        )
    if missing:
        return (
            f"sends {', '.join(missing)} to topics only, not to the queue itself: one of them must send on to the queue"
        )
    if not lets_s3_send(queue.attributes.get("Policy"), queue.arn, settings.bucket):
        raise SourceUnavailable(
            f"SQS queue {settings.sqs.queue}: its policy does not let S3 send to it for bucket {settings.bucket}; run "
            f"{SETUP}, or add the statement"
        )
    return "sends to the queue"


def _of_keys(settings: S3Settings) -> str:
    filters = (("prefix", settings.prefix), ("suffix", settings.suffix))
    named = " and ".join(f"{name} {value!r}" for name, value in filters if value)
    return f" of keys with {named}" if named else ""
