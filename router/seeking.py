"""Moves mappings to other places in their streams, as `headrace mapping seek` and `headrace checkpoints import` ask.

What would be changed is looked up first, while the mapping runs, so that a mistake or a source that is away stops
nothing. Then the mapping comes to rest as at a pause (what is in flight ends and is committed), the places are looked
up once more, all are written in one step, and it goes on. Nothing but that step is durable: whenever the daemon is
killed, every shard is either where it was or where it was put.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from router.checkpoint_file import Saved, SavedShard
from router.commands.selecting import Wanted
from router.core.facts import Progress
from router.core.seek import AtPosition, AtTime, Direction, Edge, Extent, Move, NotThere, SeekTo, plan
from router.errors import ConfigError, InUse, NotFound
from router.failures.record import iso_ms
from router.fleet.fenced import Fenced
from router.fleet.together import Together
from router.life import MappingLife
from router.overflow import Overflow, pointed_to
from router.ports import Places, Span, Store
from router.steering import unknown


class Moves(Protocol):
    """Says what becomes of the shards of a stream that is open. Raises NotFound and ConfigError."""

    async def __call__(self, places: Places) -> tuple[Sequence[Extent], Sequence[Move]]: ...


class Seeking:
    """Moves the mappings of a daemon, and says where they are.

    Its methods raise NotFound, ConfigError, InUse, SourceUnavailable and StoreUnavailable.
    """

    def __init__(self, store: Store, lives: Mapping[str, MappingLife], together: Together | None = None) -> None:
        """Make it; `together` are the replicas of a fleet, None = we are alone."""
        self._store = store
        self._lives = lives
        self._together = together

    async def seek(self, name: str, wanted: Wanted, shard: str | None, *, apply: bool) -> dict[str, Any]:
        """Say what seeking would do, or do it and say what it did."""
        life = self._free(name)
        mover, still = self._mover(life)
        return {
            **await mover.move(partial(_sought, wanted=wanted, shard=shard), still if apply else None),
            "to": _written(wanted),
            "state": life.health().state,
        }

    async def restore(self, name: str, saved: Saved, *, apply: bool) -> dict[str, Any]:
        """Say what importing would do to a mapping, or do it and say what it did."""
        life = self._free(name)
        mover, still = self._mover(life)
        return {**await mover.restore(saved, still if apply else None), "state": life.health().state}

    async def save(self, name: str | None = None) -> list[Saved]:
        """Say where a mapping is, as far as it is committed; None = all that read a stream."""
        lives = [self._life(name)] if name else [each for each in self._lives.values() if each.parts.make_places]
        return [await save(self._store, life.name, _maker(life)) for life in lives]

    def _mover(self, life: MappingLife) -> tuple[Mover, Still]:
        if self._together is None:
            return Mover(self._store, life.name, _maker(life), life.log.write), life.still
        fenced = Fenced(self._store)
        mover = Mover(fenced.port, life.name, _maker(life), life.log.write, fenced.check)
        return mover, partial(self._together.still, life, fenced)

    def _free(self, name: str) -> MappingLife:
        life = self._life(name)
        reason = life.health().reason
        if life.is_undecided and reason and reason[0] != CAN_BE_REPLACED:
            raise InUse(f"mapping {name} waits for a decision before it can be moved; `headrace status` says which")
        return life

    def _life(self, name: str) -> MappingLife:
        if name not in self._lives:
            raise unknown(name, list(self._lives))
        return self._lives[name]


#: The decision that moving a mapping is: what it has is no place.
CAN_BE_REPLACED: Final = "CheckpointUnreadable"


class Mover:
    """Moves one mapping. Its methods raise as those of Seeking."""

    def __init__(
        self,
        store: Store,
        name: str,
        make_places: Callable[[Store], Places],
        tell: Callable[..., None] = lambda *_, **__: None,
        confirm: Callable[[], object] = lambda: None,
    ) -> None:
        """Make it.

        Args:
            store: what the places are written to.
            name: the mapping.
            make_places: makes what knows them.
            tell: logs what is about to be written, and that it was.
            confirm: called just before; raises if it must not be.
        """
        self._confirm = confirm
        self._store = store
        self._name = name
        self._make_places = make_places
        self._tell = tell

    async def move(self, moves: Moves, still: Still | None) -> dict[str, Any]:
        """Say what moves would do, or with `still`, within which nothing of the mapping runs, do them."""
        async with opened(self._make_places(self._store)) as places:
            _, found = await moves(places)
            if still:
                async with still():
                    extents, found = await moves(places)
                    await self._put(places, extents, found)
            spans = await places.measure(found)
        if still:
            self._tell("mapping.sought", skipped=_count(spans, SKIPS), again=_count(spans, REPEATS))
        return {
            "mapping": self._name,
            "stream": places.stream,
            "applied": still is not None,
            "skipped": _count(spans, SKIPS),
            "seen_again": _count(spans, REPEATS),
            "is_exact": all(span.is_exact for span in spans),
            "shards": [_told(places, *both) for both in zip(found, spans, strict=True)],
        }

    async def restore(self, saved: Saved, still: Still | None) -> dict[str, Any]:
        """As `move`, to the places of a file; also names its shards that the stream does not have."""
        unknown_shards: list[str] = []

        async def moves(places: Places) -> tuple[Sequence[Extent], Sequence[Move]]:
            extents = await places.extents()
            found = _restored(places, extents, saved)
            unknown_shards[:] = sorted({each.shard for each in saved.shards} - {each.shard for each in extents})
            return extents, found

        return {**await self.move(moves, still), "unknown_shards": unknown_shards}

    async def _put(self, places: Places, extents: Sequence[Extent], moves: Sequence[Move]) -> None:
        """Put shards where they are to go on; all of them or none."""
        for shard, before, after in moves:
            was = None if before is None else places.show(before)
            self._tell("seek.planned", shard=shard, before=was, after=places.show(after))
        self._confirm()
        if places.retry_state_limit_bytes is None:
            await places.write({shard: after for shard, _, after in moves})
            return
        overflow = Overflow(self._store, self._name, places.retry_state_limit_bytes)
        for extent in extents:
            if extent.place is not None:
                await overflow.resolve(extent.shard, extent.place.retry_state)
        whole = {shard: after for shard, _, after in moves}
        await places.write(await overflow.fit(whole))
        await overflow.committed(whole)


#: What the records of a move are to the function: never seen by it, or seen again.
SKIPS: Final = Direction.FORWARD
REPEATS: Final = Direction.BACK
#: A context within which nothing of a mapping runs.
Still: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def opened(places: Places) -> AsyncIterator[Places]:
    """Reach a stream for a while. Raises SourceUnavailable."""
    try:
        await places.open()
        yield places
    finally:
        await places.close()


def _maker(life: MappingLife) -> Callable[[Store], Places]:
    if life.parts.make_places is None:
        raise no_places(life.name)
    return life.parts.make_places


def no_places(mapping: str) -> NotFound:
    """Say that a mapping has no place that could be moved or exported."""
    return NotFound(
        f"mapping {mapping} reads a queue: what is done is deleted there, so it has no place in it to move or export"
    )


async def _sought(places: Places, wanted: Wanted, shard: str | None) -> tuple[Sequence[Extent], Sequence[Move]]:
    target = _target(places, wanted)
    extents = await places.extents(target, shard)
    try:
        return extents, plan(extents, target, shard, places.now_ms)
    except NotThere as error:
        raise NotFound(f"{places.stream}: {error}") from error


def _written(wanted: Wanted) -> str:
    return wanted.edge or wanted.position or iso_ms((wanted.time_ms or 0) / 1000)


def _target(places: Places, wanted: Wanted) -> SeekTo:
    if wanted.edge is not None:
        return Edge(wanted.edge)
    if wanted.time_ms is not None:
        return AtTime(wanted.time_ms)
    text = wanted.position or ""
    try:
        return AtPosition(places.position(text))
    except ValueError:
        raise NotFound(f"{text} is no position in {places.stream}") from None


def _restored(places: Places, extents: Sequence[Extent], saved: Saved) -> Sequence[Move]:
    """Give the moves to the places of a file. What it does not have came later, and is read from its beginning."""
    _check_stream(places, saved)
    shards = {each.shard: each for each in saved.shards}
    beginnings = {move.shard: move.after for move in plan(extents, Edge.TRIM_HORIZON, None, places.now_ms)}
    return [
        Move(
            extent.shard,
            extent.place,
            _place(places, shards[extent.shard], extent) if extent.shard in shards else beginnings[extent.shard],
        )
        for extent in extents
        if shards
    ]


def _check_stream(places: Places, saved: Saved) -> None:
    """Refuse checkpoints of another stream. Raises ConfigError."""
    if (saved.stream, saved.incarnation) != (places.stream, places.incarnation):
        raise ConfigError(
            f"the checkpoints of {saved.mapping} are of {saved.stream} ({saved.incarnation}), and it reads "
            f"{places.stream} ({places.incarnation}): positions of one mean nothing in the other"
        )


def _place(places: Places, shard: SavedShard, extent: Extent) -> Progress:
    """Give a place that was saved; what is gone from the log meanwhile is not read any more.

    Raises:
        ConfigError: there is no such place.
    """
    try:
        checkpoint = places.checkpoint(shard.position)
    except ValueError:
        raise ConfigError(f"{shard.position} is no position of {shard.shard}: the file is not of this stream") from None
    if extent.end is not None and checkpoint >= extent.end:
        raise ConfigError(
            f"position {shard.position} of {shard.shard} is beyond its end, which is at {extent.end}: "
            "the topic was made again, or lost records, since the checkpoints were exported"
        )
    if extent.first is not None and checkpoint + 1 < extent.first:
        return Progress(extent.first - 1, "")
    return Progress(checkpoint, shard.retry_state, shard.ended)


async def save(store: Store, mapping: str, make_places: Callable[[Store], Places]) -> Saved:
    """Say where a mapping is, as far as it is committed. Raises SourceUnavailable and StoreUnavailable."""
    texts = await store.states(mapping)
    async with opened(make_places(store)) as places:
        shards = [
            SavedShard(shard, places.show(place), place.ended, pointed_to(texts, shard, place.retry_state))
            for shard, place, *_ in await places.extents()
            if place is not None
        ]
    return Saved(mapping, places.stream, places.incarnation, shards)


def _count(spans: Sequence[Span], way: Direction) -> int:
    """Sum up the records that are skipped, or seen again."""
    return sum(span.records for span in spans if span.direction is way)


def _told(places: Places, move: Move, span: Span) -> dict[str, Any]:
    before = move.before
    return {
        "shard": move.shard,
        "from": None if before is None else places.show(before),
        "to": places.show(move.after),
        "finished": move.after.ended,
        "direction": span.direction.value,
        "records": span.records,
        "is_exact": span.is_exact,
        "seconds": span.seconds,
        # A checkpoint passes what is finished, so all that is read again up to it is.
        "duplicates": span.records if span.direction is REPEATS else 0,
        "retries_void": bool(before and before.retry_state and before.retry_state != move.after.retry_state),
    }
