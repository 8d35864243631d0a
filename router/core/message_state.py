"""What is remembered of a queue's message that has failed, as a short text under the message's identity.

A message that comes again, after a restart or because its lease ended, goes on where it was: with the messages of its
piece that came with it, the piece's attempts and its next try. The time of the next try is wall time; the wait that
remains is capped at the wait it came from, so a stepped clock cannot stall it.
"""

from __future__ import annotations

import json
from typing import NamedTuple

#: A queue keeps no message longer (Amazon SQS quotas): what was noted of one before that is of no use.
RETENTION_S = 14 * 86400.0


class MessageState(NamedTuple):
    """One message's part in a batch that failed."""

    #: Request id of the batch, shared by its messages.
    piece: str
    attempts: int
    #: Wall time of the next try, and the wait it came from.
    next_try_s: float
    backoff_s: float
    #: Wall time of this note.
    noted_s: float

    def wait_s(self, wall_s: float) -> float:
        """Give the wait that remains."""
        return min(max(0.0, self.next_try_s - wall_s), self.backoff_s)


def encode(state: MessageState) -> str:
    return json.dumps(list(state), separators=(",", ":"))


def decode(text: str) -> MessageState | None:
    """Read a text back; None when it is no such text."""
    try:
        match json.loads(text):
            case [
                str(piece),
                int(attempts),
                int() | float() as next_s,
                int() | float() as wait_s,
                int() | float() as at,
            ]:
                return MessageState(piece, attempts, float(next_s), float(wait_s), float(at))
    except ValueError:
        pass
    return None
