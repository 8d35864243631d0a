"""The source side of a run over a stream whose shards we find, and whose checkpoints the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeVar, assert_never

from router.checkpoints import (
    SHARD,
    STREAM,
    StreamBegun,
    beginning,
    read_shard,
    read_stream,
    write_checkpoint,
    write_shard,
)
from router.core import facts as f
from router.core.describe import ShardStatus
from router.core.model import TRIM_HORIZON, EventSourceMapping, at_time
from router.core.streams import StreamEngine
from router.errors import DecisionNeeded, SourceUnavailable, StoreUnavailable
from router.ports import PutState, ShardCodec, ShardSource, Store
from router.reads import Reads
from router.runner import Passes, Post, Spawn
from router.telemetry import MappingMetrics

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recalled:
    """Where a mapping is in its stream, as it is written down."""

    #: Checkpoint of a shard that has none.
    start: int
    shards: Mapping[str, f.Progress]
    #: Was the stream that it had begun deleted, and made again under its name?
    remade: bool


class ShardSide:
    """Serves the commands of a StreamEngine over a ShardSource."""

    def __init__(
        self,
        source: ShardSource,
        store: Store,
        mapping: str,
        recalled: Recalled,
        *,
        passes: Passes | None,
        metrics: MappingMetrics,
    ) -> None:
        self.codec: ShardCodec = source.codec
        self._source = source
        self._store = store
        self._mapping = mapping
        self._recalled = recalled
        self._passes = passes
        self._metrics = metrics
        self._post: Post
        self._spawn: Spawn
        #: None before `follow`.
        self._reads: Reads | None = None
        #: What of `recalled` was not taken up in this run yet.
        self._kept = dict(recalled.shards)

    async def follow(self, post: Post, spawn: Spawn) -> None:
        """Say that the stream is open; it says nothing by itself."""
        self._post, self._spawn = post, spawn
        self._reads = Reads(self._source.read, self.codec, self._passes, self._metrics, post, spawn)
        finished = frozenset(name for name, progress in self._kept.items() if progress.ended)
        post(f.StreamOpened(frozenset(self._kept), finished, self._recalled.remade))

    def stop(self) -> None:
        if self._reads:
            self._reads.stop()

    def do(self, command: f.StreamCommand) -> None:
        match command:
            case f.Read():
                assert self._reads is not None, "commands come after `follow`"
                self._reads.replace(command)
            case f.Commit(done):
                self._spawn(partial(self._commit, done))
            case f.List():
                self._spawn(self._list)
            case f.Open(shard):
                progress = self._kept.pop(shard, f.Progress(self._recalled.start, ""))
                self._post(f.ShardOpened(shard, shard, progress.checkpoint, progress.retry_state))
            case f.Locate(shard):
                # Only asked for what was lost: whatever the shard still has, nothing of it may be skipped.
                self._post(f.Rewound(shard))
            case f.Forget(shards):
                self._spawn(partial(self._forget, shards))
            case f.Release():
                raise AssertionError("nobody wants a shard back")
            case _:
                assert_never(command)

    def lag_records(self, shard: ShardStatus) -> int | None:
        done = shard.oldest_ms is None and not shard.in_flight
        return 0 if done and self._source.behind_ms(shard.shard) == 0 else None

    def position(self, checkpoint: int) -> int | str | None:
        return write_checkpoint(checkpoint, self.codec)

    async def _list(self) -> None:
        """List the shards. Raises SourceUnavailable where they are another stream's: what we know is not of it."""
        incarnation = self._source.incarnation
        try:
            shards = await self._source.shards()
        except SourceUnavailable as error:
            self._post(f.ListFailed(str(error)))
            return
        if self._source.incarnation != incarnation:
            raise SourceUnavailable("The stream was deleted and made again; it is opened anew and read whole.")
        self._post(f.ShardsListed(shards))

    async def _commit(self, done: Mapping[str, f.Progress]) -> None:
        texts = {f"{SHARD}{shard}": write_shard(progress, self.codec) for shard, progress in done.items()}
        try:
            await self._put(texts)
        except StoreUnavailable as error:
            self._post(f.CommitFailed(str(error)))
        else:
            self._post(f.Committed())

    async def _forget(self, shards: Sequence[str]) -> None:
        with suppress(StoreUnavailable):  # it is asked for again after the next start
            await self._put({f"{SHARD}{shard}": "" for shard in shards})

    async def _put(self, texts: Mapping[str, str]) -> None:
        await self._store.apply([PutState(self._mapping, key, text) for key, text in texts.items()])


# --- what is written down


async def _recall(source: ShardSource, mapping: EventSourceMapping, store: Store) -> Recalled:
    """Read where a mapping is; where it begins is written down before anything is read, so that no crash moves it.

    Raises:
        DecisionNeeded, SourceUnavailable, StoreUnavailable
    """
    states = await store.states(mapping.name)
    codec = source.codec
    begun = _parse(mapping.name, STREAM, states[STREAM], read_stream, codec) if STREAM in states else None
    remade = begun is not None and begun.incarnation != source.incarnation
    if begun is None or remade:
        begun, states = await begin(source, mapping, store, states, remade=remade)
    shards = {
        key.removeprefix(SHARD): _parse(mapping.name, key, text, read_shard, codec)
        for key, text in states.items()
        if key.startswith(SHARD)
    }
    return Recalled(begun.start, shards, remade)


async def begin(
    source: ShardSource, mapping: EventSourceMapping, store: Store, states: Mapping[str, str], *, remade: bool
) -> tuple[StreamBegun, Mapping[str, str]]:
    """Write down where a stream begins. One that took another's place is read whole: nothing of it has been seen.

    Raises:
        SourceUnavailable, StoreUnavailable
    """
    latest = mapping.starting_position == "LATEST" and not remade
    shards = await source.shards() if latest else ()
    begun = StreamBegun(source.incarnation, TRIM_HORIZON if remade else _start(source, mapping))
    changes = beginning(mapping.name, begun, shards, states, source.codec, latest=latest)
    await store.apply(changes)
    return begun, {change.key: change.text for change in changes if change.text}


def _start(source: ShardSource, mapping: EventSourceMapping) -> int:
    if mapping.starting_position == "LATEST":
        return at_time(int(source.server_time_s * 1000))
    return TRIM_HORIZON if mapping.starting_time_ms is None else at_time(mapping.starting_time_ms)


def _parse(mapping: str, key: str, text: str, read: Callable[[str, ShardCodec], T], codec: ShardCodec) -> T:
    try:
        return read(text, codec)
    except ValueError as error:
        raise DecisionNeeded(
            "CheckpointUnreadable",
            f"What the store keeps under {key} is no checkpoint of this stream ({error}). Put one there with "
            f"`headrace checkpoints import`, or let it begin anew: `headrace mapping accept {mapping}`.",
        ) from error


async def plug_shards(
    source: ShardSource,
    mapping: EventSourceMapping,
    rng: Random,
    *,
    store: Store,
    passes: Passes | None,
    metrics: MappingMetrics,
) -> tuple[StreamEngine, ShardSide]:
    """Make the engine of a stream whose checkpoints we keep, and its source side, once its beginning is written down.

    Raises:
        DecisionNeeded: what the store has cannot be read.
        SourceUnavailable, StoreUnavailable
    """
    recalled = await _recall(source, mapping, store)
    engine = StreamEngine(mapping, source.codec.identify, rng)
    return engine, ShardSide(source, store, mapping.name, recalled, passes=passes, metrics=metrics)
