"""The objects of a bucket under a prefix, as an ObjectSource: listed by key, read one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from connectors.aws import aws_errors, s3_client
from router.errors import NotFound, SourceUnavailable

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

#: Longest time for one call: a large object takes more than the wait for the next of its bytes.
_CALL_S: Final = 60.0


class S3Objects:
    """One bucket. A closed one stays closed: make another."""

    def __init__(self, bucket: str, prefix: str, *, endpoint_url: str | None, region: str | None) -> None:
        """Prepare without I/O."""
        self.name = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._prefix = prefix
        self._endpoint_url = endpoint_url
        self._region = region
        self._held = AsyncExitStack()
        self._client: S3Client | None = None

    async def open(self) -> None:
        async with self._answering():
            self._client = await self._held.enter_async_context(s3_client(self._endpoint_url, self._region))

    async def page(self, after: str) -> Sequence[tuple[str, int]]:
        client = self._opened()
        async with self._answering():
            answer = await client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, StartAfter=after)
        return [(each["Key"], each["Size"]) for each in answer.get("Contents", ())]

    async def read(self, key: str) -> bytes:
        client = self._opened()
        async with self._answering():
            try:
                answer = await client.get_object(Bucket=self._bucket, Key=key)
            except client.exceptions.NoSuchKey as error:
                raise NotFound(f"the object {key} was deleted meanwhile") from error
            async with answer["Body"] as body:
                content: bytes = await body.read()
        return content

    async def close(self) -> None:
        self._client = None
        await self._held.aclose()

    def _opened(self) -> S3Client:
        assert self._client is not None, "it is open"
        return self._client

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Bound a call, and turn its errors into ours."""
        what = f"S3 bucket {self._bucket}"
        try:
            with aws_errors(SourceUnavailable, what):
                async with asyncio.timeout(_CALL_S):
                    yield
        except TimeoutError as error:
            raise SourceUnavailable(f"{what}: it did not answer within {_CALL_S:.0f} s") from error
