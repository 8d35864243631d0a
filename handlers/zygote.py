"""The process that has loaded a function and forks its workers (`snap_start`), as the daemon sees it.

It is the parent of its workers: they die with it, and only it can tell how one has ended. So its death says nothing
about them, and what they ran is told as cancelled. It runs nothing of the user's after its start.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Final, Protocol

from handlers import bootstrap, faults, limits, scratch
from handlers.process import INIT_LIMIT_S, Born, Ended, Ends, Launch, Process, Unborn, spawn
from router.core.model import FunctionError

_SLOTS: Final = 1 << 16


class Parent(Protocol):
    """Who wants workers."""

    def loaded(self) -> None:
        """Learn that workers can be forked."""
        ...

    def unfit(self, found: list[str]) -> None:
        """Learn that none can be, and why: what the function has left open. The process is gone."""
        ...

    def born(self, born: Born) -> None:
        """Take a worker that was asked for."""
        ...

    def not_born(self, reason: str) -> None:
        """Learn why a worker that was asked for does not come."""
        ...

    def lost(self, unborn: Unborn) -> None:
        """Learn that the process has ended; workers that were asked for (`awaited`) do not come."""
        ...


class Zygote:
    """A live process that forks workers, once it is ready. Raises OSError when it cannot be started."""

    def __init__(self, launch: Launch, parent: Parent) -> None:
        self._launch = launch
        self._parent = parent
        self.is_ready = False
        self.is_ending = False
        self._found: list[str] | None = None
        self._fate: FunctionError | None = None
        self._last_slot = 0
        #: What a worker will be reached by, and when it must be there (monotonic), by the number that frames carry.
        self._asked: dict[int, tuple[Ends, float]] = {}
        #: Who wants to know how a worker has ended, and when that must be told.
        self._reaped: dict[int, tuple[Ended, float]] = {}
        self.is_gone = False
        self._process = Process(launch, spawn(launch), self)
        try:
            self._process.load(launch.setup(forks=True))
        except OSError as error:
            self.kill(faults.not_set_up(launch.function.name, error))

    @property
    def awaited(self) -> int:
        """How many workers were asked for and are not there yet?"""
        return len(self._asked)

    def fork(self) -> None:
        """Ask for a worker. Raises OSError when that cannot be."""
        ends = Ends(logs=self._launch.reads)
        slot = self._next_slot()
        try:
            self._process.channel.send_descriptors(bootstrap.FORK, slot, ends.theirs)
        except OSError:
            ends.drop()
            raise
        finally:
            ends.handed_over()
        self._asked[slot] = (ends, time.monotonic() + INIT_LIMIT_S)

    def _next_slot(self) -> int:
        while True:
            self._last_slot = (self._last_slot + 1) % _SLOTS
            if self._last_slot not in self._asked and self._last_slot not in self._reaped:
                return self._last_slot

    # --- frames

    def received(self, kind: int, slot: int, body: bytes, number: int) -> None:
        try:
            self._receive(kind, slot, body, number)
        except ValueError:
            self.broken(is_over=False)

    def _receive(self, kind: int, slot: int, body: bytes, number: int) -> None:
        if kind == bootstrap.FORKED and slot in self._asked:
            self._take(self._asked.pop(slot)[0], number)
        elif kind == bootstrap.NOT_FORKED and slot in self._asked:
            self._asked.pop(slot)[0].drop()
            self._parent.not_born(body.decode())
        elif kind == bootstrap.REAPED and slot in self._reaped:
            self._reaped.pop(slot)[0](os.waitstatus_to_exitcode(number))
        elif not self.is_ready and kind == bootstrap.READY:
            self._become_ready()
        elif not self.is_ready and kind == bootstrap.UNFIT:
            self._found = body.decode().splitlines()
        elif not self.is_ready and kind == bootstrap.INIT_FAILED:
            self.kill(faults.reported(body))
        else:
            self.broken(is_over=False)

    def _become_ready(self) -> None:
        self.is_ready = True
        self._process.succeeded_init()
        self._parent.loaded()

    def _take(self, ends: Ends, pid: int) -> None:
        folder = None
        try:
            folder = scratch.make(self._launch.scratch)
            exit_descriptor = os.pidfd_open(pid)
        except OSError as error:
            if folder is not None:
                scratch.remove(folder)
            os.kill(pid, signal.SIGKILL)  # its number is its own until it is reaped
            ends.drop()
            self._reap(pid, _forget)
            self._parent.not_born(str(error))
        else:
            stream = self._launch.function.log_stream()
            reap = partial(self._reap, pid)
            self._parent.born(Born(pid, exit_descriptor, ends, reap, stream, folder, is_forked=True))

    def _reap(self, pid: int, ended: Ended) -> None:
        """Ask how a worker has ended."""
        if self.is_gone:
            ended(None)
            return
        slot = self._next_slot()
        self._reaped[slot] = (ended, time.monotonic() + INIT_LIMIT_S)
        self._process.channel.send(bootstrap.REAP, b"", pid, slot=slot)

    def flowing(self) -> None:
        """Nothing waits for that."""

    def broken(self, *, is_over: bool) -> None:
        self.kill(None if is_over else faults.unreadable(""))

    # --- limits and end

    @property
    def due_s(self) -> float | None:
        """Monotonic time at which it must be ready, or have answered; None while nothing is awaited."""
        if self.is_ending:
            return None
        if not self.is_ready:
            return self._process.started_s + self._launch.import_limit_s
        return min((by_s for _, by_s in (*self._asked.values(), *self._reaped.values())), default=None)

    def _is_due(self, now_s: float) -> bool:
        return self.due_s is not None and now_s >= self.due_s

    def watch(self, now_s: float) -> None:
        """Hold it to its limits of time and, while it loads, of memory."""
        if self._is_due(now_s):
            self._process.channel.drain()  # what it has answered before counts, though nobody has read it yet
        if self._is_due(now_s):
            limit_s = self._launch.import_limit_s
            self.kill(faults.not_forking(INIT_LIMIT_S) if self.is_ready else faults.init_timed_out(limit_s))
        if self.is_ready or self.is_ending:
            return
        limit_bytes = self._launch.function.memory_bytes
        used_bytes = limits.used_bytes(self._process.pid, limit_bytes)
        if used_bytes > limit_bytes:
            self.kill(faults.over_memory("", limit_bytes, used_bytes))

    def kill(self, fate: FunctionError | None) -> None:
        """End it, and all its workers with it."""
        self._fate = self._fate or fate
        self.is_ending = True
        self._process.kill()

    def ending(self) -> None:
        self.is_ending = True
        if self._fate is None:
            self._process.channel.drain()

    def ended(self, status: int | None) -> None:
        self.is_gone = True
        unborn = Unborn(self._fate or self._process.error(status, ""))
        if self._found is not None:
            self._process.succeeded_init()
        elif not self.is_ready:
            unborn = self._process.failed_init(self._fate, status)
        if self._fate is None and self._process.is_leashed:
            unborn = Unborn(FunctionError(faults.NOT_STARTED, "the daemon was stopped"))
        self._process.release()
        for ends, _ in self._asked.values():
            ends.drop()
        for reaped, _ in self._reaped.values():
            reaped(None)
        if self._found is not None:
            self._parent.unfit(self._found)
        else:
            self._parent.lost(unborn)


def _forget(status: int | None) -> None:
    """Nobody wants to know."""
