"""What it takes to call a service of AWS without the AWS library's own client.

The library knows it: endpoint, region, credentials that renew themselves, authorities, a proxy. Asking it takes a
session and a client, some 50 ms of CPU, so what it said of an endpoint is kept for all who are on the same event loop:
a thousand queues are opened with one question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from connectors.aws import lambda_client, new_session, service_client, sqs_client
from connectors.sigv4 import Keys


class Credentials(Protocol):
    """Credentials that renew themselves."""

    async def get_frozen_credentials(self) -> Keys: ...


@dataclass(frozen=True, slots=True)
class Access:
    """All it takes to call a service without its client."""

    endpoint_url: str
    region: str
    credentials: Credentials
    #: PEM file of the authorities to trust.
    ca: str
    #: URL of the proxy that the environment names for this endpoint.
    proxy: str | None


@dataclass(slots=True)
class _Known:
    """What was found out on one event loop, by endpoint and region as they were asked for."""

    found: dict[tuple[str, str | None, str | None], Access] = field(default_factory=dict)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


#: Credentials that renew themselves belong to the loop they were read on.
_known: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Known]] = WeakKeyDictionary()


async def sqs_access(endpoint_url: str | None, region: str | None) -> Access:
    """Say how SQS is reached there; the environment and the profile are read when there is no answer yet.

    May raise the library's errors.
    """
    return await _access("sqs", sqs_client, endpoint_url, region)


async def lambda_access(endpoint_url: str | None, region: str | None) -> Access:
    """Say the same of Lambda."""
    return await _access("lambda", lambda_client, endpoint_url, region)


async def stream_access(service: str, endpoint_url: str | None, region: str | None) -> Access:
    """Say the same of a service by the library's name for it: kinesis, dynamodb, dynamodbstreams."""
    return await _access(service, partial(service_client, service), endpoint_url, region)


async def _access(service: str, client: Callable[..., Any], endpoint_url: str | None, region: str | None) -> Access:
    known = _known.setdefault(asyncio.get_running_loop(), _Known())
    place = service, endpoint_url, region
    async with known.asking:
        found = known.found.get(place)
        if found is None:
            found = known.found[place] = await _find_out(client, endpoint_url, region)
    return found


def forget(refused: Access) -> None:
    """Let the environment and the profile be read anew, because these credentials were refused."""
    known = _known[asyncio.get_running_loop()]
    known.found = {place: access for place, access in known.found.items() if access is not refused}


async def _find_out(make: Callable[..., Any], endpoint_url: str | None, region: str | None) -> Access:
    from botocore.exceptions import NoCredentialsError  # noqa: PLC0415 - the AWS libraries are loaded when needed
    from botocore.httpsession import get_cert_path  # noqa: PLC0415
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    session = new_session()
    inner: Any = session._session  # noqa: SLF001 - what it knows of the profile is not to be had otherwise
    async with make(endpoint_url, region, session) as client:
        credentials = await inner.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        url = client.meta.endpoint_url
        return Access(
            url,
            client.meta.region_name,
            credentials,
            inner.get_config_variable("ca_bundle") or str(get_cert_path(True)),
            get_environ_proxies(url).get(url.partition(":")[0]),
        )
