"""What the stories of the demos have in common: they look until facts come true, and end where one does not."""

from __future__ import annotations

import asyncio
import json
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from router.demo.show import Narrator
from router.demo.stage import DemoFailed, Project, Service

#: Longest time one act may take.
PATIENCE_S: Final = 60.0
LOOK_S: Final = 0.1

BUG: Final = 'item["price"]'
REPAIR: Final = 'item.get("price", 0)'


#: Exit status after Ctrl-C.
INTERRUPTED: Final = 130


async def until_interrupted(story: Coroutine[Any, Any, None]) -> int:
    """Tell a story to its end, and give the exit status. It cleans up behind itself in any case."""
    me = asyncio.current_task()
    assert me is not None, "a coroutine runs in a task"
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    try:
        await story
    except asyncio.CancelledError:
        return INTERRUPTED
    return 0


class Acts(ABC):
    """Acts of a story about orders, one of which has no price."""

    def __init__(self, told: Narrator, project: Project, service: Service, patience_s: float) -> None:
        self._told = told
        self._project = project
        self._service = service
        self._patience_s = patience_s

    @abstractmethod
    def _count(self) -> bool:
        """Tell how far it is; True once all is processed that can be."""

    async def _processed(self) -> None:
        """Wait until the failure is given up and all else is processed; tell how it was found."""
        await self._wait(lambda: bool(self._project.events("batch.discarded")), "the poison record is given up")
        splits = self._project.events("batch.split")
        if not splits:
            raise DemoFailed("the failed batch was not split")
        sizes = [str(split["records"]) for split in splits]
        self._told.tell(
            "bisect",
            f"   A batch fails: {splits[0]['error_type']}: {splits[0]['error_message']}\n"
            f"   It is halved until the poison record stands alone: {' > '.join([*sizes, '1'])} records",
            sizes=[split["records"] for split in splits],
        )
        await self._wait(self._count, "all else is processed")

    async def _delivered(self) -> dict[str, Any]:
        """Wait until the failure is stored and its destination has its record; gives it."""
        failure: dict[str, Any] = {}
        async with self._within("the destination accepts the failure record"):
            while failure.get("status") != "delivered":
                self._service.require_running()
                failure = next(iter(await self._failures()), {})
                await asyncio.sleep(LOOK_S)
        if failure["batch_size"] != 1:
            raise DemoFailed(f"the poison record does not stand alone: {failure}")
        return failure

    async def _fix(self, handler: str) -> None:
        status = await self._service.stop()
        if status != 0:
            raise DemoFailed(f"the service ended with status {status} when asked to drain")
        self._project.fix(handler, BUG, REPAIR)
        self._told.tell(
            "fix",
            f"6. The service drains and stops. The handler is fixed:\n     - {BUG}\n     + {REPAIR}",
            exit_status=status,
        )
        started = len(self._project.events("mapping.started"))
        await self._service.start()
        self._told.tell("restart", "   The service runs again, and knows where it was.")
        await self._wait(
            lambda: len(self._project.events("mapping.started")) == 2 * started, "every mapping runs again"
        )

    async def _replayed(self, failure: dict[str, Any]) -> dict[str, Any]:
        """Require that the failure, the only one, is replayed; gives it."""
        [after] = await self._failures()
        if (after["id"], after["status"]) != (failure["id"], "replayed"):
            raise DemoFailed(f"the failure is not replayed: {after}")
        return after

    async def _failures(self) -> list[dict[str, Any]]:
        status, output = await self._project.run("failures", "list", "--status", "all", "--json")
        if status != 0:
            raise DemoFailed(f"the failures cannot be listed (status {status})")
        failures: list[dict[str, Any]] = json.loads(output)
        return failures

    async def _wait(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for a fact."""
        async with self._within(what):
            while not happened():
                self._count()
                self._service.require_running()
                await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def _within(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                yield
        except TimeoutError:
            raise DemoFailed(f"within {self._patience_s:.0f} s it did not come to this: {what}") from None


def order(number: int, *, priced: bool) -> dict[str, Any]:
    """Make an order; one without a price is the poison record."""
    item: dict[str, Any] = {"sku": f"sku-{number % 17}", "quantity": 1 + number % 3}
    if priced:
        item["price"] = 5 + number % 40
    return {"order": number, "customer": f"customer-{number % 50}", "items": [item]}
