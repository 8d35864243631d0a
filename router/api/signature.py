"""Signatures of calls, version 4: what a request claims, and whether its signature fits. Pure.

Source: AWS Identity and Access Management user guide, "Create a signed AWS API request"; the codes and sentences are
those that AWS answers with. Checked as AWS does: the host and all X-Amz- headers must be signed, the time may be five
minutes off, the body counts by its hash. UNSIGNED-PAYLOAD is taken where the request says so in the signed header
X-Amz-Content-Sha256: its body is not protected then, as on AWS. Any region may be claimed, as ours says nothing about
who may call. A request that is sent again within the five minutes is answered again: AWS does not remember signatures
either, and two equal events of one second are signed alike.
"""

from __future__ import annotations

import calendar
import hmac
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from router.api.errors import ApiError
from router.http.messages import Request

ALGORITHM: Final = "AWS4-HMAC-SHA256"
#: How far a request's time may be from ours, seconds.
SKEW_S: Final = 300.0
UNSIGNED: Final = "UNSIGNED-PAYLOAD"

_PARTS: Final = ("Credential", "SignedHeaders", "Signature")
_CONTENT_HASH: Final = "x-amz-content-sha256"
_TIME: Final = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_BLANKS: Final = re.compile(r"[ \t]+")
_SCOPE: Final = 5
#: Keys of a day that are derived once: enough for as many access keys and regions.
_KEYS: Final = 64


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says about itself."""

    access_key_id: str
    #: As it was sent: YYYYMMDDThhmmssZ.
    time: str
    region: str
    #: In the order in which they were signed, lower-case.
    headers: tuple[str, ...]
    signature: str


def read_claim(request: Request, now_s: float) -> Claim:
    """Read who a request claims to be from, and when; looks at its head alone.

    Args:
        request: its body need not be there.
        now_s: wall time.

    Raises:
        ApiError: there is no signature, or it cannot be sound whatever the key is.
    """
    given = request.headers.get("authorization")
    if given is None:
        raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
    parts = _parts(given)
    moment = request.headers.get("x-amz-date", "")
    lacking = [f"Authorization header requires '{name}' parameter." for name in _PARTS if not parts.get(name)]
    if not moment:
        lacking.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if lacking:
        raise _incomplete(" ".join(lacking))
    scope = parts["Credential"].rsplit("/", _SCOPE - 1)
    if len(scope) != _SCOPE:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term"
        )
    _check_time(moment, now_s)
    _check_scope(scope, moment)
    headers = tuple(parts["SignedHeaders"].split(";"))
    _check_headers(headers, request)
    return Claim(scope[0], moment, scope[2], headers, parts["Signature"])


def verify(claim: Claim, secret_access_key: str, request: Request) -> None:
    """Check the signature of a whole request. Raises ApiError."""
    if not hmac.compare_digest(_signature(claim, secret_access_key, request), claim.signature.encode("latin-1")):
        raise _invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )


def unknown_key() -> ApiError:
    """Refuse an access key that is none of ours."""
    return ApiError("UnrecognizedClientException", "The security token included in the request is invalid.", 403)


# --- what is claimed


def _parts(given: str) -> dict[str, str]:
    algorithm, _, rest = given.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported algorithm: {ALGORITHM} is expected.")
    pairs = (part.strip().partition("=") for part in rest.split(","))
    return {name: value for name, _, value in pairs}


def _check_time(moment: str, now_s: float) -> None:
    try:
        at_s = calendar.timegm(time.strptime(moment if _TIME.fullmatch(moment) else "", "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise _incomplete("Date must be in ISO-8601 'basic format'.") from None
    if at_s < now_s - SKEW_S:
        earliest, now = _shown(now_s - SKEW_S), _shown(now_s)
        raise _invalid(f"Signature expired: {moment} is now earlier than {earliest} ({now} - 5 min.)")
    if at_s > now_s + SKEW_S:
        latest, now = _shown(now_s + SKEW_S), _shown(now_s)
        raise _invalid(f"Signature not yet current: {moment} is still later than {latest} ({now} + 5 min.)")


def _check_scope(scope: list[str], moment: str) -> None:
    _, day, region, service, end = scope
    if day != moment[:8]:
        raise _invalid(
            f"Credential should be scoped with the date of the request: '{day}' != '{moment[:8]}', from '{moment}'."
        )
    if not region:
        raise _invalid("Credential should be scoped to a valid region.")
    if service != "lambda":
        raise _invalid("Credential should be scoped to correct service: 'lambda'.")
    if end != "aws4_request":
        raise _invalid("Credential should be scoped with a valid terminator: 'aws4_request'.")


def _check_headers(signed: tuple[str, ...], request: Request) -> None:
    needed = ["host", *(name for name in request.headers if name.startswith("x-amz-"))]
    unsigned = [name for name in needed if name not in signed]
    if unsigned:
        raise _invalid(f"There were headers present in the request which were not signed: {', '.join(unsigned)}")
    absent = [name for name in signed if name not in request.headers]
    if absent:
        raise _invalid("There were headers signed which the request does not have.")


# --- the signature


def _signature(claim: Claim, secret_access_key: str, request: Request) -> bytes:
    day = claim.time[:8]
    text = "\n".join(
        (
            ALGORITHM,
            claim.time,
            f"{day}/{claim.region}/lambda/aws4_request",
            sha256(_canonical(claim, request).encode("latin-1")).hexdigest(),
        )
    )
    return (
        hmac.digest(_signing_key(secret_access_key, day, claim.region), text.encode("latin-1"), "sha256").hex().encode()
    )


def _canonical(claim: Claim, request: Request) -> str:
    headers = "".join([f"{name}:{_BLANKS.sub(' ', request.headers[name])}\n" for name in claim.headers])
    # Paths with empty or dot segments, which would be resolved here, are those of no operation.
    path = quote(request.path, safe="/~", encoding="latin-1")
    names = ";".join(claim.headers)
    return f"{request.method}\n{path}\n{_canonical_query(request.query)}\n{headers}\n{names}\n{_body_hash(request)}"


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = [pair.partition("=") for pair in query.split("&")]
    return "&".join(
        f"{name}={value}" for name, value in sorted((_coded(name), _coded(text)) for name, _, text in pairs)
    )


def _coded(text: str) -> str:
    """Escape a text as signatures have it, however it is escaped."""
    return quote(unquote_to_bytes(text.encode("latin-1")), safe="-_.~")


def _body_hash(request: Request) -> str:
    claimed = request.headers.get(_CONTENT_HASH)
    return UNSIGNED if claimed == UNSIGNED else sha256(request.body).hexdigest()


@lru_cache(maxsize=_KEYS)
def _signing_key(secret_access_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_access_key}".encode()
    for part in (day, region, "lambda", "aws4_request"):
        key = hmac.digest(key, part.encode("latin-1"), "sha256")
    return key


def _shown(at_s: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_s))


def _incomplete(message: str) -> ApiError:
    return ApiError("IncompleteSignatureException", message, 403)


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidSignatureException", message, 403)
