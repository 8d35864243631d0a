"""An S3 bucket as the place where failure records go: one object each, with the event as an escaped text, as on AWS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from connectors.aws import s3_client
from connectors.aws_link import Link
from connectors.fitting import send_fitting
from connectors.settings import S3Destination
from router.failures.record import ArnOf, Form, failure_record, forms, function_arn, object_key
from router.ports import FailureMessage, Sent

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

#: As AWS Lambda stores it, for which it has no better one.
_CONTENT_TYPE: Final = "application/octet-stream"


class S3Sender:
    """Puts failure records, with the event, into a bucket."""

    def __init__(self, settings: S3Destination, arn_of: ArnOf = function_arn) -> None:
        """Make it without any I/O; `arn_of` gives the ARN of a function by its name."""
        self._settings = settings
        self._arn_of = arn_of
        self.name = f"s3:{settings.bucket}/{settings.prefix}".rstrip("/")
        self._link = Link(
            f"S3 bucket {settings.bucket}", partial(s3_client, settings.endpoint_url, settings.region), self._find
        )

    async def send(self, message: FailureMessage) -> Sent:
        entry = message.entry
        arn = self._arn_of(entry.batch.function)
        record = failure_record(entry, function_arn=arn, event=message.event, payload="escaped")
        return await send_fitting(forms(entry, record), partial(self._send, object_key(entry, self._settings.prefix)))

    async def _send(self, key: str, form: Form) -> None:
        async with self._link.use() as (client, bucket):
            await client.put_object(Bucket=bucket, Key=key, Body=form.body, ContentType=_CONTENT_TYPE)

    async def check(self) -> None:
        async with self._link.use() as (client, bucket):
            await client.head_bucket(Bucket=bucket)

    async def close(self) -> None:
        await self._link.close()

    async def _find(self, _: S3Client) -> str:
        return self._settings.bucket
