"""Invoke: runs a function and answers with what it returns, takes an event in to be run later, or only looks.

Headers, limits and texts: AWS Lambda API reference ("Invoke", "InvokeAsync") and as recorded. A caller that hangs up
does not stop the function. A function that fails has been invoked: the answer is 200, with its error object.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Final

import msgspec

from router.api.call import Answer, Call, Carry, Pending
from router.api.constraints import Structure, Text, check
from router.api.errors import ApiError, denied, throttled, unavailable
from router.api.finding import named
from router.api.names import Reference, Resolved, missing, resolve
from router.api.policies import permits
from router.catalogue.records import Function
from router.choosing import told_arn
from router.core.error_object import error_payload
from router.core.literal import refuse_constant
from router.core.model import NOT_ACCEPTED, Cancelled, Failed, FunctionError, Outcome, Refused, Returned, TooLarge
from router.functions import NOT_FOUND, THROTTLED
from router.ports import Invocation, Told

if TYPE_CHECKING:
    from router.api.parts import Parts

#: Largest events, bytes (AWS Lambda quotas); those of a RequestResponse are held to theirs before they are read whole.
SYNC_BYTES: Final = 6 * 1024 * 1024
ASYNC_BYTES: Final = 1024 * 1024
#: So much of the end of a log is told.
_TAIL_BYTES: Final = 4096
_CONTEXT_BYTES: Final = 3583
#: An invocation that ended through no fault of its own is begun anew so often.
_TRIES: Final = 5
_TYPE: Final = "InvocationType"
_LOG: Final = "LogType"
_WORDS: Final = Structure(
    {_TYPE: Text(words=("RequestResponse", "Event", "DryRun")), _LOG: Text(words=("None", "Tail"))}
)
#: What a tracing header is made of; anything else is not handed on.
_TRACE: Final = re.compile(r"[\w=;:.-]{1,500}")
_EMPTY: Final = b"{}"
#: Names of functions that are kept with what they stand for.
_KNOWN: Final = 1024
_NOT_FOUND: Final = 404
_read_raw: Final = msgspec.json.Decoder(msgspec.Raw).decode


@dataclass(frozen=True, slots=True)
class _Target:
    """What a name stands for, as long as its function is what it was then."""

    reference: Reference
    resolved: Resolved
    #: By version: the ARN that the handler is to be told, if any.
    told_arns: Mapping[str, str | None]


class Invoke:
    """The operations Invoke and InvokeAsync."""

    def __init__(self, parts: Parts, rng: Random | None = None) -> None:
        """Make it; `rng` draws versions of aliases with weights."""
        self._parts = parts
        self._here = parts.here
        self._rng = rng or SystemRandom()
        #: By name and qualifier, as they come.
        self._known: dict[tuple[str, str | None], _Target] = {}
        self.operations: Mapping[str, Carry] = {"Invoke": self._invoke, "InvokeAsync": self._invoke_async}

    def _invoke(self, call: Call) -> Awaitable[Answer]:
        headers = call.headers
        kind = headers.get("x-amz-invocation-type") or "RequestResponse"
        log = headers.get("x-amz-log-type") or "None"
        if kind != "RequestResponse" or log not in ("None", "Tail"):
            check(_WORDS, {_TYPE: kind, _LOG: log})
        target = self._find(call)
        context = _client_context(headers.get("x-amz-client-context"))
        if kind == "DryRun":
            return _looked()
        event = _event(call.body)
        if kind == "Event":
            return self._accept(call, target.reference, event, context)
        return self._run(call, target, event, context, tells_log=log == "Tail")

    async def _invoke_async(self, call: Call) -> Answer:
        await self._accept(call, self._find(call).reference, _event(call.body), None)
        return Answer(202, {"Status": 202})

    def _find(self, call: Call) -> _Target:
        """Find what is invoked. Raises ApiError: there is no such, or the caller may not; StoreUnavailable."""
        try:
            return self._target(call)
        except ApiError as error:
            if error.status == _NOT_FOUND:  # or it is only not known yet
                self._parts.catalogue.check()
            raise

    def _target(self, call: Call) -> _Target:
        key = call.path["FunctionName"], call.one("Qualifier")
        target = self._known.get(key)
        reference = target.reference if target else named(self._parts, call, is_read=True)
        function = self._parts.catalogue.function(reference.name)
        if call.caller.service is not None:
            self._check_permission(call, function, reference)
        if target is None or target.resolved.function is not function:
            target = self._resolve(reference)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = target
        return target

    def _check_permission(self, call: Call, function: Function | None, reference: Reference) -> None:
        """Refuse a service that may not invoke it. Raises ApiError."""
        if not (function and permits(function, reference.qualifier, call.caller)):
            arn = self._here.function(reference.name, reference.qualifier)
            raise denied(
                f"User: {call.caller.service} is not authorized to perform: lambda:InvokeFunction on resource: {arn} "
                "because no resource-based policy allows the lambda:InvokeFunction action"
            )

    def _resolve(self, reference: Reference) -> _Target:
        resolved = resolve(self._parts.catalogue, reference, self._here)
        return _Target(reference, resolved, {each: told_arn(resolved, each, self._here) for each in resolved.versions})

    # --- later

    async def _accept(self, call: Call, reference: Reference, event: bytes, context: str | None) -> Answer:
        if len(event) > ASYNC_BYTES:
            raise too_large(ASYNC_BYTES)
        await self._parts.accepts.accept(
            reference.name,
            reference.qualifier,
            event,
            request_id=call.request_id,
            client_context=context,
            trace_id=_trace(call),
        )
        return Answer(202, body=b"")

    # --- now

    def _run(self, call: Call, target: _Target, event: bytes, context: str | None, *, tells_log: bool) -> Pending:
        resolved = target.resolved
        is_sure = len(resolved.versions) == 1
        version = next(iter(resolved.versions)) if is_sure else resolved.version(self._rng.random())
        arn, trace = target.told_arns[version], _trace(call)
        told = Told(arn, context, trace) if arn or context or trace else None
        run = _Run(self._parts, call.request_id, resolved, version, event, told, [] if tells_log else None)
        run.begin()
        return run


class _Run(Pending):
    """One invocation that is waited for, which is begun anew where it ends through no fault of its own."""

    __slots__ = ("_event", "_logs", "_parts", "_request_id", "_resolved", "_told", "_tries", "_version")

    def __init__(
        self,
        parts: Parts,
        request_id: str,
        resolved: Resolved,
        version: str,
        event: bytes,
        told: Told | None,
        logs: list[str] | None,
    ) -> None:
        super().__init__()
        self._parts = parts
        self._request_id = request_id
        self._resolved = resolved
        self._version = version
        self._event = event
        self._told = told
        self._logs = logs
        self._tries = 0

    def begin(self) -> None:
        """Invoke the function."""
        self._tries += 1
        log = None if self._logs is None else self._logs.append
        invocation = Invocation(self._request_id, self._give, True, self._done, True, self._told, log)
        try:
            self._parts.functions.invoke(self._resolved.function.name, self._version, invocation)
        except Exception as bug:  # noqa: BLE001 - an answer must come
            self.end(bug)

    def _give(self) -> bytes:
        return self._event

    def _done(self, outcome: Outcome) -> None:
        if isinstance(outcome, Cancelled) and self._tries < _TRIES:
            asyncio.get_running_loop().call_soon(self.begin)
            return
        ended: Answer | Exception
        try:
            ended = self._answer(outcome)
        except Exception as error:  # noqa: BLE001 - an answer must come
            ended = error
        self.end(ended)

    def _answer(self, outcome: Outcome) -> Answer:
        """Give the answer. Raises ApiError, StoreUnavailable."""
        headers = {"X-Amz-Executed-Version": self._version}
        if self._logs is not None:
            tail = "".join(self._logs).encode()[-_TAIL_BYTES:]
            headers["X-Amz-Log-Result"] = base64.b64encode(tail).decode()
        if isinstance(outcome, Refused) and outcome.error.error_type == NOT_FOUND:
            raise self._not_there()
        return _answer(self._request_id, outcome, headers)

    def _not_there(self) -> ApiError:
        """Say why what was found cannot be run. Raises StoreUnavailable: that is not known."""
        catalogue = self._parts.catalogue
        function = catalogue.function(self._resolved.function.name)
        if function is None or function.version(self._version) is None:
            catalogue.check()
            return missing(self._resolved.arn)  # it was deleted meanwhile
        return unavailable("The function's code is not here yet: invoke it again; the daemon's log says why.")


async def _looked() -> Answer:
    return Answer(204)


def _answer(request_id: str, outcome: Outcome, headers: dict[str, str]) -> Answer:
    match outcome:
        case Returned(bytes() as result):
            return Answer(200, body=result, headers=headers)
        case Failed(error=error):
            return _failed(error_payload(request_id, error, was_run=True), headers)
        case Refused(error, initialising=True) if error.error_type != NOT_ACCEPTED:
            return _failed(error_payload(request_id, error, was_run=False), headers)
        case Refused(error):
            raise _refusal(error)
        case TooLarge():
            raise too_large(SYNC_BYTES)
    raise unavailable("The function's workers ended with other invocations, or the daemon stops: invoke it again.")


def _failed(payload: bytes, headers: dict[str, str]) -> Answer:
    return Answer(200, body=payload, headers={"X-Amz-Function-Error": "Unhandled", **headers})


def _refusal(error: FunctionError) -> ApiError:
    if error.error_type == THROTTLED:
        return throttled(error.message)
    return unavailable(f"{error.error_type}: {error.message}")


def too_large(limit_bytes: int) -> ApiError:
    """Refuse an event that is larger."""
    message = f"Request must be smaller than {limit_bytes} bytes for the InvokeFunction operation"
    return ApiError("RequestTooLargeException", message, 413)


def _event(body: bytes) -> bytes:
    """Give the event: JSON as it came. Raises ApiError: it is none."""
    if not body:
        return _EMPTY
    try:
        body.decode()
        _read_raw(body)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        _read_slowly(body)
    return body


def _read_slowly(body: bytes) -> None:
    """Decide by what workers read JSON with, and say what is wrong in its words."""
    try:
        json.loads(body.decode(), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            "InvalidRequestContentException",
            f"Could not parse request body into json: Could not parse payload into json: {error}",
        ) from None


def _client_context(header: str | None) -> str | None:
    """Read the client context: JSON. Raises ApiError."""
    if not header:
        return None
    if len(header) > _CONTEXT_BYTES:
        raise ApiError(
            "InvalidRequestContentException", f"Client context must be no larger than {_CONTEXT_BYTES} bytes."
        )
    try:
        text = base64.b64decode(header, validate=True).decode()
        if isinstance(json.loads(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    raise ApiError("InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.")


def _trace(call: Call) -> str | None:
    """Give the tracing header, if there is one that can be handed on."""
    header = call.headers.get("x-amzn-trace-id")
    return header if header and _TRACE.fullmatch(header) else None
