"""A configuration becomes a daemon: what runs its mappings and functions, one piece for each."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from config.diff import Diff, diff, running
from config.settings import AnyFunction, Configuration, FunctionSettings, MappingSettings
from config.watching import Seen, look
from connectors.store.sqlite import SqliteStore
from handlers.logs import RotatingFile, log_file
from handlers.pool import Pool
from handlers.predecessors import WorkerLock
from handlers.remote import Remote
from router.assembly import (
    Shared,
    describe_function,
    make_invoker,
    make_pages,
    make_record_objects,
    make_record_queue,
    make_retention,
    make_spec,
    make_unit,
    open_queue,
    stream_names,
)
from router.board import Board
from router.control import Control
from router.daemon import Daemon, FunctionInfo
from router.errors import ConfigError
from router.log_lines import set_level
from router.ports import QueueSource, Store
from router.record_replay import RecordReplays
from router.reload import Adopted, Reloader, gently
from router.replay import Replayer
from router.service_manager import ServiceManager
from router.supervisor import Supervisor, Unit, Work
from router.telemetry import Log, Metrics
from router.upkeep import keep_small
from router.web import Web


async def build(
    configuration: Configuration, log: Log, *, file: Path, seen: Seen, read: Callable[[Path, Seen], Configuration]
) -> Daemon:
    """Make a daemon over its state directory, which is locked until the daemon ends.

    Args:
        configuration: what it runs.
        log: takes all that it says.
        file: where the configuration is, as messages are to name it.
        seen: the files that the configuration was made of, as they were.
        read: reads a file, and notes all that it is made of.

    Raises:
        StoreUnavailable: the state directory cannot be used; the message says what to do.
    """
    store = await SqliteStore.open(configuration.state_dir, power_safe=configuration.power_safe)
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

    async def adopt(changed: Configuration, by_hand: bool) -> Adopted:  # noqa: FBT001 - as the reloader calls it
        adopted = await service.adopt(changed, by_hand=by_hand)
        daemon.drain_s = changed.drain_timeout_s
        return adopted

    async def preview(other: Path) -> Diff:
        with gently():
            return service.changes(await asyncio.to_thread(read, other, {}))

    reloader = Reloader(
        configuration.path,
        seen,
        read=partial(read, file),
        look=look,
        adopt=adopt,
        log=log,
        metrics=metrics,
        wall=time.time,
    )
    board = Board(daemon, reloader.status)
    daemon.reload, daemon.preview = reloader.ask, preview
    daemon.background = [board.run, partial(keep_small, store, log), partial(daemon.manager.run, board), reloader.run]
    daemon.servers = [Web(daemon, board), Control(daemon, board)]
    return daemon


@dataclass(slots=True, eq=False)
class _Function:
    """One function as it is served."""

    settings: AnyFunction
    invoker: Pool | Remote
    sink: RotatingFile
    #: Mappings that use it.
    users: int = 0

    async def close(self) -> None:
        await self.invoker.close()
        self.sink.close()


class Service:
    """What runs by a configuration, and can go on by another."""

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
        self.replayer.records = RecordReplays(
            store,
            log,
            self.replayer,
            streams=lambda: stream_names(self._configuration),
            make_pages=lambda mapping: make_pages(self._configuration, mapping),
            make_queue=lambda queue, mapping: make_record_queue(self._configuration, queue, mapping),
            make_objects=lambda place, mapping: make_record_objects(self._configuration, place, mapping),
            wall=time.time,
        )
        self._shared = Shared(store, self.replayer, metrics, log)
        self._log = log
        for settings in configuration.mappings:
            self.supervisor.want(self._unit(settings, configuration))

    def functions(self) -> Sequence[FunctionInfo]:
        """Say what the functions' workers do now."""
        return [_info(each) for each in self._functions.values()]

    def changes(self, wanted: Configuration) -> Diff:
        """Say what would be changed."""
        return diff(self._configuration, wanted)

    async def adopt(self, wanted: Configuration, *, by_hand: bool) -> Adopted:
        """Change what runs to what is wanted; what did not change goes on untouched.

        Nothing is waited for: what ends does so within its own bounds, and what follows it begins then. With `by_hand`
        functions whose code has changed have new workers too.

        Raises:
            ConfigError: it is too late.
        """
        if self.supervisor.is_draining:
            raise ConfigError("the daemon is stopping: what the file says now holds from its next start on")
        changes = self.changes(wanted)
        self._configuration = running(self._configuration, wanted)
        renewed = self._renew_functions(changes)
        self._change_mappings(changes)
        if "failures" in changes.taken_on:
            self.supervisor.retain(make_retention(wanted))
        if "log_level" in changes.taken_on:
            set_level(self._log, wanted.log_level)
        if by_hand:
            renewed += await self._renew_code(renewed)
        counts: Counter[str] = Counter(each.action for each in changes.mappings)
        return Adopted(counts, renewed, changes.taken_on, changes.need_restart)

    async def close(self) -> None:
        """End all workers."""
        for function in self._functions.values():
            await function.close()

    # --- functions

    def _renew_functions(self, changes: Diff) -> list[str]:
        renewed = []
        for change in changes.functions:
            if change.action in ("start", "replace"):  # those that still use a former one keep it until they have left
                self._functions.pop(change.name, None)
            elif change.action == "renew":
                function, settings = self._functions[change.name], self._configuration.functions[change.name]
                assert isinstance(settings, FunctionSettings), "others are replaced"
                assert isinstance(function.invoker, Pool)
                function.settings = settings
                function.invoker.renew(make_spec(self._configuration, settings))
                self._log.write("function.changed", function=change.name, keys=change.keys)
                renewed.append(change.name)
        return renewed

    async def _renew_code(self, renewed: Sequence[str]) -> list[str]:
        """Give new workers to the other functions whose code is not what their workers were started with."""
        changed = []
        for name, function in list(self._functions.items()):
            pool = function.invoker
            if name not in renewed and isinstance(pool, Pool) and await pool.renew_if_changed():
                self._log.write("function.changed", function=name, keys=("what is in `code`",))
                changed.append(name)
        return changed

    def _function(self, name: str, configuration: Configuration) -> _Function:
        if name not in self._functions:
            sink = RotatingFile(log_file(configuration.state_dir, name))
            invoker = make_invoker(configuration, name, self._lock, sink, note=self._shared.log.write)
            self._functions[name] = _Function(configuration.functions[name], invoker, sink)
        return self._functions[name]

    async def _leave(self, close: Work, function: _Function) -> None:
        """Close what one mapping had, and the function if it was the last to use it."""
        try:
            await close()
        finally:
            function.users -= 1
            if not function.users:
                name = function.settings.name
                if self._functions.get(name) is function:
                    del self._functions[name]
                    self._shared.metrics.forget_function(name)
                await function.close()

    # --- mappings

    def _change_mappings(self, changes: Diff) -> None:
        settings = {each.mapping.name: each for each in self._configuration.mappings}
        begin = [each for each in changes.mappings if each.action in ("start", "replace")]
        units = {each.name: self._unit(settings[each.name], self._configuration) for each in begin}
        for change in changes.mappings:
            if change.action == "unchanged":
                continue
            self._log.write("mapping.changed", mapping=change.name, action=change.action, keys=change.keys or None)
            if change.action == "stop":
                self.supervisor.unwant(change.name)
        for unit in units.values():
            self.supervisor.want(unit)

    def _unit(self, settings: MappingSettings, configuration: Configuration) -> Unit:
        function = self._function(settings.mapping.function, configuration)
        unit = make_unit(settings, configuration, function.invoker, self._shared)
        function.users += 1
        return replace(unit, close=partial(self._leave, unit.close, function))

    def _open_queue(self, mapping: str, queue: str) -> QueueSource:
        return open_queue(self._configuration, mapping, queue)


def _info(function: _Function) -> FunctionInfo:
    settings, status = function.settings, function.invoker.status
    snap_start = None if status.snap_start is None else (status.snap_start.state, status.snap_start.found)
    handler = describe_function(settings)
    return FunctionInfo(settings.name, handler, status.workers, status.busy, status.waiting, snap_start)
