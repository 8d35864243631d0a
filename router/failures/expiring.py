"""Letting go of stored failures: of those that are old, and of the oldest ones where there is no room for more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from router.core.retention import EXPENDABLE, RELEASE_SHARE, Retention, surplus
from router.ports import Selection, Store

#: Deletes failures, for a reason in words.
Delete = Callable[[Sequence[str], str], Awaitable[None]]

#: Failures deleted in one step.
DELETE_AT_ONCE: Final = 100


async def expire(store: Store, mapping: str, retention: Retention, now_s: float, delete: Delete) -> None:
    """Delete what of a mapping is settled and older than the retention. Raises StoreUnavailable."""
    old = Selection(mapping=mapping, statuses=EXPENDABLE, until_s=now_s - retention.keep_for_s, limit=DELETE_AT_ONCE)
    while found := await store.failures(old):
        await delete([entry.batch.id for entry in found], "older than keep_for")


async def make_room(store: Store, mapping: str, retention: Retention, delete: Delete) -> None:
    """Delete a mapping's oldest failures, settled ones first, when they take more than they may.

    Raises:
        StoreUnavailable
    """
    excess_bytes = (await store.backlog(mapping)).stored_bytes - retention.keep_bytes
    if excess_bytes < 0:
        return
    excess_bytes += int(retention.keep_bytes * (1 - RELEASE_SHARE))
    for statuses in (EXPENDABLE, ("stored",)):
        while excess_bytes > 0:
            oldest = Selection(mapping=mapping, statuses=statuses, limit=DELETE_AT_ONCE)
            sizes = {entry.batch.id: entry.event_bytes for entry in await store.failures(oldest)}
            chosen = surplus(sizes.items(), excess_bytes)
            if not chosen:
                break
            await delete(chosen, "keep_bytes is reached")
            excess_bytes -= sum(sizes[each] for each in chosen)
