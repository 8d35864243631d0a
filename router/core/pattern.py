"""Filter patterns: compiling the JSON text, and finding whether an event fits.

The rule: the fields of an object must all fit, the alternatives of a field are either-or, nested objects are paths,
and a dot in a key, of the pattern or of the event, is a step of the path. `$or` takes a list of objects of which one
must fit. Written order decides where a path occurs twice: the later leaf replaces the earlier one, also across the
border of a `$or`.

Theory: `$or` is multiplied out, so a pattern is a list of rules and a rule maps paths to leaves. An event fits a rule
if each path has a value that its leaf accepts *and* the values agree on the elements they come from: two fields below
one array of objects must be found in one element (`binding`). Only the places that some path leads to are visited,
however large the event is.

Source: AWS Lambda developer guide, "Control which events Lambda sends to your function"; the grammar in full is the
open-source event ruler's (JsonRuleCompiler), whose newest compiler is followed where its versions differ.

Limits: 4096 characters a pattern (API reference, Filter). 1000 combinations of `$or` and 100 levels are our own
limits; they keep compiling and matching cheap.

Weak spot: a key that occurs twice in one object of an event counts with its last value only, where the engine takes
both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, TypeAlias

from router.core.binding import Requirements, agree, collect, fit, plan
from router.core.literal import Pairs, parse_event, parse_pairs
from router.core.matcher import InvalidPattern, Leaf, compile_leaf

__all__ = ["InvalidPattern", "Pattern", "Rule", "compile_pattern", "compile_rules", "parse_event"]

#: Characters of one pattern.
MAX_PATTERN_LENGTH = 4096
#: Rules that one pattern may multiply out to.
MAX_COMBINATIONS = 1000
#: Levels of objects and `$or`, and steps of a path.
MAX_DEPTH = 100

#: Leaves by dotted path; all must accept.
Rule: TypeAlias = dict[str, Leaf]

#: Names that the engine keeps for itself inside a branch of `$or`.
_RESERVED = frozenset(
    {
        *("exactly", "prefix", "suffix", "equals-ignore-case", "wildcard", "numeric", "anything-but", "exists", "cidr"),
        *("=", "<", "<=", ">", ">="),
        *("regex", "not-wildcard", "not-equals-ignore-case"),
        *("date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"),
        *("ip-address-in-range", "ip-address-not-in-range"),
    }
)


class Pattern:
    """Rules of which an event must fit one."""

    __slots__ = ("_path_count", "_root", "_rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Prepare rules for matching; a rule without fields fits everything."""
        rules = list(rules)
        paths = sorted({path for rule in rules for path in rule}, key=_alphabetical)
        numbers = {path: number for number, path in enumerate(paths)}
        self._path_count = len(paths)
        self._root = plan(paths)
        self._rules: list[Requirements] = [
            sorted(((numbers[path], leaf) for path, leaf in rule.items()), key=itemgetter(0)) for rule in rules
        ]

    def matches(self, event: object) -> bool:
        """Tell whether an event, JSON as `parse_event` returns it, fits; never raises."""
        found, bound = collect(self._root, self._path_count, event)
        satisfied = agree if bound else fit
        for rule in self._rules:  # noqa: SIM110 - any() costs more than the test, for every record
            if satisfied(rule, found):
                return True
        return False


def compile_pattern(text: str) -> Pattern:
    """Compile one pattern.

    Raises:
        InvalidPattern: it breaks the grammar or a limit.
    """
    return Pattern(compile_rules(text))


def compile_rules(text: str) -> list[Rule]:
    """Compile one pattern to its rules, one for each combination of `$or` branches.

    Raises:
        InvalidPattern: it breaks the grammar or a limit.
    """
    if len(text) > MAX_PATTERN_LENGTH:
        raise InvalidPattern(f"a pattern has at most {MAX_PATTERN_LENGTH} characters, found {len(text)}")
    try:
        pattern = parse_pairs(text)
    except ValueError as error:
        raise InvalidPattern(f"the pattern is not JSON: {error}") from error
    return _compile_object(pattern, _Place(), [{}])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the pattern the compiler is."""

    #: Keys of the pattern down to here, without `$or`.
    keys: tuple[str, ...] = ()
    #: The same with the branches of `$or`, as messages show it.
    trail: tuple[str, ...] = ()
    in_branch: bool = False

    def __str__(self) -> str:
        return ".".join(self.trail) or "the pattern"

    @property
    def path(self) -> str:
        return ".".join(self.keys)

    def field(self, key: str) -> "_Place":
        return replace(self, keys=(*self.keys, key), trail=(*self.trail, key))

    def branch(self, index: int) -> "_Place":
        return replace(self, trail=(*self.trail, f"$or[{index}]"), in_branch=True)


def _compile_object(pattern: Any, place: _Place, rules: list[Rule]) -> list[Rule]:
    """Add the fields of an object to every rule so far."""
    if not isinstance(pattern, Pairs) or not pattern:
        raise InvalidPattern(f"{place}: needs an object that is not empty")
    if len(place.trail) > MAX_DEPTH:
        raise InvalidPattern(f"{place.trail[0]}: nested more than {MAX_DEPTH} levels deep")
    for key, value in pattern:
        rules = _compile_or(value, place, rules) if key == "$or" else _compile_field(key, value, place, rules)
    return rules


def _compile_or(branches: Any, place: _Place, rules: list[Rule]) -> list[Rule]:
    if not isinstance(branches, list) or len(branches) < 2:
        raise InvalidPattern(f"{place}: $or needs a list of at least two objects")
    combined: list[Rule] = []
    for index, branch in enumerate(branches):
        combined += _compile_object(branch, place.branch(index), [dict(rule) for rule in rules])
        if len(combined) > MAX_COMBINATIONS:
            raise InvalidPattern(f"{place}: more than {MAX_COMBINATIONS} combinations of $or")
    return combined


def _compile_field(key: str, value: Any, place: _Place, rules: list[Rule]) -> list[Rule]:
    if place.in_branch and key in _RESERVED:
        raise InvalidPattern(f'{place}: "{key}" is reserved and cannot name a field inside $or')
    below = place.field(key)
    if isinstance(value, Pairs):
        return _compile_object(value, below, rules)
    if not isinstance(value, list):
        raise InvalidPattern(f"{below}: needs a list of alternatives or an object")
    if below.path.count(".") >= MAX_DEPTH:
        raise InvalidPattern(f"{below.trail[0]}: a path of more than {MAX_DEPTH} steps")
    leaf = compile_leaf(value, str(below))
    for rule in rules:
        rule[below.path] = leaf
    return rules


def _alphabetical(path: str) -> bytes:
    """Order text by UTF-16 code units, as the engine's language does."""
    return path.encode("utf-16-be", "surrogatepass")
