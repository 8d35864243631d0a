"""Keeps archives of functions' code in a folder of the state directory, each under the hash of its content.

An archive is there whole or not at all: it is written beside its place, made durable, and put there under its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

from router.errors import NotFound, StoreUnavailable

#: Name of the folder.
ARCHIVES: Final = "archives"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_ENDING: Final = ".zip"
_UNFINISHED: Final = ".part"


class CodeFolder:
    """The folder; made when the first archive comes."""

    def __init__(self, folder: Path) -> None:
        """Make it; nothing is read or written yet."""
        self._folder = folder

    async def put(self, sha256: str, archive: bytes) -> None:
        """Keep an archive, durably. Raises StoreUnavailable: it is not kept."""
        await asyncio.to_thread(self._put, sha256, archive)

    async def path(self, sha256: str) -> Path:
        """Give the file that has it. Raises NotFound."""
        path = self._path(sha256)
        if not await asyncio.to_thread(path.is_file):
            raise NotFound(f"there is no code under the hash {sha256} in {self._folder}")
        return path

    async def drop(self, sha256: str) -> None:
        """Forget an archive, which need not be there. Raises StoreUnavailable."""
        await asyncio.to_thread(self._drop, self._path(sha256))

    async def keep_only(self, hashes: Collection[str]) -> None:
        """Forget all archives but these, and what was not written to its end. Raises StoreUnavailable."""
        await asyncio.to_thread(self._keep_only, {self._path(each).name for each in hashes})

    def _path(self, sha256: str) -> Path:
        assert _HASH.fullmatch(sha256), "it becomes the name of a file"
        return self._folder / f"{sha256}{_ENDING}"

    def _put(self, sha256: str, archive: bytes) -> None:
        path = self._path(sha256)
        if path.is_file():
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(path, archive)
            _sync(self._folder)
        except OSError as error:
            raise StoreUnavailable(f"code cannot be kept in {self._folder}: {error}") from error

    def _write(self, path: Path, archive: bytes) -> None:
        """Write a file under a name of its own first, for somebody else may be keeping the same archive."""
        descriptor, fresh = tempfile.mkstemp(_UNFINISHED, path.stem, self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(archive)
                file.flush()
                os.fsync(file.fileno())
            Path(fresh).rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                Path(fresh).unlink()
            raise

    def _keep_only(self, names: Collection[str]) -> None:
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        for path in found:
            if path.suffix in (_ENDING, _UNFINISHED) and path.name not in names:
                self._drop(path)

    def _drop(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"code cannot be taken out of {self._folder}: {error}") from error


def _sync(folder: Path) -> None:
    """Make the names of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
