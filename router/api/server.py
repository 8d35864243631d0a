"""The API over HTTP: a request becomes the call of an operation, what it gives or raises becomes an answer.

An answer always comes: what is refused has AWS's shape of errors, what the store cannot do now is a 503, and a bug is a
500 whose trace is in the log. Content types are not looked at, as AWS does not either.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from router.api import dispatch
from router.api.access import Access
from router.api.call import Answer, Call, Caller, Carry, Pending
from router.api.errors import ApiError, unavailable
from router.api.operations import Operation
from router.api.signature import Claim
from router.errors import StoreUnavailable
from router.http.messages import JSON, Request, Response
from router.telemetry import Log

#: Bodies whose hash takes longer than some milliseconds.
_LARGE_BYTES: Final = 4 * 1024 * 1024
_REQUEST_ID: Final = "x-amzn-RequestId"
_ERROR_TYPE: Final = "x-amzn-ErrorType"
#: The first digit of the part of a UUID that says whose layout it has (RFC 9562, 4.1), by a random one.
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
#: Objects and lists within each other, at most: no member that AWS knows is nested half as deeply.
_DEPTH: Final = 32
#: What Invoke is called in messages about its size.
_CALLED: Final = {"Invoke": "InvokeFunction"}


class Api:
    """The operations behind their paths."""

    def __init__(self, operations: Mapping[str, Carry], access: Access, log: Log) -> None:
        self._operations = operations
        self._access = access
        self._log = log

    def plan(self, request: Request) -> _Plan | Response:
        """Say what is to be done about a request from its head, or refuse it."""
        found = dispatch.find(request.method, request.path)
        try:
            claim = None if found and found[0].has_own_proof else self._access.claim(request)
        except ApiError as error:
            return refusal(error)
        if found is None or found[0].name not in self._operations:
            return refusal(ApiError("UnknownOperationException", "The operation is not known here.", 404))
        return _Plan(self, *found, claim)

    async def carry_out(
        self, operation: Operation, path: Mapping[str, str], claim: Claim | None, request: Request, request_id: str
    ) -> Answer:
        """Do what a whole request asks for. Raises what operations raise."""
        return await self.start(operation, path, await self._caller(claim, request), request, request_id)

    def start(
        self, operation: Operation, path: Mapping[str, str], caller: Caller, request: Request, request_id: str
    ) -> Awaitable[Answer]:
        """Begin to do what one asks for who has proved to be the caller. Raises what operations raise."""
        self._access.check_operation(caller, operation.name)
        query = _query(request)
        reads = operation.reads_document
        document = read_document(request.body) if reads else {}
        body = b"" if reads else request.body
        request.body = b""  # which may be 70 MB of code, all of it in the document, too
        call = Call(request_id, path, query, request.headers, document, body, caller)
        return self._operations[operation.name](call)

    def caller(self, claim: Claim | None, request: Request) -> Caller:
        """Say who calls. Raises ApiError."""
        return self._access.caller(claim, request)

    async def _caller(self, claim: Claim | None, request: Request) -> Caller:
        """Say who calls, in a thread of its own where that needs the hash of much: others are answered meanwhile."""
        if claim is None or len(request.body) <= _LARGE_BYTES:
            return self._access.caller(claim, request)
        return await asyncio.to_thread(self._access.caller, claim, request)

    def failed(self, operation: Operation, request_id: str, bug: Exception) -> Response:
        """Answer where a bug of ours has ended a call."""
        trace = "".join(traceback.format_exception(bug))
        self._log.write("api.failed", operation=operation.name, request_id=request_id, trace=trace)
        error = ApiError("ServiceException", "A bug of Headrace; its log has the trace by this request's id.", 500)
        return refusal(error, request_id)


class _Plan:
    """One call of an operation."""

    __slots__ = ("_api", "_claim", "_operation", "_path", "_request_id", "body_bytes")

    def __init__(self, api: Api, operation: Operation, path: Mapping[str, str], claim: Claim | None) -> None:
        self.body_bytes = operation.body_bytes
        self._api = api
        self._operation = operation
        self._path = path
        self._claim = claim
        self._request_id = new_request_id()

    def too_large(self) -> Response:
        name = _CALLED.get(self._operation.name, self._operation.name)
        text = f"Request must be smaller than {self.body_bytes} bytes for the {name} operation"
        code = "RequestEntityTooLargeException" if self._operation.reads_document else "RequestTooLargeException"
        return refusal(ApiError(code, text, 413), self._request_id)

    def busy(self) -> Response:
        text = (
            "What other calls hold until they are answered leaves no memory for this one; nothing was done: try again."
        )
        return refusal(ApiError("ServiceException", text, 503, wait_s=1), self._request_id)

    def begin(self, request: Request, answered: Callable[[Response], None]) -> Coroutine[Any, Any, Response] | None:
        operation, path, request_id = self._operation, self._path, self._request_id
        if operation.reads_document or len(request.body) > _LARGE_BYTES:
            return self._answer(self._api.carry_out(operation, path, self._claim, request, request_id))
        pending: Awaitable[Answer]
        try:
            pending = self._api.start(operation, path, self._api.caller(self._claim, request), request, request_id)
        except Exception as error:  # noqa: BLE001 - see `_respond`
            pending = Pending()
            pending.end(error)
        if not isinstance(pending, Pending):
            return self._answer(pending)
        pending.then(lambda ended: answered(self._respond(ended)))
        return None

    async def _answer(self, pending: Awaitable[Answer]) -> Response:
        try:
            return self._respond(await pending)
        except Exception as error:  # noqa: BLE001 - see `_respond`
            return self._respond(error)

    def _respond(self, ended: Answer | Exception) -> Response:
        """Give the response, which must come whatever happens; of what is a bug the log has the trace."""
        match ended:
            case Answer():
                return _response(ended, self._request_id)
            case ApiError():
                return refusal(ended, self._request_id)
            case StoreUnavailable():
                return refusal(unavailable(str(ended)), self._request_id)
        return self._api.failed(self._operation, self._request_id, ended)


def new_request_id() -> str:
    """Give a random UUID, as `uuid4` does in five times the time: each call has one."""
    digits = os.urandom(16).hex()
    variant = _VARIANTS[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def refusal(error: ApiError, request_id: str | None = None) -> Response:
    """Give the answer to what is refused."""
    headers = {_REQUEST_ID: request_id or new_request_id(), _ERROR_TYPE: error.code}
    if error.wait_s:
        headers["Retry-After"] = str(error.wait_s)
    return Response(error.status, msgspec.json.encode(error.document), JSON, headers)


def _query(request: Request) -> Mapping[str, Sequence[str]]:
    try:
        return dispatch.query(request.query)
    except ValueError:
        raise ApiError("SerializationException", "The query is not UTF-8, or has too many parameters.") from None


def read_document(body: bytes) -> Mapping[str, Any]:
    """Read a JSON object; members that are null count as absent. Raises ApiError."""
    if not body.strip():
        return {}
    try:
        document = _without_nulls(msgspec.json.decode(body))
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise _unreadable(str(error)) from None
    if not isinstance(document, dict):
        raise _unreadable("an object is expected")
    return document


def _without_nulls(value: Any, deeper: int = _DEPTH) -> Any:
    """Leave absent what is null, at whatever depth. Raises RecursionError."""
    if not isinstance(value, dict | list):
        return value
    if not deeper:
        raise RecursionError
    if isinstance(value, dict):
        return {name: _without_nulls(each, deeper - 1) for name, each in value.items() if each is not None}
    return [_without_nulls(each, deeper - 1) for each in value if each is not None]


def _unreadable(cause: str) -> ApiError:
    return ApiError("SerializationException", f"Could not parse request body into json: {cause}")


def _response(answer: Answer, request_id: str) -> Response:
    body = answer.body
    if body is None:
        body = b"" if answer.document is None else msgspec.json.encode(answer.document)
    return Response(answer.status, body, answer.content_type, {_REQUEST_ID: request_id, **answer.headers})
