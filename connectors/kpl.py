"""Records that the Kinesis Producer Library has put together into one: taken apart, by what its format says.

Source: the library's own description, "KPL Aggregated Record Format": the magic number, a protobuf message
AggregatedRecord {repeated string partition_key_table = 1; repeated string explicit_hash_key_table = 2; repeated Record
records = 3}, Record {uint64 partition_key_index = 1; uint64 explicit_hash_key_index = 2; bytes data = 3; repeated Tag
tags = 4}, and the MD5 of the message. Protobuf encoding: its documentation, "Encoding".

What is not put together, or damaged, or more than the library would make, is none of it: `split` gives nothing, and
the record is passed on as it is, as AWS does. AWS also drops an aggregate of which an inner explicit hash key is
outside the shard's range. We never drop a record, so explicit hash keys are not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import pybase64

_MAGIC: Final = b"\xf3\x89\x9a\xc2"
#: How the magic number begins in base64.
_MAGIC_BASE64: Final = "84maw"
_DIGEST_BYTES: Final = 16
#: More than the library puts together: it makes 1 MiB at most, and a record takes 6 bytes at least.
_RECORDS_LIMIT: Final = 1 << 18
_PARTITION_KEYS: Final = 1
_RECORDS: Final = 3
_PARTITION_KEY_INDEX: Final = 1
_DATA: Final = 3
#: Wire types of protobuf.
_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_VARINT_BITS: Final = 64


class _Damaged(Exception):
    """A message that is none."""


class UserRecord(NamedTuple):
    """A record as it was given to the library."""

    partition_key: str
    data: bytes


def split(data: str) -> list[UserRecord]:
    """Take the data of a record, in base64, apart; empty = it is a record of its own."""
    if not data.startswith(_MAGIC_BASE64):
        return []
    try:
        raw = pybase64.b64decode(data, validate=True)
        message, digest = raw[len(_MAGIC) : -_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
        if not raw.startswith(_MAGIC) or hashlib.md5(message, usedforsecurity=False).digest() != digest:
            return []
        return _user_records(message)
    except (_Damaged, ValueError, IndexError):
        # ValueError: what should be base64 or UTF-8 is not. IndexError: a number leads beyond the end.
        return []


def _user_records(message: bytes) -> list[UserRecord]:
    keys: list[str] = []
    records: list[bytes] = []
    for number, value in _fields(message):
        if number == _PARTITION_KEYS and isinstance(value, bytes):
            keys.append(value.decode())
        elif number == _RECORDS and isinstance(value, bytes):
            records.append(value)
    if len(records) > _RECORDS_LIMIT:
        raise _Damaged
    return [_user_record(record, keys) for record in records]


def _user_record(message: bytes, keys: list[str]) -> UserRecord:
    index, data = 0, b""
    for number, value in _fields(message):
        if number == _PARTITION_KEY_INDEX and isinstance(value, int):
            index = value
        elif number == _DATA and isinstance(value, bytes):
            data = value
    return UserRecord(keys[index], data)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield numbers and values of a message's fields.

    Raises:
        _Damaged, IndexError: it is no such message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            size, at = _varint(message, at) if kind == _BYTES else (8 if kind == _FIXED64 else 4, at)
            value, at = message[at : at + size], at + size
            if at > len(message):
                raise _Damaged
        else:
            raise _Damaged
        yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number; give it and where it ends."""
    value = shift = 0
    while shift < _VARINT_BITS:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Damaged
