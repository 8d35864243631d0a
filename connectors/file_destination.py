"""A file as the place where failure records go: one JSON line each, with the event."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from connectors.settings import FileDestination
from router.errors import DestinationUnavailable
from router.failures.record import ArnOf, encode, failure_record, function_arn
from router.ports import FailureMessage, Sent


class FileSender:
    """Appends failure records, with the event, to a file: one JSON line each, on the disk before `send` returns."""

    def __init__(self, settings: FileDestination, arn_of: ArnOf = function_arn) -> None:
        """Make it without any I/O; `arn_of` gives the ARN of a function by its name."""
        self._path = settings.path
        self._arn_of = arn_of
        self.name = f"file:{settings.path}"

    async def send(self, message: FailureMessage) -> Sent:
        await asyncio.to_thread(self._write, message)
        return Sent.WHOLE

    async def check(self) -> None:
        await asyncio.to_thread(self._look)

    async def close(self) -> None:
        pass

    def _write(self, message: FailureMessage) -> None:
        arn = self._arn_of(message.entry.batch.function)
        record = failure_record(message.entry, function_arn=arn, event=message.event, payload="object")
        with self._errors(), _opened(self._path) as descriptor:
            _append_line(descriptor, encode(record))

    def _look(self) -> None:
        with self._errors():
            if not self._path.parent.is_dir():
                raise FileNotFoundError
            if not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
                raise PermissionError

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise DestinationUnavailable(f"file {self._path}: its directory does not exist; make it") from error
        except PermissionError as error:
            raise DestinationUnavailable(f"file {self._path}: it cannot be written; check its permissions") from error
        except OSError as error:
            raise DestinationUnavailable(f"file {self._path}: {error.strerror}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a regular file for appending, for nobody else at the same time."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DestinationUnavailable(f"file {path}: it is no regular file; choose another path")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not os.fstat(descriptor).st_size:
            _make_name_durable(path.parent)
        yield descriptor
    finally:
        os.close(descriptor)


def _append_line(descriptor: int, line: bytes) -> None:
    """Append a whole line or nothing, also behind half a line that a crash has left."""
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    rest = memoryview((b"\n" if torn else b"") + line + b"\n")
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _make_name_durable(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
