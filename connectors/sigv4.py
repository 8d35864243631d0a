"""Signatures of requests to AWS: version 4, for POST requests with few headers and a body in memory.

Source: AWS Identity and Access Management user guide, "Create a signed AWS API request". The library's own signer costs
half of what a whole call may cost; of its work all but the body's hash and two more is the same in every call of a day.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Keys(Protocol):
    """Credentials as they are at one moment."""

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...

    @property
    def token(self) -> str | None: ...


class Signer:
    """Makes the headers of requests to one URL."""

    def __init__(
        self, url: str, *, service: str, region: str, content_type: str, more: Mapping[str, str] | None = None
    ) -> None:
        """Make it; the URL is sent as it stands here, its query in order, and `more` are headers of every request."""
        parts = urlsplit(url)
        self._query = parts.query
        self._more = more
        # Every path but S3's is escaped once more than it is sent.
        self._path = quote(parts.path or "/", safe="/~")
        self._host = host_header(url)
        self._service = service
        self._region = region
        self._content_type = content_type
        #: Second for which `_time` stands, day and keys for which the signing key stands.
        self._second = -1
        self._time = ""
        self._signs_for = ("", "")
        self._signing_key = b""

    def headers(self, keys: Keys, target: str | None, body: bytes, now_s: float) -> Mapping[str, str]:
        """Give all headers of a request; `target` names the operation where the URL does not, `now_s` is wall time."""
        if int(now_s) != self._second:
            self._second = int(now_s)
            self._time = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        day = self._time[:8]
        if self._signs_for != (day, keys.secret_key):
            self._signing_key = self._derive(keys.secret_key, day)
            self._signs_for = (day, keys.secret_key)
        headers = {
            "content-type": self._content_type,
            "host": self._host,
            "x-amz-date": self._time,
        }
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        if target:
            headers["x-amz-target"] = target
        if self._more:
            headers = dict(sorted({**headers, **self._more}.items()))
        names = ";".join(headers)
        lines = "".join([f"{name}:{value}\n" for name, value in headers.items()])
        request = f"POST\n{self._path}\n{self._query}\n{lines}\n{names}\n{sha256(body).hexdigest()}"
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{self._time}\n{scope}\n{sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _derive(self, secret: str, day: str) -> bytes:
        key = f"AWS4{secret}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key


def host_header(url: str) -> str:
    """Give the Host header of a URL: lower case, without the scheme's own port or a login."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    own_port = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in (None, own_port) else f"{host}:{parts.port}"
