"""A store in which every change is made under leases, so that nobody writes who has lost them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from router.ports import Change, Holds, Store


class Fenced:
    """A store in which every change is made under fences, once there are some."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Gives what each write names. Raises LeaseLost.
        self.fences: Callable[[], Sequence[Holds]] = tuple

    def check(self) -> None:
        """Raise LeaseLost if nothing may be written."""
        self.fences()

    async def apply(self, changes: Sequence[Change]) -> None:
        await self._store.apply([*self.fences(), *changes])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def port(self) -> Store:
        """The store with its fences, as others see it."""
        return cast("Store", self)
