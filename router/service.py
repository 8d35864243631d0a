"""A configuration becomes a daemon: what runs its mappings and functions, one piece for each."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from config.settings import AnyFunction, Configuration, MappingSettings
from connectors.store.sqlite import SqliteStore
from handlers.logs import RotatingFile, log_file
from handlers.pool import Pool
from handlers.predecessors import WorkerLock
from handlers.remote import Remote
from router.assembly import Shared, describe_function, make_invoker, make_unit, open_queue
from router.board import Board
from router.control import Control
from router.daemon import Daemon, FunctionInfo
from router.ports import QueueSource, Store
from router.replay import Replayer
from router.service_manager import ServiceManager
from router.supervisor import Supervisor, Unit
from router.telemetry import Log, Metrics
from router.web import Web


async def build(configuration: Configuration, log: Log) -> Daemon:
    """Make a daemon over its state directory, which is locked until the daemon ends.

    Raises:
        StoreUnavailable: the state directory cannot be used; the message says what to do.
    """
    store = await SqliteStore.open(configuration.state_dir)
    if store.upgraded:
        log.write("store.upgraded", before=store.upgraded.before, after=store.upgraded.after, copy=store.upgraded.aside)
    lock = WorkerLock(configuration.state_dir)
    metrics = Metrics()
    service = Service(configuration, store, lock, metrics, log)
    daemon = Daemon(
        version=version("headrace"),
        state_dir=configuration.state_dir,
        listen=(configuration.listen_host, configuration.listen_port),
        drain_s=configuration.drain_timeout_s,
        store=store,
        supervisor=service.supervisor,
        replayer=service.replayer,
        metrics=metrics,
        log=log,
        manager=ServiceManager(os.environ, log),
        wall=time.time,
        describe_functions=service.functions,
        await_predecessors=lock.await_predecessors,
        closers=[service.close],
        releases=[lock.close],
    )
    board = Board(daemon)
    daemon.background = [board.run, partial(daemon.manager.run, board)]
    daemon.servers = [Web(daemon, board), Control(daemon, board)]
    return daemon


@dataclass(slots=True)
class _Function:
    """One function as it is served."""

    settings: AnyFunction
    invoker: Pool | Remote
    sink: RotatingFile


class Service:
    """What runs by a configuration."""

    def __init__(
        self, configuration: Configuration, store: Store, lock: WorkerLock, metrics: Metrics, log: Log
    ) -> None:
        self._configuration = configuration
        self._lock = lock
        self._functions: dict[str, _Function] = {}
        self.supervisor = Supervisor(log, metrics.forget)
        self.replayer = Replayer(store, log)
        self.replayer.lives = self.supervisor.lives
        self.replayer.make_queue = self._open_queue
        self._shared = Shared(store, self.replayer, metrics, log)
        for settings in configuration.mappings:
            self.supervisor.want(self._unit(settings))

    def functions(self) -> Sequence[FunctionInfo]:
        """Say what the functions' workers do now."""
        return [_info(each) for each in self._functions.values()]

    async def close(self) -> None:
        """End all workers."""
        for function in self._functions.values():
            await function.invoker.close()
            function.sink.close()

    def _unit(self, settings: MappingSettings) -> Unit:
        function = self._function(settings.mapping.function)
        return make_unit(settings, self._configuration, function.invoker, self._shared)

    def _function(self, name: str) -> _Function:
        if name not in self._functions:
            configuration = self._configuration
            sink = RotatingFile(log_file(configuration.state_dir, name))
            invoker = make_invoker(configuration, name, self._lock, sink, note=self._shared.log.write)
            self._functions[name] = _Function(configuration.functions[name], invoker, sink)
        return self._functions[name]

    def _open_queue(self, mapping: str, queue: str) -> QueueSource:
        return open_queue(self._configuration, mapping, queue)


def _info(function: _Function) -> FunctionInfo:
    settings, status = function.settings, function.invoker.status
    snap_start = None if status.snap_start is None else (status.snap_start.state, status.snap_start.found)
    handler = describe_function(settings)
    return FunctionInfo(settings.name, handler, status.workers, status.busy, status.waiting, snap_start)
