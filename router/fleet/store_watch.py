"""Looks at the store that replicas share: whether it can be relied on, and whether what it kept is still there.

Another server may answer at its address by now, with other settings, or without what was kept. A mapping whose texts
are gone comes to rest, and then waits for a decision like one that finds that out when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from prometheus_client import Gauge

from router.errors import InUse, StoreUnavailable
from router.ports import Finding, StoreHealth
from router.telemetry import Log

#: Between two looks.
LOOK_EVERY_S: Final = 10.0


class Looked(Protocol):
    """A store that can be looked at."""

    async def look(self) -> StoreHealth:
        """See how it is. Raises StoreUnavailable."""
        ...


class Life(Protocol):
    """A mapping that a daemon has."""

    @property
    def is_down(self) -> bool: ...

    def still(self) -> AbstractAsyncContextManager[None]:
        """Bring it to rest for a moment. Raises InUse."""
        ...


class StoreWatch:
    """One daemon's eye on the store that it shares."""

    def __init__(self, store: Looked, lives: Callable[[], Mapping[str, Life]], gauge: Gauge, log: Log) -> None:
        """Look at nothing yet.

        Args:
            store: what is looked at.
            lives: gives the mappings that there are now.
            gauge: set to 1 for what is to be mended.
            log: told what changes.
        """
        self._store = store
        self._lives = lives
        self._gauge = gauge
        self._log = log
        #: As of the last look that was answered.
        self.health = StoreHealth()

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def findings(self) -> list[str]:
        """Say what should be mended, as of the last look that was answered."""
        return [each.text for each in self.health.findings]

    async def look(self) -> None:
        """Look once, tell what has changed, and bring mappings to rest whose texts are gone."""
        try:
            health = await self._store.look()
        except StoreUnavailable as error:
            self._log.write("store.failed", error=error)
            return
        before, self.health = self.health, health
        self._tell(before, health)
        await asyncio.gather(*(self._rest(life) for name, life in self._lives().items() if name in health.gone))

    def _tell(self, before: StoreHealth, health: StoreHealth) -> None:
        self._gauge.clear()
        for finding in health.findings:
            self._gauge.labels(finding.what).set(1)
            if _is_new(finding, before):
                event = "store.refused" if finding.is_refused else "store.doubted"
                self._log.write(event, what=finding.what, error=finding.text)
        if before.findings and not health.findings:
            self._log.write("store.mended")
        if health.gone - before.gone or health.is_another > before.is_another:
            self._log.write("state.lost", mappings=sorted(health.gone))

    async def _rest(self, life: Life) -> None:
        if not life.is_down:
            with contextlib.suppress(InUse):  # it did not come to rest: the next look tries again
                async with life.still():
                    pass


def _is_new(finding: Finding, before: StoreHealth) -> bool:
    """Was it not so before? What is said of it may have other figures."""
    return all((each.what, each.is_refused) != (finding.what, finding.is_refused) for each in before.findings)
