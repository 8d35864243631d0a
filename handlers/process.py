"""One process that runs a function's code, as the daemon holds it: its channel, its output, its limits and its end.

It leads a process group of its own. Nothing here waits: that it has ended is told by its pidfd, whoever its parent is,
and how it has ended by who is its parent (`Born.reap`). Its number stays its own until that was asked, so the group is
killed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from handlers import bootstrap, faults, limits, logs
from handlers.channel import Channel, Receiver
from handlers.function import FunctionSpec
from handlers.output import Heard, Output
from handlers.predecessors import WorkerLock
from router.core.model import FunctionError

#: Time to import the function's module (AWS Lambda developer guide, "Lambda execution environment lifecycle"), and to
#: run the hooks of one restored worker ("Lambda SnapStart runtime hooks for Python").
INIT_LIMIT_S: Final = 10.0

#: Takes a return code as Popen gives it, negative for a signal; None = who could tell is gone.
Ended = Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """What all processes of one function are started with."""

    function: FunctionSpec
    #: Folder that holds the code.
    root: Path
    lock: WorkerLock | None
    sink: logs.LogSink | None
    cgroups: limits.CgroupHome | None
    heard: Heard | None

    def setup(self, *, forks: bool) -> dict[str, Any]:
        """Tell a new interpreter what to load, and whether it is to fork workers or to be one."""
        function = self.function
        return {
            "handler": function.handler,
            "root": str(self.root),
            "arn": function.arn,
            "concurrency": function.concurrency_per_worker,
            "logs": self.sink is not None,
            "hooks": function.snap_start,
            "forks": forks,
        }


class Ends:
    """Both ends of a new process's channel and output. Raises OSError when there are no more descriptors."""

    def __init__(self, *, logs: bool) -> None:
        self.channel, self._their_channel = socket.socketpair()
        self.output: int | None = None
        try:
            if logs:
                self.output, self._their_output = os.pipe()
            else:
                self._their_output = os.open(os.devnull, os.O_WRONLY)
        except OSError:
            self.channel.close()
            self._their_channel.close()
            raise

    @property
    def theirs(self) -> tuple[int, int]:
        """The descriptors for the process: its channel, and its standard output and error."""
        return self._their_channel.fileno(), self._their_output

    def handed_over(self) -> None:
        """Close their ends: the process has them, or never will."""
        self._their_channel.close()
        os.close(self._their_output)

    def drop(self) -> None:
        """Close our ends: there is no process."""
        self.channel.close()
        if self.output is not None:
            os.close(self.output)


@dataclass(frozen=True, slots=True)
class Born:
    """A new process, which waits to be told what to do."""

    pid: int
    #: Its pidfd.
    exit: int
    ends: Ends
    #: To be called once it has ended: tells how, and gives its number free.
    reap: Callable[[Ended], None]
    is_forked: bool = False


def spawn(launch: Launch) -> Born:
    """Start an interpreter of the function's. Raises OSError when that cannot be."""
    function = launch.function
    ends = Ends(logs=function.logs)
    try:
        channel, output = ends.theirs
        lock = launch.lock
        arguments = (channel, -1 if lock is None else lock.descriptor, os.getpid())
        popen = subprocess.Popen(
            [function.interpreter(), "-I", bootstrap.__file__, *map(str, arguments)],
            env=function.variables(launch.root),
            cwd=launch.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(channel,) if lock is None else (channel, lock.descriptor),
            start_new_session=True,
        )
        return Born(popen.pid, os.pidfd_open(popen.pid), ends, lambda ended: ended(popen.wait()))
    except OSError:
        ends.drop()
        raise
    finally:
        ends.handed_over()


class Owner(Receiver, Protocol):
    """Who uses a process: takes its frames, and learns of its end."""

    def ending(self) -> None:
        """Learn that it has ended; what it has sent before can still be read."""
        ...

    def ended(self, status: int | None) -> None:
        """Learn how: its return code, negative for a signal; None = who could tell is gone."""
        ...


class Process:
    """A live process."""

    def __init__(self, launch: Launch, born: Born, owner: Owner) -> None:
        self._launch = launch
        self._born = born
        self._owner = owner
        self.pid = born.pid
        self.started_s = time.monotonic()
        self.channel = Channel(born.ends.channel, owner)
        reading = born.ends.output
        self.output = Output(reading, launch.heard) if reading is not None else None
        self._cgroup: limits.Cgroup | None = None
        self._is_over = False
        asyncio.get_running_loop().add_reader(born.exit, self._on_exit)

    def load(self, setup: dict[str, Any]) -> None:
        """Note it where others must find it, then let it run what is the user's. Raises OSError."""
        launch = self._launch
        if launch.lock is not None:
            launch.lock.register(self.pid)
        if launch.cgroups is not None:
            self._cgroup = launch.cgroups.make(launch.function.memory_bytes)
        if self._cgroup is not None:
            self._cgroup.add(self.pid)
        self.channel.send(bootstrap.SETUP, json.dumps(setup).encode())

    def printed(self) -> str:
        """Give what it has printed since this was asked last."""
        return self.output.take() if self.output is not None else ""

    def kill(self) -> None:
        """End it with everything it has started."""
        self.channel.stop()
        if self._is_over:  # its number is given free at any moment
            return
        if self._cgroup is not None:
            self._cgroup.kill()
        for pid in limits.descendants(self.pid):  # those that have left the process group
            _kill(os.kill, pid)
        _kill(signal.pidfd_send_signal, self._born.exit)  # a forked one may not lead its group yet
        _kill(os.killpg, self.pid)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._born.exit)
        self._owner.ending()
        _kill(os.killpg, self.pid)
        self._is_over = True
        self._born.reap(self._owner.ended)

    def error(self, status: int | None, request_id: str) -> FunctionError:
        """Describe an end that nobody of us has brought about."""
        if self._cgroup is not None and self._cgroup.ran_out():
            return faults.over_memory(request_id, self._launch.function.memory_bytes, None)
        return faults.exited(request_id, status)

    def failed_init(self, fate: FunctionError | None, status: int | None) -> FunctionError:
        """Log that it ended before it was ready, and say why: its fate, or how it ended by itself."""
        printed = self.printed()
        error = faults.with_last_line(self.error(status, ""), printed) if fate is None else fate
        if self._launch.sink is not None:
            duration_ms = (time.monotonic() - self.started_s) * 1000
            self._launch.sink.write("", logs.init_report(printed, duration_ms, error.error_type))
        return error

    def succeeded_init(self) -> None:
        """Log what a process that runs no invocations has printed."""
        if self._launch.sink is not None:
            duration_ms = (time.monotonic() - self.started_s) * 1000
            self._launch.sink.write("", logs.init_report(self.printed(), duration_ms, None))

    def release(self) -> None:
        """Let go of all that belongs to it, once it has ended."""
        self.channel.close()
        if self.output is not None:
            self.output.close()
        os.close(self._born.exit)
        if self._cgroup is not None:
            self._cgroup.remove()
        if self._launch.lock is not None:
            self._launch.lock.forget(self.pid)


def _kill(how: Callable[[int, int], None], target: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(target, signal.SIGKILL)
