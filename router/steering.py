"""Pauses, resumes and drains mappings, as operators ask.

A pause belongs to the mapping's name: it is written under it before it counts, and so outlives restarts, reloads and
`enabled: false`. It ends the run as a shutdown does (in-flight work ends, progress is committed, leases are given back,
the source is closed), so every source knows it already.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from router.core.describe import Repeat
from router.core.model import Batch
from router.errors import NotFound
from router.fleet.together import ANSWER_S, DRAINED, Together
from router.life import PAUSED, MappingLife
from router.ports import PutState, Store, WallClock

#: Gives a position as people and their tools know it.
Shown: TypeAlias = Callable[[int], int | str | None]

#: How long other replicas are asked to wait at once, where the wait has no end.
TURN_S: Final = 20.0
#: Names that an error lists.
_NAMED: Final = 20
#: What mappings of the API are called.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Steering:
    """Carries out what `headrace mapping` asks of a daemon. Its methods raise NotFound and StoreUnavailable."""

    def __init__(
        self, store: Store, lives: Mapping[str, MappingLife], wall: WallClock, together: Together | None = None
    ) -> None:
        """Make it; `together` are the replicas of a fleet, None = we are alone."""
        self._store = store
        self._lives = lives
        self._wall = wall
        self._together = together
        if together:
            together.serve(DRAINED, self._drained_here)

    async def pause(self, name: str) -> dict[str, Any]:
        """Pause a mapping; returns once that is durable, with what is still in flight."""
        self._life(name)
        since_s = await pause(self._store, name, self._wall())
        self._life(name).pause(since_s)
        return await self._told(name, 0.0)

    async def resume(self, name: str) -> dict[str, Any]:
        """Let a mapping go on."""
        self._life(name)
        await resume(self._store, name)
        self._life(name).resume()
        if self._together:
            await self._together.tell()
        return self._tell(name)

    async def drain(self, name: str, within_s: float | None) -> dict[str, Any]:
        """Pause a mapping and wait until nothing of it runs, so long at most (None = as long as it takes)."""
        self._life(name)
        since_s = await pause(self._store, name, self._wall())
        self._life(name).pause(since_s)
        return await self._told(name, within_s)

    async def _told(self, name: str, within_s: float | None) -> dict[str, Any]:
        """Wait until nothing of a paused mapping runs, and say how it is, on all replicas together."""
        if self._together is None:
            await self._rest(name, within_s)
            return self._tell(name)
        await self._together.tell()
        # Who has not answered within this time is asked again where the wait has no end.
        turn_s = TURN_S if within_s is None else within_s
        body = {"mapping": name, "within_s": turn_s}
        while True:
            answers, _ = await asyncio.gather(
                self._together.ask(DRAINED, body, turn_s + ANSWER_S), self._rest(name, turn_s)
            )
            told = _joined(self._tell(name), answers, self._together.name)
            if told["idle"] or within_s is not None:
                return told

    async def _rest(self, name: str, within_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._life(name).resting.wait()

    async def _drained_here(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer another replica how a mapping that is paused rests here."""
        name = body["mapping"]
        if name not in self._lives:
            return {"idle": True, "in_flight": [], "seen_again": []}
        # The question may be here before what tells that it is paused.
        since = (await self._store.states(name)).get(PAUSED)
        if since:
            self._life(name).pause(float(since))
        await self._rest(name, body["within_s"])
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
    if _UUID.fullmatch(name):
        return NotFound(f"no mapping {name} runs here: one of the API does while it is enabled and a daemon runs")
    if not names:
        return NotFound(f"there is no mapping {name!r}; there are none")
    listed = ", ".join(sorted(names)[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return NotFound(f"there is no mapping {name!r}; there are: {listed}")


def _joined(ours: dict[str, Any], others: Mapping[str, dict[str, Any] | None], name: str) -> dict[str, Any]:
    """Say of all replicas together what each says of itself; those that say nothing are named."""
    heard = {name: ours, **{replica: told for replica, told in sorted(others.items()) if told}}
    silent = sorted(replica for replica, told in others.items() if told is None)
    return {
        **ours,
        "idle": not silent and all(told["idle"] for told in heard.values()),
        "in_flight": [{**each, "replica": replica} for replica, told in heard.items() for each in told["in_flight"]],
        "seen_again": [{**each, "replica": replica} for replica, told in heard.items() for each in told["seen_again"]],
        "silent": silent,
    }


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
