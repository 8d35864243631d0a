"""Puts records together as the Kinesis Producer Library does, by the description of its format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

MAGIC = b"\xf3\x89\x9a\xc2"


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def text(tag: int, value: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(value)) + value


def message(records: Sequence[tuple[str, bytes]], *, explicit_hash_key: str | None = None, tags: bool = False) -> bytes:
    """Write the protobuf message of records by partition key and data."""
    keys = list(dict.fromkeys(key for key, _ in records))
    out = b"".join(text(1, key.encode()) for key in keys)
    if explicit_hash_key is not None:
        out += text(2, explicit_hash_key.encode())
    for key, data in records:
        inner = number(1, keys.index(key))
        if explicit_hash_key is not None:
            inner += number(2, 0)
        inner += text(3, data)
        if tags:
            inner += text(4, text(1, b"name") + text(2, b"value"))
        out += text(3, inner)
    return out


def seal(content: bytes) -> bytes:
    """Put magic number and checksum around a message."""
    return MAGIC + content + hashlib.md5(content).digest()


def aggregate(*records: tuple[str, bytes]) -> bytes:
    """Give the data of one record that holds these, by partition key and data."""
    return seal(message(records))
