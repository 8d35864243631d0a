"""Calls of AWS's JSON protocol without the library's client, whose work for one call costs more than the call.

One call is one signed POST; nothing is repeated. Everything that can go wrong on the way, also an answer that stalls
or ends half-way, is a SourceUnavailable that says what to do: Throttled where we ask too much, and Refused, which has
the service's code, for all other errors that it answers with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import msgspec

from connectors.aws import HUNG_UP, THROTTLES, UNREACHABLE, aws_errors, refusal
from connectors.aws_access import Access
from connectors.deadlines import Deadlines
from connectors.http_answer import Answer, HttpError, NotHttp, TooLarge
from connectors.http_client import HttpClient, HungUp, NoTls, ProxyRefused, Unreachable, Untrusted
from connectors.sigv4 import Signer, host_header
from router.errors import SourceUnavailable, Throttled

_T = TypeVar("_T")

#: Ten messages of 1 MiB, each character of which takes six in JSON.
_ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Calls of one client at once, each on a connection; a thousand shards would else take as many files.
AT_ONCE: Final = 128
#: Longest part of a service's own words that is shown, characters.
_WORDS: Final = 300
_OK: Final = 200

#: What went wrong on the way -> what it means for the operator.
TROUBLES: Final[Mapping[type[HttpError], str]] = {
    Unreachable: UNREACHABLE,
    HungUp: HUNG_UP,
    Untrusted: "its certificate is not trusted; check endpoint_url and AWS_CA_BUNDLE",
    NoTls: "it does not speak TLS; check whether endpoint_url is https or http",
    ProxyRefused: "the proxy that the environment names cannot be reached, or refuses; check HTTPS_PROXY and NO_PROXY",
    NotHttp: "what answers does not speak HTTP; check endpoint_url",
    TooLarge: f"its answer is larger than {_ANSWER_LIMIT_BYTES >> 20} MiB; check endpoint_url",
}


class Refused(SourceUnavailable):
    """The service answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        #: Its name in the service's words, such as ThrottlingException; empty = the answer has none.
        self.code = code


class _Refusal(msgspec.Struct):
    """An error as the protocol words it."""

    type: str = msgspec.field(name="__type")
    message: str = ""
    Message: str = ""


_decode_refusal: Final = msgspec.json.Decoder(_Refusal).decode


class JsonClient:
    """Calls one service."""

    def __init__(self, access: Access, *, service: str, target: str, version: str, what: str) -> None:
        """Prepare without I/O.

        Args:
            access: where the service is.
            service: its name in signatures.
            target: what stands before the operation in X-Amz-Target.
            version: of the protocol, "1.0" or "1.1".
            what: what is asked, for errors: "SQS queue orders".

        Raises:
            SourceUnavailable: what the environment says of authorities or proxies cannot be used, or the URL is none.
        """
        #: May be replaced at any time.
        self.credentials = access.credentials
        self._target = target
        self._what = what
        self._date = b""
        self._deadlines = Deadlines()
        self._turns = asyncio.Semaphore(AT_ONCE)
        url = access.endpoint_url
        try:
            self._signer = Signer(
                url, service=service, region=access.region, content_type=f"application/x-amz-json-{version}"
            )
        except ValueError as error:
            raise SourceUnavailable(f"{what}: {error}; correct endpoint_url") from error
        try:
            self._http = HttpClient(
                url,
                host_header=host_header(url),
                ca=access.ca,
                proxy=access.proxy,
                limit_bytes=_ANSWER_LIMIT_BYTES,
            )
        except OSError as error:
            raise SourceUnavailable(f"{what}: cannot use {access.ca}; correct AWS_CA_BUNDLE") from error
        except ValueError as error:
            raise SourceUnavailable(f"{what}: the environment's proxy is no URL; correct HTTPS_PROXY") from error

    async def call(self, operation: str, request: bytes, timeout_s: float, decode: Callable[[bytes], _T]) -> _T:
        """Call an operation.

        Args:
            operation: its name.
            request: JSON.
            timeout_s: longest time that all of it may take, once it has its turn.
            decode: reads the answer; raises msgspec.MsgspecError for what is none.

        Raises:
            Refused, Throttled, SourceUnavailable
        """
        if self._http.closed:
            raise SourceUnavailable(f"{self._what}: it is closed")
        try:
            async with self._turns:
                with self._deadlines.within(timeout_s):
                    answer = await self._post(operation, request)
            self._date = answer.fields.get(b"date", b"")
            if answer.status == _OK:
                return decode(answer.body)
        except HttpError as error:
            raise SourceUnavailable(f"{self._what}: {TROUBLES[type(error)]}") from error
        except TimeoutError as error:
            reason = f"{operation}: it did not answer within {timeout_s:g} s"
            raise SourceUnavailable(f"{self._what}: {reason}") from error
        except msgspec.MsgspecError as error:
            reason = f"{operation}: what answers is not the service ({error}); check endpoint_url"
            raise SourceUnavailable(f"{self._what}: {reason}") from error
        raise refused(self._what, operation, answer)

    @property
    def server_time_s(self) -> float | None:
        """The service's clock when it last answered, whole wall seconds; None = it did not say."""
        try:
            return parsedate_to_datetime(self._date.decode("latin-1")).timestamp()
        except ValueError:
            return None

    async def close(self) -> None:
        """End all calls. May come twice."""
        await self._http.close()

    async def _post(self, operation: str, request: bytes) -> Answer:
        try:
            keys = await self.credentials.get_frozen_credentials()
        except Exception:
            # Only now: the context costs a call 3 us.
            with aws_errors(SourceUnavailable, self._what):
                raise
        return await self._http.post(
            self._signer.headers(keys, f"{self._target}.{operation}", request, time.time()), request
        )


def refused(what: str, operation: str, answer: Answer) -> Refused | Throttled:
    """Say what an answer that is an error means; `what` names what was asked."""
    try:
        error = _decode_refusal(answer.body)
    except msgspec.MsgspecError:
        # What a proxy says may be long, and may repeat what we sent.
        return Refused("", f"{what}: {operation}: HTTP status {answer.status}")
    words = " ".join((error.message or error.Message or "no reason given").split())
    code = error.type.rpartition("#")[2]
    message = f"{what}: {refusal(code, words[:_WORDS], operation)}"
    return Throttled(message) if code in THROTTLES else Refused(code, message)
