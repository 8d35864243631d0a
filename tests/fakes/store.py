"""A Store in memory, with scripted faults. No threads: it runs on a loop of virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from router.errors import DecisionNeeded, LeaseLost, Overtaken, StoreUnavailable
from router.ports import (
    Backlog,
    Change,
    DeleteFailure,
    DeliveryEnded,
    Erasure,
    FailureEntry,
    Holds,
    KeepFailure,
    OwnsEvent,
    PutState,
    RenameMapping,
    Selection,
    SetStatus,
    Space,
    Tally,
    Unchanged,
    Unclaim,
    digest_of,
)


@dataclass(frozen=True)
class Row:
    entry: FailureEntry
    event: bytes | None
    undelivered: bool
    claimed_from: str | None = None
    #: Which process of which replica has claimed it.
    claimed_by: tuple[str, object] | None = None


class MemoryStore:
    """Passes the conformance suite of the Store port."""

    #: Which replica this is of; one that shares it with nobody has no name.
    replica = ""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.texts: dict[tuple[str, str], str] = {}
        #: While set, every write fails and says this; reads go on.
        self.write_fault: str | None = None
        #: While set, every read fails and says this.
        self.read_fault: str | None = None
        #: Room inside it, and whether it can be given back.
        self.free_bytes = 0
        self.can_shrink = True
        #: Times something was read.
        self.reads = 0
        #: Mappings whose texts are gone.
        self.gone: set[str] = set()
        #: Says whether a lease is held, where replicas share the store.
        self.is_held: Callable[[Holds], bool] = lambda _: False
        #: Events that another replica has by now.
        self.others_events: set[str] = set()

    def of(self, replica: str) -> MemoryStore:
        """Give the store as a new process of this replica has it: with faults of its own."""
        return SharedStore(self, replica)

    async def apply(self, changes: Sequence[Change]) -> None:
        await self._writes()
        rows, texts = dict(self.rows), dict(self.texts)
        for change in changes:
            if isinstance(change, Unclaim) and change.id in rows and not self._is_mine(rows[change.id]):
                continue
            if isinstance(change, Unchanged):
                if digest_of(self.texts.get((change.mapping, change.key), "")) != change.digest:
                    raise Overtaken(f"{change.key} of {change.mapping} has been changed by another replica")
            elif isinstance(change, OwnsEvent):
                if change.event_id in self.others_events:
                    raise LeaseLost(f"asynchronous event {change.event_id} is another replica's now")
            elif not isinstance(change, Holds):
                _apply(rows, texts, change)
            elif not self.is_held(change):
                raise LeaseLost(f"the lease of {change.shard} of mapping {change.mapping} is another's now")
        self.rows, self.texts = rows, texts

    async def states(self, mapping: str) -> Mapping[str, str]:
        await self._reads()
        if mapping in self.gone:
            raise DecisionNeeded("StateGone", f"what was kept of {mapping} is gone")
        return {key: text for (owner, key), text in self.texts.items() if owner == mapping}

    async def some_states(self, mapping: str, keys: Sequence[str]) -> Mapping[str, str]:
        await self._reads()
        return {key: self.texts[mapping, key] for key in keys if (mapping, key) in self.texts}

    async def accept_loss(self, mapping: str) -> bool:
        await self._writes()
        was_gone = mapping in self.gone
        self.gone.discard(mapping)
        return was_gone

    def size_bytes(self) -> int:
        return sum(len(row.event or b"") for row in self.rows.values())

    async def failures(self, selection: Selection) -> Sequence[FailureEntry]:
        await self._reads()
        found = [_read(row) for row in self._oldest_first() if _selected(row.entry, selection)]
        return found[: selection.limit]

    async def count(self, selection: Selection) -> int:
        return len(await self.failures(replace(selection, limit=None)))

    async def event(self, failure_id: str) -> bytes | None:
        await self._reads()
        return self.rows[failure_id].event if failure_id in self.rows else None

    async def claim(self, failure_ids: Sequence[str]) -> Sequence[str]:
        await self._writes()
        won = [each for each in failure_ids if self._status(each) not in (None, "replaying", "dropped")]
        for each in won:
            row = self.rows[each]
            entry = replace(row.entry, status="replaying")
            self.rows[each] = replace(row, entry=entry, claimed_from=row.entry.status, claimed_by=(self.replica, self))
        return won

    def _is_mine(self, row: Row) -> bool:
        return row.claimed_by is None or row.claimed_by == (self.replica, self)

    async def drop(self, failure_ids: Sequence[str]) -> Sequence[str]:
        await self._writes()
        idle = [each for each in failure_ids if self._status(each) not in (None, "replaying")]
        for each in idle:
            _apply(self.rows, self.texts, SetStatus(each, "dropped"))
        return idle

    async def adopt(self, dead: str | None) -> Sequence[FailureEntry]:
        await self._writes()
        former = self.replica if dead is None else dead
        won = [
            row
            for row in self._oldest_first()
            if row.entry.status == "replaying" and row.claimed_by is not None and row.claimed_by[0] == former
        ]
        # Who shares it with nobody takes up its own, too: it is asked when it starts.
        won = [row for row in won if not (self.replica and self._is_mine(row))]
        for row in won:
            self.rows[row.entry.batch.id] = replace(row, claimed_by=(self.replica, self))
        return [_read(row) for row in won]

    async def erase(self, erasures: Sequence[Erasure]) -> Sequence[str]:
        await self._writes()
        done = [each for each in erasures if self._is_same_idle(each)]
        for erasure in done:
            row, entry = self.rows[erasure.id], erasure.entry
            if entry is None:
                del self.rows[erasure.id]
                continue
            keys = tuple(key for key in row.entry.keys if key != erasure.key)
            size = 0 if erasure.event is None else len(erasure.event)
            kept = replace(row.entry, batch=entry.batch, batch_info=entry.batch_info, keys=keys, event_bytes=size)
            self.rows[erasure.id] = replace(row, entry=kept, event=erasure.event)
        return [each.id for each in done]

    def _is_same_idle(self, erasure: Erasure) -> bool:
        row = self.rows.get(erasure.id)
        return (
            row is not None and row.entry.status != "replaying" and row.entry.batch.failed_at_s == erasure.failed_at_s
        )

    async def undelivered(self, mapping: str) -> Sequence[FailureEntry]:
        await self._reads()
        return [_read(row) for row in self._oldest_first() if row.undelivered and row.entry.batch.mapping == mapping]

    async def tallies(self) -> Sequence[Tally]:
        await self._reads()
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows.values():
            groups.setdefault((row.entry.batch.mapping, row.entry.status), []).append(row)
        return [Tally(*key, len(rows), sum(row.undelivered for row in rows)) for key, rows in sorted(groups.items())]

    async def backlog(self, mapping: str) -> Backlog:
        await self._reads()
        rows = [row for row in self.rows.values() if row.entry.batch.mapping == mapping]
        return Backlog(sum(row.undelivered for row in rows), sum(row.entry.event_bytes for row in rows), len(rows))

    async def shrink(self, bytes_at_most: int) -> Space:
        await self._writes()
        self.free_bytes = max(0, self.free_bytes - bytes_at_most)
        return Space(sum(row.entry.event_bytes for row in self.rows.values()), self.free_bytes, self.can_shrink)

    async def scrub(self) -> bool:
        await self._writes()
        return True

    async def close(self) -> None:
        self.write_fault = self.read_fault = "it is closed"

    def _status(self, failure_id: str) -> str | None:
        return self.rows[failure_id].entry.status if failure_id in self.rows else None

    def _oldest_first(self) -> list[Row]:
        return sorted(self.rows.values(), key=lambda row: (row.entry.batch.failed_at_s, row.entry.batch.id))

    async def _writes(self) -> None:
        await asyncio.sleep(0)
        if self.write_fault:
            raise StoreUnavailable(self.write_fault)

    async def _reads(self) -> None:
        self.reads += 1
        await asyncio.sleep(0)
        if self.read_fault:
            raise StoreUnavailable(self.read_fault)


class SharedStore(MemoryStore):
    """A MemoryStore as one process of one of the replicas that share it has it."""

    def __init__(self, whole: MemoryStore, replica: str) -> None:
        super().__init__()
        self._whole = whole
        self.replica = replica
        del self.rows, self.texts, self.is_held

    def __getattr__(self, name: str) -> Any:
        if name in _SHARED:
            return getattr(self._whole, name)
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SHARED and "_whole" in self.__dict__:
            setattr(self._whole, name, value)
        else:
            super().__setattr__(name, value)


#: What all replicas have of a store together.
_SHARED = ("rows", "texts", "is_held")


def _apply(rows: dict[str, Row], texts: dict[tuple[str, str], str], change: Change) -> None:  # noqa: C901
    match change:
        case KeepFailure(entry, event):
            kept = replace(entry, event_bytes=len(event), batch_info=json.loads(json.dumps(entry.batch_info)))
            rows[entry.batch.id] = Row(kept, event, entry.destination is not None)
        case PutState(mapping, key, ""):
            texts.pop((mapping, key), None)
        case PutState(mapping, key, text):
            texts[mapping, key] = text
        case DeleteFailure(failure_id):
            rows.pop(failure_id, None)
        case RenameMapping(old, new):
            for failure_id, row in rows.items():
                if row.entry.batch.mapping == old:
                    batch = replace(row.entry.batch, mapping=new)
                    rows[failure_id] = replace(row, entry=replace(row.entry, batch=batch))
            for mapping, key in list(texts):
                if mapping == old:
                    texts[new, key] = texts.pop((old, key))
        case Holds() | OwnsEvent() | Unchanged():
            raise AssertionError("looked at before")
        case _ if change.id in rows:
            rows[change.id] = _changed(rows[change.id], change)


def _changed(row: Row, change: SetStatus | Unclaim | DeliveryEnded) -> Row:
    entry = row.entry
    match change:
        case SetStatus(_, "dropped"):
            return Row(replace(entry, status="dropped", event_bytes=0), None, undelivered=False)
        case SetStatus(_, status):
            return Row(replace(entry, status=status), row.event, row.undelivered and status in ("stored", "replaying"))
        case Unclaim():
            return replace(row, entry=replace(entry, status=row.claimed_from or entry.status), claimed_from=None)
        case DeliveryEnded(_, None):
            status = "delivered" if entry.status == "stored" else entry.status
            before = "delivered" if row.claimed_from == "stored" else row.claimed_from
            entry = replace(entry, status=status, deliveries=entry.deliveries + 1, delivery_error=None)
            return replace(row, entry=entry, undelivered=False, claimed_from=before)
        case DeliveryEnded(_, error, next_delivery_s):
            tried = entry.deliveries + 1
            entry = replace(entry, deliveries=tried, delivery_error=error, next_delivery_s=next_delivery_s)
            return replace(row, entry=entry)


def _read(row: Row) -> FailureEntry:
    return replace(row.entry, keys=())


def _selected(entry: FailureEntry, selection: Selection) -> bool:
    batch = entry.batch
    error = f"{batch.error.error_type}\n{batch.error.message}".casefold() if batch.error else ""
    return (
        (not selection.ids or batch.id in selection.ids)
        and selection.mapping in (None, batch.mapping)
        and selection.shard in (None, batch.shard)
        and (selection.key is None or selection.key in entry.keys)
        and (selection.since_s is None or selection.since_s <= batch.failed_at_s)
        and (selection.until_s is None or batch.failed_at_s < selection.until_s)
        and (selection.after is None or (batch.failed_at_s, batch.id) > selection.after)
        and (selection.error is None or selection.error.casefold() in error)
        and (not selection.statuses or entry.status in selection.statuses)
    )
