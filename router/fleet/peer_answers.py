"""How replicas write what they answer each other."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

#: Larger answers are compressed.
PACKED_BYTES: Final = 4096


def packed(answer: Mapping[str, Any]) -> bytes:
    """Write an answer; the shards of a large mapping come to megabytes that say nearly the same."""
    text = json.dumps(answer).encode()
    return text if len(text) < PACKED_BYTES else zlib.compress(text, 1)


def unpacked(answer: bytes) -> dict[str, Any]:
    """Read it back."""
    found: dict[str, Any] = json.loads(answer if answer[:1] == b"{" else zlib.decompress(answer))
    return found
