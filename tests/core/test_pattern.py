"""Filter patterns against recorded answers of the engine, an exhaustive model, and hostile input."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.pattern import InvalidPattern, compile_pattern, parse_event

VECTORS = Path(__file__).parent.parent / "vectors" / "filters.jsonl"


def matches(pattern: Any, event: Any) -> bool:
    """Match values, or JSON text where the spelling matters."""
    pattern_text = pattern if isinstance(pattern, str) else json.dumps(pattern, ensure_ascii=False)
    event_text = event if isinstance(event, str) else json.dumps(event)
    return compile_pattern(pattern_text).matches(parse_event(event_text))


@cache
def recorded() -> dict[str, list[dict[str, Any]]]:
    """Read the recorded answers by kind; not one is left out, those that hang on the order of field names included."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in VECTORS.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        by_kind.setdefault(case["group"].partition("-")[0], []).append(case)
    return by_kind


def answer(case: dict[str, Any]) -> dict[str, bool]:
    try:
        pattern = compile_pattern(case["pattern"])
    except InvalidPattern:
        return {"valid": False, "matches": False}
    return {"valid": True, "matches": pattern.matches(parse_event(case["event"]))}


def test_recorded_answers_are_all_there() -> None:
    assert sum(map(len, recorded().values())) == 5277


@pytest.mark.parametrize("kind", sorted(recorded()))
def test_answers_as_the_engine_does(kind: str) -> None:
    wrong = [case for case in recorded()[kind] if answer(case) != {key: case[key] for key in ("valid", "matches")}]
    assert wrong == []


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("", "not JSON"),
        ('{"a": [NaN]}', "NaN is no JSON value"),
        ('{"a": ["x"]} more', "not JSON"),
        ("[]", "the pattern: needs an object"),
        ("{}", "the pattern: needs an object that is not empty"),
        ('{"a": {"b": {}}}', "a.b: needs an object that is not empty"),
        ('{"a": {"b": "x"}}', "a.b: needs a list of alternatives or an object"),
        ('{"a": []}', "a: needs at least one alternative"),
        ('{"a": ["x", ["y"]]}', "a[1]: a list inside a list"),
        ('{"a": ["x", {"regex": "y"}]}', 'a[1]: unknown matcher "regex", known: prefix, suffix'),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "a[0]: a matcher has exactly one key, found 2"),
        ('{"a": [{"prefix": 1}]}', "a[0].prefix: needs a string"),
        ('{"a": [{"prefix": {"suffix": "x"}}]}', 'a[0].prefix: unknown matcher "suffix"'),
        ('{"a": [{"wildcard": "a**"}]}', "a[0].wildcard: no two adjacent *"),
        ('{"a": [{"numeric": ["!=", 1]}]}', "a[0].numeric: needs one comparison"),
        ('{"a": [{"numeric": [">", 5, "<", 5]}]}', "a[0].numeric: the lower bound must be less"),
        ('{"a": [{"numeric": [">", true]}]}', "a[0].numeric: needs a number"),
        ('{"a": [{"numeric": [">", 1e400]}]}', "a[0].numeric: the number cannot be held exactly"),
        ('{"a": [{"anything-but": ["x", 1]}]}', "a[0].anything-but: needs a string, a number"),
        (
            '{"a": [{"anything-but": {"prefix": ["x", ""]}}]}',
            "a[0].anything-but.prefix: needs a string that is not empty",
        ),
        ('{"a": [{"anything-but": {"prefix": []}}]}', "a[0].anything-but.prefix: needs a string or a list"),
        ('{"a": [{"exists": "true"}]}', "a[0].exists: needs true or false"),
        ('{"a": [{"cidr": "10.0.0.1/32"}]}', "a[0].cidr: needs a network"),
        ('{"a": {"$or": [{"b": [1]}]}}', "a: $or needs a list of at least two objects"),
        ('{"a": {"$or": [{"b": [1]}, {"c": 1}]}}', "a.$or[1].c: needs a list of alternatives"),
        ('{"$or": [{"a": {"cidr": [1]}}, {"b": [1]}]}', '$or[0].a: "cidr" is reserved'),
        ("{" + ",".join(['"$or": [{"a": [1]}, {"b": [1]}]'] * 100) + "}", "more than 1000 combinations"),
        ('{"a":' * 200 + "[1]" + "}" * 200, "nested more than 100 levels"),
        ('{"' + "a." * 200 + '": [1]}', "a path of more than 100 steps"),
        ('{"a": ["' + "x" * 4096 + '"]}', "at most 4096 characters, found 4107"),
    ],
)
def test_says_what_is_wrong_and_where(pattern: str, complaint: str) -> None:
    with pytest.raises(InvalidPattern) as refused:
        compile_pattern(pattern)
    assert complaint in str(refused.value)


def test_refuses_a_pattern_nested_beyond_reason():
    # Before the reader runs out of stack or after it: that differs between versions of Python.
    with pytest.raises(InvalidPattern):
        compile_pattern("[" * 4000)


@pytest.mark.parametrize(
    ("pattern", "event", "expected"),
    [
        ('{"a": [300]}', '{"a": 3.0e2}', True),
        ('{"a": [1]}', '{"a": true}', False),
        ('{"a": [{"anything-but": 1}]}', '{"a": true}', True),
        ('{"a": [9007199254740993]}', '{"a": 9007199254740993}', True),
        ('{"a": [9007199254740992]}', '{"a": 9007199254740993}', False),
        ('{"a": [9007199254740993.0]}', '{"a": 9007199254740993}', False),
        ('{"a": [9007199254740992]}', '{"a": 9007199254740993.0}', False),
        ('{"a": [{"numeric": [">", 0]}]}', '{"a": 9007199254740993}', False),
        ('{"a": [{"anything-but": [0]}]}', '{"a": 1e400}', True),
        ('{"a": [1e400]}', '{"a": 1e400}', True),
        ('{"a": [1e400]}', '{"a": 10e399}', False),
        ('{"a": [0]}', '{"a": 1e-400}', False),
        ('{"a": [0]}', '{"a": -0.0e99999999999999999999}', True),
        ('{"a": [1e-9999999999999999999999]}', '{"a": 1e-9999999999999999999999}', True),
        ('{"a": [1180591620717411303424]}', '{"a": 1.1805916207174113e21}', False),
        ('{"a": [100000000000000000000000]}', '{"a": 1e23}', True),
        ('{"a": [{"numeric": [">", 0]}]}', '{"a": ' + "1" * 400 + "}", False),
        ('{"a": [' + "1" * 400 + "]}", '{"a": ' + "1" * 400 + "}", True),
        ('{"a": [{"exists": true}]}', '{"a": ' + "1" * 5000 + "}", True),
        ('{"a": [{"numeric": [">", 0]}]}', '{"a": ' + "1" * 5000 + "}", False),
        ('{"a": [{"numeric": ["<", 1]}]}', '{"a": 0.' + "1" * 5000 + "}", False),
        ('{"a": [{"numeric": ["=", 0.1]}]}', '{"a": 0.1' + "0" * 5000 + "}", True),
    ],
)
def test_compares_numbers_by_value_as_far_as_a_double_goes(pattern: str, event: str, *, expected: bool) -> None:
    assert matches(pattern, event) is expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"a.b.c": 1}, True),
        ({"a": {"b.c": 1}}, True),
        ({"a.b": {"c": 1}}, True),
        ({"a.b": {"c": 2}, "a": {"b": {"c": 1}}}, True),
        ({"a.b": {"c": 2}}, False),
    ],
)
def test_a_dot_is_a_step_in_any_mixture(event: Any, *, expected: bool) -> None:
    assert matches({"a": {"b.c": [1]}}, event) is expected


@pytest.mark.parametrize("event", ['"x"', "5", "null", "[]", "[1]", "{}"])
def test_an_event_that_is_no_object_has_no_fields(event: str) -> None:
    assert not matches({"a": [{"exists": True}]}, event)
    assert matches({"a": [{"exists": False}]}, event)


def test_a_list_of_events_is_an_array_of_objects() -> None:
    assert matches({"a": [1], "b": [2]}, [{"a": 0}, {"a": 1, "b": 2}])
    assert not matches({"a": [1], "b": [2]}, [{"a": 1}, {"b": 2}])


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{'a': 1}", "\ufeff{}", "[1] 2", "", "[" * 100_000])
def test_refuses_what_is_not_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_event(text)


def test_a_repeated_key_of_an_event_keeps_its_last_value() -> None:
    assert matches('{"a": [2]}', '{"a": 1, "a": 2}')
    assert not matches('{"a": [1]}', '{"a": 1, "a": 2}')


def test_half_a_surrogate_pair_is_text_like_any_other() -> None:
    assert matches('{"\\ud800": ["\\udc00"]}', '{"\\ud800": "\\udc00"}')
    assert matches('{"a": [{"equals-ignore-case": "\\ud800x"}]}', '{"a": "\\ud800X"}')


class TestHostileInput:
    """Each of these takes far longer than the test run, or fails, if a rule of the theory is broken."""

    def test_wildcards_do_not_backtrack(self) -> None:
        pattern = {"a": [{"wildcard": "*a" * 1000 + "*b"}]}
        assert not matches(pattern, {"a": "a" * 200_000})
        assert matches(pattern, {"a": "a" * 200_000 + "b"})

    def test_ignoring_case_does_not_backtrack(self) -> None:
        text = "ß" * 1000
        for matcher in ({"equals-ignore-case": text}, {"suffix": {"equals-ignore-case": text}}):
            assert matches({"a": [matcher]}, {"a": "SS" * 1000})
            assert not matches({"a": [matcher]}, {"a": "S" * 1999})
            assert not matches({"a": [matcher]}, {"a": "S" * 200_000 + "sS"})

    def test_elements_are_joined_in_steps_not_in_squares(self) -> None:
        event = {"a": [{"b": number, "c": -number} for number in range(20_000)]}
        assert not matches({"a": {"b": [{"exists": True}], "c": [{"numeric": [">", 0]}]}}, event)

    def test_independent_arrays_do_not_multiply(self) -> None:
        names = "abcdefgh"
        event = {name: [{"x": 1, "y": 1}] * 50 for name in names}
        pattern = {name: {"x": [1], "y": [1]} for name in names}
        assert matches(pattern, event)
        assert not matches({**pattern, "z": [1]}, event)

    def test_nesting_in_the_event_does_not_exhaust_the_stack(self) -> None:
        event = parse_event('{"a": ' + "[" * 800 + '{"b": 1, "c": 2}' + "]" * 800 + "}")
        assert compile_pattern('{"a": {"b": [1], "c": [2]}}').matches(event)
        assert compile_pattern('{"a": {"b": [1], "c": [{"exists": false}]}}').matches(event) is False

    def test_the_deepest_patterns_compile_and_match(self) -> None:
        event: Any = 1
        for _ in range(100):
            event = {"a": [event]}
        assert matches({".".join("a" * 100): [1]}, event)


# An exhaustive model of agreement among arrays: every way of taking one value for each path is tried.

SCALARS = st.sampled_from([0, 1, "x"])
KEYS = st.sampled_from(["a", "b", "c", "a.b", "a-b"])
EVENTS = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)),
    max_size=3,
)
PATHS = st.sampled_from(
    ["a", "b", "a.b", "a.c", "a.b.c", "a.b.a", "a.b.b", "a-b", "a-b.c", "b.a", "b.c", "c.a", "c.a.b"]
)
LEAVES = st.sampled_from([[0], [1], ["x", 1], [{"exists": True}], [{"exists": False}], [1, {"exists": False}]])
Bound = dict[int, int]


def flatten(value: Any, path: str, bound: Bound, arrays: Iterator[int]) -> Iterator[tuple[str, Any, Bound]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from flatten(below, f"{path}.{key}" if path else key, bound, arrays)
    elif isinstance(value, list):
        array = next(arrays)
        for element, below in enumerate(value):
            elsewhere = bound | {array: element} if isinstance(below, (dict, list)) else bound
            yield from flatten(below, path, elsewhere, arrays)
    else:
        yield path, value, bound


def agree(one: Bound, other: Bound) -> bool:
    return all(other.get(array, element) == element for array, element in one.items())


def satisfiable(fields: list[tuple[str, list[Any]]], values: list[tuple[str, Any, Bound]], bound: Bound) -> bool:
    if not fields:
        return True
    (path, leaf), *rest = fields
    here = [(value, place) for name, value, place in values if name == path and agree(place, bound)]
    if {"exists": False} in leaf and not here and satisfiable(rest, values, bound):
        return True
    fitting = [place for value, place in here if {"exists": True} in leaf or value in leaf]
    return any(satisfiable(rest, values, bound | place) for place in fitting)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(PATHS, LEAVES, min_size=1, max_size=4), EVENTS)
def test_takes_values_from_the_same_elements(pattern: dict[str, list[Any]], event: dict[str, Any]) -> None:
    values = list(flatten(event, "", {}, iter(range(10_000))))
    assert matches(pattern, event) is satisfiable(sorted(pattern.items()), values, {})


def wildcard_fits(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return wildcard_fits(pattern[1:], text) or (bool(text) and wildcard_fits(pattern, text[1:]))
    return text[:1] == pattern[0] and wildcard_fits(pattern[1:], text[1:])


@settings(max_examples=400, deadline=None)
@given(st.text("ab*", max_size=6).filter(lambda text: "**" not in text), st.text("ab", max_size=8))
def test_wildcards_take_any_run(wildcard: str, text: str) -> None:
    assert matches({"a": [{"wildcard": wildcard}]}, {"a": text}) is wildcard_fits(wildcard, text)
