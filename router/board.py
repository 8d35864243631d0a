"""Looks at a running daemon: what status, readiness and gauges are made from."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final, Protocol

from router.daemon import FunctionInfo
from router.errors import StoreUnavailable
from router.life import MappingLife
from router.ports import Store, WallClock
from router.status import MappingFacts, Rate, ShardFacts, ready_document, status_document, summary
from router.supervisor import Supervisor
from router.telemetry import Metrics

#: Between two looks at how many records are done, for the rates.
SAMPLE_S: Final = 1.0


class Served(Protocol):
    """What of a daemon can be looked at."""

    version: str
    supervisor: Supervisor
    store: Store
    metrics: Metrics
    wall: WallClock

    def functions(self) -> Sequence[FunctionInfo]: ...


class Board:
    """The state of a daemon's mappings and functions, now."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._rates: defaultdict[str, Rate] = defaultdict(Rate)

    async def run(self) -> None:
        """Follow the rates until cancelled."""
        while True:
            mono_s = asyncio.get_running_loop().time()
            lives = self._served.supervisor.lives
            for name in self._rates.keys() - lives.keys():
                del self._rates[name]
            for name, life in lives.items():
                self._rates[name].add(mono_s, life.runner.records_done if life.runner else 0)
            await asyncio.sleep(SAMPLE_S)

    def mappings(self) -> list[MappingFacts]:
        return [self._facts(life) for life in self._served.supervisor.lives.values()]

    def status(self) -> dict[str, Any]:
        """Give the document of `status --json`."""
        served = self._served
        return status_document(served.version, self.mappings(), served.functions(), served.wall())

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return ready_document(self.mappings())

    def summary(self) -> str:
        return summary(self.mappings())

    async def gauge(self) -> None:
        """Set the gauges to what they are now; while the store cannot be read, those that come from it stay."""
        served, metrics = self._served, self._served.metrics
        metrics.stuck.clear()
        for facts in self.mappings():
            lags = [shard.lag_records or 0 for shard in facts.shards]
            metrics.max_offset_lag.labels(facts.name).set(max(lags, default=0))
            metrics.sum_offset_lag.labels(facts.name).set(sum(lags))
            metrics.lag_seconds.labels(facts.name).set(facts.lag_s(served.wall()) or 0.0)
            metrics.in_flight.labels(facts.name).set(facts.in_flight)
            if facts.health.reason:
                metrics.stuck.labels(facts.name, facts.health.reason[0]).set(1)
        with contextlib.suppress(StoreUnavailable):
            waiting: Counter[str] = Counter()
            for tally in await served.store.tallies():
                waiting[tally.mapping] += tally.undelivered
            for name in served.supervisor.lives:
                metrics.undelivered.labels(name).set(waiting[name])

    def _facts(self, life: MappingLife) -> MappingFacts:
        runner = life.runner
        lag = runner.lag_records if runner else lambda _: None
        return MappingFacts(
            name=life.name,
            function=life.parts.mapping.function,
            source=life.parts.source_name,
            health=life.health(),
            known=life.known,
            last_result=runner.last_result if runner else "No records processed",
            records_per_second=self._rates[life.name].per_second,
            shards=[ShardFacts(shard, lag(shard)) for shard in life.shards()],
        )
