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

from handlers import bootstrap, faults, limits, log_forms, logs, scratch
from handlers.channel import Channel, Receiver
from handlers.function import FunctionSpec
from handlers.output import Heard, Output
from handlers.predecessors import WorkerLock
from router.core.model import FunctionError

#: Time to import the function's module (AWS Lambda developer guide, "Lambda execution environment lifecycle") where its
#: timeout is no longer, and to run the hooks of one restored worker ("Lambda SnapStart runtime hooks for Python").
INIT_LIMIT_S: Final = 10.0

#: Takes a return code as Popen gives it, negative for a signal; None = who could tell is gone.
Ended = Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """What all processes of one function are started with."""

    function: FunctionSpec
    #: Folder that holds the code.
    root: Path
    #: Folder that holds those in which workers may write.
    scratch: Path
    lock: WorkerLock | None
    sink: logs.LogSink | None
    #: Is what they print read? It is where there is a sink, and where somebody has asked for the log of an invocation.
    reads: bool
    cgroups: limits.CgroupHome | None
    heard: Heard | None

    @property
    def import_limit_s(self) -> float:
        """Time to import the module: as long as an invocation may take, where that is longer.

        AWS begins an import anew that has taken 10 s, within the timeout of the first invocation ("Lambda execution
        environment lifecycle"). Here it goes on: what is done in time there must not fail each time.
        """
        return max(INIT_LIMIT_S, self.function.timeout_s)

    @property
    def form(self) -> log_forms.LogForm:
        """The form of the lines around what handlers print."""
        return log_forms.JSON if self.function.json_logs else log_forms.TEXT

    def setup(self, *, forks: bool) -> dict[str, Any]:
        """Tell a new interpreter what to load, and whether it is to fork workers or to be one."""
        function = self.function
        return {
            "handler": function.handler,
            "root": str(self.root),
            "arn": function.arn,
            "concurrency": function.concurrency_per_worker,
            "logs": self.reads,
            "hooks": function.snap_start,
            "forks": forks,
        }

    def restoring(self, born: Born) -> dict[str, Any]:
        """Tell a process that was forked from one that had this setup what is its own."""
        folder = "" if "TMPDIR" in self.function.environment else str(born.scratch)
        return {"log_stream": born.stream, "scratch": folder}


@dataclass(frozen=True, slots=True)
class Unborn:
    """Why a process did not come to run the function."""

    #: Of the type `faults.NOT_STARTED` where that is not through the function's own code.
    error: FunctionError
    #: What was printed until then, and the report of it.
    log: str = ""


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
    #: Name of its log stream.
    stream: str
    #: Folder of its own, which goes with it.
    scratch: Path
    is_forked: bool = False


def spawn(launch: Launch) -> Born:
    """Start an interpreter of the function's. Raises OSError when that cannot be."""
    folder = scratch.make(launch.scratch)
    try:
        return _spawn(launch, folder)
    except OSError:
        scratch.remove(folder)
        raise


def _spawn(launch: Launch, folder: Path) -> Born:
    function = launch.function
    stream = function.log_stream()
    ends = Ends(logs=launch.reads)
    try:
        channel, output = ends.theirs
        lock = launch.lock
        arguments = (channel, -1 if lock is None else lock.descriptor, os.getpid())
        popen = subprocess.Popen(
            [function.interpreter(), "-I", bootstrap.__file__, *map(str, arguments)],
            env=function.variables(launch.root, stream=stream, scratch=folder),
            cwd=launch.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(channel,) if lock is None else (channel, lock.descriptor),
            start_new_session=True,
        )
        exit_descriptor = os.pidfd_open(popen.pid)
        return Born(popen.pid, exit_descriptor, ends, lambda ended: ended(popen.wait()), stream, folder)
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

    def printed_lines(self) -> str:
        """Give the whole lines of that; what there is of the next one stays."""
        return self.output.take_lines() if self.output is not None else ""

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

    @property
    def is_leashed(self) -> bool:
        """Has the daemon's leash killed it? To be asked before `release`."""
        return self._launch.lock is not None and self._launch.lock.is_leashed(self.pid)

    def failed_init(self, fate: FunctionError | None, status: int | None) -> Unborn:
        """Log that it ended before it was ready, and say why: its fate, or how it ended by itself."""
        printed = self.printed()
        error = faults.with_last_line(self.error(status, ""), printed) if fate is None else fate
        log = self._launch.form.init_report(printed, (time.monotonic() - self.started_s) * 1000, error.error_type)
        if self._launch.sink is not None:
            self._launch.sink.write("", log, self._born.stream)
        return Unborn(error, log)

    def succeeded_init(self) -> None:
        """Log what a process that runs no invocations has printed."""
        if self._launch.sink is not None:
            duration_ms = (time.monotonic() - self.started_s) * 1000
            log = self._launch.form.init_report(self.printed(), duration_ms, None)
            self._launch.sink.write("", log, self._born.stream)

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
        asyncio.get_running_loop().run_in_executor(None, scratch.remove, self._born.scratch)


def _kill(how: Callable[[int, int], None], target: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(target, signal.SIGKILL)
