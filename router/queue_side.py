"""The source side of a run over a queue: carries out receives, deletes and the rest, and tells what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, assert_never

from router.core import facts as f
from router.core.describe import ShardStatus
from router.core.model import EventSourceMapping
from router.core.queues import QueueEngine
from router.errors import SourceUnavailable, StoreUnavailable
from router.ports import Codec, Holds, PutState, QueueSource, Store
from router.runner import Passes, Post, Spawn, keep_passing
from router.telemetry import MappingMetrics

#: Keys of the store under which messages' states are, before the message's position.
_KEY = "message:"
#: Longest wait for what is kept of messages that come again: the lease that they came with runs.
_RECALL_S = 1.0


async def _remembered(store: Store, mapping: str) -> dict[int, str]:
    """Give what a mapping's engine asked to remember, by position.

    Raises:
        StoreUnavailable
    """
    states = await store.states(mapping)
    return {int(key.removeprefix(_KEY)): text for key, text in states.items() if key.startswith(_KEY)}


class QueueSide:
    """Serves the commands of a QueueEngine."""

    def __init__(
        self,
        source: QueueSource,
        store: Store,
        mapping: EventSourceMapping,
        *,
        passes: Passes | None,
        metrics: MappingMetrics,
    ) -> None:
        self.codec: Codec = source.codec
        self._source = source
        self._store = store
        self._mapping = mapping.name
        self._remembers = mapping.remembers_messages
        self._passes = passes
        self._metrics = metrics
        self._post: Post
        self._spawn: Spawn
        self._receives: dict[int, asyncio.Task[None]] = {}

    async def follow(self, post: Post, spawn: Spawn) -> None:
        """Say that the queue is open; it says nothing by itself."""
        self._post, self._spawn = post, spawn
        post(f.QueueOpened())

    def stop(self) -> None:
        for receive in self._receives.values():
            receive.cancel()

    def left(self) -> None:
        """Nothing: what is not deleted comes again."""

    def may_begin(self, shard: str) -> bool:  # noqa: ARG002 - each message is ours for a time
        return True

    def fences(self, shard: str) -> Sequence[Holds]:  # noqa: ARG002 - messages have no owner
        return ()

    def do(self, command: f.QueueCommand) -> None:
        match command:
            case f.Receive(poll, limit, wait_s):
                self._receives[poll] = self._spawn(partial(self._receive, poll, limit, wait_s))
            case f.StopReceiving(poll):
                self._receives.pop(poll).cancel()
            case f.Delete(call, messages):
                self._spawn(partial(self._delete, call, messages))
            case f.Extend(call, messages, lease_s):
                self._spawn(partial(self._extend, call, messages, lease_s))
            case f.Remember(call, texts):
                self._spawn(partial(self._remember, call, texts))
            case _:
                assert_never(command)

    def why_stuck(self) -> tuple[str, str] | None:
        return None  # the engine is told of all that the source meets

    def lag_records(self, shard: ShardStatus) -> int | None:  # noqa: ARG002 - a queue has no positions
        return self._source.backlog()

    def position(self, checkpoint: int) -> int | str | None:  # noqa: ARG002 - a queue has no positions
        return None

    async def _receive(self, poll: int, limit: int, wait_s: float) -> None:
        try:
            chunk = await self._source.receive(limit, wait_s)
        except SourceUnavailable as error:
            fact: f.Fact = f.ReceiveFailed(poll, str(error))
        else:
            keep_passing(chunk, self.codec, self._passes, self._metrics)
            recalled = await self._recall([chunk.positions[index] for index in chunk.again])
            fact = f.Received(poll, chunk, self._source.lease_s, recalled)
        del self._receives[poll]
        self._post(fact)

    async def _recall(self, positions: Sequence[int]) -> Mapping[int, str]:
        """Give what is kept of messages that come again; nothing while the store is away: then only our own counts."""
        if not self._remembers or not positions:
            return {}
        try:
            async with asyncio.timeout(_RECALL_S):
                texts = await self._store.some_states(self._mapping, [f"{_KEY}{position}" for position in positions])
        except (StoreUnavailable, TimeoutError):
            return {}
        return {int(key.removeprefix(_KEY)): text for key, text in texts.items()}

    async def _delete(self, call: int, messages: Mapping[int, Any]) -> None:
        try:
            failed = await self._source.delete(list(messages.values()))
        except SourceUnavailable as error:
            self._post(f.DeleteFailed(call, str(error)))
        else:
            self._metrics.deleted.inc(len(messages) - len(failed))
            self._post(f.Deleted(call, _by_position(messages, failed)))

    async def _extend(self, call: int, messages: Mapping[int, Any], lease_s: int) -> None:
        try:
            failed = await self._source.extend(list(messages.values()), lease_s)
        except SourceUnavailable as error:
            self._post(f.ExtendFailed(call, str(error)))
        else:
            self._post(f.Extended(call, _by_position(messages, failed)))

    async def _remember(self, call: int, texts: Mapping[int, str]) -> None:
        try:
            await self._store.apply([PutState(self._mapping, f"{_KEY}{at}", text) for at, text in texts.items()])
        except StoreUnavailable as error:
            self._post(f.RememberFailed(call, str(error)))
        else:
            self._post(f.Remembered(call))


def _by_position(messages: Mapping[int, Any], failed: Mapping[int, str]) -> Mapping[int, str]:
    positions = list(messages)
    return {positions[index]: why for index, why in failed.items()}


async def plug_queue(
    source: QueueSource,
    mapping: EventSourceMapping,
    rng: Random,
    *,
    store: Store,
    passes: Passes | None,
    metrics: MappingMetrics,
) -> tuple[QueueEngine, QueueSide]:
    """Make the engine of a queue, with what it has asked to remember, and its source side.

    Raises:
        StoreUnavailable
    """
    states = await _remembered(store, mapping.name)
    engine = QueueEngine(mapping, source.name, source.codec.identify, rng, states)
    return engine, QueueSide(source, store, mapping, passes=passes, metrics=metrics)
