"""A function on AWS Lambda, or what stands in for it, that is told of asynchronous events: by invoking it with one."""

from __future__ import annotations

from typing import Final

from connectors.aws import aws_errors, lambda_client
from connectors.fitting import TooLarge
from connectors.lambda_target import LambdaTarget
from connectors.settings import AwsSettings, LambdaFunction
from router.core import model
from router.errors import DestinationUnavailable
from router.event_ports import TargetMessage
from router.ports import Sent

#: Longest wait for Lambda to take an event.
_ACCEPT_S: Final = 20.0
#: Parts of a function's ARN before its version or alias.
_PARTS: Final = 7


class LambdaEventTarget:
    """Invokes a function asynchronously; the record is its event."""

    def __init__(self, arn: str, aws: AwsSettings) -> None:
        """Make it without any I/O."""
        self.name = arn
        parts = arn.split(":")
        self._settings = LambdaFunction(
            arn,
            ":".join(parts[:_PARTS]),
            ":".join(parts[_PARTS:]) or None,
            aws.endpoint_url,
            region=parts[3],
            timeout_s=_ACCEPT_S,
            concurrency=1,
            logs=False,
        )
        self._target = LambdaTarget(self._settings, as_event=True)

    async def send(self, message: TargetMessage) -> Sent:
        try:
            await self._send(message.id, message.body)
        except TooLarge:
            if message.small is None:
                raise
            await self._send(message.id, message.small)
            return Sent.WITHOUT_PAYLOADS
        return Sent.WHOLE

    async def _send(self, request_id: str, body: bytes) -> None:
        match (await self._target.call(request_id, body)).outcome:
            case model.TooLarge():
                raise TooLarge(f"function {self.name}: it takes no event of {len(body)} bytes")
            case model.Refused(error=error) | model.Failed(error=error):
                raise DestinationUnavailable(error.message)

    async def check(self) -> None:
        settings = self._settings
        named = {"FunctionName": settings.arn, **({"Qualifier": settings.qualifier} if settings.qualifier else {})}
        with aws_errors(DestinationUnavailable, f"function {self.name}"):
            async with lambda_client(settings.endpoint_url, settings.region) as client:
                await client.invoke(InvocationType="DryRun", **named)

    async def close(self) -> None:
        await self._target.close()
