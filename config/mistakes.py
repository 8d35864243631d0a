"""Mistakes of an operator in the configuration: collected all at once, told one a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from router.errors import ConfigError

#: A file with more mistakes than this is not the file that was meant; the rest is not listed.
LISTED_COUNT: Final = 100

#: What is said of keys and values that will be taken one day.
LATER: Final = "not supported yet"

#: Longest piece of the file that is repeated in a message, characters.
_SHOWN_LENGTH: Final = 60
_PLAIN_KEY: Final = re.compile(r"[\w-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to edit."""

    #: The file as the operator named it.
    file: str
    #: From 1; None when it concerns the file itself.
    line: int | None
    #: Dotted path of the key; empty = the file as a whole.
    path: str
    #: What was found and what is allowed.
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(filter(None, (place, self.path, self.message)))


def listed(words: Sequence[str]) -> str:
    """Write names in a row: a, b and c."""
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last


class InvalidConfiguration(ConfigError):
    """The file cannot be used; `mistakes` has every reason, in the order of the file."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes: Final = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


class Unfit(Exception):
    """A value is not what its key takes; says what was found and what is allowed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the file something stands."""

    path: str
    line: int
    #: Dotted paths from here to what was written in another spelling or at another place, to the path there.
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    #: It was written in AWS's way.
    aws: bool = False

    def key(self, name: str, line: int) -> Place:
        shown = name if _PLAIN_KEY.fullmatch(name) else quoted(name)
        path = self.elsewhere.get(name) or (f"{self.path}.{shown}" if self.path else shown)
        below = {known[len(name) + 1 :]: path for known, path in self.elsewhere.items() if known.startswith(f"{name}.")}
        return Place(path, line, below, aws=name in self.elsewhere)

    def item(self, index: int, line: int) -> Place:
        return Place(f"{self.path}[{index}]", line, aws=self.aws)


class Report:
    """Collects the mistakes of one file, and what is right but may surprise."""

    def __init__(self, file: str) -> None:
        self._file: Final = file
        self._mistakes: list[Mistake] = []
        self._notices: list[tuple[int, str]] = []

    @property
    def notices(self) -> tuple[str, ...]:
        """What was noted, in the order of the file."""
        return tuple(text for _, text in sorted(self._notices))

    def note(self, place: Place, message: str) -> None:
        """Note what is right but may surprise."""
        self._notices.append((place.line, f"{place.path}: {message}"))

    def add(self, place: Place, message: str) -> None:
        """Note a mistake.

        Raises:
            InvalidConfiguration: there are so many that reading on helps nobody.
        """
        if len(self._mistakes) == LISTED_COUNT:
            self._mistakes.append(Mistake(self._file, None, "", f"more than {LISTED_COUNT} mistakes, not listed"))
            self.settle()
        self._mistakes.append(Mistake(self._file, place.line, place.path, message))

    def settle(self) -> None:
        """Raise InvalidConfiguration if there was any mistake."""
        if self._mistakes:
            raise InvalidConfiguration(sorted(self._mistakes, key=_by_line))


def quoted(text: str) -> str:
    """Show a text of the file in a message: on one line, printable and not too long."""
    text = text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "..."
    return f'"{text}"' if text.isprintable() and '"' not in text else json.dumps(text)


def _by_line(mistake: Mistake) -> float:
    return float("inf") if mistake.line is None else mistake.line
