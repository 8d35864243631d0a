"""A standard SQS queue as the place where failure records go: one message each, without payload, as on AWS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from connectors.aws import sqs_client
from connectors.aws_link import Link
from connectors.fitting import send_fitting
from connectors.settings import SqsDestination, queue_name
from router.failures.record import ArnOf, Form, failure_record, forms, function_arn
from router.ports import FailureMessage, Sent

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient


class SqsSender:
    """Sends failure records, without payload, to a standard SQS queue."""

    def __init__(self, settings: SqsDestination, arn_of: ArnOf = function_arn) -> None:
        """Make it without any I/O; `arn_of` gives the ARN of a function by its name."""
        self._queue, self._owner = settings.queue, None
        client_region = settings.region
        if settings.queue.startswith("arn:"):
            *_, client_region, self._owner, self._queue = settings.queue.split(":")
        self._arn_of = arn_of
        self.name = f"sqs:{queue_name(settings.queue)}"
        self._link = Link(
            f"SQS queue {settings.queue}", partial(sqs_client, settings.endpoint_url, client_region), self._find
        )

    async def send(self, message: FailureMessage) -> Sent:
        arn = self._arn_of(message.entry.batch.function)
        return await send_fitting(forms(message.entry, failure_record(message.entry, function_arn=arn)), self._send)

    async def _send(self, form: Form) -> None:
        async with self._link.use() as (client, url):
            await client.send_message(QueueUrl=url, MessageBody=form.body.decode())

    async def check(self) -> None:
        async with self._link.use() as (client, url):
            await client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])

    async def close(self) -> None:
        await self._link.close()

    async def _find(self, client: SQSClient) -> str:
        if self._queue.startswith(("http://", "https://")):
            return self._queue
        owner = {"QueueOwnerAWSAccountId": self._owner} if self._owner else {}
        return (await client.get_queue_url(QueueName=self._queue, **owner))["QueueUrl"]
