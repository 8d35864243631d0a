"""Jobs over failure records, from wherever they are (`record_places`).

A queue is its own memory: what is settled is deleted from it. A file and a bucket stay as they are, so it is noted in
the store what of them is settled (`settled`): a job that was cut off is begun again and goes on, and what came to the
place since is all that runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from router.errors import NotFound
from router.life import MappingLife
from router.ports import ObjectSource, QueueSource, Store, WallClock
from router.replay.end import Ends, JobOver, Prospect, RecordEnd, ReplayEnd
from router.replay.record_places import GivenRecords, RecordObjects, RecordPlace, RecordQueue, Records
from router.replay.rehydrating import LOOK_S, OUTAGE_S, MakePages, Memory, Rehydration
from router.replay.settled import Settled
from router.stream_names import StreamName
from router.telemetry import Log

#: What a place begins with that is a queue.
QUEUE: Final = "sqs:"

#: What the mappings of streams read, by mapping.
Streams = Callable[[], Mapping[str, StreamName]]
#: Give the queue or the objects of a place; a mapping may say more of where they are.
MakeQueue = Callable[[str, str | None], QueueSource]
MakeObjects = Callable[[str, str | None], ObjectSource]


class Carrier(Protocol):
    """Hands replays to mappings: the Replayer."""

    lives: Mapping[str, MappingLife]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on until the daemon ends."""
        ...

    async def carry(self, replay_id: str, event: bytes, mapping: str, shard: str) -> ReplayEnd:
        """Run an event through a mapping; `shard` says of which its records are, where the event does not."""
        ...

    def written(self, end: ReplayEnd) -> None:
        """Learn that an end is noted wherever it has to be."""
        ...

    async def insist(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something with the store until it works."""
        ...


@dataclass(frozen=True, slots=True)
class RecordsAt:
    """Where failure records are, and what is wanted with them."""

    #: `sqs:QUEUE`, `s3://BUCKET/PREFIX`, or a name for what the caller reads.
    place: str
    #: Runs them all; None = each is of the mapping whose stream it names.
    mapping: str | None
    #: Say only what would be done.
    only_look: bool = False
    #: Run also what an earlier job has settled.
    again: bool = False
    #: Between two starts, seconds.
    interval_s: float = 0.0


class _Remembered(Memory):
    """What is settled, also by earlier jobs over the same place."""

    def __init__(self, settled: Settled, carrier: Carrier, wall: WallClock, *, again: bool) -> None:
        super().__init__()
        self._again = again
        self._stored = settled
        self._carrier = carrier
        self._wall = wall

    def has(self, record_id: str, mapping: str) -> bool:
        return super().has(record_id, mapping) or (not self._again and self._stored.has(record_id, mapping))

    async def add(self, record_id: str, mapping: str) -> None:
        await super().add(record_id, mapping)
        await self._carrier.insist(partial(self._stored.add, record_id, mapping, self._wall()))


class RecordReplays:
    """Begins jobs over failure records and carries them."""

    def __init__(
        self,
        store: Store,
        log: Log,
        carrier: Carrier,
        *,
        streams: Streams,
        make_pages: MakePages,
        make_queue: MakeQueue,
        make_objects: MakeObjects,
        wall: WallClock,
    ) -> None:
        """Make it.

        Args:
            store: Remembers what is settled.
            log: Is told when a job is over.
            carrier: Hands what is to run to the mappings.
            streams: What mappings read now.
            make_pages: Gives the stream of a mapping, to be read again.
            make_queue: Gives the queue of a place.
            make_objects: Gives the objects of a place.
            wall: The time.
        """
        self._store = store
        self._log = log
        self._carrier = carrier
        self._streams = streams
        self._make_pages = make_pages
        self._make_queue = make_queue
        self._make_objects = make_objects
        self._wall = wall

    async def count(self, wanted: RecordsAt) -> int | None:
        """Count what waits in a queue, about, or the objects; None = not known, or more than are counted.

        Raises as `start`.
        """
        place = await self._opened(wanted, None)
        try:
            return await place.count()
        finally:
            await place.close()

    async def start(self, wanted: RecordsAt, records: Records | None = None) -> Ends:
        """Begin a job. It tells a RecordEnd a record, or a Prospect where only a look is wanted, and then JobOver.

        Of a queue a look shows up to 10 messages. The job goes on when nobody listens, as long as there are records.

        Args:
            wanted: What.
            records: What is in the place; None = we read it.

        Raises:
            NotFound: there is no such mapping, or it reads no stream.
            SourceUnavailable: the place cannot be reached.
        """
        place = await self._opened(wanted, records)
        ends = Ends()
        self._carrier.spawn(self._work(wanted, place, ends))
        return ends

    async def _opened(self, wanted: RecordsAt, records: Records | None) -> RecordPlace:
        mapping = wanted.mapping
        if mapping is not None and mapping not in self._streams():
            known = mapping in self._carrier.lives
            raise NotFound(
                f"mapping {mapping} reads no stream: failure records name records of streams"
                if known
                else f"there is no mapping {mapping!r}; see `headrace status`"
            )
        place: RecordPlace
        if records is not None:
            place = GivenRecords(records)
        elif wanted.place.startswith(QUEUE):
            place = RecordQueue(self._make_queue(wanted.place.removeprefix(QUEUE), mapping))
        else:
            place = RecordObjects(self._make_objects(wanted.place, mapping))
        await place.open()
        return place

    async def _work(self, wanted: RecordsAt, place: RecordPlace, ends: Ends) -> None:
        counts: Counter[str] = Counter()

        async def tell(end: ReplayEnd | Prospect) -> None:
            if isinstance(end, ReplayEnd):
                counts[end.outcome] += 1
                self._carrier.written(end)
                # What the queue itself says of a message knows nothing of where records are.
                end = end if isinstance(end, RecordEnd) else RecordEnd(end.id, end.outcome, (), end.reason, end.id)
            await ends.tell(end)

        try:
            memory = Memory() if place.forgets else await self._memory(wanted)
            rehydration = self._rehydration(wanted, memory)
            try:
                if wanted.only_look:
                    stopped = await place.look(rehydration.look, tell)
                else:
                    stopped = await place.replay(rehydration.run, tell, wanted.interval_s)
            finally:
                await rehydration.close()
            if not wanted.only_look:
                self._log.write("records.replayed", place=wanted.place, error=stopped, **counts)
            await ends.tell(JobOver(stopped))
        finally:
            ends.stop()
            await place.close()

    async def _memory(self, wanted: RecordsAt) -> Memory:
        load = partial(Settled.load, self._store, wanted.place, self._wall())
        settled: Settled = await self._carrier.insist(load)
        return _Remembered(settled, self._carrier, self._wall, again=wanted.again)

    def _rehydration(self, wanted: RecordsAt, memory: Memory) -> Rehydration:
        return Rehydration(
            self._streams(),
            wanted.mapping,
            make_pages=self._make_pages,
            lives=self._carrier.lives,
            carry=self._carrier.carry,
            memory=memory,
            began_ms=self._wall() * 1000,
            outage_s=LOOK_S if wanted.only_look else OUTAGE_S,
        )
