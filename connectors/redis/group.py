"""What waits to be written while Redis writes goes with the next round trip, all together (group commit).

Redis that waits for its disk does so once for everything that came in one piece. Each script is still one step of its
own: one that is refused takes nobody with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any, Final

from connectors.redis.link import Call, RedisLink
from router.errors import StoreUnavailable

#: Of one round trip at most, so that the first of them does not wait for ever.
GROUP_COUNT: Final = 500
GROUP_BYTES: Final = 4 * 1024**2


class Group:
    """Calls of scripts that share round trips."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._waiting: deque[tuple[Call, asyncio.Future[Any]]] = deque()
        #: Set while no round trip is on its way; what comes during one waits for the next.
        self._is_free = asyncio.Event()
        self._is_free.set()
        #: Sends what waits.
        self._sending: asyncio.Task[None] | None = None

    async def run(self, call: Call) -> Any:
        """Run a script with whatever else waits; gives its answer.

        Raises:
            StoreUnavailable: whether it was run may not be known.
            UnicodeEncodeError: an argument cannot be written, so nothing was.
        """
        call = _encoded(call)
        if not self._is_free.is_set():
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting.append((call, answer))
            return await answer
        self._is_free.clear()
        try:
            self._link.check_usable()
            return await self._link.run(call.script, call.keys, call.arguments)
        finally:
            if self._waiting:
                self._sending = asyncio.create_task(self._send())
            else:
                self._is_free.set()

    async def close(self) -> None:
        """Wait until what was asked is answered."""
        await self._is_free.wait()

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._send_group(self._next_group())
        finally:
            self._sending = None
            self._is_free.set()

    def _next_group(self) -> list[tuple[Call, asyncio.Future[Any]]]:
        group, size = [self._waiting.popleft()], 0
        size = _size(group[0][0])
        while self._waiting and len(group) < GROUP_COUNT and size < GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += _size(group[-1][0])
        return group

    async def _send_group(self, group: list[tuple[Call, asyncio.Future[Any]]]) -> None:
        try:
            self._link.check_usable()
            answers = await self._link.run_all([call for call, _ in group])
        except Exception as error:  # noqa: BLE001 - also a bug goes to those who asked: nobody else could tell of it
            answers = [error] * len(group)
        except BaseException:
            for _, answer in group:
                answer.cancel()
            raise
        for (_, answer), given in zip(group, answers, strict=True):
            if answer.done():
                continue  # nobody waits any more
            if isinstance(given, StoreUnavailable):
                answer.set_exception(StoreUnavailable(str(given)))
            elif isinstance(given, Exception):
                answer.set_exception(given)
            else:
                answer.set_result(given)


def _encoded(call: Call) -> Call:
    """Write its texts as bytes: one that cannot be written must fail here, not those with which it would be sent."""
    arguments = [each.encode() if isinstance(each, str) else each for each in call.arguments]
    return replace(call, arguments=arguments)


def _size(call: Call) -> int:
    return sum(len(each) for each in call.arguments if isinstance(each, bytes))
