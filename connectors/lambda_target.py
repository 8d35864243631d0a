"""Functions deployed on AWS Lambda: one call is one Invoke, and its answer is how it ended.

The client is opened by the first call and kept. When its credentials are refused, a call that is alone opens another,
so that new ones are seen.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
from botocore.exceptions import ClientError, HTTPClientError, ReadTimeoutError

from connectors.aws import are_credentials_refused, aws_errors, lambda_client, refusal
from connectors.function_answer import (
    READ_LIMIT_BYTES,
    bad_answer,
    failed,
    log_tail,
    refused,
    result,
    retry_after_s,
    timed_out,
    too_large,
    words,
)
from connectors.settings import LambdaFunction
from router.core.model import Failed, FunctionError, Refused, Returned, TooLarge
from router.errors import HandlerUnavailable
from router.ports import Answered

_CHUNK_BYTES: Final = 64 * 1024
_EVENT_TOO_LARGE: Final = "RequestTooLargeException"
#: The event is no JSON to Lambda: it will never be, so this must not be tried for ever.
_BAD_EVENT: Final = "InvalidRequestContentException"
_MISSING: Final = "ResourceNotFoundException"
#: One of them is in every answer of Lambda.
_MARKS: Final = ("x-amz-executed-version", "x-amzn-requestid")


class LambdaTarget:
    """A Target (router.ports) on AWS Lambda, or what stands in for it."""

    def __init__(self, settings: LambdaFunction) -> None:
        """Make it without I/O."""
        self._settings = settings
        self._what = f"function {settings.name}"
        self._named: Mapping[str, str] = {
            "FunctionName": settings.arn,
            **({"Qualifier": settings.qualifier} if settings.qualifier else {}),
        }
        self._open = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None
        self._calls = 0
        self._is_stale = False

    async def call(self, request_id: str, event: bytes) -> Answered:
        self._calls += 1
        try:
            with aws_errors(HandlerUnavailable, self._what):
                return await self._invoke(request_id, event)
        except HandlerUnavailable as error:
            self._is_stale = are_credentials_refused(error)
            return Answered(refused(str(error)))
        finally:
            self._calls -= 1

    async def check(self) -> str:
        with aws_errors(HandlerUnavailable, self._what):
            client = await self._opened()
            try:
                await client.invoke(InvocationType="DryRun", **self._named)
                configured = await client.get_function_configuration(**self._named)
            except ClientError as error:
                if error.operation_name == "GetFunctionConfiguration" and error.response["Error"]["Code"] != _MISSING:
                    return "may be invoked; its own timeout is not known, as GetFunctionConfiguration is not allowed"
                raise HandlerUnavailable(f"{self._what}: {_refusal(error)}") from error
        own_s, ours_s = configured["Timeout"], self._settings.timeout_s
        if own_s > ours_s:
            raise HandlerUnavailable(
                f"{self._what}: its own timeout, {own_s} s, is longer than its timeout here, {ours_s:g} s, so that it "
                f"may still run when it is invoked again; raise timeout to {own_s} and some seconds for a cold start"
            )
        return f"may be invoked; its own timeout is {own_s} s"

    async def close(self) -> None:
        self._client = None
        await self._open.aclose()

    async def _opened(self) -> Any:
        async with self._opening:
            if self._is_stale and self._calls == 1:
                self._is_stale = False
                await self.close()
            if self._client is None:
                settings = self._settings
                self._client = await self._open.enter_async_context(
                    lambda_client(
                        settings.endpoint_url,
                        settings.region,
                        answer_s=settings.timeout_s,
                        connections=settings.concurrency,
                    )
                )
            return self._client

    async def _invoke(self, request_id: str, event: bytes) -> Answered:
        client = await self._opened()
        log_type = "Tail" if self._settings.logs else "None"
        try:
            answer = await client.invoke(
                InvocationType="RequestResponse",
                LogType=log_type,
                # A file, because the library sends that in pieces and warns of a large text.
                Payload=io.BytesIO(event),
                **self._named,
            )
        except ReadTimeoutError:
            return Answered(timed_out(request_id, self._settings.timeout_s))
        except ClientError as error:
            return self._refused(error, len(event))
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        if not any(mark in headers for mark in _MARKS):
            answer["Payload"].close()
            return Answered(refused(f"{self._what}: what answers is not Lambda; check endpoint_url"))
        log = log_tail(answer.get("LogResult", ""))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                body = await _read(answer["Payload"])
        except (TimeoutError, ReadTimeoutError):
            return Answered(timed_out(request_id, self._settings.timeout_s), log)
        except (aiohttp.ClientError, HTTPClientError):
            return Answered(bad_answer("the answer ended before it was complete"), log)
        return Answered(_judge(body, answer.get("FunctionError")), log)

    def _refused(self, error: ClientError, event_bytes: int) -> Answered:
        """Say what an error that Lambda answered with means; the function did not run."""
        code = error.response["Error"].get("Code", "")
        if code == _EVENT_TOO_LARGE:
            return Answered(TooLarge(event_bytes))
        if code == _BAD_EVENT:
            return Answered(failed(b"", FunctionError(code, error.response["Error"].get("Message", ""))))
        reason = HandlerUnavailable(f"{self._what}: {_refusal(error)}")
        self._is_stale = are_credentials_refused(reason)
        headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
        return Answered(refused(str(reason)), wait_s=retry_after_s(headers.get("retry-after", ""), time.time()))


def _judge(body: bytes | None, function_error: str | None) -> Returned | Failed | Refused:
    if body is None:
        return too_large()
    if function_error:
        return failed(body, FunctionError(function_error, words(body)))
    return result(body)


def _refusal(error: ClientError) -> str:
    answer = error.response["Error"]
    code, text = answer.get("Code", "?"), answer.get("Message", "no reason given")
    if code == _MISSING:
        return f"it does not exist there; deploy it, or correct arn, region or endpoint_url ({code}: {text})"
    return refusal(code, text, error.operation_name)


async def _read(payload: Any) -> bytes | None:
    """Read a whole body; None when it is larger than any result may be, and then no more of it is read."""
    body = bytearray()
    try:
        async for chunk in payload.iter_chunks(_CHUNK_BYTES):
            body += chunk
            if len(body) > READ_LIMIT_BYTES:
                return None
        return bytes(body)
    finally:
        payload.close()  # ends the connection unless all was read
