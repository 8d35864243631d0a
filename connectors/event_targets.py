"""Queues, topics, buckets and event buses that are told of asynchronous events; each is given by its ARN.

What is too large for one goes without payloads, as on AWS, and what no longer fits then is sent again and again, until
the target takes it or somebody drops it. Queues and topics in order (`.fifo`) are refused, as on AWS.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from connectors.aws import s3_client, service_client, sns_client, sqs_client
from connectors.aws_link import Link
from connectors.fitting import TooLarge
from connectors.settings import AwsSettings
from router.errors import DestinationUnavailable
from router.event_ports import TargetMessage
from router.failures.record import iso_s
from router.ports import Sent

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_sns import SNSClient
    from types_aiobotocore_sqs import SQSClient

#: As AWS Lambda stores it, for which it has no better one.
_CONTENT_TYPE: Final = "application/octet-stream"
#: `Source` of what event buses are given.
_SOURCE: Final = "lambda"
#: What queues and topics take no text with (Amazon SQS API reference, SendMessage), and JSON may have.
_UNSENDABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FIFO: Final = ".fifo"


class QueueTarget:
    """Sends to a standard SQS queue."""

    def __init__(self, arn: str, aws: AwsSettings) -> None:
        """Make it without any I/O."""
        self.name = arn
        self._region, self._account, self._queue = arn.split(":")[3:6]
        self._link = Link(f"SQS queue {arn}", partial(sqs_client, aws.endpoint_url, self._region), self._find)

    async def send(self, message: TargetMessage) -> Sent:
        refuse_fifo(self.name)
        return await _send_fitting(message, partial(self._send, message))

    async def _send(self, message: TargetMessage, body: bytes) -> None:
        async with self._link.use() as (client, url):
            await client.send_message(
                QueueUrl=url, MessageBody=_sendable(body), MessageAttributes=_attributes(message.attributes)
            )

    async def check(self) -> None:
        refuse_fifo(self.name)
        async with self._link.use() as (client, url):
            await client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])

    async def close(self) -> None:
        await self._link.close()

    async def _find(self, client: SQSClient) -> str:
        found = await client.get_queue_url(QueueName=self._queue, QueueOwnerAWSAccountId=self._account)
        return found["QueueUrl"]


class TopicTarget:
    """Publishes to a standard SNS topic."""

    def __init__(self, arn: str, aws: AwsSettings) -> None:
        """Make it without any I/O."""
        self.name = arn
        self._link = Link(f"SNS topic {arn}", partial(sns_client, aws.endpoint_url, arn.split(":")[3]), self._find)

    async def send(self, message: TargetMessage) -> Sent:
        refuse_fifo(self.name)
        return await _send_fitting(message, partial(self._send, message))

    async def _send(self, message: TargetMessage, body: bytes) -> None:
        async with self._link.use() as (client, topic):
            await client.publish(
                TopicArn=topic, Message=_sendable(body), MessageAttributes=_attributes(message.attributes)
            )

    async def check(self) -> None:
        refuse_fifo(self.name)
        async with self._link.use() as (client, topic):
            await client.get_topic_attributes(TopicArn=topic)

    async def close(self) -> None:
        await self._link.close()

    async def _find(self, _: SNSClient) -> str:
        return self.name


class BucketTarget:
    """Puts records into an S3 bucket, one object each."""

    def __init__(self, arn: str, aws: AwsSettings) -> None:
        """Make it without any I/O."""
        self.name = arn
        self._bucket = arn.rpartition(":")[2]
        self._link = Link(f"S3 bucket {self._bucket}", partial(s3_client, aws.endpoint_url, aws.region), self._find)

    async def send(self, message: TargetMessage) -> Sent:
        return await _send_fitting(message, partial(self._send, object_key(message)))

    async def _send(self, key: str, body: bytes) -> None:
        async with self._link.use() as (client, bucket):
            await client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=_CONTENT_TYPE)

    async def check(self) -> None:
        async with self._link.use() as (client, bucket):
            await client.head_bucket(Bucket=bucket)

    async def close(self) -> None:
        await self._link.close()

    async def _find(self, _: S3Client) -> str:
        return self._bucket


class BusTarget:
    """Puts events on an event bus of EventBridge; the record is their detail."""

    def __init__(self, arn: str, aws: AwsSettings) -> None:
        """Make it without any I/O."""
        self.name = arn
        region = arn.split(":")[3]
        self._link: Link[Any] = Link(
            f"event bus {arn}", partial(service_client, "events", aws.endpoint_url, region), self._find
        )

    async def send(self, message: TargetMessage) -> Sent:
        return await _send_fitting(message, partial(self._send, message))

    async def _send(self, message: TargetMessage, body: bytes) -> None:
        entry = {
            "Time": datetime.fromtimestamp(message.at_s, UTC),
            "Source": _SOURCE,
            "Resources": [self.name, message.function_arn],
            "DetailType": message.detail_type,
            "Detail": body.decode(),
            "EventBusName": self.name,
        }
        async with self._link.use() as (client, _):
            answer = await client.put_events(Entries=[entry])
        for refused in answer["Entries"] if answer.get("FailedEntryCount") else ():
            raise DestinationUnavailable(
                f"event bus {self.name}: PutEvents: {refused.get('ErrorCode')}: {refused.get('ErrorMessage')}"
            )

    async def check(self) -> None:
        async with self._link.use() as (client, _):
            await client.describe_event_bus(Name=self.name)

    async def close(self) -> None:
        await self._link.close()

    async def _find(self, client: Any) -> str:
        """See that there is such a bus, as far as we may look: what is put on one that is missing is lost silently."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - see connectors.aws

        try:
            await client.describe_event_bus(Name=self.name)
        except ClientError as error:
            if error.response["Error"].get("Code") != "AccessDeniedException":
                raise
        return self.name


def object_key(message: TargetMessage) -> str:
    """Give the key under which a bucket is given a record: AWS's layout.

    AWS ends it with a random UUID; here it is the event's request id, so that a record that is sent twice is one
    object.
    """
    day = iso_s(message.at_s)
    date, time = day[:10], day[11:19].replace(":", ".")
    return f"aws/lambda/async/{message.function}/{date.replace('-', '/')}/{date}T{time}-{message.id}"


def refuse_fifo(arn: str) -> None:
    """Raise DestinationUnavailable for a queue or topic in order."""
    if arn.endswith(_FIFO):
        raise DestinationUnavailable(f"{arn}: it is FIFO, which AWS Lambda refuses; name a standard queue or topic")


async def _send_fitting(message: TargetMessage, send: Callable[[bytes], Awaitable[None]]) -> Sent:
    """Send a message whole, or where it is too large without payloads. Raises DestinationUnavailable."""
    try:
        await send(message.body)
    except TooLarge:
        if message.small is None:
            raise
        await send(message.small)
        return Sent.WITHOUT_PAYLOADS
    return Sent.WHOLE


def _sendable(body: bytes) -> str:
    """Write what queues do not take as JSON writes it otherwise; outside of strings JSON has no such characters."""
    return _UNSENDABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", body.decode())


def _attributes(attributes: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {
        name: {"DataType": kind, "StringValue": _UNSENDABLE.sub("\ufffd", value)}
        for name, (kind, value) in attributes.items()
    }
