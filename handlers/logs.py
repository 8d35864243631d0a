"""What handlers print, with the lines that Lambda puts around it.

Line forms: AWS Lambda developer guide, "Log and monitor Python Lambda functions". One invocation is written as a whole
when it has ended, so that parallel ones do not mix. Keeping logs never stops or slows an invocation: they are
collected and written at intervals, and a disk that takes none of them loses them, which the log then says.

The file has a line of JSON for each invocation (`log_reader` reads it), because what is printed may look like anything:
so nothing that a handler prints is taken for another request's, or for another time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

import orjson

from handlers.function import VERSION

FILE_LIMIT_BYTES: Final = 10 * 1024 * 1024
_FOLDER: Final = "logs"
_FLUSH_BYTES: Final = 64 * 1024
_FLUSH_INTERVAL_S: Final = 0.5


class LogSink(Protocol):
    """Takes the log of ended invocations. Must not block or raise."""

    def write(self, request_id: str, text: str) -> None:
        """Take the whole log of one request."""
        ...

    def close(self) -> None: ...


def report(
    request_id: str,
    output: str,
    duration_ms: float,
    *,
    memory_mb: int,
    used_bytes: int,
    init_text: str = "",
    init_ms: float | None = None,
    is_restored: bool = False,
    error_type: str | None = None,
    interrupted_by: str = "",
) -> str:
    """Give the log of one invocation.

    `init_ms` is set for the first one of a worker, `error_type` when the worker did not survive it, and
    `interrupted_by` when that may be another's fault.
    """
    end = ""
    if interrupted_by:
        end = f"{_now()} {request_id} Ended with its worker, runs again, no attempt is spent: {interrupted_by}\n\n"
    elif error_type == "Sandbox.Timedout":
        end = f"{_now()} {request_id} Task timed out after {duration_ms / 1000:.2f} seconds\n\n"
    phase = "Restore" if is_restored else "Init"
    init = "" if init_ms is None else f"{phase} Duration: {init_ms:.2f} ms\t"
    return (
        f"{init_text}START RequestId: {request_id} Version: {VERSION}\n{output}{end}END RequestId: {request_id}\n"
        f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\t"
        f"Billed Duration: {math.ceil(duration_ms)} ms\tMemory Size: {memory_mb} MB\t"
        f"Max Memory Used: {used_bytes >> 20} MB\t{init}{_status(error_type)}\n"
    )


def init_report(output: str, duration_ms: float, error_type: str | None) -> str:
    """Give the log of an initialisation that failed, or (without an error type) of one that workers are forked from."""
    return f"{output}INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: init\t{_status(error_type)}\n"


def _status(error_type: str | None) -> str:
    if error_type is None:
        return ""
    return "Status: timeout\t" if error_type == "Sandbox.Timedout" else f"Status: error\tError Type: {error_type}\t"


def _now() -> str:
    now_s = time.time()
    return f"{_second(int(now_s))}.{int(now_s * 1000) % 1000:03d}Z"


@lru_cache(maxsize=1)
def _second(now_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))


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

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._lost_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, request_id: str, text: str) -> None:
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
        if not self._lines:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        self._waiting_bytes = 0
        if self._lost_bytes:
            data = _line("", f"[{self._lost_bytes} bytes of log were lost: they could not be written]\n") + data
        try:
            self._append(data)
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
    entry = {"timestamp": _now(), "request_id": request_id or None, "message": text}
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
