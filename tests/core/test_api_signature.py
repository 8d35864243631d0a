"""Signatures of calls: those of botocore's own signer fit, and nothing else does."""

import calendar
import time
from dataclasses import replace
from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys
from hypothesis import given
from hypothesis import strategies as st

from router.api.errors import ApiError
from router.api.signature import read_claim, verify
from router.http.messages import Request

KEY, SECRET = "AKIAEXAMPLE", "a secret/of+some length"
NOW_S = calendar.timegm(time.strptime("20260102T030405Z", "%Y%m%dT%H%M%SZ"))
PATH = "/2015-03-31/functions/orders/invocations"


def signed(
    method="POST", path=PATH, params=(), body=b"{}", headers=None, *, at_s=NOW_S, region="eu-west-1", token=None
):
    """A request as botocore signs and sends it."""
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in params)
    asked = AWSRequest(method, f"http://127.0.0.1:9301{path}" + (f"?{query}" if query else ""), headers or {}, body)
    with patch("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(at_s, UTC)):
        SigV4Auth(Keys(KEY, SECRET, token), "lambda", region).add_auth(asked)
    sent = {name.lower(): value.strip() for name, value in asked.headers.items()}
    sent.setdefault("host", urlsplit(asked.url).netloc)
    return Request(method, urlsplit(asked.url).path, query, sent, body)


def refusal(request, secret=SECRET, now_s=NOW_S):
    """The refusal; None = it is accepted."""
    try:
        verify(read_claim(request, now_s), secret, request)
    except ApiError as error:
        return error
    return None


def refused(request, secret=SECRET, now_s=NOW_S):
    """The code of a refusal; None = it is accepted."""
    error = refusal(request, secret, now_s)
    return error and (error.code if error.status == 403 else "not 403")


SEGMENTS = st.text(min_size=1).map(lambda text: quote(text, safe="")).filter(lambda text: text not in (".", ".."))
VALUES = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")))


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    segments=st.lists(SEGMENTS, min_size=1, max_size=5),
    params=st.lists(st.tuples(st.text(), st.text()), max_size=5),
    body=st.binary(max_size=100),
    headers=st.dictionaries(st.from_regex(r"x-amz-[a-z]{3,9}", fullmatch=True), VALUES, max_size=3),
    token=st.none() | st.just("a token"),
    end=st.sampled_from(["", "/"]),
)
def test_what_botocore_signs_is_accepted(method, segments, params, body, headers, token, end):
    request = signed(method, "/" + "/".join(segments) + end, params, body, headers, token=token)
    assert read_claim(request, NOW_S).access_key_id == KEY
    assert refused(request) is None


@given(st.data())
def test_nothing_of_a_signed_request_can_be_changed(data):
    request = signed(params=[("Qualifier", "live")], headers={"X-Amz-Invocation-Type": "Event"})
    changes = {
        "method": "PUT",
        "path": f"{PATH}s",
        "query": "Qualifier=dead",
        "body": b"[]",
        "headers": request.headers | {"x-amz-invocation-type": "DryRun"},
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    assert refused(replace(request, **{name: changes[name]})) == "InvalidSignatureException"


def test_a_request_with_another_secret_is_forged():
    assert refused(signed(), "another secret") == "InvalidSignatureException"


def test_headers_that_steer_us_must_be_signed():
    request = signed()
    added = replace(request, headers=request.headers | {"x-amz-source-arn": "arn:aws:s3:::bucket"})
    assert refused(added) == "InvalidSignatureException"
    without_host = request.headers["authorization"].replace("host;", "")
    assert refused(replace(request, headers=request.headers | {"authorization": without_host})) is not None
    without_date = {name: value for name, value in request.headers.items() if name != "x-amz-date"}
    assert refused(replace(request, headers=without_date)) == "IncompleteSignatureException"


@pytest.mark.parametrize(
    ("off_s", "code"), [(-300, None), (300, None)] + [(n, "InvalidSignatureException") for n in (-301, 301, -90_000)]
)
def test_a_signature_holds_for_five_minutes(off_s, code):
    assert refused(signed(at_s=NOW_S + off_s)) == code


def test_a_stale_signature_is_told_in_the_words_of_aws():
    assert str(refusal(signed(at_s=NOW_S - 301))) == (
        "Signature expired: 20260102T025904Z is now earlier than 20260102T025905Z (20260102T030405Z - 5 min.)"
    )
    assert str(refusal(signed(at_s=NOW_S + 301))) == (
        "Signature not yet current: 20260102T030906Z is still later than 20260102T030905Z (20260102T030405Z + 5 min.)"
    )


def test_a_replayed_request_is_accepted_while_its_time_holds_as_on_aws():
    request = signed()
    assert [refused(request), refused(request), refused(request, now_s=NOW_S + 301)] == [
        None,
        None,
        "InvalidSignatureException",
    ]


def test_a_body_may_be_left_unsigned_where_the_request_says_so():
    request = signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert refused(request) is None
    assert refused(replace(request, body=b"another")) is None
    assert refused(replace(request, headers=request.headers | {"x-amz-content-sha256": "0" * 64})) is not None


def test_a_hash_that_is_not_the_bodys_is_refused():
    assert refused(signed(headers={"X-Amz-Content-SHA256": "0" * 64})) == "InvalidSignatureException"


GOOD = signed().headers["authorization"]


@pytest.mark.parametrize(
    ("given_header", "code"),
    [
        (None, "MissingAuthenticationTokenException"),
        ("", "IncompleteSignatureException"),
        ("Basic dXNlcjpwYXNz", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=0", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential,SignedHeaders,Signature", "IncompleteSignatureException"),
        (GOOD.replace("/lambda/", "/s3/"), "InvalidSignatureException"),
        (GOOD.replace("20260102/", "20260103/"), "InvalidSignatureException"),
        (GOOD.replace("/eu-west-1/", "//"), "InvalidSignatureException"),
        (GOOD.replace("/eu-west-1/", "/us-east-1/"), "InvalidSignatureException"),
        (GOOD.replace("aws4_request", "aws4"), "InvalidSignatureException"),
        (GOOD.replace("SignedHeaders=", "SignedHeaders=x-not-there;"), "InvalidSignatureException"),
        (GOOD[:-1], "InvalidSignatureException"),
        (GOOD + "é", "InvalidSignatureException"),
    ],
)
def test_malformed_signatures_are_refused_by_what_is_wrong(given_header, code):
    headers = {name: value for name, value in signed().headers.items() if name != "authorization"}
    if given_header is not None:
        headers["authorization"] = given_header
    assert refused(replace(signed(), headers=headers)) == code


def without(part):
    return ", ".join(each for each in GOOD.split(", ") if part not in each)


@pytest.mark.parametrize(
    ("given_header", "words"),
    [
        (GOOD.replace("SHA256", "SHA512"), "Unsupported algorithm"),
        (GOOD.replace("Credential=", "Key="), "requires 'Credential' parameter."),
        (without("SignedHeaders"), "requires 'SignedHeaders' parameter."),
        (without("Signature="), "requires 'Signature' parameter."),
        ("AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=0", "exactly 5 slash-delimited elements"),
        (GOOD.replace("20260102/", "20260103/"), "scoped with the date of the request: '20260103' != '20260102'"),
        (GOOD.replace("/eu-west-1/", "//"), "scoped to a valid region."),
        (GOOD.replace("/lambda/", "/s3/"), "scoped to correct service: 'lambda'."),
        (GOOD.replace("aws4_request", "aws4"), "scoped with a valid terminator: 'aws4_request'."),
        (GOOD.replace("host;", ""), "not signed: host"),
        (GOOD.replace("SignedHeaders=", "SignedHeaders=x-not-there;"), "signed which the request does not have."),
        (GOOD[:-1], "The request signature we calculated does not match"),
    ],
)
def test_what_is_wrong_with_a_signature_is_told_in_the_words_of_aws(given_header, words):
    assert words in str(refusal(replace(signed(), headers=signed().headers | {"authorization": given_header})))


def test_a_request_says_when_it_is_from():
    headers = {name: value for name, value in signed().headers.items() if name != "x-amz-date"}
    assert "existence of either a 'X-Amz-Date'" in str(refusal(replace(signed(), headers=headers)))
    assert "Date must be" in str(refusal(replace(signed(), headers=headers | {"x-amz-date": "20260132T030405Z"})))


def test_a_signature_in_the_query_is_none():
    """Only headers are looked at, so that no link that leaks calls anything."""
    query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}&X-Amz-Signature=0"
    request = Request("POST", PATH, query, {"host": "127.0.0.1:9301"}, b"{}")
    assert refused(request) == "MissingAuthenticationTokenException"


def test_spaces_within_the_value_of_a_header_count_once():
    request = signed(headers={"X-Amz-Meta": "a  b   c"})
    assert refused(request) is None
    assert refused(replace(request, headers=request.headers | {"x-amz-meta": "a b c"})) is None
    assert refused(replace(request, headers=request.headers | {"x-amz-meta": "ab c"})) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Aorders",
        "/2017-03-31/tags/arn:aws:lambda:us-east-1:000000000000:function:orders",
        "/2015-03-31/functions/a%2Fb%20c%252F",
    ],
)
def test_paths_are_signed_as_they_are_sent(path):
    assert refused(signed("GET", path, body=b"")) is None
    other = path.replace("%3A", ":") if "%3A" in path else path.replace(":", "%3A") if ":" in path else path + "x"
    assert refused(replace(signed("GET", path, body=b""), path=other)) == "InvalidSignatureException"


@given(st.text(st.characters(max_codepoint=255), max_size=80), st.text(st.characters(max_codepoint=255), max_size=20))
def test_no_header_breaks_it(authorization, date):
    for text in (authorization, f"AWS4-HMAC-SHA256 {authorization}", GOOD[:70] + authorization):
        headers = {"host": "h", "authorization": text, "x-amz-date": date}
        assert refused(Request("GET", "/é", "a&&=é", headers)) is not None
        assert refused(Request("GET", "/", "", headers | {"x-amz-date": "20260102T030405Z"})) is not None
