"""Mappings that are being deleted: each goes once nothing of it runs, and with it what the store keeps of its progress.

That it is told to leave is written first, so that a daemon that ends meanwhile goes on with it when it starts again;
where replicas share the store, so does another one. There nothing is deleted while any of them runs the mapping.
Failures that it has kept stay with the others, as those of a mapping that was taken out of the file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

from router.api.mapping_running import Running
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Mapping
from router.errors import InUse, StoreUnavailable
from router.ports import PutState, Store
from router.telemetry import Log

#: Gives the store to end what is kept of a mapping that nobody runs. Raises InUse: somebody does; and StoreUnavailable.
Alone: TypeAlias = Callable[[str], AbstractAsyncContextManager[Store]]

#: Between two tries to write that one is gone, while the store cannot, or another replica has not ended it.
RETRY_S: Final = 1.0
#: Between two looks for those that another replica was told of, and did not see off.
LOOK_EVERY_S: Final = 15.0


class Departures:
    """Sees mappings off."""

    def __init__(
        self, catalogue: Catalogue, running: Running, alone: Alone, log: Log, *, retry_s: float = RETRY_S
    ) -> None:
        """Make it.

        Args:
            catalogue: has the mappings.
            running: says when nothing of one runs here.
            alone: gives the store once nobody else runs a mapping either.
            log: is told who is gone.
            retry_s: wait between two tries.
        """
        self._catalogue = catalogue
        self._running = running
        self._alone = alone
        self._log = log
        self._retry_s = retry_s
        self._told = asyncio.Event()
        #: Those that are being seen off.
        self._leaving: set[str] = set()

    def begin(self) -> None:
        """Hear that a mapping was told to leave, as is written."""
        self._told.set()

    async def run(self) -> None:
        """See off all that leave, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._told.clear()
                _, mappings = self._catalogue.made
                new = {uuid for uuid, record in mappings.items() if record.is_leaving} - self._leaving
                self._leaving |= new
                for uuid in new:
                    tasks.create_task(self._see_off(uuid))
                with contextlib.suppress(TimeoutError):
                    # wait_for of CPython 3.11 drops a cancellation that comes as the wait is over.
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._told.wait()

    async def _see_off(self, uuid: str) -> None:
        try:
            while (record := self._catalogue.mapping(uuid)) and record.is_leaving:
                if not await self._running.gone(record.name):
                    return
                try:
                    async with self._alone(record.name) as store:
                        await self._end(record, store)
                except (StoreUnavailable, InUse):
                    await asyncio.sleep(self._retry_s)
        finally:
            self._leaving.discard(uuid)

    async def _end(self, record: Mapping, store: Store) -> None:
        async with self._catalogue.changing(record.uuid):
            if self._catalogue.mapping(record.uuid) is None:  # another replica has seen it off
                return
            await _forget(store, record.name)
            await self._catalogue.drop_mapping(record.uuid)
        self._log.write("mapping.deleted", mapping=record.name)


async def _forget(store: Store, name: str) -> None:
    await store.accept_loss(name)
    texts = await store.states(name)
    if texts:
        await store.apply([PutState(name, key, "") for key in texts])


def alone_with(store: Store) -> Alone:
    """Give the store of a daemon that shares it with nobody."""

    @contextlib.asynccontextmanager
    async def alone(_: str) -> AsyncIterator[Store]:
        yield store

    return alone
