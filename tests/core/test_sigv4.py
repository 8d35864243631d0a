"""Our signatures against those of the AWS library."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from connectors.sigv4 import Signer, host_header

URLS = [
    "https://sqs.eu-west-1.amazonaws.com",
    "https://sqs.eu-west-1.amazonaws.com/",
    "http://127.0.0.1:4566",
    "http://127.0.0.1:80/",
    "https://Gateway.Example:443/aws/sqs",
    "https://gateway.example:8443/a%20b/~c/d+e/",
    "http://[::1]:4566/q",
]
CONTENT_TYPE = "application/x-amz-json-1.0"


@dataclass
class LibrarySigner:
    """The library's signer with its clock set."""

    url: str

    def headers(self, keys: Any, target: str, body: bytes, now_s: float) -> dict[str, str]:
        signer: Any = SigV4Auth(keys, "sqs", "eu-west-1")
        request: Any = AWSRequest(
            "POST", self.url, headers={"Content-Type": CONTENT_TYPE, "X-Amz-Target": target}, data=body
        )
        now = dt.datetime.fromtimestamp(int(now_s), dt.UTC)
        request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
        signer._modify_request_before_signing(request)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))
        return {name.lower(): value for name, value in request.headers.items()}


def made(url: str) -> Signer:
    return Signer(url, service="sqs", region="eu-west-1", content_type=CONTENT_TYPE)


@pytest.mark.parametrize("url", URLS)
@given(
    access=st.text("ABCDEFGH0123456789", min_size=16, max_size=20),
    secret=st.text("abcXYZ019+/", min_size=20, max_size=40),
    token=st.none() | st.text("abcXYZ019+/=", min_size=1, max_size=60),
    body=st.binary(max_size=200),
    now_s=st.floats(0, 4e9),
)
def test_a_request_is_signed_as_the_library_signs_it(
    url: str, access: str, secret: str, token: str | None, body: bytes, now_s: float
) -> None:
    keys: Any = ReadOnlyCredentials(access, secret, token)
    ours = made(url).headers(keys, "AmazonSQS.ReceiveMessage", body, now_s)
    theirs = LibrarySigner(url).headers(keys, "AmazonSQS.ReceiveMessage", body, now_s)
    assert ours == {**theirs, "host": host_header(url)}
    assert set(ours) - set(theirs) == {"host"}


def test_one_signer_serves_new_keys_new_days_and_new_seconds() -> None:
    url = URLS[0]
    signer, library = made(url), LibrarySigner(url)
    first: Any = ReadOnlyCredentials("AKIA1", "s" * 40, None)
    second: Any = ReadOnlyCredentials("AKIA2", "t" * 40, "token")
    day_s = 24 * 3600.0
    for keys, now_s in [
        (first, day_s - 1.5),
        (first, day_s - 0.5),
        (first, day_s),
        (second, day_s),
        (second, day_s + 0.9),
        (first, day_s + 0.9),
        (first, 1.0),
    ]:
        ours = signer.headers(keys, "AmazonSQS.DeleteMessageBatch", b"{}", now_s)
        theirs = library.headers(keys, "AmazonSQS.DeleteMessageBatch", b"{}", now_s)
        assert ours["authorization"] == theirs["authorization"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (URLS[0], "sqs.eu-west-1.amazonaws.com"),
        ("http://127.0.0.1:4566/x", "127.0.0.1:4566"),
        ("http://127.0.0.1:80/", "127.0.0.1"),
        ("http://127.0.0.1:443/", "127.0.0.1:443"),
        ("https://Gateway.Example:443/aws", "gateway.example"),
        ("http://user:word@gateway.example/", "gateway.example"),
        ("http://[::1]:4566", "[::1]:4566"),
    ],
)
def test_the_host_is_named_as_http_names_it(url: str, host: str) -> None:
    assert host_header(url) == host


@pytest.mark.parametrize("query", ["", "?Qualifier=live"])
@pytest.mark.parametrize("token", [None, "token"])
def test_a_request_with_a_query_and_more_headers_is_signed_as_the_library_signs_it(
    query: str, token: str | None
) -> None:
    arn = "arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Apriced"
    url = f"https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/{arn}/invocations{query}"
    more = {"x-amz-log-type": "Tail", "x-amz-invocation-type": "RequestResponse"}
    keys: Any = ReadOnlyCredentials("AKIA1", "s" * 40, token)
    signer = Signer(url, service="lambda", region="eu-west-1", content_type="application/json", more=more)
    ours = dict(signer.headers(keys, None, b"{}", 1e9))
    theirs: Any = AWSRequest("POST", url, headers={"Content-Type": "application/json", **more}, data=b"{}")
    library: Any = SigV4Auth(keys, "lambda", "eu-west-1")
    theirs.context["timestamp"] = "20010909T014640Z"
    library._modify_request_before_signing(theirs)
    text = library.string_to_sign(theirs, library.canonical_request(theirs))
    library._inject_signature_to_request(theirs, library.signature(text, theirs))
    assert ours.pop("host") == "lambda.eu-west-1.amazonaws.com"
    assert ours == {name.lower(): value for name, value in theirs.headers.items()}
