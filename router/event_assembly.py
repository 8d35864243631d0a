"""Puts together what a daemon does with asynchronous events: it takes them in, runs them, and tells of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING
from uuid import uuid4

from router.api.names import Here
from router.assembly import DEFAULT_CONCURRENCY, make_event_target, make_retention, run_at_once
from router.asynchronous.delivery import AsyncDelivery
from router.asynchronous.failures import AsyncFailures
from router.asynchronous.inbox import AsyncEvents
from router.asynchronous.life import Outside
from router.asynchronous.standing import Standings
from router.asynchronous.status import targets, with_events
from router.daemon import FunctionInfo, TargetInfo
from router.event_ports import EventTarget, Inbox
from router.fleet.fleet import Fleet
from router.ports import Store
from router.telemetry import Log, Metrics

if TYPE_CHECKING:
    from router.service import Service


@dataclass(frozen=True, slots=True)
class Asynchronous:
    """Asynchronous events of a daemon."""

    events: AsyncEvents
    delivery: AsyncDelivery
    failures: AsyncFailures
    standings: Standings

    def described(self, functions: Sequence[FunctionInfo]) -> Sequence[FunctionInfo]:
        """Say of functions what waits for them."""
        events, now_s = self.events, time.time()
        standing = partial(self.standings.of, qualifier=None)
        return with_events(functions, events.waiting, events.lines(), events.trouble, standing, now_s)

    def targets(self) -> Sequence[TargetInfo]:
        """Say who is still to be told."""
        return targets(self.events.waiting, self.events.trouble, time.time())


def make_asynchronous(
    served: Service, inbox: Inbox, store: Store, metrics: Metrics, log: Log, fleet: Fleet | None
) -> Asynchronous:
    """Make it; nothing runs before `events.run` and `failures.run`."""

    def target(arn: str) -> EventTarget:
        return make_event_target(arn, served.file.aws, served.here, served.catalogue, events)

    def where() -> Here:
        return served.here

    def at_once(name: str) -> int:
        function = served.configuration.functions.get(name)
        return run_at_once(function) if function else DEFAULT_CONCURRENCY

    rng = SystemRandom()
    standings = Standings(served.catalogue, where, rng, at_once)
    delivery = AsyncDelivery(
        served.catalogue,
        where,
        store,
        target,
        retention=lambda: make_retention(served.configuration),
        metrics=metrics,
        log=log,
        is_shared=fleet is not None,
    )
    out = Outside(
        inbox,
        served.running,
        delivery,
        standings,
        served.replayer.insist,
        metrics.of_events(),
        log,
        time.time,
        rng,
    )
    if fleet:
        out = replace(out, tenure=lambda: fleet.table.incarnation, living=lambda: {fleet.name, *fleet.living()})
    events = AsyncEvents(out)
    failures = AsyncFailures(
        delivery,
        served.catalogue,
        store,
        accepts=events,
        new_id=lambda: str(uuid4()),
        retention=lambda: make_retention(served.configuration),
        spawn=served.replayer.spawn,
        wall=time.time,
        log=log,
    )
    served.replayer.replay_event = failures.replay
    if fleet:
        fleet.on_orphaned.append(events.orphaned)
    return Asynchronous(events, delivery, failures, standings)
