"""Pages of the list of event source mappings: which of them, and where the next page begins.

Pure. The order is that of the UUIDs, which a restart, another replica, and mappings that come and go do not disturb: a
mapping that is there from the first page to the last is told once. Nothing is kept sorted for it: the next page is
the smallest of what is behind the marker, one pass over all.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from router.api.names import Reference
from router.catalogue.records import LATEST, Mapping

#: Items of one page at most, whatever is asked for (AWS Lambda API reference, ListEventSourceMappings).
PAGE_COUNT: Final = 100
_MARK: Final = b"mapping:"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which mappings: all of them that fit both."""

    source_arn: str | None = None
    function: Reference | None = None

    def fits(self, mapping: Mapping) -> bool:
        if self.source_arn is not None and mapping.properties.get("EventSourceArn") != self.source_arn:
            return False
        return self.function is None or is_of(mapping, self.function)


def is_of(mapping: Mapping, function: Reference) -> bool:
    """Say whether a mapping invokes this function in this qualification: `$LATEST` is what no qualifier means."""
    return mapping.function == function.name and (mapping.qualifier or LATEST) == (function.qualifier or LATEST)


def page(
    mappings: Iterable[Mapping], wanted: Wanted, marker: str | None, count: int
) -> tuple[Sequence[Mapping], str | None]:
    """Give a page, and the marker of the next one; None = it is the last. A marker that is none gives no items."""
    behind = "" if not marker else _behind(marker)
    if behind is None:
        return (), None
    found = heapq.nsmallest(count + 1, _following(mappings, wanted, behind), key=_uuid)
    if len(found) <= count:
        return found, None
    return found[:count], base64.urlsafe_b64encode(_MARK + found[count - 1].uuid.encode()).decode()


def _following(mappings: Iterable[Mapping], wanted: Wanted, behind: str) -> Iterator[Mapping]:
    return (each for each in mappings if each.uuid > behind and wanted.fits(each))


def _uuid(mapping: Mapping) -> str:
    return mapping.uuid


def _behind(marker: str) -> str | None:
    """Read a marker: the last UUID of the page before; None = it is none of ours."""
    try:
        text = base64.b64decode(marker, altchars=b"-_", validate=True)
        return text.removeprefix(_MARK).decode() if text.startswith(_MARK) else None
    except (binascii.Error, ValueError):
        return None
