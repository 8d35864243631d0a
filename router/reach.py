"""What `headrace check --connect` looks at: every source, function and destination.

It changes nothing, but with `--setup`, which makes what sources lack before they are looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from config.settings import Configuration, FunctionSettings, MappingSettings
from connectors import CHECKS, SETUPS, load
from connectors.settings import TargetSettings
from router.assembly import describe_function, make_destination, make_invoker, make_target, used_functions
from router.core.model import EVENT_LIMIT_BYTES, Failed, Outcome, Refused
from router.errors import HandlerUnavailable, RouterError
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
    for each in configuration.mappings:
        name = f"event_source_mappings.{each.mapping.name}"
        look = load(CHECKS[type(each.source)])
        works[f"{name}.source"] = partial(look, each.source, _timeout_s(each, configuration))
        if each.destination:
            works[f"{name}.destination_config"] = partial(_check_destination, each, configuration)
    for function in used_functions(configuration):
        works[f"functions.{function}"] = partial(_check_function, configuration, function)
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


async def _check_destination(mapping: MappingSettings, configuration: Configuration) -> str:
    assert mapping.destination is not None
    destination = make_destination(mapping.destination, configuration)
    try:
        await destination.check()
    finally:
        await destination.close()
    return f"{destination.name}: reached"


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


async def _check_target(settings: TargetSettings) -> str:
    target = make_target(settings)
    try:
        return f"{describe_function(settings)}: {await target.check()}"
    finally:
        await target.close()
