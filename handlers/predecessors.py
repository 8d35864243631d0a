"""Makes sure that no worker of an earlier daemon still runs when a new one starts to invoke.

A daemon that dies takes its workers with it (parent-death signal, end of file on their channels), but not at the same
instant, and not the children that a handler has forked. Two deliveries of one key must not overlap, so two things are
kept in the state directory:

- `workers.lock`: locked through one open file description that every worker, and every child forked by it, inherits.
  The kernel releases it when the last of them is gone. Programs that a handler executes do not inherit it. The file
  says which daemon holds it.
- `workers/PID`: one file per worker, written before it runs anything of the user's, so that its process group, with
  everything it has executed, can be killed; also by the leash of the daemon (leash.py), which notes that there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from handlers.leash import MARK
from router.errors import HandlerUnavailable

_POLL_S: Final = 0.02


class _Process(NamedTuple):
    """What /proc/PID/stat says."""

    pid: int
    state: str
    group: int
    start: str

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZX"


def _process(pid: int) -> _Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return _Process(pid, fields[0], int(fields[2]), fields[19])


def identity(pid: int) -> str:
    """Name a process so that a later one with the same number is not taken for it."""
    process = _process(pid)
    return f"{pid} {process.start}" if process is not None else ""


def is_alive(words: list[str]) -> bool:
    """Say whether the process lives that `identity` has named, by the two words of its name."""
    process = _process(int(words[0]))
    return process is not None and process.is_alive and process.start == words[1]


def _processes() -> Iterator[_Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _process(int(entry.name))) and process.is_alive:
            yield process


def registry(state: Path) -> Path:
    """Name the folder with one file for each worker."""
    return state / "workers"


class WorkerLock:
    """Held by a daemon and all of its workers, through one inherited descriptor."""

    def __init__(self, state: Path) -> None:
        self._path = state / "workers.lock"
        self._registry = registry(state)
        self._registry.mkdir(parents=True, exist_ok=True, mode=0o700)
        #: To be inherited by workers.
        self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def await_predecessors(self, patience_s: float = 10.0) -> None:
        """Kill what is left of an earlier daemon's workers and wait until it is gone; then hold the lock.

        Raises:
            HandlerUnavailable: the earlier daemon itself still runs, or processes would not go away.
        """
        give_up_s = time.monotonic() + patience_s
        self._refuse_living_daemon()
        while left := self._leftovers():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await self._pause(give_up_s, left)
        while not self._try_lock():
            await self._pause(give_up_s, self._holders())
        os.truncate(self.descriptor, 0)
        os.pwrite(self.descriptor, identity(os.getpid()).encode(), 0)
        for entry in self._registry.iterdir():
            entry.unlink(missing_ok=True)

    def register(self, pid: int) -> None:
        """Note a new worker, which leads a process group of its own."""
        (self._registry / str(pid)).write_text(identity(pid))

    def forget(self, pid: int) -> None:
        """Drop the note of a worker whose group has been killed."""
        with contextlib.suppress(OSError):  # a note that stays names a process that is gone: harmless
            (self._registry / str(pid)).unlink()

    def is_leashed(self, pid: int) -> bool:
        """Say whether it was the daemon's leash that has killed a worker, which is noted still."""
        try:
            return (self._registry / str(pid)).read_text().endswith(f" {MARK}")
        except OSError:
            return False

    def close(self) -> None:
        """Let go; workers that still run keep the lock."""
        os.close(self.descriptor)

    async def _pause(self, give_up_s: float, left: list[int]) -> None:
        if time.monotonic() >= give_up_s:
            pids = ", ".join(map(str, left)) or "unknown"
            message = f"workers of an earlier run do not end (process ids: {pids}); end them, then start again"
            raise HandlerUnavailable(message)
        await asyncio.sleep(_POLL_S)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _refuse_living_daemon(self) -> None:
        words = self._path.read_text().split()
        if words and int(words[0]) != os.getpid() and is_alive(words):
            raise HandlerUnavailable(
                f"another daemon (process id {words[0]}) runs on {self._path.parent}; stop it first"
            )

    def _leftovers(self) -> list[int]:
        """Give the living processes in groups of earlier workers, and whoever else holds the lock."""
        groups = set(self._groups())
        members = {process.pid for process in _processes() if process.group in groups}
        return sorted(members | set(self._holders()))

    def _groups(self) -> Iterator[int]:
        for entry in self._registry.iterdir():
            words = entry.read_text().split()
            if len(words) >= 2:  # else cut off by a crash, before the worker ran anything
                leader = _process(int(words[0]))
                if leader is None or leader.start == words[1]:  # else the number belongs to another process now
                    yield int(words[0])

    def _holders(self) -> list[int]:
        """Give the other processes that have the lock file open."""
        path = str(self._path.resolve())
        return [process.pid for process in _processes() if process.pid != os.getpid() and _has_open(process.pid, path)]


def _has_open(pid: int, path: str) -> bool:
    with contextlib.suppress(OSError):  # gone, or another user's
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) == path:
                    return True
    return False
