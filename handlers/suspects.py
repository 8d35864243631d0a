"""Who may have taken a worker down, and in how large a company each may run until that is known.

A worker that runs several invocations and dies of itself (a crash, too much memory, an event loop that stands still)
does not say whose fault it was. All of them end as Cancelled then, which spends no attempt, and each becomes a suspect
by its request id, which all attempts of a batch share: next time it runs together with at most an eighth as many
others. One that dies alone is to blame for certain and spends the attempt. So at most 1 + log8(n) deaths lie between n
invocations and the blame (four for n = 512), and an innocent one never spends an attempt, however often it stood
beside.

Who was to blame goes on alone until it ends by itself: its retries cost no neighbour anything.

Weak spot: what comes back under a new request id (a half of a split batch, a message that went back to its queue) is
not known again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_SHARE: Final = 8
#: Suspects that are remembered; some never run again.
_LIMIT: Final = 10_000


class Suspects:
    """Request ids of suspects."""

    def __init__(self) -> None:
        #: How many may run together with each of them, itself included.
        self.companies: dict[str, int] = {}

    def suspect(self, request_ids: Sequence[str]) -> None:
        """Learn that these ran together, and took their worker down."""
        for request_id in request_ids:
            self._put(request_id, max(1, len(request_ids) // _SHARE))

    def blame(self, request_id: str) -> None:
        """Learn that this one took its worker down."""
        self._put(request_id, 1)

    def clear(self, request_id: str) -> None:
        """Learn that this one ended by itself."""
        self.companies.pop(request_id, None)

    def _put(self, request_id: str, company: int) -> None:
        self.companies.pop(request_id, None)
        self.companies[request_id] = company
        if len(self.companies) > _LIMIT:
            del self.companies[next(iter(self.companies))]
