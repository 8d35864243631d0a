"""The table of leases of a fleet in Redis, as one replica uses it. What is in Redis: table_scripts.py."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from connectors.redis.link import CALL_S, Argument, RedisLink, Script
from connectors.redis.rows import lease_field, lease_key
from connectors.redis.table_scripts import DESCRIBE, EXCHANGE, JOIN, LEAVE, LOOK, STEERED
from router.core.fleet import Heard, Lease, LeaseKey, Replica, Said, Taken
from router.errors import InUse, StoreUnavailable

T = TypeVar("T")


class ReplicaRow(NamedTuple):
    """A replica as Redis has it."""

    name: str
    incarnation: str
    beat: int
    load: float
    draining: bool
    #: Digest of the list of what it runs; empty = it has not said.
    runs: str
    #: 0 = it has not said.
    lease_s: float = 0.0


_ROWS: Final = msgspec.json.Decoder(list[ReplicaRow])
_FIELDS: Final = msgspec.json.Decoder(list[LeaseKey])
_VALUES: Final = msgspec.json.Decoder(list[Lease | None])


class RedisLeaseTable:
    """The LeaseTable port over Redis. A Redis that was emptied under the fleet is StoreUnavailable, not a new table."""

    def __init__(self, link: RedisLink, replica: str, home: str, lease_s: float, place: str = "") -> None:
        """Reach nothing yet.

        Args:
            link: to a fleet that is known (`birth.find_fleet`); it stays open when this is done with.
            replica: our name.
            home: another one for each folder of a replica; a process that has ours follows our former one.
            lease_s: so long a replica lives after its last beat.
            place: where that folder is, for people; empty = the home says it.
        """
        self.name: Final = replica
        self.lease_s: Final = lease_s
        #: Ours; empty before we have joined.
        self.incarnation = ""
        #: The one under which we try to join.
        self._joining = ""
        self._link = link
        self._home = home
        self._place = place or home
        #: What our row may have been before we joined: a Redis that comes back with older data has it again.
        self._before = ""
        self._beats_before = 0
        self._about = ""
        self._ours = _RunsList("", frozenset())
        #: Must the table be told again what it keeps beside our row?
        self._unsaid = False
        #: What replicas run, by digest, of the lists that were in use last.
        self._lists: dict[str, frozenset[str]] = {}

    async def join(self) -> None:
        # one that was given up on may be carried out yet: it must not look like another process
        incarnation = self._joining = self._joining or secrets.token_hex(6)
        answer = await self.run(JOIN, self._home, self._place, "", "", as_incarnation=incarnation)
        if answer[0] == b"taken":
            answer = await self._follow(answer, incarnation)
        self._beats_before, self._before = int(answer[1]), answer[2].decode()
        self.incarnation, self._joining = incarnation, ""
        self._unsaid = True

    async def _follow(self, seen: Any, incarnation: str) -> Any:
        """Wait for a lease, ours or its own if that is longer, and join if the one that has our name is dead."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + max(self.lease_s, float(seen[5]))
        while (remaining_s := until_s - loop.time()) > 0:
            await asyncio.sleep(min(remaining_s, self.lease_s / 10))
            answer = await self.run(JOIN, self._home, self._place, "", "", as_incarnation=incarnation)
            if answer[0] == b"joined":
                return answer
            if answer[3:] != seen[3:]:
                raise InUse(self._in_use(answer))
        answer = await self.run(JOIN, self._home, self._place, seen[3], seen[4], as_incarnation=incarnation)
        if answer[0] == b"taken":
            raise InUse(self._in_use(answer))
        return answer

    def _in_use(self, answer: Sequence[Any]) -> str:
        since = datetime.fromtimestamp(int(answer[2]) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            f"{self._link.where}: another process is replica {self.name} since {since} and lives; "
            f"it is at {answer[1].decode()}. Give each replica a name of its own (`headrace run --replica NAME`)"
        )

    async def exchange(self, said: Said) -> Heard:
        if said.runs is not None and said.runs != self._ours.mappings:
            self._ours = _RunsList.of(said.runs)
            self._unsaid = True
        ours, unsaid = self._ours, self._unsaid
        beat = self._beats_before + said.beat
        row = ReplicaRow(self.name, self.incarnation, beat, said.load, said.draining, ours.digest, self.lease_s)
        answer = await self.run(
            EXCHANGE,
            self._before,
            self._home,
            self._place,
            msgspec.json.encode(row),
            ours.digest,
            ours.text if unsaid else "",
            self._about if unsaid else "",
            ",".join(self._lists),
            said.known,
            *_said(said),
        )
        if answer[0] == b"replaced":
            return Heard(said.known, whole=False, taken={}, leases={}, replicas={}, replaced=True)
        if answer[0] == b"late":
            raise StoreUnavailable(f"{self._link.where}: a later exchange with the lease table overtook this one")
        self._unsaid = bool(answer[1]) and not unsaid
        heard, self._lists = self._heard(answer)
        return heard

    async def look(self) -> Heard:
        # What the exchanges build on stays as they left it: one may be under way.
        heard, _ = self._heard(await self.run(LOOK))
        return heard

    async def describe(self, about: str) -> None:
        self._about = about
        await self.run(DESCRIBE, about)

    async def abouts(self) -> Mapping[str, str]:
        found = await self._link.command("HGETALL", self._link.key("abouts"), within_s=self._within_s)
        return {name.decode(): text.decode() for name, text in found.items()}

    async def steered(self) -> None:
        await self.run(STEERED)

    async def leave(self) -> None:
        await self.run(LEAVE)

    async def row(self, replica: str) -> ReplicaRow | None:
        """Give what Redis has of a replica; None = it is not in the table. Raises StoreUnavailable."""
        found = await self._link.command("HGET", self._link.key("replicas"), replica, within_s=self._within_s)
        return None if found is None else msgspec.json.decode(found, type=ReplicaRow)

    async def run(self, script: Script, *arguments: Argument, as_incarnation: str | None = None) -> Any:
        """Run a script of table_scripts.py as this replica. Raises StoreUnavailable."""
        incarnation = self.incarnation if as_incarnation is None else as_incarnation
        common = (self.name, incarnation, secrets.randbelow(1 << 16))
        return await self._link.ask(script, (*common, *arguments), within_s=self._within_s)

    @property
    def _within_s(self) -> float:
        # an answer that is late costs the time in which a lease could be renewed by another try
        return min(CALL_S, self.lease_s / 3)

    def _heard(self, answer: Sequence[Any]) -> tuple[Heard, dict[str, frozenset[str]]]:
        """Read an answer; gives the lists that its replicas run, by digest, too."""
        _, _, version, whole, steered, taken, fields, values, replicas, lists = answer
        known = self._lists | {self._ours.digest: self._ours.mappings}
        known |= {
            digest.decode(): frozenset(msgspec.json.decode(text, type=list[str])) for digest, text in _pairs(lists)
        }
        rows = _read(replicas, _ROWS)
        current = {row.runs: known[row.runs] for row in rows if row.runs and row.runs in known}
        heard = Heard(
            version=int(version),
            whole=bool(whole),
            taken={
                lease_key(field): Taken(int(token), text.decode())
                for field, token, text in zip(taken[::3], taken[1::3], taken[2::3], strict=True)
            },
            leases=dict(zip(_read(fields, _FIELDS), _read(values, _VALUES), strict=True)),
            replicas={row.name: _replica(row, current) for row in rows},
            steered=int(steered),
        )
        return heard, current


class _RunsList(NamedTuple):
    """What we run, as replicas that run the same share it."""

    digest: str
    mappings: frozenset[str]
    text: bytes = b""

    @classmethod
    def of(cls, mappings: frozenset[str]) -> _RunsList:
        text = msgspec.json.encode(sorted(mappings))
        return cls(sha1(text, usedforsecurity=False).hexdigest()[:12], mappings, text)


def _replica(row: ReplicaRow, lists: Mapping[str, frozenset[str]]) -> Replica:
    # a list that Redis does not have (yet) is that of a replica that has not said what it runs
    runs = lists.get(row.runs, frozenset())
    return Replica(row.name, row.incarnation, row.beat, row.load, row.draining, runs, row.lease_s)


def _said(said: Said) -> Iterator[Argument]:
    yield len(said.gives)
    for give in said.gives:
        yield from (lease_field(give.key), give.token, give.heir, float(give.load), int(give.finished))
    yield len(said.marks)
    for mark in said.marks:
        yield from (lease_field(mark.key), mark.token, mark.heir, float(mark.load))
    yield len(said.takes)
    for take in said.takes:
        yield from (lease_field(take.key), take.token, "" if take.dead_beat is None else take.dead_beat)
    yield len(said.buries)
    for bury in said.buries:
        yield from (bury.replica, bury.beat)
    yield len(said.forgets)
    yield from map(lease_field, said.forgets)


def _read(pieces: Sequence[bytes], decoder: msgspec.json.Decoder[list[T]]) -> list[T]:
    """Read a JSON array that came in pieces."""
    return decoder.decode(b"[%s]" % b",".join(pieces))


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
