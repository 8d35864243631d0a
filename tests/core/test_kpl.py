"""Aggregates of the Kinesis Producer Library: what was put together comes apart, and nothing else does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kpl import UserRecord, split
from tests.fakes.aggregates import MAGIC, aggregate, message, number, seal, text, varint

RECORDS = st.lists(st.tuples(st.text(min_size=1, max_size=300), st.binary(max_size=400)), min_size=1, max_size=20)


def apart(data: bytes) -> list[UserRecord]:
    return split(base64.b64encode(data).decode())


@given(RECORDS, st.booleans(), st.booleans())
def test_what_was_put_together_comes_apart(records: list[tuple[str, bytes]], hashed: bool, tagged: bool) -> None:  # noqa: FBT001
    sealed = seal(message(records, explicit_hash_key="5" if hashed else None, tags=tagged))
    assert apart(sealed) == records


def test_an_example_by_its_bytes() -> None:
    # Worked out by hand from the description of the format.
    content = bytes.fromhex("0a016b0a026b321a0508001a01611a0608011a026263")
    assert apart(seal(content)) == [("k", b"a"), ("k2", b"bc")]


@given(st.binary(max_size=400))
def test_other_data_is_left_alone(data: bytes) -> None:
    assert apart(data) == []
    assert apart(MAGIC + data) == []


@given(RECORDS, st.data())
def test_a_damaged_aggregate_is_left_alone(records: list[tuple[str, bytes]], data: st.DataObject) -> None:
    whole = aggregate(*records)
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    assert apart(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]) == []
    assert apart(whole[:place]) == []


@given(st.binary(max_size=200))
def test_a_sealed_message_of_anything_is_no_error(content: bytes) -> None:
    apart(seal(content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        text(1, b"k"),
        text(3, number(1, 0) + text(3, b"a")),
        text(1, b"k") + text(3, number(1, 1) + text(3, b"a")),
        text(1, b"\xff") + text(3, number(1, 0) + text(3, b"a")),
        text(1, b"k") + text(3, number(1, 0)) + b"\x1a\x7f",
        text(1, b"k") + b"\x1b",
        b"\x80" * 12,
        varint(3 << 3 | 2) + varint(1 << 60),
    ],
    ids=["empty", "no records", "no keys", "key beyond the table", "key no UTF-8", "cut", "group", "endless", "huge"],
)
def test_a_sealed_message_that_is_no_aggregate_is_left_alone(content: bytes) -> None:
    assert apart(seal(content)) == []


def test_more_records_than_the_library_puts_together_are_left_alone() -> None:
    one = text(3, number(1, 0))
    assert len(apart(seal(text(1, b"k") + one * (1 << 18)))) == 1 << 18
    assert apart(seal(text(1, b"k") + one * ((1 << 18) + 1))) == []


def test_fields_that_are_not_known_are_passed_over() -> None:
    unknown = number(9, 5) + varint(10 << 3 | 5) + b"abcd" + varint(11 << 3 | 1) + b"abcdefgh" + text(12, b"x")
    assert apart(seal(unknown + text(1, b"k") + text(3, unknown + number(1, 0) + text(3, b"a")))) == [("k", b"a")]


def test_what_only_looks_like_base64_is_left_alone() -> None:
    assert split("84mawg==!") == []
    assert split("84mawé") == []
