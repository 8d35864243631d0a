"""Gives room that the store has too much of back to the file system, in steps that hold up no write for long."""

from __future__ import annotations

import asyncio
from typing import Final

from router.core.retention import room_to_give_back
from router.errors import StoreUnavailable
from router.ports import Space, Store
from router.telemetry import Log

#: Between two looks.
LOOK_EVERY_S: Final = 600.0
#: Given back in one step, and the pause behind it for what waits to be written.
STEP_BYTES: Final = 1024**2
PAUSE_S: Final = 0.01
#: How long one request to compact goes on before it is answered.
REQUEST_S: Final = 1.0


async def keep_small(store: Store, log: Log) -> None:
    """Look now and then whether there is too much free room, and give that back; until cancelled."""
    while True:
        try:
            given_back = await _give_back_excess(store)
            if given_back:
                log.write("store.shrunk", bytes=given_back)
        except StoreUnavailable as error:
            log.write("store.failed", error=error)
        await asyncio.sleep(LOOK_EVERY_S)


async def _give_back_excess(store: Store) -> int:
    space = await store.shrink(0)
    excess = room_to_give_back(space.used_bytes, space.free_bytes) if space.can_shrink else 0
    for given_back in range(0, excess, STEP_BYTES):
        await store.shrink(min(STEP_BYTES, excess - given_back))
        await asyncio.sleep(PAUSE_S)
    if excess:
        await store.scrub()
    return excess


async def compact(store: Store, within_s: float = REQUEST_S) -> Space:
    """Give free room back for so long, or until there is none; says what is left.

    Raises:
        StoreUnavailable: it cannot be done while the store is in use; or nothing can be written.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    space = await store.shrink(STEP_BYTES)
    if not space.can_shrink:
        raise StoreUnavailable(
            "this store was made by an older headrace, and gives no room back while it is in use; "
            "stop the service and compact again"
        )
    while space.free_bytes and loop.time() < until_s:
        await asyncio.sleep(PAUSE_S)
        space = await store.shrink(STEP_BYTES)
    await store.scrub()
    return space
