"""All functions of a daemon, each in as many versions as are in use: who invokes one by its name comes here.

A version gets workers when it is invoked first. It keeps them while a mapping uses its function, unless that has gone
on to another version; else until nobody has invoked it for a while. What has become another function, or is none any
more, takes nothing new, and its workers go when what they run has ended.

Reserved concurrency is one number for all versions of a function, so what exceeds it waits before the workers (`_Room`)
where a function may have several. Event source mappings wait for room as long as it takes; who invokes by the API is
told that there is none, or waits among a bounded number of others (AWS Lambda developer guide, "Concurrency").
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from router.catalogue.records import LATEST
from router.core.model import Cancelled, FunctionError, Outcome, Refused
from router.core.verdict import NO_FUNCTION
from router.ports import Invocation, Invoker, Told

#: Workers that nobody has had use for are kept so long where no mapping uses their function.
IDLE_S: Final = 600.0
#: Between two looks for those.
LOOK_EVERY_S: Final = 30.0
#: Invocations by the API at once, running or waiting: the usual quota of an account ("Lambda quotas").
ASKED_LIMIT: Final = 1000
#: Error types of an invocation of what is not there, and of one without room (`router.event_ports.Functions`).
NOT_FOUND: Final = NO_FUNCTION
THROTTLED: Final = "TooManyRequestsException"
RESERVED_EXCEEDED: Final = "ReservedFunctionConcurrentInvocationLimitExceeded"
LIMIT_EXCEEDED: Final = "ConcurrentInvocationLimitExceeded"


class Workers(Invoker, Protocol):
    """What runs one version."""

    def hurry(self) -> None:
        """Try at once again what could not be started or initialised: somebody waits for the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A version with workers, which need not have been started."""

    workers: Workers
    #: What they were made by.
    settings: Any
    #: Lets go of what they have beside themselves, once they are gone.
    release: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reserved:
    """The concurrency that a function has reserved."""

    #: Most invocations at once.
    most: int
    #: May it have several versions, for all of which that holds together?
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an invocation goes to."""

    function: str
    version: str = LATEST
    told: Told | None = None


#: Says what the next invocation goes to, or why it goes nowhere.
Choose: TypeAlias = Callable[[], Chosen | FunctionError]


def key_of(function: str, version: str) -> str:
    """Give the name of a version's settings: `orders`, or `orders:3`."""
    return function if version == LATEST else f"{function}:{version}"


@dataclass(slots=True, eq=False)
class _Version:
    """One version that has workers."""

    key: str
    opened: Opened
    #: Invocations that it has.
    running: int = 0
    #: Monotonic time at which it was invoked by name last; minus infinity = only mappings have.
    asked_s: float = float("-inf")
    #: The same at which the last invocation of it ended, whoever it was from.
    used_s: float = float("-inf")
    is_retired: bool = False


@dataclass(slots=True, eq=False)
class _Room:
    """All that runs of one function, and what waits because of its reserved concurrency, in the order it came."""

    reserved: Reserved | None
    running: int = 0
    waiting: deque[tuple[str, Invocation]] = field(default_factory=deque)

    @property
    def is_full(self) -> bool:
        """Must what comes now wait before the workers?"""
        return self.reserved is not None and self.reserved.is_shared and self.running >= self.reserved.most


class RunningFunctions:
    """Functions (router.event_ports), and the invokers of mappings."""

    def __init__(
        self,
        *,
        open_version: Callable[[str], Opened | None],
        reserved: Callable[[str], Reserved | None],
        count: Callable[[str, Outcome], None],
        mono: Callable[[], float],
    ) -> None:
        """Make it on the event loop's thread, without workers.

        Args:
            open_version: makes the workers of a version by its name (`key_of`); None = there is no such.
            reserved: gives the concurrency that a function has reserved; None = none.
            count: told how invocations by name have ended, and of which function.
            mono: a monotonic clock, seconds.
        """
        self._open_version = open_version
        self._reserved = reserved
        self._count = count
        self._mono = mono
        self._versions: dict[str, _Version] = {}
        #: Those that take nothing new, until they are closed.
        self._retired: set[_Version] = set()
        self._rooms: dict[str, _Room] = {}
        #: Mappings, by the function that they use.
        self._users: Counter[str] = Counter()
        #: Invocations by name that have not ended.
        self._asked = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    # --- what the port asks for

    def throttle(self, function: str, version: str) -> str | None:  # noqa: ARG002 - it holds for all versions
        room = self._rooms.get(function)
        reserved = room.reserved if room else self._reserved(function)
        running = room.running + len(room.waiting) if room else 0
        if reserved is not None and running >= reserved.most:
            return RESERVED_EXCEEDED
        return LIMIT_EXCEEDED if self._asked >= ASKED_LIMIT else None

    def invoke(self, function: str, version: str, invocation: Invocation) -> None:
        reason = self.throttle(function, version)
        if reason is not None:
            self._end(invocation, Refused(FunctionError(THROTTLED, reason)))
            return
        self._asked += 1
        key = key_of(function, version)
        invocation.done = partial(self._answered, key, invocation.done)
        self.run(function, version, invocation)
        asked = self._versions.get(key)
        if asked is not None:
            asked.asked_s = self._mono()
            asked.opened.workers.hurry()

    def _answered(self, key: str, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        self._asked -= 1
        self._count(key.partition(":")[0], outcome)
        version = self._versions.get(key)
        if version is not None:
            version.asked_s = self._mono()
            if isinstance(outcome, Refused) and version.running:  # of those that wait nobody wants to wait longer
                version.opened.workers.hurry()
        done(outcome)

    # --- what mappings ask for

    def hold(self, function: str) -> None:
        """Keep the workers of a function until it is let go of."""
        self._users[function] += 1
        if function not in self._versions:
            self._open(function)

    async def let_go(self, function: str) -> None:
        """End the workers of a function, if that was the last to use it and nobody else has invoked it lately."""
        self._users[function] -= 1
        if not self._users[function]:
            del self._users[function]
            await self.close_idle()

    def run(self, function: str, version: str, invocation: Invocation) -> None:
        """Run a function in one version as soon as there is room."""
        if self._is_closed:
            self._end(invocation, Cancelled())
            return
        room = self._rooms.get(function)
        if room is None:
            room = self._rooms[function] = _Room(self._reserved(function))
        if room.is_full:
            room.waiting.append((version, invocation))
        else:
            self._begin(room, key_of(function, version), invocation)

    def cancel(self, function: str, request_id: str, *, waiting_only: bool) -> None:
        """End an invocation, as Invoker says."""
        room = self._rooms.get(function)
        for waiting in room.waiting if room else ():
            if waiting[1].request_id == request_id:
                assert room is not None
                room.waiting.remove(waiting)
                self._end(waiting[1], Cancelled())
                return
        for version in self._all_of(function):
            version.opened.workers.cancel(request_id, waiting_only=waiting_only)

    # --- running

    def _begin(self, room: _Room, key: str, invocation: Invocation) -> None:
        version = self._versions.get(key) or self._open(key)
        if version is None:
            self._end(invocation, Refused(FunctionError(NOT_FOUND, f"there is no function {key}")))
            return
        room.running += 1
        version.running += 1
        invocation.done = partial(self._ended, room, version, invocation.done)
        version.opened.workers.invoke(invocation)

    def _open(self, key: str) -> _Version | None:
        opened = self._open_version(key)
        if opened is None:
            return None
        version = self._versions[key] = _Version(key, opened)
        return version

    def _ended(self, room: _Room, version: _Version, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        room.running -= 1
        version.running -= 1
        version.used_s = self._mono()
        if room.waiting:
            self._let_in(version.key.partition(":")[0], room)
        if version.is_retired and not version.running:
            self._close_soon(version)
        done(outcome)

    def _let_in(self, function: str, room: _Room) -> None:
        while room.waiting and not room.is_full:
            version, invocation = room.waiting.popleft()
            self._begin(room, key_of(function, version), invocation)

    def _end(self, invocation: Invocation, outcome: Outcome) -> None:
        """End an invocation that was not begun, not from inside the call that brought it."""
        self._loop.call_soon(invocation.done, outcome)

    # --- changes

    @property
    def opened(self) -> dict[str, Opened]:
        """Give what has workers and takes invocations, by the names of the settings."""
        return {key: version.opened for key, version in self._versions.items()}

    def exchange(self, key: str, opened: Opened) -> None:
        """Note by which settings a version's workers go on."""
        self._versions[key].opened = opened

    def retire(self, key: str) -> None:
        """Give nothing to a version's workers any more; they go when they have nothing to do."""
        version = self._versions.pop(key)
        version.is_retired = True
        self._retired.add(version)
        if not version.running:
            self._close_soon(version)

    def look_at_reserved(self) -> None:
        """Go by the concurrency that functions have reserved now."""
        for function, room in list(self._rooms.items()):
            room.reserved = self._reserved(function)
            self._let_in(function, room)
            if not room.running and not room.waiting:
                del self._rooms[function]

    # --- the end of workers

    async def run_idle(self) -> None:
        """Close what nobody has use for, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.close_idle()

    async def close_idle(self) -> None:
        """End the workers that nobody uses: of functions without mappings, and of versions that these have left."""
        now_s = self._mono()
        idle = [each for each in self._versions.values() if not each.running and self._is_idle(each, now_s)]
        for version in idle:
            del self._versions[version.key]
        await self._close_all(idle)

    def _is_idle(self, version: _Version, now_s: float) -> bool:
        function = version.key.partition(":")[0]
        if not self._users[function]:
            return now_s - version.asked_s >= IDLE_S
        # A version of which an alias has moved on would keep its workers for ever.
        return version.key != function and now_s - version.used_s >= IDLE_S and self._is_left_behind(version, function)

    def _is_left_behind(self, version: _Version, function: str) -> bool:
        published = (each for key, each in self._versions.items() if key.startswith(f"{function}:"))
        return any(each.running or each.used_s > version.used_s for each in published)

    async def close(self) -> None:
        """End all workers; what waits or runs ends as Cancelled. May come twice."""
        self._is_closed = True
        for room in self._rooms.values():
            while room.waiting:
                self._end(room.waiting.popleft()[1], Cancelled())
        versions = [*self._versions.values(), *self._retired]
        self._versions.clear()
        self._retired.clear()
        await self._close_all(versions)
        while self._closing:
            await asyncio.wait(self._closing)

    def _close_soon(self, version: _Version) -> None:
        if version in self._retired:
            self._retired.discard(version)
            task = self._loop.create_task(self._close(version))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close_all(self, versions: list[_Version]) -> None:
        await asyncio.gather(*(self._close(version) for version in versions))

    async def _close(self, version: _Version) -> None:
        try:
            await version.opened.workers.close()
        finally:
            await version.opened.release()

    def _all_of(self, function: str) -> Iterator[_Version]:
        for version in (*self._versions.values(), *self._retired):
            if version.key.partition(":")[0] == function:
                yield version


class NamedFunction:
    """The Invoker of a mapping: asks at each invocation what its function is by then."""

    def __init__(self, functions: RunningFunctions, function: str, choose: Choose) -> None:
        """Make it; holds nothing yet.

        Args:
            functions: runs it.
            function: its name, without version or alias.
            choose: what the next invocation goes to; always of this function.
        """
        self._functions = functions
        self._function = function
        self._choose = choose
        self._loop = asyncio.get_running_loop()

    def invoke(self, invocation: Invocation) -> None:
        chosen = self._choose()
        if isinstance(chosen, FunctionError):
            self._loop.call_soon(invocation.done, Refused(chosen))
            return
        if chosen.told is not None:
            invocation.told = chosen.told
        self._functions.run(chosen.function, chosen.version, invocation)

    def cancel(self, request_id: str, *, waiting_only: bool) -> None:
        self._functions.cancel(self._function, request_id, waiting_only=waiting_only)

    async def close(self) -> None:
        """Nothing is its own."""
