"""Whose turn it is: what shares an ordering key runs one after the other, in the order it came.

An item (a batch, or the deletion of finished messages) queues up behind every earlier item that has one of its keys,
and may go when it is the first for all of them. Items without keys never wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Turns(Generic[T]):
    """Items in a queue for each key."""

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[T]] = {}
        self._keys: dict[T, Collection[bytes]] = {}
        #: For how many of its keys an item has somebody before it.
        self._behind: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def enter(self, item: T, keys: Collection[bytes]) -> bool:
        """Queue an item up; say whether it may go at once."""
        if not keys:
            return True
        self._keys[item] = keys
        behind = 0
        for key in keys:
            queue = self._queues.setdefault(key, deque())
            behind += bool(queue)
            queue.append(item)
        self._behind[item] = behind
        return not behind

    def is_first(self, item: T) -> bool:
        return not self._behind.get(item)

    def replace(self, item: T, followers: Sequence[tuple[T, Collection[bytes]]] = ()) -> list[T]:
        """Put followers, whose keys are among its own, in the place of an item, and give those that may go now."""
        freed = [follower for follower, keys in followers if not keys]
        self._behind.update((follower, 0) for follower, keys in followers if keys)
        self._keys.update((follower, keys) for follower, keys in followers if keys)
        for key in self._leave(item):
            queue = self._queues[key]
            place = queue.index(item)
            del queue[place]
            mine = [follower for follower, keys in followers if key in keys]
            for offset, follower in enumerate(mine):
                queue.insert(place + offset, follower)
                self._behind[follower] += place + offset > 0
            if not queue:
                del self._queues[key]
            elif not place and not mine:
                self._behind[queue[0]] -= 1
                if not self._behind[queue[0]]:
                    freed.append(queue[0])
        return freed + [follower for follower, keys in followers if keys and not self._behind[follower]]

    def _leave(self, item: T) -> Collection[bytes]:
        self._behind.pop(item, None)
        return self._keys.pop(item, ())

    def with_keys(self, keys: Iterable[bytes]) -> list[T]:
        """Give the items that have one of these keys, each once, in order."""
        return list(dict.fromkeys(item for key in keys for item in self._queues.get(key, ())))
