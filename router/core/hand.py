"""The messages of a queue that are in hand: each under a lease, until it is deleted or left to the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from router.core.model import Batch, Chunk

#: Messages that one call deletes, extends or gives back (Amazon SQS quotas).
CALL_LIMIT: Final = 10


@dataclass(slots=True, eq=False)
class Deletion:
    """Finished messages of one batch that hold the turn of their keys until the queue has deleted them."""

    left: int


@dataclass(slots=True, eq=False)
class Message:
    """One message in hand."""

    chunk: Chunk
    index: int
    #: Monotonic time at which the queue shows it again.
    lease_end_s: float
    #: It is only to be deleted, and holds back what comes behind it until it is; None = not finished yet.
    deletion: Deletion | None = None
    #: Monotonic time since which its deletion fails.
    undeleted_s: float = inf

    @property
    def row(self) -> Any:
        return self.chunk.rows[self.index]

    @property
    def key(self) -> bytes | None:
        return self.chunk.keys[self.index] if self.chunk.keys else None


class Hand:
    """Messages by their identity."""

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[tuple[int, Message]]:
        return iter(self._messages.items())

    def get(self, position: int) -> Message | None:
        return self._messages.get(position)

    def expect(self, position: int) -> Message:
        """Give a message that must be in hand."""
        return self._messages[position]

    def take(self, chunk: Chunk, lease_end_s: float) -> list[int]:
        """Take a page in and give the indexes of what is new; what is in hand already has its lease renewed."""
        fresh: list[int] = []
        for index, position in enumerate(chunk.positions):
            known = self._messages.get(position)
            if known is None:
                self._messages[position] = Message(chunk, index, lease_end_s)
                self.bytes += chunk.sizes[index]
                fresh.append(index)
            else:
                rows = list(known.chunk.rows)
                rows[known.index] = chunk.rows[index]
                known.chunk.rows = rows
                known.lease_end_s = lease_end_s
        return fresh

    def let_go(self, positions: Iterable[int]) -> None:
        """Forget messages, as far as they are in hand."""
        for position in positions:
            message = self._messages.pop(position, None)
            if message:
                self.bytes -= message.chunk.sizes[message.index]

    def rows(self, positions: Iterable[int]) -> Mapping[int, Any]:
        """Give the newest rows, with their receipts, of messages that are all in hand."""
        messages = self._messages
        return {position: messages[position].row for position in positions}

    def lease_end_s(self, batch: Batch) -> float:
        """Give the time at which the first lease of a batch ends; all of it is in hand."""
        return min(self._messages[position].lease_end_s for position in batch.positions())

    def lapsed(self, batch: Batch, now_s: float) -> Sequence[int]:
        """Give the ordinals of a batch's messages whose leases have ended."""
        messages = self._messages
        return [
            ordinal for ordinal, position in enumerate(batch.positions()) if messages[position].lease_end_s <= now_s
        ]
