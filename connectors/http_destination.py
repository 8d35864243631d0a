"""An HTTP endpoint as the place where failure records go: one POST each, with the event, signed with a shared secret.

What a failure's id is for: every attempt of one failure carries the same `webhook-id`, so that a receiver can tell what
it has already.
"""

from __future__ import annotations

import contextlib
import io
import ssl
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from connectors.fitting import TooLarge, send_fitting
from connectors.settings import HttpDestination
from connectors.webhook_signature import key_of, signed
from router.errors import DestinationUnavailable
from router.failures.record import ArnOf, Form, failure_record, forms, function_arn
from router.ports import FailureMessage, Sent

_CONNECT_S: Final = 5.0
_CONTENT_TYPE: Final = "application/json"
_TOO_LARGE: Final = 413

#: Status -> what it means for the operator; of other refusals only the number is told.
_MEANINGS: Final = {
    **dict.fromkeys((301, 302, 303, 307, 308), "it is elsewhere, and redirects are not followed; correct url"),
    401: "it does not accept our signature; check that secret is the receiver's",
    403: "it does not let us in; check that secret is the receiver's, and who may post there",
    **dict.fromkeys((404, 410), "there is nothing at its path; create it, or correct url"),
    407: "the proxy wants a login; put it into the proxy's URL in the environment",
    **dict.fromkeys((429, 503), "it is throttled or away"),
    **dict.fromkeys((500, 502, 504), "it is broken; look at its log"),
}

_HUNG_UP: Final = "it closed the connection"
#: A body that is not on its way as a whole when the receiver hangs up, which is how some refuse what is too large for
#: them: the answer that says so may be lost with the connection.
_UNREAD_BYTES: Final = 256 * 1024

#: Error of the client -> what it means for the operator; the first that fits counts.
_TROUBLES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientProxyConnectionError, "the proxy cannot be reached; check the proxy of the environment"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted; set ca, or correct url"),
    (aiohttp.ClientSSLError, "it speaks no TLS, or none that we speak; correct url"),
    (aiohttp.ConnectionTimeoutError, "it cannot be reached; check url and network"),
    (aiohttp.ClientConnectorError, "it cannot be reached; check url and network"),
    (TimeoutError, "it did not answer in time; look at it, or raise timeout"),
    (aiohttp.ClientConnectionError, _HUNG_UP),
    (aiohttp.ClientError, "what answers speaks no HTTP that we know; correct url"),
    (OSError, "the file of ca cannot be used; correct it"),
)


class HttpSender:
    """Posts failure records, with the event, to a URL; any 2xx accepts them."""

    def __init__(self, settings: HttpDestination, arn_of: ArnOf = function_arn) -> None:
        """Make it without any I/O; `arn_of` gives the ARN of a function by its name."""
        self._settings = settings
        self._arn_of = arn_of
        self._key = key_of(settings.secret.reveal()) if settings.secret else None
        self._url = settings.url.reveal()
        # Its path and query may let in whoever knows them.
        place = urlsplit(self._url)
        self._place = f"{place.scheme}://{place.netloc}"
        self.name = f"http:{place.netloc}"
        self._session: aiohttp.ClientSession | None = None

    async def send(self, message: FailureMessage) -> Sent:
        entry = message.entry
        arn = self._arn_of(entry.batch.function)
        record = failure_record(entry, function_arn=arn, event=message.event, payload="object")
        return await send_fitting(forms(entry, record), partial(self._send, entry.batch.id))

    async def _send(self, failure_id: str, form: Form) -> None:
        status = await self._ask("POST", failure_id, form.body)
        if status == _TOO_LARGE:
            raise TooLarge(f"{self._place}: what is posted is too large for it ({status})")
        if not 200 <= status < 300:
            raise self._refusal(status)

    async def check(self) -> None:
        # OPTIONS changes nothing anywhere; where it is not known, the answer still says that somebody is there.
        status = await self._ask("OPTIONS", "check", b"")
        if status in _MEANINGS:
            raise self._refusal(status)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session:
            await session.close()

    async def _ask(self, method: str, message_id: str, body: bytes) -> int:
        headers = {
            "user-agent": "headrace",
            **{name.lower(): value.reveal() for name, value in self._settings.headers.items()},
            "content-type": _CONTENT_TYPE,
            **signed(message_id, int(time.time()), body, self._key),
        }
        async with self._errors(len(body)):
            session = self._session = self._session or self._open()
            asked = session.request(
                method,
                self._url,
                data=io.BytesIO(body) if body else None,
                headers=headers,
                allow_redirects=False,
                proxy=_proxy(self._url),
            )
            async with asked as answer:
                return answer.status

    def _open(self) -> aiohttp.ClientSession:
        trusted: Any = ssl.create_default_context(cafile=self._settings.ca) if self._settings.ca else True
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s, connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _refusal(self, status: int) -> DestinationUnavailable:
        return DestinationUnavailable(f"{self._place}: {_MEANINGS.get(status, 'it did not accept it')} ({status})")

    @contextlib.asynccontextmanager
    async def _errors(self, body_bytes: int) -> AsyncIterator[None]:
        """Turn errors of the client into ours, without the URL that they hold; then the next call begins anew."""
        try:
            yield
        except (aiohttp.ClientError, OSError) as error:
            await self.close()
            trouble = next(text for kind, text in _TROUBLES if isinstance(error, kind))
            is_hung_up = trouble is _HUNG_UP and body_bytes > _UNREAD_BYTES
            raise (TooLarge if is_hung_up else DestinationUnavailable)(f"{self._place}: {trouble}") from error


def _proxy(url: str) -> str | None:
    """Give the proxy that the environment names for a URL."""
    place = urlsplit(url)
    return None if proxy_bypass(place.netloc) else getproxies().get(place.scheme)
