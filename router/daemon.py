"""The running service: starts its parts in order, listens to signals, drains, and closes in the opposite order."""

from __future__ import annotations

import asyncio
import gc
import signal
import traceback
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from router.ports import Invoker, Store, WallClock
from router.replay import Replayer
from router.service_manager import ServiceManager
from router.supervisor import Supervisor
from router.telemetry import Log, Metrics

#: Wait before background work that broke begins anew.
CRASH_PAUSE_S = 10.0


class Server(Protocol):
    """Something that listens."""

    async def start(self) -> None:
        """Begin to listen. Raises ConfigError when it cannot."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """What a function's workers do now."""

    name: str
    handler: str
    workers: int
    #: Invocations that run, and that wait for a worker.
    busy: int
    waiting: int


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
    invokers: Sequence[Invoker]
    describe_functions: Callable[[], Sequence[FunctionInfo]]
    #: Waits until no worker of an earlier daemon is left; called before anything is invoked.
    await_predecessors: Callable[[], Coroutine[Any, Any, None]]
    #: What is closed when nothing runs any more, and what is let go of then.
    closers: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    releases: Sequence[Callable[[], None]] = ()
    #: Work that goes on beside the mappings until the end: deliveries, retention, rates.
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    servers: Sequence[Server] = ()
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Serve until asked to stop; then drain, and close everything."""
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as closing:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal, number)
                closing.callback(loop.remove_signal_handler, number)
            # Closed in the opposite order, each also when another fails to.
            closing.push_async_callback(self.store.close)
            for release in self.releases:
                closing.callback(release)
            for close in self.closers:
                closing.push_async_callback(close)
            for invoker in self.invokers:
                closing.push_async_callback(invoker.close)
            for server in self.servers:
                closing.push_async_callback(server.close)
            await self.await_predecessors()
            _settle_collector()
            await self._serve()
        self.log.write("daemon.stopped")

    def functions(self) -> Sequence[FunctionInfo]:
        """Say what the functions' workers do now."""
        return self.describe_functions()

    def stop(self) -> None:
        """Ask for a drain; in-flight work ends within the drain bound."""
        if not self._stop.is_set():
            self.log.write("daemon.draining", within_s=self.drain_s)
            self._stop.set()
            self.manager.stopping(self.drain_s)
            self.supervisor.drain(self.drain_s)

    async def _serve(self) -> None:
        # Before the mappings: what cannot listen must not begin to work.
        for server in self.servers:
            await server.start()
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._beside(work)) for work in (self.replayer.run, *self.background)]
            mappings = tasks.create_task(self.supervisor.run())
            self.log.write("daemon.started", version=self.version, listen=f"{self.listen[0]}:{self.listen[1]}")
            await self._stop.wait()
            await mappings
            for task in beside:
                task.cancel()

    async def _beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin work anew whenever a bug ends it: the deliveries of one mapping must not take the others down."""
        while True:
            try:
                return await work()
            except Exception as bug:  # noqa: BLE001 - it is logged with its trace, and the daemon goes on
                self.log.write("background.crashed", error=str(bug), trace="".join(traceback.format_exception(bug)))
            await asyncio.sleep(CRASH_PAUSE_S)

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            self.log.write("daemon.forced")
            # Workers die with us (parent-death signal); nothing that is not committed counts as done.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.stop()


def _settle_collector() -> None:
    """Let the garbage collector pass over what is loaded for good, and look at young objects less often.

    Records in the buffers are many and die without cycles: at the default thresholds looking for cycles among them took
    17 % of the daemon's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
