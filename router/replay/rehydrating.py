"""Failure records run again: what each of them names is read from its stream once more, and replayed by its mapping.

A record that carries its event is run from that, whatever the stream still has. Of one that does not, the range is
read again beside the mapping's own reading (`reread`); what is gone from it is told, and the rest runs. A record is
settled once its records have succeeded, or are stored as a new failure; whatever stood in the way of that, it is
refused, and can be tried again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from router.core.model import BATCH_LIMIT_BYTES
from router.errors import ShardGone, SourceUnavailable
from router.events import event_of
from router.failures.reading import FailedRange, FailureRecord, events, read_record
from router.life import MappingLife, paused
from router.ports import PageSource
from router.replay.end import Prospect, RecordEnd, ReplayEnd
from router.replay.page_memory import PageMemory
from router.replay.record_frames import ReadText
from router.replay.reread import NotTheRange, Reread, of_one_lane, reread, told
from router.stream_names import StreamName, choose

#: How long a stream may refuse to answer before its records are refused: in a job, and to whoever only looks.
OUTAGE_S: Final = 60.0
LOOK_S: Final = 5.0
_RETRY_CAP_S: Final = 10.0
#: A replay that is refused after so long has waited for what the next of its shard would wait for.
IN_VAIN_S: Final = 60.0

#: Gives the stream of a mapping, to be read by pages.
MakePages = Callable[[str], PageSource]
#: Runs an event through a mapping, as the replay with this id: (id, event, mapping, shard; "" = the event says it).
Carry = Callable[[str, bytes, str, str], Awaitable[ReplayEnd]]


class Memory:
    """What is settled: nothing yet, and known as long as the job lasts."""

    def __init__(self) -> None:
        self._settled: set[tuple[str, str]] = set()

    def has(self, record_id: str, mapping: str) -> bool:
        return (record_id, mapping) in self._settled

    async def add(self, record_id: str, mapping: str) -> None:
        """Note it, however long that takes."""
        self._settled.add((record_id, mapping))


@dataclass(slots=True)
class _Prepared:
    """A record as it is to be run."""

    #: Events of one shard each, and the shard where it is known.
    events: Sequence[tuple[str, bytes]]
    #: How many records there are, where they were read again.
    held: int | None = None
    gone: int = 0
    note: str | None = None


class _Refused(Exception):
    """A record does not run; says why."""

    def __init__(self, why: str, gone: int = 0) -> None:
        super().__init__(why)
        #: Records of it that its stream has no more, at least.
        self.gone = gone


class Rehydration:
    """Runs the records of one job; `close` ends it."""

    def __init__(
        self,
        streams: Mapping[str, StreamName],
        mapping: str | None,
        *,
        make_pages: MakePages,
        lives: Mapping[str, MappingLife],
        carry: Carry,
        memory: Memory,
        began_ms: float,
        outage_s: float = OUTAGE_S,
    ) -> None:
        """Make it.

        Args:
            streams: What the mappings of streams read.
            mapping: The one that is to run all records; None = each the one whose stream it is of.
            make_pages: Gives the stream of a mapping.
            lives: The mappings that there are.
            carry: Hands an event to its mapping.
            memory: What is settled already.
            began_ms: When the job began, epoch milliseconds: records made since then are left for the next.
            outage_s: How long a stream may refuse to answer.
        """
        self._streams = streams
        self._mapping = mapping
        self._make_pages = make_pages
        self._lives = lives
        self._carry = carry
        self._memory = memory
        self._began_ms = began_ms
        self._outage_s = outage_s
        self._pages: dict[str, PageSource] = {}
        self._opening = asyncio.Lock()
        #: Streams that did not answer, and why.
        self._away: dict[str, str] = {}
        #: Records of one shard are read again one after the other, so they begin in the order in which they came.
        self._reading: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        #: Why records of a mapping and shard are refused from now on.
        self._in_vain: dict[tuple[str, str], str] = {}
        #: Set when a record that runs has ended, by its id.
        self._in_hand: dict[str, asyncio.Event] = {}

    async def close(self) -> None:
        for pages in self._pages.values():
            await pages.close()

    async def run(self, found: ReadText) -> RecordEnd:
        """Run a record; gives how that ended once it is noted."""
        record: FailureRecord | None = None
        mapping: str | None = None
        try:
            record = _read(found)
            mapping = self._choose(record)
            while other := self._in_hand.get(record.id):
                await other.wait()
            if self._memory.has(record.id, mapping):
                return RecordEnd(record.id, "settled", where=found.where, mapping=mapping)
            if record.made_ms is not None and record.made_ms >= self._began_ms:
                return RecordEnd(record.id, "later", where=found.where, mapping=mapping)
            with self._alone(record):
                prepared = await self._prepare(record, mapping)
                end = await self._run(record, mapping, prepared)
                if end.is_settled:
                    await self._memory.add(record.id, mapping)
        except _Refused as why:
            record_id = record.id if record else found.where
            return RecordEnd(record_id, "refused", (), str(why), found.where, mapping, why.gone)
        reason = "; ".join(filter(None, (end.reason, prepared.note))) or None
        where = found.where
        return RecordEnd(record.id, end.outcome, end.new_failures, reason, where, mapping, prepared.gone)

    async def look(self, found: ReadText) -> Prospect:
        """Say what running a record would do, without running it."""
        try:
            record = _read(found)
        except _Refused as why:
            return Prospect(found.where, found.where, None, "", (), why_not=str(why))
        ranges = [(each.shard, each.shown(each.first), each.shown(each.last)) for each in record.ranges]
        prospect = Prospect(
            record.id,
            found.where,
            self._mapping,
            record.stream,
            ranges,
            records=record.count,
            has_event=record.payload is not None,
        )
        try:
            prospect.mapping = mapping = self._choose(record)
            prospect.is_settled = self._memory.has(record.id, mapping)
            if not prospect.is_settled:
                prepared = await self._prepare(record, mapping)
                prospect.held, prospect.gone, prospect.note = prepared.held, prepared.gone, prepared.note
        except _Refused as why:
            prospect.why_not, prospect.gone = str(why), why.gone
        return prospect

    # --- which mapping

    def _choose(self, record: FailureRecord) -> str:
        try:
            return choose(record, self._streams, self._mapping)
        except ValueError as error:
            raise _Refused(str(error)) from error

    @contextmanager
    def _alone(self, record: FailureRecord) -> Iterator[None]:
        """Hold up the same record, found elsewhere, until this one is over."""
        over = self._in_hand[record.id] = asyncio.Event()
        try:
            yield
        finally:
            del self._in_hand[record.id]
            over.set()

    # --- what is to run

    async def _prepare(self, record: FailureRecord, mapping: str) -> _Prepared:
        life = self._lives.get(mapping)
        if life is None or life.is_down:
            raise _Refused(f"its mapping {mapping!r} is not configured, disabled, or has failed; see `headrace status`")
        if life.is_paused:
            raise _Refused(paused(mapping))
        if record.payload is not None:
            return _Prepared(self._from_payload(record))
        # Of several ranges it is not told how many records of each had failed.
        count = record.count if len(record.ranges) == 1 else None
        pieces: list[tuple[str, bytes]] = []
        held = gone = 0
        notes = []
        for wanted in record.ranges:
            found, pages = await self._reread(wanted, count, mapping, life)
            rows = of_one_lane(found, count, life.parts.mapping.parallelization_factor)
            missing, note = told(found, len(rows), wanted, count)
            gone += missing
            held += len(rows)
            notes += [note] if note else []
            limit = max(count or 0, life.parts.mapping.batch_size)
            pieces += [
                (wanted.shard, event_of(pages.codec, wanted.shard, piece, record.window))
                for piece in _pieces(found, rows, limit)
            ]
        if pieces and record.window:
            notes.append("the state that its tumbling window had is not in the record: it begins with {}")
        if not pieces:
            raise _Refused("; ".join(notes) or "nothing of its range passes the mapping's filter_criteria", gone)
        return _Prepared(pieces, held, gone, "; ".join(notes) or None)

    @staticmethod
    def _from_payload(record: FailureRecord) -> Sequence[tuple[str, bytes]]:
        try:
            return events(record)
        except ValueError as error:
            raise _Refused(str(error)) from error

    async def _reread(
        self, wanted: FailedRange, count: int | None, mapping: str, life: MappingLife
    ) -> tuple[Reread, PageSource]:
        """Read a range again, for a while also of a stream that does not answer."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._outage_s
        wait_s = 1.0
        async with self._reading[mapping, wanted.shard]:
            while True:
                if mapping in self._away:
                    raise _Refused(self._away[mapping])
                try:
                    pages = await self._opened(mapping)
                    return await reread(pages, wanted, life.parts.passes, count), pages
                except NotTheRange as error:
                    raise _Refused(str(error)) from error
                except ShardGone as error:
                    raise _Refused(f"its records are gone: {error}", count or 1) from error
                except SourceUnavailable as error:
                    if loop.time() + wait_s > until_s:
                        self._away[mapping] = f"its stream cannot be read again: {error}"
                await asyncio.sleep(0 if mapping in self._away else wait_s)
                wait_s = min(2 * wait_s, _RETRY_CAP_S)

    async def _opened(self, mapping: str) -> PageSource:
        async with self._opening:
            if mapping not in self._pages:
                pages = PageMemory(self._make_pages(mapping))
                try:
                    await pages.open()
                except BaseException:
                    await pages.close()
                    raise
                self._pages[mapping] = pages
            return self._pages[mapping]

    # --- running it

    async def _run(self, record: FailureRecord, mapping: str, prepared: _Prepared) -> ReplayEnd:
        """Run the events of a record one after the other, and give what came of all."""
        new_failures: list[str] = []
        for number, (shard, event) in enumerate(prepared.events):
            if known := self._in_vain.get((mapping, shard)):
                raise _Refused(known)
            piece_id = record.id if len(prepared.events) == 1 else f"{record.id}.{number + 1}"
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            end = await self._carry(piece_id, event, mapping, shard)
            if end.outcome == "refused":
                if end.reason and loop.time() - began_s >= IN_VAIN_S:
                    self._in_vain[mapping, shard] = end.reason
                raise _Refused(end.reason or "it was not run")
            new_failures += end.new_failures
        return ReplayEnd(record.id, "failed_again" if new_failures else "replayed", tuple(new_failures))


def _read(found: ReadText) -> FailureRecord:
    if found.trouble:
        raise _Refused(found.trouble)
    try:
        return read_record(found.text)
    except ValueError as error:
        raise _Refused(str(error)) from error


def _pieces(found: Reread, rows: Sequence[object], limit: int) -> Iterator[Sequence[object]]:
    """Cut rows into what one invocation may have: most often that is all."""
    sizes = {id(row): size for row, size in zip(found.rows, found.sizes, strict=True)}
    piece: list[object] = []
    size_bytes = 0
    for row in rows:
        size = sizes[id(row)]
        if piece and (len(piece) == limit or size_bytes + size > BATCH_LIMIT_BYTES):
            yield piece
            piece, size_bytes = [], 0
        piece.append(row)
        size_bytes += size
    if piece:
        yield piece
