"""How AWS, or what stands in for it, is reached: clients, and its errors as sentences for the operator.

The AWS libraries are imported when the first client is made, so that a daemon without AWS does not carry them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from router.errors import DestinationUnavailable, SourceUnavailable

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from types_aiobotocore_sqs import SQSClient

#: Where a stand-in is when nothing says otherwise; clients cannot be made without a region.
STAND_IN_REGION: Final = "us-east-1"
_CONNECT_TIMEOUT_S: Final = 5
_READ_TIMEOUT_S: Final = 10

_CREDENTIALS: Final = "the credentials are not accepted; check AWS_ACCESS_KEY_ID and its secret, or the profile"
_DENIED: Final = "the credentials do not allow this; give their owner the permission"
_THROTTLED: Final = "it is throttled"
_NO_QUEUE: Final = "the queue does not exist there; create it, or correct queue, region or account"

#: Error code of the service -> what it means for the operator.
_CODES: Final = {
    "AWS.SimpleQueueService.NonExistentQueue": _NO_QUEUE,
    "QueueDoesNotExist": _NO_QUEUE,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AuthorizationError": _DENIED,
    "ExpiredToken": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "IncompleteSignature": _CREDENTIALS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "InvalidSecurity": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "RequestThrottled": _THROTTLED,
    "SlowDown": _THROTTLED,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
}

#: Name of the library's exception -> what it means for the operator.
_EXCEPTIONS: Final = {
    "NoCredentialsError": "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
    "PartialCredentialsError": "the credentials are incomplete; set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "NoRegionError": "there is no region; set aws.region or AWS_DEFAULT_REGION",
    "EndpointConnectionError": "it cannot be reached; check endpoint_url, region and network",
    "ConnectTimeoutError": "it cannot be reached; check endpoint_url, region and network",
    "ReadTimeoutError": f"it did not answer within {_READ_TIMEOUT_S} s",
    "ConnectionClosedError": "it closed the connection",
}


@contextlib.asynccontextmanager
async def sqs_client(endpoint_url: str | None, region: str | None) -> AsyncIterator[SQSClient]:
    """Open a client for SQS, with the credentials of the usual AWS chain. It tries everything once."""
    import aioboto3  # noqa: PLC0415 - see the module
    from aiobotocore.config import AioConfig  # noqa: PLC0415

    config = AioConfig(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    session = aioboto3.Session()
    region = region or session.region_name or (STAND_IN_REGION if endpoint_url else None)
    made: AbstractAsyncContextManager[SQSClient] = session.client(
        "sqs", endpoint_url=endpoint_url, region_name=region, config=config
    )
    async with made as client:
        yield client


@contextlib.contextmanager
def aws_errors(becomes: type[DestinationUnavailable | SourceUnavailable], what: str) -> Iterator[None]:
    """Turn errors of the AWS libraries into ours; `what` names what was asked, such as "SQS queue orders-dlq"."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        raise becomes(f"{what}: {_refusal(error)}") from error
    except BotoCoreError as error:
        raise becomes(f"{what}: {_trouble(error)}") from error
    except ValueError as error:  # the library's answer to an endpoint that is no URL
        raise becomes(f"{what}: {error}; correct endpoint_url") from error


def _refusal(error: ClientError) -> str:
    answer = error.response["Error"]
    code, text = answer.get("Code", "?"), answer.get("Message", "no reason given")
    meaning = _CODES.get(code)
    return f"{meaning} ({code})" if meaning else f"{code}: {text}"


def _trouble(error: BotoCoreError) -> str:
    return _EXCEPTIONS.get(type(error).__name__, f"{type(error).__name__}: {error}")
