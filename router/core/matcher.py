"""What one leaf of a filter pattern accepts.

The rule: a leaf is a non-empty list of alternatives; a value fits if it fits one of them. A literal fits its equal, a
matcher object with exactly one key (`{"prefix": "a"}`) fits by its own rule. Every mistake is found when the pattern
is compiled; a compiled leaf accepts or declines any JSON scalar and never raises.

Theory: literals of all types go into one set, so a leaf of literals costs one look-up. Matching text takes time
proportional to its length: a wildcard is a prefix, a suffix and the pieces between them, each taken at its first
place (taking a later one can never help); letters of either case become a regular expression that has nothing to
backtrack over, because the two forms of a letter never begin (for a suffix, which is read backwards, never end)
alike.

Source: AWS Lambda developer guide, "Filter rule syntax"; where it is silent, the open-source event ruler.

Weak spot: ignoring case follows the engine letter by letter and not Unicode: the letter of the *pattern* in lower or
in upper form, so a pattern sharp s fits SS, and a pattern k does not fit the Kelvin sign. Both forms come from this
interpreter's Unicode tables. The matchers wildcard, cidr and exactly, and matchers inside anything-but, belong to the
engine but not to the guide's table for event source mappings.
"""

import ipaddress
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from router.core.literal import BeyondDouble, Pairs, Scalar, comparable

Test: TypeAlias = Callable[[Scalar], bool]
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class InvalidPattern(ValueError):
    """A filter pattern breaks the grammar; the message says where in the pattern, and how."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The compiled alternatives of one field."""

    #: Literals that fit.
    exact: frozenset[Scalar]
    #: Rules of which one must fit when no literal does.
    tests: tuple[Test, ...]
    #: Does an absent field fit?
    takes_absence: bool

    def accepts(self, value: Any) -> bool:
        """Tell whether a parsed JSON scalar fits."""
        scalar = value if type(value) is str else comparable(value)
        if scalar in self.exact:
            return True
        for test in self.tests:  # noqa: SIM110 - any() costs more than the test, for every record
            if test(scalar):
                return True
        return False


def compile_leaf(alternatives: Sequence[Any], where: str) -> Leaf:
    """Compile the list at the end of a path.

    Raises:
        InvalidPattern: an empty list, or an alternative that is no literal and no matcher.
    """
    if not alternatives:
        raise InvalidPattern(f"{where}: needs at least one alternative, found []")
    exact: set[Scalar] = set()
    tests: list[Test] = []
    takes_absence = False
    for index, alternative in enumerate(alternatives):
        place = f"{where}[{index}]"
        if isinstance(alternative, Pairs):
            name, argument = _only_pair(alternative, place)
            takes_absence = takes_absence or (name == "exists" and argument is False)
            tests.append(_matcher(name, argument, _MATCHERS, place))
        elif isinstance(alternative, list):
            raise InvalidPattern(f"{place}: a list inside a list of alternatives")
        else:
            exact.add(comparable(alternative))
            tests.extend(_other_spellings(alternative))
    return Leaf(frozenset(exact), tuple(tests), takes_absence)


def _only_pair(matcher: Pairs, where: str) -> tuple[str, Any]:
    if len(matcher) != 1:
        raise InvalidPattern(f"{where}: a matcher has exactly one key, found {len(matcher)}")
    return matcher[0]


def _matcher(name: str, argument: Any, known: Mapping[str, Callable[[Any, str], Test]], where: str) -> Test:
    if name not in known:
        raise InvalidPattern(f'{where}: unknown matcher "{name}", known: {", ".join(known)}')
    return known[name](argument, f"{where}.{name}")


def _text(argument: Any, where: str) -> str:
    if not isinstance(argument, str):
        raise InvalidPattern(f"{where}: needs a string")
    return argument


def _some_text(argument: Any, where: str) -> str:
    if not _text(argument, where):
        raise InvalidPattern(f"{where}: needs a string that is not empty")
    return str(argument)


def _double(argument: Any, where: str) -> float:
    if not _is_number(argument):
        raise InvalidPattern(f"{where}: needs a number")
    number = comparable(argument)
    if not isinstance(number, float):
        raise InvalidPattern(f"{where}: the number cannot be held exactly by a double")
    return number


def _is_number(argument: Any) -> bool:
    return type(argument) in (int, float, BeyondDouble)


def _exactly(argument: Any, where: str) -> Test:
    text = _text(argument, where)
    return lambda value: value == text


def _prefix(argument: Any, where: str) -> Test:
    if isinstance(argument, Pairs):
        return _case_matcher(_prefix_of_either_case, argument, where)
    start = _text(argument, where)
    return lambda value: type(value) is str and value.startswith(start)


def _suffix(argument: Any, where: str) -> Test:
    if isinstance(argument, Pairs):
        return _case_matcher(_suffix_of_either_case, argument, where)
    end = _text(argument, where)
    return lambda value: type(value) is str and value.endswith(end)


def _case_matcher(compiler: Callable[[Any, str], Test], argument: Pairs, where: str) -> Test:
    name, text = _only_pair(argument, where)
    return _matcher(name, text, {"equals-ignore-case": compiler}, where)


def _either_case(letters: str, step: int = 1) -> str:
    """Write a regular expression for letters in lower or upper form, for text read forwards (1) or backwards (-1)."""
    forms = ((letter.lower()[::step], letter.upper()[::step]) for letter in letters[::step])
    return "".join(f"(?:{re.escape(lower)}|{re.escape(upper)})" for lower, upper in forms)


def _equals_ignore_case(argument: Any, where: str) -> Test:
    fits = re.compile(_either_case(_text(argument, where))).fullmatch
    return lambda value: type(value) is str and fits(value) is not None


def _prefix_of_either_case(argument: Any, where: str) -> Test:
    fits = re.compile(_either_case(_text(argument, where))).match
    return lambda value: type(value) is str and fits(value) is not None


def _suffix_of_either_case(argument: Any, where: str) -> Test:
    text = _text(argument, where)
    fits = re.compile(_either_case(text, -1)).match
    longest = sum(max(len(letter.lower()), len(letter.upper())) for letter in text)
    return lambda value: type(value) is str and fits(value[: -longest - 1 : -1]) is not None


_WILDCARD = re.compile(r"(?:[^*\\]|\\[*\\]|\*(?!\*))*")
_WILDCARD_SIGN = re.compile(r"\\?[\s\S]")


def _wildcard(argument: Any, where: str) -> Test:
    text = _text(argument, where)
    if not _WILDCARD.fullmatch(text):
        raise InvalidPattern(f"{where}: no two adjacent *, and a backslash only before * or another backslash")
    pieces = [""]
    for sign in _WILDCARD_SIGN.findall(text):
        if sign == "*":
            pieces.append("")
        else:
            pieces[-1] += sign[-1]
    if len(pieces) == 1:
        return lambda value: value == pieces[0]
    first, *between, last = pieces
    return lambda value: type(value) is str and _follows(value, first, between, last)


def _follows(value: str, first: str, between: Sequence[str], last: str) -> bool:
    if not value.startswith(first) or not value.endswith(last):
        return False
    start, end = len(first), len(value) - len(last)
    for piece in between:
        found = value.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return start <= end


_LOWER = {">": operator.gt, ">=": operator.ge}
_UPPER = {"<": operator.lt, "<=": operator.le}
_COMPARISONS = {"=": operator.eq} | _LOWER | _UPPER


def _numeric(argument: Any, where: str) -> Test:
    match argument:
        case [str(sign), bound] if sign in _COMPARISONS:
            compare, limit = _COMPARISONS[sign], _double(bound, where)
            return lambda value: type(value) is float and compare(value, limit)
        case [str(lower), bottom, str(upper), top] if lower in _LOWER and upper in _UPPER:
            return _range(_LOWER[lower], _double(bottom, where), _UPPER[upper], _double(top, where), where)
    raise InvalidPattern(
        f'{where}: needs one comparison, as [">", 0] with =, <, <=, > or >=, '
        'or a range, lower bound first, as [">=", 0, "<", 10]'
    )


def _range(
    above: Callable[[float, float], bool],
    bottom: float,
    below: Callable[[float, float], bool],
    top: float,
    where: str,
) -> Test:
    if not bottom < top:
        raise InvalidPattern(f"{where}: the lower bound must be less than the upper one")
    return lambda value: type(value) is float and above(value, bottom) and below(value, top)


def _anything_but(argument: Any, where: str) -> Test:
    if isinstance(argument, Pairs):
        return _anything_but_matching(argument, where)
    listed = argument if isinstance(argument, list) else [argument]
    if listed and all(isinstance(one, str) for one in listed):
        excluded: frozenset[Scalar] = frozenset(listed)
    elif listed and all(_is_number(one) for one in listed):
        excluded = frozenset(_double(one, where) for one in listed)
    else:
        raise InvalidPattern(
            f"{where}: needs a string, a number, a list of either (not mixed, not empty), or a matcher"
        )
    return lambda value: value not in excluded


def _anything_but_matching(argument: Pairs, where: str) -> Test:
    name, listed = _only_pair(argument, where)
    texts = listed if isinstance(listed, list) else [listed]
    if not texts:
        raise InvalidPattern(f"{where}.{name}: needs a string or a list of strings that is not empty")
    excluded = [_matcher(name, text, _EXCLUDABLE, where) for text in texts]
    return lambda value: not any(test(value) for test in excluded)


def _exists(argument: Any, where: str) -> Test:
    if not isinstance(argument, bool):
        raise InvalidPattern(f"{where}: needs true or false")
    return lambda _: argument


_NETWORK = re.compile(r"(?:[0-9.]+|[0-9a-fA-F:]+)/[0-9]+")
_ADDRESS = re.compile(r"[0-9.]+|[0-9a-fA-F:]+")


def _cidr(argument: Any, where: str) -> Test:
    text = _text(argument, where)
    try:
        network = ipaddress.ip_network(text, strict=False) if _NETWORK.fullmatch(text) else None
    except ValueError:
        network = None
    if network is None or network.prefixlen == network.max_prefixlen:
        raise InvalidPattern(
            f'{where}: needs a network as "10.0.0.0/8" (mask 0 to 31) or "2001:db8::/32" (mask 0 to 127)'
        )
    return lambda value: (address := _address(value)) is not None and address in network


def _address(value: Scalar) -> Address | None:
    if type(value) is not str or not _ADDRESS.fullmatch(value):
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _other_spellings(literal: Any) -> list[Test]:
    """Accept an address literal in its other spellings; only version 6 has any."""
    address = _address(literal)
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    return [lambda value: _address(value) == address]


_MATCHERS: dict[str, Callable[[Any, str], Test]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
    "numeric": _numeric,
    "anything-but": _anything_but,
    "exists": _exists,
    "cidr": _cidr,
    "exactly": _exactly,
}

_EXCLUDABLE: dict[str, Callable[[Any, str], Test]] = {
    "prefix": lambda argument, where: _prefix(_some_text(argument, where), where),
    "suffix": lambda argument, where: _suffix(_some_text(argument, where), where),
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
}
