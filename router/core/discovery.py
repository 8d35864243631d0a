"""When a stream's shards are listed, and which are opened then.

Listed at the start, when a shard has come to its end (its children must be known), and every now and then, because
shards may appear for reasons of the stream's own. While a listing is owed that has not come yet, as children of a shard
that has just been closed, it is asked for again with growing pauses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from router.core import facts as f
from router.core.agenda import Agenda, Alarm
from router.core.lane import backoff_s
from router.core.lineage import Lineage
from router.core.model import OUTAGE_BACKOFF, Instant

if TYPE_CHECKING:
    from random import Random

#: How often a stream is listed when nothing asks for it.
LIST_S: Final = 30.0


class Discovery:
    """Knows the shards of one stream, for an engine whose source does not assign them."""

    def __init__(self, agenda: Agenda, emit: Callable[[f.Command], None], rng: Random) -> None:
        self._emit = emit
        self._rng = rng
        self._alarm = Alarm(agenda, self._list)
        self._lineage: Lineage | None = None
        self._is_listing = False
        #: Listings in a row that failed, or did not tell what was wanted.
        self._in_vain = 0
        #: Why the last listing failed; None when it did not.
        self.error: str | None = None

    def open(self, fact: f.StreamOpened, now: Instant) -> None:
        """Begin with what the store knows."""
        self._lineage = Lineage(fact.begun, fact.finished)
        self._alarm.by(now.mono_s)

    def listed(self, fact: f.ShardsListed, now: Instant) -> None:
        """Open what may be read now."""
        lineage = self._known()
        self._is_listing = False
        self.error = None
        lineage.listed(fact.shards)
        gone = lineage.forget()
        if gone:
            self._emit(f.Forget(gone))
        self._in_vain = self._in_vain + 1 if lineage.wants_listing else 0
        self._start()
        self._alarm.by(now.mono_s + (self._pause_s() if self._in_vain else LIST_S))

    def failed(self, error: str, now: Instant) -> float:
        """Ask again later; gives how much, seconds."""
        self._is_listing = False
        self.error = error
        self._in_vain += 1
        wait_s = self._pause_s()
        self._alarm.by(now.mono_s + wait_s)
        return wait_s

    def finished(self, shards: Sequence[str], now: Instant) -> None:
        """Go on with the children of shards that are finished or gone, whoever has finished them."""
        news = [shard for shard in shards if self._known().finish(shard)]
        if news and not self._start():
            self._in_vain = 0
            self._alarm.by(now.mono_s)

    def waiting(self) -> dict[str, list[str]]:
        """Give the shards that may not be read yet, and which of their parents are not finished."""
        return self._lineage.waiting() if self._lineage else {}

    def is_over(self, shard: str) -> bool:
        """Say whether nothing of a shard is read any more, or will be; not known where shards are assigned."""
        return self._lineage is not None and self._lineage.is_over(shard)

    def _start(self) -> int:
        ready = self._known().start()
        for shard in ready:
            self._emit(f.Open(shard))
        return len(ready)

    def _list(self, now: Instant) -> None:  # noqa: ARG002 - actions of an agenda are given the time
        if not self._is_listing:
            self._is_listing = True
            self._emit(f.List())

    def _pause_s(self) -> float:
        return backoff_s(OUTAGE_BACKOFF, self._in_vain - 1, self._rng)

    def _known(self) -> Lineage:
        assert self._lineage is not None, "the stream was opened before anything is told of its shards"
        return self._lineage
