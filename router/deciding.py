"""Decides what becomes of a mapping's state, as `headrace mapping accept` and `forget` ask a daemon.

Among replicas it is decided for all of them: nobody else may run the mapping meanwhile, and all try again then.
"""

from __future__ import annotations

from collections.abc import Mapping

from router.errors import NotFound
from router.fleet.together import Together
from router.identity import Holding, Life, accept, forget
from router.ports import Store


class Deciding:
    """Carries it out. Its methods raise as those of router.identity, and InUse."""

    def __init__(self, store: Store, lives: Mapping[str, Life], together: Together | None = None) -> None:
        """Make it; `together` are the replicas of a fleet, None = we are alone."""
        self._store = store
        self._lives = lives
        self._together = together

    async def accept(self, mapping: str) -> Holding:
        """Let a mapping begin with whatever source it has."""
        if self._together is None:
            return await accept(self._store, mapping, self._lives)
        life = self._lives.get(mapping)
        if life is not None and not life.is_down:
            raise NotFound(f"mapping {mapping} runs here, and waits for no decision: there is nothing to accept")
        async with self._together.alone(mapping) as store:
            return await accept(store, mapping, self._lives)

    async def forget(self, mapping: str, *, only_look: bool) -> Holding:
        """Delete all that is kept under a name, or say what that is."""
        if self._together is None or only_look:
            return await forget(self._store, mapping, self._lives, only_look=only_look)
        async with self._together.alone(mapping) as store:
            had = await forget(store, mapping, self._lives)
        self._together.forget_leases(mapping)
        return had
