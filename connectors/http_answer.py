"""Reading one answer of HTTP/1.1 from bytes as they come: pure, no I/O.

Source: RFC 9112, above all 6.3 (how long a body is) and 7.1 (chunks).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

#: Largest head of an answer, and of one chunk's line or trailer.
_HEAD_LIMIT_BYTES: Final = 64 * 1024
_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_VERSION: Final = b"HTTP/1."
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |$)")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_NO_BODY: Final = (204, 304)


class HttpError(Exception):
    """What can go wrong with a call; never raised itself."""


class NotHttp(HttpError):
    """What came is no answer of HTTP."""


class TooLarge(HttpError):
    """The answer is larger than allowed."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes
    #: Of the head, names in lower case; of several with one name the last.
    fields: Mapping[bytes, bytes] = MappingProxyType({})


class _Body(Protocol):
    #: Did more come than belongs to the answer?
    excess: bool
    #: Does the body end where the connection ends?
    open_ended: bool
    parts: list[bytes]

    def feed(self, data: bytes) -> bool:
        """Take what came next; say whether this is all."""
        ...


class AnswerReader:
    """Reads one answer."""

    def __init__(self, limit_bytes: int, *, connecting: bool = False) -> None:
        """Make it; `limit_bytes` bounds the body, `connecting`: a success has none, and what follows is another's."""
        self._limit_bytes = limit_bytes
        self._connecting = connecting
        self._pending = b""
        self._status = 0
        self._fields: Mapping[bytes, bytes] = {}
        self._body: _Body | None = None
        self._size_bytes = 0
        self._keeps = False
        #: Did any byte come?
        self.started = False
        #: May the connection be used again, once the answer is complete?
        self.stays = False

    def feed(self, data: bytes) -> Answer | None:
        """Take what came next; give the answer when it is complete.

        Raises:
            NotHttp, TooLarge
        """
        self.started = True
        if self._body is None:
            self._pending += data
            self._body = self._read_head()
            if self._body is None:
                return None
            data, self._pending = self._pending, b""
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            raise TooLarge
        if not self._body.feed(data):
            return None
        self.stays = self._keeps and not self._body.excess
        return self._answer(self._body)

    def end(self) -> Answer | None:
        """Give the answer when it is complete because the connection ended."""
        return self._answer(self._body) if self._body and self._body.open_ended else None

    def _answer(self, body: _Body) -> Answer:
        return Answer(self._status, body.parts[0] if len(body.parts) == 1 else b"".join(body.parts), self._fields)

    def _read_head(self) -> _Body | None:
        """Take the head off `_pending` once it is all there."""
        while (end := self._pending.find(_HEAD_END)) >= 0:
            status, *lines = self._pending[:end].split(_LINE_END)
            self._pending = self._pending[end + len(_HEAD_END) :]
            found = _STATUS.match(status)
            if not found:
                raise NotHttp
            self._status = int(found[2])
            if self._status >= 200:
                self._fields = _fields(lines)
                self._keeps = found[1] == b"1" and b"close" not in self._fields.get(b"connection", b"").lower()
                return self._body_of(self._fields)
            # What comes before the answer says nothing that we asked for.
        if (
            not self._pending[: len(_VERSION)] == _VERSION[: len(self._pending)]
            or len(self._pending) > _HEAD_LIMIT_BYTES
        ):
            raise NotHttp
        return None

    def _body_of(self, fields: Mapping[bytes, bytes]) -> _Body:
        if self._status in _NO_BODY or (self._connecting and self._status < 300):
            return _Sized(0)
        encoding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if encoding is not None:
            if encoding.lower() != b"chunked":
                raise NotHttp
            return _Chunked()
        if length is None:
            return _OpenEnded()
        if not length.isdigit():
            raise NotHttp
        return _Sized(int(length))


class _Sized:
    """A body of which the length is known."""

    open_ended = False

    def __init__(self, size_bytes: int) -> None:
        self._missing_bytes = size_bytes
        self.excess = False
        self.parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        self._missing_bytes -= len(data)
        if self._missing_bytes < 0:
            self.excess = True
            data = data[: self._missing_bytes]
        self.parts.append(data)
        return self._missing_bytes <= 0


class _OpenEnded:
    """A body that ends with the connection."""

    open_ended = True
    excess = False

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        self.parts.append(data)
        return False


class _Chunked:
    """A body in chunks, each behind its size; one of size 0 and perhaps more fields end it."""

    open_ended = False

    def __init__(self) -> None:
        #: What came last, from `_at` on not taken yet.
        self._pending = b""
        self._at = 0
        #: Bytes of the chunk, and of the line end behind it, that are still to come; None = its size is next.
        self._missing_bytes: int | None = None
        self._is_last = False
        self.excess = False
        self.parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        self._pending = self._pending[self._at :] + data
        self._at = 0
        while not self._is_last:
            if self._missing_bytes is None:
                line = self._line()
                if line is None:
                    return False
                self._start(line)
            elif not self._take(self._missing_bytes):
                return False
        while (line := self._line()) is not None:
            if not line:
                self.excess = self._at < len(self._pending)
                return True
        return False

    def _start(self, line: bytes) -> None:
        found = _CHUNK.fullmatch(line)
        if not found:
            raise NotHttp
        size_bytes = int(found[1], 16)
        self._is_last = size_bytes == 0
        self._missing_bytes = size_bytes + len(_LINE_END)

    def _take(self, missing_bytes: int) -> bool:
        """Take what there is of the chunk; say whether that is all of it."""
        taken = self._pending[self._at : self._at + max(missing_bytes - len(_LINE_END), 0)]
        self.parts.append(taken)
        self._at += len(taken)
        self._missing_bytes = missing_bytes - len(taken)
        if self._missing_bytes > len(_LINE_END) or len(self._pending) - self._at < len(_LINE_END):
            return False
        if not self._pending.startswith(_LINE_END, self._at):
            raise NotHttp
        self._at += len(_LINE_END)
        self._missing_bytes = None
        return True

    def _line(self) -> bytes | None:
        """Take a line, when it is all there."""
        end = self._pending.find(_LINE_END, self._at)
        if end < 0:
            if len(self._pending) - self._at > _HEAD_LIMIT_BYTES:
                raise NotHttp
            return None
        line = self._pending[self._at : end]
        self._at = end + len(_LINE_END)
        return line


def _fields(lines: list[bytes]) -> Mapping[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if not colon or (name == b"content-length" and fields.get(name, value) != value):
            raise NotHttp
        fields[name] = value
    return fields
