"""Object keys reach handlers in the spelling of S3, whatever the store has written."""

from urllib.parse import quote, quote_plus, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.s3_key import encode_key, read_key

#: Keys are UTF-8, 1 to 1024 bytes; surrogates are no characters.
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
NASTY = "in/a b+é.txt"
AS_S3 = "in/a+b%2B%C3%A9.txt"


@pytest.mark.parametrize(
    ("written", "by"),
    [
        (AS_S3, "S3"),
        ("in/a%20b%2B%C3%A9.txt", "LocalStack 4.14"),
        ("in%2Fa+b%2B%C3%A9.txt", "moto 5.2"),
        ("in/a+b%2b%c3%a9.txt", "small letters"),
        (NASTY, "ministack 1.4"),
    ],
)
def test_every_stores_spelling_becomes_that_of_s3(written: str, by: str) -> None:
    assert read_key(written) == (NASTY, AS_S3), by


@pytest.mark.parametrize(
    "key", ["a.csv", "in/2026/11/21/part-0001_a*.parquet", "a+b", "a%25b", "~a", "%7Ea", "a%2A", ""]
)
def test_what_s3_may_have_written_is_left_as_it_is(key: str) -> None:
    assert read_key(key) == (unquote_plus(key), key)


@pytest.mark.parametrize(
    "key", ["a b", "a(1)", "year=2026/a%20b", "100%", "50%zz", "a%2", "é%20", "%FF", "a%C3", "a\nb", "a\x00%20b", "😀+"]
)
def test_what_no_encoded_key_has_makes_a_key_raw(key: str) -> None:
    assert read_key(key) == (key, encode_key(key))
    assert unquote_plus(encode_key(key), errors="strict") == key


@pytest.mark.parametrize("key", ["a+b", "a%20b", "100%25", "a%2Fb"])
def test_an_ambiguous_key_is_encoded_unless_its_store_is_known_not_to(key: str) -> None:
    assert read_key(key)[0] == unquote_plus(key)
    assert read_key(key, is_raw=True) == (key, encode_key(key))


def test_the_spelling_is_that_of_forms() -> None:
    assert encode_key("/A z09._-*~!'()=,:@&$;?%+\"#é") == (
        "/A+z09._-*%7E%21%27%28%29%3D%2C%3A%40%26%24%3B%3F%25%2B%22%23%C3%A9"
    )


@given(KEYS)
def test_an_encoded_key_is_read_back_and_stays(key: str) -> None:
    assert read_key(encode_key(key)) == (key, encode_key(key))
    assert read_key(key, is_raw=True) == (key, encode_key(key))


@given(KEYS)
def test_the_spellings_of_stand_ins_name_the_same_key(key: str) -> None:
    for spelling in (quote(key), quote_plus(key), quote(key, safe="")):
        decoded, encoded = read_key(spelling)
        assert decoded == key
        assert unquote_plus(encoded) == key
