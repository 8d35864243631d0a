"""Keeps what was made through the API: in memory to be read, in the store to last.

What is written is on disk before it is seen, and what runs follows it (`follow`) before the write returns. Changes to
one function or mapping that read before they write hold its lock (`changing`), by its name or UUID.

Where replicas share the store, each write names the text that it is to replace: who has not seen the last one writes
nothing, is told to try again, and knows it then. What is written is given to the others before the write returns
(`spread`, fleet.py); so what was made on one is found on all of them. A mapping that must not be the same as another
also names the number that changes with each such one, as it was when all of them were looked at: so no two replicas
make the same at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from weakref import WeakValueDictionary

import msgspec

from router.catalogue import records
from router.catalogue.records import FUNCTIONS, LATEST, MAKINGS, MAPPINGS, Function
from router.errors import DecisionNeeded, Overtaken, StoreUnavailable
from router.ports import Change, PutState, Store, Unchanged, digest_of

Record: TypeAlias = Function | records.Mapping

_KINDS: Final[Mapping[str, type[Record]]] = {FUNCTIONS: Function, MAPPINGS: records.Mapping}
#: For people.
_WHAT: Final = {FUNCTIONS: "function", MAPPINGS: "event source mapping"}


#: What was deleted is remembered of so many versions, aliases and functions, at most.
REMEMBERED: Final = 1000


async def _nothing() -> None:
    """Nobody follows yet."""


async def _alone(kind: str, key: str, before: str, text: str) -> None:
    """Nobody shares the store."""


class Catalogue:
    """Functions by name, and mappings by UUID; those of the file beside them, which it does not keep."""

    def __init__(self, store: Store, *, is_shared: bool = False) -> None:
        """Make it empty; see `load`. `is_shared`: replicas share the store."""
        self._store = store
        self._functions: dict[str, Function] = {}
        self._mappings: dict[str, records.Mapping] = {}
        self._of_file: tuple[Mapping[str, Function], Mapping[str, records.Mapping]] = ({}, {})
        #: As they were when a version or alias was deleted, or LATEST with all of them, while this process runs.
        self._gone: dict[tuple[str, str], Function] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: Of the texts that we know, by kind and key; None = nobody else changes them.
        self._digests: dict[tuple[str, str], str] | None = {} if is_shared else None
        self._reading = asyncio.Lock()
        #: All mappings that were kept when that number was this text; None = not known.
        self._unlike: tuple[str, dict[str, records.Mapping]] | None = None
        #: What was written, or taken on, since all was read last began: newer than what that found.
        self._written: set[str] = set()
        #: Was it read, whenever? Until then a store that cannot be read leaves us without knowledge.
        self._is_read = False
        self._unknown = "what was made through the API has not been read yet" if is_shared else None
        #: Takes on what has changed; awaited after every write.
        self.follow: Callable[[], Awaitable[None]] = _nothing
        #: Has other replicas take on a text: kind, key, the digest of what it replaces, and itself.
        self.spread: Callable[[str, str, str, str], Awaitable[None]] = _alone

    async def load(self) -> None:
        """Read all that is kept, also what another replica has written since; but for what is being changed here.

        Raises:
            StoreUnavailable: also where a text is none of ours.
            DecisionNeeded: some of it is gone from a store that replicas share.
        """
        try:
            await self._load()
        except StoreUnavailable as error:
            if not self._is_read:
                self._unknown = f"what was made through the API could not be read yet: {error}"
            raise

    def check(self) -> None:
        """Make sure that what is here is all there is. Raises StoreUnavailable."""
        if self._unknown:
            raise StoreUnavailable(self._unknown)

    async def _load(self, ours: str | None = None) -> None:
        """Read all; `ours` is what we are changing ourselves, and want to know anew."""
        async with self._reading:
            self._written.clear()
            read = {kind: _read(await self._states(kind), kind) for kind in _KINDS}
            busy = {key for key, lock in self._locks.items() if lock.locked() and key != ours} | self._written
            for kind, found in read.items():
                for key in (self._of(kind).keys() | found.keys()) - busy:
                    self._set(kind, key, *found.get(key, (None, "")))
            self._is_read, self._unknown = True, None

    async def _states(self, kind: str) -> Mapping[str, str]:
        try:
            return await self._store.states(kind)
        except DecisionNeeded as error:
            self._unknown = (
                f"what was kept of each {_WHAT[kind]} that was made through the API is not in the store of the fleet "
                "any more: put the former data back, or go on with what is left "
                f"(`headrace mapping accept '{kind}'`)"
            )
            raise DecisionNeeded(error.code, self._unknown) from error

    def show_file(self, functions: Mapping[str, Function], mappings: Mapping[str, records.Mapping]) -> None:
        """Have the file's functions (by name) and mappings (by UUID) found here, too; in place of those before."""
        before, self._of_file = self._of_file[0], (functions, mappings)
        for was in before.values():
            self._remember(was, self.function(was.name))

    @property
    def functions(self) -> Mapping[str, Function]:
        """All functions by name; the file's win."""
        return self._functions | dict(self._of_file[0])

    @property
    def mappings(self) -> Mapping[str, records.Mapping]:
        """All mappings by UUID."""
        return self._mappings | dict(self._of_file[1])

    @property
    def made(self) -> tuple[Mapping[str, Function], Mapping[str, records.Mapping]]:
        """Functions and mappings that were made here, without those of the file."""
        return MappingProxyType(self._functions), MappingProxyType(self._mappings)

    def function(self, name: str) -> Function | None:
        """Give one function; None = there is no such."""
        return self._of_file[0].get(name) or self._functions.get(name)

    def last_known(self, name: str, qualifier: str) -> Function | None:
        """Give a function as it is, or was when a version or alias of it was last there: for what was accepted before.

        What is deleted is remembered for a while.
        """
        function = self.function(name)
        if function and (function.version(qualifier) or qualifier in function.aliases):
            return function
        return self._gone.get((name, qualifier)) or function or self._gone.get((name, LATEST))

    def mapping(self, uuid: str) -> records.Mapping | None:
        """Give one mapping; None = there is no such."""
        return self._of_file[1].get(uuid) or self._mappings.get(uuid)

    def changing(self, key: str) -> AbstractAsyncContextManager[None]:
        """Keep others from changing one function or mapping meanwhile; also from making another of a name."""
        lock = self._locks.get(key)
        if lock is None:
            self._locks[key] = lock = asyncio.Lock()
        return lock

    def is_changing(self, key: str) -> bool:
        """Is one function or mapping being changed here?"""
        lock = self._locks.get(key)
        return lock is not None and lock.locked()

    async def put_function(self, function: Function) -> None:
        """Write a function.

        Raises:
            StoreUnavailable: nothing has changed; also where another replica has changed it meanwhile.
        """
        await self._write(FUNCTIONS, function.name, function)

    async def drop_function(self, name: str) -> None:
        """Forget a function. Raises as `put_function`."""
        await self._write(FUNCTIONS, name, None)

    async def put_mapping(self, mapping: records.Mapping) -> None:
        """Write a mapping. Raises as `put_function`."""
        await self._write(MAPPINGS, mapping.uuid, mapping)

    async def put_unlike(self, mapping: records.Mapping, refuse: Callable[[Iterable[records.Mapping]], None]) -> None:
        """Write a mapping that must not be the same as another.

        Args:
            mapping: the mapping.
            refuse: is given all mappings that there are, also those of replicas that we have not heard of; raises if
                one of them is in the way. Asked again when others have written some meanwhile.

        Raises:
            StoreUnavailable: as `put_function`.
        """
        if self._digests is None:
            refuse(self.mappings.values())
            await self.put_mapping(mapping)
            return
        while True:
            makings, kept, is_new = await self._kept_mappings()
            try:
                refuse([*kept.values(), *self._of_file[1].values()])
            except Exception:
                if is_new:
                    raise
                self._unlike = None  # what is in the way may be there no more
                continue
            # A store that comes back with older data counts on from there: by chance never to what was known before.
            next_one = PutState(MAKINGS, MAKINGS, str(int(makings or 0) + 1 + secrets.randbelow(1 << 32)))
            before = self._digest(MAPPINGS, mapping.uuid)
            try:
                await self._replace_kept(
                    MAPPINGS, mapping.uuid, mapping, [next_one, Unchanged(MAKINGS, MAKINGS, digest_of(makings))]
                )
            except Overtaken as error:
                if self._digest(MAPPINGS, mapping.uuid) != before:
                    raise _overtaken(MAPPINGS, mapping.uuid) from error
            else:
                self._unlike = next_one.text, {**kept, mapping.uuid: mapping}
                return

    async def _kept_mappings(self) -> tuple[str, Mapping[str, records.Mapping], bool]:
        """Give the number that changes with each one unlike others, all there are then, and whether they were read."""
        try:
            makings = (await self._store.states(MAKINGS)).get(MAKINGS, "")
            if self._unlike and self._unlike[0] == makings:
                return *self._unlike, False
            read = _read(await self._states(MAPPINGS), MAPPINGS)
        except DecisionNeeded as error:
            raise StoreUnavailable(str(error)) from error
        return makings, {key: each for key, (each, _) in read.items() if isinstance(each, records.Mapping)}, True

    async def drop_mapping(self, uuid: str) -> None:
        """Forget a mapping. Raises as `put_function`."""
        await self._write(MAPPINGS, uuid, None)

    async def take(self, kind: str, key: str, before: str, text: str) -> None:
        """Take on what another replica has written. Raises StoreUnavailable and DecisionNeeded."""
        async with self.changing(key):
            if self._digest(kind, key) != before:  # one of us has missed something
                await self._load(ours=key)
            elif text:
                self._replace(kind, key, _decoded(kind, key, text), text)
            else:
                self._replace(kind, key, None, "")
        await self.follow()

    async def refresh(self) -> None:
        """Take on whatever others have written, and what could not be followed before. Raises as `load`."""
        await self.load()
        await self.follow()

    def _replace(self, kind: str, key: str, record: Record | None, text: str) -> None:
        self._set(kind, key, record, text)
        self._written.add(key)

    async def _write(self, kind: str, key: str, record: Record | None) -> None:
        try:
            await self._replace_kept(kind, key, record)
        except Overtaken as error:
            raise _overtaken(kind, key) from error

    async def _replace_kept(self, kind: str, key: str, record: Record | None, more: Sequence[Change] = ()) -> None:
        """Write what takes the place of a text, and more in the same step.

        Raises:
            Overtaken: nothing has changed; what others have written is known.
            StoreUnavailable: nothing has changed.
        """
        text = "" if record is None else msgspec.json.encode(record).decode()
        before = self._digest(kind, key)
        guard = () if self._digests is None else (Unchanged(kind, key, before),)
        try:
            await self._store.apply([PutState(kind, key, text), *guard, *more])
        except Overtaken:
            await self._catch_up(key)
            raise
        self._replace(kind, key, record, text)
        await asyncio.gather(self.follow(), self.spread(kind, key, before, text))

    async def _catch_up(self, key: str) -> None:
        try:
            await self._load(ours=key)
        except DecisionNeeded as error:
            raise StoreUnavailable(str(error)) from error
        await self.follow()

    def _remember(self, was: Function, record: Record | None) -> None:
        """Remember a function as it was where something of it is not there any more."""
        left = {LATEST, *record.versions, *record.aliases} if isinstance(record, Function) else set()
        for qualifier in {LATEST, *was.versions, *was.aliases} - left:
            self._gone[was.name, qualifier] = was
            if len(self._gone) > REMEMBERED:
                del self._gone[next(iter(self._gone))]

    def _of(self, kind: str) -> dict[str, Any]:
        return self._functions if kind == FUNCTIONS else self._mappings

    def _digest(self, kind: str, key: str) -> str:
        return (self._digests or {}).get((kind, key), "")

    def _set(self, kind: str, key: str, record: Record | None, text: str) -> None:
        was = self._of(kind).get(key)
        if isinstance(was, Function):
            self._remember(was, record)
        if record is None:
            self._of(kind).pop(key, None)
        else:
            self._of(kind)[key] = record
        if self._digests is not None:
            self._digests.pop((kind, key), None)
            if text:
                self._digests[kind, key] = digest_of(text)


def _read(texts: Mapping[str, str], kind: str) -> dict[str, tuple[Record, str]]:
    return {key: (_decoded(kind, key, text), text) for key, text in texts.items()}


def _decoded(kind: str, key: str, text: str) -> Record:
    try:
        return msgspec.json.decode(text, type=_KINDS[kind])
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"what the store has of {_WHAT[kind]} {key} cannot be read: {error}") from error


def _overtaken(kind: str, key: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"another replica has changed {_WHAT[kind]} {key} at the same moment, so nothing was changed here: do it again"
    )
