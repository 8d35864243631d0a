"""The spelling of object keys in S3 notifications: what a store has sent, read and written as S3 itself does.

S3 form-encodes keys (`application/x-www-form-urlencoded`, but `/` stays): `in/a b+é.txt` is `in/a+b%2B%C3%A9.txt`
(Amazon S3 user guide, "Event message structure"). Its stand-ins differ: some write `%20` for a space or `%2F` for a
slash, and some do not encode at all. Handlers decode what they are given, so a key that reaches them in another
spelling, or not encoded, would name another object.

The rule. A key is *raw*, that is not encoded, when
- it has what an encoded key never has: a character other than letters, digits and `._-*~/+%` (a space, `(`, `=`,
  anything beyond ASCII), a `%` without two hexadecimal digits behind it, or escapes that are no UTF-8;
- or its record is of a store that is known never to encode (`connectors.s3_codec`).
Every other key is encoded. Most keys (letters, digits, `._-*/`) are the same either way.

The limit: `a+b` or `a%20b` of a store that encodes nothing and is not known for it is taken for encoded, as it would
be from S3, and so names `a b`. Nothing in the key tells the two apart, and guessing by what the same store sent before
would let one object have two names. What S3 spells itself is never touched: whether it writes `~` and `*` as they are
or as escapes, both are left alone.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_plus, unquote_to_bytes

#: Equal to what it encodes, in every spelling.
_is_plain: Final = re.compile(r"[A-Za-z0-9._*/-]*").fullmatch
_may_be_encoded: Final = re.compile(r"(?:[A-Za-z0-9._*~/+-]|%[0-9A-Fa-f]{2})*").fullmatch
#: As S3 writes it: a space is `+`, a slash itself, and escapes have capital letters.
_is_as_s3: Final = re.compile(r"(?:[A-Za-z0-9._*~/+-]|%(?!2[0F])[0-9A-F]{2})*").fullmatch


def read_key(key: str, *, is_raw: bool = False) -> tuple[str, str]:
    """Give a key as a notification spells it decoded, and as S3 spells it; `is_raw` when its store encodes nothing."""
    if _is_plain(key):
        return key, key
    if not is_raw and _may_be_encoded(key):
        try:
            decoded = unquote_to_bytes(key.replace("+", " ")).decode()
        except UnicodeDecodeError:
            pass
        else:
            return decoded, key if _is_as_s3(key) else encode_key(decoded)
    return key, encode_key(key)


def encode_key(key: str) -> str:
    """Spell a key as S3 does."""
    return quote_plus(key, safe="/*").replace("~", "%7E")
