"""Who may call what on a listener, and what keeps web pages out. Decides; knows neither configuration nor sockets.

A listener on loopback may be open: whoever reaches it is this machine's own. But so is a browser, and any page that it
shows may send requests here. A page cannot choose the headers Host and Origin: a name that was made to lead here (DNS
rebinding) is seen by the first, another site by the second. Signed calls need no such check, for no page has the key.
Anywhere else every call is signed, but for the two of health checks, which tell no names there.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from router.api import signature
from router.api.call import Caller
from router.api.errors import denied
from router.api.signature import Claim
from router.http.messages import Request
from router.ports import WallClock

#: Operations that a service may call: those that its events come through.
FOR_SERVICES: Final = ("Invoke", "InvokeAsync")


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key that calls may be signed with."""

    secret_access_key: str = field(repr=False)
    #: The service that holds it; None = its holder may do everything.
    service: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What callers show."""

    #: By access key id; none = on loopback calls are not signed, elsewhere nobody may call.
    keys: Mapping[str, AccessKey] = field(default_factory=dict)
    #: Lets metrics be read; None = a signature does.
    metrics_token: str | None = field(default=None, repr=False)


class Access:
    """The door of one listener."""

    def __init__(self, host: str, wall: WallClock, credentials: Credentials) -> None:
        self.is_loopback = is_loopback(host)
        #: Where we listen; known once we do.
        self.port = 0
        #: May change at any time.
        self.credentials = credentials
        self._wall = wall

    @property
    def is_open(self) -> bool:
        """May everybody who reaches it call?"""
        return self.is_loopback and not self.credentials.keys

    def check_page(self, request: Request) -> None:
        """Refuse what a web page may have sent. Raises ApiError."""
        if not self.is_loopback:
            return
        host = request.headers.get("host", "")
        if not _is_ours(host, self.port):
            raise denied(
                f"Host is {host[:100]!r}, which is not this listener by a loopback name: call "
                f"http://127.0.0.1:{self.port}, or set `api.keys` and sign what you send"
            )
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise denied(f"Origin is {origin[:100]!r}: pages of other sites may not call")

    def claim(self, request: Request) -> Claim | None:
        """Look at the head of a request: who calls; None = it is open. Raises ApiError."""
        if self.is_open:
            self.check_page(request)
            return None
        claim = signature.read_claim(request, self._wall())
        if claim.access_key_id not in self.credentials.keys:
            raise signature.unknown_key()
        return claim

    def caller(self, claim: Claim | None, request: Request) -> Caller:
        """Say who sent a whole request. Raises ApiError."""
        if claim is None:
            return Caller()
        key = self.credentials.keys.get(claim.access_key_id)
        if key is None:
            raise signature.unknown_key()
        signature.verify(claim, key.secret_access_key, request)
        if key.service is None:
            return Caller(claim.access_key_id)
        source = request.headers.get("x-amz-source-arn"), request.headers.get("x-amz-source-account")
        return Caller(claim.access_key_id, key.service, *source)

    def check_metrics(self, request: Request) -> None:
        """Refuse who may not read metrics. Raises ApiError."""
        token, given = self.credentials.metrics_token, request.headers.get("authorization", "")
        scheme, _, shown = given.partition(" ")
        if token is not None and scheme.lower() == "bearer":
            if not hmac.compare_digest(shown.strip().encode(), token.encode()):
                raise signature.unknown_key()
        else:
            self.check_reader(request)

    def check_reader(self, request: Request) -> None:
        """Refuse who may not read what is not of the API. Raises ApiError."""
        if self.is_loopback:
            self.check_page(request)
        elif self.caller(self.claim(request), request).service is not None:
            raise denied("A service's key is for invocations alone.")

    def check_operation(self, caller: Caller, operation: str) -> None:
        """Refuse an operation that is not for who calls. Raises ApiError."""
        if caller.service is not None and operation not in FOR_SERVICES:
            raise denied(f"User: {caller.name} is not authorized to perform: lambda:{operation}")


def is_loopback(host: str) -> bool:
    """Is it an address of this machine's own, or the name of one?"""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=64)  # it comes with every request, and is nearly always the same
def _is_ours(host: str, port: int) -> bool:
    name, colon, number = host.rpartition(":")
    if not colon or number.endswith("]"):
        name, number = host, "80"
    return number == str(port) and is_loopback(name)
