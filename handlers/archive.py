"""A function's code: a folder as it is, or a .zip unpacked once beside the state, under the hash of its content.

Archives come from outside, so nothing in one may reach out of its folder or fill the disk. The limits are those of
Lambda deployment packages (AWS Lambda quotas: 250 MB unzipped), and a bound on the number of files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from router.errors import HandlerUnavailable

UNPACKED_LIMIT_BYTES: Final = 250 * 1024 * 1024
ENTRIES_LIMIT: Final = 50_000


def prepare(code: Path, state: Path) -> Path:
    """Give the folder to import from; may read and write files for seconds.

    Raises:
        HandlerUnavailable: there is no such code, or the archive is broken, unsafe or too large.
    """
    try:
        return code.resolve() if code.is_dir() else _unpacked(code, state / "code")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise HandlerUnavailable(f"code {code} is not a usable .zip archive: {error}") from error
    except OSError as error:
        raise HandlerUnavailable(f"code {code} cannot be read or unpacked: {error}") from error


def fingerprint(code: Path) -> str:
    """Sum up names, sizes and times of the files of a function's code; what cannot be looked at is left out."""
    entries: list[tuple[str, int, int]] = []
    for folder, folders, files in os.walk(code) if code.is_dir() else [(str(code.parent), [], [code.name])]:
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            with contextlib.suppress(OSError):
                found = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - there may be thousands
                entries.append((os.path.join(folder, name), found.st_size, found.st_mtime_ns))  # noqa: PTH118
    return hashlib.sha256(repr(sorted(entries)).encode(errors="surrogateescape")).hexdigest()


def _unpacked(archive: Path, folder: Path) -> Path:
    with archive.open("rb") as content:
        target = folder / hashlib.file_digest(content, "sha256").hexdigest()
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="unpacking-", dir=folder))
        try:
            _unpack(archive, fresh)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target.resolve()


def _unpack(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        entries = content.infolist()
        if len(entries) > ENTRIES_LIMIT:
            raise HandlerUnavailable(f"code {archive} has {len(entries)} entries; at most {ENTRIES_LIMIT} are allowed")
        left_bytes = UNPACKED_LIMIT_BYTES
        for entry in entries:
            _refuse_unsafe(archive, entry)
            left_bytes -= _extract(content, entry, target, left_bytes)
            if left_bytes < 0:
                limit_mb = UNPACKED_LIMIT_BYTES // (1024 * 1024)
                raise HandlerUnavailable(f"code {archive} is larger than {limit_mb} MB unpacked")


def _refuse_unsafe(archive: Path, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
        raise HandlerUnavailable(f"code {archive} has an entry outside of its folder: {entry.filename!r}")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise HandlerUnavailable(f"code {archive} has an entry that is no file or folder: {entry.filename!r}")


def _extract(content: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limit_bytes: int) -> int:
    """Write one entry and give its size; the size the archive claims is not believed. Stops beyond the limit."""
    path = target / entry.filename
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with content.open(entry) as packed, path.open("wb") as unpacked:
        while size <= limit_bytes and (piece := packed.read(1 << 20)):
            size += unpacked.write(piece)
    path.chmod(0o755 if (entry.external_attr >> 16) & stat.S_IXUSR else 0o644)
    return size
