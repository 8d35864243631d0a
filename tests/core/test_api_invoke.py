"""Invoke and InvokeAsync over functions that answer what a test says: headers, bodies, limits and refusals."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import faults
from router.api.call import Answer, Call, Caller
from router.api.errors import ApiError
from router.api.invoke import ASYNC_BYTES, Invoke
from router.core.model import Cancelled, Failed, FailureKind, FunctionError, Outcome, Refused, Returned, TooLarge
from router.errors import StoreUnavailable
from router.functions import NOT_FOUND, RESERVED_EXCEEDED, THROTTLED
from router.ports import Invocation
from tests.fakes.api import ARN, ApiSite

ID = "52fdfc07-2182-454f-963f-5f0f9a621d72"


class Functions:
    """Functions that end what they are given at once, as a test says, and keep it."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str, Invocation]] = []
        self.outcomes: list[Outcome] = []
        self.holds = False
        self.log = "START\nEND\n"

    def throttle(self, function: str, version: str) -> str | None:
        return None

    def invoke(self, function: str, version: str, invocation: Invocation) -> None:
        self.given.append((function, version, invocation))
        outcome = self.outcomes.pop(0) if self.outcomes else Returned(invocation.event())
        if invocation.log is not None:
            invocation.log(self.log)
        if not self.holds:
            asyncio.get_running_loop().call_soon(invocation.done, outcome)


class Accepted:
    """An Accepts that remembers, with a fault."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None, bytes, dict[str, str | None]]] = []
        self.fault: str | None = None

    async def accept(self, function: str, qualifier: str | None, payload: bytes, **more) -> None:
        if self.fault:
            raise StoreUnavailable(self.fault)
        self.events.append((function, qualifier, payload, more))


class Shop:
    """A function `orders` with version 1 and an alias, and the operations."""

    def __init__(self) -> None:
        self.site = ApiSite()
        self.functions = Functions()
        self.accepted = Accepted()
        parts = replace(self.site.parts, functions=self.functions, accepts=self.accepted)
        self.operations = Invoke(parts, Random(7)).operations

    async def call(
        self,
        body: bytes = b"",
        *,
        name: str = "orders",
        qualifier: str | None = None,
        operation: str = "Invoke",
        caller: Caller | None = None,
        **headers: str,
    ) -> Answer:
        query = {"Qualifier": [qualifier]} if qualifier else {}
        named = {f"x-amz-{key.replace('_', '-')}": value for key, value in headers.items()}
        call = Call(ID, {"FunctionName": name}, query, named, body=body, caller=caller or Caller())
        return await asyncio.wait_for(self.operations[operation](call), 10)

    async def refusal(self, body: bytes = b"", **more) -> ApiError:
        with pytest.raises(ApiError) as refused:
            await self.call(body, **more)
        return refused.value

    async def ends(self, *outcomes: Outcome, **more) -> Answer:
        self.functions.outcomes = list(outcomes)
        return await self.call(b"{}", **more)


@pytest.fixture
async def shop() -> Shop:
    shop = Shop()
    await shop.site.create()
    await shop.site.call("PublishVersion", "orders")
    await shop.site.call("CreateAlias", "orders", Name="live", FunctionVersion="1")
    return shop


async def test_what_the_function_returns_is_answered_as_it_came(shop: Shop) -> None:
    answer = await shop.ends(Returned(b'{"a": 1e400}'))
    assert (answer.status, answer.body) == (200, b'{"a": 1e400}')
    assert answer.headers == {"X-Amz-Executed-Version": "$LATEST"}
    function, version, invocation = shop.functions.given[0]
    assert (function, version, invocation.request_id) == ("orders", "$LATEST", ID)
    assert (invocation.told, invocation.log) == (None, None), "nothing more is told than all are"


async def test_no_body_is_an_empty_object(shop: Shop) -> None:
    assert (await shop.call(b"")).body == b"{}"


@pytest.mark.parametrize("event", ["null", "1", '"text"', "[1, 2]", ' {"a": "\\ud800"} ', '"é"', "1e999"])
async def test_any_json_is_an_event(shop: Shop, event: str) -> None:
    assert (await shop.call(event.encode())).body == event.encode()


@pytest.mark.parametrize("body", [b'{"a":}', b"nul", b"\xff", b'"\xff"', b"{} {}", b"NaN", b"[1,2", b"[" * 200_000])
async def test_what_is_no_json_is_refused(shop: Shop, body: bytes) -> None:
    error = await shop.refusal(body)
    assert (error.code, error.status) == ("InvalidRequestContentException", 400)
    assert str(error).startswith("Could not parse request body into json: Could not parse payload into json: ")
    assert not shop.functions.given


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
        st.lists,
    )
)
def test_all_that_json_can_write_is_taken(value: object) -> None:
    async def run() -> None:
        shop = Shop()
        await shop.site.create()
        body = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
        if body.decode(errors="ignore").encode() == body:
            assert (await shop.call(body)).body == body

    asyncio.run(run())


@pytest.mark.parametrize(
    ("outcome", "payload"),
    [
        (
            Failed(FailureKind.RAISED, FunctionError("ValueError", "no", ("  File …\n",))),
            {"errorMessage": "no", "errorType": "ValueError", "requestId": ID, "stackTrace": ["  File …\n"]},
        ),
        (
            Refused(FunctionError("Runtime.ImportModuleError", "Unable to import"), initialising=True),
            {
                "errorMessage": "Unable to import",
                "errorType": "Runtime.ImportModuleError",
                "requestId": "",
                "stackTrace": [],
            },
        ),
        (
            Failed(FailureKind.TIMED_OUT, faults.timed_out(ID, 1.0)),
            {
                "errorType": "Sandbox.Timedout",
                "errorMessage": f"RequestId: {ID} Error: Task timed out after 1.00 seconds",
            },
        ),
    ],
)
async def test_a_function_that_fails_has_been_invoked(shop: Shop, outcome: Outcome, payload: dict[str, object]) -> None:
    answer = await shop.ends(outcome)
    assert answer.status == 200
    assert answer.headers == {"X-Amz-Function-Error": "Unhandled", "X-Amz-Executed-Version": "$LATEST"}
    assert json.loads(answer.body or b"") == payload


@pytest.mark.parametrize(
    ("outcome", "code", "status"),
    [
        (Refused(FunctionError(THROTTLED, RESERVED_EXCEEDED)), "TooManyRequestsException", 429),
        (Refused(FunctionError(NOT_FOUND, "no code")), "ServiceException", 503),
        (Refused(FunctionError("Runtime.StartError", "no interpreter")), "ServiceException", 503),
        (Refused(FunctionError("Headrace.NotAccepted", "status 502"), initialising=True), "ServiceException", 503),
        (TooLarge(7_000_000), "RequestTooLargeException", 413),
    ],
)
async def test_what_keeps_a_function_from_running_is_an_error(
    shop: Shop, outcome: Outcome, code: str, status: int
) -> None:
    shop.functions.outcomes = [outcome]
    error = await shop.refusal(b"{}")
    assert (error.code, error.status) == (code, status)


async def test_what_is_deleted_before_it_runs_is_not_found(shop: Shop) -> None:
    shop.functions.holds = True
    call = asyncio.create_task(shop.refusal(b"{}"))
    await asyncio.sleep(0)
    await shop.site.call("DeleteFunction", "orders")
    [(_, _, invocation)] = shop.functions.given
    invocation.done(Refused(FunctionError(NOT_FOUND, "gone")))
    error = await call
    assert (error.code, error.status) == ("ResourceNotFoundException", 404)


async def test_a_version_that_is_deleted_before_it_runs_is_not_found(shop: Shop) -> None:
    await shop.site.call("DeleteAlias", "orders", "live")
    shop.functions.holds = True
    call = asyncio.create_task(shop.refusal(b"{}", qualifier="1"))
    await asyncio.sleep(0)
    await shop.site.call("DeleteFunction", "orders", query={"Qualifier": ["1"]})
    [(_, _, invocation)] = shop.functions.given
    invocation.done(Refused(FunctionError(NOT_FOUND, "gone")))
    assert ((await call).code, (await call).status) == ("ResourceNotFoundException", 404)


async def test_a_throttle_says_why_and_when_to_come_again(shop: Shop) -> None:
    shop.functions.outcomes = [Refused(FunctionError(THROTTLED, RESERVED_EXCEEDED))]
    error = await shop.refusal(b"{}")
    assert error.wait_s == 1
    assert error.document == {
        "Type": "User",
        "message": "Rate Exceeded.",
        "Reason": RESERVED_EXCEEDED,
        "retryAfterSeconds": "1",
    }


async def test_what_ended_through_no_fault_of_its_own_runs_again(shop: Shop) -> None:
    assert (await shop.ends(Cancelled(), Cancelled(), Returned(b"1"))).body == b"1"
    shop.functions.outcomes = [Cancelled()] * 9
    assert (await shop.refusal(b"{}")).status == 503
    assert len(shop.functions.outcomes) == 4, "not for ever"


async def test_version_and_alias_are_what_is_invoked(shop: Shop) -> None:
    by_version = await shop.call(b"{}", qualifier="1")
    by_alias = await shop.call(b"{}", name=f"{ARN}:orders:live")
    assert [each.headers["X-Amz-Executed-Version"] for each in (by_version, by_alias)] == ["1", "1"]
    told = [invocation.told for _, _, invocation in shop.functions.given]
    assert told[0] is None, "the workers of the version know their ARN"
    assert told[1] is not None
    assert told[1].arn == f"{ARN}:orders:live"


async def test_an_alias_that_is_moved_is_followed_at_once(shop: Shop) -> None:
    await shop.call(qualifier="live")
    await shop.site.call("UpdateFunctionConfiguration", "orders", Description="second")
    await shop.site.call("PublishVersion", "orders")
    await shop.site.call("UpdateAlias", "orders", "live", FunctionVersion="2")
    assert (await shop.call(qualifier="live")).headers["X-Amz-Executed-Version"] == "2"
    await shop.site.call("DeleteAlias", "orders", "live")
    assert (await shop.refusal(qualifier="live")).status == 404


async def test_an_alias_with_weights_divides_its_invocations(shop: Shop) -> None:
    weights = {"AdditionalVersionWeights": {"2": 0.25}}
    await shop.site.call("UpdateFunctionConfiguration", "orders", Description="second")
    await shop.site.call("PublishVersion", "orders")
    await shop.site.call("UpdateAlias", "orders", "live", RoutingConfig=weights)
    executed = [(await shop.call(qualifier="live")).headers["X-Amz-Executed-Version"] for _ in range(1000)]
    assert set(executed) == {"1", "2"}
    assert 180 < executed.count("2") < 320


@pytest.mark.parametrize(("name", "qualifier"), [("nobody", None), ("orders", "7"), ("orders", "gone")])
async def test_what_is_not_there_cannot_be_invoked(shop: Shop, name: str, qualifier: str | None) -> None:
    error = await shop.refusal(name=name, qualifier=qualifier)
    arn = f"{ARN}:{name}" + (f":{qualifier}" if qualifier else "")
    assert (error.code, error.status, str(error)) == (
        "ResourceNotFoundException",
        404,
        f"Function not found: {arn}",
    )


async def test_the_end_of_the_log_is_told_to_who_asks(shop: Shop) -> None:
    shop.functions.log = "é" * 3000 + "REPORT\n"
    answer = await shop.call(log_type="Tail")
    tail = base64.b64decode(answer.headers["X-Amz-Log-Result"])
    assert len(tail) == 4096
    assert tail.endswith(b"REPORT\n")
    assert "X-Amz-Log-Result" not in (await shop.call(log_type="None")).headers
    failed = await shop.ends(Failed(FailureKind.RAISED, FunctionError("E", "m")), log_type="Tail")
    assert "X-Amz-Log-Result" in failed.headers


async def test_the_client_context_and_the_trace_are_handed_on(shop: Shop) -> None:
    text = '{"custom": {"a": "é"}}'
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
    call = {"x-amz-client-context": base64.b64encode(text.encode()).decode(), "x-amzn-trace-id": trace}
    await shop.operations["Invoke"](Call(ID, {"FunctionName": "orders"}, {}, call))
    told = shop.functions.given[0][2].told
    assert told is not None
    assert (told.client_context, told.trace_id, told.arn) == (text, trace, None)


@pytest.mark.parametrize("trace", ["", "Root=1 or 2", "Root=1\r\nHost: a", "Root=" + "1" * 500])
async def test_what_cannot_be_a_trace_is_not_handed_on(shop: Shop, trace: str) -> None:
    call = Call(ID, {"FunctionName": "orders"}, {}, {"x-amzn-trace-id": trace})
    assert (await shop.operations["Invoke"](call)).status == 200
    assert shop.functions.given[0][2].told is None


def client_context(size_bytes: int) -> str:
    """Give one of such a size in Base64."""
    return base64.b64encode(b"{" + b" " * (size_bytes // 4 * 3 - 2) + b"}").decode()


async def test_the_largest_client_context_is_taken_and_a_larger_one_is_not(shop: Shop) -> None:
    assert len(client_context(3580)) == 3580, "no Base64 has 3583 characters"
    assert (await shop.call(client_context=client_context(3580))).status == 200
    error = await shop.refusal(client_context=client_context(3584))
    assert (error.code, error.status) == ("InvalidRequestContentException", 400)
    assert "3583 bytes" in str(error)


@pytest.mark.parametrize(
    "context",
    [
        "no base64!",
        base64.b64encode(b"{}").decode() + "*",
        base64.b64encode(b"no json").decode(),
        base64.b64encode(b"[1]").decode(),
    ],
)
async def test_a_client_context_of_another_form_is_refused(shop: Shop, context: str) -> None:
    error = await shop.refusal(client_context=context)
    assert (error.code, error.status) == ("InvalidRequestContentException", 400)


async def test_a_dry_run_runs_nothing(shop: Shop) -> None:
    answer = await shop.call(invocation_type="DryRun")
    assert (answer.status, answer.body, answer.headers) == (204, None, {})
    assert (await shop.refusal(name="nobody", invocation_type="DryRun")).status == 404
    assert not shop.functions.given


@pytest.mark.parametrize(
    ("headers", "path", "words"),
    [
        ({"invocation_type": "Later"}, "invocationType", "RequestResponse, Event, DryRun"),
        ({"log_type": "All"}, "logType", "None, Tail"),
    ],
)
async def test_unknown_words_break_a_constraint(shop: Shop, headers: dict[str, str], path: str, words: str) -> None:
    error = await shop.refusal(**headers)
    assert error.code == "ValidationException"
    assert f"at '{path}' failed to satisfy constraint: Member must satisfy enum value set: [{words}]" in str(error)


async def test_an_event_is_taken_in(shop: Shop) -> None:
    answer = await shop.call(b'{"a": 1}', qualifier="live", invocation_type="Event")
    assert (answer.status, answer.body, answer.headers) == (202, b"", {})
    function, qualifier, payload, more = shop.accepted.events[0]
    assert (function, qualifier, payload, more["request_id"]) == ("orders", "live", b'{"a": 1}', ID)
    assert not shop.functions.given


async def test_an_event_is_taken_in_with_its_client_context_and_trace(shop: Shop) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793"
    headers = {"x-amzn-trace-id": trace, "x-amz-client-context": base64.b64encode(b'{"custom": {}}').decode()}
    call = Call(ID, {"FunctionName": "orders"}, {}, {"x-amz-invocation-type": "Event", **headers})
    assert (await shop.operations["Invoke"](call)).status == 202
    [(_, _, _, more)] = shop.accepted.events
    assert (more["client_context"], more["trace_id"]) == ('{"custom": {}}', trace)


async def test_an_event_that_is_too_large_or_no_json_is_not_taken_in(shop: Shop) -> None:
    assert (await shop.refusal(b"{", invocation_type="Event")).code == "InvalidRequestContentException"
    error = await shop.refusal(b'"' + b"x" * (ASYNC_BYTES - 1) + b'"', invocation_type="Event")
    assert (error.code, error.status) == ("RequestTooLargeException", 413)
    assert str(error) == "Request must be smaller than 1048576 bytes for the InvokeFunction operation"
    assert (await shop.call(b'"' + b"x" * (ASYNC_BYTES - 2) + b'"', invocation_type="Event")).status == 202
    assert len(shop.accepted.events) == 1


async def test_an_event_that_cannot_be_kept_is_not_accepted(shop: Shop) -> None:
    shop.accepted.fault = "the disk is full"
    with pytest.raises(StoreUnavailable):
        await shop.call(b"{}", invocation_type="Event")


async def test_the_old_operation_takes_events_in_too(shop: Shop) -> None:
    answer = await shop.call(b'{"a": 1}', operation="InvokeAsync")
    assert (answer.status, answer.document) == (202, {"Status": 202})
    assert shop.accepted.events[0][:3] == ("orders", None, b'{"a": 1}')


async def test_a_service_may_invoke_what_a_policy_lets_it(shop: Shop) -> None:
    bucket = "arn:aws:s3:::orders"
    await shop.site.call(
        "AddPermission",
        "orders",
        StatementId="s3",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn=bucket,
    )
    allowed = Caller("AKIA", "s3.amazonaws.com", bucket)
    assert (await shop.call(invocation_type="Event", caller=allowed)).status == 202
    for caller, name, qualifier in (
        (Caller("AKIA", "s3.amazonaws.com", "arn:aws:s3:::others"), "orders", None),
        (Caller("AKIA", "sns.amazonaws.com", bucket), "orders", None),
        (allowed, "orders", "live"),
        (allowed, "nobody", None),
    ):
        error = await shop.refusal(name=name, qualifier=qualifier, invocation_type="Event", caller=caller)
        assert (error.code, error.status) == ("AccessDeniedException", 403)


async def test_a_caller_that_hangs_up_does_not_stop_the_function(shop: Shop) -> None:
    shop.functions.holds = True
    call = asyncio.ensure_future(shop.call(b"{}"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    done: Callable[[Outcome], None] = shop.functions.given[0][2].done
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    done(Returned(b"1"))
    shop.functions.holds = False
    assert (await shop.call(b"{}")).status == 200
