"""Frames of AWS's event stream, by Smithy's description of it."""

from __future__ import annotations

import json
import struct
from zlib import crc32


def frame(payload: bytes = b"", **headers: str) -> bytes:
    """Write a frame; `headers` are its fields, whose names begin with a colon and have dashes."""
    fields = b"".join(_field(f":{name.replace('_', '-')}", value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(fields) + len(payload), len(fields))
    message = prelude + struct.pack(">I", crc32(prelude)) + fields + payload
    return message + struct.pack(">I", crc32(message))


def event(kind: str, content: object) -> bytes:
    return frame(json.dumps(content).encode(), event_type=kind, message_type="event")


def _field(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
