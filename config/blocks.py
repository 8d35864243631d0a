"""Blocks of keys, lists and maps: the kinds of values that hold others.

A block is a frozen dataclass whose fields are made by `takes`, and this one table is the schema: what a key takes, what
it is when it is absent, what it means and whose rule that is. Reading, messages and the printed reference come from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from config.document import Entry, Node
from config.mistakes import Place, Unfit, quoted
from config.reading import Found, Kind, Reader, Scalar
from config.spelling import Form, Piece, beside, named, names_of, put, snake

T = TypeVar("T")
B = TypeVar("B", bound="Block")


class _Default(Enum):
    REQUIRED = "required"
    EMPTY = ""


#: The key must be there.
REQUIRED: Final = _Default.REQUIRED
#: An absent block is read as an empty one: its keys have defaults of their own.
EMPTY: Final = _Default.EMPTY


class Only(NamedTuple):
    """A key that has a meaning with some sources only, or with some other keys."""

    sources: tuple[str, ...]
    #: What there is instead with the others, for messages.
    instead: str
    #: The key whose block names the source; empty = the names are keys of the same block.
    within: str = "source"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a block."""

    kind: Kind[Any]
    #: Markdown, one sentence.
    meaning: str
    #: Whose rule the range and the default are.
    source: str
    default: object
    #: The default as the reference shows it.
    shown: str
    #: None = it has its meaning with every source.
    only: Only | None
    #: Does AWS have it? True = by the same name; else its names there.
    aws: bool | tuple[str, ...]


def takes(
    kind: Kind[Any],
    meaning: str,
    *,
    source: str = "ours",
    default: object = REQUIRED,
    shown: str = "",
    only: Only | None = None,
    aws: bool | tuple[str, ...] = False,
) -> Any:
    """Declare a key as a field of a block; `default` is what an absent key becomes, not read by `kind`."""
    return field(metadata={"key": Key(kind, meaning, source, default, shown, only, aws)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What was read from one block of the file."""

    #: Exactly one of the keys must be there.
    ONE: ClassVar[bool] = False
    #: Keys that are known but not taken, in snake_case, with what to say.
    REFUSED: ClassVar[Mapping[str, str]] = {}
    #: Keys as AWS writes them that are taken and change nothing here, with what to say.
    IDLE: ClassVar[Mapping[str, str]] = {}
    #: Keys as AWS writes them whose value belongs elsewhere.
    FORMS: ClassVar[Mapping[str, Form]] = {}

    place: Place
    #: Nothing at all is there.
    bare: bool
    #: The keys that are there, by our names.
    entries: Mapping[str, Entry]
    #: Keys that are missing or whose value is unfit, which was reported; their fields are None.
    unsound: frozenset[str]

    @classmethod
    @cache
    def declared(cls) -> Mapping[str, Key]:
        """Give the keys that there are."""
        return {item.name: item.metadata["key"] for item in fields(cls) if "key" in item.metadata}

    @classmethod
    @cache
    def spellings(cls) -> Mapping[str, str]:
        """Give every spelling of a key, with the key."""
        return {
            spelling: name
            for name, declared in cls.declared().items()
            for spelling in (name, *names_of(name, declared.aws))
        }

    def at(self, name: str) -> Place:
        """Give the place of a key; where it is absent, its path at the line of the block."""
        return self.place.key(name, self.entries[name].line if name in self.entries else self.place.line)

    def called(self, name: str) -> str:
        """Give a key as the reader of a message knows it."""
        below = (path for known, path in self.place.elsewhere.items() if known.startswith(f"{name}."))
        return next(below, self.at(name).path).rpartition(".")[2].partition("[")[0]

    def gives(self, name: str) -> bool:
        return name in self.entries

    def sound(self, *names: str) -> bool:
        return self.unsound.isdisjoint(names)


@dataclass(frozen=True, slots=True)
class BlockOf(Generic[B]):
    """A block of keys; nothing at all is an empty one."""

    block: type[B]
    allowed: str = "a block of keys"

    def read(self, found: Found) -> B:
        written = {} if found.value is None else found.value
        if not isinstance(written, dict):
            raise found.mismatch(self.allowed)
        reader = found.reader
        place, entries = self._spell(written, found.place, reader)
        values = {
            name: self._value(declared, name, entries.get(name), place, reader)
            for name, declared in self.block.declared().items()
        }
        return self.block(
            place=place,
            bare=not written,
            entries=entries,
            unsound=frozenset(name for name, sound in values.items() if sound is None),
            **{name: sound and sound.value for name, sound in values.items()},
        )

    def _spell(self, written: Mapping[str, Entry], place: Place, reader: Reader) -> tuple[Place, Mapping[str, Entry]]:
        """Give what is there by our names and at our places, and the place that knows where it was written."""
        keys, elsewhere = self.block.spellings(), dict(place.elsewhere)
        known = replace(place, elsewhere=elsewhere)
        entries: dict[str, Entry] = {}
        others: dict[str, Entry] = {}
        for name, entry in written.items():
            key = keys.get(name)
            if key is None:
                others[name] = entry
            elif key in entries:
                reader.report.add(place.key(name, entry.line), beside(known.key(key, entries[key].line)))
            else:
                entries[key] = entry
                if name != key:
                    elsewhere[key] = place.key(name, entry.line).path
        ours = frozenset(entries)
        for piece in self._pieces(others, place, reader):
            if put(entries, piece, known, reader.report):
                elsewhere[piece.path] = piece.place.path
        if place.aws or any(name[:1].isupper() for name in written):
            self._expect(ours, place, elsewhere)
        return known, entries

    def _pieces(self, others: Mapping[str, Entry], place: Place, reader: Reader) -> list[Piece]:
        """Read the keys that are none of ours."""
        forms, idle = named(self.block.FORMS), named(self.block.IDLE)
        pieces: list[Piece] = []
        for name, entry in others.items():
            at = place.key(name, entry.line)
            if name in forms:
                form = self.block.FORMS[forms[name]]
                read = reader.attempt(form.kind, entry.node, replace(at, aws=name == forms[name]))
                pieces += form.lost(at) if read is None else read
            elif name in idle:
                reader.report.note(at, self.block.IDLE[idle[name]])
            else:
                reader.report.add(at, self._unknown(name))
        return pieces

    def _expect(self, ours: Collection[str], place: Place, elsewhere: dict[str, str]) -> None:
        """Let messages name what is missing as AWS does, in a block that is written in AWS's way."""
        for name, declared in self.block.declared().items():
            for spelling in names_of(name, declared.aws)[:1]:
                if name not in ours:
                    elsewhere.setdefault(name, place.key(spelling, 0).path)
        for name, form in self.block.FORMS.items():
            for path in form.paths:
                if path.partition(".")[0] not in ours:
                    elsewhere.setdefault(path, place.key(name, 0).path)

    def _value(self, declared: Key, name: str, entry: Entry | None, place: Place, reader: Reader) -> _Sound | None:
        if entry is not None:
            if entry.node.reported:
                return None
            value = reader.attempt(declared.kind, entry.node, place.key(name, entry.line))
            return None if value is None else _Sound(value)
        if declared.default is EMPTY:
            return _Sound(reader.read(declared.kind, Node(place.line, None), place.key(name, place.line)))
        if declared.default is not REQUIRED:
            return _Sound(declared.default)
        reader.report.add(place.key(name, place.line), f"found nothing, allowed {declared.kind.allowed}")
        return None

    def _unknown(self, name: str) -> str:
        keys, refused = self.block.declared(), self.block.REFUSED
        close = name if name in refused else snake(name)
        if close in refused:
            return refused[close]
        near = get_close_matches(close[:64], keys, n=1, cutoff=0.7)
        return f"unknown key, did you mean {near[0]}?" if near else f"unknown key, allowed {', '.join(keys)}"


@dataclass(frozen=True, slots=True)
class TextOrBlock(Generic[T, B]):
    """One text says it in short, or a block in full."""

    text: Scalar[T]
    block: BlockOf[B]

    @property
    def allowed(self) -> str:
        return f"{self.text.allowed}; or a block"

    def read(self, found: Found) -> T | B:
        return self.block.read(found) if isinstance(found.value, dict) else self.text.read(found)


@dataclass(frozen=True, slots=True)
class _Sound:
    """The value of a sound key, which may be None."""

    value: object


@dataclass(frozen=True, slots=True)
class Names:
    """What a map's keys may be."""

    allowed: str
    form: re.Pattern[str]
    #: Names of the right form that are not taken all the same, with what to say.
    refused: Mapping[str, str] = field(default_factory=dict)

    def mistake(self, name: str) -> str | None:
        if not self.form.fullmatch(name):
            return f"found the name {quoted(name)}, allowed {self.allowed}"
        return self.refused.get(name)


@dataclass(frozen=True, slots=True)
class MapOf(Generic[T]):
    """Values by names that the user chooses."""

    names: Names
    kind: Kind[T]
    allowed: str
    low: int = 0

    def read(self, found: Found) -> dict[str, T]:
        place, reader = found.place, found.reader
        entries = {} if found.value is None else found.value
        if not isinstance(entries, dict):
            raise found.mismatch(self.allowed)
        if len(entries) < self.low:
            raise Unfit(f"found nothing, allowed {self.allowed}")
        values: dict[str, T] = {}
        for name, entry in entries.items():
            inside = place.key(name, entry.line)
            if mistake := self.names.mistake(name):
                reader.report.add(inside, mistake)
            value = reader.attempt(self.kind, entry.node, inside)
            if value is not None:
                values[name] = value
        return values


@dataclass(frozen=True, slots=True)
class ListOf(Generic[T]):
    """Some values in a row."""

    kind: Kind[T]
    low: int
    high: int
    #: Text of several values may be written with commas between them.
    commas: bool = False

    @property
    def allowed(self) -> str:
        text = f"a list of {self.low} to {self.high}: {self.kind.allowed}"
        return f"{text}; or a text with commas" if self.commas else text

    def read(self, found: Found) -> tuple[T, ...]:
        items = self._items(found)
        if not self.low <= len(items) <= self.high:
            raise Unfit(f"found a list of {len(items)}, allowed {self.allowed}")
        values = [
            found.reader.attempt(self.kind, item, found.place.item(index, item.line))
            for index, item in enumerate(items)
        ]
        return tuple(value for value in values if value is not None)

    def _items(self, found: Found) -> tuple[Node, ...]:
        node = found.node
        if isinstance(node.value, tuple):
            return node.value
        if self.commas and isinstance(node.value, str):
            parts = [part.strip() for part in node.value.split(",")]
            return tuple(replace(node, value=part, text=node.text if node.secret else part) for part in parts)
        raise found.mismatch(self.allowed)
