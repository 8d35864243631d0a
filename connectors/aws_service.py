"""A service of AWS's JSON protocol as a source calls it: found at the first call, credentials renewed when refused.

The AWS library says where the service is and renews credentials that expire; the calls go through a client of our own
(`connectors.aws_json`). When credentials are refused, the environment and the profile are read anew before the next
call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from connectors.aws import are_credentials_refused, aws_errors
from connectors.aws_access import Access, forget, stream_access
from connectors.aws_json import JsonClient
from router.errors import SourceUnavailable

_T = TypeVar("_T")
_encode: Final = msgspec.json.Encoder().encode


class AwsService:
    """Calls one service. A closed one stays closed: make another."""

    def __init__(
        self,
        name: str,
        *,
        signs_as: str,
        target: str,
        version: str,
        what: str,
        endpoint_url: str | None,
        region: str | None,
        call_s: float = 10.0,
    ) -> None:
        """Prepare without I/O.

        Args:
            name: the library's name for it, such as dynamodbstreams.
            signs_as: its name in signatures.
            target: what stands before the operation in X-Amz-Target.
            version: of the protocol, "1.0" or "1.1".
            what: what is asked, for errors: "Kinesis stream clicks".
            endpoint_url: where it is; None = the library knows.
            region: of it; None = the usual AWS environment and profile say it.
            call_s: longest time a call may take.
        """
        self._name = name
        self._signs_as = signs_as
        self._target = target
        self._version = version
        self._what = what
        self._endpoint_url = endpoint_url
        self._region = region
        self._call_s = call_s
        self._access: Access | None = None
        self._client: JsonClient | None = None
        self._is_closed = False

    @property
    def server_time_s(self) -> float | None:
        """The service's clock when it last answered, whole wall seconds; None = it did not say."""
        return self._client.server_time_s if self._client else None

    async def call(self, operation: str, request: object, decode: Callable[[bytes], _T]) -> _T:
        """Call an operation; `decode` reads the answer and raises msgspec.MsgspecError for what is none.

        Raises:
            Refused, Throttled, SourceUnavailable
        """
        client = await self._ready()
        try:
            return await client.call(operation, _encode(request), self._call_s, decode)
        except SourceUnavailable as error:
            self.note(error)
            raise

    async def access(self) -> Access:
        """Say how the service is reached, and as whom.

        Raises:
            SourceUnavailable: the environment or the profile does not say it.
        """
        if self._access is None:
            with aws_errors(SourceUnavailable, self._what):
                self._access = await stream_access(self._name, self._endpoint_url, self._region)
            if self._client:
                self._client.credentials = self._access.credentials
        return self._access

    def note(self, error: SourceUnavailable) -> None:
        """Let the environment and the profile be read anew before the next call, if an error says that it is due."""
        if self._access and are_credentials_refused(error):
            forget(self._access)
            self._access = None

    async def close(self) -> None:
        """End all calls. May come twice."""
        self._is_closed = True
        if self._client:
            await self._client.close()

    async def _ready(self) -> JsonClient:
        access = await self.access()
        if self._client is None:
            self._client = self._make(access)
        return self._client

    def _make(self, access: Access) -> JsonClient:
        if self._is_closed:
            raise SourceUnavailable(f"{self._what}: it is closed")
        try:
            return JsonClient(
                access, service=self._signs_as, target=self._target, version=self._version, what=self._what
            )
        except SourceUnavailable:
            # What the environment says of authorities or proxies cannot be used: it is read anew next time.
            forget(access)
            self._access = None
            raise
