"""The bodies of refusals: which codes spell the text `message`, which `Message`, and which have nothing else."""

import pytest

from router.api.errors import ApiError, throttled, unavailable


@pytest.mark.parametrize(
    "code",
    [
        "AccessDeniedException",
        "InvalidParameterValueException",
        "InvalidRequestContentException",
        "RequestTooLargeException",
        "ResourceConflictException",
        "UnsupportedMediaTypeException",
    ],
)
def test_most_have_a_small_message_and_a_type(code: str) -> None:
    assert ApiError(code, "why").document == {"Type": "User", "message": "why"}


@pytest.mark.parametrize(
    "code",
    [
        "EC2ThrottledException",
        "EFSIOException",
        "KMSAccessDeniedException",
        "RecursiveInvocationException",
        "ResourceInUseException",
        "ResourceNotFoundException",
        "SnapStartException",
    ],
)
def test_some_have_a_large_one(code: str) -> None:
    assert ApiError(code, "why").document == {"Type": "User", "Message": "why"}


@pytest.mark.parametrize(
    "code",
    [
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SerializationException",
        "UnknownOperationException",
        "UnrecognizedClientException",
        "ValidationException",
    ],
)
def test_what_is_in_front_of_the_service_says_no_type(code: str) -> None:
    assert ApiError(code, "why").document == {"message": "why"}


def test_what_is_no_fault_of_the_callers_is_of_the_service() -> None:
    refused = unavailable("why")
    assert (refused.code, refused.status) == ("ServiceException", 503)
    assert refused.document == {"Type": "Service", "Message": "why"}


def test_a_throttled_call_is_told_why_and_when_to_come_again() -> None:
    refused = throttled("ConcurrentInvocationLimitExceeded", wait_s=3)
    assert (refused.code, refused.status, refused.wait_s) == ("TooManyRequestsException", 429, 3)
    assert refused.document == {
        "Type": "User",
        "message": "Rate Exceeded.",
        "Reason": "ConcurrentInvocationLimitExceeded",
        "retryAfterSeconds": "3",
    }
