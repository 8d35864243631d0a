"""Who may call: pages of other sites are kept out on loopback, and everybody without a key elsewhere."""

import pytest

from router.api.access import Access, AccessKey, Credentials, is_loopback
from router.api.call import Answer, Caller
from router.api.errors import ApiError
from router.http.messages import Request
from tests.core.test_api_signature import KEY, NOW_S, SECRET, signed
from tests.fakes.wire import ApiSite, ask, head, listening, post

KEYS = {KEY: AccessKey(SECRET), "S3": AccessKey("its secret", "s3.amazonaws.com")}


def door(host="127.0.0.1", keys=(), token=None):
    access = Access(host, lambda: NOW_S, Credentials(dict(keys), token))
    access.port = 9301
    return access


def refused(check, *arguments):
    """The code of a refusal; None = there is none."""
    try:
        check(*arguments)
    except ApiError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("host", "is_so"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("LocalHost", True), ("0.0.0.0", False)]
    + [(name, False) for name in ("", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "1")],
)
def test_loopback_is_what_only_this_machine_reaches(host, is_so):
    assert is_loopback(host) == is_so


@pytest.mark.parametrize("host", ["127.0.0.1:9301", "localhost:9301", "[::1]:9301", "LOCALHOST:9301"])
def test_an_open_listener_is_called_by_its_loopback_names(host):
    request = Request("GET", "/", "", {"host": host, "origin": f"http://{host}"})
    assert refused(door().claim, request) is None
    assert door().caller(None, request) == Caller()


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example:9301",
        "127.0.0.1:80",
        "127.0.0.1",
        "localhost",
        "[::1]",
        "",
        ":9301",
        "10.0.0.1:9301",
        "a:b:9301",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(host):
    for method in ("GET", "POST"):
        assert refused(door().claim, Request(method, "/", "", {"host": host})) == "AccessDeniedException"


def test_port_80_need_not_be_named():
    access = door()
    access.port = 80
    for host in ("localhost", "[::1]", "127.0.0.1:80"):
        assert refused(access.claim, Request("GET", "/", "", {"host": host})) is None


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://127.0.0.1:3000", "", "http://127.0.0.1:9301.a"]
)
def test_pages_of_other_sites_are_refused(origin):
    headers = {"host": "127.0.0.1:9301", "origin": origin}
    assert refused(door().claim, Request("POST", "/", "", headers)) == "AccessDeniedException"
    assert refused(door().check_metrics, Request("GET", "/metrics", "", headers)) == "AccessDeniedException"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_where_there_are_keys_every_call_is_signed_and_no_name_matters(host):
    access = door(host, KEYS)
    request = signed(headers={"Host": "api.example"})
    assert access.caller(access.claim(request), request) == Caller(KEY)
    assert refused(access.claim, Request("GET", "/", "", {"host": "x"})) == "MissingAuthenticationTokenException"
    unknown = request.headers | {"authorization": request.headers["authorization"].replace(KEY, "ANOTHER")}
    assert refused(access.claim, Request("POST", "/", "", unknown)) == "UnrecognizedClientException"


def test_elsewhere_nobody_may_call_where_no_keys_are_left():
    access = door("0.0.0.0")
    assert refused(access.claim, Request("GET", "/", "", {"host": "127.0.0.1:9301"})) is not None
    assert refused(access.claim, signed()) == "UnrecognizedClientException"


def test_a_key_that_is_taken_away_meanwhile_holds_no_more():
    access, request = door(keys=KEYS), signed()
    claim = access.claim(request)
    access.credentials = Credentials({"S3": KEYS["S3"]})
    assert refused(access.caller, claim, request) == "UnrecognizedClientException"


def test_a_services_key_says_on_whose_behalf_it_calls_and_only_invokes():
    access = door(keys={KEY: AccessKey(SECRET, "s3.amazonaws.com")})
    request = signed(headers={"X-Amz-Source-Arn": "arn:aws:s3:::in", "X-Amz-Source-Account": "000000000000"})
    caller = access.caller(access.claim(request), request)
    assert caller == Caller(KEY, "s3.amazonaws.com", "arn:aws:s3:::in", "000000000000")
    assert [refused(access.check_operation, caller, name) for name in ("Invoke", "InvokeAsync")] == [None, None]
    assert refused(access.check_operation, caller, "ListFunctions") == "AccessDeniedException"
    assert refused(access.check_operation, Caller(KEY), "ListFunctions") is None


def bearer(text):
    return Request("GET", "/metrics", "", {"host": "api.example", "authorization": text})


def test_metrics_are_read_with_their_token_or_a_signature():
    access = door("0.0.0.0", KEYS, "the token é")
    assert refused(access.check_metrics, bearer("Bearer the token é")) is None
    assert refused(access.check_metrics, signed("GET", "/metrics", body=b"")) is None
    assert refused(access.check_metrics, bearer("Bearer another")) == "UnrecognizedClientException"
    assert refused(access.check_metrics, bearer("")) == "IncompleteSignatureException"
    assert refused(door("0.0.0.0", KEYS).check_metrics, bearer("Bearer ")) == "IncompleteSignatureException"


def test_a_services_key_reads_no_page():
    access = door("0.0.0.0", {KEY: AccessKey(SECRET, "s3.amazonaws.com")})
    assert refused(access.check_reader, signed("GET", "/", body=b"")) == "AccessDeniedException"


def test_no_secret_shows():
    assert SECRET not in repr(Credentials(KEYS, SECRET))


async def done(call):
    return Answer(200, {"caller": call.caller.name})


def wire(request):
    names = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
    headers = {name.replace("-", "_"): value for name, value in names.items()}
    return post(request.path, request.body, Host=request.headers["host"], **headers)


async def test_calls_over_the_wire_are_refused_in_the_shapes_of_aws():
    site = ApiSite({"Invoke": done}, host="0.0.0.0", wall=lambda: NOW_S, credentials=Credentials(KEYS))
    async with listening(site) as (_, port):
        good = signed()
        assert (await ask(port, wire(good))).document == {"caller": KEY}
        forged = await ask(port, wire(good).replace(b"{}", b"[]"))
        assert (forged.status, forged.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
        assert list(forged.document) == ["message"]
        # Who shows no key is refused before its body is read.
        bare = await ask(port, head("POST", good.path, 6 * 1024 * 1024))
        assert (bare.status, bare.document) == (403, {"message": "Missing Authentication Token"})


async def test_a_large_body_counts_as_a_small_one_does():
    site = ApiSite({"Invoke": done}, host="0.0.0.0", wall=lambda: NOW_S, credentials=Credentials(KEYS))
    body = b"x" * (5 * 1024 * 1024)
    async with listening(site) as (_, port):
        good = signed(body=body)
        assert (await ask(port, wire(good))).document == {"caller": KEY}
        good.body = body[:-1] + b"y"
        assert (await ask(port, wire(good))).headers["x-amzn-errortype"] == "InvalidSignatureException"
