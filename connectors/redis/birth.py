"""Who a fleet in Redis is, and whether what this replica knows of it is still there.

A fleet is born with a random id, which each replica notes in its own folder with the mappings whose texts it has seen.
A Redis that was emptied, or that is another one, has no such id or another: then nobody knows where those mappings
were, and reading their streams from the start may be the last thing that is wanted. So each of them waits until
somebody says that it is meant (`headrace mapping accept`).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from connectors.redis.link import Argument, RedisLink, Script
from connectors.redis.scripts import FORMAT, MISS
from connectors.store.copies import sync
from router.errors import StoreUnavailable

#: The note, in a replica's own folder.
FILE_NAME: Final = "fleet.json"
#: Former fleets that are remembered.
FORMERS: Final = 10

# Whoever finds no fleet makes one, and marks what it knows to be gone. Whoever knew the same lost fleet marks what it
# knows, too, but for what was decided meanwhile. Whoever knew any other fleet marks what has not begun in this one: who
# knew nothing may have made it. Of the fleet that we know, what had begun must still be known.
# ARGV: an id if it is to be born, format, whom we know, how many mappings are not known to be gone, those, the others.
# Gives who the fleet is, its format, and of what we know that is not marked: it has begun here, and with others.
_FIND: Final = Script(
    "#!lua flags=allow-oom"
    + MISS
    + """
local meta, noted = KEYS[1], ARGV[3]
local born = redis.call('HGET', meta, 'born')
if not born then
    born = ARGV[1]
    redis.call('HSET', meta, 'born', born, 'format', ARGV[2])
    if noted ~= '' then redis.call('HSET', meta, 'lost', noted) end
end
local unmarked = {}
if noted == born then
    for i = 5, 4 + tonumber(ARGV[4]) do miss(ARGV[i]) end
elseif noted ~= '' then
    local is_lost = redis.call('HGET', meta, 'lost') == noted
    for i = 5, #ARGV do
        if redis.call('HGET', meta, 'decided:' .. ARGV[i]) ~= noted then
            if is_lost or redis.call('HEXISTS', meta, 'state:' .. ARGV[i]) == 0 then
                redis.call('HSET', meta, 'gone:' .. ARGV[i], noted)
            else
                unmarked[#unmarked + 1] = ARGV[i]
            end
        end
    end
end
return {born, redis.call('HGET', meta, 'format'), unmarked}
"""
)


class _Noted(msgspec.Struct):
    home: str = ""
    born: str = ""
    mappings: list[str] = msgspec.field(default_factory=list)
    gone: list[str] = msgspec.field(default_factory=list)
    former: list[str] = msgspec.field(default_factory=list)
    fleet: str = ""


@dataclass(slots=True)
class Note:
    """What a replica remembers of its fleet in its own folder; without a folder, while it runs."""

    folder: Path | None
    #: Whom we know; empty = we have known none.
    born: str = ""
    #: Those whose texts we have seen.
    mappings: set[str] = field(default_factory=set)
    #: Those that we knew in another Redis, and about which nobody has decided yet.
    gone: set[str] = field(default_factory=set)
    #: Whom we have known before, the last ones last: their data may be put back.
    former: list[str] = field(default_factory=list)
    #: Is what was kept in Redis by a fleet that we knew not there any more, as far as this process has seen?
    is_lost: bool = False
    #: What the fleet is called: for commands, which find replicas by their folders; empty = not noted.
    fleet: str = ""
    #: Random, and as old as the note: a process that has it follows an earlier one of the same replica.
    home: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def read(cls, folder: Path | None) -> Note:
        """Read it; one that is not there knows nothing.

        Raises:
            StoreUnavailable: it cannot be read, or is no note.
        """
        if folder is None:
            return cls(None)
        path = folder / FILE_NAME
        try:
            noted = msgspec.json.decode(path.read_bytes(), type=_Noted)
        except FileNotFoundError:
            return cls(folder)
        except OSError as error:
            raise StoreUnavailable(f"note of the fleet {path}: it cannot be read ({error.strerror})") from error
        except msgspec.MsgspecError as error:
            raise StoreUnavailable(
                f"note of the fleet {path}: it is damaged; move it away if the state in Redis is the one you mean"
            ) from error
        found = cls(folder, noted.born, set(noted.mappings), set(noted.gone), noted.former, fleet=noted.fleet)
        found.home = noted.home or found.home
        return found

    def add(self, mappings: Iterable[str]) -> None:
        """Remember that these have texts. Raises StoreUnavailable."""
        if new := set(mappings) - self.mappings:
            self.mappings |= new
            try:
                self.write()
            except StoreUnavailable:
                self.mappings -= new  # so that the next one tries again
                raise

    def drop(self, mappings: Iterable[str]) -> None:
        """Remember no more of these that they had texts: they have none to be missed. Raises StoreUnavailable."""
        if old := self.mappings.intersection(mappings) - self.gone:
            self.mappings -= old
            self.write()

    def has(self, mapping: str) -> bool:
        """Has it had texts in the Redis that we use now, as far as we know?"""
        return mapping in self.mappings and mapping not in self.gone

    def write(self) -> None:
        """Keep it, whole or not at all. Raises StoreUnavailable."""
        if self.folder is None:
            return
        path, partial = self.folder / FILE_NAME, self.folder / f"{FILE_NAME}.partial"
        noted = _Noted(self.home, self.born, sorted(self.mappings), sorted(self.gone), self.former, self.fleet)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(msgspec.json.encode(noted))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync(self.folder)
        except OSError as error:
            raise StoreUnavailable(f"note of the fleet {path}: it cannot be written ({error.strerror})") from error


def noted_fleet(folder: Path) -> str:
    """Name the fleet of the replica that has a folder; empty = that is not known."""
    try:
        return Note.read(folder).fleet
    except StoreUnavailable:
        return ""


async def find_fleet(link: RedisLink, note: Note) -> None:
    """Find out who the fleet is, make it where there is none, and let the link speak to it from now on.

    Mappings whose texts are gone with a former fleet are marked: in Redis for all replicas where it was emptied, or has
    nothing of them, and else in the note.

    Raises:
        StoreUnavailable: Redis cannot be asked, or what it has is of a newer version; or the note cannot be written.
    """
    there, gone = sorted(note.mappings - note.gone), sorted(note.mappings & note.gone)
    arguments: list[Argument] = [uuid.uuid4().hex, FORMAT, note.born, len(there), *there, *gone]
    born, version, unmarked = await link.run(_FIND, [link.key("meta")], arguments)
    _check_version(link, int(version))
    link.born = born.decode()
    if (note.born, note.fleet) != (link.born, link.fleet):
        if note.born != link.born:
            _follow(note, link.born, {each.decode() for each in unmarked})
        note.fleet = link.fleet
        note.write()


def _follow(note: Note, born: str, unmarked: Iterable[str]) -> None:
    """Note that the fleet is another one; `unmarked`: what is gone, and not marked so in Redis itself."""
    if born in note.former:  # its data were put back
        note.is_lost = False
        note.gone.clear()
        note.former.remove(born)
    elif note.born:
        note.is_lost = True
        note.gone.update(unmarked)
    if note.born:
        note.former = [*note.former, note.born][-FORMERS:]
    note.born = born


async def known_fleet(link: RedisLink) -> None:
    """Let the link speak to the fleet that is there.

    Raises:
        StoreUnavailable: there is none, Redis cannot be asked, or what it has is of a newer version.
    """
    born, version = await link.command("HMGET", link.key("meta"), "born", "format")
    if born is None:
        raise StoreUnavailable(f"there is no {link.where}: no headrace has run with it yet")
    _check_version(link, int(version))
    link.born = born.decode()


def _check_version(link: RedisLink, version: int) -> None:
    if version > FORMAT:
        raise StoreUnavailable(
            f"{link.where}: it was written by a newer headrace (version {version}, this one knows up to {FORMAT}); "
            "run that version or a newer one, or choose another `fleet` name"
        )
