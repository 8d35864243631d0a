"""Plays the runner of a queue engine by hand, one fact at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from router.core import facts as f
from router.core.model import (
    NOT_READ,
    QUEUE_RULES,
    Backoff,
    Batch,
    Chunk,
    EventSourceMapping,
    Instant,
    Outcome,
    Polling,
    Returned,
)
from router.core.queues import QueueEngine

GOOD = Returned(NOT_READ)
WALL_S = 1_700_000_000.0
RULES = replace(QUEUE_RULES, refusal_backoff=Backoff(1.0, 256.0, jitter=0.0, factor=4.0))


def identify(item: object, batch: Batch) -> int | None:
    return item if isinstance(item, int) and item in batch.positions() else None


def report(*positions: object) -> Returned:
    return Returned({"batchItemFailures": [{"itemIdentifier": position} for position in positions]})


def page(
    positions: Sequence[int],
    *,
    keys: Sequence[bytes | None] = (),
    kept: Sequence[int] | None = None,
    unfit: Mapping[int, str] | None = None,
    ranks: Sequence[int] = (),
    sent_s: float = WALL_S,
    size: int = 100,
    receive: int = 1,
) -> Chunk:
    """Messages; a row is its position and which receive it came by."""
    return Chunk(
        "queue",
        list(positions),
        [size] * len(positions),
        [int(sent_s * 1000)] * len(positions),
        list(keys),
        [(position, receive) for position in positions],
        through=-1,
        kept=kept,
        unfit=unfit or {},
        ranks=ranks,
    )


class Play:
    """Feeds an engine by hand, and remembers what it asked for last."""

    def __init__(
        self, *, remembered: Mapping[int, str] | None = None, polling: Polling | None = None, **settings: Any
    ) -> None:
        values: dict[str, Any] = {"batch_size": 2, "backoff": Backoff(1.0, 60.0, jitter=0.0), **settings}
        values["polling"] = polling or Polling(function_concurrency=2)
        mapping = EventSourceMapping("mapping", "function", RULES, **values)
        self.engine = QueueEngine(mapping, "queue", identify, Random(1), remembered or {})
        self.now_s = 0.0
        self.asked: list[f.Command] = []
        self.notes: list[f.Note] = []
        self.running: dict[str, Batch] = {}
        self.polls: dict[int, f.Receive] = {}
        self.wakes: list[float] = []
        self.feed(f.QueueOpened())

    @property
    def instant(self) -> Instant:
        return Instant(self.now_s, WALL_S + self.now_s)

    def feed(self, fact: f.QueueFact) -> list[f.Command]:
        """Give what the fact leads to, without notes, wake-ups and receives."""
        commands = self.engine.feed(fact, self.instant)
        for command in commands:
            match command:
                case f.WakeAt(mono_s):
                    self.wakes.append(mono_s)
                case f.Note():
                    self.notes.append(command)
                case f.Receive(poll):
                    self.polls[poll] = command
                case f.StopReceiving(poll):
                    del self.polls[poll]
                case f.Invoke(batch):
                    self.running[batch.id] = batch
        aside = f.Note | f.WakeAt | f.Receive | f.StopReceiving
        self.asked = [command for command in commands if not isinstance(command, aside)]
        return self.asked

    def wait(self) -> list[f.Command]:
        """Let time pass to the next wake-up."""
        self.now_s = max(self.now_s, min(self.wakes))
        self.wakes = [mono_s for mono_s in self.wakes if mono_s > self.now_s]
        return self.feed(f.Due())

    def wait_until(self, mono_s: float) -> list[f.Command]:
        """Let time pass, with all wake-ups on the way; give what they led to."""
        commands: list[f.Command] = []
        while self.wakes and min(self.wakes) <= mono_s:
            commands += self.wait()
        self.now_s = mono_s
        return commands

    def receive(
        self, chunk: Chunk, lease_s: float = 30.0, *, recalled: Mapping[int, str] | None = None
    ) -> list[f.Command]:
        poll = next(iter(self.polls))
        del self.polls[poll]
        return self.feed(f.Received(poll, chunk, lease_s, recalled or {}))

    def end(self, outcome: Outcome = GOOD, *, which: int = 0) -> list[f.Command]:
        """End the invocation that has run for longest, or another one."""
        batch_id = list(self.running)[which]
        del self.running[batch_id]
        return self.feed(f.InvocationEnded(batch_id, outcome))

    def only(self, kind: type) -> Any:
        (command,) = [command for command in self.asked if isinstance(command, kind)]
        return command


def invoked(commands: list[f.Command]) -> list[list[int]]:
    return [command.batch.positions() for command in commands if isinstance(command, f.Invoke)]


def deleted(commands: list[f.Command]) -> list[int]:
    return [position for command in commands if isinstance(command, f.Delete) for position in command.messages]
