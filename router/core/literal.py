"""JSON values the way filter patterns compare them.

The rule: a number is compared by value, however it is spelled (300, 300.0 and 3.0e2 are one number), but only if a
double holds it: its value must be the shortest decimal of its nearest double. Any other number (9007199254740993,
1e400, twenty significant digits) is compared by its spelling and is neither less nor greater than anything. `true`
and `1` differ.

Theory: up to 15 significant digits every decimal survives the way to a double and back, so the check is needed only
for longer spellings and for exponents. Python integers are exact and have one JSON spelling, so they need no check
when they are read, only when they are compared.

Source: the open-source event ruler (ComparableNumber, and its compiler's treatment of numbers), which event buses and
event source mappings of AWS share.

Weak spot: the standard parser recurses, so JSON nested deeper than the interpreter's recursion limit (about 1000
levels, less in a deep call) counts as text that is not JSON.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn, TypeAlias

#: Integers up to here, and their negatives, are exact in a double.
_EXACT_INTEGER = 2**53

#: A spelling of this length has at most 15 significant digits, if it has a point and no exponent.
_SAFE_SPELLING = 16


@dataclass(frozen=True, slots=True)
class BeyondDouble:
    """A number that no double stands for: equal only to the same spelling."""

    #: The integer, or the spelling of a number with a fraction or an exponent.
    literal: int | str


class Truth(Enum):
    """JSON true and false, kept apart from 1 and 0, which Python counts as equal to them."""

    TRUE = "true"
    FALSE = "false"


class Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object as written: every pair, in order, repeated keys included."""

    __slots__ = ()


#: A JSON scalar in the one form in which equal values are equal and unequal ones are not.
Scalar: TypeAlias = str | float | BeyondDouble | Truth | None


def parse_event(data: bytes | str) -> Any:
    """Parse JSON, keeping numbers beyond a double as `BeyondDouble`.

    Bytes are UTF-8. A repeated key keeps its last value.

    Raises:
        ValueError: not UTF-8, not JSON (NaN and Infinity are not), or nested too deeply.
    """
    text = data if isinstance(data, str) else str(data, "utf-8")
    return _decode(_EVENT, text)


def parse_pairs(text: str) -> Any:
    """Parse JSON with objects as `Pairs`.

    Raises:
        ValueError: as for `parse_event`.
    """
    return _decode(_PAIRS, text)


def comparable(value: Any) -> Scalar:
    """Bring a parsed JSON scalar into the form that is compared."""
    kind = type(value)
    if kind is int:
        return _comparable_integer(value)
    if kind is bool:
        return Truth.TRUE if value else Truth.FALSE
    scalar: Scalar = value
    return scalar


def _decode(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def _comparable_integer(value: int) -> float | BeyondDouble:
    if -_EXACT_INTEGER <= value <= _EXACT_INTEGER:
        return float(value)
    try:
        nearest = float(value)
    except OverflowError:
        return BeyondDouble(value)
    return nearest if Decimal(repr(nearest)) == value else BeyondDouble(value)


def _read_integer(text: str) -> int | BeyondDouble:
    """Read an integer; beyond the interpreter's limit of digits (4300 by default) keep its spelling."""
    try:
        return int(text)
    except ValueError:
        return BeyondDouble(text)


def _read_fraction(text: str) -> float | BeyondDouble:
    nearest = float(text)
    if len(text) <= _SAFE_SPELLING and "e" not in text and "E" not in text:
        return nearest
    return nearest if _stands_for(nearest, text) else BeyondDouble(text)


def _stands_for(nearest: float, text: str) -> bool:
    if nearest == 0:
        digits = text.lower().partition("e")[0]
        return not digits.strip("-0.")
    return abs(nearest) != float("inf") and Decimal(text) == Decimal(repr(nearest))


def refuse_constant(text: str) -> NoReturn:
    """Refuse NaN and infinities, which Python's parser takes for JSON. Raises ValueError."""
    raise ValueError(f"{text} is no JSON value")


_EVENT = json.JSONDecoder(parse_float=_read_fraction, parse_int=_read_integer, parse_constant=refuse_constant)
_PAIRS = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_float=_read_fraction, parse_int=_read_integer, parse_constant=refuse_constant
)
