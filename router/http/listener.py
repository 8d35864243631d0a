"""Listens on an address, and keeps what all clients together may have of us within bounds.

A thousand clients that send or read slowly, or nothing at all, must neither keep others out nor fill the memory. So who
has not done its part by its deadline is cut off; and where there are too many connections, or too much is held for
them, those go that we have waited for longest. Who waits for us is never cut off, nor who is the only one to hold much;
where those hold it all whose requests are being answered, further large bodies are refused before they have come.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Coroutine
from email.utils import formatdate
from functools import partial
from typing import Any, Final

from router.http.connection import TIMES, Connection, Times
from router.http.messages import Plan, Request, Response, Site
from router.ports import WallClock

#: Connections at once, where the limit of open files is large.
CONNECTIONS: Final = 4096
#: Bodies and answers that are held for clients together, bytes: two of the largest bodies and some.
HELD_BYTES: Final = 192 * 1024 * 1024
#: Between two looks at who is late, seconds.
LOOK_S: Final = 1.0
#: Clients that may wait to be taken on.
_BACKLOG: Final = 1024


class Listener:
    """The server of a site."""

    def __init__(
        self,
        site: Site,
        wall: WallClock,
        *,
        times: Times = TIMES,
        look_s: float = LOOK_S,
        connections: int | None = None,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.site = site
        self.times = times
        self._wall = wall
        self._look_s = look_s
        self._most = connections or _most_connections()
        self._most_held_bytes = held_bytes
        #: In the order in which they came.
        self._connections: dict[Connection, None] = {}
        self._held_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        #: Those that are answered without a task, and set once there is none of them, while we close.
        self._begun: set[Connection] = set()
        self._all_answered: asyncio.Event | None = None
        self._looking: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._date = (-1, "")

    async def start(self, host: str, port: int) -> int:
        """Begin to listen; gives the port. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self.now_s = self._loop.time
        self._server = await self._loop.create_server(partial(Connection, self), host, port, backlog=_BACKLOG)
        self._looking = self._loop.create_task(self._look())
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, within_s: float) -> None:
        """Listen no more; what is being answered has so long for it. May come twice."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.finish()
        await asyncio.wait([*self._tasks, self._loop.create_task(self._end_begun())], timeout=within_s)
        if self._looking:
            self._looking.cancel()
        if self._all_answered:
            self._all_answered.set()
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._connections):
            connection.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def held_bytes(self) -> int:
        """What is held for clients now."""
        return self._held_bytes

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    # --- for connections

    def date(self) -> str:
        second = int(self._wall())
        if self._date[0] != second:
            self._date = second, formatdate(second, usegmt=True)
        return self._date[1]

    def joined(self, connection: Connection) -> None:
        self._connections[connection] = None
        if len(self._connections) > self._most:
            self._cut_slowest([each for each in self._connections if each is not connection] or [connection])

    def left(self, connection: Connection) -> None:
        self.release(connection)
        self._connections.pop(connection, None)

    def hold(self, connection: Connection, count: int) -> None:
        connection.held_bytes += count
        self._held_bytes += count
        while self._held_bytes > self._most_held_bytes:
            awaited = [each for each in self._connections if each.held_bytes and each.is_awaited]
            if len(awaited) < 2:  # who is the only one, such as to fetch much code, takes nobody's place
                break
            self._cut_slowest(awaited)

    def has_room(self, connection: Connection, count: int) -> bool:
        if self._held_bytes + count <= self._most_held_bytes:
            return True
        others = sum(each.held_bytes for each in self._connections if each is not connection and not each.is_awaited)
        return not others or others + count <= self._most_held_bytes

    def release(self, connection: Connection) -> None:
        self._held_bytes -= connection.held_bytes
        connection.held_bytes = 0

    def carry_out(self, connection: Connection, plan: Plan, request: Request) -> None:
        answer = plan.begin(request, partial(self._answered, connection))
        if answer is None:
            self._begun.add(connection)
        else:
            self._tasks.add(self._loop.create_task(self._answer(connection, answer)))

    def _answered(self, connection: Connection, response: Response) -> None:
        self._begun.discard(connection)
        connection.answered(response)
        if self._all_answered and not self._begun:
            self._all_answered.set()

    async def _end_begun(self) -> None:
        if self._begun:
            self._all_answered = asyncio.Event()
            await self._all_answered.wait()

    async def _answer(self, connection: Connection, answer: Coroutine[Any, Any, Response]) -> None:
        try:
            connection.answered(await answer)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)

    # --- bounds

    def _cut_slowest(self, those: list[Connection]) -> bool:
        """Cut the one off that we have waited for longest."""
        slowest = min((each for each in those if each.is_awaited), key=lambda each: each.since_s, default=None)
        if slowest is None:
            return False
        slowest.cut()
        self.left(slowest)
        return True

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            now_s = self.now_s()
            for connection in [each for each in self._connections if each.deadline_s < now_s]:
                connection.expire()


def _most_connections() -> int:
    """Leave half of the files that we may open to sources, stores and workers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        if soft != resource.RLIM_INFINITY:
            return max(16, min(CONNECTIONS, soft // 2))
    return CONNECTIONS
