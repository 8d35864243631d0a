"""Files of failure records, and how they reach the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.failures.reading import RECORD_LIMIT_BYTES
from router.replay.record_file import WHOLE_LIMIT_BYTES, read_file
from router.replay.record_frames import ReadText, read, write


def of(path: Path, content: bytes) -> list[ReadText]:
    path.write_bytes(content)
    return list(read_file(path))


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n"])
def test_lines_are_records_each_and_named_by_their_number(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "failed.jsonl"
    assert of(path, b'\n{"a":1}\r\n\nnonsense\n  {"b":2}' + end) == [
        ReadText(f"{path}:2", b'{"a":1}'),
        ReadText(f"{path}:4", b"nonsense"),
        ReadText(f"{path}:5", b'{"b":2}'),
    ]


def test_one_object_may_have_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "failed.json"
    assert of(path, b'{\n  "a": 1\n}\n') == [ReadText(str(path), b'{\n  "a": 1\n}\n')]


def test_elements_of_an_array_are_named_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "failed.json"
    assert of(path, b'\n[{"a":1},\n  7,\n{"b": 2}]') == [
        ReadText(f"{path}[0]", b'{"a":1}'),
        ReadText(f"{path}[1]", b"7"),
        ReadText(f"{path}[2]", b'{"b": 2}'),
    ]
    [broken] = of(path, b'[{"a":1},')
    assert (broken.where, broken.text) == (str(path), b"")
    assert "it is no JSON" in (broken.trouble or "")


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    assert of(tmp_path / "failed", b"") == []
    assert of(tmp_path / "failed", b"\n \n") == []


def test_a_line_that_is_too_long_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    long = b"x" * (2 * RECORD_LIMIT_BYTES + 5)
    first, second, third = of(path, b"1\n" + long + b"\n2")
    assert (first.text, second.text, third.text) == (b"1", b"", b"2")
    assert (second.where, third.where) == (f"{path}:2", f"{path}:3")
    assert "larger than a failure record" in (second.trouble or "")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing cannot be read: No such file.*; allowed sqs:QUEUE"):
        list(read_file(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="Is a directory"):
        list(read_file(tmp_path))
    path = tmp_path / "array.json"
    with path.open("wb") as file:
        file.write(b"[")
        file.truncate(WHOLE_LIMIT_BYTES + 1)
    with pytest.raises(ConfigError, match=r"make lines of it: jq -c"):
        list(read_file(path))


TEXTS = [ReadText("a:1", b'{"x":"\n"}'), ReadText("b\n:2", b"", "too large"), ReadText("c", b"")]


async def received(content: bytes) -> list[ReadText]:
    reader = asyncio.StreamReader()
    reader.feed_data(content)
    reader.feed_eof()
    return [each async for each in read(reader)]


async def test_frames_bring_everything() -> None:
    assert await received(b"".join(write(TEXTS))) == TEXTS
    assert await received(b"") == []


async def test_frames_that_are_cut_off_are_no_end() -> None:
    whole = b"".join(write(TEXTS))
    for length in range(1, len(whole)):
        ends = [len(b"".join(write(TEXTS[:count]))) for count in range(len(TEXTS))]
        if length not in ends:
            with pytest.raises(ConnectionError):
                await received(whole[:length])
