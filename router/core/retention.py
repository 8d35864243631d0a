"""How much of failures a mapping may keep, and when it must stop because there is no room for more.

A mapping that fails faster than its destination accepts, or than people look after it, is held instead of losing what
failed: it starts nothing new until there is room again (90 % of the limit, so that it does not flutter). Only when the
operator has said so, the oldest failures make room: first those that are settled, then the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: Taken care of: the destination has it, a replay succeeded, or somebody dropped it.
SETTLED: Final = ("delivered", "replayed", "dropped")
#: What may be deleted when it is old: also what failed again, because newer failures hold its records.
EXPENDABLE: Final = (*SETTLED, "failed_again")

#: A mapping that is held goes on below this share of the limit.
RELEASE_SHARE: Final = 0.9
#: Free room that stays in a store's file, a share of what it holds, and at least: what comes next needs it again.
SPARE_SHARE: Final = 0.25
SPARE_BYTES: Final = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits of what is kept of one mapping's failures."""

    #: Age after which settled failures are deleted.
    keep_for_s: float = 30 * 24 * 3600.0
    #: Sum of event sizes, bytes.
    keep_bytes: int = 1024**3
    #: At keep_bytes, delete the oldest failures instead of holding the mapping.
    drop_oldest: bool = False
    #: Failures that wait for their destination.
    undelivered_limit: int = 1000


class Hold:
    """Says whether a mapping must be held, and why."""

    def __init__(self, mapping: str, destination: str | None, retention: Retention) -> None:
        self._mapping = mapping
        self._destination = destination
        #: The limits; may be changed.
        self.retention = retention
        #: Why the mapping is held; None = it is not.
        self.reason: str | None = None

    def decide(self, undelivered: int, stored_bytes: int, last_error: str | None) -> str | None:
        """Give the reason to hold the mapping now, a sentence for the operator; None = go on."""
        limits = self.retention
        share = RELEASE_SHARE if self.reason else 1.0
        if self._destination and undelivered >= limits.undelivered_limit * share:
            self.reason = self.reason or self._undelivered_reason(undelivered, last_error)
        elif not limits.drop_oldest and stored_bytes >= limits.keep_bytes * share:
            self.reason = self.reason or self._full_reason(stored_bytes)
        else:
            self.reason = None
        return self.reason

    def _undelivered_reason(self, undelivered: int, last_error: str | None) -> str:
        error = f", which last said: {last_error}" if last_error else ""
        return (
            f"{undelivered} failures wait for {self._destination}{error}. Repair it and send them "
            f"(headrace failures deliver --mapping {self._mapping}), or replay or drop failures."
        )

    def _full_reason(self, stored_bytes: int) -> str:
        return (
            f"Stored failures take {stored_bytes} bytes, failures.keep_bytes allows {self.retention.keep_bytes}. "
            f"Drop failures (headrace failures drop --mapping {self._mapping}), raise the limit, "
            "or set failures.when_full: drop_oldest."
        )


def surplus(sizes: Iterable[tuple[str, int]], excess_bytes: int) -> list[str]:
    """Choose failures (id, size), in the order given, until they free `excess_bytes`."""
    chosen: list[str] = []
    for failure_id, size_bytes in sizes:
        if excess_bytes <= 0:
            break
        chosen.append(failure_id)
        excess_bytes -= size_bytes
    return chosen


def room_to_give_back(used_bytes: int, free_bytes: int) -> int:
    """Say how much of a store's free room is more than what is written next will want, bytes."""
    return max(0, free_bytes - max(SPARE_BYTES, int(used_bytes * SPARE_SHARE)))
