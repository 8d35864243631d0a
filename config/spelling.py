"""How AWS writes what the file says: other spellings of a key, and keys whose value has another place here.

The rule of spelling: a key is AWS's in snake_case, and where AWS has it, its own spelling is taken too, which is the
same words in PascalCase but for a few that are listed. What AWS writes elsewhere (`EventSourceArn`, `Topics`) is a
`Form`: it says at which path of our block its value belongs, and is put there before the block is read. So there is
one way to read a value, whoever wrote it, and messages show it where it was written (`Place.elsewhere`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from config.document import Entry, Node
from config.mistakes import Place, Report
from config.reading import Kind

_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def pascal(name: str) -> str:
    """Write a key as AWS does: batch_size -> BatchSize."""
    return "".join(part.capitalize() for part in name.split("_"))


def snake(name: str) -> str:
    """Write a key of AWS as we do: BatchSize -> batch_size, KMSKeyArn -> kms_key_arn."""
    return _WORDS.sub("_", name).lower()


class Piece(NamedTuple):
    """A value and where it belongs."""

    #: Dotted, from the block in which its form stands.
    path: str
    node: Node
    #: Where it was written.
    place: Place


@dataclass(frozen=True, slots=True)
class Form:
    """A key of AWS's whose value belongs elsewhere."""

    kind: Kind[Iterable[Piece]]
    #: Markdown, one sentence.
    meaning: str
    #: Where its pieces may belong; may be none.
    paths: tuple[str, ...]
    #: What is as good as read when the form itself is unfit; None = its paths.
    covers: str | None = None
    #: Does it bring a value wherever it is there?
    always: bool = True

    def lost(self, place: Place) -> tuple[Piece, ...]:
        """Stand in for the pieces of a form that is unfit."""
        return tuple(unfit(path, place) for path in ((self.covers,) if self.covers else self.paths))


def unfit(path: str, place: Place) -> Piece:
    """Say that a form has no value for a path, which was reported."""
    return Piece(path, Node(place.line, None, reported=True), place)


def put(entries: dict[str, Entry], piece: Piece, place: Place, report: Report) -> bool:
    """Put a piece where it belongs in the entries of the block at a place; True = it is there.

    What stands there already stays, and is reported. Blocks on the way are made where they lack.
    """
    *blocks, last = piece.path.split(".")
    for name in blocks:
        entry = entries.get(name, Entry(place.line, Node(place.line, None)))
        inner = {} if entry.node.value is None else entry.node.value
        if entry.node.reported or not isinstance(inner, dict):  # whoever reads it reports it
            return False
        inner = dict(inner)
        entries[name] = Entry(entry.line, replace(entry.node, value=inner))
        entries, place = inner, place.key(name, entry.line)
    if last not in entries:
        entries[last] = Entry(piece.place.line, piece.node)
        return True
    if not piece.node.reported:
        report.add(piece.place, beside(place.key(last, entries[last].line)))
    return False


def beside(place: Place) -> str:
    """Say that a value was given before, in another spelling."""
    return f"found beside {place.path} in line {place.line}, allowed one of them"


def names_of(name: str, aws: bool | tuple[str, ...]) -> tuple[str, ...]:  # noqa: FBT001 - as the schema declares it
    """Give AWS's spellings of a key: True = the rule, else the exceptions."""
    return aws if isinstance(aws, tuple) else (pascal(name),) * aws


def named(table: Mapping[str, Form | str]) -> dict[str, str]:
    """Give every spelling that is taken of the keys of a table, which has them as AWS writes them."""
    return {spelling: name for name in table for spelling in (name, snake(name))}
