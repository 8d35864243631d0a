"""Modelled constraints of requests: types, ranges, lengths, patterns and sets of words, with AWS's generic texts.

Shapes are declared as in the service's model (AWS Lambda API reference; texts as recorded) and know nothing of what
the values are for. All that is broken in a request is said at once, in the order of the declaration. Members that a
shape does not know are ignored, and null is as if it were absent, as AWS has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from router.api.errors import ApiError, violated

NOT_NULL: Final = "Member must not be null"
#: Type of JSON -> what a value of another one is called when it is to become one.
_TOKENS: Final = {dict: "START_OBJECT", list: "START_ARRAY", str: "STRING_VALUE", int: "NUMBER_VALUE"}


def refuse(broken: Sequence[str]) -> None:
    """Raise what AWS answers where constraints are broken; nothing where none are."""
    if broken:
        raise violated(detected(broken))


def detected(broken: Sequence[str]) -> str:
    """Give the text for broken constraints, each as `broke` makes it."""
    errors = "error" if len(broken) == 1 else "errors"
    return f"{len(broken)} validation {errors} detected: {'; '.join(broken)}"


def broke(value: Any, path: str, constraint: str) -> str:
    """Say that the value at a path breaks a constraint."""
    shown = "null" if value is None else f"'{_shown(value)}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}"


def mistyped(value: Any, wanted: str) -> ApiError:
    """Refuse a value of another type of JSON; `wanted` is such as "a String"."""
    kind = {True: "TRUE_VALUE", False: "FALSE_VALUE"}[value] if isinstance(value, bool) else _token(value)
    return ApiError("SerializationException", f"{kind} can not be converted to {wanted}")


def _token(value: Any) -> str:
    return next((token for kind, token in _TOKENS.items() if isinstance(value, kind)), "NUMBER_VALUE")


def _shown(value: Any) -> str:
    match value:
        case list():
            return f"[{', '.join(map(_shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}={_shown(each)}' for key, each in value.items())}}}"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


#: Integers of the API are those of 32 bits.
_INTEGERS: Final = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer, or any number where `is_float`."""

    low: float | None = None
    high: float | None = None
    is_float: bool = False

    def broken(self, value: Any) -> Iterator[str]:
        """Give the constraints that a value breaks. Raises ApiError: it is of another type."""
        kinds = (int, float) if self.is_float else (int,)
        is_large = isinstance(value, int) and value not in _INTEGERS
        if isinstance(value, bool) or not isinstance(value, kinds) or (is_large and not self.is_float):
            raise mistyped(value, "a Double" if self.is_float else "an Integer")
        most, least = self._bounds()
        if self.high is not None and value > self.high:
            yield most
        if self.low is not None and value < self.low:
            yield least

    def constraints(self) -> list[str]:
        """Give all constraints."""
        most, least = self._bounds()
        return [*([] if self.high is None else [most]), *([] if self.low is None else [least])]

    def _bounds(self) -> tuple[str, str]:
        return (
            f"Member must have value less than or equal to {self.high}",
            f"Member must have value greater than or equal to {self.low}",
        )


@dataclass(frozen=True, slots=True)
class Text:
    """A string; its length in characters."""

    low: int | None = None
    high: int | None = None
    #: A regular expression that must match all of it.
    pattern: str | None = None
    #: What it may be, in the order in which it is told; empty = anything.
    words: tuple[str, ...] = ()

    def broken(self, value: Any) -> Iterator[str]:
        """Give the constraints that a value breaks. Raises ApiError: it is of another type."""
        if not isinstance(value, str):
            raise mistyped(value, "a String")
        for constraint, holds in zip(self.constraints(), self._holds(value), strict=True):
            if not holds:
                yield constraint

    def _holds(self, value: str) -> Iterator[bool]:
        if self.high is not None:
            yield len(value) <= self.high
        if self.low is not None:
            yield len(value) >= self.low
        if self.pattern is not None:
            yield re.fullmatch(self.pattern, value) is not None
        if self.words:
            yield value in self.words

    def constraints(self) -> list[str]:
        """Give all constraints."""
        return [
            *_lengths(self.low, self.high),
            *([] if self.pattern is None else [f"Member must satisfy regular expression pattern: {self.pattern}"]),
            *([f"Member must satisfy enum value set: [{', '.join(self.words)}]"] if self.words else []),
        ]


def _lengths(low: int | None, high: int | None) -> list[str]:
    return [
        *([] if high is None else [f"Member must have length less than or equal to {high}"]),
        *([] if low is None else [f"Member must have length greater than or equal to {low}"]),
    ]


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def broken(self, value: Any) -> Iterator[str]:
        """Nothing can be broken. Raises ApiError: it is of another type."""
        if not isinstance(value, bool):
            raise mistyped(value, "a Boolean")
        yield from ()

    def constraints(self) -> list[str]:
        return []


Scalar: TypeAlias = Number | Text | Flag


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of scalars or of structures."""

    member: Scalar | Structure
    low: int | None = None
    high: int | None = None

    def broken(self, value: Any) -> Iterator[str]:
        """Give the constraints that a list of scalars breaks. Raises ApiError: it is of another type."""
        if not isinstance(value, list):
            raise mistyped(value, "a List")
        yield from Text(self.low, self.high).broken("·" * len(value))
        if not isinstance(self.member, Structure) and any(_breaks(self.member, each) for each in value):
            yield f"Member must satisfy constraint: {_all(self.member, NOT_NULL)}"

    def constraints(self) -> list[str]:
        """Give all constraints of a list of scalars."""
        of_each = [] if isinstance(self.member, Structure) else [_all(self.member, NOT_NULL)]
        return [*_lengths(self.low, self.high), *(f"Member must satisfy constraint: {each}" for each in of_each)]


@dataclass(frozen=True, slots=True)
class Map:
    """Names with scalars, or with lists of scalars."""

    key: Text
    value: Scalar | Listed
    low: int | None = None
    high: int | None = None
    #: Are its values kept out of what is said about it?
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class Structure:
    """Members by name, as the API spells them."""

    members: Mapping[str, Shape] = field(default_factory=dict)
    required: tuple[str, ...] = ()


Shape: TypeAlias = Number | Text | Flag | Listed | Map | Structure


def check(shape: Structure, document: Mapping[str, Any]) -> None:
    """Refuse a request that breaks constraints.

    Raises:
        ApiError: ValidationException with all that is broken; SerializationException for the first of another type.
    """
    refuse(list(broken(shape, document)))


def broken(shape: Structure, document: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Say what of a document breaks constraints, each as `broke` does. Raises ApiError: a value is of another type."""
    for name, member in shape.members.items():
        value = document.get(name)
        where = f"{path}{lower_first(name)}"
        if value is not None:
            yield from _broken(member, value, where)
        elif name in shape.required:
            yield broke(None, where, NOT_NULL)


def lower_first(name: str) -> str:
    """Give the name of a member as texts of refusals have it."""
    return name[:1].lower() + name[1:]


def _broken(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape:
        case Structure():
            if not isinstance(value, dict):
                raise mistyped(value, "an Object")
            yield from broken(shape, value, f"{path}.")
        case Listed():
            yield from _broken_list(shape, value, path)
        case Map():
            yield from _broken_map(shape, value, path)
        case _:
            for constraint in shape.broken(value):
                yield broke(value, path, constraint)


def _broken_list(shape: Listed, value: Any, path: str) -> Iterator[str]:
    for constraint in shape.broken(value):
        yield broke(value, path, constraint)
    if isinstance(shape.member, Structure):
        for number, each in enumerate(value, 1):
            yield from _broken(shape.member, each or {}, f"{path}.{number}.member")


def _broken_map(shape: Map, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        raise mistyped(value, "a Map")
    found = list(Text(shape.low, shape.high).broken("·" * len(value)))
    if any(_breaks(shape.value, each) for each in value.values()):
        found.append(f"Map value must satisfy constraint: {_all(shape.value, NOT_NULL)}")
    if any(_breaks(shape.key, each) for each in value):
        found.append(f"Map keys must satisfy constraint: {_all(shape.key)}")
    for constraint in found:
        said = broke(value, path, constraint)
        yield f"Value at {said.partition(' at ')[2]}" if shape.is_secret else said


def _breaks(shape: Scalar | Listed, value: Any) -> bool:
    return value is None or any(shape.broken(value))


def _all(shape: Scalar | Listed, *more: str) -> str:
    return f"[{', '.join([*shape.constraints(), *more])}]"
