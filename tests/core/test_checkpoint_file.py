"""The file of checkpoints: read back as it was written, and refused in whatever other form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.checkpoint_file import Saved, SavedShard, chosen, from_text, to_document
from router.errors import ConfigError

SAVED = Saved("orders", "kafka:orders", "cluster a", [SavedShard("orders-0", "100", ended=True, retry_state='{"v":1}')])
OTHER = Saved("clicks", "kinesis:clicks", "1700000000", [])


def text(*saved: Saved) -> bytes:
    return json.dumps(to_document(saved, "2026-11-29T00:00:00.000Z"), indent=2).encode()


def changed(**members: Any) -> bytes:
    return json.dumps({**to_document([SAVED], "2026-11-29T00:00:00.000Z"), **members}).encode()


def test_what_was_written_is_read() -> None:
    assert from_text("file", text(SAVED, OTHER)) == [SAVED, OTHER]


@given(st.data())
def test_a_file_that_was_cut_off_or_damaged_is_refused(data: st.DataObject) -> None:
    whole = text(SAVED, OTHER)
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 6))
    try:
        read = from_text("file", bytes(damaged))
    except ConfigError:
        pass
    else:
        assert read == [SAVED, OTHER]  # it was a blank between two members
    with pytest.raises(ConfigError):
        from_text("file", whole[:place])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file is no JSON: cut off or damaged"),
        (b"\xff\xfe", "file is no JSON"),
        (b"[" * 100_000, "file is no JSON"),
        (b"[]", "file is no file of checkpoints"),
        (b'{"format": "other"}', "file is no file of checkpoints"),
        (changed(version=2), "file has version 2 of the format, and this headrace reads version 1"),
        (changed(exported_at="2026-11-30T00:00:00.000Z"), "is not as it was exported"),
        (changed(sha256=None), "is not as it was exported"),
        (changed(mappings=[]), "is not as it was exported"),
    ],
)
def test_a_file_that_is_none_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_text("file", content)


def test_members_of_other_types_are_refused_also_if_the_digest_fits() -> None:
    wrong: Any = 7
    for saved in (Saved("orders", wrong, "a", []), Saved("orders", "kafka:orders", "a", [wrong])):
        with pytest.raises(ConfigError, match="is not as it was exported"):
            from_text("file", json.dumps(to_document([saved], "")).encode())


def test_one_mapping_of_several_is_chosen() -> None:
    assert chosen("file", [SAVED, OTHER], None) == [SAVED, OTHER]
    assert chosen("file", [SAVED, OTHER], "clicks") == [OTHER]
    with pytest.raises(ConfigError, match="none is sales: orders, clicks"):
        chosen("file", [SAVED, OTHER], "sales")


def test_a_mapping_that_is_alone_in_its_file_may_go_to_another_name() -> None:
    [found] = chosen("file", [SAVED], "sales")
    assert (found.mapping, found.shards) == ("sales", SAVED.shards)
