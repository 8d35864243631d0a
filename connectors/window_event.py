"""What the event of a call in a tumbling window has behind its records, written and read back.

The members and their order are those recorded on AWS, for Kinesis and DynamoDB alike.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from router.core.model import WindowCall
from router.failures.record import time_window

_END = b"}"


class _Bounds(msgspec.Struct):
    start: datetime
    end: datetime


class _Call(msgspec.Struct, rename="camel"):
    window: _Bounds
    state: msgspec.Raw
    is_final_invoke_for_window: bool
    is_window_terminated_early: bool
    shard_id: str


class _Event(msgspec.Struct):
    window: Any = None


def with_window(event: bytes, shard: str, stream_arn: str, call: WindowCall) -> bytes:
    """Add the members of a window to an event that is an object with records."""
    place = {"shardId": shard, "eventSourceARN": stream_arn}
    window, *flags = time_window(call).items()
    members = [*place.items(), window, ("state", msgspec.Raw(call.state)), *flags]
    return event.removesuffix(_END) + b"," + msgspec.json.encode(dict(members)).removeprefix(b"{")


def window_of(event: bytes) -> tuple[str, WindowCall] | None:
    """Read back the shard and the call of an event; None = it is of no window.

    Raises:
        ValueError: it is no such event.
    """
    if msgspec.json.decode(event, type=_Event).window is None:
        return None
    call = msgspec.json.decode(event, type=_Call)
    start_s, end_s = round(call.window.start.timestamp()), round(call.window.end.timestamp())
    flags = call.is_final_invoke_for_window, call.is_window_terminated_early
    return call.shard_id, WindowCall(start_s, end_s, bytes(call.state), *flags)
