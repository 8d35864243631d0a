"""How replays end, as jobs tell it to whoever listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplayEnd:
    """How one replay ended."""

    #: Of the stored failure; of a message it is `sqs:<messageId>`.
    id: str
    #: replayed | failed_again | refused
    outcome: str
    new_failures: Sequence[str] = ()
    #: Why it was refused, or how a message failed.
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobOver:
    """A job over a queue is over; what is left is in the queue."""

    #: Why it stopped before the queue was empty; None = it was.
    stopped: str | None
