"""The page of metrics, made once for all who ask within a second: that of many mappings is some megabytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

#: A page is as new as this, seconds.
FRESH_S: Final = 1.0


class MetricsPage:
    """Makes the page when somebody asks."""

    def __init__(self, registry: CollectorRegistry, set_gauges: Callable[[], Awaitable[None]]) -> None:
        self._registry = registry
        self._set_gauges = set_gauges
        self._making: asyncio.Task[bytes] | None = None
        #: Loop time at which the page was asked for.
        self._asked_s = 0.0

    async def page(self) -> bytes:
        """Give the page as it is now, or was within the last second."""
        return await asyncio.shield(self._task())

    def _task(self) -> asyncio.Task[bytes]:
        now_s = asyncio.get_running_loop().time()
        if self._making is None or (self._making.done() and now_s - self._asked_s >= FRESH_S):
            self._asked_s = now_s
            self._making = asyncio.ensure_future(self._make())
        return self._making

    async def _make(self) -> bytes:
        await self._set_gauges()
        # In a thread: the page of a thousand mappings takes half a second.
        return await asyncio.to_thread(generate_latest, self._registry)
