"""Looks at a running daemon: what status, readiness and gauges are made from."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from router.daemon import FunctionInfo, TargetInfo, UnfitInfo
from router.life import MappingHealth, MappingLife
from router.ports import Store, WallClock
from router.status import LoopLag, MappingFacts, Rate, ShardFacts, ready_document, status_document, summary
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

    def event_targets(self) -> Sequence[TargetInfo]: ...

    def unfit(self) -> Sequence[UnfitInfo]: ...


class Board:
    """The state of a daemon's mappings and functions, now."""

    def __init__(self, served: Served, config: Callable[[], Mapping[str, Any]] | None = None) -> None:
        """Make it; `config` says how the configuration is."""
        self._served = served
        self.loop_lag = LoopLag()
        self._config = config
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
            self.loop_lag.add(asyncio.get_running_loop().time() - mono_s - SAMPLE_S)

    def mappings(self) -> list[MappingFacts]:
        """Give all that there are to be run, also those that cannot be made to."""
        lives = self._served.supervisor.lives
        unfit = [_unfit(each) for each in self._served.unfit() if each.name not in lives]
        return [*(self._facts(life) for life in lives.values()), *unfit]

    def status(self) -> dict[str, Any]:
        """Give the document of `status --json`."""
        served = self._served
        config = self._config() if self._config else None
        return status_document(
            served.version, self.mappings(), served.functions(), served.wall(), config, served.event_targets()
        )

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return ready_document(self.mappings())

    def summary(self) -> str:
        """Say in one line how the mappings are, and whether the configuration was refused."""
        config = self._config() if self._config else {}
        return summary(self.mappings()) + ("; the configuration was refused" if config.get("refused") else "")

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
            shards=[ShardFacts(shard, lag(shard), life.position(shard.checkpoint)) for shard in life.shards()],
            waiting=runner.waiting() if runner else {},
            outbox=life.parts.deliveries.facts() if life.parts.deliveries else None,
            is_made=life.parts.is_made,
        )


def _unfit(info: UnfitInfo) -> MappingFacts:
    """Say of a mapping of the API that nothing of it runs."""
    return MappingFacts(
        name=info.name,
        function=info.function,
        source=info.source,
        health=MappingHealth("failed", ("Unfit", info.why)),
        known=True,
        last_result="No records processed",
        records_per_second=0.0,
        shards=(),
        is_made=True,
    )
