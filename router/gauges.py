"""Sets the gauges to what they are at the moment somebody asks for the metrics."""

from __future__ import annotations

import contextlib
import platform
from collections import Counter
from typing import Protocol

from router.board import Board, Served
from router.errors import StoreUnavailable
from router.log_pipe import LogPipe


class Measured(Served, Protocol):
    """What of a daemon is measured beside its mappings."""

    log_pipe: LogPipe | None


class Gauges:
    """The gauges of one daemon."""

    def __init__(self, served: Measured, board: Board) -> None:
        self._served = served
        self._board = board
        self._dropped_lines = 0
        served.metrics.build_info.labels(served.version, platform.python_version()).set(1)

    async def set(self) -> None:
        """Set all; while the store cannot be read, those that come from it stay."""
        self._set_mappings()
        self._set_functions()
        self._set_daemon()
        with contextlib.suppress(StoreUnavailable):
            await self._set_failures()

    def _set_mappings(self) -> None:
        metrics, now_s = self._served.metrics, self._served.wall()
        metrics.stuck.clear()
        for facts in self._board.mappings():
            if facts.health.reason:
                metrics.stuck.labels(facts.name, facts.health.reason[0]).set(1)
            if facts.name not in self._served.supervisor.lives:
                continue  # what is counted of a mapping went with what ran of it
            lags = [shard.lag_records or 0 for shard in facts.shards]
            metrics.max_offset_lag.labels(facts.name).set(max(lags, default=0))
            metrics.sum_offset_lag.labels(facts.name).set(sum(lags))
            metrics.lag_seconds.labels(facts.name).set(facts.lag_s(now_s) or 0.0)
            metrics.in_flight.labels(facts.name).set(facts.in_flight)

    def _set_functions(self) -> None:
        metrics = self._served.metrics
        for function in self._served.functions():
            metrics.concurrent_executions.labels(function.name).set(function.busy)
            metrics.waiting_invocations.labels(function.name).set(function.waiting)
            metrics.workers.labels(function.name).set(function.workers)
        self._set_events()

    def _set_events(self) -> None:
        metrics = self._served.metrics
        metrics.events_waiting.clear()
        metrics.event_overdue.clear()
        metrics.deliveries_waiting.clear()
        for function in self._served.functions():
            if function.events:
                metrics.events_waiting.labels(function.name).set(function.events.waiting)
                metrics.event_overdue.labels(function.name).set(function.events.overdue_s)
        for target in self._served.event_targets():
            metrics.deliveries_waiting.labels(target.name).set(target.waiting)

    def _set_daemon(self) -> None:
        served, metrics = self._served, self._served.metrics
        metrics.event_loop_lag.set(self._board.loop_lag.worst_s)
        metrics.store_size.set(served.store.size_bytes())
        if served.log_pipe:
            dropped_lines = served.log_pipe.dropped_lines
            metrics.log_lines_dropped.inc(dropped_lines - self._dropped_lines)
            self._dropped_lines = dropped_lines

    async def _set_failures(self) -> None:
        served, metrics = self._served, self._served.metrics
        waiting: Counter[str] = Counter()
        tallies = await served.store.tallies()
        metrics.stored_failures.clear()
        for tally in tallies:
            waiting[tally.mapping] += tally.undelivered
            metrics.stored_failures.labels(tally.mapping, tally.status).set(tally.failures)
        for name in served.supervisor.lives:
            metrics.undelivered.labels(name).set(waiting[name])
