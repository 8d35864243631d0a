"""What is asked over HTTP and what is answered, as values; whatever connection carries them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec

JSON: Final = "application/json"

_REASONS: Final = {each.value: each.phrase for each in HTTPStatus}
#: Statuses whose answers have no body, and no length either (RFC 9110, 15.3.5).
_BARE: Final = 204


@dataclass(slots=True)
class Request:
    """One request; its body is there once it has come."""

    method: str
    #: As they were sent, escapes in them.
    path: str
    query: str
    #: By lower-case name; values of a name that came more than once are joined by commas.
    headers: Mapping[str, str]
    body: bytes = b""


class Response(msgspec.Struct, frozen=True):
    """What is answered; its length and what becomes of the connection are added."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = {}


class Plan(Protocol):
    """What is to be done about a request whose head is known."""

    #: Largest body.
    body_bytes: int

    def too_large(self) -> Response:
        """Refuse a body that is larger."""
        ...

    def busy(self) -> Response:
        """Refuse a body, because those of requests that are being answered fill the memory that there is for them."""
        ...

    def begin(self, request: Request, answered: Callable[[Response], None]) -> Coroutine[Any, Any, Response] | None:
        """Begin to answer it, once it is there as a whole: by the callback, never from inside this.

        Else (not None) what is given is to be awaited: it gives the answer and raises nothing.
        """
        ...


class Site(Protocol):
    """What is served."""

    def plan(self, request: Request) -> Plan | Response:
        """Say from the head of a request what is to be done, or refuse it before its body is read."""
        ...

    def unreadable(self, status: int, message: str) -> Response:
        """Refuse what is no request that could be understood, or comes too slowly."""
        ...


def answer(document: Any, status: int = 200) -> Response:
    """Give a document as JSON that nobody is to keep."""
    return Response(status, msgspec.json.encode(document), headers={"Cache-Control": "no-store"})


def written(response: Response, date: str, *, is_last: bool, is_bare: bool) -> bytes:
    """Give the bytes of a response.

    Args:
        response: it.
        date: for the header.
        is_last: does the connection end with it?
        is_bare: is it the answer to HEAD, which says how long the body would be?
    """
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}\r\nDate: {date}\r\n"]
    if response.status != _BARE:
        lines.append(f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n")
    lines += [f"{name}: {_one_line(value)}\r\n" for name, value in response.headers.items()]
    lines.append("Connection: close\r\n\r\n" if is_last else "\r\n")
    head = "".join(lines).encode("latin-1", "replace")
    return head if is_bare or response.status == _BARE else head + response.body


def _one_line(value: str) -> str:
    """Give a header's value without what would end it."""
    return value if value.isprintable() else "".join(each for each in value if each.isprintable())
