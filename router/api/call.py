"""What an operation of the API is given, and what it gives: plain values, whatever server carries them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

#: Who calls a loopback listener without a signature: the daemon's own user, as far as anybody can tell.
OWNER: Final = "owner"


class Caller(msgspec.Struct, frozen=True):
    """Who makes a call."""

    #: OWNER, or the access key id whose signature was verified.
    name: str = OWNER
    #: The service that the key stands for ("s3.amazonaws.com"): it may do what policies let it; None = everything.
    service: str | None = None
    #: On whose behalf a service calls, as it says: ARN of a bucket, topic or rule, and account; None = it does not say.
    source_arn: str | None = None
    source_account: str | None = None


class Call(msgspec.Struct, frozen=True):
    """One call of an operation."""

    #: Also the request id of an invocation: a UUID.
    request_id: str
    #: Parts of the path by their name in the template, decoded.
    path: Mapping[str, str]
    #: Decoded; several values of one name in the order in which they came.
    query: Mapping[str, Sequence[str]]
    #: By lower-case name.
    headers: Mapping[str, str]
    #: The JSON object in the body of an operation that reads one; `{}` where it was empty.
    document: Mapping[str, Any] = {}
    #: The whole body, of an operation that reads it as it is.
    body: bytes = b""
    caller: Caller = Caller()

    def one(self, name: str) -> str | None:
        """Give the query parameter of a name; None = it is not there."""
        values = self.query.get(name)
        return values[-1] if values else None


class Answer(msgspec.Struct, frozen=True):
    """What an operation answers."""

    status: int = 200
    #: To be written as JSON; None = no body. Members that are absent are absent.
    document: Mapping[str, Any] | None = None
    #: In place of a document: JSON as it is, or what `content_type` says.
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Pending:
    """An answer that comes by callback, for what is called so often that a task for each would be much of its cost."""

    __slots__ = ("_ended", "_then")

    def __init__(self) -> None:
        self._ended: Answer | Exception | None = None
        self._then: Callable[[Answer | Exception], None] | None = None

    def end(self, ended: Answer | Exception) -> None:
        """Give the answer, or what would be raised in its place. Once."""
        self._ended = ended
        if self._then is not None:
            self._then(ended)

    def then(self, told: Callable[[Answer | Exception], None]) -> None:
        """Have somebody told of it, never from inside this. Once."""
        if self._ended is not None:
            asyncio.get_running_loop().call_soon(told, self._ended)
        else:
            self._then = told

    def __await__(self) -> Generator[Any, None, Answer]:
        future: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()
        self.then(lambda ended: None if future.done() else future.set_result(ended))
        ended = yield from future
        if isinstance(ended, Exception):
            raise ended
        return ended


#: Carries one operation out. Raises ApiError, at once or when it is awaited.
Carry: TypeAlias = Callable[[Call], Awaitable[Answer]]
