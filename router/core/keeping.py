"""Batches that are given up and on their way into the failure store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from router.core import facts as f
from router.core.lane import backoff_s
from router.core.model import OUTAGE_BACKOFF

if TYPE_CHECKING:
    from random import Random

T = TypeVar("T")


class Keeping(Generic[T]):
    """Failures that are being stored, each with what waits for it."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._waiting: dict[str, tuple[f.Keep, T]] = {}
        self._refusals = 0
        #: Why the store did not take the last one; None once it has taken one.
        self.error: str | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self, keep: f.Keep, owner: T) -> None:
        self._waiting[keep.failure.id] = keep, owner

    def kept(self, failure_id: str) -> tuple[f.Keep, T] | None:
        """Note that a failure is stored, and give it back; None when nobody waits for it any more."""
        self._refusals = 0
        self.error = None
        return self._waiting.pop(failure_id, None)

    def failed(self, failure_id: str, error: str) -> tuple[float, f.Keep] | None:
        """Note that a failure was not stored; give the wait before the next try, or None when nobody waits for it."""
        entry = self._waiting.get(failure_id)
        if entry is None:
            return None
        self.error = error
        self._refusals += 1
        return backoff_s(OUTAGE_BACKOFF, self._refusals - 1, self._rng), entry[0]

    def waits(self, keep: f.Keep) -> bool:
        """Say whether this very batch still waits to be stored."""
        entry = self._waiting.get(keep.failure.id)
        return entry is not None and entry[0] is keep

    def abandon(self, is_gone: Callable[[T], bool]) -> None:
        """Wait no more for the failures of owners that are gone."""
        self._waiting = {key: entry for key, entry in self._waiting.items() if not is_gone(entry[1])}
