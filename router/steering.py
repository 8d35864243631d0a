"""Pauses, resumes and drains mappings, as operators ask.

A pause belongs to the mapping's name: it is written under it before it counts, and so outlives restarts, reloads and
`enabled: false`. It ends the run as a shutdown does (in-flight work ends, progress is committed, leases are given back,
the source is closed), so every source knows it already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from router.core.describe import Repeat
from router.core.model import Batch
from router.errors import NotFound
from router.life import PAUSED, MappingLife
from router.ports import PutState, Store, WallClock

#: Gives a position as people and their tools know it.
Shown: TypeAlias = Callable[[int], int | str | None]

#: Names that an error lists.
_NAMED: Final = 20


class Steering:
    """Carries out what `headrace mapping` asks of a daemon. Its methods raise NotFound and StoreUnavailable."""

    def __init__(self, store: Store, lives: Mapping[str, MappingLife], wall: WallClock) -> None:
        self._store = store
        self._lives = lives
        self._wall = wall

    async def pause(self, name: str) -> dict[str, Any]:
        """Pause a mapping; returns once that is durable, with what is still in flight."""
        self._life(name)
        since_s = await pause(self._store, name, self._wall())
        self._life(name).pause(since_s)
        return self._tell(name)

    async def resume(self, name: str) -> dict[str, Any]:
        """Let a mapping go on."""
        self._life(name)
        await resume(self._store, name)
        self._life(name).resume()
        return self._tell(name)

    async def drain(self, name: str, within_s: float | None) -> dict[str, Any]:
        """Pause a mapping and wait until nothing of it runs, so long at most (None = as long as it takes)."""
        await self.pause(name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._life(name).resting.wait(), within_s)
        return self._tell(name)

    def _life(self, name: str) -> MappingLife:
        if name not in self._lives:
            raise unknown(name, list(self._lives))
        return self._lives[name]

    def _tell(self, name: str) -> dict[str, Any]:
        life = self._life(name)
        return {
            "mapping": name,
            "state": life.health().state,
            "idle": life.resting.is_set(),
            "in_flight": [_in_flight(batch, for_s, life.position) for batch, for_s in life.in_flight()],
            "seen_again": [_seen_again(each, life.position) for each in life.repeats()],
        }


async def pause(store: Store, name: str, now_s: float) -> float:
    """Write down that a mapping is paused; gives since when (wall time). Raises StoreUnavailable."""
    since = (await store.states(name)).get(PAUSED)
    if since:
        return float(since)
    await store.apply([PutState(name, PAUSED, f"{now_s:.3f}")])
    return now_s


async def resume(store: Store, name: str) -> None:
    """Write down that a mapping is not paused. Raises StoreUnavailable."""
    await store.apply([PutState(name, PAUSED, "")])


def unknown(name: str, names: list[str]) -> NotFound:
    """Say that there is no such mapping, and which there are."""
    listed = ", ".join(sorted(names)[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return NotFound(f"there is no mapping {name!r}; there are: {listed}")


def _in_flight(batch: Batch, for_s: float, shown: Shown) -> dict[str, Any]:
    return {
        "shard": batch.shard,
        "first_position": shown(batch.first_position) if batch.count else None,
        "last_position": shown(batch.last_position) if batch.count else None,
        "records": batch.count,
        "seconds": round(for_s, 1),
        "attempts": batch.attempts,
        "request_id": batch.id,
        "replays": batch.replays,
    }


def _seen_again(repeat: Repeat, shown: Shown) -> dict[str, Any]:
    first, last = repeat.first_position, repeat.last_position
    return {
        "shard": repeat.shard,
        "first_position": None if first is None else shown(first),
        "last_position": None if last is None else shown(last),
        "records": repeat.records,
    }
