"""YAML text to a tree that knows its lines.

The tree is built from the parser's events instead of by the library's constructors, because only so a file can be
refused while it is read: it is bounded in depth and in the number of values *after* aliases are expanded, keys are
checked for repetition, and tags can construct nothing. Scalars follow the core schema of YAML 1.2 (chapter 10.3), so
`on`, `yes` and dates are texts. `<<` merges a block into another, as YAML 1.1 had it and people use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from config.mistakes import Place, Report, quoted

#: Levels of blocks and lists.
MAX_DEPTH: Final = 40
#: Values, those behind aliases counted each time they are used.
MAX_COUNT: Final = 100_000

#: A URL that may hold a password: it is not shown, at whatever key it was written.
_HAS_PASSWORD: Final = re.compile("(rediss?)?://.*@", re.DOTALL)


class Entry(NamedTuple):
    """One key of a block."""

    #: Where the key stands.
    line: int
    node: Node


Value: TypeAlias = "bool | int | float | str | tuple[Node, ...] | dict[str, Entry] | None"


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file."""

    line: int
    value: Value
    #: A scalar as it was written, without its quotes.
    text: str = ""
    #: Its value came from the environment or another file; only `text`, the reference itself, is shown.
    secret: bool = False
    #: Values in it, itself counted.
    size: int = 1
    #: It stands for a value that was found unfit, which is reported already.
    reported: bool = False

    def shown(self) -> str:
        """Describe what was found here, for a message."""
        match self.value:
            case None:
                return "nothing"
            case str() if not self.secret and (found := _HAS_PASSWORD.search(self.text)):
                return "the URL of a Redis (not shown)" if found[1] else "a URL with credentials (not shown)"
            case str():
                return f"{quoted(self.text)} (value not shown)" if self.secret else quoted(self.text)
            case tuple():
                return "a list"
            case dict():
                return "a block"
            case _:
                return quoted(self.text).strip('"')


def parse(text: str, report: Report) -> Node | None:
    """Read one document; None when it is so broken that there is no tree, which then was reported."""
    try:
        return _Composer(_protect_references(text), report).document()
    except _Refused as refusal:
        report.add(refusal.place, str(refusal))
    except ReaderError as error:
        report.add(Place("", text.count("\n", 0, error.position) + 1), "not YAML: a control character in the text")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        report.add(Place("", mark.line + 1 if mark else 1), f"not YAML: {_explain(error)}")
    except (YAMLError, ValueError, OverflowError):
        # The library lets out what chr() and int() say about absurd escapes and version numbers.
        report.add(Place("", 1), "not YAML: an escape or a directive that means nothing")
    return None


#: What a value begins with.
_VALUES: Final = (ScalarEvent, SequenceStartEvent, MappingStartEvent)


class _Refused(Exception):
    """The document is YAML, but not of the kind that is taken here."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


class _Composer:
    """Builds the tree of one document."""

    def __init__(self, text: str, report: Report) -> None:
        self._events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
        self._report = report
        self._anchors: dict[str, Node | None] = {}
        self._count = 0

    def document(self) -> Node:
        top: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if top is not None:
                    raise _Refused(Place("", _line(event)), "a second document begins, allowed one in a file")
                top = self._node(next(self._events), Place("", _line(event)), 0)
        return top or Node(1, None)

    def _node(self, event: Event, place: Place, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _Refused(place, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, AliasEvent):
            return self._alias(event, place)
        assert isinstance(event, _VALUES), event
        self._add(1, place)
        if event.anchor:
            self._anchors[event.anchor] = None
        if event.tag is not None:
            raise _Refused(
                place, f"found the tag {quoted(event.tag)}, allowed plain values: references are written out"
            )
        node = self._value(event, place, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _value(self, event: Event, place: Place, depth: int) -> Node:
        before = self._count
        if isinstance(event, ScalarEvent):
            text = _restore_references(event.value)
            return Node(_line(event), text if event.style else _resolve(text), text)
        if isinstance(event, SequenceStartEvent):
            items = tuple(self._items(place, depth))
            return Node(_line(event), items, size=self._count - before + 1)
        block = self._block(place, depth)
        return Node(_line(event), block, size=self._count - before + 1)

    def _alias(self, event: AliasEvent, place: Place) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise _Refused(place, "found an alias of nothing that is complete above it")
        self._add(node.size, place)
        return node

    def _add(self, count: int, place: Place) -> None:
        self._count += count
        if self._count > MAX_COUNT:
            raise _Refused(place, f"more than {MAX_COUNT} values, aliases counted each time")

    def _items(self, place: Place, depth: int) -> Iterator[Node]:
        index = 0
        while not isinstance(event := next(self._events), SequenceEndEvent):
            yield self._node(event, place.item(index, _line(event)), depth + 1)
            index += 1

    def _block(self, place: Place, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), MappingEndEvent):
            line = _line(event)
            if not isinstance(event, ScalarEvent):
                raise _Refused(place.item(len(entries), line), "found a key that is no text, allowed names")
            name = _restore_references(event.value)
            inside = place.key(name, line)
            node = self._node(next(self._events), inside, depth + 1)
            if name == "<<" and not event.style:
                merged.append(node)
            elif name in entries:
                self._report.add(inside, f"found a second time, first in line {entries[name].line}")
            else:
                entries[name] = Entry(line, node)
        for node in merged:
            self._merge(entries, node, place)
        return entries

    def _merge(self, entries: dict[str, Entry], node: Node, place: Place) -> None:
        """Add what `<<` brings, below what is written out; the first of several blocks wins."""
        for block in node.value if isinstance(node.value, tuple) else (node,):
            if not isinstance(block.value, dict):
                raise _Refused(
                    place.key("<<", node.line), f"found {block.shown()}, allowed a block or a list of blocks"
                )
            for name, entry in block.value.items():
                entries.setdefault(name, entry)


def _line(event: Event) -> int:
    line: int = event.start_mark.line
    return line + 1


# --- scalars

_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def _resolve(text: str) -> bool | int | float | str | None:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan").replace(".I", "I").replace(".N", "N"))
    return text


# --- references
#
# `{KEY: ${env:NAME}}` is not YAML, as a brace ends a plain scalar inside braces, but it is what everybody writes. So
# the braces of a reference are exchanged for private characters, one for one, and lines and columns stay.

_WRITTEN: Final = re.compile(r"\$\{((?:env|file):[^{}\r\n]*)\}")
_PROTECTED: Final = re.compile("\\$\ue000([^\ue000\ue001]*)\ue001")


def _protect_references(text: str) -> str:
    return _WRITTEN.sub("$\ue000\\1\ue001", text)


def _restore_references(text: str) -> str:
    return _PROTECTED.sub(r"${\1}", text)


#: What the parser repeats of the file, apart from single characters; it writes '<block end>' for its own terms.
_QUOTED: Final = re.compile(r"'([^']*)'")


def _explain(error: MarkedYAMLError) -> str:
    """Say what is wrong without quoting the file, which may hold a secret just there."""
    problem = str(error.problem or error.context or "it cannot be read")
    return _QUOTED.sub(
        lambda match: match[0] if match[1][:1] == "<" or len(match[1]) < 3 else "that", problem.splitlines()[0]
    )
