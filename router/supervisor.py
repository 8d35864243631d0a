"""Starts, exchanges and ends the mappings of a daemon, each while the others go on.

What exists for one mapping alone comes and goes as one `Unit`. One trouble never stops another mapping: each unit has
a task of its own, and what breaks in it is logged and begun anew.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from router.core.retention import Retention
from router.life import MappingLife
from router.telemetry import Log

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

#: Wait before background work that broke begins anew.
CRASH_PAUSE_S: Final = 10.0


async def _at_once() -> None:
    """Nothing is to be sent."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One mapping with all that exists for it alone."""

    life: MappingLife
    #: What goes on beside it until it has left, also while it is down: deliveries and retention of its failures.
    beside: Work
    #: Lets go of what it has; called when nothing of it runs, or when it never came to run.
    close: Work
    #: Keeps as much of its failures as it is told from now on.
    retain: Callable[[Retention], None]
    #: It begins when no mapping of this name is left.
    after: str | None = None
    #: Waits, within bounds, until what goes on beside it has sent the failures that it has.
    sent: Work = _at_once


class Supervisor:
    """All mappings of a daemon."""

    def __init__(self, log: Log, forget: Callable[[str], None] = lambda _: None) -> None:
        """Make it without mappings.

        Args:
            log: told of bugs beside the mappings.
            forget: hears the name of a mapping that has gone for good.
        """
        self._log = log
        self._forget = forget
        #: Those there are, by name; also those that are leaving.
        self.lives: dict[str, MappingLife] = {}
        self._units: dict[str, Unit] = {}
        #: What follows a unit that is leaving.
        self._next: dict[str, Unit] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Run all mappings until they are told to drain, and have."""
        async with asyncio.TaskGroup() as self._tasks:
            for unit in self._units.values():
                self._tasks.create_task(self._keep(unit))
            await self._draining.wait()

    @property
    def is_draining(self) -> bool:
        return self._draining.is_set()

    def want(self, unit: Unit) -> None:
        """Have a mapping run; the one that has its name ends first, within its own bounds."""
        name = unit.life.name
        if name in self._units:
            self._supersede(name)
            self._next[name] = unit
            self._leave(name, "What is in flight ends; then the mapping goes on as the file has it now.")
        else:
            self._begin(unit)

    def unwant(self, name: str, why: str = "not in the file any more") -> None:
        """Have a mapping end, within its own bounds."""
        self._supersede(name)
        self._leave(name, f"The mapping is {why}; what is in flight ends.")

    def retain(self, retention: Retention) -> None:
        """Keep as much of every mapping's failures from now on."""
        for unit in (*self._units.values(), *self._next.values()):
            unit.retain(retention)

    def drain(self, within_s: float, *, comes_back: bool = False) -> None:
        """End all mappings; in-flight work may take this long."""
        self._draining.set()
        for name, life in self.lives.items():
            self._supersede(name)
            life.drain(within_s, comes_back=comes_back)

    def _begin(self, unit: Unit) -> None:
        name = unit.life.name
        self._units[name], self.lives[name] = unit, unit.life
        if self._tasks:
            self._tasks.create_task(self._keep(unit))

    def _leave(self, name: str, why: str) -> None:
        life = self.lives[name]
        life.drain(life.parts.mapping.drain_s, why)

    def _supersede(self, name: str) -> None:
        """Drop what was to follow a unit, if something was."""
        unit = self._next.pop(name, None)
        if unit and self._tasks:
            self._tasks.create_task(self._close(unit))

    async def _keep(self, unit: Unit) -> None:
        """Run a unit until it has left, and then what follows it."""
        await self._live(unit)
        await self._close(unit)
        life = unit.life
        following = self._next.pop(life.name, None)
        if following:
            self._begin(following)
        elif not self._draining.is_set():
            del self._units[life.name], self.lives[life.name]
            self._forget(life.name)
        life.gone.set()

    async def _live(self, unit: Unit) -> None:
        if unit.after in self.lives:
            await self.lives[unit.after].gone.wait()
        await unit.life.take_over()
        async with asyncio.TaskGroup() as tasks:
            beside = tasks.create_task(carry_on(unit.beside, self._log))
            await unit.life.run()
            await unit.life.leaving.wait()
            # What follows it must not begin to read between two places.
            await unit.life.untouched.wait()
            await self._send_off(unit)
            beside.cancel()

    async def _send_off(self, unit: Unit) -> None:
        """Have its last failures sent where nobody follows who would; the end of the daemon waits for none."""
        if unit.life.name in self._next:
            return
        waits = [asyncio.ensure_future(each()) for each in (unit.sent, self._draining.wait)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _close(self, unit: Unit) -> None:
        try:
            await unit.close()
        except Exception as bug:  # noqa: BLE001 - it is logged with its trace, and the others go on
            tell_bug(self._log, bug)


async def carry_on(work: Work, log: Log) -> None:
    """Begin work anew whenever a bug ends it: the deliveries of one mapping must not take the others down."""
    while True:
        try:
            return await work()
        except Exception as bug:  # noqa: BLE001 - it is logged with its trace, and the daemon goes on
            tell_bug(log, bug)
        await asyncio.sleep(CRASH_PAUSE_S)


def tell_bug(log: Log, bug: Exception) -> None:
    log.write("background.crashed", error=str(bug), trace="".join(traceback.format_exception(bug)))
