"""Retry state that is too large for the source goes into the store, and a pointer to it to the source.

Each text is stored under its own digest, and the one before stays until a commit has replaced the pointer to it:
whenever the daemon is killed, what the source points to is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from router.core.facts import Progress
from router.errors import StoreUnavailable
from router.ports import PutState, Store

_POINTER = "store:"
_KEY = "retry:"


class Overflow:
    """Fits the retry states of one mapping into what its source can hold."""

    def __init__(self, store: Store, mapping: str, limit_bytes: int) -> None:
        self._store = store
        self._mapping = mapping
        self._limit_bytes = limit_bytes
        #: Keys of the texts that are stored for each shard.
        self._keys: dict[str, set[str]] = {}

    async def fit(self, done: Mapping[str, Progress]) -> Mapping[str, Progress]:
        """Replace what is too large by pointers, once it is stored. Raises StoreUnavailable."""
        large = {shard: each for shard, each in done.items() if len(each.retry_state.encode()) > self._limit_bytes}
        if not large:
            return done
        texts = {_key(shard, each.retry_state): each.retry_state for shard, each in large.items()}
        await self._store.apply([PutState(self._mapping, key, text) for key, text in texts.items()])
        for shard, each in large.items():
            self._keys.setdefault(shard, set()).add(_key(shard, each.retry_state))
        return {
            shard: each._replace(retry_state=_pointer(each.retry_state)) if shard in large else each
            for shard, each in done.items()
        }

    async def committed(self, done: Mapping[str, Progress]) -> None:
        """Forget the texts that no committed pointer leads to any more."""
        known = self._keys
        old = {shard: known[shard] - {_key(shard, each.retry_state)} for shard, each in done.items() if shard in known}
        keys = [key for gone in old.values() for key in gone]
        if not keys:
            return
        with suppress(StoreUnavailable):  # they are forgotten after a later commit
            await self._store.apply([PutState(self._mapping, key, "") for key in keys])
            for shard, gone in old.items():
                known[shard] -= gone

    async def resolve(self, shard: str, retry_state: str) -> str:
        """Give the state a pointer points to; a text that fits no checkpoint when it is not in this store.

        Raises:
            StoreUnavailable
        """
        if not retry_state.startswith(_POINTER):
            return retry_state
        texts = await self._store.states(self._mapping)
        self._keys[shard] = {key for key in texts if key.startswith(f"{_KEY}{shard}:")}
        return pointed_to(texts, shard, retry_state)


def pointed_to(texts: Mapping[str, str], shard: str, retry_state: str) -> str:
    """Give the state a pointer points to, among the texts of a mapping; what is none, or leads nowhere, as it is."""
    return texts.get(f"{_KEY}{shard}:{retry_state.removeprefix(_POINTER)}", retry_state)


def _key(shard: str, text: str) -> str:
    return f"{_KEY}{shard}:{_digest(text)}"


def _pointer(text: str) -> str:
    return f"{_POINTER}{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
