"""Where the workers of one function come from: its code is prepared, then each is started, or forked (`snap_start`).

One step at a time, and none waits: who wants a worker asks, and asks again when something has changed. A function that
must not be forked (what it has left open is told once) gets fresh workers instead, until its pool is made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from handlers import faults
from handlers.archive import fingerprint, prepare
from handlers.function import FunctionSpec
from handlers.process import Born, Launch, Unborn, spawn
from handlers.zygote import Zygote
from router.core.model import FunctionError
from router.errors import HandlerUnavailable

_ADVICE: Final = "open it in a hook (register_after_restore) or when the handler first needs it"

#: Notes an event of telemetry, with its fields.
Note = Callable[..., None]


@dataclass(frozen=True, slots=True)
class SnapStart:
    """How it stands with forking the workers of a function."""

    #: idle (nothing is loaded yet) | loading | ready | refused (workers are started anew)
    state: str
    #: What the function has left open, where that is why.
    found: tuple[str, ...] = ()


class Family(Protocol):
    """Who wants workers."""

    def born(self, launch: Launch, born: Born) -> None:
        """Take a new process, which is to become a worker."""
        ...

    def failed(self, unborn: Unborn) -> None:
        """Learn why there is none."""
        ...

    def changed(self) -> None:
        """Learn that more can be asked for."""
        ...


class Nursery:
    """Starts workers."""

    def __init__(
        self, function: FunctionSpec, family: Family, state: Path, launch: Callable[[Path], Launch], note: Note
    ) -> None:
        self._function = function
        #: Who hears of workers.
        self.family = family
        self._state = state
        self._make_launch = launch
        self._note = note
        self._launch: Launch | None = None
        self._preparing: asyncio.Future[tuple[Path, str]] | None = None
        #: Fingerprint of the code that workers are started with; None before the first.
        self.code: str | None = None
        self.zygote: Zygote | None = None
        self._is_closed = False
        #: Why workers are not forked although they should be.
        self._found: tuple[str, ...] = ()

    @property
    def snap_start(self) -> SnapStart | None:
        """None = it was not asked for."""
        if not self._function.snap_start:
            return None
        if self._found:
            return SnapStart("refused", self._found)
        if self.zygote is None:
            return SnapStart("idle")
        return SnapStart("ready" if self.zygote.is_ready else "loading")

    @property
    def is_ready(self) -> bool:
        """Can a worker be asked for, or what comes before the first one?"""
        return self._preparing is None and (self.zygote is None or (self.zygote.is_ready and not self.zygote.is_ending))

    @property
    def awaited(self) -> int:
        """Workers that were asked for and are not there yet."""
        return self.zygote.awaited if self.zygote is not None else 0

    def start(self) -> None:
        """Start one more worker, or what comes before the first one."""
        if self._launch is None:
            self._prepare()
            return
        try:
            if self.zygote is not None:
                self.zygote.fork()
            elif self._function.snap_start and not self._found:
                self.zygote = Zygote(self._launch, self)
            else:
                self.family.born(self._launch, spawn(self._launch))
        except OSError as error:
            if self.zygote is None:
                self._launch = None  # the code may have moved
            self.not_born(str(error))

    def close(self) -> None:
        """End what forks workers, and them with it."""
        self._is_closed = True
        if self.zygote is not None:
            self.zygote.kill(FunctionError(faults.NOT_STARTED, "closed"))

    # --- the code

    def _prepare(self) -> None:
        """Find the code, without holding up the loop: an archive may take a while."""
        self._preparing = asyncio.get_running_loop().run_in_executor(None, _find, self._function.code, self._state)
        self._preparing.add_done_callback(self._prepared)

    def _prepared(self, preparing: asyncio.Future[tuple[Path, str]]) -> None:
        self._preparing = None
        try:
            root, self.code = preparing.result()
        except HandlerUnavailable as error:
            self._fail(f"function {self._function.name}: {error}")
            return
        self._launch = self._make_launch(root)
        self.family.changed()

    # --- what the process that forks tells

    def loaded(self) -> None:
        self._note("function.preloaded", function=self._function.name)
        self.family.changed()

    def unfit(self, found: list[str]) -> None:
        self.zygote = None
        self._found = tuple(found)
        self._note("function.not_forked", function=self._function.name, found=found, hint=_ADVICE)
        self.family.changed()

    def born(self, born: Born) -> None:
        assert self._launch is not None
        self.family.born(self._launch, born)

    def not_born(self, reason: str) -> None:
        self._fail(f"cannot start a worker of function {self._function.name}: {reason}")

    def lost(self, unborn: Unborn) -> None:
        zygote, self.zygote = self.zygote, None
        assert zygote is not None
        if not zygote.is_ready:
            self.family.failed(unborn)
            return
        error = unborn.error
        if not self._is_closed:
            self._note("function.preload_lost", function=self._function.name, error=error.message)
        if zygote.awaited:
            self.not_born(f"the process that forks them has ended: {error.message}")
        else:
            self.family.changed()

    def _fail(self, message: str) -> None:
        self.family.failed(Unborn(FunctionError(faults.NOT_STARTED, message)))


def _find(code: Path, state: Path) -> tuple[Path, str]:
    # Looked at before it is prepared: what changes meanwhile is noticed later.
    seen = fingerprint(code)
    return prepare(code, state), seen
