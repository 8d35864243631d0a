"""The running service: starts its parts in order, listens to signals, drains, and closes in the opposite order."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from router.errors import InUse, RouterError
from router.failures.deliveries import Deliveries
from router.fleet.fleet import Fleet
from router.fleet.together import Together
from router.log_pipe import LogPipe
from router.ports import Store, WallClock
from router.replay.replay import Replayer
from router.service_manager import ServiceManager
from router.supervisor import Supervisor, Work, carry_on
from router.telemetry import Log, Metrics

#: What writing down the last replays may take at the end.
SETTLE_S: Final = 5.0


class Server(Protocol):
    """Something that listens."""

    async def start(self) -> None:
        """Begin to listen. Raises ConfigError when it cannot."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EventsInfo:
    """Asynchronous events that wait for a function."""

    waiting: int
    #: How long the next one has been due, seconds; 0 = none is.
    overdue_s: float
    #: Why they wait.
    reason: str


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What asynchronous events came to, and a target is still to be told."""

    name: str
    waiting: int
    overdue_s: float
    #: Why it was not told; None = nothing is in the way.
    error: str | None


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """What a function's workers do now."""

    name: str
    handler: str
    workers: int
    #: Invocations that run, and that wait for a worker.
    busy: int
    waiting: int
    #: How it stands with forking them, and what stands against it; None = not asked for.
    snap_start: tuple[str, Sequence[str]] | None = None
    #: None = no asynchronous events wait for it.
    events: EventsInfo | None = None


@dataclass(frozen=True, slots=True)
class UnfitInfo:
    """A mapping of the API that is enabled and cannot be made to run."""

    name: str
    function: str
    source: str
    why: str


async def nothing_to_preview(_: Path) -> object:
    """There is no configuration behind the daemon."""
    return None


class Events(Protocol):
    """What runs asynchronous events."""

    def stop(self) -> None:
        """Start nothing new."""
        ...

    async def settle(self, within_s: float) -> None:
        """Wait until what runs has ended and is written, so long."""
        ...


@dataclass(slots=True)
class Daemon:
    """One daemon over one state directory."""

    version: str
    state_dir: Path
    listen: tuple[str, int]
    drain_s: float
    store: Store
    supervisor: Supervisor
    replayer: Replayer
    metrics: Metrics
    log: Log
    manager: ServiceManager
    wall: WallClock
    describe_functions: Callable[[], Sequence[FunctionInfo]]
    #: Waits until no worker of an earlier daemon is left; called before anything is invoked.
    await_predecessors: Work
    #: What is closed when nothing runs any more, and what is let go of then.
    closers: Sequence[Work] = ()
    releases: Sequence[Callable[[], None]] = ()
    #: Work that goes on beside the mappings until the end: rates.
    background: Sequence[Work] = ()
    servers: Sequence[Server] = ()
    #: All replicas of the fleet, as commands see them; None = we are alone.
    together: Together | None = None
    #: The replicas that share the store; None = nobody else has it.
    fleet: Fleet | None = None
    #: The deliveries of failed asynchronous events, by the mapping that stands for each function.
    event_deliveries: Callable[[], Mapping[str, Deliveries]] = dict
    #: Asynchronous events; None = none are taken in.
    events: Events | None = None
    describe_targets: Callable[[], Sequence[TargetInfo]] = tuple
    describe_unfit: Callable[[], Sequence[UnfitInfo]] = tuple
    #: What carries the log lines; None = they are written as they come.
    log_pipe: LogPipe | None = None
    #: Takes the configuration up anew.
    reload: Callable[[], None] = lambda: None
    #: Says what taking a file up would change. Raises ConfigError.
    preview: Callable[[Path], Awaitable[object]] = nothing_to_preview
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    #: Why it cannot go on.
    _broken: RouterError | None = None

    async def run(self) -> None:
        """Serve until asked to stop; then drain, and close everything.

        Raises:
            InUse: another process is this replica, so this one has stopped.
        """
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as closing:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal, number)
                closing.callback(loop.remove_signal_handler, number)
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            closing.callback(loop.remove_signal_handler, signal.SIGHUP)
            # Closed in the opposite order, each also when another fails to.
            closing.push_async_callback(self.store.close)
            for release in self.releases:
                closing.callback(release)
            for close in self.closers:
                closing.push_async_callback(close)
            for server in self.servers:
                closing.push_async_callback(server.close)
            await self.await_predecessors()
            _settle_collector()
            await self._serve()
        self.log.write("daemon.stopped")
        if self._broken:
            raise self._broken

    def functions(self) -> Sequence[FunctionInfo]:
        """Say what the functions' workers do now."""
        return self.describe_functions()

    def event_targets(self) -> Sequence[TargetInfo]:
        """Say which targets of asynchronous events are still to be told."""
        return self.describe_targets()

    def unfit(self) -> Sequence[UnfitInfo]:
        """Say which mappings of the API are enabled and cannot be made to run, and why."""
        return self.describe_unfit()

    def stop(self, *, comes_back: bool = False) -> None:
        """Ask for a drain; in-flight work ends within the drain bound. With `comes_back`, a restart is expected."""
        if not self._stop.is_set():
            self.log.write("daemon.draining", within_s=self.drain_s)
            self._stop.set()
            self.manager.stopping(self.drain_s)
            if self.fleet:
                self.fleet.leaving()
            if self.events:
                self.events.stop()
            self.supervisor.drain(self.drain_s, comes_back=comes_back)

    async def _serve(self) -> None:
        # Before the mappings: what cannot listen must not begin to work.
        for server in self.servers:
            await server.start()
        async with asyncio.TaskGroup() as tasks:
            works = [self.replayer.run, *self.background]
            if self.fleet:
                self.fleet.on_ousted.append(self._ousted)
                works.append(self.fleet.run)
            beside = [tasks.create_task(carry_on(work, self.log)) for work in works]
            mappings = tasks.create_task(self.supervisor.run())
            self.log.write("daemon.started", version=self.version, listen=f"{self.listen[0]}:{self.listen[1]}")
            await self._stop.wait()
            if self.events:
                await self.events.settle(self.drain_s)
            await mappings
            await self.replayer.settle(SETTLE_S)
            if self.fleet:
                await self.fleet.leave()
            for task in beside:
                task.cancel()

    def _ousted(self, why: str) -> None:
        self._broken = InUse(why)
        self.stop()

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            self.log.write("daemon.forced")
            if self.log_pipe:
                self.log_pipe.finish()
            # Workers die with us (parent-death signal); nothing that is not committed counts as done.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        # Service managers restart by SIGTERM; Ctrl-C is a person who goes.
        self.stop(comes_back=number == signal.SIGTERM)


def _settle_collector() -> None:
    """Let the garbage collector pass over what is loaded for good, and look at young objects less often.

    Records in the buffers are many and die without cycles: at the default thresholds looking for cycles among them took
    17 % of the daemon's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
