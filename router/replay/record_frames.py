"""Failure records on their way from a command to the daemon: a line of JSON that says where and how large, the text."""

from __future__ import annotations

import json
from asyncio import IncompleteReadError
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec


class ReadText(NamedTuple):
    """What may be a failure record, where it was found; or why it could not be read there."""

    where: str
    text: bytes
    trouble: str | None = None


class _Head(msgspec.Struct):
    where: str
    size_bytes: int
    trouble: str | None = None


class Reader(Protocol):
    """Bytes that come."""

    async def readline(self) -> bytes: ...

    async def readexactly(self, n: int) -> bytes: ...


def write(texts: Iterable[ReadText]) -> Iterator[bytes]:
    """Give a frame for each text."""
    for each in texts:
        head = {"where": each.where, "size_bytes": len(each.text), "trouble": each.trouble}
        yield json.dumps(head).encode() + b"\n" + each.text


async def read(reader: Reader) -> AsyncIterator[ReadText]:
    """Give the texts back.

    Raises:
        ConnectionError: they end half-way.
    """
    try:
        while line := await reader.readline():
            # A line that is cut off has no end: it must not pass for one with an empty text behind it.
            head = msgspec.json.decode(line if line.endswith(b"\n") else b"", type=_Head)
            yield ReadText(head.where, await reader.readexactly(head.size_bytes), head.trouble)
    except (IncompleteReadError, msgspec.MsgspecError) as error:
        raise ConnectionError("the records end half-way") from error
