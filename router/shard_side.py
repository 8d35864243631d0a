"""The source side of a run over a stream whose shards we find, and whose checkpoints the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeAlias, TypeVar, assert_never

from router.checkpoints import (
    SHARD,
    STREAM,
    StreamBegun,
    beginning,
    is_of,
    read_shard,
    read_stream,
    write_checkpoint,
    write_shard,
)
from router.core import facts as f
from router.core.describe import ShardStatus
from router.core.model import TRIM_HORIZON, EventSourceMapping, at_time
from router.core.streams import StreamEngine
from router.errors import DecisionNeeded, LeaseLost, SourceUnavailable, StoreUnavailable
from router.fleet.fleet import Fleet
from router.fleet.tenure import FinishedElsewhere, Granted, LeaseChange, Lost, Revoking, Tenure, beginner
from router.ports import Holds, PutState, ShardCodec, ShardSource, Store
from router.reads import Reads
from router.runner import Passes, Post, Spawn
from router.telemetry import MappingMetrics

T = TypeVar("T")
#: A context in which only we write down where a mapping begins, by naming these.
Begins: TypeAlias = Callable[[], AbstractAsyncContextManager[Sequence[Holds]]]


@dataclass(frozen=True, slots=True)
class Recalled:
    """Where a mapping is in its stream, as it is written down."""

    #: Checkpoint of a shard that has none.
    start: int
    shards: Mapping[str, f.Progress]
    #: Was the stream that it had begun deleted, and made again under its name?
    remade: bool
    #: Which of the streams that ever had this name it is.
    incarnation: str


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
        tenure: Tenure | None = None,
    ) -> None:
        """Make it; with a `tenure` shards are read only while their leases are ours."""
        self.codec: ShardCodec = source.codec
        self._source = source
        self._store = store
        self._mapping = mapping
        self._recalled = recalled
        self._passes = passes
        self._metrics = metrics
        self._tenure = tenure
        #: What writes for shards that were granted must name, also after they were lost.
        self._fences: dict[str, Holds] = {}
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
        if self._tenure:
            self._tenure.attend(self._on_change)

    def stop(self) -> None:
        if self._reads:
            self._reads.stop()

    def left(self) -> None:
        if self._tenure:
            self._tenure.leave()

    def may_begin(self, shard: str) -> bool:
        if self._tenure is None or shard not in self._fences:
            return True  # what is over is nobody's
        self._tenure.look()
        return self._tenure.has(shard)

    def fences(self, shard: str) -> Sequence[Holds]:
        return [self._fences[shard]] if shard in self._fences else ()

    def do(self, command: f.StreamCommand) -> None:
        match command:
            case f.Read():
                assert self._reads is not None, "commands come after `follow`"
                self._reads.replace(command)
            case f.Commit(done):
                fences = {shard: self._fences[shard] for shard in done if shard in self._fences}
                self._spawn(partial(self._commit, done, fences))
            case f.List():
                self._spawn(self._list)
            case f.Open(shard) if self._tenure:
                self._tenure.wish(shard)
            case f.Open(shard):
                progress = self._kept.pop(shard, f.Progress(self._recalled.start, ""))
                self._post(f.ShardOpened(shard, shard, progress.checkpoint, progress.retry_state))
            case f.Locate(shard):
                # Only asked for what was lost: whatever the shard still has, nothing of it may be skipped.
                self._post(f.Rewound(shard))
            case f.Forget(shards):
                self._spawn(partial(self._forget, shards))
            case f.Release(shard, finished, leaving):
                self._release(shard, finished=finished, leaving=leaving)
            case _:
                assert_never(command)

    def why_stuck(self) -> tuple[str, str] | None:
        return self._tenure.why_stuck() if self._tenure else None

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

    # --- shards that are leased

    def _on_change(self, change: LeaseChange) -> None:
        match change:
            case Granted(shard, text, token):
                self._fences[shard] = Holds(self._mapping, shard, token)
                self._take_up(shard, text)
            case Revoking(shard):
                self._post(f.ShardRevoking(shard))
            case Lost(shard):
                self._post(f.ShardLost(shard))
            case FinishedElsewhere(shards):
                self._finished(shards)

    def _take_up(self, shard: str, text: str) -> None:
        """Go on where the store says that a shard is."""
        try:
            progress = _progress(self._mapping, self._recalled, shard, text, self.codec)
        except DecisionNeeded as decision:
            self._spawn(partial(_refuse, decision))
            return
        if progress.ended:  # its owner was gone before it could say so
            self._release(shard, finished=True)
            self._post(f.ShardsFinished([shard]))
        else:
            self._post(f.ShardOpened(shard, shard, progress.checkpoint, progress.retry_state))

    def _finished(self, shards: Sequence[str]) -> None:
        if self._tenure:
            for shard in shards:
                self._fences.pop(shard, None)
                self._tenure.unwish(shard)
        self._post(f.ShardsFinished(shards))

    def _release(self, shard: str, *, finished: bool, leaving: bool = False) -> None:
        if self._tenure:
            self._fences.pop(shard, None)
            self._tenure.release(shard, finished=finished)
            if leaving:  # else it might come back again and again while other shards end
                self._tenure.unwish(shard)

    # --- committing

    async def _commit(self, done: Mapping[str, f.Progress], fences: Mapping[str, Holds]) -> None:
        try:
            lost = await self._commit_held(done, fences)
        except StoreUnavailable as error:
            self._post(f.CommitFailed(str(error)))
            return
        for shard in lost:
            if self._fences.get(shard) == fences[shard]:  # else it is ours again meanwhile
                self._post(f.ShardLost(shard))
        self._post(f.Committed())

    async def _commit_held(self, done: Mapping[str, f.Progress], fences: Mapping[str, Holds]) -> Sequence[str]:
        """Write where shards are, together; gives those that are not ours any more, of which nothing is written."""
        of = self._recalled.incarnation if self._tenure else ""
        puts = {
            shard: PutState(self._mapping, f"{SHARD}{shard}", write_shard(progress, self.codec, of=of))
            for shard, progress in done.items()
        }
        try:
            await self._store.apply([*fences.values(), *puts.values()])
        except LeaseLost:
            return [shard for shard, put in puts.items() if not await self._is_written(put, fences.get(shard))]
        return ()

    async def _is_written(self, put: PutState, fence: Holds | None) -> bool:
        try:
            await self._store.apply([put] if fence is None else [fence, put])
        except LeaseLost:
            return False
        return True

    async def _forget(self, shards: Sequence[str]) -> None:
        with suppress(StoreUnavailable):  # it is asked for again after the next start
            await self._store.apply([PutState(self._mapping, f"{SHARD}{shard}", "") for shard in shards])
            if self._tenure:
                self._tenure.forget(shards)


async def _refuse(decision: DecisionNeeded) -> None:
    """End the run: it begins anew, and says before that what is to be decided."""
    raise decision


# --- what is written down


async def _recall(
    source: ShardSource, mapping: EventSourceMapping, store: Store, begins: Begins | None = None
) -> Recalled:
    """Read where a mapping is; where it begins is written down before anything is read, so that no crash moves it.

    Raises:
        DecisionNeeded, SourceUnavailable, StoreUnavailable
    """
    states = await store.states(mapping.name)
    codec = source.codec
    begun, remade = _begun(source, mapping, states)
    if begun is None or remade:
        async with begins() if begins else nullcontext(()) as fences:
            if fences:  # another replica may have been first
                states = await store.states(mapping.name)
                begun, remade = _begun(source, mapping, states)
            if begun is None or remade:
                begun, states = await begin(source, mapping, store, states, remade=remade, fences=fences)
    shards = {
        key.removeprefix(SHARD): _parse(mapping.name, key, text, read_shard, codec)
        for key, text in states.items()
        if key.startswith(SHARD) and is_of(text, source.incarnation)
    }
    return Recalled(begun.start, shards, remade, source.incarnation)


def _begun(
    source: ShardSource, mapping: EventSourceMapping, states: Mapping[str, str]
) -> tuple[StreamBegun | None, bool]:
    """Give how a mapping began, and whether that was in a stream that is not there any more."""
    if STREAM not in states:
        return None, False
    begun = _parse(mapping.name, STREAM, states[STREAM], read_stream, source.codec)
    return begun, begun.incarnation != source.incarnation


async def begin(
    source: ShardSource,
    mapping: EventSourceMapping,
    store: Store,
    states: Mapping[str, str],
    *,
    remade: bool,
    fences: Sequence[Holds] = (),
) -> tuple[StreamBegun, Mapping[str, str]]:
    """Write down where a stream begins. One that took another's place is read whole: nothing of it has been seen.

    Raises:
        SourceUnavailable, StoreUnavailable, LeaseLost
    """
    latest = mapping.starting_position == "LATEST" and not remade
    shards = await source.shards() if latest else ()
    begun = StreamBegun(source.incarnation, TRIM_HORIZON if remade else _start(source, mapping))
    changes = beginning(mapping.name, begun, shards, states, source.codec, latest=latest)
    await store.apply([*fences, *changes])
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


def _progress(mapping: str, recalled: Recalled, shard: str, text: str, codec: ShardCodec) -> f.Progress:
    """Read where a shard is that was granted. Raises DecisionNeeded."""
    if not text or not is_of(text, recalled.incarnation):
        return f.Progress(recalled.start, "")
    return _parse(mapping, f"{SHARD}{shard}", text, read_shard, codec)


async def plug_shards(
    source: ShardSource,
    mapping: EventSourceMapping,
    rng: Random,
    *,
    store: Store,
    passes: Passes | None,
    metrics: MappingMetrics,
    fleet: Fleet | None = None,
) -> tuple[StreamEngine, ShardSide]:
    """Make the engine of a stream whose checkpoints we keep, and its source side, once its beginning is written down.

    Raises:
        DecisionNeeded: what the store has cannot be read.
        SourceUnavailable, StoreUnavailable
        LeaseLost: another replica writes down where it begins; plug it in again.
    """
    # Before it is read where the shards are: what others finish from then on is heard.
    tenure = fleet.tenure(mapping.name) if fleet else None
    finished = {shard for shard, lease in fleet.leases(mapping.name).items() if lease.finished} if fleet else set()
    try:
        begins = partial(beginner, fleet, mapping.name) if fleet else None
        recalled = await _recall(source, mapping, store, begins)
        if tenure:
            # Sought since then, or of a stream that was deleted: they are read, whatever became of their leases.
            tenure.forget(finished - {shard for shard, progress in recalled.shards.items() if progress.ended})
    except BaseException:
        if tenure:
            tenure.leave()
        raise
    engine = StreamEngine(mapping, source.codec.identify, rng)
    side = ShardSide(source, store, mapping.name, recalled, passes=passes, metrics=metrics, tenure=tenure)
    return engine, side
