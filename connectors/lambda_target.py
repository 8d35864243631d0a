"""Functions deployed on AWS Lambda: one call is one signed Invoke, and its answer is how it ended.

The library's client would cost 2 ms of CPU a call, and 8 MB a function; it says how Lambda is reached and who we are
(`aws_access`), and looks at functions for `check`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import orjson

from connectors.aws import are_credentials_refused, aws_errors, lambda_client, refusal
from connectors.aws_access import Access, forget, lambda_access
from connectors.aws_json import TROUBLES
from connectors.function_answer import READ_LIMIT_BYTES, failed, log_tail, refused, result, retry_after_s, words
from connectors.function_call import post_event
from connectors.http_answer import Answer
from connectors.http_client import HttpClient
from connectors.settings import LambdaFunction
from connectors.sigv4 import Signer, host_header
from router.core.model import Failed, FunctionError, Refused, Returned, TooLarge
from router.errors import HandlerUnavailable
from router.ports import Answered

_EVENT_TOO_LARGE: Final = 413
#: The event is no JSON to Lambda: it will never be, so this must not be tried for ever.
_BAD_EVENT: Final = "InvalidRequestContentException"
_MISSING: Final = "ResourceNotFoundException"
#: One of them is in every answer of Lambda.
_MARKS: Final = (b"x-amz-executed-version", b"x-amzn-requestid")


class _Reached(NamedTuple):
    """Lambda as it was reached."""

    access: Access
    signer: Signer
    http: HttpClient


class LambdaTarget:
    """A Target (router.ports) on AWS Lambda, or what stands in for it. Connections are kept."""

    def __init__(self, settings: LambdaFunction, *, as_event: bool = False) -> None:
        """Make it without I/O; with `as_event` a function is invoked asynchronously, and its answer is empty."""
        self._settings = settings
        self._kind = "Event" if as_event else "RequestResponse"
        self._what = f"function {settings.name}"
        self._reaching = asyncio.Lock()
        self._reached: _Reached | None = None
        self._http: HttpClient | None = None

    async def call(self, request_id: str, event: bytes) -> Answered:
        try:
            with aws_errors(HandlerUnavailable, self._what):
                reached = await self._reach()
                keys = await reached.access.credentials.get_frozen_credentials()
        except HandlerUnavailable as error:
            return Answered(refused(str(error)))
        headers = reached.signer.headers(keys, None, event, time.time())
        answer = await post_event(
            reached.http,
            headers,
            event,
            request_id=request_id,
            timeout_s=self._settings.timeout_s,
            what=self._what,
            troubles=TROUBLES,
        )
        if isinstance(answer, Answered):
            return answer
        if 200 <= answer.status < 300:
            return self._answered(answer)
        return self._refused(answer, len(event), reached)

    async def check(self) -> str:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - see connectors.aws

        settings = self._settings
        named = {"FunctionName": settings.arn, **({"Qualifier": settings.qualifier} if settings.qualifier else {})}
        with aws_errors(HandlerUnavailable, self._what):
            async with lambda_client(settings.endpoint_url, settings.region) as client:
                try:
                    await client.invoke(InvocationType="DryRun", **named)
                    configured = await client.get_function_configuration(**named)
                except ClientError as error:
                    told = error.response["Error"]
                    if error.operation_name == "GetFunctionConfiguration" and told["Code"] != _MISSING:
                        return "may be invoked; its own timeout is not known: GetFunctionConfiguration is not allowed"
                    meaning = _meaning(told["Code"], told.get("Message", ""), error.operation_name)
                    raise HandlerUnavailable(f"{self._what}: {meaning}") from error
        own_s, ours_s = configured["Timeout"], settings.timeout_s
        if own_s > ours_s:
            raise HandlerUnavailable(
                f"{self._what}: its own timeout, {own_s} s, is longer than its timeout here, {ours_s:g} s, so that it "
                f"may still run when it is invoked again; raise timeout to {own_s} and some seconds for a cold start"
            )
        return f"may be invoked; its own timeout is {own_s} s"

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def _reach(self) -> _Reached:
        """Find out how Lambda is reached, when that is not known; may raise the library's errors."""
        async with self._reaching:
            if self._reached is None:
                settings = self._settings
                access = await lambda_access(settings.endpoint_url, settings.region)
                url = _invoke_url(access.endpoint_url, settings)
                kind = {"x-amz-invocation-type": self._kind}
                log = {"x-amz-log-type": "Tail" if settings.logs else "None"}
                signer = Signer(
                    url, service="lambda", region=access.region, content_type="application/json", more={**kind, **log}
                )
                self._http = self._http or self._client(url, access)
                self._reached = _Reached(access, signer, self._http)
            return self._reached

    def _client(self, url: str, access: Access) -> HttpClient:
        try:
            return HttpClient(
                url, host_header=host_header(url), ca=access.ca, proxy=access.proxy, limit_bytes=READ_LIMIT_BYTES
            )
        except OSError as error:
            raise HandlerUnavailable(f"{self._what}: cannot use {access.ca}; correct AWS_CA_BUNDLE") from error
        except ValueError as error:
            raise HandlerUnavailable(f"{self._what}: the environment's proxy is no URL; correct HTTPS_PROXY") from error

    def _answered(self, answer: Answer) -> Answered:
        if not any(mark in answer.fields for mark in _MARKS):
            return Answered(refused(f"{self._what}: what answers is not Lambda; check endpoint_url"))
        log = log_tail(answer.fields.get(b"x-amz-log-result", b"").decode("latin-1"))
        return Answered(_judge(answer), log)

    def _refused(self, answer: Answer, event_bytes: int, reached: _Reached) -> Answered:
        """Say what an error that Lambda answered with means; the function did not run."""
        code, text = _error(answer)
        if answer.status == _EVENT_TOO_LARGE:
            return Answered(TooLarge(event_bytes))
        if code == _BAD_EVENT:
            return Answered(failed(b"", FunctionError(code, text)))
        reason = HandlerUnavailable(f"{self._what}: {_meaning(code, text, 'Invoke')}")
        if are_credentials_refused(reason) and self._reached is reached:
            forget(reached.access)
            self._reached = None
        wait_s = retry_after_s(answer.fields.get(b"retry-after", b"").decode("latin-1"), time.time())
        return Answered(refused(str(reason)), wait_s=wait_s)


def _invoke_url(endpoint_url: str, settings: LambdaFunction) -> str:
    query = f"?Qualifier={quote(settings.qualifier, safe='')}" if settings.qualifier else ""
    return f"{endpoint_url.rstrip('/')}/2015-03-31/functions/{quote(settings.arn, safe='')}/invocations{query}"


def _judge(answer: Answer) -> Returned | Failed | Refused:
    if b"x-amz-function-error" in answer.fields:
        named = answer.fields[b"x-amz-function-error"].decode("latin-1")
        return failed(answer.body, FunctionError(named, words(answer.body)))
    return result(answer.body)


def _error(answer: Answer) -> tuple[str, str]:
    """Give the code of an error and what it says (AWS Lambda API reference, Invoke: errors)."""
    code = answer.fields.get(b"x-amzn-errortype", b"").decode("latin-1").partition(":")[0]
    described: Mapping[str, Any] = {}
    try:
        described = orjson.loads(answer.body)
        text = described.get("message") or described.get("Message") or "no reason given"
    except (ValueError, AttributeError):
        text = words(answer.body) or "no reason given"
    return code or f"HTTP status {answer.status}", " ".join(str(text).split())[:300]


def _meaning(code: str, text: str, operation: str) -> str:
    if code == _MISSING:
        return f"it does not exist there; deploy it, or correct arn, region or endpoint_url ({code}: {text})"
    return refusal(code, text, operation)
