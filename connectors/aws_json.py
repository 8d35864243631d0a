"""Calls of AWS's JSON protocol without the library's client, whose work for one call costs more than the call.

One call is one signed POST; nothing is repeated. Everything that can go wrong on the way, also an answer that stalls
or ends half-way, is a SourceUnavailable that says what to do.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import aiohttp
import msgspec
from yarl import URL

from connectors.aws import HUNG_UP, UNREACHABLE, Access, aws_errors, refusal
from connectors.sigv4 import Signer
from router.errors import SourceUnavailable

_T = TypeVar("_T")

_CONNECT_S: Final = 5.0
#: Ten messages of 1 MiB, each character of which takes six in JSON.
_ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Longest part of a service's own words that is shown.
_WORDS: Final = 300


#: Kinds of errors on the way -> what they mean for the operator; the first that fits holds.
_TROUBLES: Final[Sequence[tuple[tuple[type[Exception], ...], str]]] = (
    (
        (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError),
        "the proxy that the environment names cannot be reached, or refuses; check HTTPS_PROXY and NO_PROXY",
    ),
    (
        (aiohttp.ClientConnectorCertificateError,),
        "its certificate is not trusted; check endpoint_url and AWS_CA_BUNDLE",
    ),
    ((aiohttp.ClientSSLError,), "TLS failed; check whether endpoint_url is https or http"),
    ((aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError), UNREACHABLE),
    ((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError), HUNG_UP),
)


class _Refusal(msgspec.Struct):
    """An error as the protocol words it."""

    type: str = msgspec.field(name="__type")
    message: str = ""
    Message: str = ""


class _TooLarge(ValueError):
    """An answer that no call can have."""


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
        """
        self._credentials = access.credentials
        self._url = URL(access.endpoint_url, encoded=True)
        self._proxy = access.proxy
        self._target = target
        self._what = what
        self._signer = Signer(
            access.endpoint_url,
            service=service,
            region=access.region,
            content_type=f"application/x-amz-json-{version}",
        )
        trust = ssl.create_default_context(cafile=access.ca) if self._url.scheme == "https" else True
        self._session = aiohttp.ClientSession(
            # Each long poll holds a connection; how many there are is the engine's choice.
            connector=aiohttp.TCPConnector(limit=0, ssl=trust),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        )

    async def call(self, operation: str, request: bytes, timeout_s: float, decode: Callable[[bytes], _T]) -> _T:
        """Call an operation.

        Args:
            operation: its name.
            request: JSON.
            timeout_s: longest time that all of it may take.
            decode: reads the answer; raises msgspec.MsgspecError for what is none.

        Raises:
            SourceUnavailable
        """
        if self._session.closed:
            raise SourceUnavailable(f"{self._what}: it is closed")
        try:
            async with asyncio.timeout(timeout_s):
                status, answer = await self._post(operation, request)
            if status == 200:
                return decode(answer)
            reason = _refused(operation, status, answer)
        except (aiohttp.ClientError, msgspec.MsgspecError, OSError, ValueError) as error:
            raise SourceUnavailable(f"{self._what}: {_trouble(error, operation, timeout_s)}") from error
        raise SourceUnavailable(f"{self._what}: {reason}")

    async def close(self) -> None:
        """End all calls. May come twice."""
        await self._session.close()

    async def _post(self, operation: str, request: bytes) -> tuple[int, bytes]:
        with aws_errors(SourceUnavailable, self._what):
            keys = await self._credentials.get_frozen_credentials()
        headers = self._signer.headers(keys, f"{self._target}.{operation}", request, time.time())
        async with self._session.post(
            self._url, data=aiohttp.BytesPayload(request), headers=headers, proxy=self._proxy, allow_redirects=False
        ) as response:
            return response.status, await _read(response.content)


async def _read(content: aiohttp.StreamReader) -> bytes:
    answer = await content.readany()
    if content.at_eof():
        return answer
    blocks = [answer]
    size = len(answer)
    while not content.at_eof():
        blocks.append(await content.readany())
        size += len(blocks[-1])
        if size > _ANSWER_LIMIT_BYTES:
            raise _TooLarge
    return b"".join(blocks)


def _refused(operation: str, status: int, answer: bytes) -> str:
    try:
        error = _decode_refusal(answer)
    except msgspec.MsgspecError:
        # What a proxy says may be long, and may repeat what we sent.
        return f"{operation}: HTTP status {status}"
    words = " ".join((error.message or error.Message or "no reason given").split())
    return refusal(error.type.rpartition("#")[2], words[:_WORDS], operation)


def _trouble(error: Exception, operation: str, timeout_s: float) -> str:
    for kinds, meaning in _TROUBLES:
        if isinstance(error, kinds):
            return meaning
    match error:
        case msgspec.MsgspecError():
            return f"{operation}: what answers is not the service ({error}); check endpoint_url"
        case _TooLarge():
            return f"{operation}: its answer is larger than {_ANSWER_LIMIT_BYTES >> 20} MiB; check endpoint_url"
        case TimeoutError():
            return f"{operation}: it did not answer within {timeout_s:g} s"
        case _:
            return f"{operation}: {type(error).__name__}; check endpoint_url"
