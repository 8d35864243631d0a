"""Functions behind a URL: one call is one POST of the event, and its answer is how it ended.

| answer | means |
|---|---|
| 2xx | it succeeded; the body is its result, none is null |
| `X-Amz-Function-Error`, 4xx | it ran and failed |
| 413 | the event is too large for it |
| 429, 503 | a throttle: not accepted, with `Retry-After` |
| none, 3xx, other 5xx | not accepted |
| none within its timeout | it failed, as it may have run |
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies, proxy_bypass

from connectors.function_answer import (
    READ_LIMIT_BYTES,
    emulated_error,
    failed,
    log_tail,
    refused,
    result,
    retry_after_s,
    words,
)
from connectors.function_call import post_event
from connectors.http_answer import Answer, HttpError, NotHttp
from connectors.http_client import HttpClient, HungUp, NoTls, ProxyRefused, Unreachable, Untrusted
from connectors.settings import UrlFunction
from connectors.sigv4 import host_header
from router.core.model import Failed, FunctionError, Refused, Returned, TooLarge
from router.errors import HandlerUnavailable
from router.ports import Answered

#: What is shorter is no secret, and would blank out words.
_SECRET_CHARS: Final = 6
_EVENT_TOO_LARGE: Final = 413
_THROTTLES: Final = (429, 503)
#: Path of Lambda's own Invoke, which its interface emulator for containers serves too.
_INVOKE_PATH: Final = re.compile(r"/2015-03-31/functions/[^/]+/invocations")

#: What went wrong on the way -> what it means for the operator.
_TROUBLES: Final[Mapping[type[HttpError], str]] = {
    Unreachable: "it cannot be reached; check url and network",
    HungUp: "it closed the connection without an answer",
    Untrusted: "its certificate is not trusted; check url, and give its authority as ca",
    NoTls: "it does not speak TLS; check whether url is https or http",
    ProxyRefused: "the proxy that the environment names cannot be reached, or refuses; check HTTPS_PROXY and NO_PROXY",
    NotHttp: "what answers does not speak HTTP; check url",
}


class UrlTarget:
    """A Target (router.ports) behind a URL. Connections are kept, as many as there are calls at once."""

    def __init__(self, settings: UrlFunction) -> None:
        """Make it without I/O."""
        self._settings = settings
        self._what = f"function {settings.name}"
        self._http: HttpClient | None = None
        url = settings.url.reveal()
        self._hidden = tuple(_secrets(settings))
        self._is_lambda = _INVOKE_PATH.fullmatch(urlsplit(url).path) is not None
        self._headers = {
            "host": host_header(url),
            "content-type": "application/json",
            "accept": "application/json",
            "user-agent": "headrace",
            **({"x-amz-log-type": "Tail"} if settings.logs else {}),
            **{name.lower(): value.reveal() for name, value in settings.headers.items()},
        }

    async def call(self, request_id: str, event: bytes) -> Answered:
        timeout_s = self._settings.timeout_s
        deadline_ms = int((time.time() + timeout_s) * 1000)
        headers = {
            **self._headers,
            # As the runtime API of Lambda tells them.
            "lambda-runtime-aws-request-id": request_id,
            "lambda-runtime-deadline-ms": str(deadline_ms),
        }
        try:
            http = self._client()
        except HandlerUnavailable as error:
            return Answered(refused(str(error)))
        answer = await post_event(
            http,
            headers,
            event,
            request_id=request_id,
            timeout_s=timeout_s,
            what=self._what,
            troubles=_TROUBLES,
        )
        if isinstance(answer, Answered):
            return answer
        log = log_tail(answer.fields.get(b"x-amz-log-result", b"").decode("latin-1")) if self._settings.logs else ""
        wait_s = 0.0
        if answer.status in _THROTTLES:
            wait_s = retry_after_s(answer.fields.get(b"retry-after", b"").decode("latin-1"), time.time())
        return Answered(self._judge(answer, len(event)), log, wait_s)

    async def check(self) -> str:
        try:
            await self._client().reach()
        except HttpError as error:
            raise HandlerUnavailable(f"{self._what}: {_TROUBLES[type(error)]}") from error
        return "takes connections; nothing was sent"

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    def _client(self) -> HttpClient:
        """Give the client; made at the first use, because that reads the authorities. Raises HandlerUnavailable."""
        if self._http is None:
            url, ca = self._settings.url.reveal(), self._settings.ca
            try:
                self._http = HttpClient(
                    url,
                    host_header=host_header(url),
                    ca=str(ca) if ca else None,
                    proxy=_proxy(url),
                    limit_bytes=READ_LIMIT_BYTES,
                )
            except OSError as error:
                raise HandlerUnavailable(f"{self._what}: {ca} holds no authorities to trust; correct ca") from error
            except ValueError as error:
                raise HandlerUnavailable(
                    f"{self._what}: the environment's proxy is no URL; correct HTTPS_PROXY"
                ) from error
        return self._http

    def _words(self, body: bytes) -> str:
        return words(body, self._hidden)

    def _judge(self, answer: Answer, event_bytes: int) -> Returned | Failed | Refused | TooLarge:
        status, body = answer.status, answer.body
        if b"x-amz-function-error" in answer.fields:
            return failed(body, FunctionError("Unhandled", self._words(body)))
        if 200 <= status < 300:
            # A service that has nothing to say has no result, as a function that returns nothing.
            return (emulated_error(body) if self._is_lambda else None) or result(body or b"null")
        if status == _EVENT_TOO_LARGE:
            return TooLarge(event_bytes)
        says = f"it answered with status {status}: {self._words(body) or 'nothing more'}"
        if 400 <= status < 500 and status not in _THROTTLES:
            return failed(body, FunctionError(f"Http{status}", says))
        advice = "; correct url" if status < 400 else ""
        # A mapping may let errors of a server spend attempts, as it may those of a function that does not start.
        return refused(f"{self._what}: {says}{advice}", initialising=status >= 500 and status not in _THROTTLES)


def _secrets(settings: UrlFunction) -> Iterator[str]:
    """Give what may be secret in requests, longest first, so that nothing of it is left over."""
    query = urlsplit(settings.url.reveal()).query
    texts = {query, *(value for _, value in parse_qsl(query)), *(each.reveal() for each in settings.headers.values())}
    texts |= {text.rpartition(" ")[2] for text in texts}
    yield from sorted((text for text in texts if len(text) >= _SECRET_CHARS), key=len, reverse=True)


def _proxy(url: str) -> str | None:
    """Give the URL of the proxy that the environment names for a URL."""
    parts = urlsplit(url)
    if proxy_bypass(host_header(url)):
        return None
    return getproxies().get(parts.scheme)
