"""What jobs over failure records have settled, so that none of it runs twice.

A file and a bucket stay as they are when their records are replayed, and have more of them later. So it is remembered
here, in the store, which are done: for 30 days, and each under the place where it was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from router.ports import PutState, Store

#: The name in the store under which the places are: no mapping has a colon in its name.
PLACES: Final = "replay:"
KEPT_S: Final = 30 * 24 * 3600.0
#: Texts deleted in one step.
_AT_ONCE: Final = 500


class Settled:
    """The records of one place that are done. Every method but `has` may raise StoreUnavailable."""

    def __init__(self, store: Store, place: str, known: Mapping[str, str]) -> None:
        self._store = store
        self._name = _name(place)
        #: By the record's id, the mapping that it was done with.
        self._known = {record_id: text.partition(" ")[0] for record_id, text in known.items()}

    @classmethod
    async def load(cls, store: Store, place: str, wall_s: float) -> Settled:
        """Read what is known of a place; what is too old of any place is forgotten."""
        for name, noted in (await store.states(PLACES)).items():
            if name == _name(place) or wall_s - float(noted) > KEPT_S:
                texts = await store.states(name)
                old = [each for each, text in texts.items() if wall_s - float(text.partition(" ")[2]) > KEPT_S]
                await _forget(store, name, old, is_all=len(old) == len(texts))
        return cls(store, place, await store.states(_name(place)))

    def has(self, record_id: str, mapping: str) -> bool:
        """Say whether a record is done."""
        return self._known.get(record_id) == mapping

    async def add(self, record_id: str, mapping: str, wall_s: float) -> None:
        """Note durably that a record is done."""
        noted = f"{wall_s:.0f}"
        await self._store.apply(
            [PutState(self._name, record_id, f"{mapping} {noted}"), PutState(PLACES, self._name, noted)]
        )
        self._known[record_id] = mapping


def _name(place: str) -> str:
    return f"{PLACES}{hashlib.sha256(place.encode()).hexdigest()[:20]}"


async def _forget(store: Store, name: str, ids: Sequence[str], *, is_all: bool) -> None:
    for at in range(0, len(ids), _AT_ONCE):
        await store.apply([PutState(name, each, "") for each in ids[at : at + _AT_ONCE]])
    if is_all:
        await store.apply([PutState(PLACES, name, "")])
