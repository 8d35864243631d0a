"""What a queue's failed messages have been through: written before their next try, forgotten when they are done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Final

from router.core.facts import Remember
from router.core.lane import backoff_s
from router.core.message_state import RETENTION_S, MessageState, decode, encode
from router.core.model import OUTAGE_BACKOFF, Batch, Instant

if TYPE_CHECKING:
    from random import Random

#: States of one mapping that are remembered. Far more than a queue holds of messages that keep failing: what it has
#: moved to its dead-letter queue never comes again, which nobody tells us.
MOST: Final = 100_000
_PURGE_S: Final = 3600.0


class Memory:
    """States of messages by position, and the writes that are under way for them."""

    def __init__(self, texts: Mapping[int, str], rng: Random) -> None:
        """Read what earlier lives wrote; what cannot be read is forgotten."""
        self._rng = rng
        states = {position: decode(text) for position, text in texts.items()}
        self._states = {position: state for position, state in states.items() if state}
        #: Monotonic time of the next try, as far as it was noted or asked for in this life.
        self._due_s: dict[int, float] = {}
        #: Positions whose texts are to be deleted.
        self._stale = {position for position, state in states.items() if state is None}
        self._calls = count(1)
        #: Writes under way: positions, and the batches that wait for them.
        self._writing: dict[int, tuple[Iterable[int], list[Batch]]] = {}
        self._failures = 0
        self._purged_s: float | None = None
        #: Why the last write failed; None when it did not.
        self.error: str | None = None

    def __len__(self) -> int:
        return len(self._states) + len(self._stale)

    @property
    def writes(self) -> bool:
        """Is something being written?"""
        return bool(self._writing)

    def get(self, position: int) -> MessageState | None:
        return self._states.get(position)

    def recall(self, texts: Mapping[int, str]) -> None:
        """Learn what is kept of messages that come again; what we are still writing ourselves is newer than that."""
        writing = self._stale.union(*(positions for positions, _ in self._writing.values()))
        for position in texts.keys() - writing:
            state = decode(texts[position])
            if state is not None and state != self._states.get(position):
                self._states.pop(position, None)  # the newest are last
                self._states[position] = state
                self._due_s.pop(position, None)

    def next_try_s(self, position: int, now: Instant) -> float:
        """Give the monotonic time of a message's next try.

        What an earlier life noted is read by the wall clock once, so that a stepped clock delays a try no longer than
        its own wait, however often the message comes meanwhile.
        """
        return self._due_s.setdefault(position, now.mono_s + self._states[position].wait_s(now.wall_s))

    def note(self, pieces: Iterable[Batch], waiting: Sequence[Batch], now: Instant) -> Remember:
        """Note the pieces that messages are in; `waiting` batches may go on when that is written."""
        positions: list[int] = []
        for piece in pieces:
            next_s = now.wall_s + max(0.0, piece.not_before_s - now.mono_s)
            state = MessageState(piece.id, piece.attempts, next_s, piece.backoff_s, now.wall_s)
            for position in piece.positions():
                self._states.pop(position, None)  # the newest are last
                self._states[position] = state
                self._due_s[position] = piece.not_before_s
                positions.append(position)
        self._stale.difference_update(positions)
        return self._write(positions + self._forget_oldest(), waiting)

    def _forget_oldest(self) -> list[int]:
        """Forget what is beyond MOST; give its positions, for their texts to be deleted."""
        oldest = list(islice(self._states, max(0, len(self._states) - MOST)))
        for position in oldest:
            del self._states[position]
            self._due_s.pop(position, None)
        return oldest

    def forget(self, position: int) -> bool:
        """Forget a message with the next `flush`; say whether it was remembered."""
        if self._states.pop(position, None) is None:
            return False
        self._due_s.pop(position, None)
        self._stale.add(position)
        return True

    def flush(self) -> Remember | None:
        """Delete the texts of messages that were forgotten."""
        stale, self._stale = self._stale, set()
        return self._write(stale, ()) if stale else None

    def _write(self, positions: Iterable[int], waiting: Sequence[Batch]) -> Remember:
        call = next(self._calls)
        self._writing[call] = positions, list(waiting)
        return self.again(call)

    def gates(self, batch: Batch) -> bool:
        """Let a batch wait for the newest write of one of its messages; say whether there is one under way."""
        mine = set(batch.positions())
        for positions, waiting in reversed(self._writing.values()):
            if not mine.isdisjoint(positions):
                waiting.append(batch)
                return True
        return False

    def again(self, call: int) -> Remember:
        """Write what holds now, as newer writes may have gone before a repeated one."""
        positions, _ = self._writing[call]
        states = self._states
        return Remember(
            call, {position: encode(states[position]) if position in states else "" for position in positions}
        )

    def written(self, call: int) -> Sequence[Batch]:
        """Note that a write is durable, and give the batches that waited for it."""
        self._failures = 0
        self.error = None
        _, waiting = self._writing.pop(call)
        return waiting

    def failed(self, error: str) -> float:
        """Note that a write failed, and give the wait before it is repeated."""
        self.error = error
        self._failures += 1
        return backoff_s(OUTAGE_BACKOFF, self._failures - 1, self._rng)

    def purge(self, now: Instant) -> bool:
        """Forget now and then what no queue keeps any more, with the next `flush`; say whether there was something."""
        if self._purged_s is not None and now.mono_s - self._purged_s < _PURGE_S:
            return False
        self._purged_s = now.mono_s
        oldest_s = now.wall_s - RETENTION_S
        old = [position for position, state in self._states.items() if state.noted_s < oldest_s]
        for position in old:
            self.forget(position)
        return bool(old)
