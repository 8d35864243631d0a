"""Reading what a store holds, a page at a time: it may hold a million failures, and nobody needs them all at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from router.ports import FailureEntry, Selection, Tally

#: Failures read at once.
PAGE: Final = 500


class Reading(Protocol):
    """What of the Store port is asked here."""

    async def failures(self, selection: Selection) -> Sequence[FailureEntry]: ...

    async def tallies(self) -> Sequence[Tally]: ...


async def pages(store: Reading, selection: Selection) -> AsyncIterator[Sequence[FailureEntry]]:
    """Give the selected failures in pages, oldest first; what comes meanwhile may be among them or not."""
    left = selection.limit
    size = PAGE if left is None else min(PAGE, left)
    while size and (page := await store.failures(replace(selection, limit=size))):
        yield page
        if len(page) < size:
            return
        last = page[-1].batch
        selection = replace(selection, after=(last.failed_at_s, last.id))
        left = None if left is None else left - len(page)
        size = PAGE if left is None else min(PAGE, left)


async def look(store: Reading) -> tuple[Sequence[Tally], Mapping[str, str]]:
    """Count what there is, and name the function of each mapping: that of its oldest failure."""
    tallies = await store.tallies()
    functions = {}
    for mapping in {each.mapping for each in tallies}:
        for entry in await store.failures(Selection(mapping=mapping, limit=1)):
            functions[mapping] = entry.batch.function
    return tallies, functions
