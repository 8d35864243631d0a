"""A configuration becomes a daemon: what runs its mappings and functions, one piece for each."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

from config.diff import Diff, diff, function_change, running
from config.digest import digests
from config.settings import Configuration, FunctionSettings, MappingSettings
from config.watching import Seen, look
from connectors import load
from connectors.settings import KafkaSettings
from connectors.store.archives import ARCHIVES, CodeFolder
from connectors.store.inbox import SqliteInbox
from connectors.store.sqlite import SqliteStore
from handlers.pool import Pool
from handlers.predecessors import WorkerLock
from handlers.remote import Remote
from handlers.scratch import home, sweep
from router.api.carried import carried
from router.api.names import Here, Reference
from router.api_assembly import file_mappings, forget_unpacked, load_catalogue, make_made_mapping, make_parts
from router.assembly import (
    Shared,
    describe_function,
    home_region,
    make_credentials,
    make_invoker,
    make_pages,
    make_record_objects,
    make_record_queue,
    make_retention,
    make_sink,
    make_spec,
    make_unit,
    open_queue,
    stream_names,
)
from router.board import Board
from router.catalogue import records
from router.catalogue.catalogue import Catalogue
from router.catalogue.fleet import CatalogueSharing
from router.choosing import choose
from router.control import Control
from router.core.fleet import LeaseKey
from router.core.model import Outcome
from router.daemon import Daemon, FunctionInfo, UnfitInfo
from router.effective import Effective, reference_of, shown_functions
from router.errors import ConfigError
from router.event_assembly import make_asynchronous
from router.event_ports import CodeStore, Inbox
from router.failures.calls import share_failures
from router.fleet.fleet import Fleet
from router.fleet.owners import FleetOwners
from router.fleet.store_watch import StoreWatch
from router.fleet.together import Together
from router.fleet.view import FleetView
from router.function_logs import ShippingNews
from router.functions import Choose, Chosen, NamedFunction, Opened, Reserved, RunningFunctions
from router.http.web import Web
from router.log_lines import set_level
from router.ports import QueueSource, Store
from router.reload import Adopted, Reloader, gently
from router.replay.record_job import RecordReplays
from router.replay.replay import Replayer
from router.service_manager import ServiceManager
from router.supervisor import Supervisor, Unit, Work
from router.telemetry import FunctionMetrics, Log, Metrics
from router.upkeep import keep_small

if TYPE_CHECKING:
    from router.replica import Replica

#: Makes a replica; loaded where there are some, for its client takes memory that a daemon alone has no use for.
REPLICA: Final = "router.replica:open_replica"


async def build(
    configuration: Configuration, log: Log, *, file: Path, seen: Seen, read: Callable[[Path, Seen], Configuration]
) -> Daemon:
    """Make a daemon over its state directory, which is locked until the daemon ends; in a fleet, a replica of it.

    Args:
        configuration: what it runs.
        log: takes all that it says.
        file: where the configuration is, as messages are to name it.
        seen: the files that the configuration was made of, as they were.
        read: reads a file, and notes all that it is made of.

    Raises:
        StoreUnavailable: the state directory cannot be used; the message says what to do.
    """

    def current() -> Configuration:
        return service.configuration

    store: Store
    inbox: Inbox
    replica: Replica | None = None
    if configuration.fleet:
        replica = await load(REPLICA)(configuration, log, current)
    store, inbox = (replica.store, replica.inbox) if replica else await _open_store(configuration, log)
    fleet = replica.fleet if replica else None
    lock = WorkerLock(configuration.state_dir)
    metrics = Metrics()
    catalogue = Catalogue(store, is_shared=replica is not None)
    code: CodeStore = replica.code if replica else CodeFolder(configuration.state_dir / ARCHIVES)
    effective = Effective(catalogue, code, make_made_mapping, log)
    service = Service(configuration, store, catalogue, effective, lock, metrics, log, fleet)
    if replica is None:
        await load_catalogue(catalogue, code, log)
    await asyncio.to_thread(forget_unpacked, configuration)
    if replica is None:
        await service.follow()
    asynchronous = make_asynchronous(service, inbox, store, metrics, log, fleet)
    parts, departures = make_parts(service, code, store, asynchronous.events, file, log)
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
        describe_functions=lambda: asynchronous.described(service.functions()),
        await_predecessors=lock.await_predecessors,
        # In the opposite order.
        closers=[
            *([replica.peers.close] if replica else ()),
            inbox.close,
            asynchronous.delivery.close,
            service.close,
        ],
        releases=[*([replica.lock.close] if replica else ()), lock.close],
        fleet=fleet,
        together=service.together,
        events=asynchronous.events,
        event_deliveries=asynchronous.failures.deliveries,
        describe_targets=asynchronous.targets,
        describe_unfit=service.unfit,
    )

    async def adopt(changed: Configuration, by_hand: bool) -> Adopted:  # noqa: FBT001 - as the reloader calls it
        aws = service.file.aws
        adopted = await service.adopt(changed, by_hand=by_hand)
        if service.file.aws != aws:
            asynchronous.delivery.renew()
        daemon.drain_s = changed.drain_timeout_s
        web.access.credentials = make_credentials(changed.api)
        return adopted

    async def preview(other: Path) -> Diff:
        with gently():
            return await service.changes(await asyncio.to_thread(read, other, {}))

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
    daemon.background = [
        board.run,
        partial(keep_small, store, log),
        partial(daemon.manager.run, board),
        reloader.run,
        service.running.run_idle,
        departures.run,
        asynchronous.events.run,
        asynchronous.failures.run,
    ]
    daemon.background.append(partial(asyncio.to_thread, sweep, home(configuration.state_dir)))
    watch = None
    if replica:
        watch = StoreWatch(replica.store, lambda: service.supervisor.lives, metrics.store_findings, log)
        daemon.background += [replica.leash.run, watch.run]
    view = None
    if configuration.fleet and fleet and service.together and watch:
        fleet.metrics = metrics.of_fleet()
        view = FleetView(
            configuration.fleet.name,
            fleet,
            service.together,
            board,
            version=daemon.version,
            state_dir=str(configuration.state_dir),
            digests=service.digests,
            assigned=service.assigned,
            findings=watch.findings,
            metrics=fleet.metrics,
            log=log,
        )
        sharing = CatalogueSharing(catalogue, service.together, code, log)
        daemon.background += [service.together.run, view.run, sharing.run]
    web = Web(daemon, board, carried(parts), make_credentials(configuration.api))
    daemon.servers = [web, Control(daemon, board, view)]
    return daemon


async def _open_store(configuration: Configuration, log: Log) -> tuple[SqliteStore, SqliteInbox]:
    store = await SqliteStore.open(configuration.state_dir, power_safe=configuration.power_safe)
    if store.upgraded:
        log.write("store.upgraded", before=store.upgraded.before, after=store.upgraded.after, copy=store.upgraded.aside)
    return store, await store.open_inbox()


class Service:
    """What runs by a configuration, and can go on by another."""

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        catalogue: Catalogue,
        effective: Effective,
        lock: WorkerLock,
        metrics: Metrics,
        log: Log,
        fleet: Fleet | None = None,
    ) -> None:
        """Make it; it begins with the file, and goes on with what the catalogue has once it is asked to `follow`."""
        self._file = configuration
        self._effective = effective
        #: The file, and what was made through the API.
        self._configuration = configuration
        self._adopting = asyncio.Lock()
        #: Of what the file says: as it was asked for last, and of which file.
        self._digests: tuple[Configuration, tuple[str, Mapping[str, str]]] | None = None
        self._lock = lock
        self._metrics = metrics
        self.catalogue = catalogue
        catalogue.follow = self.follow
        self._show_file()
        self._rng = SystemRandom()
        #: Mappings, by the function as they name it.
        self._references: Counter[str] = Counter()
        self._counts: dict[str, FunctionMetrics] = {}
        self.running = RunningFunctions(
            open_version=self._open_version, reserved=self._reserved, count=self._count, mono=time.monotonic
        )
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
        owners = FleetOwners(fleet) if fleet else None
        self.together = Together(fleet, store, self.supervisor.lives) if fleet else None
        self._shared = Shared(store, self.replayer, metrics, log, fleet, owners, self.together)
        if fleet and owners:
            fleet.spent = self._spent
            share_failures(fleet, owners, self.replayer, store)
        self._log = log
        for settings in configuration.mappings:
            self.supervisor.want(self._unit(settings, configuration))

    @property
    def configuration(self) -> Configuration:
        """What runs."""
        return self._configuration

    def functions(self) -> Sequence[FunctionInfo]:
        """Say what the functions' workers do now."""
        return [_info(key, opened) for key, opened in self.running.opened.items()]

    def _spent(self) -> Mapping[LeaseKey, float]:
        """Give how long what runs now has been with the functions, seconds, by what is leased."""
        return {
            LeaseKey(life.name, shard): spent_s
            for life in self.supervisor.lives.values()
            if life.runner
            for shard, spent_s in life.runner.spent_s().items()
        }

    def digests(self) -> tuple[str, Mapping[str, str]]:
        """Give what the file is, and each of its mappings with its function, to be compared with those of others.

        What was made through the API is the same for all, a moment later.
        """
        if self._digests is None or self._digests[0] is not self._file:
            self._digests = self._file, digests(self._file)
        return self._digests[1]

    def assigned(self) -> Mapping[str, Sequence[str]]:
        """Name the partitions that groups have given us, by mapping."""
        lives = self.supervisor.lives
        return {
            each.mapping.name: [shard.shard for shard in lives[each.mapping.name].shards()]
            for each in self._configuration.mappings
            if isinstance(each.source, KafkaSettings) and each.mapping.name in lives
        }

    @property
    def here(self) -> Here:
        """What the ARNs of our functions are made of."""
        return Here(home_region(self._file.aws), self._file.aws.account_id)

    @property
    def file(self) -> Configuration:
        """What the file says, as far as it is taken on."""
        return self._file

    def try_out(self, mapping: records.Mapping) -> None:
        """Make sure that a mapping of the API can be run. Raises ConfigError."""
        self._effective.try_out(mapping, self._configuration, self._file)

    def why_unfit(self, uuid: str) -> str | None:
        """Say why a mapping of the API that is enabled does not run; None = it does."""
        return self._effective.why_unfit(uuid)

    def unfit(self) -> list[UnfitInfo]:
        """Say which mappings of the API are enabled and do not run."""
        return [
            UnfitInfo(each.name, reference_of(each), _source_of(each.properties), why)
            for each, why in self._effective.unfit()
        ]

    async def changes(self, file: Configuration) -> Diff:
        """Say what another file would change."""
        return diff(self._configuration, await self._effective.over(file))

    async def adopt(self, file: Configuration, *, by_hand: bool) -> Adopted:
        """Change what runs to what the file says now; what did not change goes on untouched.

        Nothing is waited for: what ends does so within its own bounds, and what follows it begins then. With `by_hand`
        functions whose code has changed have new workers too.

        Raises:
            ConfigError: it is too late.
        """
        async with self._adopting:
            if self.supervisor.is_draining:
                raise ConfigError("the daemon is stopping: what the file says now holds from its next start on")
            self._file = running(self._file, file)
            self._show_file()
            adopted = self._take_on(await self._effective.over(file))
            renewed = await self._renew_code(adopted.renewed) if by_hand else []
            return replace(adopted, renewed=[*adopted.renewed, *renewed])

    async def follow(self) -> None:
        """Change what runs to what the catalogue has now. While the daemon stops, nothing changes any more."""
        async with self._adopting:
            if not self.supervisor.is_draining:
                self._take_on(await self._effective.over(self._file))

    def _show_file(self) -> None:
        self.catalogue.show_file(shown_functions(self._file, self.here), file_mappings(self._file))

    def _take_on(self, wanted: Configuration) -> Adopted:
        changes = diff(self._configuration, wanted)
        before, self._configuration = self._configuration, running(self._configuration, wanted)
        renewed = self._renew_functions(before)
        self.running.look_at_reserved()
        self._change_mappings(changes)
        if "failures" in changes.taken_on:
            self.supervisor.retain(make_retention(wanted))
        if "log_level" in changes.taken_on:
            set_level(self._log, wanted.log_level)
        counts: Counter[str] = Counter(each.action for each in changes.mappings)
        return Adopted(counts, renewed, changes.taken_on, changes.need_restart)

    async def close(self) -> None:
        """End all workers."""
        await self.running.close()

    # --- functions

    def _renew_functions(self, before: Configuration) -> list[str]:
        """Have what has workers go on by the settings as they are now, or give way to what has its name now."""
        renewed = []
        for key, opened in self.running.opened.items():
            change = function_change(key, opened.settings, before, self._configuration)
            if change.action in ("stop", "replace"):
                self.running.retire(key)
            elif change.action == "renew":
                settings = self._configuration.functions[key]
                assert isinstance(settings, FunctionSettings), "others are replaced"
                assert isinstance(opened.workers, Pool)
                self.running.exchange(key, replace(opened, settings=settings))
                go_on = opened.workers.resize if change.keys == ("reserved_concurrency",) else opened.workers.renew
                go_on(make_spec(self._configuration, settings))
                self._log.write("function.changed", function=key, keys=change.keys)
                renewed.append(key)
        return renewed

    async def _renew_code(self, renewed: Sequence[str]) -> list[str]:
        """Give new workers to the other functions whose code is not what their workers were started with."""
        changed = []
        for key, opened in self.running.opened.items():
            pool = opened.workers
            if key not in renewed and isinstance(pool, Pool) and await pool.renew_if_changed():
                self._log.write("function.changed", function=key, keys=("what is in `code`",))
                changed.append(key)
        return changed

    def _open_version(self, key: str) -> Opened | None:
        settings = self._configuration.functions.get(key)
        if settings is None:
            return None
        sink, close_sink = make_sink(self._configuration, settings, self._hear_of_shipping)
        workers = make_invoker(self._configuration, key, self._lock, sink, note=self._log.write)
        return Opened(workers, settings, close_sink)

    def _hear_of_shipping(self, function: str) -> ShippingNews:
        return ShippingNews(function, self._metrics.function_log_lost.labels(function).inc, self._log, time.monotonic)

    def _reserved(self, name: str) -> Reserved | None:
        settings = self._configuration.functions.get(name)
        made = self.catalogue.function(name)
        if made is not None and not made.is_of_file:
            return None if made.reserved_concurrency is None else Reserved(made.reserved_concurrency, is_shared=True)
        if isinstance(settings, FunctionSettings) and settings.reserved_concurrency is not None:
            return Reserved(settings.reserved_concurrency * settings.concurrency_per_worker)
        return None

    def _count(self, name: str, outcome: Outcome) -> None:
        if name not in self._counts:
            self._counts[name] = self._metrics.of_function(name)
        self._counts[name].ended(outcome)

    def _choose(self, mapping: MappingSettings) -> Choose:
        """Say what a mapping invokes: what the file has under the name, or what the name means at that moment."""
        name, _, qualifier = mapping.mapping.function.partition(":")
        if not mapping.is_made:
            chosen = Chosen(name)
            return lambda: chosen
        reference = Reference(name, qualifier or None)
        return lambda: choose(self.catalogue, reference, self.here, self._rng)

    async def _leave(self, close: Work, reference: str) -> None:
        """Close what one mapping had, and the workers of its function if it was the last to use them."""
        try:
            await close()
        finally:
            self._references[reference] -= 1
            if not self._references[reference]:
                del self._references[reference]
                self._counts.pop(reference, None)
                self._metrics.forget_function(reference)
            await self.running.let_go(reference.partition(":")[0])

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
                self.supervisor.unwant(change.name, *change.keys)
        for unit in units.values():
            self.supervisor.want(unit)

    def _unit(self, settings: MappingSettings, configuration: Configuration) -> Unit:
        reference = settings.mapping.function
        name = reference.partition(":")[0]
        invoker = NamedFunction(self.running, name, self._choose(settings))
        unit = make_unit(settings, configuration, invoker, self._shared)
        self._references[reference] += 1
        self.running.hold(name)
        return replace(unit, close=partial(self._leave, unit.close, reference))

    def _open_queue(self, mapping: str, queue: str) -> QueueSource:
        return open_queue(self._configuration, mapping, queue)


def _source_of(properties: Mapping[str, Any]) -> str:
    """Name the source of a mapping that could not be made to run, so that people know which it is."""
    topics = properties.get("Topics")
    return f"kafka:{topics[0]}" if topics else str(properties.get("EventSourceArn"))


def _info(key: str, opened: Opened) -> FunctionInfo:
    assert isinstance(opened.workers, Pool | Remote)
    status = opened.workers.status
    snap_start = None if status.snap_start is None else (status.snap_start.state, status.snap_start.found)
    handler = describe_function(opened.settings)
    return FunctionInfo(key, handler, status.workers, status.busy, status.waiting, snap_start)
