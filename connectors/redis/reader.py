"""Reading the store of a fleet: beside the replicas that run, or while none does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self

from connectors.redis import reading
from connectors.redis.birth import Note, known_fleet
from connectors.redis.link import RedisLink
from connectors.redis.payloads import Payloads, open_payloads
from connectors.redis.writing import unpack
from connectors.settings import RedisSettings
from router.errors import DecisionNeeded, StoreUnavailable
from router.ports import Backlog, FailureEntry, Selection, Tally

#: Longest time for the texts of one mapping, which come whole: it may have 100,000 shards.
_STATES_S: Final = 30.0


class RedisReader:
    """The reading half of the Store port."""

    def __init__(self, link: RedisLink, note: Note, payloads: Payloads | None) -> None:
        #: For whatever else is the fleet's: leases, peers.
        self.link: Final = link
        self._note = note
        self._payloads = payloads
        self._stored_bytes = 0

    @classmethod
    async def open_read_only(cls, settings: RedisSettings, fleet: str) -> Self:
        """Open the store of a fleet, whether replicas of it run or not.

        Raises:
            StoreUnavailable: there is none, or it cannot be read.
        """
        link = await RedisLink.open(settings, fleet)
        try:
            await known_fleet(link)
            return cls(link, Note(None), open_payloads(settings, fleet))
        except BaseException:
            await link.close()
            raise

    async def states(self, mapping: str) -> Mapping[str, str]:
        """Give all texts put under a mapping.

        Raises:
            DecisionNeeded: some that there were are gone, and nobody has decided what that means.
            StoreUnavailable
        """
        gone, texts = await self.link.ask(
            reading.STATES_OF, [mapping, int(self._note.has(mapping))], within_s=_STATES_S
        )
        if gone or mapping in self._note.gone:
            raise DecisionNeeded(
                "StateGone",
                f"What was kept of where this mapping is, is not in Redis any more ({self.link.where}): it was "
                "emptied, or lost keys, or is another one. Put the former data back; or let the mapping begin anew, "
                f"at its starting position where nothing else is known: `headrace mapping accept {mapping}`.",
            )
        if texts and ":" not in mapping:
            self._note.add([mapping])
        return reading.by_name(texts)

    async def some_states(self, mapping: str, keys: Sequence[str]) -> Mapping[str, str]:
        found = await self.link.ask(reading.SOME_STATES, [mapping, *keys]) if keys else ()
        return {key: text.decode() for key, text in zip(keys, found, strict=True) if text is not None}

    async def failures(self, selection: Selection) -> Sequence[FailureEntry]:
        return [found async for found in self._selected(selection)]

    async def count(self, selection: Selection) -> int:
        if selection == Selection(
            mapping=selection.mapping,
            statuses=selection.statuses,
            since_s=selection.since_s,
            until_s=selection.until_s,
            limit=selection.limit,
        ):
            return await self._total(selection)
        found = 0
        async for _ in self._selected(replace(selection, limit=None)):
            found += 1
        return found

    async def event(self, failure_id: str) -> bytes | None:
        packed, place = await self.link.ask(reading.EVENT, [failure_id])
        if place is not None:
            return await self._payload(failure_id, place.decode())
        return None if packed is None else unpack(packed)

    async def undelivered(self, mapping: str) -> Sequence[FailureEntry]:
        along = [f"undelivered:{mapping}"]
        return [found async for found in self._pages(Selection(mapping=mapping), along)]

    async def tallies(self) -> Sequence[Tally]:
        return reading.tallies(await self._totals())

    async def backlog(self, mapping: str) -> Backlog:
        return reading.backlog(await self._totals(), mapping)

    def size_bytes(self) -> int:
        """Give what the failures of the fleet take up as they are written, as of our last change or count of them.

        Without what Redis spends on them itself, and without texts of mappings, which are small.
        """
        return self._stored_bytes

    async def close(self) -> None:
        """End all connections. May come twice."""
        await self.link.close()
        if self._payloads:
            await self._payloads.close()

    async def _totals(self) -> Sequence[bytes]:
        answer: Sequence[bytes] = await self.link.ask(reading.TOTALS)
        self._stored_bytes = int(reading.by_name(answer).get("stored", "0"))
        return answer

    async def _total(self, selection: Selection) -> int:
        found: Any = await self.link.ask(
            reading.PAGE, reading.page_arguments(selection, reading.sets(selection), 0, None, wants_rows=False)
        )
        return int(found[0])

    async def _selected(self, selection: Selection) -> AsyncIterator[FailureEntry]:
        if not selection.ids or selection.key is not None:
            left = selection.limit
            if left == 0:
                return
            async for found in self._pages(selection, reading.sets(selection)):
                yield found
                left = None if left is None else left - 1
                if left == 0:
                    return
            return
        ids = list(dict.fromkeys(selection.ids))
        rows: list[Any] = []
        for at in range(0, len(ids), reading.PAGE_COUNT):
            rows += await self.link.ask(reading.FIND, ids[at : at + reading.PAGE_COUNT])
        entries = [found for row in rows if reading.is_selected(found := reading.entry(row), selection, row[10])]
        entries.sort(key=lambda each: (each.batch.failed_at_s, each.batch.id))
        for each in entries[: selection.limit]:
            yield each

    async def _pages(self, selection: Selection, along: Sequence[str]) -> AsyncIterator[FailureEntry]:
        """Read along sorted sets, a page a time."""
        behind: tuple[str | float, str] | None = selection.after
        limit = reading.PAGE_COUNT if selection.limit is None else max(1, min(reading.PAGE_COUNT, selection.limit))
        while True:
            question = reading.page_arguments(selection, along, limit, behind, wants_rows=True)
            total, score, last, rows = await self.link.ask(reading.PAGE, question)
            for row in rows:
                found = reading.entry(row)
                if reading.is_selected(found, selection, row[10]):
                    yield found
            if total <= limit:
                return
            behind = score.decode(), last.decode()

    async def _payload(self, failure_id: str, place: str) -> bytes | None:
        if self._payloads is None:
            raise StoreUnavailable(
                f"{self.link.where}: the event of failure {failure_id} is outside of Redis, and `state` names no "
                f"`payloads`; put back what it named when {place} was written"
            )
        packed = await self._payloads.read(place)
        if packed is not None:
            return unpack(packed)
        [_, place_now] = await self.link.ask(reading.EVENT, [failure_id])
        if place_now is None or place_now.decode() != place:
            return await self.event(failure_id)  # it was dropped or replaced meanwhile
        raise StoreUnavailable(
            f"the event of failure {failure_id} is not at {self._payloads.name}/{place} any more; put it back, or let "
            f"go of the failure: `headrace failures drop {failure_id}`"
        )
