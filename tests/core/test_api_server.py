"""The API over HTTP: what calls are given, and the shapes of what is answered."""

import asyncio
import json
from uuid import RFC_4122, UUID

import pytest

from router.api.call import Answer
from router.api.errors import conflict, throttled
from router.api.server import new_request_id
from router.errors import StoreUnavailable
from tests.fakes.wire import ApiSite, ask, head, listening, post, until

FUNCTIONS = "/2015-03-31/functions"
REQUEST_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"


class Operations:
    """Notes calls, and answers or raises what it is told."""

    def __init__(self):
        self.calls = []
        self.outcome = Answer()

    async def carry(self, call):
        self.calls.append(call)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def made():
    return Operations()


@pytest.fixture
async def port(made):
    names = ("CreateFunction", "ListFunctions", "Invoke", "TagResource")
    async with listening(ApiSite(dict.fromkeys(names, made.carry))) as (_, port):
        yield port


async def test_a_call_has_all_that_was_sent(made, port):
    made.outcome = Answer(201, {"FunctionName": "orders"})
    got = await ask(port, post(f"{FUNCTIONS}/?a=1&b=%20x&a=2", b'{"A": {"B": 1}}', X_Amz_Date="now"))
    assert (got.status, got.document) == (201, {"FunctionName": "orders"})
    assert got.headers["content-type"] == "application/json"
    call = made.calls[0]
    assert got.headers["x-amzn-requestid"] == call.request_id
    assert (call.document, call.query, call.body) == ({"A": {"B": 1}}, {"a": ["1", "2"], "b": [" x"]}, b"")
    assert call.headers["x-amz-date"] == "now"


async def test_an_event_comes_as_it_is_and_so_goes_its_result(made, port):
    made.outcome = Answer(200, body=b'{"a":1.0}', headers={"X-Amz-Function-Error": "Unhandled"})
    got = await ask(port, post(f"{FUNCTIONS}/arn%3Aaws%3Ao/invocations", b"no JSON at all"))
    assert (got.body, got.headers["x-amz-function-error"]) == (b'{"a":1.0}', "Unhandled")
    assert (made.calls[0].body, made.calls[0].path) == (b"no JSON at all", {"FunctionName": "arn:aws:o"})


async def test_answers_without_a_body_have_none(made, port):
    made.outcome = Answer(204)
    got = await ask(port, post("/2017-03-31/tags/arn", b'{"Tags":{}}'))
    assert (got.status, got.body) == (204, b"")
    assert "content-length" not in got.headers


@pytest.mark.parametrize(
    ("error", "status", "code", "document"),
    [
        (conflict("no"), 409, "ResourceConflictException", {"Type": "User", "message": "no"}),
        (StoreUnavailable("the disk is full"), 503, "ServiceException", {"Message": "the disk is full"}),
        (KeyError("a secret"), 500, "ServiceException", {"Type": "Service"}),
    ],
)
async def test_refusals_have_the_shape_of_aws(made, port, error, status, code, document):
    made.outcome = error
    got = await ask(port, post(FUNCTIONS, b"{}"))
    assert (got.status, got.headers["x-amzn-errortype"]) == (status, code)
    assert document.items() <= got.document.items()
    assert b"a secret" not in got.body
    assert got.headers["x-amzn-requestid"] == made.calls[0].request_id


async def test_a_throttled_client_is_told_when_to_come_again(made, port):
    made.outcome = throttled("ConcurrentInvocationLimitExceeded", 3)
    got = await ask(port, post(f"{FUNCTIONS}/orders/invocations", b"{}"))
    assert (got.status, got.headers["retry-after"]) == (429, "3")
    assert got.document["Reason"] == "ConcurrentInvocationLimitExceeded"


@pytest.mark.parametrize(
    "data",
    [head("GET", f"{FUNCTIONS}/orders/nothing"), head("PATCH", FUNCTIONS), head("GET", "/2015-03-31/functions/orders")],
)
async def test_unknown_operations_and_those_that_are_not_there_are_told_so(made, port, data):
    got = await ask(port, data)
    assert (got.status, got.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
    assert list(got.document) == ["message"]
    assert not made.calls


def nested(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


UNREADABLE = [
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{'a': 1}",
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": ' + b"1" * 10_000 + b"}",
    b'{"a": "\xff"}',
    b'{"a": "\\ud800"}',
    b"\xef\xbb\xbf{}",
    nested(33),
    nested(600),
    nested(100_000),
]


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:20]))
async def test_what_is_no_json_object_is_refused(made, port, body):
    got = await ask(port, post(FUNCTIONS, body))
    assert (got.status, got.headers["x-amzn-errortype"]) == (400, "SerializationException")
    assert list(got.document) == ["message"]
    assert not made.calls


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b"", {}),
        (b" \n", {}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": null, "b": {"c": null}}', {"b": {}}),
        (b'{"a": [null, {"b": null}]}', {"a": [{}]}),
        (nested(32), json.loads(nested(32))),
    ],
)
async def test_odd_objects_are_read_as_aws_reads_them(made, port, body, document):
    await ask(port, post(FUNCTIONS, body, Content_Type="text/xml"))
    assert made.calls[0].document == document


async def test_bodies_that_are_too_large_are_refused_before_they_come(made, port):
    got = await ask(port, head("POST", f"{FUNCTIONS}/orders/invocations", 6 * 1024 * 1024 + 1))
    assert (got.status, got.headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")
    assert got.document == {
        "Type": "User",
        "message": "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
    }
    assert (await ask(port, head("POST", "/2017-03-31/tags/arn", 1024 * 1024 + 1))).status == 413
    got = await ask(port, head("POST", FUNCTIONS, 70167212))
    assert (got.status, got.headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    assert got.document["message"] == "Request must be smaller than 70167211 bytes for the CreateFunction operation"


async def test_the_largest_event_is_taken(made, port):
    body = json.dumps("x" * (6 * 1024 * 1024 - 2)).encode()
    assert (await ask(port, post(f"{FUNCTIONS}/orders/invocations", body))).status == 200
    assert made.calls[0].body == body


async def test_a_call_that_there_is_no_room_for_is_to_come_again(made):
    answers = asyncio.Event()

    async def wait(call):
        await answers.wait()
        return await made.carry(call)

    body = b"1" * 20_000
    async with listening(ApiSite({"Invoke": wait}), held_bytes=30_000) as (listener, port):
        first = asyncio.create_task(ask(port, post(f"{FUNCTIONS}/orders/invocations", body)))
        await until(lambda: listener.held_bytes == len(body))
        got = await ask(port, head("POST", f"{FUNCTIONS}/orders/invocations", len(body)))
        assert (got.status, got.headers["x-amzn-errortype"]) == (503, "ServiceException")
        assert (got.headers["retry-after"], "try again" in got.document["Message"]) == ("1", True)
        answers.set()
        assert (await first).status == 200
    assert [call.body for call in made.calls] == [body]


@pytest.mark.parametrize("query", ["a=%FF", "&".join(["a=1"] * 1000)])
async def test_a_query_that_cannot_be_read_is_refused(made, port, query):
    assert (await ask(port, head("GET", f"{FUNCTIONS}?{query}"))).status == 400
    assert not made.calls


def test_request_ids_are_random_uuids() -> None:
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {(UUID(each).version, UUID(each).variant) for each in ids} == {(4, RFC_4122)}
