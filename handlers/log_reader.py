"""Reading what `logs` has written: from the beginning to the end, and on while it grows.

A file that is full is moved aside, and another begins. A reader that follows knows its file by more than its name: it
reads the one it has to the end, then what came after it. Lines of an older form, or torn by a crash, are given as they
are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from handlers.logs import older
from router.ports import LogEntry

_READ_BYTES: Final = 256 * 1024


class LogReader:
    """Reads the log of one function, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def read(self) -> Iterator[LogEntry]:
        """Give what there is behind what was given before."""
        if self._file is None and not self._open_first():
            return
        yield from self._rest()
        while self._is_left():
            yield from self._rest()  # written before it was moved aside, which was after it was read
            if not self._open_next():
                return
            yield from self._rest()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open_first(self) -> bool:
        return self._open(older(self._path)) or self._open(self._path)

    def _open_next(self) -> bool:
        """Open the file that came after the one that was read, or the oldest that is left."""
        aside = _identity(older(self._path))
        if aside is not None and aside != self._identity():
            return self._open(older(self._path))
        return self._open(self._path)

    def _is_left(self) -> bool:
        """Say whether another file is written now."""
        now = _identity(self._path)
        return now is not None and now != self._identity()

    def _identity(self) -> tuple[int, int]:
        assert self._file is not None
        found = os.fstat(self._file.fileno())
        return found.st_dev, found.st_ino

    def _open(self, path: Path) -> bool:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        self.close()
        self._file = file
        return True

    def _rest(self) -> Iterator[LogEntry]:
        """Give the whole lines up to the end of the file that is open."""
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        self._file.seek(min(size, self._file.tell()))  # what could not be written whole is taken back
        partial = b""
        while piece := self._file.read(_READ_BYTES):
            *lines, partial = (partial + piece).split(b"\n")
            yield from (_entry(line) for line in lines if line)
        self._file.seek(-len(partial), os.SEEK_CUR)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _entry(line: bytes) -> LogEntry:
    try:
        entry = orjson.loads(line)
        return LogEntry(entry["timestamp"], entry["request_id"], entry["message"])
    except (ValueError, TypeError, KeyError):
        return LogEntry(None, None, line.decode(errors="replace"))
