"""A function of ours that is told of an asynchronous event: with another one, through the inbox."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid5

from router.catalogue.catalogue import Catalogue
from router.errors import DestinationUnavailable, StoreUnavailable
from router.event_ports import Accepts, TargetMessage
from router.ports import Sent

#: Largest event that may be invoked asynchronously, bytes (AWS Lambda quotas).
EVENT_BYTES: Final = 1024 * 1024
#: Namespace of the request ids of such events.
_EVENTS: Final = UUID("1b0f9d3c-6a3e-4a55-9a4f-4f0f3c0b7d52")


class FunctionTarget:
    """Takes a record as the event of a function. Told twice of one event, it is the same event."""

    def __init__(self, arn: str, function: str, qualifier: str | None, catalogue: Catalogue, accepts: Accepts) -> None:
        """Make it.

        Args:
            arn: its name.
            function: the function's.
            qualifier: version or alias; None = none.
            catalogue: has the functions.
            accepts: takes its events in.
        """
        self.name = arn
        self._function = function
        self._qualifier = qualifier
        self._catalogue = catalogue
        self._accepts = accepts

    async def send(self, message: TargetMessage) -> Sent:
        await self.check()
        small = message.small if len(message.body) > EVENT_BYTES else None
        request_id = str(uuid5(_EVENTS, f"{message.id} {self.name}"))
        try:
            await self._accepts.accept(
                self._function, self._qualifier, small or message.body, request_id=request_id, is_new=False
            )
        except StoreUnavailable as error:
            raise DestinationUnavailable(f"function {self._function}: {error}") from error
        return Sent.WITHOUT_PAYLOADS if small else Sent.WHOLE

    async def check(self) -> None:
        if self._catalogue.function(self._function) is None:
            raise DestinationUnavailable(f"function {self._function}: there is no such function; create it again")

    async def close(self) -> None:
        """Nothing is open."""
