"""Failure records in a file: one JSON object a line, one object, or an array of them. What is wrong is named alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from router.errors import ConfigError
from router.failures.reading import RECORD_LIMIT_BYTES
from router.replay.record_frames import ReadText

#: Largest array, and object of several lines: they are read at once.
WHOLE_LIMIT_BYTES: Final = 64 * 1024 * 1024
_TOO_LARGE: Final = f"it is larger than a failure record can be ({RECORD_LIMIT_BYTES >> 20} MiB)"

_decode_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_file(path: Path) -> Iterator[ReadText]:
    """Give the records of a file as they are read.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is too large for what it is.
    """
    try:
        with path.open("rb") as file:
            head = _head(file)
            if head.startswith(b"["):
                yield from _array(path, file)
            elif head.startswith(b"{") and not _is_json(head) and _size(file) <= WHOLE_LIMIT_BYTES and _is_whole(file):
                file.seek(0)
                yield ReadText(str(path), file.read())
            else:
                yield from _lines(path, file)
    except OSError as error:
        raise ConfigError(
            f"--from: {path} cannot be read: {error.strerror}; allowed sqs:QUEUE, s3://BUCKET/PREFIX or a file"
        ) from error


def _head(file: IO[bytes]) -> bytes:
    """Give the first line that is not empty."""
    while line := file.readline(RECORD_LIMIT_BYTES + 1):
        if stripped := line.strip():
            return stripped
    return b""


def _lines(path: Path, file: IO[bytes]) -> Iterator[ReadText]:
    file.seek(0)
    number = 0
    while line := file.readline(RECORD_LIMIT_BYTES + 1):
        number += 1
        if len(line) > RECORD_LIMIT_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(RECORD_LIMIT_BYTES)
            yield ReadText(f"{path}:{number}", b"", _TOO_LARGE)
        elif text := line.strip():
            yield ReadText(f"{path}:{number}", text)


def _array(path: Path, file: IO[bytes]) -> Iterator[ReadText]:
    if _size(file) > WHOLE_LIMIT_BYTES:
        raise ConfigError(
            f"--from: {path} is an array of more than {WHOLE_LIMIT_BYTES >> 20} MiB; make lines of it: "
            f"jq -c '.[]' {path}"
        )
    file.seek(0)
    try:
        elements = _decode_array(file.read())
    except (msgspec.MsgspecError, RecursionError) as error:
        yield ReadText(str(path), b"", f"it is no JSON: {error}")
        return
    for number, element in enumerate(elements):
        yield ReadText(f"{path}[{number}]", bytes(element))


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)


def _is_whole(file: IO[bytes]) -> bool:
    file.seek(0)
    return _is_json(file.read())


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True
