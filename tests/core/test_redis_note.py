"""What a replica notes of its fleet in its own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.redis.birth import FILE_NAME, Note
from connectors.redis.writing import pack, unpack
from router.errors import StoreUnavailable


def test_what_is_noted_is_there_again(tmp_path: Path) -> None:
    note = Note.read(tmp_path / "a" / "b")
    assert (note.born, note.mappings, note.gone) == ("", set(), set())
    note.born = "b1"
    note.add(["orders", "clicks"])
    note.gone.add("clicks")
    note.write()
    again = Note.read(tmp_path / "a" / "b")
    assert (again.born, again.mappings, again.gone) == ("b1", {"orders", "clicks"}, {"clicks"})
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [FILE_NAME]


def test_what_is_known_already_is_not_written_again(tmp_path: Path) -> None:
    note = Note.read(tmp_path)
    note.add(["orders"])
    (tmp_path / FILE_NAME).unlink()
    note.add(["orders"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"", b"{", b'{"born": 5}', b"[]"])
def test_a_damaged_note_is_not_taken_for_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(text)
    with pytest.raises(StoreUnavailable, match="it is damaged; move it away if"):
        Note.read(tmp_path)


def test_a_note_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        Note.read(tmp_path)
    taken = tmp_path / "file"
    taken.write_text("no folder")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        Note(taken).write()


def test_what_could_not_be_noted_is_noted_the_next_time(tmp_path: Path) -> None:
    taken = tmp_path / "folder"
    taken.write_text("no folder yet")
    note = Note(taken)
    with pytest.raises(StoreUnavailable):
        note.add(["orders"])
    taken.unlink()
    note.add(["orders"])
    assert Note.read(taken).mappings == {"orders"}


@pytest.mark.parametrize("event", [b"", b"{}", b"x" * 10_000, bytes(range(256))])
def test_an_event_is_packed_only_where_that_is_smaller(event: bytes) -> None:
    assert unpack(pack(event)) == event
    assert len(pack(event)) <= len(event) + 1
