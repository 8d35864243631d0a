"""Which records pass the filter criteria of a mapping, for every source."""

import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.filter import DYNAMODB, KAFKA, KINESIS, S3, SQS, DataFormat, compile_filters
from router.core.pattern import InvalidPattern

METADATA = {"topic": "orders", "partition": 3, "offset": 7, "eventName": "INSERT"}
JSON_OBJECT, JSON_LIST = b'{"kind": "order"}', b'[{"kind": "order"}]'
PLAIN, NOT_UTF8 = b"order", b"\xff\xfe"


def passes(source: DataFormat, data: bytes | None, *patterns: dict[str, Any], **metadata: object) -> bool:
    """Filter one record; a pattern's key DATA stands for the source's data key."""
    texts = [json.dumps(pattern).replace("DATA", source.data_key) for pattern in patterns]
    return compile_filters(texts, source).matches(METADATA | metadata, data)


FIELDS = {"DATA": {"kind": ["order"]}}
OTHER_FIELDS = {"DATA": {"kind": ["invoice"]}}
TEXT = {"DATA": ["order"]}
OTHER_TEXT = {"DATA": ["invoice"]}
HERE = {"topic": ["orders"]}
ELSEWHERE = {"topic": ["invoices"]}


@pytest.mark.parametrize("source", [KAFKA, KINESIS, SQS, DYNAMODB, S3], ids=lambda source: source.data_key)
class TestEverySource:
    @pytest.mark.parametrize("data", [JSON_OBJECT, JSON_LIST, b' {"kind":["x","order"], "n":1}\n'])
    def test_fields_of_json_data_are_evaluated(self, source: DataFormat, data: bytes) -> None:
        assert passes(source, data, FIELDS)
        assert passes(source, data, FIELDS | HERE)
        assert not passes(source, data, OTHER_FIELDS)
        assert not passes(source, data, FIELDS | ELSEWHERE)

    @pytest.mark.parametrize("data", [JSON_OBJECT, JSON_LIST, PLAIN, NOT_UTF8, b"5", b"", None])
    def test_a_pattern_without_data_is_decided_by_metadata(self, source: DataFormat, data: bytes | None) -> None:
        assert passes(source, data, HERE)
        assert not passes(source, data, ELSEWHERE)

    def test_a_pattern_without_data_leaves_the_data_unread(self, source: DataFormat) -> None:
        unreadable = cast("bytes", object())
        assert passes(source, unreadable, HERE)
        with pytest.raises(TypeError):
            passes(source, unreadable, FIELDS)

    def test_one_fitting_pattern_is_enough(self, source: DataFormat) -> None:
        assert passes(source, JSON_OBJECT, OTHER_FIELDS, ELSEWHERE, FIELDS)
        assert not passes(source, JSON_OBJECT, OTHER_FIELDS, ELSEWHERE)

    def test_without_patterns_every_record_passes(self, source: DataFormat) -> None:
        assert passes(source, JSON_OBJECT)
        assert passes(source, None)

    def test_metadata_named_like_the_data_is_metadata(self, source: DataFormat) -> None:
        metadata = {f"{source.data_key}Type": "order"}
        assert passes(source, PLAIN, {"DATAType": ["order"]}, **metadata)
        assert not passes(source, PLAIN, {"DATAType": ["invoice"]}, **metadata)

    def test_absent_data_has_no_fields_and_is_no_mismatch(self, source: DataFormat) -> None:
        assert not passes(source, None, FIELDS)
        assert not passes(source, None, FIELDS | HERE)
        assert passes(source, None, {"DATA": {"kind": [{"exists": False}]}})


@pytest.mark.parametrize("data", [PLAIN, NOT_UTF8, b"", b"5", b"null", b'"order"', b"NaN", b"[" * 100_000])
@pytest.mark.parametrize(
    ("source", "expected"),
    [(KAFKA, True), (KINESIS, False), (SQS, False), (DYNAMODB, False), (S3, False)],
    ids=["value", "data", "body", "dynamodb", "s3"],
)
def test_fields_asked_of_data_without_any(source: DataFormat, data: bytes, *, expected: bool) -> None:
    assert passes(source, data, FIELDS) is expected
    assert passes(source, data, FIELDS | HERE) is expected
    assert not passes(source, data, FIELDS | ELSEWHERE)


@pytest.mark.parametrize(("source", "expected"), [(KAFKA, True), (SQS, False)], ids=["value", "body"])
class TestTextPatterns:
    def test_text_is_evaluated(self, source: DataFormat, *, expected: bool) -> None:
        assert passes(source, PLAIN, TEXT)
        assert passes(source, PLAIN, TEXT | HERE)
        assert not passes(source, PLAIN, OTHER_TEXT)
        assert not passes(source, PLAIN, TEXT | ELSEWHERE)

    def test_a_json_scalar_is_compared_as_parsed(self, source: DataFormat, *, expected: bool) -> None:
        assert passes(source, b'"order"', TEXT)
        assert passes(source, b"5.0", {"DATA": [{"numeric": ["=", 5]}]})
        assert not passes(source, b"5", {"DATA": ["5"]})

    @pytest.mark.parametrize("data", [JSON_OBJECT, JSON_LIST, NOT_UTF8])
    def test_text_asked_of_other_data(self, source: DataFormat, data: bytes, *, expected: bool) -> None:
        assert passes(source, data, TEXT) is expected
        assert passes(source, data, TEXT | HERE) is expected
        assert not passes(source, data, TEXT | ELSEWHERE)

    def test_branches_are_judged_one_by_one(self, source: DataFormat, *, expected: bool) -> None:
        either = {"$or": [OTHER_TEXT, FIELDS]}
        assert passes(source, JSON_OBJECT, either)
        assert passes(source, PLAIN, either) is expected

    def test_text_and_fields_at_once_fit_no_form(self, source: DataFormat, *, expected: bool) -> None:
        both = {"DATA": ["order"], "DATA.kind": ["order"]}
        assert passes(source, JSON_OBJECT, both) is expected
        assert passes(source, PLAIN, both) is expected

    def test_existing_data_tells_tombstones(self, source: DataFormat, *, expected: bool) -> None:
        assert passes(source, PLAIN, {"DATA": [{"exists": True}]})
        assert passes(source, JSON_OBJECT, {"DATA": [{"exists": True}]}) is expected
        assert not passes(source, None, {"DATA": [{"exists": True}]})
        assert passes(source, None, {"DATA": [{"exists": False}]})


class TestKafkaKey:
    @pytest.mark.parametrize(
        ("key", "pattern"),
        [
            (b"customer-1", ["customer-1"]),
            (b"", [""]),
            (b"5", [5]),
            (b'{"id": 1}', {"id": [1]}),
            (b"\xff", [{"exists": False}]),
            (None, [{"exists": False}]),
        ],
    )
    def test_is_decoded_as_the_value_is(self, key: bytes | None, pattern: Any) -> None:
        assert passes(KAFKA, None, {"key": pattern}, key=key)
        assert not passes(KAFKA, None, {"key": pattern}, key=b"another")

    def test_of_another_form_does_not_fit(self) -> None:
        assert not passes(KAFKA, JSON_OBJECT, {"key": {"id": [1]}}, key=b"plain")


@pytest.mark.parametrize("source", [KINESIS, DYNAMODB, S3], ids=["data", "dynamodb", "s3"])
def test_sources_of_json_refuse_text_patterns(source: DataFormat) -> None:
    with pytest.raises(InvalidPattern, match=rf"filters\[1\]\.pattern: {source.data_key}: needs an object of fields"):
        passes(source, JSON_OBJECT, FIELDS, TEXT)


def test_names_the_pattern_that_is_wrong() -> None:
    with pytest.raises(InvalidPattern, match=r"filters\[1\]\.pattern: value\.kind: needs a list"):
        passes(KAFKA, JSON_OBJECT, FIELDS, {"DATA": {"kind": "order"}})


def test_takes_ten_patterns_and_no_more() -> None:
    assert passes(KAFKA, JSON_OBJECT, *[OTHER_FIELDS] * 9, FIELDS)
    with pytest.raises(InvalidPattern, match="at most 10 patterns, found 11"):
        passes(KAFKA, JSON_OBJECT, *[FIELDS] * 11)


EVERY_MATCHER = [
    "order",
    5,
    9007199254740993,
    None,
    True,
    "2001:db8::1",
    {"prefix": "a"},
    {"prefix": {"equals-ignore-case": "ß"}},
    {"suffix": "a"},
    {"suffix": {"equals-ignore-case": "ß"}},
    {"equals-ignore-case": "k"},
    {"wildcard": "*a*b"},
    {"numeric": [">", 1e300]},
    {"numeric": [">=", -1, "<", 1]},
    {"anything-but": ["a", "b"]},
    {"anything-but": [1, 2]},
    {"anything-but": {"wildcard": ["*a", "b*"]}},
    {"exists": True},
    {"exists": False},
    {"cidr": "10.0.0.0/8"},
    {"cidr": "2001:db8::/32"},
    {"exactly": "a"},
]
FILTERS = [
    compile_filters([json.dumps(pattern)], source)
    for source in (KAFKA, SQS)
    for matcher in EVERY_MATCHER
    for pattern in (
        {source.data_key: [matcher]},
        {source.data_key: {"a": [matcher], "b.c": [matcher]}, "key": {"a": [matcher]}},
    )
]
JSON_TEXT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.from_regex(r"[0-9a-f:.]{2,12}", fullmatch=True),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c", "b.c"]), inner, max_size=3)
    ),
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.none(), st.binary(), JSON_TEXT), st.one_of(st.none(), st.binary(), JSON_TEXT))
def test_any_record_gets_an_answer(data: bytes | None, key: bytes | None) -> None:
    assert {record_filter.matches({"key": key}, data) for record_filter in FILTERS} <= {True, False}
