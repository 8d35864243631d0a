"""How AWS, or what stands in for it, is reached: clients, and its errors as sentences for the operator.

The AWS libraries are imported when the first client is made, so that a daemon without AWS does not carry them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from router.errors import DestinationUnavailable, HandlerUnavailable, RouterError, SourceUnavailable

if TYPE_CHECKING:
    import aioboto3
    from botocore.exceptions import BotoCoreError, ClientError
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_sns import SNSClient
    from types_aiobotocore_sqs import SQSClient

#: Where a stand-in is when nothing says otherwise; clients cannot be made without a region.
STAND_IN_REGION: Final = "us-east-1"
_CONNECT_TIMEOUT_S: Final = 5
_READ_TIMEOUT_S: Final = 10

_CREDENTIALS: Final = "the credentials are not accepted; check AWS_ACCESS_KEY_ID and its secret, or the profile"
_DENIED: Final = "the credentials do not allow this; give their owner the permission"
_THROTTLED: Final = "it is throttled"
_NO_QUEUE: Final = "the queue does not exist there; create it, or correct queue, region or account"
_NO_BUCKET: Final = "the bucket does not exist there; create it, or correct bucket, region or account"
_NO_BUS: Final = "the event bus does not exist there; create it, or correct its ARN"
_NO_TOPIC: Final = "the topic does not exist there; create it, or correct topic, region or account"
_OTHER_REGION: Final = "the bucket is in another region; correct region"
_CLOCK: Final = "it takes our clock for wrong; set this machine's clock"
#: What begins the text of a refused signature when only its time is wrong (AWS General Reference, "Troubleshooting
#: AWS Signature Version 4 errors"); the code is the same as for a wrong secret.
_CLOCK_WORDS: Final = ("Signature expired", "Signature not yet current")
_IN_FLIGHT: Final = "too many messages are in flight; let functions finish sooner, or lower the visibility timeout"
#: What a refused or silent connection means.
UNREACHABLE: Final = "it cannot be reached; check endpoint_url, region and network"
HUNG_UP: Final = "it closed the connection"

#: Error codes that say: ask less often.
THROTTLES: Final = frozenset(
    {
        "KMSThrottlingException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
#: Error code of the service -> what it means for the operator.
_CODES: Final = {
    "AWS.SimpleQueueService.NonExistentQueue": _NO_QUEUE,
    "QueueDoesNotExist": _NO_QUEUE,
    "NoSuchBucket": _NO_BUCKET,
    "NotFound": _NO_TOPIC,
    "PermanentRedirect": _OTHER_REGION,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AuthorizationError": _DENIED,
    "ExpiredToken": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "IncompleteSignature": _CREDENTIALS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "InvalidSecurity": _CREDENTIALS,
    "InvalidSignatureException": _CREDENTIALS,
    "MissingAuthenticationToken": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "AWS.SimpleQueueService.OverLimit": _IN_FLIGHT,
    "OverLimit": _IN_FLIGHT,
    "RequestExpired": _CLOCK,
    "RequestTimeTooSkewed": _CLOCK,
    **dict.fromkeys(THROTTLES, _THROTTLED),
}

#: Operation that sends -> codes by which it refuses what is too large. SQS and SNS have no code for it alone; nothing
#: else can be invalid of what is sent here, and if it were, something smaller would be refused too.
_TOO_LARGE: Final = {
    "SendMessage": ("InvalidParameterValue", "InvalidParameterValueException"),
    "Publish": ("InvalidParameter", "InvalidParameterException", "InvalidParameterValue"),
    "PutObject": ("EntityTooLarge",),
    "PutEvents": ("ValidationException",),
}
_CONTENT_TOO_LARGE: Final = 413

#: Operation -> codes that mean something of their own there. HeadBucket is answered without a body, so that the HTTP
#: status is the code.
_CODES_OF: Final = {
    "HeadBucket": {"301": _OTHER_REGION, "403": _DENIED, "404": _NO_BUCKET},
    "DescribeEventBus": {"ResourceNotFoundException": _NO_BUS},
}

#: Name of the library's exception -> what it means for the operator.
_EXCEPTIONS: Final = {
    "NoCredentialsError": "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
    "PartialCredentialsError": "the credentials are incomplete; set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "NoRegionError": "there is no region; set aws.region or AWS_DEFAULT_REGION",
    "EndpointConnectionError": UNREACHABLE,
    "ConnectTimeoutError": UNREACHABLE,
    "ReadTimeoutError": f"it did not answer within {_READ_TIMEOUT_S} s",
    "ConnectionClosedError": HUNG_UP,
}


def new_session() -> aioboto3.Session:
    """Read the usual AWS environment and profile."""
    import aioboto3  # noqa: PLC0415 - see the module

    return aioboto3.Session()


def sqs_client(
    endpoint_url: str | None, region: str | None, session: aioboto3.Session | None = None
) -> AbstractAsyncContextManager[SQSClient]:
    """Open a client for SQS, with the credentials of the session or the usual AWS chain. It tries everything once."""
    session = session or new_session()
    return session.client("sqs", **_client_options(endpoint_url, region, session))


def s3_client(endpoint_url: str | None, region: str | None) -> AbstractAsyncContextManager[S3Client]:
    """Open a client for S3, with the credentials of the usual AWS chain. It tries everything once."""
    session = new_session()
    # A bucket's name before the host of a stand-in seldom resolves.
    addressing = {"s3": {"addressing_style": "path"}} if endpoint_url else {}
    return session.client("s3", **_client_options(endpoint_url, region, session, **addressing))


def lambda_client(
    endpoint_url: str | None, region: str | None, session: aioboto3.Session | None = None
) -> AbstractAsyncContextManager[Any]:
    """Open a client for Lambda, with the credentials of the session or the usual AWS chain. It tries all once."""
    return service_client("lambda", endpoint_url, region, session)


def service_client(
    service: str, endpoint_url: str | None, region: str | None, session: aioboto3.Session | None = None
) -> AbstractAsyncContextManager[Any]:
    """Open a client for a service by the library's name for it; the same holds."""
    session = session or new_session()
    # Its type has an overload for each service by name.
    make: Any = session.client
    client: AbstractAsyncContextManager[Any] = make(service, **_client_options(endpoint_url, region, session))
    return client


def sns_client(endpoint_url: str | None, region: str | None) -> AbstractAsyncContextManager[SNSClient]:
    """Open a client for SNS, with the credentials of the usual AWS chain. It tries everything once."""
    session = new_session()
    return session.client("sns", **_client_options(endpoint_url, region, session))


def _client_options(
    endpoint_url: str | None, region: str | None, session: aioboto3.Session, **more: Any
) -> dict[str, Any]:
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - see the module

    return {
        "endpoint_url": endpoint_url,
        "region_name": region or session.region_name or (STAND_IN_REGION if endpoint_url else None),
        "config": AioConfig(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"total_max_attempts": 1, "mode": "standard"},
            **more,
        ),
    }


@contextlib.contextmanager
def aws_errors(
    becomes: type[DestinationUnavailable | HandlerUnavailable | SourceUnavailable], what: str
) -> Iterator[None]:
    """Turn errors of the AWS libraries into ours; `what` names what was asked, such as "SQS queue orders-dlq"."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        raise becomes(f"{what}: {_refusal(error)}") from error
    except BotoCoreError as error:
        raise becomes(f"{what}: {_trouble(error)}") from error
    except (KeyError, ResponseParserError) as error:
        raise becomes(f"{what}: what answers is not the service; check endpoint_url") from error
    except ValueError as error:  # the library's answer to an endpoint that is no URL
        raise becomes(f"{what}: {error}; correct endpoint_url") from error


def is_missing_queue(error: SourceUnavailable) -> bool:
    """Say whether an error means that there is no such queue."""
    return _NO_QUEUE in str(error)


def are_credentials_refused(error: RouterError) -> bool:
    """Say whether an error means that other credentials are needed."""
    return _CREDENTIALS in str(error)


def is_too_large(error: DestinationUnavailable) -> bool:
    """Say whether an error of `aws_errors` means that what was sent is larger than the service takes."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - see the module

    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return False
    status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = cause.response["Error"].get("Code")
    return status == _CONTENT_TOO_LARGE or code in _TOO_LARGE.get(cause.operation_name, ())


def refusal(code: str, text: str, operation: str) -> str:
    """Say what an error that a service has answered with means."""
    meaning = _CODES_OF.get(operation, {}).get(code) or _CODES.get(code)
    if text.startswith(_CLOCK_WORDS):
        meaning = _CLOCK
    return f"{meaning} ({operation}: {code})" if meaning else f"{operation}: {code}: {text}"


def _refusal(error: ClientError) -> str:
    answer = error.response["Error"]
    return refusal(answer.get("Code", "?"), answer.get("Message", "no reason given"), error.operation_name)


def _trouble(error: BotoCoreError) -> str:
    return _EXCEPTIONS.get(type(error).__name__, f"{type(error).__name__}: {error}")
