"""A queue in memory, and a QueueSource over it: no threads, faults by script, time by the loop's clock.

`MemoryQueue` is the server: messages, leases, receipts, redrive, FIFO groups. It outlives its sources, so that closing
one and opening another is a restart. `MemoryQueueSource` is one connection. Both pass the conformance suite.

It is an ideal queue: a receive gives what is visible, in the order it was sent. `shuffle` makes a standard queue as
disorderly as real ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from router.core.model import QUEUE_RULES, Batch, Chunk, FailedBatch, SourceRules
from router.errors import RouterError, SourceUnavailable
from router.ports import Codec, WallClock

#: Timers of the loop may be this early.
EARLY_S = 1e-5


@dataclass(frozen=True, slots=True)
class MemoryMessage:
    """A message as one receive handed it out."""

    id: str
    body: str
    group: str | None
    #: Place among all messages of the queue, from 1.
    sequence: int
    sent_ms: int
    #: Times it was received, this one included.
    receives: int
    receipt: str
    #: The queue it was moved from by redrive.
    moved_from: str | None = None

    @property
    def attributes(self) -> dict[str, str]:
        attributes = {"ApproximateReceiveCount": str(self.receives), "SentTimestamp": str(self.sent_ms)}
        if self.group is not None:
            attributes |= {"MessageGroupId": self.group, "SequenceNumber": f"{self.sequence:020d}"}
        if self.moved_from is not None:
            attributes["DeadLetterQueueSourceArn"] = self.moved_from
        return attributes


@dataclass(slots=True)
class Held:
    """A message as the queue holds it."""

    id: str
    body: str
    group: str | None
    sequence: int
    sent_ms: int
    #: Loop time from which it may be received.
    visible_s: float
    receives: int = 0
    #: The receipt of the last receive; None while it was never received, or was put back.
    receipt: str | None = None
    moved_from: str | None = None


@dataclass(frozen=True, slots=True)
class Redrive:
    """Where a message goes instead of a receive that would exceed `maximum` receives."""

    to: MemoryQueue
    maximum: int


class MemoryQueue:
    """The server side. Everything on it takes effect at once."""

    def __init__(
        self,
        name: str = "orders",
        *,
        fifo: bool = False,
        lease_s: float = 30.0,
        delay_s: float = 0.0,
        redrive: Redrive | None = None,
        wall: WallClock | None = None,
        shuffle: Random | None = None,
    ) -> None:
        self.name = name
        self.fifo = fifo
        self.lease_s = lease_s
        self.delay_s = delay_s
        self.redrive = redrive
        #: Was it deleted? It may be created again by setting this to False.
        self.gone = False
        #: Loop time and id of every message that was deleted by receipt, or moved by redrive, in order.
        self.deleted: list[tuple[float, str]] = []
        self.moved: list[tuple[float, str]] = []
        self._messages: dict[str, Held] = {}
        self._wall = wall
        self._shuffle = shuffle
        self._planned: list[tuple[float, int, str, str | None, str | None]] = []
        self._plans = count()
        self._numbers = count(1)
        self._receipts = count(1)
        self._changed = asyncio.Event()

    # --- the senders' side

    def send(
        self, body: str, *, group: str | None = None, message_id: str | None = None, delay_s: float | None = None
    ) -> str:
        """Put a message in, visible after its delay; returns its id."""
        assert (group is not None) is self.fifo, "groups belong to FIFO queues"
        number = next(self._numbers)
        name = message_id or str(UUID(int=number << 80 | hash_of(self.name) >> 64, version=4))
        assert name not in self._messages
        sent_ms = int((self._wall or _now_s)() * 1000)
        visible_s = _now_s() + (self.delay_s if delay_s is None else delay_s)
        self._messages[name] = Held(name, body, group, number, sent_ms, visible_s)
        self._change()
        return name

    def send_at(self, time_s: float, body: str, *, group: str | None = None, message_id: str | None = None) -> None:
        """Send when the loop's clock shows `time_s`; what is to be sent at one time keeps its order."""
        heappush(self._planned, (time_s, next(self._plans), body, group, message_id))
        asyncio.get_running_loop().call_at(time_s, self._send_planned)

    def _send_planned(self) -> None:
        _, _, body, group, message_id = heappop(self._planned)
        self.send(body, group=group, message_id=message_id)

    def remove(self) -> None:
        """Delete the queue and all its messages."""
        self.gone = True
        self._messages.clear()
        self._change()

    def expose(self, message_id: str) -> None:
        """Let the lease of a message end early, as a queue does that delivers twice."""
        self._messages[message_id].visible_s = _now_s()
        self._change()

    # --- what there is

    @property
    def messages(self) -> Mapping[str, Held]:
        """All messages that are not deleted, in the order they were sent."""
        return self._messages

    def counts(self) -> tuple[int, int, int]:
        """Count messages that are visible, in flight, and delayed."""
        hidden = [held for held in self._messages.values() if not _is_visible(held)]
        in_flight = sum(held.receipt is not None for held in hidden)
        return len(self._messages) - len(hidden), in_flight, len(hidden) - in_flight

    # --- the receivers' side

    def receive(self, limit: int) -> list[MemoryMessage]:
        """Hand out what is visible, up to `limit`, and hide it for `lease_s`."""
        given: list[MemoryMessage] = []
        locked = self._locked_groups() if self.fifo else set()
        candidates = list(self._messages.values())
        if self._shuffle and not self.fifo:
            self._shuffle.shuffle(candidates)
        for held in candidates:
            if len(given) == limit:
                break
            if held.group in locked:
                continue
            if not _is_visible(held):
                # What comes later in the group waits behind it, also while it is only delayed.
                locked.add(held.group) if self.fifo else None
            elif self.redrive and held.receives >= self.redrive.maximum:
                self._move(held, self.redrive.to)
            else:
                given.append(self._hand_out(held))
        return given

    def _locked_groups(self) -> set[str | None]:
        return {held.group for held in self._messages.values() if held.receipt and not _is_visible(held)}

    def _hand_out(self, held: Held) -> MemoryMessage:
        held.receives += 1
        held.receipt = f"{self.name}:{held.id}:{next(self._receipts)}"
        held.visible_s = _now_s() + self.lease_s
        return MemoryMessage(
            held.id, held.body, held.group, held.sequence, held.sent_ms, held.receives, held.receipt, held.moved_from
        )

    def _move(self, held: Held, to: MemoryQueue) -> None:
        del self._messages[held.id]
        self.moved.append((_now_s(), held.id))
        to._messages[held.id] = Held(
            held.id, held.body, held.group, next(to._numbers), held.sent_ms, _now_s(), moved_from=self.name
        )
        to._change()
        self._change()

    def delete(self, receipt: str) -> str | None:
        """Delete the message of a receipt; give why not. What is deleted already is no mistake, as in SQS."""
        held = self._messages.get(receipt.split(":")[-2])
        if held is None:
            return None
        if held.receipt != receipt:
            return "ReceiptHandleIsInvalid: the message was received again"
        if self.fifo and _is_visible(held):
            return "InvalidParameterValue: the receipt handle has expired"
        del self._messages[held.id]
        self.deleted.append((_now_s(), held.id))
        self._change()
        return None

    def change_lease(self, receipt: str, lease_s: float) -> str | None:
        """Let the lease of a receipt end `lease_s` from now; give why not."""
        held = self._messages.get(receipt.split(":")[-2])
        if held is None or held.receipt != receipt:
            return "ReceiptHandleIsInvalid: it is not the message's last one"
        if _is_visible(held):
            return "MessageNotInflight: its lease has ended"
        held.visible_s = _now_s() + lease_s
        self._change()
        return None

    async def change(self) -> None:
        """Wait until there may be more to receive than now: something happened, or a message gets visible."""
        next_s = min((held.visible_s for held in self._messages.values() if not _is_visible(held)), default=None)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(next_s):
                await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _is_visible(held: Held) -> bool:
    return held.visible_s <= _now_s() + EARLY_S


def hash_of(text: str) -> int:
    """The first 128 bits of a text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def position_of(message_id: str) -> int:
    """Give a message's identity as a number: its UUID, else a hash of what is none."""
    try:
        return UUID(message_id).int
    except ValueError:
        return hash_of(message_id)


class MemoryQueueCodec:
    """Events of a made-up service, with the members of SQS."""

    def __init__(self, name: str, rules: SourceRules = QUEUE_RULES) -> None:
        self.rules = rules
        self._name = name

    def event(self, rows: Sequence[MemoryMessage]) -> bytes:
        return json.dumps({"Records": [_record(row) for row in rows]}, separators=(",", ":")).encode()

    def parse(self, event: bytes) -> Chunk:
        try:
            rows = [_message(record) for record in json.loads(event)["Records"]]
        except (KeyError, TypeError) as error:
            raise ValueError("it is no event of a queue in memory") from error
        return memory_chunk(self._name, rows)

    def identify(self, item: object, batch: Batch) -> int | None:
        if not isinstance(item, str):
            return None
        position = position_of(item)
        return position if position in batch.positions() and item in {row.id for row in batch.rows()} else None

    def view(self, row: MemoryMessage) -> tuple[Mapping[str, object], bytes | None]:
        return {"messageId": row.id, "attributes": row.attributes}, row.body.encode()

    def batch_info(self, failure: FailedBatch, event: bytes) -> Mapping[str, object]:
        return {"MemoryBatchInfo": {"batchSize": failure.batch_size, "shard": failure.shard, "size": len(event)}}


def _record(row: MemoryMessage) -> dict[str, object]:
    return {
        "messageId": row.id,
        "receiptHandle": row.receipt,
        "body": row.body,
        "attributes": row.attributes,
        "eventSource": "memory",
    }


def _message(record: Mapping[str, Any]) -> MemoryMessage:
    attributes = record["attributes"]
    return MemoryMessage(
        record["messageId"],
        record["body"],
        attributes.get("MessageGroupId"),
        int(attributes.get("SequenceNumber", 0)),
        int(attributes["SentTimestamp"]),
        int(attributes["ApproximateReceiveCount"]),
        record["receiptHandle"],
        attributes.get("DeadLetterQueueSourceArn"),
    )


def memory_chunk(shard: str, rows: Sequence[MemoryMessage]) -> Chunk:
    return Chunk(
        shard,
        [position_of(row.id) for row in rows],
        [len(json.dumps(_record(row))) for row in rows],
        [row.sent_ms for row in rows],
        [None if row.group is None else row.group.encode() for row in rows],
        rows,
        through=position_of(rows[-1].id) if rows else -1,
        again=[index for index, row in enumerate(rows) if row.receives > 1],
    )


@dataclass(slots=True)
class _Fault:
    error: RouterError
    #: Does the server do it all the same, and only its answer is lost?
    happens: bool


@dataclass(slots=True)
class _Script:
    faults: dict[str, deque[_Fault]] = field(default_factory=lambda: defaultdict(deque))
    #: Why the next delete or extend of a message fails, by call and message id.
    refusals: dict[tuple[str, str], deque[str]] = field(default_factory=lambda: defaultdict(deque))


class MemoryQueueSource:
    """One connection to a MemoryQueue.

    Args:
        queue: The server.
        rules: Those of the codec.
        latency_s: Time from what the server does to its answer; what is cancelled meanwhile has happened.
        ignores: Messages that the source's own rules filter out.
        unfit: Says why no event can be made of a message; None = one can.
    """

    pinned = False
    handicap: str | None = None

    def __init__(
        self,
        queue: MemoryQueue,
        *,
        rules: SourceRules = QUEUE_RULES,
        latency_s: float = 0.0,
        ignores: Callable[[MemoryMessage], bool] = lambda _: False,
        unfit: Callable[[MemoryMessage], str | None] = lambda _: None,
    ) -> None:
        self.name = queue.name
        self.codec: Codec = MemoryQueueCodec(queue.name, rules)
        self.identity = f"memory:{queue.name}"
        self.lease_s = queue.lease_s
        self.opened = False
        #: Receives under way.
        self.waiting = 0
        self._queue = queue
        self._latency_s = latency_s
        self._ignores = ignores
        self._unfit = unfit
        self._script = _Script()
        self._backlog: int | None = None
        self._closed = asyncio.Event()

    # --- the script

    def fail(self, call: str, error: RouterError, *, times: int = 1, happens: bool = False) -> None:
        """Let the next calls (open, receive, delete, extend) raise; `happens`: it is done, only the answer is lost."""
        self._script.faults[call].extend([_Fault(error, happens)] * times)

    def refuse(self, call: str, message_id: str, reason: str = "InternalError", *, times: int = 1) -> None:
        """Let the next calls (delete, extend) fail for this message alone."""
        self._script.refusals[call, message_id].extend([reason] * times)

    # --- QueueSource

    async def open(self) -> None:
        with self._call("open"):
            self._look_up()
            self.opened = True

    async def receive(self, limit: int, wait_s: float) -> Chunk:
        assert 1 <= limit <= 10
        self.waiting += 1
        try:
            with self._call("receive"):
                rows = await self._poll(limit, wait_s)
                self._look_up()
                await self._answer()
        finally:
            self.waiting -= 1
        chunk = memory_chunk(self.name, rows)
        if any(self._ignores(row) for row in rows):
            chunk.kept = [index for index, row in enumerate(rows) if not self._ignores(row)]
        wanted = range(len(rows)) if chunk.kept is None else chunk.kept
        reasons = {index: self._unfit(rows[index]) for index in wanted}
        chunk.unfit = {index: reason for index, reason in reasons.items() if reason is not None}
        return chunk

    async def delete(self, rows: Sequence[Any]) -> Mapping[int, str]:
        return await self._each("delete", rows, lambda row: self._queue.delete(row.receipt))

    async def extend(self, rows: Sequence[Any], lease_s: int) -> Mapping[int, str]:
        return await self._each("extend", rows, lambda row: self._queue.change_lease(row.receipt, lease_s))

    def backlog(self) -> int | None:
        return self._backlog

    async def close(self) -> None:
        self._closed.set()
        self._queue._change()

    # --- inside

    def _call(self, call: str) -> _Call:
        self._check()
        faults = self._script.faults[call]
        return _Call(faults.popleft() if faults else None)

    def _check(self) -> None:
        if self._closed.is_set():
            raise SourceUnavailable(f"The connection to queue {self._queue.name} is closed.")
        if self._queue.gone:
            raise SourceUnavailable(f"Queue {self._queue.name} does not exist: create it.")

    def _look_up(self) -> None:
        self._backlog = self._queue.counts()[0]
        self.lease_s = self._queue.lease_s

    async def _poll(self, limit: int, wait_s: float) -> list[MemoryMessage]:
        rows: list[MemoryMessage] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not (rows := self._queue.receive(limit)):
                    await self._queue.change()
                    self._check()
        return rows

    async def _answer(self) -> None:
        if self._latency_s:
            await asyncio.sleep(self._latency_s)

    async def _each(
        self, call: str, rows: Sequence[Any], act: Callable[[MemoryMessage], str | None]
    ) -> Mapping[int, str]:
        assert 1 <= len(rows) <= 10
        assert len({row.receipt for row in rows}) == len(rows)
        with self._call(call):
            failed: dict[int, str] = {}
            for index, row in enumerate(rows):
                refusals = self._script.refusals[call, row.id]
                reason = refusals.popleft() if refusals else act(row)
                if reason is not None:
                    failed[index] = reason
            await self._answer()
        return failed


class _Call:
    """One call under the script: fails before it is done, or when it is."""

    def __init__(self, fault: _Fault | None) -> None:
        self._fault = fault

    def __enter__(self) -> None:
        if self._fault and not self._fault.happens:
            raise self._fault.error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._fault and kind is None:
            raise self._fault.error
