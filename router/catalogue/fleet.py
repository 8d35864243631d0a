"""The catalogue of a fleet: each replica gives what it has written to the others, and looks for what it has missed.

A replica that does not answer, or is taken for dead and is not, finds what was written meanwhile at its next look. Our
own copies of code go when no function names it any more, whoever has changed that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from router.catalogue.catalogue import Catalogue
from router.errors import DecisionNeeded, StoreUnavailable
from router.event_ports import CodeStore
from router.telemetry import Log

#: What replicas tell each other.
CHANGED: Final = "catalogue.changed"
#: A write waits so long for those who do not answer.
ANSWER_S: Final = 2.0
#: Between two looks at all that is kept, seconds.
LOOK_EVERY_S: Final = 20.0
#: The same before it was read first, and then for so many looks: who has just joined is not known to all at once.
AGAIN_S: Final = 1.0
EARLY_LOOKS: Final = 10


class Others(Protocol):
    """The other replicas; router.fleet.together.Together is that."""

    def serve(self, what: str, answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None: ...

    async def ask(self, what: str, body: Mapping[str, Any], within_s: float) -> dict[str, dict[str, Any] | None]: ...


class CatalogueSharing:
    """Keeps one replica's catalogue in step with those of the others."""

    def __init__(self, catalogue: Catalogue, others: Others, code: CodeStore, log: Log) -> None:
        self._catalogue = catalogue
        self._others = others
        self._code = code
        self._log = log
        self._tasks: asyncio.TaskGroup | None = None
        #: As was said last; None = it is known.
        self._error: str | None = None
        catalogue.spread = self._spread
        others.serve(CHANGED, self._changed)

    async def run(self) -> None:
        """Look for what was missed, until cancelled."""
        early = EARLY_LOOKS
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                await self.look()
                early -= self._error is None
                await asyncio.sleep(AGAIN_S if self._error or early > 0 else LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once."""
        try:
            async with self._forgetting():
                await self._catalogue.refresh()
        except (StoreUnavailable, DecisionNeeded) as error:
            if str(error) != self._error:
                self._log.write("catalogue.unknown", error=str(error))
            self._error = str(error)
        else:
            self._error = None

    async def _spread(self, kind: str, key: str, before: str, text: str) -> None:
        # What is written is written: who cannot be told now looks by itself.
        with contextlib.suppress(StoreUnavailable):
            await self._others.ask(CHANGED, {"kind": kind, "key": key, "before": before, "text": text}, ANSWER_S)

    async def _changed(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._tasks and self._catalogue.is_changing(body["key"]):
            # Two changes of one thing have met: ours is refused and reads anew, and the other is not to wait for that.
            self._tasks.create_task(self._take_later(body))
        else:
            await self._take(body)
        return {}

    async def _take(self, body: dict[str, Any]) -> None:
        try:
            async with self._forgetting():
                await self._catalogue.take(body["kind"], body["key"], body["before"], body["text"])
        except DecisionNeeded as error:
            raise StoreUnavailable(str(error)) from error

    async def _take_later(self, body: dict[str, Any]) -> None:
        with contextlib.suppress(StoreUnavailable):  # the next look finds it
            await self._take(body)

    @asynccontextmanager
    async def _forgetting(self) -> AsyncIterator[None]:
        """Forget the code that no function names any more when this is over."""
        before = self._codes()
        yield
        for sha256 in before - self._codes():
            await self._code.drop(sha256)

    def _codes(self) -> set[str]:
        return {
            version.code.sha256
            for function in self._catalogue.made[0].values()
            for version in (function.latest, *function.versions.values())
            if version.code.sha256
        }
