"""Values of an event at the paths of a filter pattern, and whether they can be taken together.

The rule: an array of objects is transparent, but fields that are taken from below one array must be taken from one
element of it. A scalar that stands in the array itself belongs to no element. An array within an array binds as well.
`exists: false` is decided in alphabetical order of paths: the field must be absent from the elements chosen by the
paths before it, and from all elements of arrays that no path before it has bound.

Theory: each value carries its binding, the elements it lies in. Paths are taken in alphabetical order while a set of
joined bindings is kept, one for each way to satisfy the paths so far. All paths below an array are neighbours in that
order, so an array is forgotten after the last of them: the set stays as small as the arrays that are open, and
independent arrays never multiply. The bindings of one path form a tree (array, element, array, ...), so a join visits
only elements that agree, and n elements cost n steps, not n times n. Nothing here recurses: nesting in the event
cannot exhaust the stack.

Source: the open-source event ruler, "array consistency" (ArrayMembership, ACFinder); the order of absence is recorded
from it.

Weak spot: an event that spells one path in several ways at once (`{"a.b": [...], "a": {"b": [...]}}`) has several
arrays at that path, and their bindings do multiply.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from router.core.matcher import Leaf

#: An array of the event: the number of the last path below it, and a number of its own.
Array: TypeAlias = tuple[int, int]
#: Elements that values were taken from, outermost array first.
Binding: TypeAlias = tuple[tuple[Array, int], ...]
#: For each path, by number: its scalars, each with its binding.
Found: TypeAlias = list[list[tuple[Any, Binding]]]
#: The leaves of one rule by number of path, in that order.
Requirements: TypeAlias = Sequence[tuple[int, Leaf]]

_Choice: TypeAlias = frozenset[tuple[Array, int]]

_ABSENT = object()


@dataclass(eq=False, slots=True)
class Step:
    """A place that paths lead to or through."""

    #: Number of the path that ends here; -1 if none does.
    path: int = -1
    #: Number of the last path that ends here or below.
    last_path: int = -1
    #: Event keys that lead on; a key with dots takes several steps at once.
    onward: dict[str, "Step"] = field(default_factory=dict)


def plan(paths: Sequence[str]) -> Step:
    """Lay out dotted paths, alphabetically ordered, as the steps that lead to them; returns the first."""
    root = Step(last_path=len(paths) - 1)
    steps: dict[tuple[str, ...], Step] = {(): root}
    for number, path in enumerate(paths):
        keys = tuple(path.split("."))
        for length in range(1, len(keys) + 1):
            step = steps.get(keys[:length]) or _reach(keys[:length], steps)
            step.last_path = number
        steps[keys].path = number
    return root


def _reach(keys: tuple[str, ...], steps: dict[tuple[str, ...], Step]) -> Step:
    """Add a step, and the keys that lead to it from every step before it."""
    step = steps[keys] = Step()
    for length in range(len(keys)):
        steps[keys[:length]].onward[".".join(keys[length:])] = step
    return step


def collect(root: Step, path_count: int, event: object) -> tuple[Found, bool]:
    """Find the scalars at every path, and tell whether any of them is bound to an element."""
    found: Found = [[] for _ in range(path_count)]
    bound = False
    array_count = 0
    pending: list[tuple[Any, Step, Binding]] = [(event, root, ())]
    while pending:
        value, step, binding = pending.pop()
        kind = type(value)
        if kind is dict:
            for key, onward in step.onward.items():
                below = value.get(key, _ABSENT)
                if below is not _ABSENT:
                    pending.append((below, onward, binding))
        elif kind is list:
            array_count += 1
            pending.extend(_elements(value, step, binding, (step.last_path, array_count)))
        elif step.path >= 0:
            found[step.path].append((value, binding))
            bound = bound or bool(binding)
    return found, bound


def _elements(values: list[Any], step: Step, binding: Binding, array: Array) -> Iterator[tuple[Any, Step, Binding]]:
    """Bind the elements of an array, save scalars, and those of an array no path leads through."""
    for element, value in enumerate(values):
        if step.onward and type(value) in (dict, list):
            yield value, step, (*binding, (array, element))
        else:
            yield value, step, binding


def fit(rule: Requirements, found: Found) -> bool:
    """Tell whether values that are not bound satisfy a rule."""
    for path, leaf in rule:
        values = found[path]
        if not values and leaf.takes_absence:
            continue
        for value, _ in values:
            if leaf.accepts(value):
                break
        else:
            return False
    return True


def agree(rule: Requirements, found: Found) -> bool:
    """Tell whether values satisfy a rule that can be taken from the same elements."""
    choices: set[_Choice] = {frozenset()}
    for path, leaf in rule:
        choices = _advance(choices, leaf, found[path], path)
        if not choices:
            return False
    return True


def _advance(choices: set[_Choice], leaf: Leaf, values: Sequence[tuple[Any, Binding]], path: int) -> set[_Choice]:
    """Satisfy one more path from each choice in every way there is."""
    accepted = _Tree(binding for value, binding in values if leaf.accepts(value))
    extended = {_still_open(joined, path) for choice in choices for joined in accepted.joined_to(choice)}
    if leaf.takes_absence:
        present = _Tree(binding for _, binding in values)
        extended |= {
            _still_open(choice, path) for choice in choices if not any(True for _ in present.joined_to(choice))
        }
    return extended


def _still_open(choice: _Choice, path: int) -> _Choice:
    return frozenset((array, element) for array, element in choice if array[0] > path)


class _Tree:
    """Bindings of one path, by array and element."""

    __slots__ = ("arrays", "ends_here")

    def __init__(self, bindings: Iterable[Binding] = ()) -> None:
        self.ends_here = False
        self.arrays: dict[Array, dict[int, _Tree]] = {}
        for binding in bindings:
            self._add(binding)

    def _add(self, binding: Binding) -> None:
        place = self
        for array, element in binding:
            place = place.arrays.setdefault(array, {}).setdefault(element, _Tree())
        place.ends_here = True

    def joined_to(self, choice: _Choice) -> Iterator[_Choice]:
        """Extend the elements chosen so far by every binding that agrees with them."""
        chosen = dict(choice)
        pending = [(self, choice)]
        while pending:
            place, joined = pending.pop()
            if place.ends_here:
                yield joined
            for array, elements in place.arrays.items():
                if array not in chosen:
                    pending.extend((below, joined | {(array, element)}) for element, below in elements.items())
                elif chosen[array] in elements:
                    pending.append((elements[chosen[array]], joined))
