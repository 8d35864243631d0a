"""A client of an AWS service that is opened when it is needed, and opened anew after an error.

So new credentials, and a queue, topic or bucket made anew, are seen by the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Generic, TypeVar

from connectors.aws import aws_errors, is_too_large
from connectors.fitting import TooLarge
from router.errors import DestinationUnavailable

Client = TypeVar("Client")

#: Longest time for one use. The library's own limits leave out the wait for leave to send a body (`100 Continue`).
_USE_S: Final = 20.0


class Link(Generic[Client]):
    """The way to one destination at AWS."""

    def __init__(
        self,
        what: str,
        client: Callable[[], AbstractAsyncContextManager[Client]],
        find: Callable[[Client], Awaitable[str]],
    ) -> None:
        """Make it without any I/O.

        Args:
            what: names the destination in messages.
            client: opens a client.
            find: gives the address by which the service knows the destination.
        """
        self._what = what
        self._client = client
        self._find = find
        self._open = AsyncExitStack()
        self._found: tuple[Client, str] | None = None
        self._connecting = asyncio.Lock()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[tuple[Client, str]]:
        """Give the client and the destination's address; errors inside become DestinationUnavailable or TooLarge."""
        try:
            with aws_errors(DestinationUnavailable, self._what):
                async with asyncio.timeout(_USE_S):
                    async with self._connecting:
                        found = self._found or await self._connect()
                    yield found
        except TimeoutError as error:
            await self.close()
            raise DestinationUnavailable(f"{self._what}: it did not answer within {_USE_S:.0f} s") from error
        except DestinationUnavailable as error:
            await self.close()
            if is_too_large(error):
                raise TooLarge(str(error)) from error
            raise

    async def close(self) -> None:
        """Close the client. May come twice."""
        self._found = None
        await self._open.aclose()

    async def _connect(self) -> tuple[Client, str]:
        client = await self._open.enter_async_context(self._client())
        self._found = client, await self._find(client)
        return self._found
