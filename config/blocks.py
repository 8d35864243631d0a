"""Blocks of keys, lists and maps: the kinds of values that hold others.

A block is a frozen dataclass whose fields are made by `takes`, and this one table is the schema: what a key takes, what
it is when it is absent, what it means and whose rule that is. Reading, messages and the printed reference come from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from config.document import Entry, Node
from config.mistakes import Place, Unfit, quoted
from config.reading import Found, Kind, Reader

T = TypeVar("T")
B = TypeVar("B", bound="Block")


class _Default(Enum):
    REQUIRED = "required"
    EMPTY = ""


#: The key must be there.
REQUIRED: Final = _Default.REQUIRED
#: An absent block is read as an empty one: its keys have defaults of their own.
EMPTY: Final = _Default.EMPTY

#: AWS spellings whose key has another name or place here.
_AWS_NAMES: Final = {
    "AmazonManagedKafkaEventSourceConfig": "source.kafka.consumer_group",
    "EventSourceArn": "source",
    "FunctionName": "function",
    "SelfManagedEventSource": "source",
    "SelfManagedKafkaEventSourceConfig": "source.kafka.consumer_group",
    "SourceAccessConfigurations": "source.kafka.security",
    "Topics": "source.kafka.topic",
}


class Only(NamedTuple):
    """A key that has a meaning with some sources only."""

    sources: tuple[str, ...]
    #: What there is instead with the others, for messages.
    instead: str


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


def takes(
    kind: Kind[Any],
    meaning: str,
    *,
    source: str = "ours",
    default: object = REQUIRED,
    shown: str = "",
    only: Only | None = None,
) -> Any:
    """Declare a key as a field of a block; `default` is what an absent key becomes, not read by `kind`."""
    return field(metadata={"key": Key(kind, meaning, source, default, shown, only)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What was read from one block of the file."""

    #: Keys that are known but not taken, with what to say.
    REFUSED: ClassVar[Mapping[str, str]] = {}

    place: Place
    #: The keys that are there, as they were written.
    entries: Mapping[str, Entry]
    #: Keys that are missing or whose value is unfit, which was reported; their fields are None.
    unsound: frozenset[str]

    @classmethod
    def keys(cls) -> dict[str, Key]:
        return {item.name: item.metadata["key"] for item in fields(cls) if "key" in item.metadata}

    def at(self, name: str) -> Place:
        """Give the place of a key; where it is absent, its path at the line of the block."""
        return self.place.key(name, self.entries[name].line if name in self.entries else self.place.line)

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
        place, reader = found.place, found.reader
        entries = {} if found.value is None else found.value
        if not isinstance(entries, dict):
            raise found.mismatch(self.allowed)
        keys = self.block.keys()
        for name, entry in entries.items():
            if name not in keys:
                reader.report.add(place.key(name, entry.line), self._unknown(name))
        values = {
            name: self._value(declared, name, entries.get(name), place, reader) for name, declared in keys.items()
        }
        return self.block(
            place=place,
            entries=entries,
            unsound=frozenset(name for name, sound in values.items() if sound is None),
            **{name: sound and sound.value for name, sound in values.items()},
        )

    def _value(self, declared: Key, name: str, entry: Entry | None, place: Place, reader: Reader) -> _Sound | None:
        if entry is not None:
            value = reader.attempt(declared.kind, entry.node, place.key(name, entry.line))
            return None if value is None else _Sound(value)
        if declared.default is EMPTY:
            return _Sound(reader.read(declared.kind, Node(place.line, None), place.key(name, place.line)))
        if declared.default is not REQUIRED:
            return _Sound(declared.default)
        reader.report.add(place.key(name, place.line), f"found nothing, allowed {declared.kind.allowed}")
        return None

    def _unknown(self, name: str) -> str:
        keys = self.block.keys()
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        if name in self.block.REFUSED or snake in self.block.REFUSED:
            return self.block.REFUSED.get(name) or self.block.REFUSED[snake]
        if name[:1].isupper() and (snake in keys or name in _AWS_NAMES):
            return f"AWS spellings are not supported yet, write {_AWS_NAMES.get(name, snake)}"
        close = get_close_matches(snake[:64], keys, n=1, cutoff=0.7)
        return f"unknown key, did you mean {close[0]}?" if close else f"unknown key, allowed {', '.join(keys)}"


@dataclass(frozen=True, slots=True)
class _Sound:
    """The value of a sound key, which may be None."""

    value: object


@dataclass(frozen=True, slots=True)
class Names:
    """What a map's keys may be."""

    allowed: str
    form: re.Pattern[str]
    #: Say why a name of the right form is not taken all the same; None = it is, or all are.
    refusal: Callable[[str], str | None] | None = None

    def mistake(self, name: str) -> str | None:
        if not self.form.fullmatch(name):
            return f"found the name {quoted(name)}, allowed {self.allowed}"
        return self.refusal(name) if self.refusal else None


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


def nested(kind: Kind[Any], path: str) -> Iterator[tuple[str, type[Block]]]:
    """Give the blocks that a kind holds, each with the path at which it stands."""
    match kind:
        case BlockOf():
            yield path, kind.block
        case MapOf():
            yield from nested(kind.kind, f"{path}.NAME")
        case ListOf():
            yield from nested(kind.kind, f"{path}[]")
