"""What `headrace check --connect` looks at: every source, function and destination.

It changes nothing, but with `--setup`, which makes what sources lack before they are looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from config.settings import Configuration, EventInvokeSettings, FleetSettings, FunctionSettings, MappingSettings
from connectors import CHECKS, EVENT_TARGETS, SETUPS, load
from connectors.redis.health import look_at
from connectors.redis.link import RedisLink
from connectors.settings import S3Destination, TargetSettings
from router.api.names import Here
from router.assembly import (
    describe_function,
    home_region,
    make_destination,
    make_invoker,
    make_log_streams,
    make_target,
)
from router.asynchronous.targets import arn_of, function_here
from router.core.model import EVENT_LIMIT_BYTES, Failed, Outcome, Refused
from router.errors import HandlerUnavailable, RouterError, StoreUnavailable
from router.event_ports import EventTarget
from router.ports import Invocation


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was reached, or not."""

    #: What it is, by its path in the file: "event_source_mappings.orders.source", "functions.orders".
    name: str
    ok: bool
    #: What was found, or why it cannot be reached and what to do.
    detail: str


async def connect_checks(configuration: Configuration, *, setup: bool = False) -> list[Check]:
    """Reach everything the file names, all at once; disabled mappings too. With `setup`, make first what is lacking."""
    made = [check for each in configuration.mappings for check in await _set_up(each, configuration)] if setup else []
    works: dict[str, Callable[[], Awaitable[str]]] = {}
    if configuration.fleet:
        works["state"] = partial(_check_state, configuration.fleet, power_safe=configuration.power_safe)
    for each in configuration.mappings:
        name = f"event_source_mappings.{each.mapping.name}"
        look = load(CHECKS[type(each.source)])
        works[f"{name}.source"] = partial(look, each.source, _timeout_s(each, configuration))
        if each.destination:
            works[f"{name}.destination_config"] = partial(_check_destination, each, configuration)
    for function, settings in configuration.functions.items():
        works[f"functions.{function}"] = partial(_check_function, configuration, function)
        if isinstance(settings, FunctionSettings) and settings.ships_logs:
            works[f"functions.{function}.logs"] = partial(_check_logs, configuration, settings)
    for function, said in configuration.event_invoke.items():
        for key, place in _event_targets(said).items():
            works[f"functions.{function}.{key}"] = partial(_check_event_target, place, configuration)
    return made + list(await asyncio.gather(*(_check(name, work) for name, work in works.items())))


def _timeout_s(mapping: MappingSettings, configuration: Configuration) -> float:
    return configuration.functions[mapping.mapping.function].timeout_s


async def _set_up(mapping: MappingSettings, configuration: Configuration) -> list[Check]:
    path = SETUPS.get(type(mapping.source))
    if path is None:
        return []
    name = f"event_source_mappings.{mapping.mapping.name}.source"
    try:
        done = await load(path)(mapping.source, _timeout_s(mapping, configuration))
    except RouterError as error:
        return [Check(name, ok=False, detail=str(error))]
    return [Check(name, ok=True, detail=sentence) for sentence in done]


async def _check(name: str, work: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name, ok=True, detail=await work())
    except RouterError as error:
        return Check(name, ok=False, detail=str(error))


async def _check_state(fleet: FleetSettings, *, power_safe: bool) -> str:
    """Reach the Redis that replicas share, and say what of it is to be mended; refuses what a service would refuse."""
    link = await RedisLink.open(fleet.redis, fleet.name)
    try:
        health = await look_at(link, power_safe=power_safe)
    finally:
        await link.close()
    refused = [each.text for each in health.findings if each.is_refused]
    if refused:
        raise StoreUnavailable("; ".join(refused))
    if fleet.redis.payloads is not None:
        await asyncio.to_thread(_check_payloads, fleet.redis.payloads)
    return "; ".join([f"{fleet.redis.shown}, fleet {fleet.name}: reached", *(each.text for each in health.findings)])


def _check_payloads(place: S3Destination | Path) -> None:
    """Look whether a folder for payloads is one; a bucket is reached when one is put there."""
    if isinstance(place, Path) and not (place.is_dir() and os.access(place, os.R_OK | os.W_OK | os.X_OK)):
        raise StoreUnavailable(f"the folder for payloads {place} is not there, or may not be written: make it")


async def _check_destination(mapping: MappingSettings, configuration: Configuration) -> str:
    assert mapping.destination is not None
    destination = make_destination(mapping.destination, configuration)
    try:
        await destination.check()
    finally:
        await destination.close()
    return f"{destination.name}: reached"


def _event_targets(said: EventInvokeSettings) -> dict[str, str]:
    """Give who is told of asynchronous events, by the key that names it."""
    named = {
        "event_invoke_config.destination_config.on_success": said.on_success,
        "event_invoke_config.destination_config.on_failure": said.on_failure,
        "dead_letter_config": said.dead_letter,
    }
    return {key: place for key, place in named.items() if place}


async def _check_event_target(place: str, configuration: Configuration) -> str:
    here = Here(home_region(configuration.aws), configuration.aws.account_id)
    arn = arn_of(place, here)
    function = function_here(arn, here)
    if function:
        is_there = function[0] in configuration.functions
        return f"function {function[0]}: {'of this file' if is_there else 'to be made through the API'}"
    target: EventTarget = load(EVENT_TARGETS[arn.split(":")[2]])(arn, configuration.aws)
    try:
        await target.check()
    finally:
        await target.close()
    return f"{arn}: reached"


async def _check_function(configuration: Configuration, name: str) -> str:
    """Start a worker and initialise the function, or reach where it runs, without running it."""
    settings = configuration.functions[name]
    if not isinstance(settings, FunctionSettings):
        return await _check_target(settings)
    pool = make_invoker(configuration, name)
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    # An event that is too large is refused once a worker is ready for it: the handler never sees it.
    pool.invoke(
        Invocation("check", event=lambda: bytes(EVENT_LIMIT_BYTES + 1), wants_body=False, done=ended.set_result)
    )
    try:
        outcome = await ended
        snap_start = pool.status.snap_start
    finally:
        await pool.close()
    if isinstance(outcome, Refused | Failed):
        raise HandlerUnavailable(f"{outcome.error.error_type}: {outcome.error.message}")
    if snap_start is not None and snap_start.found:
        return f"{settings.handler}: loads; snap_start has no effect, it leaves open {', '.join(snap_start.found)}"
    return f"{settings.handler}: loads"


async def _check_logs(configuration: Configuration, settings: FunctionSettings) -> str:
    streams = make_log_streams(configuration, settings.name)
    try:
        return await streams.check(settings.group)
    finally:
        await streams.close()


async def _check_target(settings: TargetSettings) -> str:
    target = make_target(settings)
    try:
        return f"{describe_function(settings)}: {await target.check()}"
    finally:
        await target.close()
