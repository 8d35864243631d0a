"""Sending what fits: a record whole where the destination takes it, and ever smaller where it is too large for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from router.errors import DestinationUnavailable
from router.failures.record import Form
from router.ports import Sent


class TooLarge(DestinationUnavailable):
    """The destination takes nothing of this size."""


async def send_fitting(forms: Iterable[Form], send: Callable[[Form], Awaitable[None]]) -> Sent:
    """Send the first form that is not too large.

    Args:
        forms: at least one, the largest first.
        send: sends one; raises TooLarge.

    Raises:
        DestinationUnavailable
    """
    refusal: TooLarge | None = None
    for form in forms:
        try:
            await send(form)
        except TooLarge as error:
            refusal = error
        else:
            return Sent.CLAIM_CHECK if refusal else Sent.WHOLE
    raise DestinationUnavailable(f"{refusal}, even for the pointer to a failure") from refusal
