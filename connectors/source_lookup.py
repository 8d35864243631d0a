"""Looks queues, streams and streams of tables up by their ARNs, before a mapping of one is made.

Nothing is read. Needs sqs:GetQueueUrl and sqs:GetQueueAttributes, kinesis:DescribeStreamSummary and
kinesis:DescribeStreamConsumer, dynamodb:DescribeStream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from connectors.aws import is_missing_queue
from connectors.aws_json import Refused
from connectors.dynamodb_client import DynamoDbClient, is_not_found
from connectors.kinesis import find_stream
from connectors.kinesis_client import NOT_FOUND
from connectors.settings import AwsSettings, DynamoDbSettings, KinesisSettings, SqsSettings
from connectors.sqs_queue import find_queue
from router.errors import SourceUnavailable
from router.event_ports import FoundSource, NoSource

#: Codes by which a service says that we may not.
_DENIALS: Final = frozenset(("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"))
#: The same by which it says that nothing can have such a name: asking again does not help.
_NO_NAME: Final = frozenset(
    (
        "InvalidArgumentException",
        "ValidationException",
        "SerializationException",
        "InvalidAddress",
        "InvalidParameterValue",
    )
)


class SourceLookup:
    """Finds sources where the `aws` block says, in the region of their ARN."""

    def __init__(self, aws: Callable[[], AwsSettings]) -> None:
        """Make it; `aws` gives what holds now."""
        self._aws = aws

    async def find(self, arn: str) -> FoundSource | NoSource:
        """Look a source up without reading it.

        Raises:
            SourceUnavailable: its service cannot be asked; the message says why.
        """
        look = _LOOKS[arn.split(":")[2]]
        try:
            return await look(arn, self._aws().endpoint_url)
        except SourceUnavailable as error:
            if _is_absent(error):
                return NoSource.ABSENT
            if _code(error) in _DENIALS:
                return NoSource.DENIED
            raise


async def _queue(arn: str, endpoint_url: str | None) -> FoundSource:
    found = await find_queue(SqsSettings("", arn, endpoint_url, None, windowed=False))
    return FoundSource(found.state.visibility_s)


async def _stream(arn: str, endpoint_url: str | None) -> FoundSource:
    await find_stream(KinesisSettings("", arn, endpoint_url, arn.split(":")[3]))
    return FoundSource()


async def _table_stream(arn: str, endpoint_url: str | None) -> FoundSource:
    settings = DynamoDbSettings("", arn, endpoint_url, arn.split(":")[3])
    client = DynamoDbClient(settings.endpoint_url, settings.region, f"DynamoDB stream {arn}")
    try:
        await client.stream(arn)
    finally:
        await client.close()
    return FoundSource()


_LOOKS: Final[dict[str, Callable[[str, str | None], Awaitable[FoundSource]]]] = {
    "sqs": _queue,
    "kinesis": _stream,
    "dynamodb": _table_stream,
}


def _is_absent(error: SourceUnavailable) -> bool:
    return is_missing_queue(error) or is_not_found(error) or _code(error) in (NOT_FOUND, *_NO_NAME)


def _code(error: SourceUnavailable) -> str:
    """Give the code that a service has refused with; empty = it was none of its refusals."""
    refusal = error if isinstance(error, Refused) else error.__cause__
    return refusal.code if isinstance(refusal, Refused) else ""
