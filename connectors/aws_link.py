"""A client of an AWS service that is opened when it is needed, and opened anew after an error.

So new credentials, and a queue, topic or bucket made anew, are seen by the next call. Several calls may be under way at
once: a message that is too large is no reason to cut others off, an error of a former client none to close this one.
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
        found: tuple[Client, str] | None = None
        try:
            with aws_errors(DestinationUnavailable, self._what):
                async with asyncio.timeout(_USE_S):
                    async with self._connecting:
                        found = self._found or await self._connect()
                    yield found
        except TimeoutError as error:
            await self._give_up(found)
            raise DestinationUnavailable(f"{self._what}: it did not answer within {_USE_S:.0f} s") from error
        except DestinationUnavailable as error:
            if is_too_large(error):
                raise TooLarge(str(error)) from error
            await self._give_up(found)
            raise

    async def close(self) -> None:
        """Close the client. May come twice."""
        former, self._open, self._found = self._open, AsyncExitStack(), None  # one that is opened meanwhile stays open
        await former.aclose()

    async def _give_up(self, found: tuple[Client, str] | None) -> None:
        """Close the client, if it is still the one that was found."""
        if found is not None and found is self._found:
            await self.close()

    async def _connect(self) -> tuple[Client, str]:
        try:
            client = await self._open.enter_async_context(self._client())
            self._found = client, await self._find(client)
        except BaseException:
            await self.close()
            raise
        return self._found
