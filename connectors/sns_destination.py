"""A standard SNS topic as the place where failure records go: one message each, without payload, as on AWS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from connectors.aws import sns_client
from connectors.aws_link import Link
from connectors.fitting import send_fitting
from connectors.settings import SnsDestination
from router.errors import DestinationUnavailable
from router.failures.record import ArnOf, Form, failure_record, forms, function_arn
from router.ports import FailureMessage, Sent

if TYPE_CHECKING:
    from types_aiobotocore_sns import SNSClient


class SnsSender:
    """Publishes failure records, without payload, to a standard SNS topic."""

    def __init__(self, settings: SnsDestination, arn_of: ArnOf = function_arn) -> None:
        """Make it without any I/O; `arn_of` gives the ARN of a function by its name."""
        self._topic = settings.topic
        client_region = settings.region
        if settings.topic.startswith("arn:"):
            *_, client_region, _, _ = settings.topic.split(":")
        self._arn_of = arn_of
        self.name = f"sns:{settings.topic.rpartition(':')[2]}"
        self._link = Link(
            f"SNS topic {settings.topic}", partial(sns_client, settings.endpoint_url, client_region), self._find
        )

    async def send(self, message: FailureMessage) -> Sent:
        arn = self._arn_of(message.entry.batch.function)
        return await send_fitting(forms(message.entry, failure_record(message.entry, function_arn=arn)), self._send)

    async def _send(self, form: Form) -> None:
        async with self._link.use() as (client, topic):
            await client.publish(TopicArn=topic, Message=form.body.decode())

    async def check(self) -> None:
        async with self._link.use() as (client, topic):
            await client.get_topic_attributes(TopicArn=topic)

    async def close(self) -> None:
        await self._link.close()

    async def _find(self, client: SNSClient) -> str:
        """Give the ARN of the topic: SNS knows no names, so they are looked up among the topics of the account."""
        if self._topic.startswith("arn:"):
            return self._topic
        async for page in client.get_paginator("list_topics").paginate():
            for each in page["Topics"]:
                if each["TopicArn"].rpartition(":")[2] == self._topic:
                    return each["TopicArn"]
        raise DestinationUnavailable(
            f"SNS topic {self._topic}: there is no such topic in this account and region; create it, or give its ARN"
        )
