"""Refusals of the API, in AWS's shapes: a code, a sentence, and one of three ways to write them.

Recorded on AWS: some codes spell the text `message`, others `Message`; a modelled constraint that fails has no `Type`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Codes whose text is written as `Message`.
_CAPITAL: Final = (
    "ResourceNotFoundException",
    "ResourceInUseException",
    "ServiceException",
    "RecursiveInvocationException",
)
_CAPITAL_PREFIXES: Final = ("KMS", "EC2", "EFS", "SnapStart")
#: The code of a modelled constraint that does not hold.
VALIDATION: Final = "ValidationException"
#: Codes of what is in front of the service, whose bodies have the text alone.
_BARE: Final = (
    VALIDATION,
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "SerializationException",
    "UnknownOperationException",
    "UnrecognizedClientException",
)


class ApiError(Exception):
    """An operation is refused."""

    def __init__(
        self, code: str, message: str, status: int = 400, *, more: Mapping[str, str] | None = None, wait_s: int = 0
    ) -> None:
        """Make it.

        Args:
            code: the name of AWS's exception.
            message: for people, in AWS's words where they are known.
            status: of the answer.
            more: more members of the body, such as `Reason`.
            wait_s: when to try again, for the header; 0 = it does not say.
        """
        super().__init__(message)
        self.code = code
        self.status = status
        self.wait_s = wait_s
        self._more = more or {}

    @property
    def document(self) -> dict[str, str]:
        """Give the body of the answer."""
        message = str(self)
        if self.code in _BARE:
            return {"message": message}
        is_capital = self.code in _CAPITAL or self.code.startswith(_CAPITAL_PREFIXES)
        kind = "User" if self.status < 500 else "Service"
        return {"Type": kind, "Message" if is_capital else "message": message, **self._more}


def invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", message)


def violated(message: str) -> ApiError:
    """Refuse what breaks a modelled constraint."""
    return ApiError(VALIDATION, message)


def not_found(message: str) -> ApiError:
    return ApiError("ResourceNotFoundException", message, 404)


def conflict(message: str) -> ApiError:
    return ApiError("ResourceConflictException", message, 409)


def in_use(message: str) -> ApiError:
    return ApiError("ResourceInUseException", message)


def of_file(what: str, name: str, file: str) -> ApiError:
    """Refuse to change what the file defines; `what` is such as "Function"."""
    return conflict(f"{what} {name} is defined in {file}: change it there")


def denied(message: str) -> ApiError:
    return ApiError("AccessDeniedException", message, 403)


def throttled(reason: str, wait_s: int = 1) -> ApiError:
    """Refuse an invocation for which there is no room; reasons are those of TooManyRequestsException."""
    more = {"Reason": reason, "retryAfterSeconds": str(wait_s)}
    return ApiError("TooManyRequestsException", "Rate Exceeded.", 429, more=more, wait_s=wait_s)


def unavailable(message: str) -> ApiError:
    """Say that we cannot do it now, through no fault of the caller's."""
    return ApiError("ServiceException", message, 503)
