"""Reading values out of a document: what a kind of value is, and where its references lead.

A `Kind` turns one node into a value or raises `Unfit`; what holds several values (a block, a list) notes the unfit ones
and reads on, so that all mistakes of a file come at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from config.document import Node, Value
from config.mistakes import Place, Report, Unfit, quoted
from config.paths import require_file
from config.watching import Seen, stamp

#: Largest file that a `${file:}` may bring.
_FILE_LIMIT_BYTES: Final = 64 * 1024
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")
#: What no path, environment variable or broker takes.
_UNUSABLE: Final = re.compile("[\0\ud800-\udfff]")

#: JSON Schema of a value.
Schema: TypeAlias = dict[str, Any]
#: In a JSON Schema, a text that may come to any text.
REFERRING: Final = r"\$\{(?:env|file):"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Kind(Protocol[T_co]):
    """What a key takes."""

    @property
    def allowed(self) -> str:
        """What it takes, for messages and the reference: "1 to 10000"."""
        ...

    def read(self, found: Found) -> T_co:
        """Give the value of what was found.

        Raises:
            Unfit: it has none.
        """
        ...


@runtime_checkable
class Scalar(Kind[T_co], Protocol[T_co]):
    """A kind of single values."""

    @property
    def schema(self) -> Schema:
        """What it takes, as JSON Schema: at least all that `read` takes."""
        ...


def schema_of_text(form: str) -> Schema:
    """Give the JSON Schema of a text that as a whole has a form, or refers to one."""
    return {"type": "string", "pattern": f"^(?:{form})$|{REFERRING}"}


@dataclass(frozen=True, slots=True)
class Found:
    """A node whose own references are resolved, where it stands, and the reading that it is part of."""

    node: Node
    place: Place
    reader: Reader

    @property
    def value(self) -> Value:
        return self.node.value

    def mismatch(self, allowed: str) -> Unfit:
        """Say that this is not what is allowed; a number in quotes is told from a number."""
        shown = self.node.shown()
        if isinstance(self.value, str) and not self.node.secret and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", self.value):
            shown = f"the text {shown}"
        return Unfit(f"found {shown}, allowed {allowed}")


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one document."""

    report: Report
    #: Folder of the file, absolute: relative paths start here.
    base: Path
    environment: Mapping[str, str]
    #: Epoch seconds.
    now_s: float
    #: Files that references lead to.
    seen: Seen = field(default_factory=dict)

    def read(self, kind: Kind[T], node: Node, place: Place) -> T:
        """Resolve the references of a node and read it. Raises Unfit."""
        return kind.read(Found(self.resolve(node), place, self))

    def attempt(self, kind: Kind[T], node: Node, place: Place) -> T | None:
        """Read a node, or note why it cannot be read and give None."""
        try:
            return self.read(kind, node, place)
        except Unfit as unfit:
            self.report.add(place, str(unfit))
            return None

    def resolve(self, node: Node) -> Node:
        """Put in what `${env:}` and `${file:}` stand for; a text with either is secret as a whole. Raises Unfit."""
        if not isinstance(node.value, str):
            return node
        _require_usable(node.value, "the text")
        if "${" not in node.value:
            return node
        secret = any(match.group() != "$${" for match in _REFERENCE.finditer(node.value))
        return replace(node, value=_REFERENCE.sub(self._referred, node.value), secret=secret)

    def _referred(self, match: re.Match[str]) -> str:
        whole: str = match.group()
        if whole == "$${":
            return "${"
        kind, _, name = whole[2:].removesuffix("}").partition(":")
        if kind not in ("env", "file") or not name or not whole.endswith("}"):
            raise Unfit(f"found {quoted(whole)}, allowed ${{env:NAME}} and ${{file:PATH}}; a plain ${{ is written $${{")
        return self._variable(name) if kind == "env" else self._contents(name)

    def _variable(self, name: str) -> str:
        what = f"environment variable {quoted(name)}"
        text = self.environment.get(name)
        if text is None:
            raise Unfit(f"{what} is not set")
        return _require_usable(text, what)

    def _contents(self, name: str) -> str:
        what = f"file {quoted(name)}"
        path = self.base / name
        self.seen[path] = stamp(path)
        require_file(path, what)
        try:
            with path.open("rb") as file:
                content = file.read(_FILE_LIMIT_BYTES + 1)
        except OSError as error:
            raise Unfit(f"{what} cannot be read: {error.strerror}") from None
        if len(content) > _FILE_LIMIT_BYTES:
            raise Unfit(f"{what} is larger than {_FILE_LIMIT_BYTES} bytes")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise Unfit(f"{what} is not UTF-8 text") from None
        return _require_usable(text.removesuffix("\n").removesuffix("\r"), what)


@dataclass(frozen=True, slots=True)
class LiteralReader(Reader):
    """Reads a document whose texts are what they are: who wrote it must not learn what is in our environment."""

    def resolve(self, node: Node) -> Node:
        """Refuse what no text may hold. Raises Unfit."""
        if isinstance(node.value, str):
            _require_usable(node.value, "the text")
        return node


def _require_usable(text: str, what: str) -> str:
    if _UNUSABLE.search(text):
        raise Unfit(f"{what} has a character that is NUL or half of a pair")
    return text
