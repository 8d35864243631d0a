"""The result of a function as whoever asked for it wants it."""

from __future__ import annotations

import orjson

from router.core.model import NOT_JSON, NOT_READ
from router.ports import Invocation


def read(invocation: Invocation, result: bytes) -> object:
    """Give a result parsed, as it came, or not at all."""
    if not invocation.wants_body:
        return NOT_READ
    if invocation.wants_raw:
        return result
    try:
        return orjson.loads(result)
    except ValueError:
        return NOT_JSON
