"""Lists in pages: items in the order of their keys, and an opaque marker that says behind which key to go on.

A marker stays good while items come and go. One that nobody gave out is answered by an empty page.
"""

from __future__ import annotations

import binascii
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final, TypeVar

import pybase64

from router.api.call import Call
from router.api.constraints import Number, Structure, check, mistyped
from router.api.function_requests import MAX_ITEMS

T = TypeVar("T")

#: Items of a page of functions, versions or aliases (AWS Lambda API reference, ListFunctions).
FUNCTIONS_COUNT: Final = 50


def page_size(call: Call, most: int, allowed: Number = MAX_ITEMS) -> int:
    """Read MaxItems; a page has no more than `most`. Raises ApiError."""
    text = call.one("MaxItems")
    if text is None:
        return most
    if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20):
        raise mistyped(text, "an Integer")
    check(Structure({"MaxItems": allowed}), {"MaxItems": int(text)})
    return min(int(text), most)


def page(call: Call, items: Mapping[str, T], most: int, allowed: Number = MAX_ITEMS) -> tuple[list[T], dict[str, str]]:
    """Give the items of the page that is asked for, and `NextMarker` where more follow.

    Args:
        call: has MaxItems and Marker.
        items: by keys that give their order.
        most: items of a page.
        allowed: what MaxItems may be.

    Raises:
        ApiError: MaxItems is no such number.
    """
    size = page_size(call, most, allowed)
    keys = sorted(items)
    first = _first(keys, call.one("Marker"))
    shown = keys[first : first + size]
    more = {"NextMarker": pybase64.b64encode(shown[-1].encode()).decode()} if first + size < len(keys) else {}
    return [items[key] for key in shown], more


def _first(keys: list[str], marker: str | None) -> int:
    if not marker:
        return 0
    try:
        return bisect_right(keys, pybase64.b64decode(marker, validate=True).decode())
    except (binascii.Error, ValueError):
        return len(keys)


def version_key(number: str) -> str:
    """Give a key by which LATEST comes before 1, and 9 before 10."""
    return number.zfill(20) if number.isdecimal() else ""
