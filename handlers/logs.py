"""What handlers print, with the lines that Lambda puts around it, and the file that keeps it.

One invocation is written as a whole when it has ended, so that parallel ones do not mix. Keeping logs never stops or
slows an invocation: they are collected and written at intervals, and a disk that takes none of them loses them, which
the log then says.

The file has a line of JSON for each invocation (`log_reader` reads it), because what is printed may look like anything:
so nothing that a handler prints is taken for another request's, or for another time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import orjson

from handlers.log_forms import now

FILE_LIMIT_BYTES: Final = 10 * 1024 * 1024
_FOLDER: Final = "logs"
_FLUSH_BYTES: Final = 64 * 1024
_FLUSH_INTERVAL_S: Final = 0.5


class LogSink(Protocol):
    """Takes the logs of invocations. Must not block or raise."""

    @property
    def is_live(self) -> bool:
        """Does it take the log of one request in pieces, of whole lines, while that runs?"""
        ...

    def write(self, request_id: str, text: str, stream: str = "") -> None:
        """Take the log of one request, or the next piece of it; `stream` is that of the worker, if there is one."""
        ...


def log_file(state: Path, function: str) -> Path:
    """Say where the log of a function is, in a state directory."""
    return state / _FOLDER / f"{function}.log"


def kept_logs(state: Path) -> Sequence[str]:
    """Name the functions of which there are logs in a state directory, whatever the file says of them now."""
    return sorted(path.stem for path in (state / _FOLDER).glob("*.log"))


def older(path: Path) -> Path:
    """Say where the part of a log is that comes before its file."""
    return path.with_name(path.name + ".1")


class RotatingFile:
    """A LogSink into one file; what is older than the newest 10 to 20 MiB is dropped."""

    is_live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._lost_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, request_id: str, text: str, stream: str = "") -> None:  # noqa: ARG002 - one file has them all
        line = _line(request_id, text)
        self._lines.append(line)
        self._waiting_bytes += len(line)
        if self._waiting_bytes >= _FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_INTERVAL_S, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines and not self._lost_bytes:
            return
        data, said = b"".join(self._lines), b""
        self._lines.clear()
        self._waiting_bytes = 0
        if self._lost_bytes:
            said = _line("", f"[{self._lost_bytes} bytes of log were lost: they could not be written]\n")
        try:
            self._append(said + data)
            self._lost_bytes = 0
        except OSError:
            self._lost_bytes += len(data)

    def close(self) -> None:
        self.flush()

    def _append(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size + len(data) > FILE_LIMIT_BYTES:
                self._path.replace(older(self._path))
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _append_lines(descriptor, data)
        finally:
            os.close(descriptor)


def _line(request_id: str, text: str) -> bytes:
    """Write the log of a request, or of none, which has ended now."""
    entry = {"timestamp": now(), "request_id": request_id or None, "message": text}
    try:
        return orjson.dumps(entry) + b"\n"
    except orjson.JSONEncodeError:  # half a character is in it
        return orjson.dumps({**entry, "message": text.encode(errors="replace").decode()}) + b"\n"


def _append_lines(descriptor: int, data: bytes) -> None:
    """Append whole lines or nothing, also behind half a line that a crash has left."""
    size = os.fstat(descriptor).st_size
    if size > 0 and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise
