"""Events of failures that are too large for Redis: in a bucket, or in a folder that all replicas share.

An object is written before the failure names it, and deleted after none does. Between the two a crash leaves one that
nobody names; `names` lists what there is, so that those can be found and deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from connectors.aws import s3_client
from connectors.aws_link import Link
from connectors.fitting import TooLarge
from connectors.settings import RedisSettings, S3Destination
from connectors.store.copies import sync
from router.errors import DestinationUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

T = TypeVar("T")

#: Names of one page.
PAGE_COUNT: Final = 1000


class Payloads(Protocol):
    """A place for bytes by name. Names have the characters of a file name. Every method may raise StoreUnavailable."""

    #: For people; `NAME/name` is where something is.
    name: str

    async def write(self, name: str, data: bytes) -> None:
        """Keep it durably; writing it again changes nothing."""
        ...

    async def read(self, name: str) -> bytes | None:
        """Give it; None = it is not there."""
        ...

    async def delete(self, names: Sequence[str]) -> None:
        """Delete what is there of these."""
        ...

    async def names(self, after: str) -> Sequence[tuple[str, float]]:
        """Give names behind this one, ascending, with the age of each in seconds by the place's own clock.

        None = there are no more.
        """
        ...

    async def close(self) -> None:
        """End all connections. May come twice."""
        ...


def open_payloads(settings: RedisSettings, fleet: str) -> Payloads | None:
    """Make what the settings name, without any I/O."""
    match settings.payloads:
        case Path() as folder:
            return FolderPayloads(folder / fleet)
        case S3Destination() as bucket:
            return BucketPayloads(bucket, fleet)
        case None:
            return None


class FolderPayloads:
    """A folder that all replicas see."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    async def write(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._guarded, partial(self._write, name, data))

    async def read(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._guarded, partial(self._read, name))

    async def delete(self, names: Sequence[str]) -> None:
        await asyncio.to_thread(self._guarded, partial(self._delete, names))

    async def names(self, after: str) -> Sequence[tuple[str, float]]:
        return await asyncio.to_thread(self._guarded, partial(self._names, after))

    async def close(self) -> None:
        """Leave it: there is nothing to close."""

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            raise StoreUnavailable(
                f"payloads in {self._folder}: {error.strerror}; look at the folder, its space and who may write it"
            ) from error

    def _write(self, name: str, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial_ = self._folder / f"{name}.partial"
        with open(partial_, "wb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial_.replace(self._folder / name)
        sync(self._folder)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def _names(self, after: str) -> list[tuple[str, float]]:
        if not self._folder.exists():
            return []
        now_s = time.time()
        names = sorted(name for name in os.listdir(self._folder) if name > after)[:PAGE_COUNT]  # noqa: PTH208
        ages: list[tuple[str, float]] = []
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                ages.append((name, now_s - (self._folder / name).stat().st_mtime))
        return ages


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class BucketPayloads:
    """Objects of an S3 bucket under a prefix."""

    def __init__(self, settings: S3Destination, fleet: str) -> None:
        self._prefix = f"{settings.prefix}{fleet}/"
        self.name = f"s3://{settings.bucket}/{self._prefix}".rstrip("/")
        self._link: Link[S3Client] = Link(
            f"payloads in S3 bucket {settings.bucket}",
            partial(s3_client, settings.endpoint_url, settings.region),
            partial(_same, settings.bucket),
        )

    async def write(self, name: str, data: bytes) -> None:
        async with self._use() as (client, bucket):
            await client.put_object(Bucket=bucket, Key=self._prefix + name, Body=data)

    async def read(self, name: str) -> bytes | None:
        async with self._use() as (client, bucket):
            try:
                answer = await client.get_object(Bucket=bucket, Key=self._prefix + name)
            except client.exceptions.NoSuchKey:
                return None
            async with answer["Body"] as body:
                content: bytes = await body.read()
        return content

    async def delete(self, names: Sequence[str]) -> None:
        async with self._use() as (client, bucket):
            for name in names:
                await client.delete_object(Bucket=bucket, Key=self._prefix + name)

    async def names(self, after: str) -> Sequence[tuple[str, float]]:
        async with self._use() as (client, bucket):
            answer = await client.list_objects_v2(
                Bucket=bucket, Prefix=self._prefix, StartAfter=self._prefix + after, MaxKeys=PAGE_COUNT
            )
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return [
            (each["Key"].removeprefix(self._prefix), (now - each["LastModified"]).total_seconds())
            for each in answer.get("Contents", ())
        ]

    async def close(self) -> None:
        await self._link.close()

    @contextlib.asynccontextmanager
    async def _use(self) -> AsyncIterator[tuple[S3Client, str]]:
        try:
            async with self._link.use() as found:
                yield found
        except (DestinationUnavailable, TooLarge) as error:
            raise StoreUnavailable(str(error)) from error


async def _same(bucket: str, _: S3Client) -> str:
    return bucket
