"""How a function's code comes: in the request, as an object of S3, or as a folder of this machine.

Archives are looked at as they come and kept by the hash of their content. An archive is kept while a record that names
it is written, and forgotten once no version of any function does: whoever does either holds the lock of its hash.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pybase64

from router.api.errors import ApiError, invalid, unavailable
from router.api.parts import Parts
from router.catalogue.records import Code, Function
from router.errors import CodeRefused, SourceUnavailable, StoreUnavailable
from router.event_ports import CheckArchive

#: The bucket that stands for this machine: its keys are folders.
LOCAL_BUCKET: Final = "headrace-local"
#: AWS Lambda quotas, "Deployment package": zipped, in a request; and unzipped, which no archive is larger than.
ZIPPED_BYTES: Final = 50 * 1024 * 1024
UNZIPPED_BYTES: Final = 250 * 1024 * 1024
_NO_CODE: Final = "Please provide a source for function code."


@dataclass(frozen=True, slots=True)
class Taken:
    """Code that has come and was looked at."""

    code: Code
    #: None = it is a folder.
    archive: bytes | None = None


async def take(parts: Parts, given: Mapping[str, Any]) -> Taken:
    """Take the code that a request brings or names. Raises ApiError."""
    if given.get("ImageUri"):
        raise invalid("Please don't provide ImageUri when updating a function with packageType Zip.")
    text, bucket, key = given.get("ZipFile"), given.get("S3Bucket"), given.get("S3Key")
    if text is not None:
        if bucket or key:
            raise invalid("Please do not provide other FunctionCode parameters when providing a ZipFile.")
        return await asyncio.to_thread(_opened, text, parts.check_archive)
    if not bucket or not key:
        raise invalid(_NO_CODE)
    if bucket == LOCAL_BUCKET:
        folder = await asyncio.to_thread(_folder, key)
        return Taken(Code(folder=folder, given=parts.new_id()))
    archive = await _fetched(parts, bucket, key, given.get("S3ObjectVersion"))
    return await asyncio.to_thread(_looked_at, archive, parts.check_archive)


def _opened(text: str, check: CheckArchive) -> Taken:
    try:
        archive = pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError("SerializationException", "ZipFile is not Base64.") from None
    if len(archive) > ZIPPED_BYTES:
        message = f"Zipped size must be smaller than {ZIPPED_BYTES} bytes"
        raise ApiError("RequestEntityTooLargeException", message, 413)
    return _looked_at(archive, check)


def _looked_at(archive: bytes, check: CheckArchive) -> Taken:
    try:
        check(archive)
    except CodeRefused as error:
        raise invalid(str(error)) from error
    return Taken(Code(sha256=hashlib.sha256(archive).hexdigest(), size_bytes=len(archive)), archive)


def _folder(key: str) -> str:
    folder = Path(os.path.normpath(key))
    with contextlib.suppress(OSError):
        if folder.is_absolute() and folder.is_dir():
            return str(folder)
    raise invalid(f"{key} is no absolute path of a folder of this machine, which bucket {LOCAL_BUCKET} stands for.")


async def _fetched(parts: Parts, bucket: str, key: str, version: str | None) -> bytes:
    try:
        return await parts.objects.fetch(bucket, key, version, UNZIPPED_BYTES)
    except CodeRefused as error:
        raise invalid(str(error)) from error
    except SourceUnavailable as error:
        raise unavailable(str(error)) from error


@contextlib.asynccontextmanager
async def kept(parts: Parts, taken: Taken) -> AsyncIterator[None]:
    """Keep code while a record that names it is written; it goes again where that fails. Raises StoreUnavailable."""
    if taken.archive is None:
        yield
        return
    async with parts.catalogue.changing(_lock(taken.code)):
        try:
            await parts.code.put(taken.code.sha256, taken.archive)
            yield
        # Who is cancelled does not know whether the record was written.
        except Exception:
            await _drop_unused(parts, taken.code)
            raise


async def forget_unused(parts: Parts, codes: Iterable[Code]) -> None:
    """Forget those archives that no version names any more."""
    for code in {code.sha256: code for code in codes if code.sha256}.values():
        async with parts.catalogue.changing(_lock(code)):
            await _drop_unused(parts, code)


async def _drop_unused(parts: Parts, code: Code) -> None:
    if code.sha256 in used(parts.catalogue.made[0].values()):
        return
    # What stays for now goes when the daemon starts again.
    with contextlib.suppress(StoreUnavailable):
        await parts.code.drop(code.sha256)


def used(functions: Iterable[Function]) -> set[str]:
    """Name the archives that functions use, by their hashes; a folder is none."""
    return {code.sha256 for function in functions for code in codes(function) if code.sha256}


def codes(function: Function) -> list[Code]:
    """Give the code of all versions of a function."""
    return [version.code for version in (function.latest, *function.versions.values())]


def _lock(code: Code) -> str:
    """Name the lock; no function or mapping has a name like this."""
    return f"code {code.sha256}"
