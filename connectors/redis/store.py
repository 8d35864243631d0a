"""The store that the replicas of a fleet share: one Redis.

What `apply` has returned for survives a restart of Redis as far as its own settings go (`appendonly`, `appendfsync`):
health.py looks at them. Events of failures that are larger than the settings allow are elsewhere: payloads.py.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self, TypeGuard

from connectors.redis import reading, writing
from connectors.redis.archives import sweep as sweep_code
from connectors.redis.birth import Note, find_fleet
from connectors.redis.group import Group
from connectors.redis.health import begun_mappings, look_at
from connectors.redis.link import RedisLink, Script
from connectors.redis.payloads import Payloads, open_payloads
from connectors.redis.reader import RedisReader
from connectors.settings import RedisSettings
from router.errors import LeaseLost, Overtaken, StoreUnavailable
from router.ports import (
    Change,
    Erasure,
    FailureEntry,
    Holds,
    KeepFailure,
    OwnsEvent,
    PutState,
    Selection,
    Space,
    StoreHealth,
    Unchanged,
)

#: A payload that no failure names is deleted once it is so old: whoever wrote it has named it by then, or never will.
ORPHAN_S: Final = 3600.0
#: Ids in one script.
_AT_ONCE: Final = 500


class RedisStore(RedisReader):
    """The Store port over Redis."""

    def __init__(
        self,
        link: RedisLink,
        note: Note,
        payloads: Payloads | None,
        *,
        replica: str,
        limit_bytes: int | None,
        power_safe: bool,
    ) -> None:
        super().__init__(link, note, payloads)
        self._power_safe = power_safe
        link.reach = self.look
        self._group = Group(link)
        self._limit_bytes = limit_bytes
        self._replica = replica
        #: Failures by the call that was to claim them, of which it is not known whether it was run.
        self._unsure_claims: dict[str, Sequence[str]] = {}
        #: The same for calls that were to adopt something.
        self._unsure_adoptions: set[str] = set()
        self._adopting = asyncio.Lock()
        #: Written to what we claim: which process of which replica.
        self._claimer = f"{replica}\n{uuid.uuid4().hex}"

    @classmethod
    async def open(
        cls, settings: RedisSettings, fleet: str, *, replica: str, folder: Path | None, power_safe: bool = True
    ) -> Self:
        """Open or make the store of a fleet, as one of its replicas.

        Args:
            settings: of the Redis.
            fleet: its name.
            replica: our own name in it.
            folder: the replica's own, where it notes which fleet it knows; None = it knows none.
            power_safe: is what was stored to survive a loss of power? `look` tells where Redis falls short of it.

        Raises:
            StoreUnavailable: Redis cannot be used; or what it has is of a newer version.
        """
        note = Note.read(folder)
        link = await RedisLink.open(settings, fleet)
        try:
            store = cls(
                link,
                note,
                open_payloads(settings, fleet),
                replica=replica,
                limit_bytes=settings.payloads_over_bytes,
                power_safe=power_safe,
            )
            await store.look()
            link.check_usable()
        except BaseException:
            await link.close()
            raise
        return store

    async def apply(self, changes: Sequence[Change]) -> None:
        self._check_decided(changes)
        await self.link.be_usable()
        events = ((n, each.entry.batch.id, each.event) for n, each in _kept(changes))
        places = await self._put_away(events, writing.TRY_APPLY)
        call = self.link.fleet_call(
            writing.APPLY, writing.change_arguments(changes, places, self._replica, self._claimer, self._note.has)
        )
        how, *rest = await self._group.run(call)
        if how == b"done":
            self._note.add(each.mapping for each in changes if _begins(each))  # not before: it may never begin
            self._stored_bytes = int(rest[0])
            await self._throw_away(rest[1:])
            return
        await self._throw_away(places.values())
        if how == b"lost":
            holds = [each for each in changes if isinstance(each, Holds)][rest[0] - 1]
            raise LeaseLost(f"the lease of {holds.shard} of mapping {holds.mapping} is another's now")
        if how == b"adopted":
            event = [each for each in changes if isinstance(each, OwnsEvent)][rest[0] - 1]
            raise LeaseLost(f"asynchronous event {event.event_id} is another replica's now")
        if how == b"overtaken":
            text = [each for each in changes if isinstance(each, Unchanged)][rest[0] - 1]
            raise Overtaken(f"{text.key} of {text.mapping} has been changed by another replica")
        raise self._gone(rest[0].decode())

    async def look(self) -> StoreHealth:
        """See how Redis is, and whether the fleet is still who it was; it is used again if it could not be.

        To be called now and then: another process may answer there by now.

        Raises:
            StoreUnavailable: it cannot be asked.
        """
        health = await look_at(self.link, power_safe=self._power_safe)
        self.link.refused = next((each.text for each in health.findings if each.is_refused), None)
        if self.link.refused is not None:
            return health
        await find_fleet(self.link, self._note)
        for call, ids in list(self._unsure_claims.items()):
            await self.link.ask(writing.RELEASE, [call, *ids])
            del self._unsure_claims[call]
        gone, begun, ended = await begun_mappings(self.link)
        self._note.add(begun)  # whoever finds them gone first has to know of all
        self._note.drop(ended - gone)
        return replace(health, gone=gone | self._note.gone, is_another=self._note.is_lost)

    async def claim(self, failure_ids: Sequence[str]) -> Sequence[str]:
        call = uuid.uuid4().hex
        try:
            won: list[bytes] = await self.link.ask(writing.CLAIM, [self._claimer, call, *failure_ids])
        except BaseException:
            self._unsure_claims[call] = failure_ids  # nobody will replay them: `look` takes the claim back
            raise
        return [each.decode() for each in won]

    async def adopt(self, dead: str | None) -> Sequence[FailureEntry]:
        """Claim what that replica had claimed, whichever of its processes; of ourselves, what other processes had.

        What an earlier call may have claimed that ended with an error is among it.
        """
        async with self._adopting:
            call, unsure = uuid.uuid4().hex, ",".join(self._unsure_adoptions)
            self._unsure_adoptions.add(call)
            whose = [self._claimer, f"{self._replica if dead is None else dead}\n", unsure]
            ids: list[bytes] = await self.link.ask(writing.LEFT, whose)
            won: list[str] = []
            for at in range(0, len(ids), _AT_ONCE):
                taken = await self.link.ask(writing.ADOPT, [*whose, call, *ids[at : at + _AT_ONCE]])
                won += [each.decode() for each in taken]
            found = await self.failures(Selection(ids=tuple(won))) if won else ()
            self._unsure_adoptions.clear()
            return found

    async def drop(self, failure_ids: Sequence[str]) -> Sequence[str]:
        idle, freed = await self.link.ask(writing.DROP, failure_ids)
        await self._throw_away(freed)
        return [each.decode() for each in idle]

    async def erase(self, erasures: Sequence[Erasure]) -> Sequence[str]:
        events = ((n, each.id, each.event) for n, each in enumerate(erasures) if each.event is not None)
        await self.link.be_usable()
        places = await self._put_away(events, writing.TRY_ERASE)
        done, freed = await self.link.ask(writing.ERASE, writing.erasure_arguments(erasures, places))
        await self._throw_away(freed)
        return [each.decode() for each in done]

    async def accept_loss(self, mapping: str) -> bool:
        accepted = await self.link.ask(reading.ACCEPT, [mapping, int(self._note.has(mapping))])
        if mapping in self._note.gone:
            self._note.gone.discard(mapping)
            self._note.write()
            return True
        return bool(accepted)

    async def shrink(self, bytes_at_most: int) -> Space:  # noqa: ARG002 - Redis has no such bound
        """Delete payloads and code that nobody names, and say what is stored.

        Redis gives the memory of what was deleted back by itself, or uses it again: there is nothing to be shrunk.
        """
        if self._payloads:
            await self._sweep(self._payloads)
        await sweep_code(self.link)
        await self._totals()
        return Space(self._stored_bytes, 0, can_shrink=True)

    async def scrub(self) -> bool:
        """Have Redis write its append-only file anew, without what was deleted; True = it has begun.

        It goes on in the background, and then the former file is deleted, not overwritten. Snapshots, copies that
        replicas of Redis hold, and backups have what they have. False = it is busy writing one that was begun before.
        """
        try:
            await self.link.command("BGREWRITEAOF")
        except StoreUnavailable as error:
            if "already in progress" in str(error):
                return False
            raise
        return True

    async def close(self) -> None:
        """Finish what is being written, then end all connections. May come twice."""
        await self._group.close()
        await super().close()

    def _check_decided(self, changes: Sequence[Change]) -> None:
        for each in changes:
            if isinstance(each, PutState) and each.mapping in self._note.gone:
                raise self._gone(each.mapping)

    def _gone(self, mapping: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.link.where}: what was kept of mapping {mapping} is gone; put the former data back, or let it "
            f"begin anew (`headrace mapping accept {mapping}`)"
        )

    async def _put_away(self, events: Iterable[tuple[int, str, bytes]], attempt: Script) -> dict[int, str]:
        """Write events that are too large for Redis elsewhere; give where, by their numbers.

        Not while Redis takes no writes, as `attempt` finds out: each attempt of that time would leave a copy.
        """
        places: dict[int, str] = {}
        if self._payloads and self._limit_bytes is not None:
            for number, failure_id, event in events:
                if len(event) > self._limit_bytes:
                    if not places:
                        await self.link.ask(attempt)
                    # Never the same name twice: what an earlier attempt left may be being deleted.
                    place = f"{failure_id}.{self.link.born}-{uuid.uuid4().hex}"
                    await self._payloads.write(place, writing.pack(event))
                    places[number] = place
        return places

    async def _throw_away(self, places: Iterable[bytes | str]) -> None:
        """Delete payloads that nobody names any more; what cannot be deleted now is found by `shrink`."""
        names = [each if isinstance(each, str) else each.decode() for each in places]
        if names and self._payloads:
            try:
                await self._payloads.delete(names)
            except StoreUnavailable:
                return

    async def _sweep(self, payloads: Payloads) -> None:
        after = ""
        # What another fleet has written under our name is not ours to delete: its data in Redis may be put back.
        await self.link.be_usable()
        ours = f".{self.link.born}-"
        while page := await payloads.names(after):
            after = page[-1][0]
            old = [name for name, age_s in page if age_s > ORPHAN_S and ours in name]
            ids = [name.rpartition(ours)[0] for name in old]
            named: list[Any] = await self.link.ask(writing.PLACES, ids) if ids else []
            if orphans := [name for name, place in zip(old, named, strict=True) if place != name.encode()]:
                await payloads.delete(orphans)


def _begins(change: Change) -> TypeGuard[PutState]:
    return isinstance(change, PutState) and bool(change.text) and ":" not in change.mapping


def _kept(changes: Sequence[Change]) -> Iterable[tuple[int, KeepFailure]]:
    return ((n, each) for n, each in enumerate(changes) if isinstance(each, KeepFailure))
