"""A function's code: a folder as it is, or a .zip unpacked once beside the state, under the hash of its content.

Archives come from outside, so nothing in one may reach out of its folder or fill the disk. The limits are those of
Lambda deployment packages (AWS Lambda quotas: 250 MB unzipped), and a bound on the number of files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from router.errors import CodeRefused, HandlerUnavailable

UNPACKED_LIMIT_BYTES: Final = 250 * 1024 * 1024
ENTRIES_LIMIT: Final = 50_000
#: Longest names of a file or folder, and of one with all folders above it: what file systems take, with room for ours.
NAME_BYTES: Final = 255
PATH_BYTES: Final = 2048
#: Folders in one another: what makes and deletes them calls itself for each.
DEPTH: Final = 256
#: How entries may be packed. What the library reads beside these unpacks without a bound at each step.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: Where archives are unpacked, below the state directory.
_FOLDER: Final = "code"
#: What the library raises at archives that are none, or are of a kind that it does not read; ValueError is of names.
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError)
#: How each entry of an archive's directory begins (APPNOTE.TXT of PKWARE, 4.3.12).
_ENTRY: Final = b"PK\x01\x02"
#: As the Lambda API says it.
_CANNOT_UNZIP: Final = "Could not unzip uploaded file. Please check your file, then try to upload again."


def prepare(code: Path, state: Path) -> Path:
    """Give the folder to import from; may read and write files for seconds.

    Raises:
        HandlerUnavailable: there is no such code, or the archive is broken, unsafe or too large.
    """
    try:
        return code.resolve() if code.is_dir() else _unpacked(code, state / _FOLDER)
    except _BROKEN as error:
        why = str(error) or "it is cut off"
        raise HandlerUnavailable(f"code {code} is not a usable .zip archive: {why}") from error
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


def sweep(state: Path, hashes: Collection[str], began_s: float | None = None) -> None:
    """Delete what was unpacked of archives but these; before anything runs, for workers import as they go.

    What was unpacked before the machine began (`began_s`; None = as it says itself) goes, too, and is unpacked anew:
    nothing waited for the disk, so a loss of power may have left files without their content.
    """
    before_s = _began_s() if began_s is None else began_s
    unpacked = state / _FOLDER
    for path in unpacked.iterdir() if unpacked.is_dir() else ():
        if path.name not in hashes or path.lstat().st_ctime < before_s:
            shutil.rmtree(path, ignore_errors=True)


def _began_s() -> float:
    """Give the wall time at which the machine began; 0 = it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/stat").read_text("ascii", "replace").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def hash_of(archive: Path) -> str:
    """Give the name under which an archive is unpacked. Raises OSError."""
    with archive.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _unpacked(archive: Path, folder: Path) -> Path:
    target = folder / hash_of(archive)
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="unpacking-", dir=folder))
        try:
            _unpack(archive, fresh)
            _put_in_place(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target.resolve()


def _put_in_place(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:
        if not target.is_dir():  # else another function, or version, of the same code was faster
            raise


def check(archive: bytes) -> None:
    """Make sure that an archive that has just come can be unpacked, and safely; takes as long as unpacking it.

    Raises:
        CodeRefused: it cannot, in the words of the Lambda API where it has some.
    """
    try:
        size_bytes = _unpacked_size(archive)
    except CodeRefused as error:
        raise CodeRefused(f"{_CANNOT_UNZIP} ({error})") from error
    except _BROKEN as error:
        raise CodeRefused(_CANNOT_UNZIP) from error
    if size_bytes > UNPACKED_LIMIT_BYTES:
        raise CodeRefused(f"Unzipped size must be smaller than {UNPACKED_LIMIT_BYTES} bytes")


class _Bounded(io.BytesIO):
    """An archive whose directory is counted before the library makes half a kilobyte of each of its entries."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read on. Raises CodeRefused: it is a directory with too many entries."""
        piece = super().read(size)
        if piece.startswith(_ENTRY):
            _refuse_many(piece.count(_ENTRY), "it")
        return piece


def _unpacked_size(archive: bytes) -> int:
    """Give the size of all entries; somewhat more than the limit where they are beyond it."""
    size = 0
    with zipfile.ZipFile(_Bounded(archive)) as content:
        for entry in _safe_entries(content, "it"):
            size += _measure(content, entry, UNPACKED_LIMIT_BYTES - size)
            if size > UNPACKED_LIMIT_BYTES:
                break
    return size


def _measure(content: zipfile.ZipFile, entry: zipfile.ZipInfo, limit_bytes: int) -> int:
    """Give the size of an entry as it unpacks, which the archive's claim need not be; stops beyond the limit."""
    size = 0
    with content.open(entry) as packed:
        while size <= limit_bytes and (piece := packed.read(1 << 20)):
            size += len(piece)
    return size


def _unpack(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            left_bytes = UNPACKED_LIMIT_BYTES
            for entry in _safe_entries(content, f"code {archive}"):
                left_bytes -= _extract(content, entry, target, left_bytes)
                if left_bytes < 0:
                    limit_mb = UNPACKED_LIMIT_BYTES // (1024 * 1024)
                    raise HandlerUnavailable(f"code {archive} is larger than {limit_mb} MB unpacked")
    except CodeRefused as error:
        raise HandlerUnavailable(str(error)) from error


def _safe_entries(content: zipfile.ZipFile, what: str) -> Sequence[zipfile.ZipInfo]:
    """Give the entries of an archive. Raises CodeRefused: they are too many, or would not stay in their folder."""
    entries = content.infolist()
    _refuse_many(len(entries), what)
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if entry.compress_type not in _METHODS:
            raise CodeRefused(f"{what} has an entry that is packed otherwise than by deflate: {entry.filename!r}")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise CodeRefused(f"{what} has an entry outside of its folder: {entry.filename!r}")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise CodeRefused(f"{what} has an entry that is no file or folder: {entry.filename!r}")
    _refuse_names(entries, what)
    return entries


def _refuse_many(count: int, what: str) -> None:
    if count > ENTRIES_LIMIT:
        raise CodeRefused(f"{what} has {count} entries; at most {ENTRIES_LIMIT} are allowed")


def _refuse_names(entries: Sequence[zipfile.ZipInfo], what: str) -> None:
    """Refuse names that cannot be, or not beside each other. Raises CodeRefused."""
    folders: set[PurePosixPath] = {PurePosixPath()}
    files: set[PurePosixPath] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename)
        folders.update(path.parents)
        (folders if entry.filename.endswith("/") else files).add(path)
        is_long = len(os.fsencode(path)) > PATH_BYTES or any(len(os.fsencode(part)) > NAME_BYTES for part in path.parts)
        if is_long or len(path.parts) > DEPTH:
            raise CodeRefused(f"{what} has an entry with too long a name: {entry.filename[:100]!r}...")
    if both := files & folders:
        raise CodeRefused(f"{what} has a file and a folder of one name: {min(both).as_posix()!r}")


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
